//! From publish to visible: how long after an event was due can a SELECT see it?
//!
//! The driver reports a few acknowledged events a second, with partition and offset. The sampler asks ClickHouse for exactly
//! these, again and again until each is there; the worker's own figures are not asked. So it knows two moments for each: a
//! SELECT sent at the first did not find it, a SELECT sent at the second did. When within them the event became visible is
//! taken from ClickHouse's own record, `system.part_log`: the part in which the event was found is logged as new once it can
//! be read. Of a part that was merged before the event was found, the last of the inserts that it is made of counts, and what
//! the log says counts between the two moments alone. If it says nothing (there is no such log), the second moment counts, so
//! that a figure is never too low.
//!
//! A look must not slow down what it measures, and looks are what costs: with the log few are needed.

mod asking;
mod search;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::search::Search;
use crate::Error;

/// Samples on their way to the sampler; more are dropped and counted.
const FEED_MAX: usize = 10_000;
/// An hour: longer than any sample is looked for.
const LATENCY_MS_MAX: u64 = 3_600_000;
/// Where events become visible.
#[derive(Debug, Clone)]
pub struct Settings {
    /// ClickHouse's HTTP address.
    pub url: String,
    /// Its database.
    pub database: String,
    /// The user; `default` unless set.
    pub user: String,
    /// Its password.
    pub password: String,
    /// Topic to table. Topics that aren't here are not looked for.
    pub tables: BTreeMap<String, String>,
    /// How long from a look's answer to the next look while ClickHouse's log says what happened between them; a tenth of it
    /// without the log.
    pub poll: Duration,
    /// A sample that is not visible after this is given up: a rule may have dropped it.
    pub give_up: Duration,
}

impl Settings {
    /// User `default` without a password, a look each 200 ms, a minute's patience, no tables yet.
    #[must_use]
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            user: "default".to_owned(),
            password: String::new(),
            tables: BTreeMap::new(),
            poll: Duration::from_millis(200),
            give_up: Duration::from_secs(60),
        }
    }
}

/// One acknowledged event to look for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: i32,
    /// Its offset.
    pub offset: i64,
    /// When it should have been sent, unix ms.
    pub at_ms: i64,
}

/// Takes samples to the sampler from any thread, without waiting.
#[derive(Debug, Clone)]
pub struct Feed {
    to: mpsc::Sender<Sample>,
    dropped: Arc<AtomicU64>,
}

impl Feed {
    /// Reports an acknowledged event.
    pub fn published(&self, sample: Sample) {
        if self.to.try_send(sample).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What was measured; times in ms.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Latency {
    /// Half of the samples were visible after this.
    pub p50: u64,
    /// 95 of 100.
    pub p95: u64,
    /// 99 of 100.
    pub p99: u64,
    /// All that were seen.
    pub max: u64,
    /// How many were seen.
    pub samples: u64,
    /// How many were not visible in time, or are still looked for.
    pub unseen: u64,
    /// How many were not looked for because too many were under way.
    pub dropped: u64,
}

/// Looks for samples until it is finished or dropped.
#[derive(Debug)]
pub struct Sampler {
    feed: Feed,
    measured: Arc<Mutex<Measured>>,
    over: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Measured {
    histogram: Histogram<u64>,
    unseen: u64,
    pending: u64,
    last_fault: Option<String>,
}

impl Sampler {
    /// Starts looking, as a task of the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Settings`] when the HTTP client or the histogram cannot be made.
    pub fn start(settings: Settings) -> Result<Self, Error> {
        let histogram =
            Histogram::new_with_bounds(1, LATENCY_MS_MAX, 3).map_err(|error| Error::Settings(error.to_string()))?;
        let measured = Arc::new(Mutex::new(Measured {
            histogram,
            unseen: 0,
            pending: 0,
            last_fault: None,
        }));
        let (to, from) = mpsc::channel(FEED_MAX);
        let (over, until) = watch::channel(None);
        let search = Search::new(settings, Arc::clone(&measured))?;
        let task = tokio::spawn(search.run(from, until));
        Ok(Self {
            feed: Feed {
                to,
                dropped: Arc::default(),
            },
            measured,
            over,
            task,
        })
    }

    /// Where to report samples.
    #[must_use]
    pub fn feed(&self) -> Feed {
        self.feed.clone()
    }

    /// What was measured so far.
    #[must_use]
    pub fn so_far(&self) -> Latency {
        let measured = lock(&self.measured);
        let at = |quantile| measured.histogram.value_at_quantile(quantile);
        Latency {
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            max: measured.histogram.max(),
            samples: measured.histogram.len(),
            unseen: measured.unseen + measured.pending,
            dropped: self.feed.dropped.load(Ordering::Relaxed),
        }
    }

    /// Why ClickHouse could not be asked the last time it could not.
    #[must_use]
    pub fn last_fault(&self) -> Option<String> {
        lock(&self.measured).last_fault.clone()
    }

    /// Looks for what is still missing, at most this long, and ends.
    pub async fn finish(mut self, wait: Duration) -> Latency {
        self.over.send_replace(Some(Instant::now() + wait));
        if let Err(error) = (&mut self.task).await {
            lock(&self.measured).last_fault = Some(error.to_string());
        }
        self.so_far()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(measured: &Mutex<Measured>) -> MutexGuard<'_, Measured> {
    measured.lock().unwrap_or_else(PoisonError::into_inner)
}
