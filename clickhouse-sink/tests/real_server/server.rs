//! The server, and a database of its own for each test.

use std::sync::{Arc, OnceLock, mpsc};
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use clickhouse_sink::{Block, Client, Identity, Insert, Inserted, encode, row_hashes};

/// The server's address.
pub fn url() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| std::env::var("SLUICE_TEST_CLICKHOUSE").unwrap_or_else(|_| start()))
}

/// The stack lives in a thread with a runtime of its own, because every test has another; it ends with this process.
fn start() -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            // Used again by the next run: each test empties its own database.
            let dir = concat!(env!("CARGO_TARGET_TMPDIR"), "/clickhouse-sink");
            let mut options = devstack::Options::for_tests(dir);
            options.parts = vec![devstack::Part::ClickHouse];
            let stack = devstack::up(options)
                .await
                .expect("ClickHouse starts (`cargo build -p devstack` makes its launcher)");
            sender.send(stack.clickhouse.clone()).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().expect("the local stack starts ClickHouse")
}

pub fn settings(database: &str) -> pipeline::ClickHouse {
    pipeline::ClickHouse {
        url: None,
        database: database.to_owned(),
        user: "default".to_owned(),
        password: None,
        tls: None,
        compression: None,
    }
}

/// A client of the database `sluice_test_{name}`, which is empty.
pub async fn database(name: &str) -> Client {
    let database = format!("sluice_test_{name}");
    let client = Client::new(&settings(&database), url()).unwrap();
    let anywhere = Client::new(&settings("default"), url()).unwrap();
    anywhere
        .query_text(&format!("DROP DATABASE IF EXISTS {database} SYNC"))
        .await
        .unwrap();
    anywhere
        .query_text(&format!("CREATE DATABASE {database}"))
        .await
        .unwrap();
    client
}

/// The identity columns, for tables that tests make by hand.
pub const IDENTITY: &str = "_topic LowCardinality(String), _partition Int32, _offset Int64, _index UInt16, \
     _row_hash UInt64, _deadline DateTime('UTC') EPHEMERAL, _inserted_at DateTime64(3, 'UTC') \
     DEFAULT now64(3) + toIntervalSecond(throwIf(nowInBlock('UTC') >= _deadline, 'sluice: insert deadline passed')), \
     INDEX _position (_partition, _offset) TYPE minmax GRANULARITY 1";

/// A table for [`events`].
pub async fn events_table(client: &Client) {
    let sql = format!(
        "CREATE TABLE events (tenant LowCardinality(String), at DateTime64(3, 'UTC'), amount Nullable(Int64), {IDENTITY}) \
         ENGINE = MergeTree PARTITION BY toYYYYMMDD(at) ORDER BY (tenant, at) SETTINGS non_replicated_deduplication_window = 1000"
    );
    client.query_text(&sql).await.unwrap();
}

/// Rows of topic `t`, partition 3, with these offsets: the tenant is `acme`, the amount the offset, the time the first
/// day of 2026 and as many days later as the offset says.
pub fn events(offsets: std::ops::Range<i64>) -> Block {
    let offsets: Vec<i64> = offsets.collect();
    let days: Vec<i64> = offsets
        .iter()
        .map(|offset| 1_767_225_600_000 + offset % 500 * 86_400_000)
        .collect();
    let batch = RecordBatch::try_from_iter_with_nullable([
        (
            "tenant",
            Arc::new(StringArray::from(vec!["acme"; offsets.len()])) as ArrayRef,
            false,
        ),
        (
            "at",
            Arc::new(TimestampMillisecondArray::from(days).with_timezone("UTC")) as ArrayRef,
            false,
        ),
        ("amount", Arc::new(Int64Array::from(offsets.clone())) as ArrayRef, true),
    ])
    .unwrap();
    block(&batch, "t", 3, &offsets, &["tenant"])
}

pub fn block(batch: &RecordBatch, topic: &str, partition: i32, offsets: &[i64], low_cardinality: &[&str]) -> Block {
    let rows = batch.num_rows();
    let identity = Identity {
        topic,
        partition: &vec![partition; rows],
        offset: offsets,
        index: &vec![0; rows],
        row_hash: &row_hashes(batch).unwrap(),
    };
    let order: Vec<usize> = (0..rows).collect();
    encode(batch, &identity, &order, low_cardinality, pipeline::Compression::Lz4).unwrap()
}

pub async fn deadline(client: &Client, seconds_from_now: i64) -> i64 {
    client.now_ms().await.unwrap() / 1000 + seconds_from_now
}

/// Inserts into `table` of the database, half a minute before the deadline.
pub async fn insert(client: &Client, table: &str, block: &Block, token: &str) -> Inserted {
    let deadline_unix_s = deadline(client, 30).await;
    insert_until(client, table, block, token, deadline_unix_s).await
}

pub async fn insert_until(client: &Client, table: &str, block: &Block, token: &str, deadline_unix_s: i64) -> Inserted {
    let query_id = &format!("{}-{token}-{}", client.database(), unique());
    let running_max = Duration::from_secs(20);
    client
        .insert(Insert {
            table,
            block: &block.clone().until(deadline_unix_s).unwrap(),
            token,
            query_id,
            running_max,
        })
        .await
}

fn unique() -> u128 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos()
}

pub async fn ask(client: &Client, sql: &str) -> String {
    client.query_text(sql).await.unwrap().trim().to_owned()
}
