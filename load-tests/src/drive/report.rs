//! What a run tells while it goes on and when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Where a run stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Since the start.
    pub elapsed: Duration,
    /// Good events that Kafka acknowledged.
    pub acknowledged: u64,
    /// Broken events that Kafka acknowledged.
    pub poison: u64,
    /// Events that Kafka refused.
    pub failed: u64,
    /// Sent and not yet answered.
    pub in_flight: u64,
    /// How far the sender was behind its schedule at worst, ms.
    pub late_ms_max: u64,
}

/// What was produced.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The seed of the run.
    pub seed: u64,
    /// Good events that Kafka acknowledged.
    pub produced: u64,
    /// Broken events that Kafka acknowledged, by kind.
    pub poison: BTreeMap<String, u64>,
    /// Events without an acknowledgement: whether they are in the log is not known. Above 0 the digests below say less than the log.
    pub failed: u64,
    /// Why the last of them failed.
    pub last_failure: Option<String>,
    /// From the start to the last acknowledgement, seconds.
    pub seconds: f64,
    /// Good and broken events by second.
    pub events_per_second: f64,
    /// How far the sender was behind its schedule at worst, ms: above some tens the load was not the one asked for.
    pub late_ms_max: u64,
    /// By topic.
    pub topics: Vec<TopicReport>,
}

/// What one topic got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicReport {
    /// The topic.
    pub topic: String,
    /// Good events acknowledged.
    pub produced: u64,
    /// Of these, how many were written with the second schema version.
    pub second_version: u64,
    /// Broken events acknowledged.
    pub poison: u64,
    /// Exclusive or of the good events' ids as 128-bit numbers; 32 hex digits.
    pub id_xor: String,
    /// Sum of the same, modulo 2^128; 32 hex digits. Together with the count it tells one lost or doubled event.
    pub id_sum: String,
}
