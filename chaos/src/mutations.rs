//! What the protocol must not do without: each taken away from it in a trial that it survives otherwise. A harness that cannot
//! go red proves nothing.

use std::time::Duration;

use crash_points::{Mutation, Point};
use end_to_end::{Worker, shop::Rules};

use crate::families::{AN_INSERT, at_a_rename};
use crate::proxy::{Fault, Only, Strike};
use crate::rig::Rig;
use crate::trial::{self, Outcome, Settings, Setup, Trial, WORKERS};

/// For a worker that joins, takes partitions and passes the point.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
/// ClickHouse is killed so often between its deduplication record and the part's rename.
const RENAMES: usize = 4;

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Missing {
    /// A word for file names and topics.
    pub name: &'static str,
    /// What is taken away.
    pub what: &'static str,
    /// What the verifier then counts: `lost`, `duplicated`, `overlap`.
    pub kind: &'static str,
    /// How workers are told; `None`: they are not, ClickHouse is.
    mutation: Option<Mutation>,
}

/// All of them.
pub const MISSING: [Missing; 4] = [
    Missing {
        name: "no_deduplication",
        what: "ClickHouse's deduplication",
        kind: "duplicated",
        mutation: None,
    },
    Missing {
        name: "no_fence",
        what: "the fence: whether who commits offsets is a member of the group's present generation",
        kind: "overlap",
        mutation: Some(Mutation::NoFence),
    },
    Missing {
        name: "no_end_in_token",
        what: "the end offset, and the attempt, in the token of an insert",
        kind: "lost",
        mutation: Some(Mutation::TokenWithoutEnd),
    },
    Missing {
        name: "audit_outside",
        what: "the transaction around the audit's record",
        kind: "overlap",
        mutation: Some(Mutation::AuditOutside),
    },
];

impl Missing {
    /// A trial with everything in its place.
    ///
    /// # Panics
    /// Like [`trial::run`].
    pub fn run(&self, rig: &Rig, settings: &Settings) -> Outcome {
        trial::run(rig, &self.setup(), settings, async |trial| {
            self.strike(trial, false).await
        })
    }

    /// The same trial without it, until the verifier counts differences of this kind, and how many.
    ///
    /// # Panics
    /// When it counts none.
    pub fn run_red(&self, rig: &Rig, settings: &Settings) -> f64 {
        let mutation = self.mutation.map(<&'static str>::from);
        trial::run_red(rig, &self.setup(), settings, (mutation, self.kind), async |trial| {
            self.strike(trial, true).await;
        })
    }

    fn setup(&self) -> Setup {
        Setup {
            name: self.name,
            rules: Rules::Directory,
            drive: &[],
        }
    }

    async fn strike(&self, trial: &mut Trial<'_, '_>, missing: bool) {
        match self.name {
            "no_deduplication" => doubled(trial, missing).await,
            "no_fence" => zombie(trial).await,
            "no_end_in_token" => {
                for _ in 0..RENAMES {
                    at_a_rename(trial).await;
                    trial.recovered().await;
                }
            }
            "audit_outside" => dies_in_transactions(trial).await,
            name => panic!("nothing has the name {name}"),
        }
    }
}

/// Inserts arrive twice.
async fn doubled(trial: &mut Trial<'_, '_>, forgetful: bool) {
    if forgetful {
        let change = "MODIFY SETTING non_replicated_deduplication_window = 0";
        trial.alter_tables(change).await;
    }
    trial.fault("inserts arrive twice");
    let strike = Strike {
        fault: Fault::Twice,
        only: Only::Text(AN_INSERT.to_owned()),
        every: 2,
        at_most: Some(10),
    };
    trial.fronts.clickhouse.inject(Some(strike)).unwrap();
    trial.struck(10, |trial| trial.fronts.clickhouse.struck()).await;
    trial.recovered().await;
    trial.fronts.heal();
}

/// Kills a worker that may have ended already.
async fn gone(trial: &mut Trial<'_, '_>, worker: &str) {
    let runs = |trial: &Trial<'_, '_>| trial.scenario.running().iter().any(|role| role == worker);
    if runs(trial) {
        trial.scenario.killed_itself(worker, Duration::ZERO).await;
    }
    if runs(trial) {
        trial.scenario.kill(worker).await;
    }
}

/// A worker stands still with a transaction that it has begun, until others have its partitions and have gone on.
async fn zombie(trial: &mut Trial<'_, '_>) {
    let zombie = WORKERS[1];
    gone(trial, zombie).await;
    for nth in [20, 40] {
        trial.fault("a worker stands still in a transaction");
        let order = format!("{}:{nth}:stop", Point::AfterBegin);
        let worker = Worker {
            crash: Some(&order),
            ..Worker::default()
        };
        trial.scenario.launch_worker(zombie, worker);
        if !trial.scenario.stands_still(zombie, PASSES_WITHIN).await {
            assert!(!trial.has_to_recover, "it was to stand still at {order}");
            gone(trial, zombie).await;
            continue;
        }
        // The others have its partitions, and have gone on.
        trial.recovered().await;
        trial.let_pass(500..1_500).await;
        trial.scenario.thaw(zombie).await;
        trial.let_pass(2_000..3_000).await;
        trial.scenario.kill(zombie).await;
        trial.recovered().await;
    }
}

/// A worker dies in one transaction after another.
async fn dies_in_transactions(trial: &mut Trial<'_, '_>) {
    let worker = WORKERS[1];
    gone(trial, worker).await;
    for nth in [5, 8, 11] {
        trial.fault("a worker dies in a transaction");
        let order = format!("{}:{nth}", Point::OffsetsSent);
        let special = Worker {
            crash: Some(&order),
            ..Worker::default()
        };
        trial.scenario.launch_worker(worker, special);
        let died = trial.scenario.killed_itself(worker, PASSES_WITHIN).await;
        assert!(died.is_some() || !trial.has_to_recover, "it was to die at {order}");
        gone(trial, worker).await;
        trial.recovered().await;
    }
}
