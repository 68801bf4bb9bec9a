//! What exactly-once costs: the same events and the same pipeline with both guarantees, in turn. Without the gRPC sink, which at least once
//! cannot have, and without the rule that charges.

use std::collections::BTreeMap;
use std::time::Duration;

use devstack::Part;
use load_tests::latency::Latency;

use crate::arguments::at_least_one;
use crate::error::Error;
use crate::flow;
use crate::peers::{PEER_DIFFERENT, Run, grown, line, median, spent};
use crate::role::Role;
use crate::shop::TOPIC;
use crate::stand::Stand;

/// Pairs that do not count, before the first that does.
const WARM_UP: usize = 3;

/// As the pipeline file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Guarantee {
    /// The default.
    ExactlyOnce,
    /// Without promises and transactions.
    AtLeastOnce,
}

impl Guarantee {
    const BOTH: [Guarantee; 2] = [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce];

    /// As the pipeline file has it.
    pub fn name(self) -> &'static str {
        match self {
            Guarantee::ExactlyOnce => "exactly_once",
            Guarantee::AtLeastOnce => "at_least_once",
        }
    }

    /// Whoever is first in one run is last in the next: caches and a table that grows favour one of them.
    fn in_turn(number: usize) -> [Guarantee; 2] {
        let [one, other] = Self::BOTH;
        if number.is_multiple_of(2) {
            [one, other]
        } else {
            [other, one]
        }
    }
}

/// How much of it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events in the topic
    #[arg(long, default_value_t = 4_000_000, value_parser = at_least_one())]
    pub events: usize,
    /// Tenants, each with four rules of its own
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    pub tenants: usize,
    /// Pairs of runs over the full topic, after three that do not count; the median of what they differ by counts
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub runs: usize,
    /// Pairs of runs at the rate of `--phases`; the median of what they differ by counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    pub latency_runs: usize,
    /// Events a second and seconds for the latency
    #[arg(long, value_name = "RATE:SECONDS", default_value = "10000:30")]
    pub phases: flow::Phases,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What a run gave, as soon as it is over.
pub enum Told<'a> {
    /// Over the full topic.
    Backlog(&'a Run),
    /// At the given rate.
    Latency(&'a Latency),
}

impl Told<'_> {
    /// A run in a line.
    pub fn line(&self, guarantee: Guarantee) -> String {
        let name = guarantee.name();
        match self {
            Told::Backlog(run) => line(name, run),
            Told::Latency(Latency { p50, p95, p99, .. }) => {
                format!("{name:<14} from due to queryable: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms")
            }
        }
    }
}

/// What one guarantee gave.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Side {
    /// Over the full topic.
    pub backlog: Vec<Run>,
    /// From due to queryable at the given rate, ms, each run's p95.
    pub p95_ms: Vec<f64>,
}

impl Side {
    fn rate(&self) -> f64 {
        median(self.backlog.iter().map(|run| run.rate).collect())
    }

    fn cpu_us(&self) -> f64 {
        median(self.backlog.iter().map(Run::total_us).collect())
    }

    fn worker_us(&self) -> f64 {
        let of_worker = |run: &Run| run.cpu_us.get("worker").copied().unwrap_or_default();
        median(self.backlog.iter().map(of_worker).collect())
    }
}

/// Both.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct Figures {
    /// With promises, deadlines that are waited for, and transactions.
    pub exactly_once: Side,
    /// Without.
    pub at_least_once: Side,
}

impl Figures {
    fn side(&mut self, guarantee: Guarantee) -> &mut Side {
        match guarantee {
            Guarantee::ExactlyOnce => &mut self.exactly_once,
            Guarantee::AtLeastOnce => &mut self.at_least_once,
        }
    }

    /// What the runs of a pair differ by, of which nothing in between has changed the machine.
    fn pairs(&self, differ: impl Fn(&Run, &Run) -> f64) -> f64 {
        let pairs = self.exactly_once.backlog.iter().zip(&self.at_least_once.backlog);
        median(pairs.map(|(exactly, at_least)| differ(exactly, at_least)).collect())
    }

    /// By how many percent fewer events a second exactly-once moves; below 0 if more.
    pub fn rate_lost_percent(&self) -> f64 {
        self.pairs(|exactly, at_least| 100.0 * (1.0 - exactly.rate / at_least.rate))
    }

    /// How many percent more CPU exactly-once takes for an event.
    pub fn cpu_added_percent(&self) -> f64 {
        self.pairs(|exactly, at_least| 100.0 * (exactly.total_us() / at_least.total_us() - 1.0))
    }

    /// How much later an event can be queried with exactly-once, ms of p95.
    pub fn p95_added_ms(&self) -> f64 {
        let pairs = self.exactly_once.p95_ms.iter().zip(&self.at_least_once.p95_ms);
        median(pairs.map(|(exactly, at_least)| exactly - at_least).collect())
    }
}

fn parts(stand: &Stand) -> Result<BTreeMap<&'static str, Duration>, Error> {
    Ok(BTreeMap::from([
        ("kafka", stand.cpu(Part::Kafka)?),
        ("clickhouse", stand.cpu(Part::ClickHouse)?),
    ]))
}

