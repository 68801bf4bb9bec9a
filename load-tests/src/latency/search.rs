//! Looks for samples, and finds out when each became visible.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};

use super::asking::{Asking, Inserted, Key, Part};
use super::{Measured, Sample, Settings, lock};
use crate::{Error, unix_ms};

/// Samples looked for at once. With more, the oldest are what is measured.
const PENDING_MAX: usize = 2_000;
/// How often ClickHouse's log is read.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// A part that the log doesn't name after this will not be named: the server writes it down every few seconds.
const LOG_PATIENCE_MS: i64 = 20_000;
/// A part that was found so long ago is in the log together with all that it was merged from: the server writes of an insert right after its
/// part can be read.
const LOGGED_AFTER_MS: i64 = 500;
/// From which age on a sample is looked for everywhere, not only in what has changed since it was published by our clock, and
/// how often.
const WHOLE_AFTER: Duration = Duration::from_secs(5);
const AFTER_FAULT: Duration = Duration::from_millis(200);

/// Seldom enough that looks are not felt, with a log that tells what happened between them; else as often as is exact.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// A sample that is younger is not looked for: a look that finds nothing is paid for by what is measured.
    young: Duration,
    /// From a look's answer to the next look.
    every: Duration,
}

pub(super) struct Search {
    asking: Asking,
    give_up: Duration,
    with_log: Pace,
    without_log: Pace,
    log_read: bool,
    log_at: Instant,
    whole_at: Instant,
    pending: Vec<Pending>,
    found: Vec<Found>,
    measured: Arc<Mutex<Measured>>,
}

struct Pending {
    sample: Sample,
    /// When the last SELECT that did not find it was sent; until then, when the event was due.
    missed_ms: i64,
}

/// A sample that is visible; since when is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    at_ms: i64,
    missed_ms: i64,
    found_ms: i64,
    part: Part,
}

impl Found {
    /// When it became visible at the latest, as the log has it: it came with one of the inserts of which its part is made, and with none that
    /// was there when it was looked for in vain. `None`: the log names none of them.
    fn visible_ms(&self, inserts: &[Inserted]) -> Option<i64> {
        let of_part = inserts.iter().filter(|insert| self.part.holds(&insert.part));
        let times = of_part.map(|insert| insert.at_ms);
        let between = times.clone().filter(|at_ms| *at_ms <= self.found_ms).max();
        between.or_else(|| times.min())
    }

    /// How long it took until the event was visible. `logged_ms`: what ClickHouse's log says.
    fn took_ms(&self, logged_ms: Option<i64>) -> u64 {
        let latest = self.found_ms.max(self.missed_ms);
        let visible_ms = logged_ms.map_or(latest, |logged| logged.clamp(self.missed_ms, latest));
        visible_ms.saturating_sub(self.at_ms).max(0).unsigned_abs()
    }
}

impl Search {
    pub(super) fn new(settings: Settings, measured: Arc<Mutex<Measured>>) -> Result<Self, Error> {
        let pace = |young, every| Pace { young, every };
        Ok(Self {
            give_up: settings.give_up,
            with_log: pace(settings.poll, settings.poll),
            without_log: pace(Duration::from_millis(50).min(settings.poll), settings.poll / 10),
            log_read: false,
            log_at: Instant::now(),
            whole_at: Instant::now(),
            pending: Vec::new(),
            found: Vec::new(),
            measured,
            asking: Asking::new(settings)?,
        })
    }

    pub(super) async fn run(mut self, mut from: mpsc::Receiver<Sample>, mut until: watch::Receiver<Option<Instant>>) {
        loop {
            while self.pending.len() < PENDING_MAX
                && let Ok(sample) = from.try_recv()
            {
                self.take(sample);
            }
            let deadline = *until.borrow_and_update();
            if deadline.is_some_and(|end| self.pending.is_empty() || Instant::now() >= end) {
                return self.finish().await;
            }
            let rest = if self.pending.is_empty() && self.found.is_empty() {
                tokio::select! {
                    sample = from.recv() => { sample.into_iter().for_each(|sample| self.take(sample)); }
                    ended = until.changed() => if ended.is_err() { return },
                }
                Duration::ZERO
            } else {
                match self.step().await {
                    Ok(rest) => rest,
                    Err(fault) => {
                        lock(&self.measured).last_fault = Some(fault);
                        AFTER_FAULT
                    }
                }
            };
            self.forget_old();
            tokio::time::sleep(rest).await;
        }
    }

    fn take(&mut self, sample: Sample) {
        if self.asking.knows(&sample.topic) {
            let missed_ms = sample.at_ms;
            self.pending.push(Pending { sample, missed_ms });
        }
    }

    /// Looks for what is old enough and answers how long to rest.
    async fn step(&mut self) -> Result<Duration, String> {
        if self.log_at.elapsed() >= LOG_EVERY {
            self.log_at = Instant::now();
            self.read_log().await;
        }
        let pace = if self.log_read { self.with_log } else { self.without_log };
        let age_ms = |pending: &Pending| unix_ms() - pending.sample.at_ms;
        let oldest_ms = self.pending.iter().map(age_ms).max().unwrap_or_default();
        let oldest = Duration::from_millis(u64::try_from(oldest_ms).unwrap_or_default());
        if let Some(rest) = pace.young.checked_sub(oldest).filter(|rest| !rest.is_zero()) {
            return Ok(rest);
        }
        let whole = oldest >= WHOLE_AFTER && self.whole_at.elapsed() >= WHOLE_AFTER;
        self.look(whole).await?;
        if whole {
            self.whole_at = Instant::now();
        }
        Ok(pace.every)
    }

