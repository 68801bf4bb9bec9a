//! Tables and rollups: made, made again, evolved, refused.

use std::path::Path;
use std::sync::Arc;

use apache_avro::Schema;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array};
use clickhouse_sink::schema::{self, Desired, Plan, TableColumn};
use clickhouse_sink::{Client, Error, Identity, Inserted, encode, row_hashes};
use pipeline::Pipeline;
use pipeline::shape::Shape;

use crate::server::{ask, database, insert, settings, url};

const PIPELINE: &str = r#"
pipeline: shop
start: earliest
connections:
  kafka: {brokers: ["localhost:9092"]}
event: {id: event_id, tenant: tenant_id, type: type, time: occurred_at}
sources:
  - {topic: order.created, table: orders}
tables:
  default: {partition_by: day, order_by: [tenant_id, type, occurred_at], keep: 13 months, low_cardinality: [currency]}
  orders_vip: {like: orders}
rollups:
  - {name: orders_minute, from: orders, every: 1m, by: [tenant_id, currency], measures: {events: uniq(event_id), revenue: sum(amount_minor), rows: count(), last: max(occurred_at), buyers: uniqCombined(page_url)}}
"#;

const V1: &str = r#"{"type":"record","name":"order","fields":[
    {"name":"event_id","type":"string"},{"name":"tenant_id","type":"string"},{"name":"type","type":"string"},
    {"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"page","type":["null",{"type":"record","name":"page","fields":[{"name":"url","type":"string"}]}]},
    {"name":"currency","type":"string"},{"name":"amount_minor","type":"long"},{"name":"note","type":"string"},
    {"name":"status","type":{"type":"enum","name":"status","symbols":["open","paid"]}},
    {"name":"properties","type":{"type":"map","values":"string"}}]}"#;

fn v2() -> String {
    // Two fields come, one of them with a default; one that was always there, and one that rows are grouped by, go.
    let fields = [
        (
            r#"{"name":"currency","type":"string"},"#,
            r#"{"name":"shop","type":"string","default":"main"},"#,
        ),
        (
            r#"{"name":"note","type":"string"},"#,
            r#"{"name":"coupon","type":["null","string"],"default":null},"#,
        ),
    ];
    fields
        .iter()
        .fold(V1.to_owned(), |text, (old, new)| text.replace(old, new))
}

fn pipeline(text: &str) -> Pipeline {
    pipeline::check("pipeline.yaml", text, Path::new(".")).unwrap()
}

fn shape(versions: &[&str]) -> Shape {
    Shape::of(
        &versions
            .iter()
            .map(|text| Schema::parse_str(text).unwrap())
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

fn desired(text: &str, versions: &[&str]) -> Desired {
    schema::desired(&pipeline(text), &[shape(versions)]).unwrap()
}

fn changed(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| change.what.clone()).collect()
}

async fn refused(client: &Client, desired: &Desired) -> Vec<(String, String)> {
    let plan = schema::plan(client, desired).await.unwrap();
    let before = ask(client, "SELECT groupArray((name, create_table_query)) FROM (SELECT * FROM system.tables WHERE database = currentDatabase() ORDER BY name)").await;
    match schema::apply(client, desired).await {
        Err(Error::Refused(refusals)) => assert_eq!(refusals, plan.refusals),
        other => panic!("{other:?}"),
    }
    let after = ask(client, "SELECT groupArray((name, create_table_query)) FROM (SELECT * FROM system.tables WHERE database = currentDatabase() ORDER BY name)").await;
    assert_eq!(before, after);
    plan.refusals
        .into_iter()
        .map(|refusal| (refusal.what, refusal.reason))
        .collect()
}

/// Orders with these ids, all in one minute, of 10 EUR each; nothing but what `columns` names.
async fn insert_orders(client: &Client, shape: &Shape, ids: &[&str], token: &str) -> Inserted {
    let rows = ids.len();
    let text = |text: &str| Arc::new(StringArray::from(vec![text; rows])) as ArrayRef;
    let arrays = shape.columns.iter().map(|column| match column.name.as_str() {
        "event_id" => Arc::new(StringArray::from(ids.to_vec())) as ArrayRef,
        "tenant_id" => text("acme"),
        "type" => text("order.created"),
        "occurred_at" => Arc::new(TimestampMillisecondArray::from(vec![1_795_240_800_000; rows]).with_timezone("UTC")),
        "amount_minor" => Arc::new(Int64Array::from(vec![1000; rows])),
        "currency" if !column.nullable => text("EUR"),
        "note" if !column.nullable => text("-"),
        "status" => text("paid"),
        "shop" => text("main"),
        "properties" => {
            let mut maps = arrow::array::MapBuilder::new(
                None,
                arrow::array::StringBuilder::new(),
                arrow::array::StringBuilder::new(),
            )
            .with_values_field(arrow::datatypes::Field::new(
                "values",
                arrow::datatypes::DataType::Utf8,
                false,
            ));
            (0..rows).for_each(|_| maps.append(true).unwrap());
            Arc::new(maps.finish())
        }
        _ => new_null_array(&column.kind.arrow(), rows),
    });
    let batch = RecordBatch::try_new(shape.arrow(), arrays.collect()).unwrap();
    let offsets: Vec<i64> = (0..rows as i64).collect();
    let identity = Identity {
        topic: "order.created",
        partition: &vec![0; rows],
        offset: &offsets,
        index: &vec![0; rows],
        row_hash: &row_hashes(&batch).unwrap(),
    };
    let low = schema::low_cardinality(&pipeline(PIPELINE), 0, shape);
    let order: Vec<usize> = (0..rows).collect();
    insert(
        client,
        "orders",
        &encode(&batch, &identity, &order, &low).unwrap(),
        token,
    )
    .await
}

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
            rollup,
            rollup
        ]
    );
    assert!(first.changes[5].why.contains("from now on"), "{}", first.changes[5].why);
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
    (one.unwrap(), two.unwrap(), three.unwrap());
    assert_eq!(schema::plan(&client, &desired).await.unwrap(), Plan::default());
    let newer = v2();
    let evolved = super::evolving::desired(PIPELINE, &[V1, &newer]);
    let (one, two) = tokio::join!(schema::apply(&client, &evolved), schema::apply(&client, &evolved));
    (one.unwrap(), two.unwrap());
    assert_eq!(schema::plan(&client, &evolved).await.unwrap(), Plan::default());
}

