//! The services beside the stream: billing, the registry; and a worker that is there twice.

use std::time::Duration;

use devstack::Part;
use end_to_end::{Worker, until};

use crate::proxy::{Answer, Fault, Strike};
use crate::trial::{Trial, WORKERS};

/// What a worker says that has no schemas to begin with.
const NO_SCHEMAS: &str = "waiting for schemas";
/// For a worker to ask for them.
const WAITS_WITHIN: Duration = Duration::from_secs(60);

/// The service dies, its database dies, and its answers get lost.
pub async fn billing(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        trial.let_pass(300..1_500).await;
        trial.fault("SIGKILL of billing");
        trial.scenario.kill("billing").await;
        trial.let_pass(0..2_000).await;
        trial.scenario.start_billing().await;
        trial.recovered().await;
        trial.fault("SIGKILL of PostgreSQL");
        trial.scenario.stack.kill(Part::Postgres).await.unwrap();
        trial.let_pass(0..3_000).await;
        trial.scenario.stack.start(Part::Postgres).await.unwrap();
        trial.recovered().await;
        trial.fault("billing's answers lost, a worker dies");
        trial.billing.inject(Some(Strike::new(Fault::DropAnswer))).unwrap();
        trial.struck(1, |trial| trial.billing.struck()).await;
        trial.let_pass(500..2_000).await;
        let worker = trial.worker();
        trial.scenario.kill(worker).await;
        trial.billing.inject(None).unwrap();
        trial.scenario.start_worker(worker).await;
        trial.recovered().await;
    }
}

/// A second process takes the slot of a worker that runs: each fences the other's transactions.
pub async fn twins(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        let worker = trial.worker();
        trial.fault("two workers with one slot");
        let twin = Worker {
            slot: Some(worker),
            ..Worker::default()
        };
        trial.scenario.launch_worker("worker-twin", twin);
        trial.let_pass(4_000..10_000).await;
        trial.scenario.kill("worker-twin").await;
        trial.recovered().await;
    }
}

/// The registry is away, wrong or slow while workers start and schemas evolve.
pub async fn registry(trial: &mut Trial<'_, '_>) {
    let broken = Fault::Answer(Answer {
        status: 500,
        headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
        body: r#"{"error_code":50001,"message":"Error in the backend data store"}"#.to_owned(),
    });
    for _ in 0..trial.times {
        let faults = [
            ("the registry is away", Fault::Refuse),
            ("the registry answers 500", broken.clone()),
            (
                "the registry answers after 4 s",
                Fault::DelayAnswer(Duration::from_secs(4)),
            ),
            ("the registry stands still", Fault::Freeze),
        ];
        for (what, fault) in faults {
            trial.fault(what);
            trial.fronts.registry.inject(Some(Strike::new(fault))).unwrap();
            let worker = trial.worker();
            trial.scenario.kill(worker).await;
            trial.scenario.start_worker(worker).await;
            trial.struck(1, |trial| trial.fronts.registry.struck()).await;
            trial.let_pass(500..2_000).await;
            trial.fronts.heal();
            trial.recovered().await;
        }
        without_a_snapshot(trial).await;
    }
}

/// Workers start that have never seen a schema, while the registry is away: they wait for it, and begin when it is there.
async fn without_a_snapshot(trial: &mut Trial<'_, '_>) {
    trial.fault("workers without a snapshot start while the registry is away");
    trial.fronts.registry.inject(Some(Strike::new(Fault::Refuse))).unwrap();
    let waited = |trial: &Trial<'_, '_>, worker: &str| trial.scenario.said(worker, NO_SCHEMAS);
    let before = WORKERS.map(|worker| waited(trial, worker));
    for worker in WORKERS {
        trial.scenario.kill(worker).await;
    }
    // One directory for both: they run on one machine.
    std::fs::remove_dir_all(&trial.scenario.pipeline.connections.registry.snapshot_dir).unwrap();
    for worker in WORKERS {
        trial.scenario.launch_worker(worker, Worker::default());
    }
    for (worker, before) in WORKERS.into_iter().zip(before) {
        until(format!("{worker} to wait for schemas"), WAITS_WITHIN, async || {
            (waited(trial, worker) > before).then_some(())
        })
        .await;
    }
    trial.let_pass(500..2_000).await;
    trial.fronts.heal();
    for worker in WORKERS {
        trial.scenario.is_ready(worker).await;
    }
    trial.recovered().await;
}
