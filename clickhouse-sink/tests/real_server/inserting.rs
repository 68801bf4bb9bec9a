//! Inserts whose outcome is certain.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray};
use clickhouse_sink::{Client, Inserted};

use crate::server::{ask, block, database, deadline, events, events_table, insert, insert_until, settings, url};

#[tokio::test]
async fn the_same_token_twice_leaves_one_set_of_rows_in_the_table_and_in_its_view() {
    let client = database("token").await;
    events_table(&client).await;
    for sql in [
        "CREATE TABLE sums (tenant String, amount AggregateFunction(sum, Nullable(Int64)), rows AggregateFunction(count)) \
         ENGINE = AggregatingMergeTree ORDER BY tenant SETTINGS non_replicated_deduplication_window = 1000",
        "CREATE MATERIALIZED VIEW feed TO sums AS SELECT CAST(tenant AS String) AS tenant, sumState(amount) AS amount, countState() AS rows FROM events GROUP BY tenant",
    ] {
        client.query_text(sql).await.unwrap();
    }
    // Eleven partitions, so that the token has to be remembered for each part.
    let first = events(0..11);
    assert_eq!(insert(&client, "events", &first, "a").await, Inserted::Clean);
    assert_eq!(insert(&client, "events", &first, "a").await, Inserted::Clean);
    assert_eq!(insert(&client, "events", &events(11..13), "b").await, Inserted::Clean);
    assert_eq!(ask(&client, "SELECT count(), sum(amount) FROM events").await, "13\t78");
    assert_eq!(
        ask(&client, "SELECT countMerge(rows), sumMerge(amount) FROM sums").await,
        "13\t78"
    );
}

#[tokio::test]
async fn equal_rows_under_another_token_are_other_rows() {
    let client = database("other_token").await;
    events_table(&client).await;
    for token in ["a", "b"] {
        assert_eq!(insert(&client, "events", &events(0..3), token).await, Inserted::Clean);
    }
    assert_eq!(
        ask(&client, "SELECT count(), uniqExact(_row_hash) FROM events").await,
        "6\t3"
    );
}

/// Scenario: after an outage one block has more days than ClickHouse's default of 100 partitions an insert, and more
/// rows than `max_block_size` (65,409).
/// Guarantees: it is taken, as one block, and once.
#[tokio::test]
async fn a_block_of_many_days_and_rows_is_taken_whole_and_once() {
    let client = database("many").await;
    events_table(&client).await;
    let many = events(0..70_000);
    assert_eq!(insert(&client, "events", &many, "a").await, Inserted::Clean);
    let parts = "SELECT count(), sum(rows) FROM system.parts WHERE database = currentDatabase() AND table = 'events' AND level = 0";
    assert_eq!(ask(&client, parts).await, "500\t70000");
    assert_eq!(insert(&client, "events", &many, "a").await, Inserted::Clean);
    assert_eq!(
        ask(&client, "SELECT count(), uniqExact(_offset) FROM events").await,
        "70000\t70000"
    );
}

#[tokio::test]
async fn a_block_without_rows_is_clean_without_being_sent() {
    let nobody = Client::new(&settings("none"), "http://127.0.0.1:1").unwrap();
    assert_eq!(
        insert_until(&nobody, "events", &events(0..0), "a", i64::from(u32::MAX)).await,
        Inserted::Clean
    );
}

#[tokio::test]
async fn from_its_deadlines_second_on_an_insert_is_refused_and_leaves_no_row() {
    let client = database("deadline").await;
    events_table(&client).await;
    let passed = deadline(&client, 0).await;
    let refused = insert_until(&client, "events", &events(0..5), "a", passed).await;
    assert_eq!(refused, Inserted::Refused("sluice: insert deadline passed".to_owned()));
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "0");
    // The refusal took nothing of the token.
    assert_eq!(insert(&client, "events", &events(0..5), "a").await, Inserted::Clean);
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "5");
}

#[tokio::test]
async fn nobody_listening_is_a_refusal_because_nothing_was_sent() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let client = Client::new(&settings("any"), &format!("http://{free}")).unwrap();
    match insert_until(&client, "events", &events(0..5), "a", i64::from(u32::MAX)).await {
        Inserted::Refused(reason) => assert!(reason.contains("Connection refused"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_can_never_work_is_rejected_with_the_servers_words() {
    let client = database("rejected").await;
    let rejected = |inserted| match inserted {
        Inserted::Rejected { code, reason } => (code, reason),
        other => panic!("{other:?}"),
    };
    let (code, reason) = rejected(insert(&client, "events", &events(0..5), "a").await);
    assert_eq!(code, 60);
    assert!(reason.contains("sluice_test_rejected.events"), "{reason}");

    events_table(&client).await;
    client
        .query_text("ALTER TABLE events DROP COLUMN amount")
        .await
        .unwrap();
    assert_eq!(rejected(insert(&client, "events", &events(0..5), "a").await).0, 16);

    let foreign = Client::new(&settings("sluice_test_no_such_database"), url()).unwrap();
    assert_eq!(rejected(insert(&foreign, "events", &events(0..5), "a").await).0, 81);

    let mut nobody = settings("sluice_test_rejected");
    nobody.user = "nobody".to_owned();
    let nobody = Client::new(&nobody, url()).unwrap();
    assert_eq!(
        rejected(insert_until(&nobody, "events", &events(0..5), "a", i64::from(u32::MAX)).await).0,
        516
    );
}

#[tokio::test]
async fn a_null_for_a_column_that_has_none_is_rejected_and_never_another_value() {
    let client = database("null").await;
    let sql = format!(
        "CREATE TABLE names (name String, {}) ENGINE = MergeTree ORDER BY name",
        crate::server::IDENTITY
    );
    client.query_text(&sql).await.unwrap();
    let names = |names: Vec<Option<&str>>| {
        let array = Arc::new(StringArray::from(names)) as ArrayRef;
        let rows: Vec<i64> = (0..array.len() as i64).collect();
        block(
            &RecordBatch::try_from_iter_with_nullable([("name", array, true)]).unwrap(),
            "t",
            0,
            &rows,
            &[],
        )
    };
    match insert(&client, "names", &names(vec![Some("a"), None]), "a").await {
        Inserted::Rejected { code: 349, reason } => assert!(reason.contains("Nullable"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(ask(&client, "SELECT count() FROM names").await, "0");
    assert_eq!(
        insert(&client, "names", &names(vec![Some("a")]), "b").await,
        Inserted::Clean
    );
}