#[tokio::test]
async fn a_rollup_counts_each_event_once_and_a_repeated_insert_adds_nothing() {
    let client = database("rollup").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let shape = shape(&[V1]);
    assert_eq!(insert_orders(&client, &shape, &["a", "b"], "1").await, Inserted::Clean);
    assert_eq!(insert_orders(&client, &shape, &["a", "b"], "1").await, Inserted::Clean);
    assert_eq!(insert_orders(&client, &shape, &["c"], "2").await, Inserted::Clean);
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
    assert_eq!(insert_orders(&client, &old, &["b"], "2").await, Inserted::Clean);
    assert_eq!(insert_orders(&client, &new, &["c", "d"], "3").await, Inserted::Clean);
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

#[tokio::test]
async fn a_changed_type_key_or_partition_is_refused_and_nothing_is_changed() {
    let client = database("refuse").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();

    let retyped = V1.replace(
        r#"{"name":"amount_minor","type":"long"}"#,
        r#"{"name":"amount_minor","type":"double"}"#,
    );
    let text = PIPELINE.split("rollups:").next().unwrap();
    let refusals = refused(&client, &desired(text, &[&retyped])).await;
    assert_eq!(
        refusals,
        ["orders", "orders_vip"].map(|table| (
            format!("table {table}, column amount_minor"),
            "it is Int64 and the schema now says Float64: readers rely on its type".to_owned(),
        ))
    );

    let resorted = text
        .replace("[tenant_id, type, occurred_at]", "[tenant_id, occurred_at]")
        .replace("partition_by: day", "partition_by: month");
    let refusals = refused(&client, &desired(&resorted, &[V1])).await;
    let table = |reason: &str| {
        (
            "table orders".to_owned(),
            format!("{reason}: that can't change while the table has rows"),
        )
    };
    assert_eq!(
        refusals[..2],
        [
            table("it is sorted by tenant_id, type, occurred_at and should be by tenant_id, occurred_at"),
            table("it is parted by toYYYYMMDD(occurred_at) and should be by toYYYYMM(occurred_at)"),
        ]
    );
    assert_eq!(refusals.len(), 4);

    let keyless = V1.replace(
        r#"{"name":"type","type":"string"}"#,
        r#"{"name":"type","type":["null","string"]}"#,
    );
    let refusals = refused(&client, &desired(text, &[&keyless])).await;
    assert_eq!(refusals[0].0, "table orders, column type");
    assert!(refusals[0].1.contains("can't become nullable"), "{refusals:?}");
}

#[tokio::test]
async fn a_column_that_no_schema_has_any_more_is_never_dropped() {
    let client = database("dropped").await;
    schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    let text = PIPELINE.split("rollups:").next().unwrap();
    let without = |field: &str| V1.replace(field, "");
    let refusals = refused(
        &client,
        &desired(text, &[&without(r#"{"name":"note","type":"string"},"#)]),
    )
    .await;
    assert_eq!(
        refusals.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(),
        ["table orders, column note", "table orders_vip, column note"]
    );

    let page = V1.lines().find(|line| line.contains(r#""page""#)).unwrap();
    let plan = schema::apply(&client, &desired(text, &[&without(page)])).await.unwrap();
    assert_eq!(changed(&plan), [] as [&str; 0]);
    assert_eq!(plan.notes.len(), 2);
    assert!(
        plan.notes[0].starts_with("table orders, column page_url is in no version"),
        "{:?}",
        plan.notes
    );
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
async fn a_new_rollup_is_made_a_changed_one_and_a_foreign_table_are_refused() {
    let client = database("rollups").await;
    let bare = PIPELINE.split("rollups:").next().unwrap();
    schema::apply(&client, &desired(bare, &[V1])).await.unwrap();
    let plan = schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    assert_eq!(changed(&plan), ["rollup orders_minute"; 3]);

    let coarser = PIPELINE.replace("every: 1m", "every: 1h");
    let refusals = refused(&client, &desired(&coarser, &[V1])).await;
    let whats = ["_state", "", "_feed"].map(|suffix| format!("rollup orders_minute, orders_minute{suffix}"));
    assert_eq!(refusals.iter().map(|(what, _)| what.clone()).collect::<Vec<_>>(), whats);
    assert!(refusals[0].1.starts_with("its definition has changed"), "{refusals:?}");

    client
        .query_text("CREATE TABLE by_hour (a UInt8) ENGINE = MergeTree ORDER BY a")
        .await
        .unwrap();
    let foreign = PIPELINE.replace("orders_minute", "by_hour");
    let refusals = refused(&client, &desired(&foreign, &[V1])).await;
    assert_eq!(
        refusals,
        [(
            "rollup by_hour, by_hour".to_owned(),
            "something of this name is there that wasn't made by Sluice".to_owned()
        )]
    );
}

#[tokio::test]
async fn a_table_that_would_lose_rows_or_was_made_by_others_is_refused() {
    let client = database("foreign").await;
    client
        .query_text("CREATE TABLE orders (a String) ENGINE = ReplacingMergeTree ORDER BY a")
        .await
        .unwrap();
    client
        .query_text("CREATE TABLE orders_vip (a String) ENGINE = MergeTree ORDER BY a")
        .await
        .unwrap();
    let text = PIPELINE.split("rollups:").next().unwrap();
    let refusals = refused(&client, &desired(text, &[V1])).await;
    assert_eq!(
        refusals.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(),
        ["table orders", "table orders_vip, column _topic"]
    );
}

#[test]
fn what_the_file_names_and_no_schema_has_is_refused_all_at_once() {
    let text = PIPELINE
        .replace(
            "order_by: [tenant_id, type, occurred_at]",
            "order_by: [tenant, properties]",
        )
        .replace("low_cardinality: [currency]", "low_cardinality: [amount_minor]")
        .replace("sum(amount_minor)", "sum(currency)")
        .replace("rows: count()", "bucket: count()");
    let faults = schema::desired(&pipeline(&text), &[shape(&[V1])]).unwrap_err();
    let reasons: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}: {}", fault.what, fault.reason))
        .collect();
    let of_table = |table: &str| {
        [
            format!("table {table}: order_by names tenant, which no schema version has"),
            format!("table {table}: order_by names properties, whose kind of values can't be used there"),
            format!("table {table}: low_cardinality names amount_minor, whose kind of values can't be used there"),
        ]
    };
    let expected = [
        &of_table("orders")[..],
        &of_table("orders_vip"),
        &[
            "rollup orders_minute: sum names currency, whose kind of values can't be used there".to_owned(),
            "rollup orders_minute: `bucket` is the name of the column with the time".to_owned(),
        ],
    ]
    .concat();
    assert_eq!(reasons, expected);
    let untimed = V1.replace(r#"{"type":"long","logicalType":"timestamp-millis"}"#, r#""long""#);
    let faults = schema::desired(&pipeline(PIPELINE), &[shape(&[&untimed])]).unwrap_err();
    assert_eq!(faults[0].what, "event time occurred_at");
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
