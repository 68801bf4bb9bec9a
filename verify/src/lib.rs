//! The exact verifier: recomputes from the log what every sink must hold, reads what it holds, and compares the two as
//! multisets, output by output: those of one place in the log (topic, partition, offset, and which of the event's outputs), and
//! then their content. What is lost, doubled, altered or out of nowhere is named by its place, and by the event's id.
//!
//! ```text
//! audit ───────────────────────┐ which rules, do ranges tile, and do they count right?
//! source topics ─ kafka ─► judge (avro, rules) ──► what must be there ─┐
//!                                                                      ├─ ledger ─► Report
//! ClickHouse, alert and dead-letter topics, billing ─► what is there ──┘
//! ```
//!
//! It uses no code of the workers, the sinks or the protocol. Its Kafka consumer, registry client, ClickHouse reader, billing
//! client and reader of rules revisions are its own, and so is its decoding, by `apache-avro` into values. Five crates of the
//! workspace it has in common with them (`devstack/tests/walls.rs` allows no other), and a fault in these it cannot see:
//!
//! - `rules`, and `document` below it: what a tenant's rules do to an event. The batches that they are applied to are built here,
//!   from decoded values. A second evaluator of the language would be a second language. Against a fault: `rules/tests/`, a
//!   user's own `sluice rules test`, and `end-to-end/tests/on_real_parts/rules.rs`, which computes in SQL, from what the driver
//!   wrote down, what each action must have done;
//! - `pipeline`: the reader of the pipeline file, and which columns a topic's schemas give (`pipeline::shape`). Against a fault:
//!   its own tests, and `end-to-end/tests/on_real_parts/own_data.rs`, which compares rows with the values that it produced;
//! - `proto`: generated from the `.proto` files, for billing and the rules service;
//! - `serve`: metrics, health and the stop of the role. Nothing that is compared passes through it.
//!
//! Libraries of others are in common, too: librdkafka, Arrow, tonic, reqwest, and `apache-avro`, by which workers read schemas (but
//! no payloads: `workers/src/decode/tests/differential.rs` holds their decoder against it).
//!
//! **Invariant:** memory is 100 to 250 bytes for each output (a place in the log and hashes), never its text.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod options;
mod error;
mod kafka;
mod endpoint;
mod rulebook;
mod registry;
mod avro;
mod writer;
mod cell;
mod arrow_cells;
mod judge;
mod audit;
mod ledger;
mod counts;
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
