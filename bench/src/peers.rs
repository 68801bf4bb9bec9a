//! Sluice beside ClickHouse's own Kafka engine, in turn on the same parts and the same full topic: how many events a second go from the
//! log into a table, and what each process of the machine pays for one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use devstack::Part;

use crate::arguments::at_least_one;
use crate::cpu;
use crate::error::Error;
use crate::role::{Role, free_address};
use crate::shop::TOPIC;
use crate::stand::{Stand, Topic};

/// A run that stands still for as long has failed.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// Different events of the topic on which the targets of rows 2 to 5 were found.
pub const PEER_DIFFERENT: usize = 50_000;

/// Different events that a comparison groups in one query.
const COMPARED_AT_ONCE: usize = 200_000;

/// How much of it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Events in the topic
    #[arg(long, default_value_t = 3_000_000, value_parser = at_least_one())]
    pub events: usize,
    /// Different events, again and again: as many as the peer of record was measured with. ClickHouse merges cost more with more
    #[arg(long, default_value_t = PEER_DIFFERENT, value_parser = at_least_one())]
    pub different: usize,
    /// Tenants, each with five rules of its own
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    pub tenants: usize,
    /// Runs of each, in turn; the median counts
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub runs: usize,
    /// Sluice without the peer, for a profiler
    #[arg(long)]
    pub alone: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What one run cost.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Run {
    /// Events a second, from the first tenth to the last event.
    pub rate: f64,
    /// CPU time of each process for an event, microseconds, from the start until ClickHouse has merged what it wants to.
    pub cpu_us: BTreeMap<&'static str, f64>,
    /// Rows of an insert, on average; not known of the peer.
    pub rows_an_insert: Option<f64>,
}

impl Run {
    /// Of all processes together.
    pub fn total_us(&self) -> f64 {
        self.cpu_us.values().sum()
    }
}

/// CPU time of the parts that everybody uses.
fn parts(stand: &Stand) -> Result<BTreeMap<&'static str, Duration>, Error> {
    Ok(BTreeMap::from([
        ("kafka", stand.cpu(Part::Kafka)?),
        ("clickhouse", stand.cpu(Part::ClickHouse)?),
    ]))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn each(time: Duration, events: usize) -> f64 {
    time.as_nanos() as f64 / 1000.0 / events as f64
}

