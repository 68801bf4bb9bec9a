//! Where a pipeline's partitions stand, for operators; and how one is started elsewhere while no worker runs.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exactly_once_kafka::{Operator, Topics};
use exactly_once_protocol::{Cursor, Marks, Metadata, Partition, Promise, StopCode, Stored, disagreement};
use pipeline::Pipeline;
use serde::Serialize;
use thiserror::Error;

use crate::endpoint::EndpointError;
use crate::metrics::Metrics;
use crate::model::tables_of;
use crate::records::rfc3339;
use crate::settle::safe;
use crate::sinks::{Sinks, query_prefix};
use crate::witnesses::{WitnessError, described, witnesses};
use crate::worker::{WorkerError, clickhouse, connection, guarantee, start};

const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A transaction that is open on an offset ends within its own timeout.
const READABLE_WITHIN: Duration = Duration::from_secs(60);
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// One partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionState {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// The committed offset.
    pub committed: Option<i64>,
    /// The end of the range that is promised from the committed offset on.
    pub promised_to: Option<i64>,
    /// What is pending from the committed offset on.
    pub promise: Option<Promised>,
    /// The oldest offset that the topic still has.
    pub oldest: i64,
    /// One past the newest record.
    pub end: i64,
    /// The code with which a worker that takes the partition stops it at once.
    pub stops: Option<&'static str>,
    /// What offset and sinks say, in words.
    pub found: String,
}

/// A promise, as far as operators compare it with something else: the rules, `sluice check --json`, ClickHouse's query log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Promised {
    /// The end of the range: the committed offset itself where only rollups are fed.
    pub to: i64,
    /// How many outputs the range has.
    pub outputs: u32,
    /// Number of the rules revision, and the digest of its content.
    pub rules: u64,
    /// See `rules`.
    pub rules_digest: String,
    /// Revision of the pipeline file.
    pub pipeline: String,
    /// Names the attempt in insert tokens and query ids.
    pub token: String,
    /// 0 for the first promise of a range.
    pub attempt: u16,
    /// By the sink's clock: no insert of it begins afterwards.
    pub deadline: String,
}

impl Promised {
    fn of(promise: &Promise) -> Promised {
        Promised {
            to: promise.end,
            outputs: promise.outputs,
            rules: promise.rules.0,
            rules_digest: format!("{:016x}", promise.rules.1),
            pipeline: format!("{:016x}", promise.pipeline),
            token: format!("{:016x}", promise.token),
            attempt: promise.attempt,
            deadline: rfc3339(promise.deadline_ms),
        }
    }
}

/// A start that sinks do not contradict.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What is there now, in words: a promise is named nowhere else once the start has taken place.
    pub before: String,
    /// Where the partition is to go on.
    pub at: i64,
    partition: Partition,
    metadata: Metadata,
}

/// What was taken out of a partition's tables.
#[derive(Debug, Clone)]
pub struct DeletedRows {
    /// Each table with how many rows there were.
    pub tables: Vec<(String, u64)>,
    /// The committed offset, if rows before it were to go: nothing brings those back by itself.
    pub committed: Option<i64>,
}

/// Why nothing was found out or changed.
#[derive(Debug, Error)]
pub enum PartitionsError {
    /// The pipeline file lacks an address, or a secret cannot be read.
    #[error(transparent)]
    Worker(#[from] WorkerError),
    /// A gRPC sink's address or certificates are unusable.
    #[error("a gRPC sink: {0}")]
    Endpoint(#[from] EndpointError),
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] exactly_once_kafka::Error),
    /// Kafka does not answer.
    #[error("kafka: {0}")]
    Unanswered(String),
    /// A sink could not be asked.
    #[error("{0}: start the sink, or mend its address, user or database in `connections` or `sinks`, and ask again")]
    Sink(#[from] WitnessError),
    /// Not a partition of the pipeline's.
    #[error("{topic}/{partition} is no partition of a source of this pipeline; there are: {known}")]
    Unknown {
        /// As given.
        topic: String,
        /// As given.
        partition: i32,
        /// Topics with their numbers of partitions.
        known: String,
    },
    /// The committed offset has changed since it was looked at.
    #[error("a worker has run meanwhile, and the partition's offset has moved: stop all workers, and look again")]
    Moved,
    /// The log does not have the offset.
    #[error("{at} is outside of what the topic has, {oldest} to {end}: a worker could not read it")]
    Outside {
        /// As given.
        at: i64,
        /// The oldest offset.
        oldest: i64,
        /// Behind the newest record.
        end: i64,
    },
    /// A worker would stop the partition at once.
    #[error("nothing was changed, because a worker would stop the partition there with {code}: {found}\n{remedy}")]
    Stops {
        /// The code.
        code: &'static str,
        /// What sinks have.
        found: String,
        /// What to do.
        remedy: String,
    },
}

/// A pipeline's partitions.
pub struct Partitions {
    pipeline: Arc<Pipeline>,
    topics: Topics,
    operator: Operator,
    sinks: Sinks,
}

impl Partitions {
    /// Connects lazily.
    pub fn of(pipeline: Pipeline) -> Result<Partitions, PartitionsError> {
        let pipeline = Arc::new(pipeline);
        let topics = Topics::new(pipeline.sources.iter().map(|source| source.topic.clone()).collect());
        let operator = Operator::new(&connection(&pipeline, "partitions")?, &topics)?;
        let metrics = Arc::new(Metrics::new(&mut serve::registry()));
        let health = serve::Health::new("partitions");
        let sinks = Sinks::new(Arc::clone(&pipeline), clickhouse(&pipeline)?, health, metrics)?;
        Ok(Partitions {
            pipeline,
            topics,
            operator,
            sinks,
        })
    }

