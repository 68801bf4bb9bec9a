//! Schemas that change.

use std::time::Duration;

use end_to_end::run;
use end_to_end::shop::Rules;

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
        for (topic, table) in [("versions.user.pageview", "pageviews"), ("versions.order.created", "orders")] {
            let produced = driven.topics.iter().find(|one| one.topic == topic).unwrap();
            assert!(produced.second_version > 0 && produced.second_version < produced.produced, "{produced:?}");
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
