//! The audit: one record for each commit, in the transaction that commits. It says which ranges, with which rules, and what
//! became of them, so that a verifier can check that ranges tile each partition, and recompute each with its own rules.
//! `docs/audit.md` is its form.

use std::collections::BTreeMap;

use exactly_once_kafka::Message;
use exactly_once_protocol::{Partition, RangeOutput};
use pipeline::Pipeline;
use serde::Serialize;

use crate::charges::Charges;
use crate::transform::Outputs;

/// Grows when a reader of the form before could misread the new one.
pub const VERSION: u32 = 1;

/// One commit.
#[derive(Debug, Serialize)]
struct Record<'a> {
    v: u32,
    kind: &'static str,
    pipeline: &'a str,
    /// Pipeline revision, hexadecimal.
    revision: String,
    /// `worker-lane`.
    slot: &'a str,
    /// Unix milliseconds, the worker's clock.
    at_ms: i64,
    ranges: Vec<Range<'a>>,
}

#[derive(Debug, Serialize)]
struct Range<'a> {
    topic: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    topic_id: Option<String>,
    partition: i32,
    start: i64,
    end: i64,
    /// Rules revision: its number, and the digest of its content.
    rules: u64,
    rules_digest: String,
    /// Rows, alerts, charges and dead letters together, and the digest over them.
    outputs: u32,
    digest: String,
    /// By table.
    rows: BTreeMap<&'a str, u64>,
    charges: usize,
    dead_letters: usize,
}

/// Who writes, and of what.
pub struct Writer<'a> {
    /// The pipeline.
    pub pipeline: &'a Pipeline,
    /// `worker-lane`.
    pub slot: &'a str,
    /// Kafka's ids of the sources' topics, by index.
    pub topic_ids: &'a BTreeMap<u16, u128>,
    /// Unix milliseconds.
    pub at_ms: i64,
}

impl Writer<'_> {
    /// The record of a commit of these outputs; `None` if no range is committed.
    pub fn record<'o>(&self, all: impl Iterator<Item = &'o Outputs>) -> Option<Message> {
        let mut ranges = Vec::new();
        for outputs in all {
            let mut dead: BTreeMap<Partition, usize> = BTreeMap::new();
            for letter in &outputs.dead {
                *dead.entry(letter.partition).or_default() += 1;
            }
            ranges.extend(outputs.ranges.iter().map(|output| self.range(outputs, output, &dead)));
        }
        if ranges.is_empty() {
            return None;
        }
        let record = Record {
            v: VERSION,
            kind: "commit",
            pipeline: &self.pipeline.name,
            revision: format!("{:016x}", self.pipeline.revision),
            slot: self.slot,
            at_ms: self.at_ms,
            ranges,
        };
        let value = match serde_json::to_vec(&record) {
            Ok(value) => value,
            Err(error) => {
                tracing::error!(%error, "the audit record cannot be written");
                return None;
            }
        };
        Some(Message {
            topic: self.pipeline.audit.topic.clone(),
            key: Some(self.slot.as_bytes().to_vec()),
            value: Some(value),
            headers: Vec::new(),
        })
    }

    fn range(&self, outputs: &Outputs, output: &RangeOutput, dead: &BTreeMap<Partition, usize>) -> Range<'_> {
        let range = output.range;
        let partition = range.partition;
        let rows = outputs.rows.range((partition, 0)..=(partition, usize::MAX));
        let charges = outputs.charges.get(&partition);
        Range {
            topic: &self.pipeline.sources[usize::from(partition.topic)].topic,
            topic_id: self.topic_ids.get(&partition.topic).map(|id| format!("{id:032x}")),
            partition: partition.partition,
            start: range.start,
            end: range.end,
            rules: outputs.rules.0,
            rules_digest: format!("{:016x}", outputs.rules.1),
            outputs: output.outputs,
            digest: format!("{:032x}", output.digest),
            rows: rows
                .map(|((_, table), rows)| (self.pipeline.tables[*table].name.as_str(), *rows))
                .collect(),
            charges: charges.map_or(0, Charges::len),
            dead_letters: dead.get(&partition).copied().unwrap_or_default(),
        }
    }
}
