//! What this crate promises, on a real ClickHouse: that of `SLUICE_TEST_CLICKHOUSE` (a URL whose user `default` has no
//! password), or one that the local stack starts for this program.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod server;
mod proxy;
mod types;
mod inserting;
mod doubt;
mod reading_back;
mod shop;
mod evolving;
mod feeding;
mod refusing;