    async fn look(&mut self, whole: bool) -> Result<(), String> {
        let samples: Vec<&Sample> = self.pending.iter().map(|pending| &pending.sample).collect();
        let sent_ms = unix_ms();
        let mut seen = self.asking.for_samples(&samples, whole).await?;
        let Self { pending, found, .. } = self;
        pending.retain_mut(|pending| {
            let Sample {
                topic,
                partition,
                offset,
                at_ms,
            } = &pending.sample;
            let key = Key {
                topic: topic.to_string(),
                partition: *partition,
                offset: *offset,
            };
            match seen.remove(&key) {
                Some(part) => {
                    let (at_ms, missed_ms) = (*at_ms, pending.missed_ms);
                    found.push(Found {
                        at_ms,
                        missed_ms,
                        found_ms: sent_ms,
                        part,
                    });
                    false
                }
                None => {
                    pending.missed_ms = pending.missed_ms.max(sent_ms);
                    true
                }
            }
        });
        Ok(())
    }

    /// Measures what the log names, and what it has not named for too long.
    async fn read_log(&mut self) {
        let Some(since_ms) = self.found.iter().map(|found| found.at_ms).min() else {
            return;
        };
        // Without a log, or without the right to read it, what was found counts from when it was found.
        let asked_ms = unix_ms();
        let inserts = self.asking.inserts(since_ms).await.unwrap_or_default();
        self.log_read |= !inserts.is_empty();
        self.measure(&inserts, asked_ms - LOGGED_AFTER_MS, asked_ms - LOG_PATIENCE_MS);
    }

    /// What was found before `logged_ms` is measured by the log if that names it, and what was found before `given_up_ms` without.
    fn measure(&mut self, inserts: &[Inserted], logged_ms: i64, given_up_ms: i64) {
        let mut measured = lock(&self.measured);
        self.found.retain(|found| {
            let visible_ms = match found.found_ms <= logged_ms {
                true => found.visible_ms(inserts),
                false => None,
            };
            let known = visible_ms.is_some() || found.found_ms <= given_up_ms;
            if known {
                measured.histogram.saturating_record(found.took_ms(visible_ms));
            }
            !known
        });
    }

    async fn finish(mut self) {
        tokio::time::sleep(Duration::from_millis(LOGGED_AFTER_MS.unsigned_abs())).await;
        self.read_log().await;
        self.measure(&[], i64::MIN, i64::MAX);
        self.forget_old();
    }

    fn forget_old(&mut self) {
        let give_up_ms = i64::try_from(self.give_up.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = unix_ms().saturating_sub(give_up_ms);
        let before = self.pending.len();
        self.pending.retain(|pending| pending.sample.at_ms >= oldest_ms);
        let forgotten = before - self.pending.len();
        let mut measured = lock(&self.measured);
        measured.unseen += u64::try_from(forgotten).unwrap_or(u64::MAX);
        measured.pending = u64::try_from(self.pending.len() + self.found.len()).unwrap_or(u64::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(at_ms: i64, missed_ms: i64, found_ms: i64) -> Found {
        let part = Part {
            table: "orders".to_owned(),
            name: "202611_1_1_0".to_owned(),
        };
        Found {
            at_ms,
            missed_ms,
            found_ms,
            part,
        }
    }

    #[test]
    fn the_log_says_when_between_the_two_looks() {
        let found = found(1_000, 1_100, 1_300);
        assert_eq!(found.took_ms(Some(1_170)), 170);
    }

    #[test]
    fn a_log_whose_clock_is_off_is_believed_no_further_than_the_looks_go() {
        let found = found(1_000, 1_100, 1_300);
        assert_eq!(found.took_ms(Some(900)), 100);
        assert_eq!(found.took_ms(Some(5_000)), 300);
    }

    #[test]
    fn without_a_log_the_look_that_found_it_counts() {
        assert_eq!(found(1_000, 1_100, 1_300).took_ms(None), 300);
    }

    #[test]
    fn of_a_merged_part_the_last_insert_before_it_was_found_counts() {
        let insert = |name: &str, at_ms| Inserted {
            part: Part {
                table: "orders".to_owned(),
                name: name.to_owned(),
            },
            at_ms,
        };
        let inserts = [
            insert("202611_3_3_0", 1_120),
            insert("202611_4_4_0", 1_180),
            insert("202611_6_6_0", 1_190),
            insert("202612_4_4_0", 1_195),
        ];
        let mut merged = found(1_000, 1_100, 1_300);
        merged.part.name = "202611_1_5_1".to_owned();
        assert_eq!(merged.visible_ms(&inserts), Some(1_180));
        assert_eq!(merged.visible_ms(&inserts[2..]), None);
        // The server's clock is ahead: all of its inserts seem to come after the look that found them.
        merged.found_ms = 1_110;
        assert_eq!(merged.visible_ms(&inserts), Some(1_120));
    }

    #[test]
    fn a_clock_that_was_set_back_makes_no_negative_time() {
        assert_eq!(found(1_000, 1_000, 400).took_ms(None), 0);
        assert_eq!(found(1_000, 1_000, 400).took_ms(Some(300)), 0);
    }
}
