//! On a Kafka cluster of three nodes, replication 3, two in-sync replicas at least.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod nodes;
mod bounces;
