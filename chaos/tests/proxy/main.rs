//! The proxy between clients and targets of the tests' own, whose bytes are compared exactly.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;
mod every_wire;
mod http;
mod kafka;
mod bytes;
