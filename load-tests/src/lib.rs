//! Load for Sluice: makes events up, drives them into Kafka on a fixed schedule, and measures when they become visible.
//!
//! A program of its own that shares no code with the worker: it encodes, registers and queries with clients of its own, so that
//! a mistake of the worker's cannot hide in it. In the order in which the data flows:
//!
//! - [`generate`]: a seed becomes [`event`]s;
//! - [`encode`]: events become Avro, `frame` puts the schema id on, [`poison`] breaks some on purpose;
//! - [`register`]: the schemas get their ids;
//! - [`drive`]: the open loop, and exactly what Kafka acknowledged;
//! - [`latency`]: publish to visible;
//! - [`envelope`]: the one event of 203 bytes that figures of speed are about, and a topic full of it.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod random;
mod sample;
pub mod event;
pub mod generate;
pub mod encode;
mod frame;
pub mod poison;
pub mod register;
pub mod drive;
pub mod latency;
pub mod envelope;
mod error;

pub use error::Error;
pub use frame::Framing;

fn unix_ms() -> i64 {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
