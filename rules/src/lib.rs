//! A tenant's rules: a document, checked and compiled once, then applied to columns.
//!
//! Pure: no clock, no I/O, no randomness. The same events, rules and catalog give the same outputs, bytes and all.
//!
//! In the order in which the data flows: [`Catalog`] says which events there are; `written` is a document as it was
//! typed; `expression` compiles its SQL; `program` is a checked document, compiled for each event; [`Revision`] knows
//! which tenant has which program and applies them to a batch; [`Applied`] is what comes out.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod limits;
mod catalog;
mod written;
mod position;
mod expression;
mod program;
mod apply;
mod applied;
mod revision;
mod trial;

pub use applied::{Alert, Applied, Charge, Code, Failure, Route, Severity};
pub use catalog::{Catalog, EventShape, FieldDef};
pub use revision::{Revision, TenantRules, check};
pub use trial::{TestOutcome, run_tests};
