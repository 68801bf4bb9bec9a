//! Workers whose clocks jump. ClickHouse's cannot be made to here: it asks the kernel past every library that could stand before it.

use std::sync::Arc;

use end_to_end::Clock;

use crate::trial::{Trial, WORKERS};

const HOUR: i32 = 3_600;
const AGE: &str = "sluice_batch_age_seconds_sum";

/// The workers' clocks go to and fro, and a worker starts with each.
pub async fn jump(trial: &mut Trial<'_, '_>) {
    let clock = Arc::new(Clock::new(&trial.scenario.dir.join("workers.clock")));
    trial.scenario.clock = Some(Arc::clone(&clock));
    started_again(trial).await;
    let jumps = [
        ("the workers' clocks jump ahead by an hour", HOUR),
        ("the workers' clocks jump back by two hours", -HOUR),
        ("the workers' clocks jump ahead by an hour, and are right", 0),
    ];
    for (what, ahead) in std::iter::repeat_n(jumps, trial.times).flatten() {
        trial.fault(what);
        let before = trial.counted(AGE).await;
        clock.ahead(ahead.into());
        trial.let_pass(2_000..4_000).await;
        trial.recovered().await;
        if ahead > 0 {
            // Batches look as old as the clock is ahead.
            trial.noticed(AGE, before + f64::from(HOUR) / 2.0).await;
        }
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        trial.recovered().await;
    }
    trial.scenario.clock = None;
    started_again(trial).await;
}

async fn started_again(trial: &mut Trial<'_, '_>) {
    for worker in WORKERS {
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
    }
    trial.recovered().await;
}
