//! What is never done to a table: refused, with nothing changed.

use clickhouse_sink::schema::{self, Desired};
use clickhouse_sink::{Client, Error};

use crate::server::{ask, database};
use crate::shop::{PIPELINE, V1, changed, desired, pipeline, shape};

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
async fn a_new_rollup_is_made_a_changed_one_and_a_foreign_table_are_refused() {
    let client = database("rollups").await;
    let bare = PIPELINE.split("rollups:").next().unwrap();
    schema::apply(&client, &desired(bare, &[V1])).await.unwrap();
    let plan = schema::apply(&client, &desired(PIPELINE, &[V1])).await.unwrap();
    assert_eq!(changed(&plan), ["rollup orders_minute"; 2]);

    let coarser = PIPELINE.replace("every: 1m", "every: 1h");
    let refusals = refused(&client, &desired(&coarser, &[V1])).await;
    let whats = ["_state", ""].map(|suffix| format!("rollup orders_minute, orders_minute{suffix}"));
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
