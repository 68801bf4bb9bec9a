//! What a trial waits for while things go wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use end_to_end::{End, until};

use super::{RECOVERED_WITHIN, Trial, WORKERS};

/// For what need not recover to do so all the same.
const LEFT_ALONE: Duration = Duration::from_secs(20);
/// For so many requests to come by as a proxy is to strike.
const STRUCK_WITHIN: Duration = Duration::from_secs(60);
/// Between two looks at what the group has committed.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Trial<'_, '_> {
    /// Waits until everything that is in the log now is committed: what was struck has recovered.
    ///
    /// # Panics
    /// When it takes longer than [`RECOVERED_WITHIN`], if it has to recover at all.
    pub async fn recovered(&mut self) {
        let healed = Instant::now();
        let ends = self.ends().await;
        self.committed("all that was there to be committed", &ends).await;
        let took = healed.elapsed();
        tracing::info!(seconds = took.as_secs_f64(), "recovered");
        self.recovered_max = self.recovered_max.max(took);
    }

    /// Waits until an event that was written after `struck` is committed in each partition of the topic with the most events:
    /// the pipeline works, whatever else is still broken. What it takes to look is part of the time that is noted.
    ///
    /// # Panics
    /// When it takes longer than [`RECOVERED_WITHIN`].
    pub async fn flows(&mut self, struck: Instant) {
        let ends = self.ends().await;
        let busiest = busiest(&ends);
        let next: Vec<End> = ends
            .into_iter()
            .filter(|(topic, ..)| *topic == busiest)
            .map(|(topic, partition, end)| (topic, partition, end + 1))
            .collect();
        self.committed("later events to be committed", &next).await;
        let took = struck.elapsed();
        tracing::info!(seconds = took.as_secs_f64(), "flows");
        self.flowing.get_or_insert(took);
    }

    /// Waits until a proxy has struck so often.
    ///
    /// # Panics
    /// When nothing comes by, if it has to recover at all.
    pub async fn struck(&self, least: u64, count: impl Fn(&Trial<'_, '_>) -> u64) {
        let deadline = Instant::now() + STRUCK_WITHIN;
        while count(self) < least && (self.has_to_recover || Instant::now() < deadline) {
            assert!(
                Instant::now() < deadline,
                "{STRUCK_WITHIN:?} passed, and a proxy has not struck {least} times"
            );
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until the workers have counted more of something than before: what was struck was noticed.
    ///
    /// # Panics
    /// When they have not.
    pub async fn noticed(&self, metric: &str, before: f64) {
        until(format!("workers to notice, by {metric}"), STRUCK_WITHIN, async || {
            (self.counted(metric).await > before).then_some(())
        })
        .await;
    }

    /// The sum of a metric of all workers.
    pub async fn counted(&self, metric: &str) -> f64 {
        let mut sum = 0.0;
        for worker in WORKERS {
            sum += self.scenario.metric(worker, metric, &[]).await;
        }
        sum
    }

    /// Waits until a worker has all partitions.
    ///
    /// # Panics
    /// When it does not get them.
    pub async fn owns_all(&self, worker: &str) {
        let sources = self.scenario.pipeline.sources.iter();
        let all: f64 = sources.map(|source| f64::from(source.partitions)).sum();
        self.scenario
            .metric_reaches(worker, "sluice_partitions_owned", all)
            .await;
    }

    /// Waits until everything that is in the log now is committed, but of one partition that has stopped.
    ///
    /// # Panics
    /// When it takes longer than [`RECOVERED_WITHIN`], or nothing was written to the others since `since`, the ends of an earlier time.
    pub async fn others_go_on(&mut self, stopped: (&str, i32), since: &[End]) {
        let grown = |(topic, partition, end): &End| {
            let mut before = since.iter();
            let before = before.find(|(of, number, _)| of == topic && number == partition);
            *end > before.map_or(0, |(.., end)| *end)
        };
        let ends = until("records in the other partitions", RECOVERED_WITHIN, async || {
            let mut ends = self.ends().await;
            ends.retain(|(topic, partition, _)| (topic.as_str(), *partition) != stopped);
            ends.iter().any(grown).then_some(ends)
        })
        .await;
        self.committed("the other partitions to be committed", &ends).await;
    }

    /// The topic with the most events.
    pub async fn busiest(&self) -> String {
        busiest(&self.ends().await)
    }

    /// The end of every source partition.
    ///
    /// # Panics
    /// When Kafka does not tell.
    pub async fn ends(&self) -> Vec<End> {
        until("Kafka to tell where topics end", RECOVERED_WITHIN, async || {
            self.scenario.ends().ok()
        })
        .await
    }

    async fn committed(&self, what: &str, ends: &[End]) {
        let patience = if self.has_to_recover {
            RECOVERED_WITHIN
        } else {
            LEFT_ALONE
        };
        let deadline = Instant::now() + patience;
        while !matches!(self.scenario.behind(ends), Ok(0)) {
            if Instant::now() > deadline {
                if !self.has_to_recover {
                    return;
                }
                let evidence = self.scenario.evidence(ends).await;
                panic!("waited {RECOVERED_WITHIN:?} in vain for {what}\n{evidence}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn busiest(ends: &[End]) -> String {
    let mut events = BTreeMap::<&String, i64>::new();
    for (topic, _, end) in ends {
        *events.entry(topic).or_default() += end;
    }
    let (busiest, _) = events.into_iter().max_by_key(|(_, events)| *events).unwrap();
    busiest.clone()
}
