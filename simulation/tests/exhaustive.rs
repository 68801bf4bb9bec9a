//! Scenario: two lanes, two partitions, two ranges each; within the bounds below everything that can happen does, in
//! every order.
//! Guarantees: rows, charges and alerts once and under their promise; a committed offset means that every sink has it;
//! nothing stops without cause; and everything can be committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use simulation::exhaustive::{Bounds, MUTATED, ONE_FAULT, search};

fn all_right((name, bounds): (&str, Bounds)) {
    let found = search(bounds);
    let (states, moves, finished) = (found.states, found.moves, found.finished);
    println!("{name}: {states} states, {moves} moves, everything is committed in {finished}");
    assert_eq!(found.wrong, None, "{name}");
    assert!(finished > 0, "{name}: nothing is ever finished");
}

#[test]
fn in_no_order_of_events_is_anything_wrong() {
    // Two threads: each search is independent of the others.
    std::thread::scope(|scope| {
        for half in ONE_FAULT.chunks(ONE_FAULT.len().div_ceil(2)) {
            scope.spawn(|| half.iter().for_each(|one| all_right(*one)));
        }
    });
}

#[test]
fn without_the_fence_or_the_deadline_it_goes_red() {
    for (name, bounds) in MUTATED {
        let found = search(bounds);
        assert!(
            found.wrong.is_some(),
            "{} states do not show that the {name} is needed",
            found.states
        );
    }
}
