//! Scenario: two lanes, three partitions of two topics; messages are delayed, lost, doubled and overtaken; processes
//! die before and after each action, stand still, are expelled without knowing it, drain; transactions abort, hang,
//! time out, and end after their client has given up; inserts come late, linger, are refused; ClickHouse is killed
//! between a token and its rows, and forgets tokens; billing fails; clocks differ and jump; rules change.
//! Guarantees: ranges tile; nothing reaches a sink without a committed promise; a committed offset means that every
//! sink has it; one content per range; rows, alerts, charges, audit and rollups exactly once; once the faults end, all
//! is committed.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use simulation::faults::{Counts, Fault};
use simulation::mutations::Mutation;
use simulation::{Check, Options, report, run};

/// So many seeds of each check; `make simulate` runs more.
const SEEDS: u64 = 2_000;
/// A mutation has to be seen within so many seeds.
const SEEDS_TO_RED: u64 = 2_000;

fn all_seeds(check: Check) -> Counts {
    let mut counts = Counts::default();
    for seed in 1..=SEEDS {
        let options = Options::new(seed, check);
        let outcome = run(&options);
        assert!(outcome.wrong.is_none(), "{}", report(&options));
        counts.add(&outcome.counts);
    }
    counts
}

#[test]
fn nothing_wrong_is_ever_seen_while_faults_go_on() {
    let counts = all_seeds(Check::Safety);
    let never: Vec<&str> = Fault::ALL
        .iter()
        .filter(|(fault, _)| counts.of(*fault) == 0)
        .map(|(_, name)| *name)
        .collect();
    assert_eq!(never, Vec::<&str>::new(), "these faults never happened");
}

#[test]
fn once_the_faults_end_everything_is_delivered_and_committed_in_time() {
    all_seeds(Check::Liveness);
}

#[test]
fn the_same_seed_gives_the_same_trace_twice() {
    let trace = |seed| {
        let told = true;
        let outcome = run(&Options {
            told,
            ..Options::new(seed, Check::Safety)
        });
        (outcome.fingerprint, outcome.trace, outcome.counts)
    };
    for seed in [7, 8, 9] {
        assert!(trace(seed).0.0 > 300, "a trace of a few lines says little");
        assert_eq!(trace(seed), trace(seed));
    }
    assert_ne!(trace(7).0, trace(8).0);
}

#[test]
fn a_run_without_its_trace_is_the_same_run() {
    for seed in 1..=20 {
        let options = Options::new(seed, Check::Liveness);
        let told = run(&Options {
            told: true,
            ..options.clone()
        });
        let silent = run(&options);
        assert_eq!((told.counts, told.settled_ms), (silent.counts, silent.settled_ms));
    }
}

/// The first seed that shows it. A stop without cause and a panic of the machine show it, too.
fn first_red(mutation: Mutation) -> Option<u64> {
    (1..=SEEDS_TO_RED).find(|seed| {
        let red = |check| {
            run(&Options {
                mutation,
                ..Options::new(*seed, check)
            })
            .wrong
            .is_some()
        };
        red(Check::Safety) || red(Check::Liveness)
    })
}

#[test]
fn whatever_is_taken_away_is_missed() {
    let seen: BTreeMap<&str, Option<u64>> = Mutation::ALL
        .iter()
        .map(|(name, one)| (*name, first_red(*one)))
        .collect();
    let unseen: Vec<_> = seen.iter().filter(|(_, seed)| seed.is_none()).collect();
    assert!(
        unseen.is_empty(),
        "no seed of {SEEDS_TO_RED} shows that these are needed: {unseen:?}"
    );
}

#[test]
fn a_failure_names_its_seed_and_the_command_that_repeats_it() {
    let mutation = Mutation::NoReadBack;
    let seed = first_red(mutation).unwrap();
    let options = Options {
        mutation,
        ..Options::new(seed, Check::Liveness)
    };
    let text = report(&options);
    let command = format!("make simulate SEED={seed} CHECK=liveness MUTATION=no-read-back");
    assert!(text.contains(&command), "{text}");
}

/// Scenario: as above, and the lanes promise nothing; of every second seed they were exactly-once before, and died.
/// Guarantees: what is committed has reached every sink; no partition stops; once the faults end, all is committed.
#[test]
fn without_promises_things_come_twice_and_nothing_is_lost() {
    let mut again = 0;
    for check in [Check::Safety, Check::Liveness] {
        for seed in 1..=SEEDS {
            let options = Options::at_least_once(seed, check);
            let outcome = run(&options);
            assert!(outcome.wrong.is_none(), "{}", report(&options));
            again += outcome.again;
        }
    }
    assert!(again > 1_000, "only {again} came twice: these runs say little");
}

/// Who believes the answer to a repeated insert, commits past rows that are not there.
#[test]
fn without_promises_a_row_that_is_lost_is_missed() {
    let red = |seed: &u64| {
        let mutation = Mutation::RepeatDoubt;
        let options = Options::at_least_once(*seed, Check::Safety);
        run(&Options { mutation, ..options }).wrong
    };
    let wrong = (1..=SEEDS_TO_RED).find_map(|seed| red(&seed));
    assert!(
        wrong
            .as_ref()
            .is_some_and(|wrong| wrong.ends_with("is committed, its row is missing")),
        "{wrong:?}"
    );
}

#[test]
fn without_promises_and_without_faults_nothing_comes_twice() {
    for seed in 1..=SEEDS / 4 {
        let options = Options {
            calm: true,
            ..Options::at_least_once(seed, Check::Liveness)
        };
        let outcome = run(&options);
        assert!(outcome.wrong.is_none(), "{}", report(&options));
        assert_eq!(outcome.again, 0);
    }
}
