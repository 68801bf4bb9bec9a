//! The suite can go red: what the protocol relies on is taken away from it, in a trial that it survives with it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod shared;

use chaos::mutations::{MISSING, Missing};

/// With it the trial is green, without it the verifier counts what is wrong.
fn cannot_do_without(name: &str) {
    let missing: &Missing = MISSING.iter().find(|missing| missing.name == name).unwrap();
    let green = shared::tried(|rig, settings| missing.run(rig, settings));
    println!("{name}: {green:?}");
    let red = shared::in_turn(|rig, settings| missing.run_red(rig, settings));
    println!("without {}: {red} {}", missing.what, missing.kind);
    assert!(red > 0.0);
}

#[test]
fn clickhouses_deduplication() {
    cannot_do_without("no_deduplication");
}

#[test]
fn the_fence() {
    cannot_do_without("no_fence");
}

#[test]
fn the_end_of_a_range_in_its_token() {
    cannot_do_without("no_end_in_token");
}

#[test]
fn the_audit_in_the_transaction() {
    cannot_do_without("audit_outside");
}
