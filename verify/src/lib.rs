//! The exact verifier: recomputes from the log what every sink must hold, reads what it holds, and compares the two as
//! multisets. An event that is lost, doubled, altered or out of nowhere is named by topic, partition, offset and id.
//!
//! ```text
//! audit ───────────────────────┐ which rules, and do ranges tile?
//! source topics ─ kafka ─► judge (avro, rules) ──► what must be there ─┐
//!                                                                      ├─ ledger ─► Report
//! ClickHouse, alert and dead-letter topics, billing ─► what is there ──┘
//! ```
//!
//! It shares no code with what it checks: its own Kafka consumer, registry client and ClickHouse reader, and
//! `apache-avro`'s slow decoding into values. What it has in common with the workers, openly:
//!
//! - `pipeline`: what the pipeline file says, and the shape of a topic's columns;
//! - `rules`: the rules are evaluated by the same crate, on batches that this crate builds itself from decoded values. A
//!   fault inside `rules` is therefore not seen here; the rules' own tests have to;
//! - `proto`: the messages of the billing service.
//!
//! **Invariant:** memory is a few dozen bytes for each output (a place in the log and a 128-bit hash), never its text.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod options;
mod error;
mod kafka;
mod registry;
mod avro;
mod writer;
mod cell;
mod arrow_cells;
mod judge;
mod audit;
mod ledger;
mod row_binary;
mod clickhouse;
mod rollups;
mod alerts;
mod dead_letters;
mod billing;
mod charged;
mod verified;
mod event_ids;
mod position;
mod report;
mod run;
mod role;

pub use audit::RulesId;
pub use error::Error;
pub use options::{Options, Revisions, RulesRevision, Until};
pub use position::Position;
pub use report::{Report, SinkReport};
pub use role::{Watch, Watched, watch};
pub use run::{round, run};

#[cfg(test)]
mod tests;