    /// The committed offset of every partition, with its topic's name; no sink is asked.
    pub(crate) async fn committed(&self) -> Result<Vec<(Partition, String, Stored)>, PartitionsError> {
        let partitions = self.operator.partitions(ANSWER_WITHIN)?;
        let stored = self.readable(&partitions).await?;
        let named = |(partition, stored)| (partition, self.topics.name(partition).to_owned(), stored);
        Ok(stored.into_iter().map(named).collect())
    }

    pub(crate) fn clickhouse(&self) -> &clickhouse_sink::Client {
        &self.sinks.clickhouse
    }

    /// Where every partition stands. Blocks the thread while Kafka answers.
    pub async fn list(&self) -> Result<Vec<PartitionState>, PartitionsError> {
        let partitions = self.operator.partitions(ANSWER_WITHIN)?;
        let mut states = Vec::new();
        for (partition, stored) in self.stored(&partitions).await? {
            let (oldest, end) = self.operator.watermarks(partition, ANSWER_WITHIN)?;
            let promise = match &stored.metadata {
                Ok(Metadata::Promised(promise)) => Some(promise),
                _ => None,
            };
            let promised_to = promise.filter(|promise| promise.end > promise.start);
            let gone = stored.committed && stored.offset < oldest;
            let stops = disagreement(&stored, guarantee(&self.pipeline))
                .err()
                .or(gone.then_some(StopCode::OffsetsGone));
            states.push(PartitionState {
                topic: self.topics.name(partition).to_owned(),
                partition: partition.partition,
                committed: stored.committed.then_some(stored.offset),
                promised_to: promised_to.map(|promise| promise.end),
                promise: promise.map(Promised::of),
                oldest,
                end,
                stops: stops.map(StopCode::code),
                found: described(&self.pipeline, &stored),
            });
        }
        Ok(states)
    }

    /// Looks whether a partition can go on at `at`, whatever is committed or promised now. Refused where a worker would stop at
    /// once because sinks have something else, and while workers run.
    pub async fn plan(&self, topic: &str, partition: i32, at: i64) -> Result<Planned, PartitionsError> {
        // Kafka would refuse the offset in the end, but only after the audit has its record.
        self.nobody_works()?;
        let partition = self.partition(topic, partition)?;
        self.within(partition, at)?;
        let before = self.readable(&[partition]).await?;
        if let Some((_, stored)) = before.first() {
            self.wait_for_inserts(stored).await?;
        }
        let before = before
            .first()
            .map(|(_, stored)| described(&self.pipeline, stored))
            .unwrap_or_default();
        let topics = self.topic_ids(&[partition])?;
        let told = witnesses(&self.sinks, &topics, &[(partition, at)])
            .await?
            .remove(&partition);
        let has = |(sink, cursor): &(u64, Cursor)| matches!(cursor, Cursor::At(_)).then_some(*sink);
        let mut sinks: Vec<u64> = told
            .iter()
            .flat_map(|told| told.cursors.iter().filter_map(has))
            .collect();
        sinks.sort_unstable();
        let marks = Marks {
            topic: topics.get(&partition.topic).copied(),
            sinks,
        };
        let metadata = Metadata::Settled { marks, fed: at };
        let stored = Stored {
            offset: at,
            committed: true,
            metadata: Ok(metadata.clone()),
            witnesses: told,
        };
        if let Err(code) = disagreement(&stored, guarantee(&self.pipeline)) {
            return Err(PartitionsError::Stops {
                code: code.code(),
                found: described(&self.pipeline, &stored),
                remedy: self.remedy(partition, &stored),
            });
        }
        Ok(Planned {
            before,
            at,
            partition,
            metadata,
        })
    }

