//! Rollups that lack rows of their tables.

use std::time::Duration;

use clickhouse_sink::schema;
use clickhouse_sink::{Feeding, Inserted, Lack, Range};

use crate::server::{ask, database, deadline};
use crate::shop::{self, PIPELINE, V1, desired, insert_orders_at, orders, pipeline, shape, v2};

const ROLLUP: &str = "SELECT events, revenue, rows, last, buyers FROM orders_minute";

fn range(start: i64, end: i64) -> Range {
    orders(start..end)
}

/// Scenario: of three inserts the first was fed as a whole and none of the other two; feeding what lacks is repeated.
/// Guarantees: exactly the rows of the asked range that are missing are fed, once; sums and counts come out right.
#[tokio::test]
async fn a_rollup_that_lacks_rows_is_fed_these_and_no_others() {
    let client = database("feeding").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let shape = shape(&[V1]);
    let feeds = schema::feeds(&pipeline(PIPELINE), std::slice::from_ref(&shape));
    let [feed] = &feeds[..] else { panic!("{feeds:?}") };
    assert_eq!(client.unfed(feed, &[range(0, 100)]).await.unwrap(), 0, "no rows at all");
    assert_eq!(
        insert_orders_at(&client, &shape, &["a", "b"], "1", 0).await,
        Inserted::Clean
    );
    assert_eq!(shop::feed(&client, &shape, 0..2, "all").await, Inserted::Clean);
    for (ids, token, first) in [(&["c", "d", "e"][..], "2", 2), (&["f"][..], "3", 5)] {
        assert_eq!(
            insert_orders_at(&client, &shape, ids, token, first).await,
            Inserted::Clean
        );
    }
    assert_eq!(ask(&client, ROLLUP).await, "2\t2000\t2\t2026-11-21 06:00:00.000\t0");
    assert_eq!(client.unfed(feed, &[range(0, 2)]).await.unwrap(), 0);
    assert_eq!(client.unfed(feed, &[range(0, 5), range(5, 6)]).await.unwrap(), 4);

    let deadline_unix_s = deadline(&client, 30).await;
    let ranges = [range(0, 5)];
    for (attempt, revenue) in [("x", "5\t5000\t5"), ("y", "5\t5000\t5")] {
        let feeding = Feeding {
            ranges: &ranges,
            lack: Lack::Some,
            token: attempt,
            query_id: &format!("{}-feeding-{attempt}", client.database()),
            deadline_unix_s,
            running_max: Duration::from_secs(20),
        };
        assert_eq!(client.feed(feed, feeding).await, Inserted::Clean);
        let found = ask(&client, ROLLUP).await;
        assert!(found.starts_with(revenue), "{found}");
    }
    assert_eq!(
        client.unfed(feed, &[range(0, 6)]).await.unwrap(),
        1,
        "it was not asked for"
    );
}

/// Scenario: version 2 has no currency, by which the rollup is grouped; its rows are not fed yet.
/// Guarantees: a group without a value is a group like any other: its rows are missing, then fed, then not missing any more.
#[tokio::test]
async fn rows_of_a_group_without_a_value_are_fed_once() {
    let client = database("feeding_null").await;
    let newer = v2();
    let versions = [V1, newer.as_str()];
    schema::apply(&client, &desired(PIPELINE, &versions)).await.unwrap();
    let feeds = schema::feeds(&pipeline(PIPELINE), &[shape(&versions)]);
    let inserted = insert_orders_at(&client, &shape(&versions), &["a", "b"], "1", 0).await;
    assert_eq!(inserted, Inserted::Clean);
    assert_eq!(client.unfed(&feeds[0], &[range(0, 2)]).await.unwrap(), 2);
    for token in ["x", "y"] {
        let feeding = Feeding {
            ranges: &[range(0, 2)],
            lack: Lack::Some,
            token,
            query_id: &format!("{}-{token}", client.database()),
            deadline_unix_s: deadline(&client, 30).await,
            running_max: Duration::from_secs(20),
        };
        assert_eq!(client.feed(&feeds[0], feeding).await, Inserted::Clean);
        let found = ask(&client, "SELECT currency, events, revenue, rows FROM orders_minute").await;
        assert_eq!(found, "\\N\t2\t2000\t2");
        assert_eq!(client.unfed(&feeds[0], &[range(0, 2)]).await.unwrap(), 0);
    }
}

/// Guarantees: a feeding that comes after its deadline does nothing, and says so.
#[tokio::test]
async fn feeding_is_refused_after_its_deadline() {
    let client = database("feeding_late").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let shape = shape(&[V1]);
    let feeds = schema::feeds(&pipeline(PIPELINE), std::slice::from_ref(&shape));
    assert_eq!(insert_orders_at(&client, &shape, &["a"], "1", 0).await, Inserted::Clean);
    let feeding = Feeding {
        ranges: &[range(0, 1)],
        lack: Lack::All,
        token: "late",
        query_id: &format!("{}-late", client.database()),
        deadline_unix_s: deadline(&client, -1).await,
        running_max: Duration::from_secs(20),
    };
    let outcome = client.feed(&feeds[0], feeding).await;
    assert!(matches!(outcome, Inserted::Refused(_)), "{outcome:?}");
    assert_eq!(client.unfed(&feeds[0], &[range(0, 1)]).await.unwrap(), 1);
}
