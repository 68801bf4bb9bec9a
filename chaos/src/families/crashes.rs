//! Workers that die.

use std::time::Duration;

use crash_points::Point;
use end_to_end::{Worker, until};
use strum::VariantArray as _;

use crate::trial::{Trial, WORKERS};

/// For a worker that joins, takes partitions and passes the point.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
/// Later than this the call that a point is about has often ended.
const DURING_CALL_MICROS_MAX: i64 = 6_000;
const SIGKILL: i32 = 9;
/// So many deliveries are given up; what they had promised is settled after its deadline.
const GIVEN_UP: usize = 24;
const GIVEN_UP_WITHIN: Duration = Duration::from_secs(480);

/// The second worker dies at every point in turn, in an order that the seed decides; then both die at random.
pub async fn at_every_point(trial: &mut Trial<'_, '_>) {
    trial.scenario.kill("worker-b").await;
    for _ in 0..trial.times {
        let mut points = Point::VARIANTS.to_vec();
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
    trial.fault(point.into());
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
        until("deliveries to be given up", GIVEN_UP_WITHIN, async || {
            let given_up = |worker: &&str| trial.scenario.said(worker, "SLUICE_GIVE_UP: given up");
            (WORKERS.iter().map(given_up).sum::<usize>() >= GIVEN_UP).then_some(())
        })
        .await;
        for worker in WORKERS {
            trial.scenario.kill(worker).await;
            trial.scenario.start_worker(worker).await;
        }
        trial.recovered().await;
    }
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
