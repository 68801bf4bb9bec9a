//! Inserts whose outcome nobody can know at once, each with what is found later.

use std::sync::Arc;
use std::time::Duration;

use clickhouse_sink::{Block, Client, Insert, Inserted};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::proxy::{Spoil, before};
use crate::server::{ask, database, deadline, events, events_table, insert, insert_until, settings, url};

fn is_doubt(inserted: &Inserted) -> bool {
    matches!(inserted, Inserted::Doubt { .. })
}

async fn until<F: Future<Output = bool>>(mut condition: impl FnMut() -> F) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        // The server tells nobody when a query has ended: it is asked again.
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    waited.await.expect("within 30 s");
}

async fn ended(client: &Client) {
    until(|| async { !client.running(client.database()).await.unwrap() }).await;
}

/// A client of the same database through a proxy.
async fn spoiled(client: &Client, spoil: Spoil) -> Client {
    Client::new(&settings(client.database()), &before(url(), spoil).await).unwrap()
}

/// Scenario: the connection breaks in the middle of the body.
/// Guarantees: doubt, and the part that arrived leaves no row.
#[tokio::test]
async fn a_request_cut_in_the_middle_is_doubt_and_leaves_no_row() {
    let client = database("cut").await;
    events_table(&client).await;
    let block = events(0..30_000);
    let middle = block.bytes.len() / 2;
    let inserted = insert_until(
        &spoiled(&client, Spoil::CutRequestAfter(middle)).await,
        "events",
        &block,
        "a",
        deadline(&client, 30).await,
    )
    .await;
    assert!(is_doubt(&inserted), "{inserted:?}");
    ended(&client).await;
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "0");
}

/// Scenario: the server inserts, and its answer is lost.
/// Guarantees: doubt, although all rows are there.
#[tokio::test]
async fn a_lost_answer_is_doubt_and_the_rows_are_there() {
    let client = database("lost").await;
    events_table(&client).await;
    let inserted = insert_until(
        &spoiled(&client, Spoil::DropAnswer).await,
        "events",
        &events(0..7),
        "a",
        deadline(&client, 30).await,
    )
    .await;
    assert!(is_doubt(&inserted), "{inserted:?}");
    ended(&client).await;
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "7");
}

/// Scenario: the insert starts in time, its body stalls on the way and arrives after the deadline.
/// Guarantees: while it stalls, `running` sees it; then the server refuses, and no row is there. (`now()` in the guard
/// would let it in: it is the time of the query's start.)
#[tokio::test]
async fn a_body_that_arrives_after_the_deadline_is_refused_although_its_query_started_before() {
    let client = database("stall").await;
    events_table(&client).await;
    let (go_on, block) = (Arc::new(Notify::new()), events(0..30_000));
    let stalling = spoiled(
        &client,
        Spoil::StallRequestAfter(block.bytes.len() - 1000, go_on.clone()),
    )
    .await;
    let deadline_unix_s = deadline(&client, 2).await;
    let inserting = insert_until(&stalling, "events", &block, "a", deadline_unix_s);
    let observing = async {
        until(|| async { client.running(client.database()).await.unwrap() }).await;
        until(|| async { client.now_ms().await.unwrap() >= deadline_unix_s * 1000 }).await;
        assert!(client.running(client.database()).await.unwrap());
        assert!(!client.running("sluice_test_nothing").await.unwrap());
        go_on.notify_one();
    };
    let (inserted, ()) = tokio::join!(inserting, observing);
    assert_eq!(inserted, Inserted::Refused("sluice: insert deadline passed".to_owned()));
    ended(&client).await;
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "0");
}

/// Scenario: a view fails after its table was written, with the very code of our guard.
/// Guarantees: doubt, because rows are there.
#[tokio::test]
async fn a_view_that_fails_is_doubt_because_its_table_is_written() {
    let client = database("view").await;
    events_table(&client).await;
    client
        .query_text("CREATE TABLE seen (seen UInt8) ENGINE = MergeTree ORDER BY seen")
        .await
        .unwrap();
    let view = "CREATE MATERIALIZED VIEW feed TO seen AS SELECT throwIf(amount >= 0, 'boom') AS seen FROM events";
    client.query_text(view).await.unwrap();
    let inserted = insert(&client, "events", &events(0..4), "a").await;
    assert!(is_doubt(&inserted), "{inserted:?}");
    assert_eq!(ask(&client, "SELECT count() FROM events").await, "4");
}

/// Scenario: an insert may run for one second, and its view takes three.
/// Guarantees: doubt, because the table may be written.
#[tokio::test]
async fn an_insert_that_takes_too_long_is_doubt() {
    let client = database("slow").await;
    events_table(&client).await;
    client
        .query_text("CREATE TABLE seen (seen UInt8) ENGINE = MergeTree ORDER BY seen")
        .await
        .unwrap();
    let view = "CREATE MATERIALIZED VIEW feed TO seen AS SELECT sleepEachRow(1) AS seen FROM events";
    client.query_text(view).await.unwrap();
    let block = events(0..3).until(deadline(&client, 30).await).unwrap();
    let insert = Insert {
        table: "events",
        block: &block,
        token: "a",
        query_id: "sluice_test_slow-1",
        running_max: Duration::from_millis(900),
    };
    let inserted = client.insert(insert).await;
    assert!(
        matches!(&inserted, Inserted::Doubt { reason, .. } if reason.contains("TIMEOUT_EXCEEDED")),
        "{inserted:?}"
    );
    ended(&client).await;
}

/// Answers every request with these bytes.
async fn answering(answer: &'static str) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 1_000_000];
            let mut read = 0;
            // The whole small request: its head says how long its body is.
            while !whole(&request[..read]) {
                read += stream.read(&mut request[read..]).await.unwrap();
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    Client::new(&settings("any"), &url).unwrap()
}

fn whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some(head) = text.split("\r\n\r\n").next().filter(|head| head.len() < text.len()) else {
        return false;
    };
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length: ")?
            .parse::<usize>()
            .ok()
    });
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

async fn insert_there(client: &Client) -> Inserted {
    let block: Block = events(0..2);
    let insert = Insert {
        table: "events",
        block: &block.until(i64::from(u32::MAX)).unwrap(),
        token: "a",
        query_id: "q-1",
        running_max: Duration::from_secs(5),
    };
    client.insert(insert).await
}

#[tokio::test]
async fn an_exception_header_with_status_200_is_doubt() {
    let client = answering(
        "HTTP/1.1 200 OK\r\nX-ClickHouse-Query-Id: q-1\r\nX-ClickHouse-Exception-Code: 241\r\nContent-Length: 0\r\n\r\n",
    )
    .await;
    let inserted = insert_there(&client).await;
    assert!(is_doubt(&inserted), "{inserted:?}");
}

#[tokio::test]
async fn an_empty_200_is_clean_only_if_clickhouse_gives_it() {
    let theirs = answering("HTTP/1.1 200 OK\r\nX-ClickHouse-Query-Id: q-1\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(insert_there(&theirs).await, Inserted::Clean);
    let proxys = answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    assert!(is_doubt(&insert_there(&proxys).await));
}

#[tokio::test]
async fn an_answer_that_ends_before_its_length_is_doubt() {
    let client = answering("HTTP/1.1 200 OK\r\nX-ClickHouse-Query-Id: q-1\r\nContent-Length: 10\r\n\r\nCode").await;
    assert!(is_doubt(&insert_there(&client).await));
    assert!(is_doubt(
        &insert_there(&answering("HTTP/1.1 200 OK\r\nX-Click").await).await
    ));
}
