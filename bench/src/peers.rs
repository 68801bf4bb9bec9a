//! Sluice beside ClickHouse's own Kafka engine, in turn on the same parts and the same full topic: how many events a second go from the
//! log into a table, and what each process of the machine pays for one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use devstack::Part;

use crate::error::Error;
use crate::role::{Role, free_address};
use crate::stand::Stand;

/// A run that stands still for as long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much of it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Events in the topic
    #[arg(long, default_value_t = 3_000_000)]
    events: usize,
    /// Tenants, each with five rules of its own
    #[arg(long, default_value_t = 50)]
    tenants: usize,
    /// Runs of each, in turn; the median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Sluice without the peer, for a profiler
    #[arg(long)]
    alone: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What one run cost.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Run {
    /// Events a second, from the first tenth to the last event.
    pub rate: f64,
    /// CPU time of each process for an event, microseconds, from the start until ClickHouse has merged what it wants to.
    pub cpu_us: BTreeMap<&'static str, f64>,
    /// Rows of an insert, on average; not known of the peer.
    pub rows_an_insert: Option<f64>,
}

impl Run {
    /// Of all processes together.
    pub fn total_us(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

/// CPU time of the parts that everybody uses.
fn parts(stand: &Stand) -> Result<BTreeMap<&'static str, Duration>, Error> {
    Ok(BTreeMap::from([
        ("kafka", stand.cpu(Part::Kafka)?),
        ("clickhouse", stand.cpu(Part::ClickHouse)?),
    ]))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn each(time: Duration, events: usize) -> f64 {
    time.as_nanos() as f64 / 1000.0 / events as f64
}

/// Watches a number grow to `events`; answers events a second from the first tenth on.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn grown(events: usize, mut look: impl AsyncFnMut() -> Result<u64, Error>) -> Result<f64, Error> {
    let all = events as u64;
    let mut from = None;
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let there = look().await?;
        let now = Instant::now();
        if there > last {
            (last, moved) = (there, now);
        }
        if from.is_none() && there >= all / 10 {
            from = Some((there, now));
        }
        if there >= all {
            let (first, began) = from.unwrap_or((0, moved));
            return Ok((there - first) as f64 / (now - began).as_secs_f64().max(0.001));
        }
        if moved.elapsed() > PATIENCE {
            return Err(Error::Failed(format!(
                "{last} of {events} events after {PATIENCE:?} without another"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// ClickHouse's Kafka engine into a table of the same columns (at least once, no rules, no alerts, no billing).
async fn kafka_engine(stand: &Stand, options: Options, number: usize) -> Result<Run, Error> {
    let database = format!("engine_{number}");
    let columns = "event_id String, tenant_id LowCardinality(String), type LowCardinality(String), timestamp DateTime64(3), \
        user_id Nullable(String), anonymous_id String, session_id String, amount_cents Nullable(Int64), \
        currency LowCardinality(Nullable(String)), context Tuple(locale Nullable(String), page_url Nullable(String), \
        page_path Nullable(String), screen_w Nullable(Int32), screen_h Nullable(Int32)), \
        properties Map(LowCardinality(String), String)";
    let plain = columns
        .replace("LowCardinality(Nullable(String))", "Nullable(String)")
        .replace("LowCardinality(String)", "String");
    stand.sql(&format!("CREATE DATABASE {database}")).await?;
    stand
        .sql(&format!(
            "CREATE TABLE {database}.k_out ({columns}) ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) \
             ORDER BY (tenant_id, type, timestamp)"
        ))
        .await?;
    let before = parts(stand)?;
    stand
        .sql(&format!(
            "CREATE TABLE {database}.k_in ({plain}) ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = 'events', \
             kafka_group_name = '{database}', kafka_format = 'AvroConfluent', format_avro_schema_registry_url = '{}', \
             kafka_num_consumers = 2, kafka_thread_per_consumer = 1, kafka_max_block_size = 65536, kafka_flush_interval_ms = 500, \
             kafka_poll_max_batch_size = 65536",
            stand.stack.kafka, stand.stack.registry
        ))
        .await?;
    stand
        .sql(&format!(
            "CREATE MATERIALIZED VIEW {database}.k_mv TO {database}.k_out AS SELECT * FROM {database}.k_in"
        ))
        .await?;
    let count = format!("SELECT count() FROM {database}.k_out");
    let rate = grown(options.events, async || stand.number(&count).await).await?;
    stand.quiet().await?;
    let cpu_us = spent(&before, &parts(stand)?, options.events);
    stand.sql(&format!("DROP DATABASE {database} SYNC")).await?;
    Ok(Run {
        rate,
        cpu_us,
        rows_an_insert: None,
    })
}

fn spent(
    before: &BTreeMap<&'static str, Duration>,
    after: &BTreeMap<&'static str, Duration>,
    events: usize,
) -> BTreeMap<&'static str, f64> {
    let spent = |(name, time): (&&'static str, &Duration)| {
        let began = before.get(name).copied().unwrap_or_default();
        (*name, each(time.saturating_sub(began), events))
    };
    after.iter().map(spent).collect()
}

/// One worker and the billing service, everything on: rules, alerts, charges, exactly once.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn sluice(stand: &Stand, options: Options, number: usize) -> Result<Run, Error> {
    let name = format!("sluice_{number}");
    let billing = free_address()?;
    let dir = stand
        .pipeline(&name, &format!("http://{billing}"), options.tenants)
        .await?;
    let before = parts(stand)?;
    let mut billing = Role::start(&dir, "billing", "--http").await?;
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    let rate = grown(options.events, async || {
        worker.alive()?;
        billing.alive()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(worker.metric("sluice_records_committed_total").await as u64)
    })
    .await?;
    stand.quiet().await?;
    let mut after = parts(stand)?;
    after.extend([("worker", worker.cpu()?), ("billing", billing.cpu()?)]);
    let inserts = worker.metric("sluice_insert_seconds_count").await;
    worker.stop().await?;
    billing.stop().await?;
    let rows = stand.number(&format!("SELECT count() FROM {name}.events")).await?;
    if rows != options.events as u64 {
        return Err(Error::Failed(format!("{rows} rows of {} events", options.events)));
    }
    stand.sql(&format!("DROP DATABASE {name} SYNC")).await?;
    Ok(Run {
        rate,
        cpu_us: spent(&before, &after, options.events),
        rows_an_insert: Some(rows as f64 / inserts.max(1.0)),
    })
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

fn line(name: &str, run: &Run) {
    let each: Vec<String> = run.cpu_us.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    let inserts = run.rows_an_insert.map(|rows| format!("; {rows:.0} rows an insert"));
    println!(
        "{name:<14} {:>9.0} events/s  {:>6.2} us of CPU an event: {}{}",
        run.rate,
        run.total_us(),
        each.join(", "),
        inserts.unwrap_or_default()
    );
}

/// Measures and prints.
///
/// # Errors
/// When a part or a role fails, or a row is missing.
pub async fn run(options: Options) -> Result<(), Error> {
    let stand = Stand::up().await?;
    stand.fill(options.events, options.tenants).await?;
    let (mut engines, mut sluices) = (Vec::new(), Vec::new());
    for number in 0..options.runs.max(1) {
        if !options.alone {
            engines.push(kafka_engine(&stand, options, number).await?);
        }
        sluices.push(sluice(&stand, options, number).await?);
        if !options.json {
            engines.last().iter().for_each(|run| line("Kafka engine", run));
            line("Sluice", &sluices[number]);
        }
    }
    if options.alone {
        return stand.down().await;
    }
    let of = |runs: &[Run], figure: fn(&Run) -> f64| median(runs.iter().map(figure).collect());
    let cpu = of(&engines, Run::total_us) / of(&sluices, Run::total_us);
    let rate = of(&sluices, |run| run.rate) / of(&engines, |run| run.rate);
    if options.json {
        let all = serde_json::json!({"kafka_engine": engines, "sluice": sluices, "cpu_ratio": cpu, "rate_ratio": rate});
        println!("{all}");
    } else {
        println!(
            "medians of {}: Sluice takes 1/{cpu:.2} of the Kafka engine's CPU for an event, and moves {rate:.2} times as many a second",
            options.runs
        );
    }
    stand.down().await
}
