//! What has to be there before the first record is read: topics, and tables with all their columns. Each is waited for, and
//! `/readyz` and the log say what is missing and what to do.

use std::sync::Arc;
use std::time::Duration;

use exactly_once_kafka::{Connection, missing_topics};
use pipeline::Pipeline;

use crate::model::Model;
use crate::worker::TRY_EVERY;

/// How long the brokers have to say which topics they have.
const METADATA_WITHIN: Duration = Duration::from_secs(5);

/// Gives the tables of these sources the columns that they lack.
pub(crate) async fn complete_tables(
    model: &Model,
    clickhouse: &clickhouse_sink::Client,
    sources: impl Iterator<Item = usize>,
) -> Result<(), clickhouse_sink::Error> {
    for source in sources {
        for name in &model.catalog.events[source].tables {
            let low = model
                .table(name)
                .map(|table| Arc::clone(&model.low_cardinality[table]))
                .unwrap_or_default();
            let columns = &model.shapes[source].columns;
            let done = clickhouse_sink::schema::add_columns(clickhouse, name, columns, &low).await?;
            for change in &done.changes {
                tracing::info!(table = name, sql = change.sql, "table evolved");
            }
        }
    }
    Ok(())
}

/// Schemas may have got newer versions while no worker ran: before the first record the tables have all their columns.
/// Waits for a ClickHouse that is away, and for an operator where a table is missing or cannot be changed.
/// The model is made anew each time, because the mistake may have been in the registry.
///
/// # Errors
/// Those of `model`.
pub(crate) async fn first_tables<E>(
    model: impl AsyncFn() -> Result<Model, E>,
    clickhouse: &clickhouse_sink::Client,
    health: &serve::Health,
) -> Result<Model, E> {
    let part = health.part("clickhouse");
    let mut told = String::new();
    loop {
        let model = model().await?;
        let Err(error) = complete_tables(&model, clickhouse, 0..model.shapes.len()).await else {
            part.ready(true, "");
            return Ok(model);
        };
        let reason = error.to_string();
        if told != reason {
            tracing::warn!(%error, "nothing is read before the tables are ready");
        }
        part.ready(false, &reason);
        told = reason;
        tokio::time::sleep(TRY_EVERY).await;
    }
}

/// Waits for topics that are not there, and says which and what to do: a consumer would wait in silence, and a dead letter
/// without a topic would hold up everything else.
pub(crate) async fn first_topics(pipeline: &Pipeline, client: Connection, health: &serve::Health) {
    let sources = pipeline.sources.iter();
    let mut wanted: Vec<String> = sources
        .flat_map(|source| [source.topic.clone(), source.dead_letter_topic.clone()])
        .chain(pipeline.sinks.alerts.iter().map(|alerts| alerts.topic.clone()))
        .chain([pipeline.audit.topic.clone()])
        .collect();
    wanted.sort_unstable();
    wanted.dedup();
    let part = health.part("topics");
    let mut told = String::new();
    loop {
        let (client, wanted) = (client.clone(), wanted.clone());
        let asked = tokio::task::spawn_blocking(move || missing_topics(&client, &wanted, METADATA_WITHIN)).await;
        let reason = match asked {
            Ok(Ok(missing)) if missing.is_empty() => break,
            Ok(Ok(missing)) => format!("no such topic: {}; run `sluice schema apply`", missing.join(", ")),
            Ok(Err(error)) => error.to_string(),
            Err(error) => error.to_string(),
        };
        if told != reason {
            tracing::warn!("nothing is read before Kafka has all topics: {reason}");
        }
        part.ready(false, &reason);
        told = reason;
        tokio::time::sleep(TRY_EVERY).await;
    }
    part.ready(true, "");
}
