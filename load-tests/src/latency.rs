//! From publish to visible: how long after an event was due can a SELECT see it?
//!
//! The driver reports a few acknowledged events a second, with partition and offset. The sampler asks ClickHouse for exactly
//! these, every few milliseconds from 50 ms on, until each is there; the worker's own figures are not asked. An event counts
//! as visible from the moment at which the SELECT that found it was sent. So a figure is at most one look too high (half a
//! second where inserts of several lanes overlap, see below), and too low by no more than what lies between the sending of a
//! SELECT and its choice of parts, a few milliseconds. A look must not slow down what it measures: it reads the parts alone
//! that have come since the first of its samples was published; what should have been visible for half a second is looked
//! for everywhere, because inserts may end in another order than they began.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hdrhistogram::Histogram;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::Error;
use crate::register::client;

/// Samples on their way to the sampler; more are dropped and counted.
const FEED_MAX: usize = 10_000;
/// Samples looked for at once. With more, the oldest are what is measured.
const PENDING_MAX: usize = 2_000;
/// An hour: longer than any sample is looked for.
const LATENCY_MS_MAX: u64 = 3_600_000;
/// How often all parts are read, not only new ones, while a sample is older than this.
const WHOLE_EVERY: Duration = Duration::from_millis(500);
/// A sample that is younger is not looked for: a look that finds nothing is paid for by what is measured.
const YOUNG: Duration = Duration::from_millis(50);
const AFTER_FAULT: Duration = Duration::from_millis(200);

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
    /// How long from a look's answer to the next look.
    pub poll: Duration,
    /// A sample that is not visible after this is given up: a rule may have dropped it.
    pub give_up: Duration,
}

