//! The tables: what the pipeline wants -> what the server has -> the statements between the two.
//!
//! Nothing here drops or rewrites what readers rely on: columns are added, or become able to hold a null; retention
//! and deduplication windows follow the file; everything else is refused with its reason and what to do by hand.

mod desired;
mod table;
mod rollup;
mod existing;
mod column;
mod plan;

pub use desired::{Desired, desired, feeds, low_cardinality};
pub use existing::{TableColumn, columns};
pub use plan::{Change, Plan, Refusal, add_columns, apply, plan};
