//! A load that goes on while a scenario does its worst.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use load_tests::drive::{self, Progress, Report, Settings};
use tokio::task::JoinHandle;

use crate::ask::until;

/// A run of the driver on a thread of its own.
#[derive(Debug)]
pub struct Load {
    task: JoinHandle<Result<Report, load_tests::Error>>,
    progress: Arc<Mutex<Option<Progress>>>,
}

impl Load {
    pub(crate) fn start(mut settings: Settings) -> Load {
        settings.progress_every = Duration::from_millis(100);
        let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
        let latest = Arc::clone(&progress);
        let task =
            tokio::task::spawn_blocking(move || drive::run(settings, &mut |now| *latest.lock().unwrap() = Some(now)));
        Load { task, progress }
    }

    /// Waits until the load has gone on for this long, with events acknowledged.
    pub async fn has_run_for(&self, span: Duration) {
        until(
            format!("the load to reach {span:?}"),
            span + Duration::from_secs(60),
            async || {
                let over = self.task.is_finished();
                let progress = self.progress.lock().unwrap().clone();
                let reached = progress.is_some_and(|now| now.elapsed >= span && now.acknowledged > 0);
                assert!(reached || !over, "the load ended before {span:?}");
                reached.then_some(())
            },
        )
        .await;
    }

    /// Whether all was sent.
    pub fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// What was produced, once everything is acknowledged.
    pub async fn finished(self) -> Report {
        let report = self.task.await.unwrap().unwrap();
        assert_eq!(report.failed, 0, "Kafka refused events: {:?}", report.last_failure);
        report
    }
}
