//! Avro bytes to Arrow columns, by a plan compiled once for each writer schema and [`pipeline::shape::Shape`].
//!
//! ```text
//! writer schema ─┐
//!                ├─ Plan::compile ─► Plan ──decode(payload)──► Columns ──finish──► RecordBatch
//! Shape ─────────┘
//! ```
//!
//! **Invariant:** a payload that cannot be decoded leaves the columns exactly as they were. Every column is a set of plain
//! vectors, so undoing a row is cutting them back to the rows that were there; it costs about what a good row costs.
//!
//! **Invariant:** whether a payload decodes depends on the writer schema and the bytes alone. Fields without a column are
//! walked with the same checks and charged the same text as the others, so a table that lags behind its schema never
//! changes what is a dead letter.
//!
//! What other Avro readers accept is accepted (the tests compare with `apache-avro`), except for the limits below, which
//! keep a few bytes from claiming gigabytes: see [`DEPTH_MAX`], [`ZERO_WIDTH_ITEMS_MAX`] and [`TEXT_BYTES_MAX`].

mod cursor;
mod error;
mod types;
mod json;
mod column;
mod columns;
mod slot;
mod scalar;
mod compile;
mod plan;

pub(crate) use column::renew;
pub use columns::Columns;
pub use error::{DecodeError, PlanError};
pub use plan::Plan;

/// Records, arrays and maps may nest this deep, the event itself counted as one; deeper is `too_deep`.
pub const DEPTH_MAX: u32 = 64;

/// Array and map items that take no bytes at all (an array of nulls), for each event; more is `too_large`. Other items
/// are bounded by the bytes that are left.
pub const ZERO_WIDTH_ITEMS_MAX: u32 = 65_536;

/// Bytes of text that one event may expand to where the text is longer than its encoding (JSON, enum symbols), whether
/// or not it has a column; more is `too_large`.
pub const TEXT_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
pub(crate) mod tests;
