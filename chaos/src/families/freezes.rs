//! Processes that stand still and then go on as if nothing had been.

use std::time::Duration;

use crash_points::Point;
use end_to_end::{Worker, until};

use super::storage::AN_INSERT;
use crate::proxy::{Fault, Only, Strike};
use crate::trial::{RECOVERED_WITHIN, Trial, WORKERS};

/// Just past the insert's deadline and grace (4 s and 1 s in the trials' pipeline), past the transaction's timeout (5 s), past
/// the session's (6 s), past all of them.
const SPANS_MS: [std::ops::Range<i64>; 4] = [5_100..5_600, 5_600..6_000, 6_500..8_000, 10_000..14_000];
/// For a worker that joins, takes partitions and passes a point.
const PASSES_WITHIN: Duration = Duration::from_secs(60);
/// Past the session's timeout, so that whoever stands still meanwhile has lost its partitions.
const ANSWER_HELD: Duration = Duration::from_secs(8);
/// Where a transaction is open: for the client library alone, with records, with offsets.
const IN_A_TRANSACTION: [Point; 3] = [Point::AfterBegin, Point::AlertsProduced, Point::OffsetsSent];
/// What a lane says that was thrown out of the group.
const LOST: &str = "partitions lost to another member";

/// A worker stands still for each span, then surely inside an insert, and inside transactions.
pub async fn of_workers(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for span in trial.some(SPANS_MS.to_vec()) {
            let worker = trial.worker();
            trial.let_pass(200..2_000).await;
            trial.fault("SIGSTOP of a worker");
            trial.scenario.freeze(worker).await;
            trial.let_pass(span).await;
            trial.scenario.thaw(worker).await;
        }
        trial.recovered().await;
        in_an_insert(trial, "SIGSTOP of a worker that waits for an insert's answer").await;
        for point in trial.some(IN_A_TRANSACTION.to_vec()) {
            in_a_transaction(trial, point).await;
        }
    }
}

/// A worker that has all partitions stands still while an insert of its is in flight, until the other one has them; then it goes
/// on, and hears that it has lost them.
pub(super) async fn in_an_insert(trial: &mut Trial<'_, '_>, what: &str) {
    let worker = trial.worker();
    let other = WORKERS[usize::from(worker == WORKERS[0])];
    trial.scenario.kill(other).await;
    trial.owns_all(worker).await;
    let before = trial.scenario.said(worker, LOST);
    trial.fault(what);
    let strike = Strike {
        only: Only::Text(AN_INSERT.to_owned()),
        ..Strike::new(Fault::DelayAnswer(ANSWER_HELD))
    };
    trial.fronts.clickhouse.inject(Some(strike)).unwrap();
    trial.struck(1, |trial| trial.fronts.clickhouse.struck()).await;
    trial.scenario.freeze(worker).await;
    // What was struck is held to its end all the same.
    trial.fronts.heal();
    trial.scenario.start_worker(other).await;
    trial.owns_all(other).await;
    trial.scenario.thaw(worker).await;
    until(
        format!("{worker} to hear that it has lost its partitions"),
        RECOVERED_WITHIN,
        async || (trial.scenario.said(worker, LOST) > before).then_some(()),
    )
    .await;
    trial.recovered().await;
}

/// A worker stands still in a transaction until the group has given its partitions away and the broker has aborted the transaction.
async fn in_a_transaction(trial: &mut Trial<'_, '_>, point: Point) {
    let worker = trial.worker();
    trial.scenario.kill(worker).await;
    trial.fault(&format!("a worker stands still in a transaction ({point})"));
    let order = format!("{point}:{}:stop", trial.random.between(3, 20));
    let special = Worker {
        crash: Some(&order),
        ..Worker::default()
    };
    trial.scenario.launch_worker(worker, special);
    let stood = trial.scenario.stands_still(worker, PASSES_WITHIN).await;
    assert!(stood, "a worker was to stand still at {order}");
    // The other one has its partitions, and has gone on.
    trial.recovered().await;
    trial.scenario.thaw(worker).await;
    trial.recovered().await;
    trial.scenario.kill(worker).await;
    trial.scenario.start_worker(worker).await;
}
