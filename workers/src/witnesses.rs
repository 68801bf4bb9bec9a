//! What sinks say of a partition, beside its committed offset.

use std::collections::BTreeMap;

use clickhouse_sink::Position;
use exactly_once_protocol::{Cursor, Metadata, Partition, Stored, Witnesses};
use pipeline::Pipeline;
use thiserror::Error;

use crate::model::tables_of;
use crate::sinks::Sinks;

/// A sink that could not be asked: ask again.
#[derive(Debug, Error)]
pub enum WitnessError {
    /// ClickHouse.
    #[error(transparent)]
    ClickHouse(#[from] clickhouse_sink::Error),
    /// A gRPC sink.
    #[error("sink `{sink}`: {reason}")]
    Grpc {
        /// As the pipeline file names it.
        sink: String,
        /// What it said, or why it could not.
        reason: String,
    },
}

/// Asks for each partition what is there from its [`Stored::reach`] on. `topics`: the topics' ids, by index of the source.
pub async fn witnesses(
    sinks: &Sinks,
    topics: &BTreeMap<u16, u128>,
    reaches: &[(Partition, i64)],
) -> Result<BTreeMap<Partition, Witnesses>, WitnessError> {
    let partitions: Vec<Partition> = reaches.iter().map(|(partition, _)| *partition).collect();
    let rows = rows(sinks, reaches).await?;
    let cursors = sinks.cursors(&partitions).await?;
    let of = |(partition, cursors): (&Partition, Vec<(u64, Cursor)>)| {
        let witnesses = Witnesses {
            topic: topics.get(&partition.topic).copied(),
            row_beyond: rows.get(partition).copied(),
            cursors,
        };
        (*partition, witnesses)
    };
    Ok(partitions.iter().zip(cursors).map(of).collect())
}

/// The last row at the given offset or later, of partitions that have one.
async fn rows(sinks: &Sinks, from: &[(Partition, i64)]) -> Result<BTreeMap<Partition, i64>, clickhouse_sink::Error> {
    let sources = &sinks.pipeline().sources;
    let mut by_table: BTreeMap<&str, Vec<Position>> = BTreeMap::new();
    for (partition, offset) in from {
        let source = &sources[usize::from(partition.topic)];
        for table in tables_of(sinks.pipeline(), source) {
            by_table.entry(table).or_default().push(Position {
                topic: source.topic.clone(),
                partition: partition.partition,
                offset: *offset,
            });
        }
    }
    let mut rows = BTreeMap::new();
    for (table, positions) in by_table {
        for found in sinks.clickhouse.rows_from(table, &positions).await? {
            let named = sources.iter().position(|source| source.topic == found.topic);
            let Some(topic) = named.and_then(|index| u16::try_from(index).ok()) else {
                continue;
            };
            let partition = Partition {
                topic,
                partition: found.partition,
            };
            let last = rows.entry(partition).or_insert(found.offset);
            *last = found.offset.max(*last);
        }
    }
    Ok(rows)
}

/// What is stored of a partition, in words for operators.
pub fn described(pipeline: &Pipeline, stored: &Stored) -> String {
    let offset = stored.offset;
    let mut text = match &stored.metadata {
        _ if !stored.committed => "the group has no offset".to_owned(),
        Ok(Metadata::Promised(promise)) if promise.end > offset => {
            format!("committed offset {offset}, promised up to {}", promise.end)
        }
        Ok(Metadata::Nothing) => format!("committed offset {offset} without metadata"),
        Ok(_) => format!("committed offset {offset}"),
        Err(fault) => format!("committed offset {offset}; {fault}"),
    };
    let Some(witnesses) = &stored.witnesses else {
        return text;
    };
    if let Some(row) = witnesses.row_beyond {
        text += &format!("; ClickHouse has a row of offset {row}");
    }
    for ((_, cursor), sink) in witnesses.cursors.iter().zip(&pipeline.sinks.grpc) {
        let name = &sink.name;
        match cursor {
            Cursor::Untold => {}
            Cursor::Nothing => text += &format!("; `{name}` has nothing of the partition"),
            Cursor::At(offset) => text += &format!("; the cursor of `{name}` is {offset}"),
        }
    }
    text
}
