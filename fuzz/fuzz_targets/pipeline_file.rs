//! Any bytes as a pipeline file.
#![no_main]

#[path = "../bodies/faults.rs"]
mod faults;
#[path = "../bodies/pipeline_file.rs"]
mod pipeline_file;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipeline_file::pipeline_file(bytes));
