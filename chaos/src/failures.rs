//! The failure table: what fails in practice, how soon events flow again, and what is still away meanwhile. Each is a trial
//! of its own, judged like those of the families.

use std::time::{Duration, Instant};

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::until;

use crate::families::leader;
use crate::rig::Rig;
use crate::trial::{self, Outcome, RECOVERED_WITHIN, Settings, Setup, Trial, WORKERS};

const STATE: &str = "sluice_breaker_state";
const OPENED: &str = "sluice_breaker_opened_total";

/// One row of it.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// A word for file names and topics, and for who wants this one alone.
    pub name: &'static str,
    /// What fails.
    pub what: &'static str,
    /// When events flow again, in words.
    pub flows: &'static str,
}

/// All rows.
pub const FAILURES: [Failure; 7] = [
    Failure {
        name: "leader_fails",
        what: "the broker that leads a partition is killed, and stays away",
        flows: "another one leads, and all partitions flow",
    },
    Failure {
        name: "worker_killed",
        what: "a worker is killed, and stays away",
        flows: "the other worker has its partitions",
    },
    Failure {
        name: "worker_stopped",
        what: "a worker is stopped (SIGTERM), and stays away",
        flows: "the other worker has its partitions",
    },
    Failure {
        name: "store_overloaded",
        what: "ClickHouse answers nothing until inserts time out and the circuit breaker opens; then it answers",
        flows: "counted from its answering: a probe succeeds, the breaker closes",
    },
    Failure {
        name: "store_crashes",
        what: "ClickHouse is killed and started again at once",
        flows: "it has started, and what was under way is settled",
    },
    Failure {
        name: "config_gone",
        what: "the rules service is killed; a worker starts while it is away",
        flows: "they never stopped; counted from the worker's start",
    },
    Failure {
        name: "registry_gone",
        what: "the registry is killed; a worker starts while it is away",
        flows: "they never stopped; counted from the worker's start",
    },
];

impl Failure {
    /// One trial of it.
    ///
    /// # Panics
    /// Like [`trial::run`].
    pub fn run(&self, rig: &Rig, settings: &Settings) -> Outcome {
        let setup = Setup {
            name: self.name,
            rules: match self.name {
                "config_gone" => Rules::Service,
                _ => Rules::Directory,
            },
            drive: &[],
        };
        trial::run(rig, &setup, settings, async |trial| {
            trial.fault(self.what);
            match self.name {
                "leader_fails" => leader_fails(trial).await,
                "worker_killed" => worker_goes(trial, true).await,
                "worker_stopped" => worker_goes(trial, false).await,
                "store_overloaded" => store_overloaded(trial).await,
                "store_crashes" => store_crashes(trial).await,
                "config_gone" => config_gone(trial).await,
                "registry_gone" => registry_gone(trial).await,
                name => panic!("no failure has the name {name}"),
            }
            trial.recovered().await;
        })
    }
}

async fn leader_fails(trial: &mut Trial<'_, '_>) {
    let topic = trial.busiest().await;
    let node = leader(trial, &topic, 0);
    let struck = Instant::now();
    trial.scenario.stack.kill(node).await.unwrap();
    trial.flows(struck).await;
    assert_ne!(leader(trial, &topic, 0), node, "it leads although it is dead");
    trial.scenario.stack.mend(&[node]).await.unwrap();
}

async fn worker_goes(trial: &mut Trial<'_, '_>, killed: bool) {
    let struck = Instant::now();
    if killed {
        trial.scenario.kill(WORKERS[0]).await;
    } else {
        trial.scenario.stop(WORKERS[0]).await;
    }
    trial.flows(struck).await;
    let sources = trial.scenario.pipeline.sources.iter();
    let all: f64 = sources.map(|source| f64::from(source.partitions)).sum();
    trial
        .scenario
        .metric_reaches(WORKERS[1], "sluice_partitions_owned", all)
        .await;
}

/// Stands still, as a server does that is asked for far too much: connections are taken, nothing is answered.
async fn store_overloaded(trial: &mut Trial<'_, '_>) {
    trial.scenario.stack.pause(Part::ClickHouse).unwrap();
    for worker in WORKERS {
        trial.scenario.metric_reaches(worker, OPENED, 1.0).await;
        let said = trial.scenario.waits(worker, "circuit breaker").await;
        assert!(said.contains("clickhouse"), "{said}");
    }
    trial.scenario.stack.mend(&[Part::ClickHouse]).await.unwrap();
    let answers = Instant::now();
    for worker in WORKERS {
        until("the breaker to close", RECOVERED_WITHIN, async || {
            (trial.scenario.metric(worker, STATE, &[]).await < 1.0).then_some(())
        })
        .await;
        trial.scenario.is_ready(worker).await;
    }
    trial.flows(answers).await;
}

async fn store_crashes(trial: &mut Trial<'_, '_>) {
    let struck = Instant::now();
    trial.scenario.stack.kill(Part::ClickHouse).await.unwrap();
    trial.scenario.stack.start(Part::ClickHouse).await.unwrap();
    trial.flows(struck).await;
}

/// Events flow while it is away, and a worker that starts then begins with the revision that it kept.
async fn config_gone(trial: &mut Trial<'_, '_>) {
    trial.scenario.kill("config").await;
    comes_and_goes(trial).await;
    trial.scenario.start_config().await;
    let rules = trial.scenario.dir.join("rules").display().to_string();
    trial.scenario.write_rules("more", "tenant: more\nrules: []\n");
    trial.scenario.sluice(&["rules", "apply", &rules]).await;
    for worker in WORKERS {
        trial
            .scenario
            .metric_reaches(worker, "sluice_rules_revision", 2.0)
            .await;
    }
}

/// Events flow while it is away, and a worker that starts then has its schemas on disk.
async fn registry_gone(trial: &mut Trial<'_, '_>) {
    trial.scenario.stack.kill(Part::Registry).await.unwrap();
    comes_and_goes(trial).await;
    trial.scenario.stack.start(Part::Registry).await.unwrap();
}

async fn comes_and_goes(trial: &mut Trial<'_, '_>) {
    // Longer than anything is waited for that could have been under way.
    tokio::time::sleep(Duration::from_secs(5)).await;
    trial.recovered().await;
    trial.scenario.kill(WORKERS[0]).await;
    let started = Instant::now();
    trial.scenario.start_worker(WORKERS[0]).await;
    trial.flows(started).await;
}
