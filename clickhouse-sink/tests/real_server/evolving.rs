//! Tables and rollups: made, made again, evolved.

use clickhouse_sink::schema::{self, Plan, TableColumn};
use clickhouse_sink::{Client, Error, Inserted};

use crate::server::{ask, database, settings, url};
use crate::shop::{PIPELINE, V1, changed, desired, feed, insert_orders, insert_orders_at, pipeline, shape, v2};

#[tokio::test]
async fn a_pipeline_gets_its_database_tables_and_rollups_once_and_then_nothing_changes() {
    let client = database("apply").await;
    client.query_text("DROP DATABASE sluice_test_apply").await.unwrap();
    let desired = desired(PIPELINE, &[V1]);
    let rollup = "rollup orders_minute";
    let first = schema::apply(&client, &desired).await.unwrap();
    assert_eq!(
        changed(&first),
        [
            "database sluice_test_apply",
            "table orders",
            "table orders_vip",
            rollup,
            rollup
        ]
    );
    let why = &first.changes[4].why;
    assert!(why.contains("rows that orders has already are not in it"), "{why}");
    assert_eq!(schema::apply(&client, &desired).await.unwrap(), Plan::default());

    let columns = schema::columns(&client, "orders_vip").await.unwrap();
    let spelled: Vec<String> = columns
        .iter()
        .map(|column| format!("{} {}", column.name, column.type_name))
        .collect();
    assert_eq!(
        spelled,
        [
            "event_id String",
            "tenant_id LowCardinality(String)",
            "type LowCardinality(String)",
            "occurred_at DateTime64(3, 'UTC')",
            "page_url Nullable(String)",
            "currency LowCardinality(String)",
            "amount_minor Int64",
            "note String",
            "status LowCardinality(String)",
            "properties Map(LowCardinality(String), String)",
            "_topic LowCardinality(String)",
            "_partition Int32",
            "_offset Int64",
            "_index UInt16",
            "_row_hash UInt64",
            "_deadline DateTime('UTC')",
            "_inserted_at DateTime64(3, 'UTC')",
        ]
    );
    let in_key: Vec<&str> = columns
        .iter()
        .filter(|column| column.in_key)
        .map(|column| column.name.as_str())
        .collect();
    assert_eq!(in_key, ["tenant_id", "type", "occurred_at"]);
    assert_eq!(
        schema::columns(&client, "nothing").await.unwrap(),
        [] as [TableColumn; 0]
    );
}

#[tokio::test]
async fn two_applies_at_once_end_with_one_set_of_tables() {
    let client = database("apply_twice").await;
    let desired = desired(PIPELINE, &[V1]);
    let (one, two, three) = tokio::join!(
        schema::apply(&client, &desired),
        schema::apply(&client, &desired),
        schema::apply(&client, &desired)
    );
    for applied in [one, two, three] {
        applied.unwrap();
    }
    assert_eq!(schema::plan(&client, &desired).await.unwrap(), Plan::default());
    let newer = v2();
    let evolved = self::desired(PIPELINE, &[V1, &newer]);
    let (one, two) = tokio::join!(schema::apply(&client, &evolved), schema::apply(&client, &evolved));
    for applied in [one, two] {
        applied.unwrap();
    }
    assert_eq!(schema::plan(&client, &evolved).await.unwrap(), Plan::default());
}

#[tokio::test]
async fn a_rollup_counts_each_event_once_and_a_repeated_feeding_adds_nothing() {
    let client = database("rollup").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let shape = shape(&[V1]);
    let at =
        |ids: &'static [&'static str], token: &'static str, first| insert_orders_at(&client, &shape, ids, token, first);
    assert_eq!(at(&["a", "b"], "1", 0).await, Inserted::Clean);
    assert_eq!(at(&["a", "b"], "1", 0).await, Inserted::Clean);
    assert_eq!(at(&["c"], "2", 2).await, Inserted::Clean);
    for (rows, token) in [(0..2, "x"), (0..2, "x"), (2..3, "y")] {
        assert_eq!(feed(&client, &shape, rows, token).await, Inserted::Clean);
    }
    let rollup = "SELECT bucket, tenant_id, currency, events, revenue, rows, last, buyers FROM orders_minute";
    assert_eq!(
        ask(&client, rollup).await,
        "2026-11-21 06:00:00\tacme\tEUR\t3\t3000\t3\t2026-11-21 06:00:00.000\t0"
    );
}

