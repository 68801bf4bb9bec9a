//! Something that Sluice needs is away for ten seconds. That means waiting, and never a dead letter.

use std::time::Duration;

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::{Scenario, run};

const SECOND: Duration = Duration::from_secs(1);

/// The load of an outage from its second second to its twelfth.
async fn away(
    scenario: &mut Scenario<'_>,
    down: impl AsyncFnOnce(&mut Scenario<'_>),
    up: impl AsyncFnOnce(&mut Scenario<'_>),
) {
    scenario.set_the_shop_up().await;
    scenario.start_billing().await;
    scenario.start_worker("worker-a").await;
    let load = scenario.drive(scenario.load_of(800.0, 14 * SECOND, 1));
    load.has_run_for(2 * SECOND).await;
    scenario
        .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
        .await;
    down(scenario).await;
    load.has_run_for(12 * SECOND).await;
    up(scenario).await;
    let driven = load.finished().await;
    let report = scenario.verified(&[&driven]).await;
    assert_eq!(report.dead_letters, 0, "{report}");
    // It is the worker of the beginning that has lived through it.
    let (committed, produced) = (
        scenario.metric("worker-a", "sluice_records_committed_total", &[]).await,
        driven.produced as f64,
    );
    let known = scenario.knows_its_outcomes("worker-a").await;
    assert!(
        committed == produced || (committed < produced && !known),
        "{committed} of {produced}"
    );
}

/// Scenario: ClickHouse is frozen: connections stay open, inserts get no answer, and some may still land afterwards.
/// Guarantees: what is in doubt is read back; no row is there twice.
#[test]
fn a_frozen_clickhouse_is_waited_for() {
    run("frozen", Rules::Directory, async |scenario| {
        let down = async |scenario: &mut Scenario<'_>| scenario.stack.pause(Part::ClickHouse).unwrap();
        let up = async |scenario: &mut Scenario<'_>| scenario.stack.resume(Part::ClickHouse).unwrap();
        away(scenario, down, up).await;
    });
}

/// Scenario: ClickHouse is killed between two tables of a batch, or wherever it is, and starts again.
/// Guarantees: what it had not kept is inserted, what it had is not inserted again; rollups agree with their tables.
#[test]
fn a_killed_clickhouse_is_waited_for() {
    run("crashed", Rules::Directory, async |scenario| {
        let down = async |scenario: &mut Scenario<'_>| scenario.stack.kill(Part::ClickHouse).await.unwrap();
        let up = async |scenario: &mut Scenario<'_>| scenario.stack.start(Part::ClickHouse).await.unwrap();
        away(scenario, down, up).await;
    });
}

/// Scenario: the billing service is killed and starts again on its ledger.
/// Guarantees: every charge is there once, whatever it had applied without having said so.
#[test]
fn a_killed_billing_service_is_waited_for() {
    run("unbilled", Rules::Directory, async |scenario| {
        let down = async |scenario: &mut Scenario<'_>| scenario.kill("billing").await;
        let up = async |scenario: &mut Scenario<'_>| scenario.start_billing().await;
        away(scenario, down, up).await;
    });
}

/// Scenario: a worker starts while the registry is down, with the schemas that the one before it has left on disk.
/// Guarantees: it works as if the registry were there, to the last event.
#[test]
fn a_worker_starts_from_its_snapshot_while_the_registry_is_down() {
    run("snapshot", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 2 * SECOND, 1)).finished().await;
        scenario.flowed().await;
        scenario.stop("worker-a").await;

        let load = scenario.drive(scenario.load_of(500.0, 8 * SECOND, 2));
        // The driver registers its schemas before its first event; from here on nobody needs the registry.
        load.has_run_for(SECOND).await;
        scenario.stack.kill(Part::Registry).await.unwrap();
        scenario.start_worker("worker-a").await;
        let second = load.finished().await;
        scenario.flowed().await;

        scenario.stack.start(Part::Registry).await.unwrap();
        let report = scenario.verified(&[&first, &second]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
    });
}