    /// The audit's record of a start. It has to be written before [`Partitions::start`]: one that is missing would be a false alarm
    /// of the verifier's for ever, and one whose start did not take place counts for nothing, because no range begins there.
    pub fn audit(&self, planned: &Planned) -> Vec<u8> {
        let record = serde_json::json!({
            "v": crate::audit::VERSION,
            "kind": "start",
            "pipeline": self.pipeline.name,
            "at_ms": crate::sinks::unix_ms(),
            "topic": self.topics.name(planned.partition),
            "partition": planned.partition.partition,
            "at": planned.at,
            "was": planned.before,
        });
        record.to_string().into_bytes()
    }

    /// Lets the partition go on there. Refused while workers run.
    pub fn start(&self, planned: &Planned) -> Result<(), PartitionsError> {
        Ok(self.operator.commit(planned.partition, planned.at, &planned.metadata)?)
    }

    /// Fails where a cursor cannot stand: no such partition, outside of what the topic has, or while a worker is in the group.
    pub fn check_place(&self, topic: &str, partition: i32, at: i64) -> Result<(), PartitionsError> {
        self.nobody_works()?;
        let partition = self.partition(topic, partition)?;
        self.within(partition, at)
    }

    fn nobody_works(&self) -> Result<(), PartitionsError> {
        Ok(self.operator.nobody_in_group(ANSWER_WITHIN)?)
    }

    fn within(&self, partition: Partition, at: i64) -> Result<(), PartitionsError> {
        let (oldest, end) = self.operator.watermarks(partition, ANSWER_WITHIN)?;
        match (oldest..=end).contains(&at) {
            true => Ok(()),
            false => Err(PartitionsError::Outside { at, oldest, end }),
        }
    }

    /// Takes the rows of these offsets of a partition out of all its tables. Refused while workers run, and once one has run
    /// meanwhile. A promised range is not forgotten: its owner inserts what it then lacks. Rows of what is committed come again only
    /// if the partition is started there.
    pub async fn delete_rows(
        &self,
        topic: &str,
        partition: i32,
        offsets: Range<i64>,
    ) -> Result<DeletedRows, PartitionsError> {
        self.nobody_works()?;
        let partition = self.partition(topic, partition)?;
        let before = self.readable(&[partition]).await?;
        // Unreadable metadata promise nothing that could still land.
        for (_, stored) in &before {
            self.wait_for_inserts(stored).await?;
        }
        let range = clickhouse_sink::Range {
            topic: topic.to_owned(),
            partition: partition.partition,
            start: offsets.start,
            end: offsets.end,
        };
        let stands = |all: &[(Partition, Stored)]| {
            let stored = all.first().map(|(_, stored)| stored);
            stored.map(|stored| (stored.offset, stored.metadata.clone()))
        };
        let mut tables = Vec::new();
        for table in tables_of(&self.pipeline, &self.pipeline.sources[usize::from(partition.topic)]) {
            self.nobody_works()?;
            if stands(&self.readable(&[partition]).await?) != stands(&before) {
                return Err(PartitionsError::Moved);
            }
            let rows = self.sinks.clickhouse.remove(table, std::slice::from_ref(&range)).await;
            tables.push((table.to_owned(), rows.map_err(WitnessError::from)?));
        }
        let committed = before.first().map(|(_, stored)| stored);
        let committed = committed.filter(|stored| stored.committed && stored.offset > range.start);
        Ok(DeletedRows {
            tables,
            committed: committed.map(|stored| stored.offset),
        })
    }

    /// A partition of the pipeline's, by its name.
    fn partition(&self, topic: &str, number: i32) -> Result<Partition, PartitionsError> {
        let partitions = self.operator.partitions(ANSWER_WITHIN)?;
        let wanted = |one: &&Partition| self.topics.name(**one) == topic && one.partition == number;
        let found = partitions.iter().find(wanted).copied();
        found.ok_or_else(|| self.unknown(topic, number, &partitions))
    }

