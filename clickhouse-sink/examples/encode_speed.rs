//! How long one core takes to sort, hash and write a row: `cargo run -p clickhouse-sink --example encode_speed`.
//! Sixteen columns as an analytics event has them, 50,000 rows.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Instant;

use arrow::array::{
    ArrayRef, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder, TimestampMillisecondArray,
};
use clickhouse_sink::{Identity, encode, row_hashes, sort_order};

const ROWS: usize = 50_000;

fn texts(text: impl Fn(usize) -> String) -> ArrayRef {
    Arc::new(StringArray::from((0..ROWS).map(text).collect::<Vec<_>>()))
}

fn sparse(text: impl Fn(usize) -> Option<String>) -> ArrayRef {
    Arc::new(StringArray::from((0..ROWS).map(text).collect::<Vec<_>>()))
}

fn batch() -> RecordBatch {
    let mixed = |row: usize| row.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut properties = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in 0..ROWS {
        for key in ["plan", "variant", "ref"] {
            properties.keys().append_value(key);
            properties.values().append_value(format!("v{}", mixed(row) % 100));
        }
        properties.append(true).unwrap();
    }
    let times = (0..ROWS)
        .map(|row| 1_795_240_800_000 + (mixed(row) % 60_000) as i64)
        .collect::<Vec<_>>();
    RecordBatch::try_from_iter_with_nullable([
        (
            "event_id",
            texts(|row| format!("{:016x}-{:016x}", mixed(row), row)),
            false,
        ),
        ("tenant_id", texts(|row| format!("tenant-{}", mixed(row) % 50)), false),
        ("type", texts(|_| "user.pageview".to_owned()), false),
        (
            "occurred_at",
            Arc::new(TimestampMillisecondArray::from(times).with_timezone("UTC")) as ArrayRef,
            false,
        ),
        (
            "user_id",
            sparse(|row| (row % 3 == 0).then(|| format!("user-{}", mixed(row) % 10_000))),
            true,
        ),
        ("session_id", texts(|row| format!("{:016x}", mixed(row / 20))), false),
        (
            "app_name",
            sparse(|row| (row % 2 == 0).then(|| "shop".to_owned())),
            true,
        ),
        (
            "browser_name",
            texts(|row| ["Firefox", "Chrome", "Safari"][row % 3].to_owned()),
            false,
        ),
        (
            "device_type",
            texts(|row| ["mobile", "desktop"][row % 2].to_owned()),
            false,
        ),
        (
            "os_name",
            texts(|row| ["Android", "iOS", "Linux"][row % 3].to_owned()),
            false,
        ),
        ("locale", texts(|row| ["de-DE", "en-US"][row % 2].to_owned()), false),
        (
            "page_url",
            texts(|row| format!("https://shop.example/products/{}", mixed(row) % 5_000)),
            false,
        ),
        ("campaign_source", sparse(|_| None), true),
        (
            "duration_ms",
            Arc::new(Int64Array::from_iter((0..ROWS).map(|row| Some(row as i64)))) as ArrayRef,
            false,
        ),
        (
            "amount",
            Arc::new(Int64Array::from_iter((0..ROWS).map(|row| (row % 4 == 0).then_some(7)))) as ArrayRef,
            true,
        ),
        ("properties", Arc::new(properties.finish()) as ArrayRef, false),
    ])
    .unwrap()
}

fn main() {
    let batch = batch();
    let offsets: Vec<i64> = (0..ROWS as i64).collect();
    let low = [
        "tenant_id",
        "type",
        "app_name",
        "browser_name",
        "device_type",
        "os_name",
        "locale",
    ];
    for _ in 0..5 {
        let start = Instant::now();
        let hashes = row_hashes(&batch).unwrap();
        let hashed = start.elapsed();
        let order = sort_order(&batch, &["tenant_id", "type", "occurred_at"]).unwrap();
        let sorted = start.elapsed();
        let identity = Identity {
            topic: "user.pageview",
            partition: &vec![0; ROWS],
            offset: &offsets,
            index: &vec![0; ROWS],
            row_hash: &hashes,
        };
        let block = encode(&batch, &identity, &order, &low, pipeline::Compression::Lz4).unwrap();
        let written = start.elapsed();
        let per_row = |nanoseconds: u128| nanoseconds as f64 / ROWS as f64 / 1000.0;
        println!(
            "us/row: hash {:.3}, sort {:.3}, write and compress {:.3}; {} bytes/row",
            per_row(hashed.as_nanos()),
            per_row((sorted - hashed).as_nanos()),
            per_row((written - sorted).as_nanos()),
            block.bytes.len() / ROWS
        );
    }
}
