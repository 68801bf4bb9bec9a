//! Workers that die.

use std::time::Duration;

use crash_points::Point;
use end_to_end::{Worker, until};

use crate::trial::{Trial, WORKERS};

/// For a worker that joins, takes partitions and passes the point.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
/// Later than this the call that a point is about has often ended.
const DURING_CALL_MICROS_MAX: i64 = 6_000;
const SIGKILL: i32 = 9;
/// So many promises of deliveries that were given up are settled, each after its deadline.
const SETTLED: f64 = 60.0;
const SETTLED_WITHIN: Duration = Duration::from_secs(120);

/// The second worker dies at every point in turn, in an order that the seed decides; then both die at random.
pub async fn at_every_point(trial: &mut Trial<'_, '_>) {
    trial.scenario.kill("worker-b").await;
    for _ in 0..trial.times {
        let mut points = Point::ALL.to_vec();
        while !points.is_empty() {
            let point = points.swap_remove(trial.random.index(points.len()));
            at(trial, point).await;
        }
    }
    trial.scenario.start_worker("worker-b").await;
    at_random(trial).await;
}

async fn at(trial: &mut Trial<'_, '_>, point: Point) {
    let passage = match point {
        // Once for each record, once for each batch; a promise has a transaction of its own only where none precedes it.
        Point::AfterPoll => trial.random.between(1, 2_000),
        Point::PromiseUnsent | Point::PromiseSent | Point::PromiseAnswered => 1,
        _ => trial.random.between(1, 5),
    };
    let later = match point {
        Point::PromiseSent | Point::InsertSent | Point::CallSent | Point::CommitSent => {
            trial.random.between(1, DURING_CALL_MICROS_MAX)
        }
        _ => 0,
    };
    trial.fault(point.name());
    let order = format!("{point}:{passage}:{later}");
    let worker = Worker {
        crash: Some(&order),
        ..Worker::default()
    };
    trial.scenario.launch_worker("worker-b", worker);
    let died = trial.scenario.killed_itself("worker-b", PASSES_WITHIN).await;
    assert_eq!(died, Some(SIGKILL), "a worker was to die at {order}");
}

/// Deliveries are given up at one await after another.
pub async fn deliveries_given_up(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for worker in WORKERS {
            trial.fault("a worker that gives up every third delivery");
            trial.scenario.kill(worker).await;
            let gives_up = Worker {
                give_up: Some("3"),
                ..Worker::default()
            };
            trial.scenario.launch_worker(worker, gives_up);
            trial.scenario.is_ready(worker).await;
        }
        until(
            "promises of what was given up to be settled",
            SETTLED_WITHIN,
            async || (settled(trial).await >= SETTLED).then_some(()),
        )
        .await;
        for worker in WORKERS {
            trial.scenario.kill(worker).await;
            trial.scenario.start_worker(worker).await;
        }
        trial.recovered().await;
    }
}

/// Promises that the workers that run have settled.
async fn settled(trial: &Trial<'_, '_>) -> f64 {
    let mut settled = 0.0;
    for worker in WORKERS {
        settled += trial
            .scenario
            .metric(worker, "sluice_promises_settled_total", &[])
            .await;
    }
    settled
}

/// Either worker is killed and started again.
pub async fn at_random(trial: &mut Trial<'_, '_>) {
    for _ in 0..2 * trial.times {
        trial.let_pass(500..3_000).await;
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
    }
    trial.recovered().await;
}
