//! What an event costs when a deployment grows: more tenants, partitions, tables, or a longer backlog. Each is measured in its small and in
//! its large form in turn, on the same parts and in one run; what counts is how many times as much CPU the worker takes for an event.
//!
//! - **Tenants**: 10, and 10,000 with a document each. The documents have 20 different texts, as those that come of templates have; tenants
//!   whose text differs by their name alone share one compiled program (`rules/src/revision.rs`).
//! - **Partitions** of one topic: 8 and 256. The alert topic keeps its 8.
//! - **Tables**: one topic with 40 partitions and its table, and 20 topics with 2 each. A source has a topic and a table of its own, so that who
//!   has 20 kinds of events has 20 of both; the partitions stay as many, because they are measured by themselves.
//! - **Backlog**: one million events, and four (or thirty, in full).
//!
//! A figure begins when the worker says that it is ready: what reading and compiling the rules costs is told beside it. A run in which promises
//! were read back did some of its work twice, because a lane joined the group when the other one had begun already: it is told, and repeated.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use devstack::Part;
use load_tests::envelope::{self, Filling};
use load_tests::register::{RegistryAddress, register_schema};

use crate::arguments::at_least_one;
use crate::error::Error;
use crate::files::{self, free_bytes};
use crate::peers::{grown, median, spent};
use crate::role::{self, Role, free_address};
use crate::shop::{self, PARTITIONS, Size};
use crate::stand::{DIFFERENT, Stand, payloads};

const TENANTS: usize = 50;
const MILLION: usize = 1_000_000;
/// Of a run in which promises are read back.
const TRIES: usize = 4;
/// Of an event on the disk, topic and table, while ClickHouse merges: about 100 bytes in the topic's LZ4, and as many in the table, which a
/// merge has twice.
const DISK_BYTES_AN_EVENT: u64 = 350;
/// Besides: the parts themselves, and what nobody wants to fill up.
const DISK_BYTES_LEFT: u64 = 2 << 30;

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// These alone
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT,...")]
    pub only: Vec<Dimension>,
    /// Events of a run, but for the backlog
    #[arg(long, default_value_t = MILLION, value_parser = at_least_one())]
    pub events: usize,
    /// Different texts of the tenants' rules
    #[arg(long, default_value_t = 20, value_parser = at_least_one())]
    pub texts: usize,
    /// Runs of each size, in turn; the median counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    pub runs: usize,
    /// A backlog of 30 million events instead of 4
    #[arg(long)]
    pub full: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

impl Default for Options {
    /// As the command's.
    fn default() -> Self {
        Self {
            only: Vec::new(),
            events: MILLION,
            texts: 20,
            runs: 3,
            full: false,
            json: false,
        }
    }
}

/// What grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dimension {
    /// 10 to 10,000
    Tenants,
    /// 8 to 256 of one topic
    Partitions,
    /// 1 to 20, each with a topic
    Tables,
    /// One million events to four, or thirty
    Backlog,
}

/// One size of one dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Case {
    /// What it has of the dimension.
    number: usize,
    size: Size,
    events: usize,
}

impl Dimension {
    /// The small one and the large one.
    fn cases(self, options: &Options) -> [Case; 2] {
        let case = |number| {
            let mut case = Case {
                number,
                size: Size {
                    topics: 1,
                    partitions: PARTITIONS,
                    tenants: TENANTS,
                    texts: TENANTS,
                },
                events: options.events,
            };
            match self {
                Self::Tenants => {
                    case.size.tenants = number;
                    case.size.texts = options.texts;
                }
                Self::Partitions => case.size.partitions = number,
                Self::Tables => {
                    case.size.topics = number;
                    case.size.partitions = 40 / number;
                }
                Self::Backlog => case.events = number,
            }
            // As many for each topic.
            case.events -= case.events % case.size.topics;
            case
        };
        let backlog = if options.full { 30 * MILLION } else { 4 * MILLION };
        let numbers = match self {
            Self::Tenants => [10, 10_000],
            Self::Partitions => [8, 256],
            Self::Tables => [1, 20],
            Self::Backlog => [MILLION, backlog],
        };
        numbers.map(case)
    }
}

