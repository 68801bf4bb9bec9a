//! Workers that die, come and go.

use std::time::Duration;

use end_to_end::shop::Rules;
use end_to_end::{Committed, run, until};

use crate::stops::{left_pending, replaced};

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// Scenario: a worker gets SIGKILL in mid-load, twice, once with its name taken by the next and once by another.
/// Guarantees: the next settles what was promised and not committed; nothing is lost or doubled in any sink.
// out: … | promised, delivered? ✗ | read back, delivered rest + C | …
#[test]
fn a_killed_worker_loses_nothing_and_doubles_nothing() {
    run("kill", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let load = scenario.drive(scenario.load_of(1_000.0, 12 * SECOND, 1));
        load.has_run_for(3 * SECOND).await;
        scenario
            .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
            .await;
        scenario.kill("worker-a").await;
        scenario.start_worker("worker-a").await;
        scenario
            .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
            .await;
        scenario.kill("worker-a").await;
        scenario.start_worker("worker-b").await;
        let driven = load.finished().await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
        assert!(
            report.alerts > 0 && report.charges > 0 && report.dropped > 0,
            "every sink takes part: {report}"
        );
        assert!(driven.produced > 11_000, "{driven:?}");
    });
}

/// Scenario: a second worker joins under load, takes its share, and is told to leave again.
/// Guarantees: partitions move in both directions without a loss or a double; the one that leaves exits with 0.
#[test]
fn a_second_worker_joins_and_leaves_under_load() {
    run("join", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let load = scenario.drive(scenario.load_of(1_000.0, 14 * SECOND, 1));
        scenario
            .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
            .await;
        scenario.start_worker("worker-b").await;
        scenario
            .metric_reaches("worker-b", "sluice_records_committed_total", 500.0)
            .await;
        let partitions = scenario.partitions();
        let owned = async |worker: &str| scenario.metric(worker, "sluice_partitions_owned", &[]).await as u32;
        // Each says what it has twice a second, and the group may still be sharing them out.
        until("the partitions to be shared", 60 * SECOND, async || {
            let (a, b) = (owned("worker-a").await, owned("worker-b").await);
            (a + b == partitions && a.abs_diff(b) <= 4).then_some(())
        })
        .await;
        scenario.stop("worker-b").await;
        scenario
            .metric_reaches("worker-a", "sluice_partitions_owned", f64::from(partitions))
            .await;
        let driven = load.finished().await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
    });
}

/// Scenario: SIGTERM to every role in mid-load; then all of them again.
/// Guarantees: each exits with 0; what was in flight is committed, and no promise is left.
#[test]
fn every_role_drains_when_told_to_stop() {
    run("drain", Rules::Service, async |scenario| {
        // A drain ends after a quarter of it, with a promise, if sinks are slow.
        let patient = replaced(scenario, "poll_interval_max: 30s", "poll_interval_max: 120s");
        scenario.rewrite(&patient);
        scenario.set_the_shop_up().await;
        scenario.start_config().await;
        let rules = scenario.dir.join("rules").display().to_string();
        assert_eq!(scenario.sluice(&["rules", "apply", &rules]).await, "rules@1\n");
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let load = scenario.drive(scenario.load_of(1_000.0, 8 * SECOND, 1));
        load.has_run_for(2 * SECOND).await;
        scenario
            .metric_reaches("worker-a", "sluice_records_committed_total", 500.0)
            .await;
        scenario.stop("worker-a").await;
        assert_eq!(
            scenario.promised(),
            Vec::new(),
            "promises that nobody settles until the next worker starts"
        );
        scenario.stop("billing").await;
        scenario.stop("config").await;
        scenario.start_config().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let driven = load.finished().await;
        let mut options = scenario.options();
        options.rules.number = 1;
        let report = scenario.verified_by(options, &[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
    });
}

/// Scenario: a worker whose lanes may hold a hundred rows each dies with ranges promised, and a backlog behind them.
/// Guarantees: lanes that hold as much as they may again and again settle what was promised and move the backlog; everything is delivered once.
#[test]
fn small_lanes_settle_what_was_promised() {
    run("full", Rules::Directory, async |scenario| {
        scenario.rewrite(&replaced(scenario, "batch:  {", "batch:  {rows: 50, rows_max: 100, "));
        scenario.rewrite(&replaced(scenario, "limits: {", "limits: {in_flight_rows_max: 200, "));
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        left_pending(scenario, Committed::is_range).await;
        scenario.start_worker("worker-a").await;
        scenario.flowed().await;
        let full = scenario
            .metric("worker-a", "sluice_pauses_total", &[("reason", "pressure")])
            .await;
        assert!(full > 0.0, "no lane was full");
        let verified = scenario.sluice(&["verify"]).await;
        assert!(verified.contains("gap = overlap = 0"), "{verified}");
    });
}

/// Scenario: a pipeline that starts at the newest record meets a worker that stops before anything has come. Events are produced
/// while none runs.
/// Guarantees: the first worker has said where the partitions begin; the next one processes what came in between.
#[test]
fn what_comes_after_the_first_start_is_not_left_out() {
    run("latest", Rules::Directory, async |scenario| {
        let file = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
        scenario.rewrite(&file.replace("start: earliest", "start: latest"));
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let partitions: u32 = scenario.pipeline.sources.iter().map(|source| source.partitions).sum();
        let begun = async || (scenario.committed().len() == partitions as usize).then_some(());
        until("every partition to have begun", 60 * SECOND, begun).await;
        scenario.stop("worker-a").await;
        let driven = scenario.drive(scenario.load_of(500.0, 2 * SECOND, 1)).finished().await;
        scenario.start_worker("worker-a").await;
        scenario.verified(&[&driven]).await;
    });
}
