//! The rules service: keeps immutable revisions of all tenants' rules, checks what is put, and streams what is new.
//!
//! A put goes through these modules in this order; [`client`] is the other side, used by workers and the command line.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod service;
mod change;
mod meters;
mod store;
mod run;
pub mod client;

pub use run::{CatalogProvider, Error, Running, Settings, serve};
pub use store::StoreError;
