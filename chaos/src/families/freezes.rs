//! Processes that stand still and then go on as if nothing had been.

use crate::trial::Trial;

/// Just past the insert's deadline and grace (4 s and 1 s in the trials' pipeline), past the transaction's timeout (5 s), past
/// the session's (6 s), past all of them.
const SPANS_MS: [std::ops::Range<i64>; 4] = [5_100..5_600, 5_600..6_000, 6_500..8_000, 10_000..14_000];

/// A worker stands still for each span.
pub async fn of_workers(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for span in SPANS_MS {
            let worker = trial.worker();
            trial.let_pass(200..2_000).await;
            trial.fault("SIGSTOP of a worker");
            trial.scenario.freeze(worker).await;
            trial.let_pass(span).await;
            trial.scenario.thaw(worker).await;
        }
        trial.recovered().await;
    }
}
