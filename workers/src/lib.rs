//! The stream processor. In the order in which an event passes through: [`frame`] finds its schema id, [`decode`] turns
//! its bytes into columns, [`collect`] gathers a batch, [`transform`] is the pure middle (envelope, rules, route,
//! [`digest`]), [`sinks`] delivers what was promised, [`settle`] reads back what is in doubt, [`witnesses`]
//! asks what sinks have of a partition. [`lane`] is the loop that
//! owns all of it, [`worker`] starts lanes and what they share.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod frame;
pub mod decode;
pub mod collect;
pub mod model;
pub mod transform;
pub mod records;
pub mod charges;
pub mod digest;
pub mod audit;
pub mod brake;
pub mod breaker;
pub mod guard;
pub mod sinks;
pub mod settle;
pub mod witnesses;
pub mod partitions;
pub mod rollups;
pub mod lane;
pub mod rulebook;
pub(crate) mod prerequisites;
pub mod worker;
pub mod metrics;
pub mod endpoint;
#[cfg(test)]
mod differential;

pub use worker::{Options, WorkerError, run};
