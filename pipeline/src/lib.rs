//! The pipeline file: as typed -> checked -> topics, tables, rollups, sinks. And [`shape`]: from a topic's Avro
//! schemas to the columns that everything downstream agrees on. Pure, but for reading the file itself and its secrets; what else
//! is to be looked at, a [`Machine`] answers.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod config;
mod secret;
mod defaults;
mod machine;
mod check;
pub mod shape;

pub use check::{check, load, load_on};
pub use config::{
    AlertSink, Audit, Batch, Brake, ClickHouse, Compression, Connections, DeadLetters, EventFields, Function, GrpcSink,
    Guarantee, Kafka, Keep, Limits, Measure, PartitionBy, Pipeline, Registry, Rollup, RulesFrom, Sasl, SaslMechanism,
    SchemaIdFrom, Serve, Sinks, Source, Start, Table, Tls, Workers,
};
pub use machine::Machine;
pub use secret::{Secret, SecretError};