impl Settings {
    /// User `default` without a password, a look each 20 ms, a minute's patience, no tables yet.
    #[must_use]
    pub fn new(url: impl Into<String>, database: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            database: database.into(),
            user: "default".to_owned(),
            password: String::new(),
            tables: BTreeMap::new(),
            poll: Duration::from_millis(20),
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
        let http = client(&settings.url).map_err(|error| Error::Settings(format!("clickhouse client: {error}")))?;
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
        let search = Search {
            settings,
            http,
            pending: Vec::new(),
            measured: measured.clone(),
            before: BTreeMap::new(),
            whole_at: Instant::now(),
        };
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

struct Search {
    settings: Settings,
    http: reqwest::Client,
    pending: Vec<Sample>,
    measured: Arc<Mutex<Measured>>,
    /// The newest block of each table before any pending sample could be visible.
    before: BTreeMap<String, i64>,
    whole_at: Instant,
}

impl Search {
    async fn run(mut self, mut from: mpsc::Receiver<Sample>, mut until: watch::Receiver<Option<Instant>>) {
        loop {
            while self.pending.len() < PENDING_MAX
                && let Ok(sample) = from.try_recv()
            {
                self.take(sample);
            }
            let deadline = *until.borrow_and_update();
            if deadline.is_some_and(|end| self.pending.is_empty() || Instant::now() >= end) {
                return;
            }
            let rest = if self.pending.is_empty() {
                tokio::select! {
                    sample = from.recv() => { sample.into_iter().for_each(|sample| self.take(sample)); }
                    ended = until.changed() => if ended.is_err() { return },
                }
                // What cannot be told now is found in all parts, once it is overdue.
                self.before = self.newest().await.unwrap_or_default();
                Duration::ZERO
            } else if let Some(rest) = self.too_young() {
                rest
            } else {
                match self.look().await {
                    Ok(()) => self.settings.poll,
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
        if self.settings.tables.contains_key(&*sample.topic) {
            self.pending.push(sample);
        }
    }

    /// Whatever of the pending samples has become visible since the last look.
    async fn look(&mut self) -> Result<(), String> {
        let whole = self.whole_at.elapsed() >= WHOLE_EVERY && self.overdue();
        let Some(question) = self.question(whole) else {
            return Ok(());
        };
        let sent_ms = unix_ms();
        let answer = self.ask(question).await?;
        self.take_out(&answer, sent_ms);
        if whole {
            self.whole_at = Instant::now();
        }
        Ok(())
    }

    /// How long until the oldest sample is looked for.
    fn too_young(&self) -> Option<Duration> {
        let oldest_ms = self.pending.iter().map(|sample| sample.at_ms).min()?;
        let age = Duration::from_millis(u64::try_from(unix_ms() - oldest_ms).unwrap_or_default());
        YOUNG.checked_sub(age).filter(|rest| !rest.is_zero())
    }

    /// Whether a sample should have been visible by now, so that a part which was passed over may hold it.
    fn overdue(&self) -> bool {
        let before_ms = unix_ms() - i64::try_from(WHOLE_EVERY.as_millis()).unwrap_or(i64::MAX);
        self.pending.iter().any(|sample| sample.at_ms < before_ms)
    }

    /// The newest block of each table: what was acknowledged a moment ago is in later ones.
    async fn newest(&self) -> Result<BTreeMap<String, i64>, String> {
        let tables: HashSet<&String> = self.settings.tables.values().collect();
        let names: Vec<String> = tables.iter().map(|table| quoted(table, '\'')).collect();
        let question = format!(
            "SELECT table, max(max_block_number) FROM system.parts WHERE active AND database = {} AND table IN ({}) \
             GROUP BY table SETTINGS max_threads = 1 FORMAT TabSeparatedRaw",
            quoted(&self.settings.database, '\''),
            names.join(",")
        );
        let answer = self.ask(question).await?;
        let line = |line: &str| {
            let (table, block) = line.split_once('\t')?;
            Some((table.to_owned(), block.parse().ok()?))
        };
        Ok(answer.lines().filter_map(line).collect())
    }

    async fn ask(&self, question: String) -> Result<String, String> {
        let response = self
            .http
            .post(&self.settings.url)
            .header("x-clickhouse-user", &self.settings.user)
            .header("x-clickhouse-key", &self.settings.password)
            .body(question)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let answer = response.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(answer.trim().chars().take(300).collect());
        }
        Ok(answer)
    }

    fn take_out(&mut self, answer: &str, sent_ms: i64) {
        let seen: HashSet<&str> = answer.lines().collect();
        let mut measured = lock(&self.measured);
        self.pending.retain(|sample| {
            let visible = seen.contains(format!("{}\t{}\t{}", sample.topic, sample.partition, sample.offset).as_str());
            if visible {
                let after_ms = sent_ms.saturating_sub(sample.at_ms).max(0).unsigned_abs();
                measured.histogram.saturating_record(after_ms);
            }
            !visible
        });
    }

    /// `whole`: in all parts of the tables, not only in those that came after the samples. `None` if there is nothing to ask.
    fn question(&self, whole: bool) -> Option<String> {
        let mut by_topic: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in &self.pending {
            by_topic.entry(&sample.topic).or_default().push(sample);
        }
        let select = |(topic, samples): (&&str, &Vec<&Sample>)| {
            let table = self.settings.tables.get(*topic)?;
            let all = self.select(topic, table, samples);
            if whole {
                return Some(all);
            }
            Some(format!(
                "{all} AND _part IN (SELECT name FROM system.parts WHERE active AND database = {} AND table = {} \
                 AND max_block_number > {})",
                quoted(&self.settings.database, '\''),
                quoted(table, '\''),
                self.before.get(table).copied().unwrap_or(-1)
            ))
        };
        let selects: Vec<String> = by_topic.iter().filter_map(select).collect();
        let all = selects.join(" UNION ALL ");
        (!selects.is_empty()).then(|| format!("{all} SETTINGS max_threads = 1 FORMAT TabSeparatedRaw"))
    }

    /// The bounds repeat what the list says, because the table's index understands them.
    fn select(&self, topic: &str, table: &str, samples: &[&Sample]) -> String {
        let first = samples.iter().map(|sample| sample.offset).min().unwrap_or_default();
        let last = samples.iter().map(|sample| sample.offset).max().unwrap_or_default();
        let mut list = String::new();
        for (n, Sample { partition, offset, .. }) in samples.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            if write!(list, "{comma}({partition},{offset})").is_err() {}
        }
        format!(
            "SELECT _topic, _partition, _offset FROM {}.{} WHERE _topic = {} AND _offset BETWEEN {first} AND {last} \
             AND (_partition, _offset) IN ({list})",
            quoted(&self.settings.database, '`'),
            quoted(table, '`'),
            quoted(topic, '\''),
        )
    }

    fn forget_old(&mut self) {
        let give_up_ms = i64::try_from(self.settings.give_up.as_millis()).unwrap_or(i64::MAX);
        let oldest_ms = unix_ms().saturating_sub(give_up_ms);
        let before = self.pending.len();
        self.pending.retain(|sample| sample.at_ms >= oldest_ms);
        let forgotten = before - self.pending.len();
        let mut measured = lock(&self.measured);
        measured.unseen += u64::try_from(forgotten).unwrap_or(u64::MAX);
        measured.pending = u64::try_from(self.pending.len()).unwrap_or(u64::MAX);
    }
}

fn quoted(text: &str, mark: char) -> String {
    let escaped = text.replace('\\', "\\\\").replace(mark, &format!("\\{mark}"));
    format!("{mark}{escaped}{mark}")
}

fn lock(measured: &Mutex<Measured>) -> MutexGuard<'_, Measured> {
    measured.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
