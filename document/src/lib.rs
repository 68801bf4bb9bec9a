//! YAML documents that people write: read with the line and column of every key and value, all faults at once.
//!
//! [`parse`] makes a tree, [`Item`] and [`Reader`] read it by type, [`Faults`] collects what is wrong on the way.
//! The YAML is that of version 1.2 without its surprises: tags, merge keys, complex keys and second documents are
//! refused with the reason, `yes` and `no` are texts, and size, depth and aliases are bounded.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod tree;
mod parse;
mod read;
mod units;
mod nearest;
mod fault;

pub use fault::{Fault, Faults};
pub use nearest::nearest;
pub use parse::{parse, parse_bytes};
pub use read::{Item, Reader};
pub use tree::{Entry, Node, Value};
pub use units::{Period, byte_size, duration, period};