impl Display for Dimension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tenants => "tenants",
            Self::Partitions => "partitions",
            Self::Tables => "tables",
            Self::Backlog => "events of backlog",
        })
    }
}

/// What one run cost, from the moment at which the worker was ready until ClickHouse had merged what it wants to.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Run {
    /// Events a second, from the first tenth to the last event.
    pub rate: f64,
    /// CPU time of each process for an event, microseconds.
    pub cpu_us: BTreeMap<&'static str, f64>,
    /// Before: CPU time of the worker until it was ready, seconds.
    pub start_cpu_s: f64,
    /// Before: from its start until it was ready, seconds.
    pub start_s: f64,
    /// Rows of an insert, on average.
    pub rows_an_insert: f64,
    /// Promises whose rows were read back, because the outcome of a delivery was unknown: some of the work was done twice.
    pub settled: f64,
}

impl Run {
    fn worker_us(&self) -> f64 {
        self.cpu_us.get("worker").copied().unwrap_or_default()
    }

    fn total_us(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

/// One size, and its runs.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Sized {
    /// What it has of the dimension.
    pub number: usize,
    /// In turn with the other size's.
    pub runs: Vec<Run>,
}

impl Sized {
    fn median(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        median(self.runs.iter().map(figure).collect())
    }
}

/// How an event's cost grows with one thing.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Growth {
    /// With what.
    pub what: Dimension,
    /// The small size.
    pub small: Sized,
    /// The large one.
    pub large: Sized,
}

impl Growth {
    fn ratio(&self, figure: impl Fn(&Run) -> f64) -> f64 {
        self.large.median(&figure) / self.small.median(&figure)
    }

    /// How many times as much CPU the worker takes for an event; medians.
    pub fn worker_ratio(&self) -> f64 {
        self.ratio(Run::worker_us)
    }

    /// The same of all processes together.
    pub fn total_ratio(&self) -> f64 {
        self.ratio(Run::total_us)
    }

    /// From how many to how many of what.
    pub fn name(&self) -> String {
        format!("{} to {} {}", self.small.number, self.large.number, self.what)
    }
}

/// Whether so many events have room, or what to say.
fn room(events: usize, free: u64) -> Result<(), String> {
    let needed = (events as u64) * DISK_BYTES_AN_EVENT + DISK_BYTES_LEFT;
    if free >= needed {
        return Ok(());
    }
    let gib = |bytes: u64| bytes.div_ceil(1 << 30);
    Err(format!(
        "{events} events take about {} GiB of the disk, topic and table, and {} GiB are free; set TMPDIR to a directory on a larger one",
        gib(needed),
        free >> 30
    ))
}

/// Registers the schemas, makes the topics as `sluice schema apply` does, and fills them.
async fn fill(stand: &Stand, topics: &str, case: Case) -> Result<(), Error> {
    let registry = RegistryAddress {
        url: stand.stack.registry.clone(),
        credentials: None,
    };
    let name = format!("filled_{topics}");
    let dir = stand.dir.path().join(&name);
    let mut schema_id = 0;
    for topic in case.size.topics(topics) {
        schema_id = register_schema(&registry, &format!("{topic}-value"), envelope::SCHEMA).await?;
    }
    // A tenant is enough where nobody runs rules.
    let size = Size {
        tenants: 1,
        ..case.size
    };
    shop::write_of(&dir, &stand.at(&name, "http://127.0.0.1:9"), topics, size)?;
    role::run(&dir, &["schema", "apply"]).await?;
    let (brokers, names) = (stand.stack.kafka.clone(), case.size.topics(topics));
    let filled = tokio::task::spawn_blocking(move || {
        let payloads = payloads(DIFFERENT.min(case.events), case.size.tenants);
        for topic in &names {
            let filling = Filling {
                brokers: &brokers,
                topic,
                partitions: case.size.partitions,
                schema_id,
            };
            filling.fill(&payloads, case.events / names.len())?;
        }
        Ok::<_, Error>(())
    });
    filled.await.map_err(|error| Error::Failed(error.to_string()))?
}

