//! The real Kafka, schema registry, ClickHouse and PostgreSQL on one machine, for `sluice devstack`, `sluice up`, the demo
//! and the end-to-end tests. In the order of a stack's life: what there is, getting it, preparing and running it, a process
//! that sees to its end, and the stack itself.
//!
//! ```no_run
//! # async fn example() -> Result<(), devstack::Error> {
//! use devstack::{Options, Part};
//! let mut stack = devstack::up(Options::new(".sluice/devstack")).await?;
//! stack.kill(Part::ClickHouse).await?;
//! stack.start(Part::ClickHouse).await?; // same port, same data
//! stack.down().await
//! # }
//! ```
//!
//! **Invariant:** no part outlives the process that holds its [`Stack`], unless that said [`Stack::keep`].
//! **Invariant:** nothing is run from the cache that was not checked against the checksums in `parts/`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod part;
mod error;
mod fetch;
mod ports;
mod launch;
mod process;
mod supervise;
mod probe;
mod state;
mod stack;
mod status;

pub use error::Error;
pub use fetch::{cache_dir, fetch};
pub use launch::CLICKHOUSE_KEEPS_FREE;
pub use part::{Part, Ports};
pub use stack::{Options, Stack, launcher, up};
pub use status::{Health, PartStatus, down, status};

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// What the main of every program that calls [`up`] does first: parts are supervised by processes of the same program,
/// started with a hidden first argument. Returns none when this is not such a process, and the program goes on as usual.
///
/// ```no_run
/// use std::process::ExitCode;
/// fn main() -> ExitCode {
///     if let Some(done) = devstack::hidden_main(std::env::args_os()) {
///         return done;
///     }
///     ExitCode::SUCCESS
/// }
/// ```
pub fn hidden_main<A: Into<OsString>>(args: impl IntoIterator<Item = A>) -> Option<ExitCode> {
    let mut args = args.into_iter().skip(1).map(Into::into);
    let mode = args.next()?;
    if mode == supervise::MODE {
        Some(supervise::main(Path::new(&args.next()?)))
    } else if mode == launch::CLICKHOUSE_MODE {
        Some(launch::clickhouse_main(Path::new(&args.next()?), args.collect()))
    } else {
        None
    }
}