/// One worker over the full topic.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
async fn backlog(stand: &Stand, options: &Options, guarantee: Guarantee, number: &str) -> Result<Run, Error> {
    let name = format!("{}_{number}", guarantee.name());
    let dir = stand.guaranteed((&name, TOPIC), guarantee, options.tenants).await?;
    let before = parts(stand)?;
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    let rate = grown(options.events, async || {
        worker.alive()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(worker.metric("sluice_records_committed_total").await as u64)
    })
    .await?;
    stand.quiet().await?;
    let mut after = parts(stand)?;
    after.insert("worker", worker.cpu()?);
    let inserts = worker.metric("sluice_insert_seconds_count").await;
    worker.stop().await?;
    let rows = stand.number(&format!("SELECT count() FROM {name}.events")).await?;
    stand.sql(&format!("DROP DATABASE {name} SYNC")).await?;
    // Nothing fails here, and then at least once is once.
    if rows != options.events as u64 {
        return Err(Error::Failed(format!(
            "{name}: {rows} rows of {} events",
            options.events
        )));
    }
    Ok(Run {
        rate,
        cpu_us: spent(&before, &after, options.events),
        rows_an_insert: Some(rows as f64 / inserts.max(1.0)),
    })
}

/// At the rate of the options.
async fn paced(stand: &Stand, options: &Options, guarantee: Guarantee, number: &str) -> Result<Latency, Error> {
    let flow = flow::Options {
        phases: options.phases.clone(),
        tenants: options.tenants,
        pause_clickhouse: None,
        guarantee: Some(guarantee),
        json: false,
    };
    let name = format!("paced_{}_{number}", guarantee.name());
    let latency = flow::measure_on(stand, &name, &flow).await?.latency_ms;
    stand.sql(&format!("DROP DATABASE {name} SYNC")).await?;
    Ok(latency)
}

/// Runs both in turn on the same parts, first over a full topic, then at a rate.
///
/// # Errors
/// When a part or a role fails, or a row is missing or there twice.
pub async fn measure(options: &Options, mut told: impl FnMut(Guarantee, Told<'_>)) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let stand = Stand::up_for_long().await?;
    stand.fill(options.events, PEER_DIFFERENT, options.tenants).await?;
    // What a transaction takes of a broker that has just started is not what it takes of one that runs: it makes the topic of the transactions, and its
    // compiler has more to do for exactly-once, which is a quarter of the difference after one pair, and little after three.
    for number in 0..WARM_UP {
        for guarantee in Guarantee::BOTH {
            backlog(&stand, options, guarantee, &format!("warm_{number}")).await?;
        }
    }
    for number in 0..options.runs {
        for guarantee in Guarantee::in_turn(number) {
            let run = backlog(&stand, options, guarantee, &number.to_string()).await?;
            told(guarantee, Told::Backlog(&run));
            figures.side(guarantee).backlog.push(run);
        }
    }
    // Of small transactions there are many more: another pair that does not count.
    for guarantee in Guarantee::BOTH {
        paced(&stand, options, guarantee, "first").await?;
    }
    for number in 0..options.latency_runs {
        for guarantee in Guarantee::in_turn(number) {
            let latency = paced(&stand, options, guarantee, &number.to_string()).await?;
            told(guarantee, Told::Latency(&latency));
            #[expect(clippy::cast_precision_loss, reason = "milliseconds")]
            figures.side(guarantee).p95_ms.push(latency.p95 as f64);
        }
    }
    stand.down().await?;
    Ok(figures)
}

/// Measures and prints.
///
/// # Errors
/// Like [`measure`].
pub async fn run(options: Options) -> Result<(), Error> {
    let told = |guarantee: Guarantee, what: Told<'_>| {
        if !options.json {
            println!("{}", what.line(guarantee));
        }
    };
    let figures = measure(&options, told).await?;
    if options.json {
        println!("{}", serde_json::json!(figures));
        return Ok(());
    }
    let (exactly, at_least) = (&figures.exactly_once, &figures.at_least_once);
    println!(
        "medians of {}: exactly once {:.0} events/s, {:.2} us (worker {:.2}); at least once {:.0} events/s, {:.2} us (worker {:.2})",
        exactly.backlog.len(),
        exactly.rate(),
        exactly.cpu_us(),
        exactly.worker_us(),
        at_least.rate(),
        at_least.cpu_us(),
        at_least.worker_us()
    );
    println!(
        "median of what the runs of a pair differ by: exactly once moves {:.1} % fewer events a second, takes {:.1} % more CPU, and has a p95 that is {:.0} ms higher",
        figures.rate_lost_percent(),
        figures.cpu_added_percent(),
        figures.p95_added_ms()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn side(rates: &[f64], p95_ms: &[f64]) -> Side {
        let run = |rate: &f64| Run {
            rate: *rate,
            cpu_us: BTreeMap::from([("worker", 1e6 / rate)]),
            rows_an_insert: None,
        };
        Side {
            backlog: rates.iter().map(run).collect(),
            p95_ms: p95_ms.to_vec(),
        }
    }

    #[test]
    fn what_exactly_once_costs_is_said_of_pairs() {
        // The machine grows slower, and the second pair is an odd one.
        let figures = Figures {
            exactly_once: side(&[97.0, 1.0, 48.5], &[105.0, 300.0, 207.0]),
            at_least_once: side(&[100.0, 90.0, 50.0], &[100.0, 100.0, 200.0]),
        };
        assert!((figures.rate_lost_percent() - 3.0).abs() < 1e-9);
        assert!((figures.p95_added_ms() - 7.0).abs() < 1e-9);
        assert!((figures.cpu_added_percent() - 100.0 * (100.0 / 97.0 - 1.0)).abs() < 1e-9);
        assert_eq!(Guarantee::in_turn(1), [Guarantee::AtLeastOnce, Guarantee::ExactlyOnce]);
    }
}