/// CPU time of all parts and roles so far.
fn cpu(stand: &Stand, worker: &Role, billing: &Role) -> Result<BTreeMap<&'static str, Duration>, Error> {
    Ok(BTreeMap::from([
        ("worker", worker.cpu()?),
        ("billing", billing.cpu()?),
        ("kafka", stand.cpu(Part::Kafka)?),
        ("clickhouse", stand.cpu(Part::ClickHouse)?),
    ]))
}

/// One worker and the billing service move what is in the topics.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn moved(stand: &Stand, topics: &str, case: Case, number: &str) -> Result<Run, Error> {
    let name = format!("{topics}_{number}_moved");
    let billing_at = free_address()?;
    let dir = stand.dir.path().join(&name);
    let billing_url = format!("http://{billing_at}");
    shop::write_of(&dir, &stand.at(&name, &billing_url), topics, case.size)?;
    role::run(&dir, &["schema", "apply"]).await?;
    let mut billing = Role::start(&dir, "billing", "--http").await?;
    let began = Instant::now();
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    let start_s = began.elapsed().as_secs_f64();
    let before = cpu(stand, &worker, &billing)?;
    let rate = grown(case.events, async || {
        worker.alive()?;
        billing.alive()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(worker.metric("sluice_records_committed_total").await as u64)
    })
    .await?;
    stand.quiet().await?;
    let cpu_us = spent(&before, &cpu(stand, &worker, &billing)?, case.events);
    let inserts = worker.metric("sluice_insert_seconds_count").await;
    let settled = worker.metric("sluice_promises_settled_total").await;
    let (dead, charges) = (
        worker.metric("sluice_dead_letters_total").await,
        worker.metric("sluice_charges_total").await,
    );
    worker.stop().await?;
    billing.stop().await?;
    if dead > 0.0 || charges < 1.0 {
        return Err(Error::Failed(format!(
            "{dead} dead letters and {charges} charges of {} sound events",
            case.events
        )));
    }
    let mut rows = 0;
    let of_each = (case.events / case.size.topics) as u64;
    for table in case.size.topics(topics) {
        let there = stand.number(&format!("SELECT count() FROM {name}.{table}")).await?;
        if there != of_each {
            return Err(Error::Failed(format!("{there} rows of {of_each} events in {table}")));
        }
        rows += there;
    }
    stand.sql(&format!("DROP DATABASE {name} SYNC")).await?;
    Ok(Run {
        rate,
        cpu_us,
        start_cpu_s: before.get("worker").copied().unwrap_or_default().as_secs_f64(),
        start_s,
        rows_an_insert: rows as f64 / inserts.max(1.0),
        settled,
    })
}

async fn grow(
    stand: &Stand,
    what: Dimension,
    options: &Options,
    told: &mut impl FnMut(&str, &Run),
) -> Result<Growth, Error> {
    let cases = what.cases(options);
    let topics = cases.map(|case| format!("{what:?}_{}", case.number).to_lowercase());
    let mut sized = cases.map(|case| Sized {
        number: case.number,
        runs: Vec::new(),
    });
    for (case, topics) in cases.iter().zip(&topics) {
        fill(stand, topics, *case).await?;
    }
    for number in 0..options.runs.max(1) {
        for ((case, topics), sized) in cases.iter().zip(&topics).zip(&mut sized) {
            let mut tries = 0;
            let run = loop {
                let run = moved(stand, topics, *case, &format!("{number}_{tries}")).await?;
                told(&format!("{} {what}", case.number), &run);
                tries += 1;
                if run.settled == 0.0 {
                    break run;
                }
                if tries == TRIES {
                    return Err(Error::Failed(format!(
                        "promises had to be read back in each of {tries} runs"
                    )));
                }
            };
            sized.runs.push(run);
        }
    }
    let [small, large] = sized;
    Ok(Growth { what, small, large })
}