/// Scenario: version 2 adds two fields and removes two, while rows of version 1 are there and a rollup groups by one of
/// the removed.
/// Guarantees: the columns are added and widened, both versions insert, and the rollup goes on with a null group.
#[tokio::test]
async fn a_second_version_adds_and_widens_columns_and_old_and_new_rows_live_together() {
    let client = database("evolve").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let newer = v2();
    let (old, new) = (shape(&[V1]), shape(&[V1, &newer]));
    assert_eq!(insert_orders(&client, &old, &["a"], "1").await, Inserted::Clean);

    // What a worker does that meets the new schema: as often as it likes, from as many processes as there are.
    let low = schema::low_cardinality(&pipeline(PIPELINE), 0, &new);
    let (one, two) = tokio::join!(
        schema::add_columns(&client, "orders", &new.columns, &low),
        schema::add_columns(&client, "orders", &new.columns, &low)
    );
    let what = ["shop", "coupon", "currency", "note"].map(|column| format!("table orders, column {column}"));
    let mut planned = [one.unwrap(), two.unwrap()].map(|plan| changed(&plan));
    planned.sort_by_key(|changes| std::cmp::Reverse(changes.len()));
    let mut first = planned[0].clone();
    first.sort();
    let mut all = what.to_vec();
    all.sort();
    assert_eq!(first, all);
    assert_eq!(
        schema::add_columns(&client, "orders", &new.columns, &low)
            .await
            .unwrap(),
        Plan::default()
    );
    let types = |columns: Vec<TableColumn>| {
        columns
            .into_iter()
            .map(|column| format!("{} {}", column.name, column.type_name))
            .collect::<Vec<_>>()
    };
    let columns = types(schema::columns(&client, "orders").await.unwrap());
    let user: Vec<&str> = columns
        .iter()
        .map(String::as_str)
        .take_while(|column| !column.starts_with('_'))
        .collect();
    assert_eq!(user.len(), 12);
    for column in [
        "shop Nullable(String)",
        "coupon Nullable(String)",
        "currency LowCardinality(Nullable(String))",
        "note Nullable(String)",
    ] {
        assert!(user.contains(&column), "{column} in {user:?}");
    }
    assert_eq!(insert_orders_at(&client, &old, &["b"], "2", 1).await, Inserted::Clean);
    assert_eq!(
        insert_orders_at(&client, &new, &["c", "d"], "3", 2).await,
        Inserted::Clean
    );
    assert_eq!(feed(&client, &old, 0..1, "x").await, Inserted::Clean);
    assert_eq!(feed(&client, &new, 1..4, "y").await, Inserted::Clean);
    let rows = ask(
        &client,
        "SELECT event_id, currency, note, shop, coupon FROM orders ORDER BY event_id",
    )
    .await;
    assert_eq!(
        rows,
        "a\tEUR\t-\t\\N\t\\N\nb\tEUR\t-\t\\N\t\\N\nc\t\\N\t\\N\tmain\t\\N\nd\t\\N\t\\N\tmain\t\\N"
    );
    let rollup = ask(
        &client,
        "SELECT currency, events, revenue FROM orders_minute ORDER BY currency",
    )
    .await;
    assert_eq!(rollup, "EUR\t2\t2000\n\\N\t2\t2000");
    // What remains for `schema apply` is the table that is like it.
    let plan = schema::apply(&client, &desired(PIPELINE, &[V1, &newer])).await.unwrap();
    assert!(
        changed(&plan)
            .iter()
            .all(|what| what.starts_with("table orders_vip, column ")),
        "{plan:?}"
    );
    assert_eq!(plan.changes.len(), 4);
}

/// Scenario: a rollup was made when a view fed it with each insert.
/// Guarantees: the view is dropped and nothing else changes; rows that it fed stay, and each row is counted once from then on.
#[tokio::test]
async fn the_view_that_fed_a_rollup_before_lanes_did_is_dropped() {
    let client = database("former_feed").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let shape = shape(&[V1]);
    let view = "CREATE MATERIALIZED VIEW orders_minute_feed TO orders_minute_state AS SELECT \
                toDateTime(occurred_at, 'UTC') AS bucket, countState() AS rows FROM orders GROUP BY bucket";
    client.query_text(view).await.unwrap();
    let plan = schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    assert_eq!(changed(&plan), ["rollup orders_minute"]);
    assert!(plan.changes[0].why.contains("a second time"), "{plan:?}");
    assert_eq!(insert_orders(&client, &shape, &["a"], "1").await, Inserted::Clean);
    assert_eq!(feed(&client, &shape, 0..1, "x").await, Inserted::Clean);
    assert_eq!(ask(&client, "SELECT sum(rows) FROM orders_minute").await, "1");
}

#[tokio::test]
async fn retention_and_windows_follow_the_file() {
    let client = database("retention").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let text = PIPELINE.replace("keep: 13 months", "keep: 30d, dedup_window: 500");
    let plan = schema::apply(&client, &desired(&text, &[V1])).await.unwrap();
    assert_eq!(
        changed(&plan),
        [
            "table orders",
            "table orders",
            "table orders_vip",
            "table orders_vip",
            "rollup orders_minute"
        ]
    );
    assert_eq!(
        schema::plan(&client, &desired(&text, &[V1])).await.unwrap(),
        Plan::default()
    );
    let engine = ask(
        &client,
        "SELECT engine_full FROM system.tables WHERE database = currentDatabase() AND name = 'orders'",
    )
    .await;
    assert!(
        engine.contains("TTL toDateTime(occurred_at) + toIntervalDay(30)"),
        "{engine}"
    );
    assert!(engine.contains("non_replicated_deduplication_window = 500"), "{engine}");
    let forever = text.replace("keep: 30d", "keep: forever");
    assert_eq!(
        changed(&schema::apply(&client, &desired(&forever, &[V1])).await.unwrap()),
        ["table orders", "table orders_vip"]
    );
    assert_eq!(
        schema::plan(&client, &desired(&forever, &[V1])).await.unwrap(),
        Plan::default()
    );
}

#[tokio::test]
async fn a_server_that_is_away_is_unreachable_and_not_a_refusal() {
    let away = Client::new(&settings("any"), "http://127.0.0.1:1").unwrap();
    assert!(matches!(
        schema::plan(&away, &desired(PIPELINE, &[V1])).await,
        Err(Error::Unreachable(_))
    ));
    assert!(matches!(away.now_ms().await, Err(Error::Unreachable(_))));
    let there = Client::new(&settings("any"), url()).unwrap();
    assert!(there.now_ms().await.unwrap() > 1_700_000_000_000);
}
