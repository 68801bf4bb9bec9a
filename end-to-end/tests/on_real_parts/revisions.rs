//! Rules from the rules service: a newer revision while everything runs, and a worker that starts without the service.

use std::time::Duration;

use end_to_end::shop::Rules;
use end_to_end::{Committed, Scenario, run, until};

use crate::stops::left_pending;

const SECOND: Duration = Duration::from_secs(1);
const TABLES: [(&str, &str); 5] = [
    ("user.pageview", "pageviews"),
    ("order.created", "orders"),
    ("payment.processed", "payments"),
    ("session.end", "sessions"),
    ("error.captured", "errors"),
];

/// Puts rules that write the revision's mark into every event.
async fn put(scenario: &mut Scenario<'_>, mark: &str, revision: &str) {
    let text = format!("tenant: \"*\"\nrules:\n  - {{name: mark, set: {{source: \"'{mark}'\"}}}}\n");
    scenario.write_rules("default", &text);
    let rules = scenario.dir.join("rules").display().to_string();
    assert_eq!(scenario.sluice(&["rules", "apply", &rules]).await, revision);
}

/// Scenario: a second revision is put in mid-load; then the service goes down, and the worker is killed and starts again.
/// Guarantees: in each partition every event up to one has the first revision's mark and every later one the second's; none is
/// lost or doubled; the worker goes on with the revision that it has kept.
#[test]
fn a_newer_revision_holds_for_later_events_and_outlives_its_service() {
    run("revisions", Rules::Service, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_config().await;
        put(scenario, "one", "rules@1\n").await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let load = scenario.drive(scenario.load_of(800.0, 10 * SECOND, 1));
        load.has_run_for(3 * SECOND).await;
        for (_, table) in TABLES {
            until(format!("a row in {table}"), Duration::from_secs(60), async || {
                let rows = scenario.number(&format!("SELECT count() FROM {table}")).await;
                (rows > 0).then_some(())
            })
            .await;
        }
        put(scenario, "two", "rules@2\n").await;
        scenario.metric_reaches("worker-a", "sluice_rules_revision", 2.0).await;
        load.has_run_for(6 * SECOND).await;
        scenario.stop("config").await;
        scenario.kill("worker-a").await;
        scenario.start_worker("worker-a").await;
        assert_eq!(
            scenario.metric("worker-a", "sluice_rules_revision", &[]).await,
            2.0,
            "kept on disk"
        );
        let driven = load.finished().await;

        for (event, table) in TABLES {
            let topic = format!("revisions.{event}");
            let produced = driven.topics.iter().find(|one| one.topic == topic).unwrap();
            let count = format!("SELECT count() FROM {table}");
            until(
                format!("{} rows in {table}", produced.produced),
                60 * SECOND,
                async || (scenario.number(&count).await >= produced.produced).then_some(()),
            )
            .await;
            let ids = format!(
                "SELECT count(), uniqExact(event_id), toString(groupBitXor(toUInt128(toUUID(event_id)))) FROM {table}"
            );
            let xor = u128::from_str_radix(&produced.id_xor, 16).unwrap();
            let expected = format!("{0}\t{0}\t{xor}", produced.produced);
            assert_eq!(scenario.sql(&ids).await, expected, "{table}");
            let marks = format!("SELECT DISTINCT source FROM {table} ORDER BY source");
            assert_eq!(scenario.sql(&marks).await, "one\ntwo", "{table}");
            let mixed = format!(
                "SELECT count() FROM (SELECT _partition FROM {table} GROUP BY _partition HAVING countIf(source = 'two') > 0 \
                 AND maxIf(_offset, source = 'one') > minIf(_offset, source = 'two'))"
            );
            assert_eq!(
                scenario.number(&mixed).await,
                0,
                "partitions of {table} with both marks mixed"
            );
        }
        scenario.start_config().await;
        let verified = scenario.sluice(&["verify"]).await;
        assert!(
            verified.contains("gap = overlap = 0"),
            "each range with its own rules: {verified}"
        );
    });
}

/// Scenario: a worker whose rules give something else in each process dies with promises pending; then one starts whose rules
/// are pure.
/// Guarantees: partitions whose promise was made of the impure rules stop (SLU-102) with the promise as it was, and nothing is
/// delivered of what was rebuilt; the others go on.
#[test]
fn a_range_that_is_rebuilt_differently_stops_its_partition() {
    run("impure", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.mutation = Some("impure-rules");
        scenario.start_worker("worker-a").await;
        scenario.mutation = None;
        left_pending(scenario, Committed::is_range).await;
        let promised = scenario.promised();
        let said = scenario.start_stopped_worker("worker-a", "SLU-102").await;
        let named = |one: &&Committed| said.contains(&format!("{}/{}", one.topic, one.partition));
        let stopped: Vec<&Committed> = promised.iter().filter(named).collect();
        assert!(!stopped.is_empty(), "{said}");
        scenario
            .drive(scenario.load_of(500.0, Duration::from_secs(1), 2))
            .finished()
            .await;
        let mut ends = scenario.ends_now().await;
        ends.retain(|(topic, partition, _)| {
            let mut without = promised.iter();
            without.all(|one| (&one.topic, one.partition) != (topic, *partition))
        });
        assert!(
            ends.iter().any(|(.., end)| *end > 0),
            "nobody has anything to go on with"
        );
        scenario.committed_up_to(&ends).await;
        let committed = scenario.committed();
        for one in stopped {
            assert!(committed.contains(one), "its promise is pending still: {one:?}");
        }
    });
}
