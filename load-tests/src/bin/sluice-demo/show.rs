//! What a person sees: one line a second, and a summary.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use load_tests::drive::Progress;
use load_tests::latency::Latency;

use super::{Report, shown};

const METRICS: &str = "http://127.0.0.1:7301/metrics";

/// The body of a GET that was answered with 200.
pub async fn get(url: &str) -> Option<String> {
    let client = load_tests::register::client(url).ok()?;
    let asked = client.get(url).timeout(Duration::from_millis(800)).send();
    let answer = asked.await.ok()?.error_for_status().ok()?;
    answer.text().await.ok()
}

/// Counters of workers that were killed are added up, so that totals go on.
pub struct Screen {
    database: String,
    before: BTreeMap<String, f64>,
    last: BTreeMap<String, f64>,
    acknowledged: u64,
    at: Instant,
    lines: usize,
}

impl Screen {
    /// A screen for the pipeline's tables.
    pub fn new(pipeline: &pipeline::Pipeline) -> Screen {
        Screen {
            database: pipeline.connections.clickhouse.database.clone(),
            before: BTreeMap::new(),
            last: BTreeMap::new(),
            acknowledged: 0,
            at: Instant::now(),
            lines: 0,
        }
    }

    /// The worker was killed: a new one counts from zero.
    pub fn worker_began_anew(&mut self) {
        for (name, value) in std::mem::take(&mut self.last) {
            *self.before.entry(name).or_default() += value;
        }
    }

    /// Prints one line.
    pub async fn line(&mut self, progress: Option<&Progress>, latency: &Latency) {
        if let Some(text) = get(METRICS).await {
            self.last = totals(&text);
        }
        if self.lines.is_multiple_of(20) {
            println!(
                "  time  events in  events/s      rows  alerts  charges   dead    lag   p50 ms  p95 ms   -> {}",
                self.database
            );
        }
        self.lines += 1;
        let acknowledged = progress.map_or(0, |progress| progress.acknowledged + progress.poison);
        let seconds = self.at.elapsed().as_secs_f64().max(0.001);
        let rate = (acknowledged.saturating_sub(self.acknowledged)) as f64 / seconds;
        self.acknowledged = acknowledged;
        self.at = Instant::now();
        let total =
            |name: &str| self.before.get(name).copied().unwrap_or(0.0) + self.last.get(name).copied().unwrap_or(0.0);
        println!(
            "{:>5.0}s {:>10} {:>9.0} {:>9} {:>7} {:>8} {:>6} {:>6} {:>8} {:>7}",
            progress.map_or(0.0, |progress| progress.elapsed.as_secs_f64()),
            acknowledged,
            rate,
            total("sluice_rows_total"),
            total("sluice_alerts_total"),
            total("sluice_charges_total"),
            total("sluice_dead_letters_total"),
            self.last
                .get("sluice_lag_records")
                .map_or("-".to_owned(), f64::to_string),
            latency.p50,
            latency.p95,
        );
    }
}

/// Sums of each metric over its labels.
fn totals(text: &str) -> BTreeMap<String, f64> {
    let mut totals = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let name = series.split('{').next().unwrap_or(series);
        if let Ok(value) = value.parse::<f64>() {
            *totals.entry(name.to_string()).or_default() += value;
        }
    }
    totals
}

/// The end of the run.
pub fn summary(report: &Report, path: &Path) {
    let right = report.right();
    println!(
        "\n{}",
        if right {
            "every event arrived exactly once"
        } else {
            "NOT exactly once"
        }
    );
    println!(
        "  produced      {:>10}   at {:.0} events/s, {} worker kills",
        report.produced, report.events_per_second, report.kills
    );
    println!("  rows          {:>10}   in ClickHouse", report.clickhouse_rows);
    println!("  alerts        {:>10}", report.alerts);
    println!("  charges       {:>10}", report.charges);
    println!("  dead letters  {:>10}", report.dead_letters);
    println!(
        "  lost {}, duplicated {}, altered {}, unexpected {}, gap {}, overlap {}, miscounted {}",
        report.lost,
        report.duplicated,
        report.altered,
        report.unexpected,
        report.gap,
        report.overlap,
        report.miscounted
    );
    let latency = &report.latency_ms;
    println!(
        "  publish to visible: p50 {} ms, p95 {} ms, p99 {} ms, max {} ms (after the first {} s)",
        latency.p50, latency.p95, latency.p99, latency.max, report.latency_from_s
    );
    for example in &report.examples {
        println!("  {example}");
    }
    println!("  report: {}", shown(path));
}

/// With KEEP=1: addresses, and what to try.
pub fn what_next(pipeline: &pipeline::Pipeline, file: &Path, dir: &Path) {
    let clickhouse = pipeline.connections.clickhouse.url.clone().unwrap_or_default();
    let kafka = pipeline
        .connections
        .kafka
        .as_ref()
        .map(|kafka| kafka.brokers.join(","))
        .unwrap_or_default();
    println!("\neverything is still running:");
    println!("  kafka       {kafka}");
    println!(
        "  registry    {}",
        pipeline.connections.registry.url.clone().unwrap_or_default()
    );
    println!(
        "  clickhouse  {clickhouse}   database {}",
        pipeline.connections.clickhouse.database
    );
    println!("  worker      http://127.0.0.1:7301/metrics");
    println!("  billing     127.0.0.1:7400    rules 127.0.0.1:7300");
    println!("try:");
    println!(
        "  curl '{clickhouse}' --data 'SELECT * FROM {}.orders_minute ORDER BY bucket DESC LIMIT 10 FORMAT PrettyCompact'",
        pipeline.connections.clickhouse.database
    );
    println!(
        "  {} verify --pipeline {} --stack {}",
        std::env::current_exe().map_or_else(|_| "sluice".to_owned(), |exe| shown(&exe.with_file_name("sluice"))),
        shown(file),
        shown(&dir.join("stack"))
    );
    println!("stop it:");
    println!("  make stop");
}
