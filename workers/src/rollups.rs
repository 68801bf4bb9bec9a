//! What rollups lack of their tables, and feeding it to them: rows of before a rollup was made, rows that were given up
//! (`docs/decisions/0009-rollups-remember-their-rows.md`), states that somebody removed.
//!
//! Of each partition this touches the rows below the offset up to which lanes have fed, and lanes feed from there on: so
//! it may run beside them. Only what a rollup lacks is fed, in windows of [`WINDOW`] offsets. Before a window is looked at, inserts
//! of other repairs of the rollup, also of one that was killed, are waited for; and an insert's token names the very rows, so
//! that two repairs that look at the same moment feed them once. If this process or the server dies before a window's insert:
//! the rows are still lacking. During it: each month's part is there or not. After it: they aren't. The next repair goes on
//! from what is there.
//!
//! What is left: two repairs of which one begins its insert after the other has looked and before the other's insert, and
//! after a former insert of the first had no effect or an unknown outcome. Run one at a time.

use std::time::Duration;

use clickhouse_sink::{Feed, Feeding, Inserted, Lack, Range};
use exactly_once_protocol::{Metadata, Partition};
use pipeline::Pipeline;
use pipeline::shape::Shape;
use serde::Serialize;
use thiserror::Error;

use crate::partitions::{Partitions, PartitionsError};
use crate::settle::safe;

/// Offsets that are looked at and fed at a time.
const WINDOW: i64 = 200_000;
/// A window's insert has to begin within this.
const BEGIN_WITHIN_MS: i64 = 30_000;
const RUNNING_MAX: Duration = Duration::from_secs(60);
/// Before a server that refused is asked again, and while another repair's insert runs.
const PAUSE: Duration = Duration::from_secs(1);
/// A window that lacks the same rows after so many inserts needs somebody to look.
const ATTEMPTS_MAX: u32 = 5;

/// What one rollup lacks of one partition, or was fed of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RollupPart {
    /// The rollup.
    pub rollup: String,
    /// The source's topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// Rows below this offset were looked at: lanes feed what lies behind.
    pub below: i64,
    /// How many were lacking.
    pub rows: u64,
}

/// Why a rollup could not be looked at or fed.
#[derive(Debug, Error)]
pub enum RollupsError {
    /// The partitions' offsets cannot be had.
    #[error(transparent)]
    Partitions(#[from] PartitionsError),
    /// ClickHouse.
    #[error("clickhouse: {0}")]
    ClickHouse(#[from] clickhouse_sink::Error),
    /// A partition's offset cannot be read.
    #[error("{topic}/{partition}: its committed offset cannot be read: `sluice partitions list` says why")]
    Unreadable {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
    },
    /// Feeding has no effect.
    #[error(
        "rollup {rollup} still lacks {rows} rows of {topic}/{partition}, offsets {start} to {end}, after {ATTEMPTS_MAX} \
             inserts: {last}; run `sluice schema plan`, and see the server's log"
    )]
    Stuck {
        /// The rollup.
        rollup: String,
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// The window.
        start: i64,
        /// Its end.
        end: i64,
        /// Rows that it lacks.
        rows: u64,
        /// How the last insert ended.
        last: String,
    },
}

/// A pipeline's rollups.
pub struct Rollups {
    pipeline: Pipeline,
    partitions: Partitions,
    feeds: Vec<Feed>,
}

impl Rollups {
    /// Connects lazily. `shapes`: of the sources.
    pub fn of(pipeline: Pipeline, shapes: &[Shape]) -> Result<Rollups, RollupsError> {
        let feeds = clickhouse_sink::schema::feeds(&pipeline, shapes);
        let partitions = Partitions::of(pipeline.clone())?;
        Ok(Rollups {
            pipeline,
            partitions,
            feeds,
        })
    }

    /// What each rollup lacks of each partition, also where that is nothing.
    pub async fn check(&self) -> Result<Vec<RollupPart>, RollupsError> {
        self.each(false).await
    }

    /// Feeds what is lacking, and says how much that was.
    pub async fn repair(&self) -> Result<Vec<RollupPart>, RollupsError> {
        self.each(true).await
    }

