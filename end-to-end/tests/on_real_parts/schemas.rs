//! Schemas that change.

use std::time::Duration;

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::{run, until};

/// Scenario: second versions of two schemas, which add, remove and default fields, are registered and sent in mid-load.
/// Guarantees: the worker adds the columns itself, without a restart; every event of either version is there with the fields
/// of its version.
#[test]
fn a_second_schema_version_arrives_in_mid_load() {
    run("versions", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let columns = "SELECT count() FROM system.columns WHERE database = 'versions' AND name = 'shipping_minor'";
        assert_eq!(scenario.number(columns).await, 0, "the first version has no such field");
        let mut settings = scenario.load_of(800.0, Duration::from_secs(10), 1);
        settings.second_version_after = Some(Duration::from_secs(3));
        let driven = scenario.drive(settings).finished().await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
        assert_eq!(scenario.number(columns).await, 2, "in orders and in orders_vip");
        for (topic, table) in [
            ("versions.user.pageview", "pageviews"),
            ("versions.order.created", "orders"),
        ] {
            let produced = driven.topics.iter().find(|one| one.topic == topic).unwrap();
            assert!(
                produced.second_version > 0 && produced.second_version < produced.produced,
                "{produced:?}"
            );
            for version in [1, 2] {
                let rows = format!("SELECT count() FROM {table} WHERE schema_version = {version}");
                assert!(scenario.number(&rows).await > 0, "{rows}");
            }
        }
        let shipping = "SELECT countIf(shipping_minor IS NOT NULL) FROM orders WHERE schema_version =";
        assert_eq!(scenario.number(&format!("{shipping} 1")).await, 0);
        assert!(scenario.number(&format!("{shipping} 2")).await > 0);
    });
}

/// Scenario: a worker dies with promises of first-version events that ClickHouse has not answered; the second versions, with
/// their defaults, are registered before the next worker starts.
/// Guarantees: what was promised is rebuilt as it was promised, whatever the registry has learned since.
// log:  v1 v1 v1 [v1 v1 v1 promised ✗  (v2 registered)  rebuilt] v1 v1
#[test]
fn a_promise_outlives_a_newer_schema() {
    run("outlives", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let settings = scenario.load_of(800.0, Duration::from_secs(12), 1);
        let load = scenario.drive(settings.clone());
        scenario
            .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
            .await;
        scenario.stack.pause(Part::ClickHouse).unwrap();
        load.has_run_for(Duration::from_secs(5)).await;
        until("a promise", Duration::from_secs(60), async || {
            (!scenario.promised().is_empty()).then_some(())
        })
        .await;
        scenario.kill("worker-a").await;
        for target in &settings.targets {
            let newest = target.event.versions();
            load_tests::register::register(&settings.registry, &target.subject, target.event, newest)
                .await
                .unwrap();
        }
        scenario.stack.resume(Part::ClickHouse).unwrap();
        scenario.start_worker("worker-a").await;
        let driven = load.finished().await;
        until("the promises to be settled", Duration::from_secs(60), async || {
            assert_eq!(
                scenario.metric("worker-a", "sluice_partitions_stopped", &[]).await,
                0.0,
                "partitions stopped"
            );
            let committed = scenario.metric("worker-a", "sluice_promises_settled_total", &[]).await;
            (committed > 0.0 && scenario.metric("worker-a", "sluice_partitions_doubtful", &[]).await == 0.0)
                .then_some(())
        })
        .await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
    });
}
