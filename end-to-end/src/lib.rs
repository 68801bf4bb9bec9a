//! What the end-to-end tests stand on: one real Kafka, registry and ClickHouse for all scenarios, and for each scenario a
//! pipeline of its own whose roles are `sluice` processes that can be killed. In the order of a scenario's life: the
//! [`World`] with the real parts, the [`Scenario`] in it, its [`shop`] pipeline, the roles, the [`Load`], and what is asked
//! in the end.
//!
//! ```text
//! World (devstack, one for all) ── Scenario (pipeline file, topics and database of its own)
//!                                     ├─ roles: sluice config | billing | worker, each a process
//!                                     ├─ Load: load_tests::drive
//!                                     └─ verified(): verify::run, and the driver's counts
//! ```
//!
//! **Invariant:** nothing waits by sleeping for a fixed time; [`until`] asks again until a deadline.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A crate of tests: a failure is a panic that says why.

mod world;
mod scenario;
pub mod shop;
mod role;
mod load;
mod offsets;
mod evidence;
mod reader;
mod clock;
mod ask;
mod commands;

pub use ask::{Http, until};
pub use clock::Clock;
pub use commands::Commands;
pub use load::Load;
pub use offsets::{Committed, End};
pub use reader::Reader;
pub use role::{free_port, program};
pub use scenario::{Metrics, Scenario, Worker, run, run_in, run_on_cluster};
pub use world::{World, runtime};
