//! Rollups that lack rows of their tables.

use std::time::Duration;

use end_to_end::Scenario;
use end_to_end::run;
use end_to_end::shop::Rules;

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// Rows that `sluice rollups` counts, all together.
fn rows(said: &str) -> u64 {
    let parts: Vec<serde_json::Value> = serde_json::from_str(said).unwrap_or_else(|error| panic!("{error}: {said}"));
    parts.iter().map(|part| part["rows"].as_u64().unwrap()).sum()
}

async fn repaired(scenario: &Scenario<'_>) -> u64 {
    rows(&scenario.sluice(&["rollups", "repair", "--json"]).await)
}

/// Scenario: all states of one rollup are removed while a worker runs and a load goes on; two repairs at once, then a third.
/// Guarantees: `rollups check` exits with 1 and counts the rows; the repairs feed each of them once, which `sluice verify` sees;
/// afterwards nothing is lacking and nothing is fed.
#[test]
fn what_a_rollup_lacks_is_counted_and_fed_once() {
    run("rollups", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        scenario.verified(&[&first]).await;
        assert_eq!(rows(&scenario.sluice(&["rollups", "check", "--json"]).await), 0);

        let orders = scenario.number("SELECT count() FROM orders").await;
        scenario.sql("TRUNCATE TABLE orders_minute_state").await;
        let said = scenario.refused(&["rollups", "check", "--json"]).await;
        assert_eq!(rows(&said), orders, "{said}");

        let load = scenario.drive(scenario.load_of(500.0, 4 * SECOND, 2));
        load.has_run_for(SECOND).await;
        let (one, other) = tokio::join!(repaired(scenario), repaired(scenario));
        // What one has fed, the other need not find; what both find is fed once and said by both.
        assert!(one + other >= orders, "{one} and {other} of {orders} rows were fed");
        let second = load.finished().await;
        scenario.verified(&[&first, &second]).await;
        assert_eq!(repaired(scenario).await, 0);
    });
}
