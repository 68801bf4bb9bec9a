//! The sink for tables: columns -> Native block -> insert, read-back, and the tables themselves. Of the worker's
//! crates the only one that talks to ClickHouse (26.2 or later: older servers lack settings that inserts pin).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod sql;
mod client;
mod plain;
mod hash;
mod order;
mod dictionary;
mod native;
mod frames;
mod block;
mod verdict;
mod insert;
mod read_back;
mod feed;
mod remove;
pub mod schema;

pub use block::{Block, Dated, Identity, encode, fits_one_block};
pub use client::Client;
pub use error::Error;
pub use feed::{Feed, Feeding, Lack};
pub use hash::row_hashes;
pub use insert::{Insert, Inserted};
pub use order::sort_order;
pub use read_back::{Position, Range, RowId};
