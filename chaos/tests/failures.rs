//! The failure table (`docs/reliability.md`), each row once: exactly once, and events flow again. How soon is printed; it
//! does not decide whether a row passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod shared;

use chaos::failures::FAILURES;

/// One trial of the row with this name.
fn recovers(name: &str) {
    let failure = FAILURES.iter().find(|failure| failure.name == name).unwrap();
    let outcome = shared::tried(|rig, settings| failure.run(rig, settings));
    println!("{name}: {outcome:?}");
    assert!(outcome.flowing_s.is_some(), "nobody looked whether events flow");
}

#[test]
fn a_partitions_leader_fails() {
    recovers("leader_fails");
}

#[test]
fn a_worker_is_killed() {
    recovers("worker_killed");
}

#[test]
fn a_worker_is_stopped() {
    recovers("worker_stopped");
}

#[test]
fn clickhouse_is_overloaded() {
    recovers("store_overloaded");
}

#[test]
fn clickhouse_crashes() {
    recovers("store_crashes");
}

#[test]
fn the_rules_service_is_gone() {
    recovers("config_gone");
}

#[test]
fn the_registry_is_gone() {
    recovers("registry_gone");
}

#[test]
fn no_row_is_left_out() {
    let text = include_str!("failures.rs");
    for failure in FAILURES {
        let call = format!("    recovers(\"{}\");", failure.name);
        assert_eq!(text.matches(&call).count(), 1, "{}", failure.name);
    }
}
