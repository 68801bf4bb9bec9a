//! What is not there yet when a worker starts.

use std::time::Duration;

use end_to_end::run;
use end_to_end::shop::Rules;

/// Scenario: a worker starts before anybody has made topics and tables; they are made; later one table is taken away and the
/// worker starts again.
/// Guarantees: it says what is missing and what to do, reads nothing before, and goes on by itself when all is there.
#[test]
fn a_missing_topic_and_a_missing_table_are_named_and_waited_for() {
    run("unprepared", Rules::Directory, async |scenario| {
        scenario.register_schemas().await;
        scenario.start_billing().await;
        let said = scenario.start_waiting_worker("worker-a", "no such topic").await;
        for named in ["unprepared.order.created", "unprepared.alerts", "sluice schema apply"] {
            assert!(said.contains(named), "{named} in {said}");
        }
        scenario.sluice(&["schema", "apply"]).await;
        scenario.is_ready("worker-a").await;
        scenario.stop("worker-a").await;

        scenario
            .sql("RENAME TABLE unprepared.errors TO unprepared.errors_away")
            .await;
        let load = scenario.drive(scenario.load_of(300.0, Duration::from_secs(3), 1));
        let said = scenario.start_waiting_worker("worker-a", "table errors").await;
        assert!(said.contains("sluice schema apply"), "{said}");
        let driven = load.finished().await;
        let rows = scenario.number("SELECT count() FROM unprepared.pageviews").await;
        assert_eq!(rows, 0, "nothing is read before every table is there");
        scenario
            .sql("RENAME TABLE unprepared.errors_away TO unprepared.errors")
            .await;
        scenario.is_ready("worker-a").await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.dead_letters, 0, "{report}");
    });
}
