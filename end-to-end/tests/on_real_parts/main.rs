//! Scenarios on the real Kafka, registry, ClickHouse and billing service, with every role a process of its own. In the end
//! every sink is compared with what was produced, by event id and content, exactly.
//!
//! The scenarios share one stack and take turns; each has a pipeline, topics, tables and a billing ledger of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod workers;
mod at_least_once;
mod outages;
mod schemas;
mod poison;
mod rules;
mod revisions;
mod own_data;
mod prerequisites;
mod watched;
mod rollups;
mod witnesses;
mod stops;
mod produce;
mod red;
