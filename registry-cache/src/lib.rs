//! Schema id -> schema, and how to survive a registry that is down. The only crate that talks to the registry.
//!
//! A schema id is immutable, so what was once learnt stays true. Everything here follows from that:
//!
//! - what is in memory or on disk is answered at once; when its time to live has passed, it is checked against the registry
//!   *in the background*, so no event ever waits for a check;
//! - the registry is asked in the foreground only for an id that neither memory nor disk has, once however many ask for it;
//! - if the registry later answers another schema for a known id, the known one is kept and an operator is told.
//!
//! An error says what the caller can do: wait ([`Error::Unreachable`]), dead-letter ([`Error::Unknown`],
//! [`Error::Unusable`]) or ask an operator ([`Error::Refused`], [`Error::Settings`]).
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cache;
mod client;
mod error;
mod schema;
mod settings;
mod snapshot;

pub use cache::{Counts, Registry};
pub use error::Error;
pub use schema::Schema;
pub use settings::{Identity, Settings};

// The contract is one file for the unit tests and for tests/real_registry.rs, which know this crate by different names.
#[cfg(test)]
extern crate self as registry_cache;
#[cfg(test)]
mod tests;