    /// Until nothing of a pending promise can land any more: rows that came after the sinks were asked would come twice.
    async fn wait_for_inserts(&self, stored: &Stored) -> Result<(), PartitionsError> {
        let Ok(Metadata::Promised(promise)) = &stored.metadata else {
            return Ok(());
        };
        let grace_ms = i64::try_from(self.pipeline.batch.grace.as_millis()).unwrap_or(i64::MAX);
        let after_ms = promise.deadline_ms.saturating_add(grace_ms);
        let prefix = query_prefix(&self.pipeline.name, promise.token);
        while let Some(wait) = safe(&self.sinks.clickhouse, after_ms, &prefix)
            .await
            .map_err(WitnessError::from)?
        {
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    /// Partitions of which lanes have committed more while the sinks were asked have no witnesses: the two are of different
    /// moments.
    async fn forget_moved(&self, offsets: &mut [(Partition, Stored)]) -> Result<(), PartitionsError> {
        let partitions: Vec<Partition> = offsets.iter().map(|(partition, _)| *partition).collect();
        let again = self.readable(&partitions).await?;
        for ((_, stored), (_, now)) in offsets.iter_mut().zip(again) {
            if (stored.offset, &stored.metadata) != (now.offset, &now.metadata) {
                stored.witnesses = None;
            }
        }
        Ok(())
    }

    /// With what sinks have of them.
    async fn stored(&self, partitions: &[Partition]) -> Result<Vec<(Partition, Stored)>, PartitionsError> {
        let mut offsets = self.readable(partitions).await?;
        let topics = self.topic_ids(partitions)?;
        let reaches: Vec<(Partition, i64)> = offsets
            .iter()
            .map(|(partition, stored)| (*partition, stored.reach()))
            .collect();
        let mut told = witnesses(&self.sinks, &topics, &reaches).await?;
        for (partition, stored) in &mut offsets {
            stored.witnesses = told.remove(partition);
        }
        self.forget_moved(&mut offsets).await?;
        Ok(offsets)
    }

    /// The committed offsets alone, in the order of the partitions, once no transaction is open on them.
    async fn readable(&self, partitions: &[Partition]) -> Result<Vec<(Partition, Stored)>, PartitionsError> {
        let (reader, first) = (self.operator.reader(), start(&self.pipeline));
        let until = Instant::now() + READABLE_WITHIN;
        loop {
            match reader.read(partitions, first, ANSWER_WITHIN) {
                Ok(mut offsets) => {
                    offsets.sort_unstable_by_key(|(partition, _)| *partition);
                    return Ok(offsets);
                }
                Err(error) if Instant::now() >= until => return Err(PartitionsError::Unanswered(error.to_string())),
                Err(_) => tokio::time::sleep(ASK_AGAIN).await,
            }
        }
    }

    fn topic_ids(&self, partitions: &[Partition]) -> Result<std::collections::BTreeMap<u16, u128>, PartitionsError> {
        let asked = self.operator.reader().topic_ids(partitions, ANSWER_WITHIN);
        asked.map_err(|error| PartitionsError::Unanswered(error.to_string()))
    }

    fn unknown(&self, topic: &str, partition: i32, partitions: &[Partition]) -> PartitionsError {
        let sources = self.pipeline.sources.iter().map(|source| {
            let of = |one: &&Partition| self.topics.name(**one) == source.topic;
            format!(
                "{} (0 to {})",
                source.topic,
                partitions.iter().filter(of).count().saturating_sub(1)
            )
        });
        PartitionsError::Unknown {
            topic: topic.to_owned(),
            partition,
            known: sources.collect::<Vec<_>>().join(", "),
        }
    }

    fn remedy(&self, partition: Partition, stored: &Stored) -> String {
        let Some(told) = &stored.witnesses else {
            return String::new();
        };
        let source = &self.pipeline.sources[usize::from(partition.topic)];
        let (topic, number, at) = (&source.topic, partition.partition, stored.offset);
        let mut lines = Vec::new();
        if let Some(row) = told.row_beyond {
            lines.push(format!(
                "start one past the last row ({}), or take the rows from {at} on out of ClickHouse first: sluice partitions \
                 delete-rows {topic}/{number} --from {at}",
                row + 1
            ));
        }
        for ((_, cursor), sink) in told.cursors.iter().zip(&self.pipeline.sinks.grpc) {
            match cursor {
                Cursor::At(cursor) if *cursor != at => lines.push(format!(
                    "start at the cursor of `{}` ({cursor}), or move that cursor in the sink's own store (billing: sluice \
                     partitions move-cursor {topic}/{number} --to {at})",
                    sink.name
                )),
                _ => {}
            }
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_is_told_as_others_tell_its_parts() {
        let promise = Promise {
            marks: Marks::default(),
            start: 10,
            end: 20,
            outputs: 12,
            digest: 1,
            rules: (3, 0xff),
            pipeline: 0xab,
            token: 7,
            attempt: 1,
            deadline_ms: 1_769_857_200_500,
            fed: 10,
            unknown_schemas: Vec::new(),
        };
        let told = serde_json::to_value(Promised::of(&promise)).unwrap();
        let expected = serde_json::json!({
            "to": 20, "outputs": 12, "rules": 3, "rules_digest": "00000000000000ff", "pipeline": "00000000000000ab",
            "token": "0000000000000007", "attempt": 1, "deadline": "2026-01-31T11:00:00.500Z",
        });
        assert_eq!(told, expected);
        let token = told["token"].as_str().unwrap();
        assert!(query_prefix("shop", promise.token).ends_with(token), "{token}");
    }
}
