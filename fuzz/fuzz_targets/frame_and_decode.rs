//! Any bytes as a record: its frame, and what its schema makes of the rest. The product's two modules are taken in by
//! path, so that nobody has to build Kafka's client for this.
#![no_main]

#[path = "../../workers/src/decode/mod.rs"]
#[allow(dead_code)]
mod decode;
#[path = "../../workers/src/frame.rs"]
mod frame;
#[path = "../bodies/grow.rs"]
#[allow(dead_code)]
mod grow;
#[path = "../bodies/decode.rs"]
mod hostile;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hostile::record(bytes));
