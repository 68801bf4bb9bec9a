//! The bounded part of `make chaos`: most families once, one after the other, on the same real parts.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod shared;

use chaos::families::FAMILIES;

/// One trial of the family; what is guaranteed is said there.
fn survives(number: u8) {
    let family = FAMILIES.iter().find(|family| family.number == number).unwrap();
    let outcome = shared::tried(|rig, settings| family.run(rig, settings));
    println!("family {number}: {outcome:?}");
}

#[test]
fn workers_that_die_at_every_crash_point() {
    survives(1);
}

#[test]
fn workers_that_stand_still() {
    survives(2);
}

#[test]
fn a_clickhouse_that_dies() {
    survives(3);
}

#[test]
fn wires_that_cut_hold_and_double() {
    survives(4);
}

#[test]
fn feedings_and_views_that_fail_and_hostile_profiles() {
    survives(6);
}

#[test]
fn a_forgotten_token() {
    survives(7);
}

#[test]
fn brokers_that_die() {
    survives(8);
}

#[test]
fn storms_of_members() {
    survives(9);
}

#[test]
fn transactional_input() {
    survives(10);
}

#[test]
fn offsets_that_somebody_sets_and_removes() {
    survives(11);
}

#[test]
fn changes_of_rules_and_schemas() {
    survives(12);
}

#[test]
fn billing_and_its_database_that_die() {
    survives(13);
}

#[test]
fn foreign_metadata() {
    survives(14);
}

#[test]
fn clocks_that_jump() {
    survives(15);
}

#[test]
fn deliveries_that_are_given_up() {
    survives(16);
}

#[test]
fn poison_large_alerts_and_a_dead_letter_topic_that_is_gone() {
    survives(18);
}

#[test]
fn full_disks() {
    survives(20);
}

/// Every family has a test above, but for those whose trials take minutes, and the registry's, which `failures` and the end-to-end
/// tests strike, too.
#[test]
fn no_family_is_left_out() {
    let text = include_str!("bounded.rs");
    for family in FAMILIES.iter().filter(|family| ![5, 17, 19].contains(&family.number)) {
        let call = format!("    survives({});", family.number);
        assert_eq!(text.matches(&call).count(), 1, "family {}", family.number);
    }
}