/// Measures one dimension after the other.
///
/// # Errors
/// When the disk is too small, a part or a role fails, or a row is missing or too many.
pub async fn measure(options: &Options, mut told: impl FnMut(&str, &Run)) -> Result<Vec<Growth>, Error> {
    let wanted = |what: &Dimension| options.only.is_empty() || options.only.contains(what);
    let wanted: Vec<Dimension> = Dimension::value_variants().iter().copied().filter(wanted).collect();
    // Topics stay until the end; of tables there is one run's at a time.
    let events = wanted
        .iter()
        .flat_map(|what| what.cases(options))
        .map(|case| case.events);
    room(events.sum(), free_bytes(&files::dir())?).map_err(Error::Failed)?;
    let stand = Stand::up().await?;
    let mut growths = Vec::new();
    for what in wanted {
        growths.push(grow(&stand, what, options, &mut told).await?);
    }
    stand.down().await?;
    Ok(growths)
}

/// A run in a line.
pub(crate) fn line(name: &str, run: &Run) -> String {
    let each: Vec<String> = run.cpu_us.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    format!(
        "{name:<27} {:>8.0} events/s  {:>5.2} us of CPU an event: {}; {:.0} rows an insert; ready after {:.2} s and {:.2} s of CPU{}",
        run.rate,
        run.total_us(),
        each.join(", "),
        run.rows_an_insert,
        run.start_s,
        run.start_cpu_s,
        match run.settled > 0.0 {
            true => format!("; does not count: {:.0} promises read back", run.settled),
            false => String::new(),
        }
    )
}

/// Measures and prints.
///
/// # Errors
/// Like [`measure`].
pub async fn run(options: Options) -> Result<(), Error> {
    let told = |name: &str, run: &Run| {
        if !options.json {
            println!("{}", line(name, run));
        }
    };
    let growths = measure(&options, told).await?;
    if options.json {
        println!("{}", serde_json::json!(growths));
        return Ok(());
    }
    for growth in &growths {
        println!(
            "{}, medians of {}: the worker's CPU for an event is {:.2} times as much ({:.2} and {:.2} us), that of all processes {:.2} times",
            growth.name(),
            options.runs,
            growth.worker_ratio(),
            growth.small.median(Run::worker_us),
            growth.large.median(Run::worker_us),
            growth.total_ratio()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sized(number: usize, us: &[f64]) -> Sized {
        let run = |us: &f64| Run {
            rate: 1.0,
            cpu_us: BTreeMap::from([("worker", *us), ("kafka", 1.0)]),
            start_cpu_s: 0.0,
            start_s: 0.0,
            rows_an_insert: 1.0,
            settled: 0.0,
        };
        Sized {
            number,
            runs: us.iter().map(run).collect(),
        }
    }

    #[test]
    fn growth_is_the_ratio_of_medians() {
        let growth = Growth {
            what: Dimension::Partitions,
            small: sized(8, &[2.0, 9.0, 1.0]),
            large: sized(256, &[3.0, 1.0, 4.0]),
        };
        assert!((growth.worker_ratio() - 1.5).abs() < 1e-9);
        assert!((growth.total_ratio() - 4.0 / 3.0).abs() < 1e-9);
        assert_eq!(growth.name(), "8 to 256 partitions");
    }

    #[test]
    fn one_thing_grows_at_a_time() {
        for what in Dimension::value_variants() {
            let [small, large] = what.cases(&Options::default());
            assert!(large.number > small.number);
            let partitions = |case: Case| case.size.topics * case.size.partitions;
            let same = [
                small.events == large.events,
                partitions(small) == partitions(large),
                small.size.tenants == large.size.tenants,
                small.size.topics == large.size.topics,
            ];
            assert_eq!(same.iter().filter(|same| !**same).count(), 1, "{what:?}");
            assert_eq!(large.events % large.size.topics, 0);
        }
        let full = Options {
            full: true,
            ..Options::default()
        };
        assert_eq!(Dimension::Backlog.cases(&full)[1].events, 30_000_000);
    }

    #[test]
    fn a_disk_that_is_too_small_is_told_before_anything_is_written() {
        assert_eq!(room(30_000_000, 20 << 30), Ok(()));
        let refusal = room(30_000_000, 10 << 30).unwrap_err();
        assert!(refusal.starts_with("30000000 events take about 12 GiB"), "{refusal}");
    }
}
