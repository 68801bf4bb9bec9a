//! Verification as a role: round after round until the stop, with metrics.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use pipeline::Pipeline;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use serve::{Count, CountBy, Health, Stop};

use crate::error::Error;
use crate::options::{Options, Until};
use crate::position::Position;
use crate::report::Report;
use crate::run::round;

/// How the role is run.
#[derive(Debug, Clone)]
pub struct Watch {
    /// From the end of one round to the beginning of the next.
    pub pause: Duration,
    /// Address of `/metrics`, `/healthz` and `/readyz`.
    pub listen: String,
}

/// What all rounds have counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Rounds that looked at everything that they were to look at.
    pub rounds: u64,
    /// Events that were verified.
    pub events: u64,
    /// Differences of every kind.
    pub differences: u64,
}

struct Metrics {
    rounds: CountBy,
    events: Count,
    differences: CountBy,
    unread: Count,
    seconds: prometheus_client::metrics::histogram::Histogram,
    last: Gauge<f64, AtomicU64>,
}

impl Metrics {
    fn registered() -> (Metrics, Registry) {
        let mut registry = serve::registry();
        let metrics = Metrics {
            rounds: CountBy::default(),
            events: Count::default(),
            differences: CountBy::default(),
            unread: Count::default(),
            seconds: serve::seconds(),
            last: Gauge::default(),
        };
        let Metrics {
            rounds,
            events,
            differences,
            unread,
            seconds,
            last,
        } = &metrics;
        registry.register(
            "verify_rounds",
            "Rounds by outcome: clean, differs, failed",
            rounds.clone(),
        );
        registry.register("verify_events", "Events verified in every sink", events.clone());
        registry.register(
            "verify_differences",
            "Differences by sink and kind; anything but 0 is a broken promise",
            differences.clone(),
        );
        registry.register(
            "verify_unread_events",
            "Offsets that were gone from the log before they could be verified",
            unread.clone(),
        );
        registry.register_with_unit("verify_round", "How long a round takes", Unit::Seconds, seconds.clone());
        registry.register_with_unit(
            "verify_last_round_timestamp",
            "Unix time of the end of the last round that did not fail",
            Unit::Seconds,
            last.clone(),
        );
        for outcome in ["clean", "differs", "failed"] {
            let _shown = rounds.get_or_create(&vec![("outcome", outcome.to_owned())]);
        }
        (metrics, registry)
    }

    fn note(&self, report: &Report) {
        let outcome = if report.clean() { "clean" } else { "differs" };
        self.rounds.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
        self.events.inc_by(report.produced);
        self.unread.inc_by(report.unread);
        let differs = |sink: &str, kind: &str, number: u64| {
            let labels = vec![("sink", sink.to_owned()), ("kind", kind.to_owned())];
            self.differences.get_or_create(&labels).inc_by(number);
        };
        for sink in &report.sinks {
            differs(&sink.sink, "lost", sink.lost);
            differs(&sink.sink, "duplicated", sink.duplicated);
            differs(&sink.sink, "altered", sink.altered);
            differs(&sink.sink, "unexpected", sink.unexpected);
        }
        differs("audit", "gap", report.gap);
        differs("audit", "overlap", report.overlap);
        differs("audit", "miscounted", report.miscounted);
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        self.last.set(since.map_or(0.0, |since| since.as_secs_f64()));
    }
}

/// Verifies what the group has committed, round after round, until `stop`. The first round looks at everything that is committed,
/// each later one at what was committed since. A round that fails (a part does not answer) is logged and begun again after
/// the pause, so that nothing is left out. Differences are logged with examples, and counted.
///
/// # Errors
/// [`Error::Listen`] when the address can't be had.
pub async fn watch(pipeline: &Pipeline, options: Options, watch: Watch, stop: Stop) -> Result<Watched, Error> {
    let (metrics, registry) = Metrics::registered();
    let health = Health::new("verify");
    let listening = serve::http(&watch.listen, Arc::new(registry), health.clone()).await;
    let server = listening.map_err(|error| Error::Listen(error.to_string()))?;
    tracing::info!(address = %server.addr, "verifying what {} commits", pipeline.name);
    health.ready(false, "the first round is not over");
    let options = Options {
        until: Until::Committed,
        ..options
    };
    let mut position = Position::default();
    let mut watched = Watched {
        rounds: 0,
        events: 0,
        differences: 0,
    };
    while !stop.is_requested() {
        let began = Instant::now();
        // A round that is broken off has noted nothing.
        let verified = tokio::select! {
            verified = round(pipeline, options.clone(), position.clone()) => verified,
            () = stop.requested() => break,
        };
        metrics.seconds.observe(began.elapsed().as_secs_f64());
        match verified {
            Ok((report, next)) => {
                position = next;
                metrics.note(&report);
                health.ready(true, "");
                watched.rounds += 1;
                watched.events += report.produced;
                watched.differences += report.differences();
                told(&report, began.elapsed());
            }
            Err(error) => {
                metrics
                    .rounds
                    .get_or_create(&vec![("outcome", "failed".to_owned())])
                    .inc();
                health.ready(false, &error.to_string());
                tracing::warn!("a round could not be finished and is begun again: {error}");
            }
        }
        tokio::select! {
            () = tokio::time::sleep(watch.pause) => {}
            () = stop.requested() => {}
        }
    }
    server.stop().await;
    Ok(watched)
}

fn told(report: &Report, took: Duration) {
    if report.unread > 0 {
        tracing::warn!(
            events = report.unread,
            "gone from the log before they could be verified: verify more often, or keep the topics longer"
        );
    }
    for left_out in &report.left_out {
        tracing::info!("not compared: {left_out}");
    }
    if report.clean() {
        tracing::debug!(events = report.produced, ranges = report.ranges, ?took, "exactly once");
        return;
    }
    if !report.exactly_once() {
        tracing::error!(
            lost = report.lost,
            duplicated = report.duplicated,
            altered = report.altered,
            unexpected = report.unexpected,
            gap = report.gap,
            overlap = report.overlap,
            "NOT exactly once"
        );
    }
    if report.miscounted > 0 {
        tracing::error!(
            ranges = report.miscounted,
            "the audit is WRONG: it miscounts what came of some ranges"
        );
    }
    for example in &report.examples {
        tracing::error!("{example}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_difference_has_a_metric_of_its_own() {
        let (metrics, registry) = Metrics::registered();
        let sink = crate::report::SinkReport {
            sink: "alerts".to_owned(),
            lost: 1,
            duplicated: 2,
            altered: 3,
            unexpected: 4,
            ..Default::default()
        };
        let mut report = Report {
            gap: 5,
            overlap: 6,
            miscounted: 7,
            ..Report::default()
        };
        report.add(sink);
        metrics.note(&report);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let mut told: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("differences_total{"))
            .collect();
        told.sort_unstable();
        let series = |sink, kind, number: u32| {
            format!("sluice_verify_differences_total{{sink=\"{sink}\",kind=\"{kind}\"}} {number}")
        };
        let expected = [
            series("alerts", "altered", 3),
            series("alerts", "duplicated", 2),
            series("alerts", "lost", 1),
            series("alerts", "unexpected", 4),
            series("audit", "gap", 5),
            series("audit", "miscounted", 7),
            series("audit", "overlap", 6),
        ];
        assert_eq!(told, expected);
        assert!(
            text.contains("sluice_verify_rounds_total{outcome=\"differs\"} 1"),
            "{text}"
        );
    }
}
