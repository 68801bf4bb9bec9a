//! Any bytes as the metadata of a committed offset.
#![no_main]

#[path = "../bodies/promise.rs"]
mod promise;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| promise::promise(bytes));
