//! Any bytes as an expression of a rule.
#![no_main]

#[path = "../bodies/faults.rs"]
mod faults;
#[path = "../bodies/rules.rs"]
mod hostile;
#[path = "../../rules/tests/rules/shop.rs"]
#[allow(dead_code)]
mod shop;

libfuzzer_sys::fuzz_target!(
    // A panic inside of the SQL engine fails its row or its rule and is no fault here. One that gets out of the body ends
    // the fuzzer all the same: what calls the target aborts.
    init: std::panic::set_hook(Box::new(|panic| eprintln!("{panic}"))),
    |bytes: &[u8]| hostile::expression(bytes)
);
