//! A pipeline with one topic, two tables and a rollup, and its orders.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray, new_null_array};
use clickhouse_sink::schema::{self, Desired, Plan};
use clickhouse_sink::{Client, Feeding, Identity, Inserted, Lack, Range, encode, row_hashes};
use pipeline::Pipeline;
use pipeline::shape::Shape;

use crate::server::{deadline, insert};

pub const PIPELINE: &str = r#"
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

pub const V1: &str = r#"{"type":"record","name":"order","fields":[
    {"name":"event_id","type":"string"},{"name":"tenant_id","type":"string"},{"name":"type","type":"string"},
    {"name":"occurred_at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"page","type":["null",{"type":"record","name":"page","fields":[{"name":"url","type":"string"}]}]},
    {"name":"currency","type":"string"},{"name":"amount_minor","type":"long"},{"name":"note","type":"string"},
    {"name":"status","type":{"type":"enum","name":"status","symbols":["open","paid"]}},
    {"name":"properties","type":{"type":"map","values":"string"}}]}"#;

pub fn v2() -> String {
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

pub fn pipeline(text: &str) -> Pipeline {
    pipeline::check("pipeline.yaml", text, Path::new(".")).unwrap()
}

pub fn shape(versions: &[&str]) -> Shape {
    Shape::of(
        &versions
            .iter()
            .map(|text| Schema::parse_str(text).unwrap())
            .collect::<Vec<_>>(),
    )
    .unwrap()
}

pub fn desired(text: &str, versions: &[&str]) -> Desired {
    schema::desired(&pipeline(text), &[shape(versions)]).unwrap()
}

pub fn changed(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| change.what.clone()).collect()
}

/// Orders with these ids, all in one minute, of 10 EUR each; nothing but what `columns` names.
pub async fn insert_orders(client: &Client, shape: &Shape, ids: &[&str], token: &str) -> Inserted {
    insert_orders_at(client, shape, ids, token, 0).await
}

/// The same, at these offsets of partition 0.
pub async fn insert_orders_at(client: &Client, shape: &Shape, ids: &[&str], token: &str, first: i64) -> Inserted {
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
    let offsets: Vec<i64> = (first..first + rows as i64).collect();
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
        &encode(&batch, &identity, &order, &low, pipeline::Compression::None).unwrap(),
        token,
    )
    .await
}

/// Feeds the rollup all rows of these offsets, as a lane does.
pub async fn feed(client: &Client, shape: &Shape, offsets: std::ops::Range<i64>, token: &str) -> Inserted {
    let feeds = schema::feeds(&pipeline(PIPELINE), std::slice::from_ref(shape));
    let ranges = [orders(offsets)];
    let name = format!("{}-{token}", client.database());
    let feeding = Feeding {
        ranges: &ranges,
        lack: Lack::All,
        token: &name,
        query_id: &name,
        deadline_unix_s: deadline(client, 30).await,
        running_max: Duration::from_secs(20),
    };
    client.feed(&feeds[0], feeding).await
}

/// What `insert_orders_at` inserts from the first to before the second.
pub fn orders(offsets: std::ops::Range<i64>) -> Range {
    Range {
        topic: "order.created".to_owned(),
        partition: 0,
        start: offsets.start,
        end: offsets.end,
    }
}