/// Watches a number grow to `events`; answers events a second from the first tenth on.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
pub(crate) async fn grown(events: usize, mut look: impl AsyncFnMut() -> Result<u64, Error>) -> Result<f64, Error> {
    let all = events as u64;
    let mut from = None;
    let (mut last, mut moved) = (0, Instant::now());
    loop {
        let there = look().await?;
        let now = Instant::now();
        if there > last {
            (last, moved) = (there, now);
        }
        if from.is_none() && there >= all / 10 {
            from = Some((there, now));
        }
        if there >= all {
            let (first, began) = from.unwrap_or((0, moved));
            return Ok((there - first) as f64 / (now - began).as_secs_f64().max(0.001));
        }
        if moved.elapsed() > PATIENCE {
            return Err(Error::Failed(format!(
                "{last} of {events} events after {PATIENCE:?} without another"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// ClickHouse's Kafka engine into a table of the same columns (at least once, no rules, no alerts, no billing).
async fn kafka_engine(stand: &Stand, options: Options, number: usize) -> Result<Run, Error> {
    let database = format!("engine_{number}");
    let columns = "event_id String, tenant_id LowCardinality(String), type LowCardinality(String), timestamp DateTime64(3), \
        user_id Nullable(String), anonymous_id String, session_id String, amount_cents Nullable(Int64), \
        currency LowCardinality(Nullable(String)), context Tuple(locale Nullable(String), page_url Nullable(String), \
        page_path Nullable(String), screen_w Nullable(Int32), screen_h Nullable(Int32)), \
        properties Map(LowCardinality(String), String)";
    let plain = columns
        .replace("LowCardinality(Nullable(String))", "Nullable(String)")
        .replace("LowCardinality(String)", "String");
    stand.sql(&format!("CREATE DATABASE {database}")).await?;
    stand
        .sql(&format!(
            "CREATE TABLE {database}.k_out ({columns}) ENGINE = MergeTree PARTITION BY toYYYYMMDD(timestamp) \
             ORDER BY (tenant_id, type, timestamp)"
        ))
        .await?;
    let before = parts(stand)?;
    stand
        .sql(&format!(
            "CREATE TABLE {database}.k_in ({plain}) ENGINE = Kafka SETTINGS kafka_broker_list = '{}', kafka_topic_list = 'events', \
             kafka_group_name = '{database}', kafka_format = 'AvroConfluent', format_avro_schema_registry_url = '{}', \
             kafka_num_consumers = 2, kafka_thread_per_consumer = 1, kafka_max_block_size = 65536, kafka_flush_interval_ms = 500, \
             kafka_poll_max_batch_size = 65536",
            stand.stack.kafka, stand.stack.registry
        ))
        .await?;
    stand
        .sql(&format!(
            "CREATE MATERIALIZED VIEW {database}.k_mv TO {database}.k_out AS SELECT * FROM {database}.k_in"
        ))
        .await?;
    let count = format!("SELECT count() FROM {database}.k_out");
    let rate = grown(options.events, async || stand.number(&count).await).await?;
    stand.quiet().await?;
    let cpu_us = spent(&before, &parts(stand)?, options.events);
    // The table stays for the comparison.
    stand.sql(&format!("DROP TABLE {database}.k_mv SYNC")).await?;
    stand.sql(&format!("DROP TABLE {database}.k_in SYNC")).await?;
    Ok(Run {
        rate,
        cpu_us,
        rows_an_insert: None,
    })
}

pub(crate) fn spent(
    before: &BTreeMap<&'static str, Duration>,
    after: &BTreeMap<&'static str, Duration>,
    events: usize,
) -> BTreeMap<&'static str, f64> {
    let spent = |(name, time): (&&'static str, &Duration)| {
        let began = before.get(name).copied().unwrap_or_default();
        (*name, each(time.saturating_sub(began), events))
    };
    after.iter().map(spent).collect()
}

/// One worker and the billing service, everything on: rules, alerts, charges, exactly once.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn sluice(stand: &Stand, options: Options, number: usize) -> Result<Run, Error> {
    let name = format!("sluice_{number}");
    let billing = free_address()?;
    let dir = stand
        .pipeline((&name, TOPIC), &format!("http://{billing}"), options.tenants)
        .await?;
    let before = parts(stand)?;
    let mut billing = Role::start(&dir, "billing", "--http").await?;
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    let rate = grown(options.events, async || {
        worker.alive()?;
        billing.alive()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(worker.metric("sluice_records_committed_total").await as u64)
    })
    .await?;
    stand.quiet().await?;
    let mut after = parts(stand)?;
    after.extend([("worker", worker.cpu()?), ("billing", billing.cpu()?)]);
    let inserts = worker.metric("sluice_insert_seconds_count").await;
    worker.stop().await?;
    billing.stop().await?;
    let rows = stand.number(&format!("SELECT count() FROM {name}.events")).await?;
    if rows != options.events as u64 {
        return Err(Error::Failed(format!("{rows} rows of {} events", options.events)));
    }
    Ok(Run {
        rate,
        cpu_us: spent(&before, &after, options.events),
        rows_an_insert: Some(rows as f64 / inserts.max(1.0)),
    })
}

/// Compares the two tables, which came of the same topic by two programs that share no code: both have to have every event as often, with
/// the same values in every column. In slices: each distinct event is a group in ClickHouse's memory, and millions at once take more than there is.
async fn compare(stand: &Stand, different: usize, number: usize) -> Result<(), Error> {
    let common = "event_id, tenant_id, type, timestamp, user_id, anonymous_id, session_id, amount_cents, currency";
    let nested = ["locale", "page_url", "page_path", "screen_w", "screen_h"];
    let slices = different.div_ceil(COMPARED_AT_ONCE).max(1);
    let of = |table: &str, separator: &str, slice: usize| {
        let nested: Vec<String> = nested.iter().map(|name| format!("context{separator}{name}")).collect();
        format!(
            "SELECT {common}, {}, toString(properties) AS entries, count() AS times FROM {table} \
             WHERE cityHash64(event_id) % {slices} = {slice} GROUP BY ALL",
            nested.join(", ")
        )
    };
    for slice in 0..slices {
        let engine = of(&format!("engine_{number}.k_out"), ".", slice);
        let sluice = of(&format!("sluice_{number}.events"), "_", slice);
        for (one, other, which) in [
            (&engine, &sluice, "the Kafka engine's table has and Sluice's has not"),
            (&sluice, &engine, "Sluice's table has and the Kafka engine's has not"),
        ] {
            let only = stand
                .number(&format!("SELECT count() FROM ({one} EXCEPT {other})"))
                .await?;
            if only > 0 {
                return Err(Error::Failed(format!("{only} events that {which}")));
            }
        }
    }
    Ok(())
}

/// Reading the topic with librdkafka, and nothing else.
async fn bare(topic: &Topic, options: Options) -> Result<f64, Error> {
    let me = std::process::id();
    let before = cpu::of_process(me)?;
    topic.with(move |filling| filling.consume(options.events)).await?;
    Ok(each(cpu::of_process(me)? - before, options.events))
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.len() % 2 {
        0 => f64::midpoint(figures[middle - 1], figures[middle]),
        _ => figures[middle],
    }
}

/// A run in a line.
pub(crate) fn line(name: &str, run: &Run) -> String {
    let each: Vec<String> = run.cpu_us.iter().map(|(name, us)| format!("{name} {us:.2}")).collect();
    let inserts = run.rows_an_insert.map(|rows| format!("; {rows:.0} rows an insert"));
    format!(
        "{name:<14} {:>9.0} events/s  {:>6.2} us of CPU an event: {}{}",
        run.rate,
        run.total_us(),
        each.join(", "),
        inserts.unwrap_or_default()
    )
}

/// What all runs gave.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figures {
    /// The peer's runs; none if Sluice ran alone.
    pub kafka_engine: Vec<Run>,
    /// Sluice's.
    pub sluice: Vec<Run>,
    /// Bare reading, microseconds of CPU for an event.
    pub consume_us: Vec<f64>,
}

impl Figures {
    fn of(runs: &[Run], figure: impl Fn(&Run) -> f64) -> f64 {
        median(runs.iter().map(figure).collect())
    }

    /// How many times Sluice's CPU for an event the peer takes; medians.
    pub fn cpu_ratio(&self) -> f64 {
        Self::of(&self.kafka_engine, Run::total_us) / Self::of(&self.sluice, Run::total_us)
    }

    /// How many times as many events a second Sluice moves; medians.
    pub fn rate_ratio(&self) -> f64 {
        Self::of(&self.sluice, |run| run.rate) / Self::of(&self.kafka_engine, |run| run.rate)
    }

    /// Of Sluice in all processes, microseconds for an event; median.
    pub fn sluice_us(&self) -> f64 {
        Self::of(&self.sluice, Run::total_us)
    }

    /// Of the worker alone, microseconds for an event; median.
    pub fn worker_us(&self) -> f64 {
        Self::of(&self.sluice, |run| {
            run.cpu_us.get("worker").copied().unwrap_or_default()
        })
    }

    /// Bare reading, microseconds for an event; median.
    pub fn bare_us(&self) -> f64 {
        median(self.consume_us.clone())
    }
}

/// Runs each in turn.
///
/// # Errors
/// When a part or a role fails, or a row is missing or another one than the peer's.
pub async fn measure(options: Options, mut told: impl FnMut(&str, &Run)) -> Result<Figures, Error> {
    let stand = Stand::up().await?;
    let topic = stand.fill(options.events, options.different, options.tenants).await?;
    let mut figures = Figures {
        kafka_engine: Vec::new(),
        sluice: Vec::new(),
        consume_us: Vec::new(),
    };
    for number in 0..options.runs.max(1) {
        // In turn, and who begins takes turns, too: the first of a pair finds ClickHouse as the comparison left it.
        for peer in [number.is_multiple_of(2), !number.is_multiple_of(2)] {
            match peer {
                true if options.alone => {}
                true => {
                    let run = kafka_engine(&stand, options, number).await?;
                    told("Kafka engine", &run);
                    figures.kafka_engine.push(run);
                }
                false => {
                    let run = sluice(&stand, options, number).await?;
                    told("Sluice", &run);
                    figures.sluice.push(run);
                }
            }
        }
        figures.consume_us.push(bare(&topic, options).await?);
        if !options.alone {
            compare(&stand, options.different.min(options.events), number).await?;
            stand.sql(&format!("DROP DATABASE engine_{number} SYNC")).await?;
        }
        stand.sql(&format!("DROP DATABASE sluice_{number} SYNC")).await?;
    }
    stand.down().await?;
    Ok(figures)
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
    let figures = measure(options, told).await?;
    if options.json {
        println!("{}", serde_json::json!(figures));
        return Ok(());
    }
    println!(
        "reading the topic and nothing else: {:.2} us of CPU an event",
        figures.bare_us()
    );
    if !options.alone {
        println!(
            "medians of {}: Sluice takes 1/{:.2} of the Kafka engine's CPU for an event, and moves {:.2} times as many a second; the tables are equal",
            options.runs,
            figures.cpu_ratio(),
            figures.rate_ratio()
        );
    }
    Ok(())
}
