//! The exactly-once protocol, as it runs in production, against simulated Kafka, ClickHouse and billing: one thread,
//! one seed. The machine under test is [`exactly_once_protocol::Lane`] itself; what is simulated is everything around
//! it.
//!
//! ```text
//! // p0:  [0..3) promised | delivered | C   [3..7) promised | crash -> wait deadline | read back | promised again | C
//! ```
//!
//! In the order in which a range passes through it: [`source`] is the log and the pure middle, `lanes` the hands of the
//! machines, [`network`] what travels between them and the servers, [`group`] and [`kafka`] the coordinators,
//! [`clickhouse`] and [`billing`] the sinks. [`faults`] says what goes wrong, [`oracle`] what must hold at every step,
//! [`liveness`] what must hold in the end, [`mutations`] what makes the suite go red.
//! [`exhaustive`] tries every order of events in a much smaller world. `docs/decisions/0014-simulation.md` says what is
//! not simulated.

pub mod dice;
pub mod source;
mod lanes;
pub mod network;
pub mod group;
pub mod kafka;
pub mod clickhouse;
pub mod billing;
pub mod faults;
pub mod world;
pub mod oracle;
pub mod liveness;
pub mod mutations;
pub mod trace;
pub mod exhaustive;

use std::panic::{AssertUnwindSafe, catch_unwind};

use exactly_once_protocol::Guarantee;

use faults::Counts;
use mutations::Mutation;
use world::World;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// Faults go on until the end; nothing wrong may ever be seen.
    Safety,
    /// Faults end; then everything has to be delivered and committed within [`liveness::WITHIN_MS`].
    Liveness,
}

impl Check {
    /// As `--check` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Check::Safety => "safety",
            Check::Liveness => "liveness",
        }
    }

    /// Where each partition's log ends, and how many steps the faults last.
    fn size(self) -> (i64, u64) {
        match self {
            Check::Safety => (96, 6_000),
            Check::Liveness => (24, 2_000),
        }
    }
}

/// All that decides a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Everything is made from it.
    pub seed: u64,
    /// What is checked.
    pub check: Check,
    /// What is taken away.
    pub mutation: Mutation,
    /// Whether the trace is written.
    pub told: bool,
    /// What the lanes are asked for. With [`Guarantee::AtLeastOnce`] nothing may be lost, and anything may be there twice; of
    /// every second seed the lanes are exactly-once at first, and are all killed and started again with the other guarantee.
    pub guarantee: Guarantee,
    /// No fault from the beginning on: then nothing is there twice, either.
    pub calm: bool,
}

impl Options {
    /// A run as it should be, without a trace.
    pub fn new(seed: u64, check: Check) -> Options {
        Options {
            seed,
            check,
            mutation: Mutation::None,
            told: false,
            guarantee: Guarantee::ExactlyOnce,
            calm: false,
        }
    }

    /// A run of lanes that promise nothing.
    pub fn at_least_once(seed: u64, check: Check) -> Options {
        Options {
            guarantee: Guarantee::AtLeastOnce,
            ..Options::new(seed, check)
        }
    }

    /// The command that does this run again.
    pub fn command(&self) -> String {
        let mut words = vec![format!("make simulate SEED={} CHECK={}", self.seed, self.check.name())];
        if self.mutation != Mutation::None {
            words.push(format!("MUTATION={}", self.mutation.name()));
        }
        if self.guarantee == Guarantee::AtLeastOnce {
            words.push("GUARANTEE=at_least_once".to_owned());
        }
        words.join(" ")
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What went wrong, if something did.
    pub wrong: Option<String>,
    /// Faults by kind.
    pub counts: Counts,
    /// After the last fault until all was done, simulated milliseconds; 0 where that is not checked.
    pub settled_ms: i64,
    /// Offsets that were committed.
    pub committed: u64,
    /// How often something was there again: rows, alerts, feedings, entries of the audit.
    pub again: u64,
    /// Length and hash of the trace, where it is written.
    pub fingerprint: (u64, u64),
    /// The last part of the trace, where it is written.
    pub trace: String,
}

/// One run.
pub fn run(options: &Options) -> Outcome {
    let (log_end, steps) = options.check.size();
    let mut world = World::new(options, log_end);
    let went = catch_unwind(AssertUnwindSafe(|| {
        for step in 0..steps {
            if step == steps / 4 {
                world.switch();
            }
            world.step();
            if let Some(wrong) = &world.oracle.wrong {
                return Err(wrong.clone());
            }
        }
        match options.check {
            Check::Safety => Ok(0),
            Check::Liveness => liveness::settles(&mut world),
        }
    }));
    let went = went.unwrap_or_else(|_| Err("the machine or the world panics".into()));
    let (wrong, settled_ms) = match went {
        Ok(settled_ms) => (None, settled_ms),
        Err(wrong) => (Some(wrong), 0),
    };
    Outcome {
        wrong,
        counts: world.counts.clone(),
        settled_ms,
        committed: world.oracle.progress(),
        again: world.oracle.again(),
        fingerprint: world.trace.fingerprint(),
        trace: world.trace.tail(),
    }
}

/// What people need of a run that went wrong: the last part of its trace, what was wrong, and how to see it again.
pub fn report(options: &Options) -> String {
    let mut told = options.clone();
    told.told = true;
    let outcome = run(&told);
    let wrong = outcome
        .wrong
        .unwrap_or_else(|| "nothing, this time: the run is not deterministic".into());
    let (seed, check, mutation) = (options.seed, options.check.name(), options.mutation.name());
    format!(
        "{}\nseed {seed}, check {check}, mutation {mutation}: {wrong}\nagain: {}",
        outcome.trace,
        options.command()
    )
}