    async fn each(&self, feeding: bool) -> Result<Vec<RollupPart>, RollupsError> {
        let below = self.fed().await?;
        let mut parts = Vec::new();
        for feed in &self.feeds {
            let oldest = self.partitions.clickhouse().oldest(&feed.from).await?;
            for (partition, topic, below) in &below {
                if !self.feeds_from(feed, *partition) {
                    continue;
                }
                // An operator may have let it go on earlier meanwhile: lanes feed from there on then.
                let now = if feeding { self.fed().await? } else { Vec::new() };
                let now = now.iter().find(|(one, ..)| one == partition).map(|(.., now)| *now);
                let below = &now.map_or(*below, |now| now.min(*below));
                let first = oldest
                    .iter()
                    .find(|row| row.topic == *topic && row.partition == partition.partition);
                let mut rows = 0;
                let mut start = first.map_or(*below, |first| first.offset);
                while start < *below {
                    let end = below.min(&start.saturating_add(WINDOW)).to_owned();
                    let range = Range {
                        topic: topic.clone(),
                        partition: partition.partition,
                        start,
                        end,
                    };
                    rows += match feeding {
                        false => self.partitions.clickhouse().unfed(feed, &[range]).await?,
                        true => self.feed(feed, range).await?,
                    };
                    start = end;
                }
                parts.push(RollupPart {
                    rollup: feed.rollup.clone(),
                    topic: topic.clone(),
                    partition: partition.partition,
                    below: *below,
                    rows,
                });
            }
        }
        Ok(parts)
    }

    fn feeds_from(&self, feed: &Feed, partition: Partition) -> bool {
        let mut tables = self.pipeline.tables.iter();
        tables.any(|table| table.name == feed.from && table.source == usize::from(partition.topic))
    }

    /// Up to where lanes have fed rollups, of each partition that they have begun.
    async fn fed(&self) -> Result<Vec<(Partition, String, i64)>, RollupsError> {
        let mut fed = Vec::new();
        for (partition, topic, stored) in self.partitions.committed().await? {
            let below = match &stored.metadata {
                _ if !stored.committed => continue,
                Ok(Metadata::Settled { fed, .. }) => *fed,
                Ok(Metadata::Promised(promise)) => promise.fed,
                // Metadata that no lane has written says nothing about rollups.
                Ok(Metadata::Nothing) | Err(_) => {
                    let partition = partition.partition;
                    return Err(RollupsError::Unreadable { topic, partition });
                }
            };
            fed.push((partition, topic, below));
        }
        Ok(fed)
    }

    /// Feeds one window until it lacks nothing.
    async fn feed(&self, feed: &Feed, range: Range) -> Result<u64, RollupsError> {
        let clickhouse = self.partitions.clickhouse();
        let ranges = std::slice::from_ref(&range);
        let prefix = format!("sluice-repair-{}-", feed.rollup);
        let (mut lacking, mut last) = (None, String::new());
        // Goes up only after an insert that may have been taken for a repetition of one that had no effect.
        let mut attempt = 0;
        for _ in 0..=ATTEMPTS_MAX {
            while clickhouse.running(&prefix).await? {
                tokio::time::sleep(PAUSE).await;
            }
            let (rows, digest) = clickhouse.lacking(feed, ranges).await?;
            let first = *lacking.get_or_insert(rows);
            if rows == 0 {
                return Ok(first);
            }
            let deadline_ms = clickhouse.now_ms().await? + BEGIN_WITHIN_MS;
            // The same rows, the same token: whoever else feeds them now is deduplicated.
            let token = format!("{prefix}{digest:016x}-{rows}-{attempt}");
            let query_id = format!("{token}-{}-{}", std::process::id(), crate::sinks::unix_ms());
            let feeding = Feeding {
                ranges,
                lack: Lack::Some,
                token: &token,
                query_id: &query_id,
                deadline_unix_s: deadline_ms.div_euclid(1000),
                running_max: RUNNING_MAX,
            };
            match clickhouse.feed(feed, feeding).await {
                Inserted::Clean => attempt += 1,
                Inserted::Refused(reason) | Inserted::Rejected { reason, .. } => {
                    last = reason;
                    tokio::time::sleep(PAUSE).await;
                }
                // Nothing of it can land any more once this ends.
                Inserted::Doubt { reason, .. } => {
                    last = reason;
                    attempt += 1;
                    while let Some(wait) = safe(clickhouse, deadline_ms, &query_id).await? {
                        tokio::time::sleep(wait).await;
                    }
                }
            }
        }
        let (rows, _) = clickhouse.lacking(feed, ranges).await?;
        if rows == 0 {
            return Ok(lacking.unwrap_or(0));
        }
        Err(RollupsError::Stuck {
            rollup: feed.rollup.clone(),
            topic: range.topic,
            partition: range.partition,
            start: range.start,
            end: range.end,
            rows,
            last,
        })
    }
}
