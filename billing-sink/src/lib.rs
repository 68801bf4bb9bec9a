//! The gRPC billing service: takes charges exactly once, and answers what was charged.
//!
//! A delivery goes through these modules in this order. The contract that it keeps is described in `docs/delivery.md`.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod check;
mod ledger;
mod decide;
mod sqlite;
mod postgres;
mod service;
mod run;

pub use check::{CheckedPart, check, source};
pub use decide::RANGES_KEPT;
pub use ledger::{ChargesPage, Filter, Ledger, LedgerError, Moved, NO_CURSOR, Page, Source, Usage, Window};
pub use postgres::Postgres;
pub use run::{Error, Running, Settings, Store, move_cursor, serve};
pub use service::{BillingService, Metrics};
pub use sqlite::Sqlite;
