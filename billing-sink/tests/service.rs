//! The role as its clients see it: over gRPC and HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by a panic"
)]

mod support;

use std::time::Duration;

use billing_sink::{Running, Settings, Store};
use proto::delivery::v1::billing_client::BillingClient;
use proto::delivery::v1::delivery_client::DeliveryClient;
use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{
    Charge, DeliverRequest, GetCursorsRequest, GetUsageRequest, ListChargesRequest, Part, Source, StreamUsageRequest,
    UsageEntry,
};
use serve::Stop;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

use support::{PIPELINE, TOPIC, charge, outcome, part};

struct Service {
    running: Running,
    stop: Stop,
    deliver: DeliveryClient<Channel>,
    billing: BillingClient<Channel>,
    folder: tempfile::TempDir,
}

async fn service(change: impl FnOnce(&mut Settings)) -> Service {
    let folder = tempfile::tempdir().expect("a folder");
    let mut settings = Settings::new(Store::Sqlite(folder.path().join("ledger.db")));
    change(&mut settings);
    let stop = Stop::new();
    let running = billing_sink::serve(settings, stop.clone()).await.expect("begins");
    let url = format!("http://{}", running.addr);
    let deliver = DeliveryClient::connect(url.clone()).await.expect("connects");
    let billing = BillingClient::connect(url).await.expect("connects");
    Service {
        running,
        stop,
        deliver,
        billing,
        folder,
    }
}

async fn cursors(client: &mut DeliveryClient<Channel>, partitions: &[i32]) -> Vec<Option<i64>> {
    let source = |partition: &i32| Source {
        topic: TOPIC.to_owned(),
        partition: *partition,
    };
    let request = GetCursorsRequest {
        pipeline: PIPELINE.to_owned(),
        sources: partitions.iter().map(source).collect(),
    };
    let answer = client.get_cursors(request).await.expect("an answer").into_inner();
    answer.cursors.iter().map(|cursor| cursor.offset).collect()
}

async fn send(client: &mut DeliveryClient<Channel>, parts: Vec<Part>) -> Result<Vec<(Kind, i64)>, Status> {
    let request = DeliverRequest {
        pipeline: PIPELINE.to_owned(),
        parts,
    };
    Ok(support::kinds(&client.deliver(request).await?.into_inner().outcomes))
}

async fn next(stream: &mut Streaming<UsageEntry>) -> Result<(u64, String), Status> {
    let entry = tokio::time::timeout(Duration::from_secs(10), stream.message())
        .await
        .expect("in time")?;
    let entry = entry.expect("an entry");
    Ok((entry.cursor, entry.charge.expect("its charge").id))
}

async fn http(running: &Running, path: &str) -> String {
    let addr = running.http_addr.expect("http");
    let mut stream = tokio::net::TcpStream::connect(addr).await.expect("connects");
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("writes");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("reads");
    answer
}

#[tokio::test]
async fn what_is_delivered_can_be_asked_for() {
    let Service {
        mut deliver,
        mut billing,
        running,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    let charges: Vec<Charge> = (0..3).map(|offset| charge(0, offset, -offset)).collect();
    let request = DeliverRequest {
        pipeline: PIPELINE.to_owned(),
        parts: vec![part(0, 0, 5, 1, charges.clone()), part(1, 5, 6, 1, Vec::new())],
    };
    let outcomes = deliver.deliver(request).await.expect("an answer").into_inner().outcomes;
    let reason = "nothing was ever applied of this partition, and [5, 6) is not said to be its first range";
    assert_eq!(
        outcomes,
        [outcome(Kind::Applied, 5, ""), outcome(Kind::Gap, -1, reason)]
    );

    let window = GetUsageRequest {
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        from_ms: 0,
        to_ms: 1_002,
    };
    let usage = billing.get_usage(window).await.expect("an answer").into_inner();
    assert_eq!(
        (usage.quantity, usage.scale, usage.unit.as_str(), usage.charges),
        (-1, 2, "EUR", 2)
    );

    assert_eq!(cursors(&mut deliver, &[0, 1]).await, [Some(5), None]);
    let (pipeline, topic) = (PIPELINE.to_owned(), TOPIC.to_owned());
    let question = ListChargesRequest {
        pipeline,
        topic,
        partition: 0,
        start: 1,
        end: 9,
    };
    let mut listed = billing.list_charges(question).await.expect("an answer").into_inner();
    let mut list = Vec::new();
    while let Some(charge) = listed.message().await.expect("a charge") {
        list.push(charge);
    }
    assert_eq!(list, charges[1..]);

    let metrics = http(&running, "/metrics").await;
    for line in [
        "sluice_billing_charges_total 3",
        "sluice_billing_parts_total{outcome=\"applied\"} 1",
        "sluice_billing_parts_total{outcome=\"gap\"} 1",
        "sluice_billing_deliver_seconds_count 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in {metrics}");
    }
}

#[tokio::test]
async fn a_list_longer_than_a_page_is_whole() {
    let Service {
        mut deliver,
        mut billing,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    let charges: Vec<Charge> = (0..2_500).map(|offset| charge(0, offset, 1)).collect();
    assert_eq!(
        send(&mut deliver, vec![part(0, 0, 2_500, 1, charges.clone())])
            .await
            .expect("an answer"),
        [(Kind::Applied, 2_500)]
    );
    let (pipeline, topic) = (PIPELINE.to_owned(), TOPIC.to_owned());
    let question = ListChargesRequest {
        pipeline,
        topic,
        partition: 0,
        start: 0,
        end: 2_000,
    };
    let mut listed = billing.list_charges(question).await.expect("an answer").into_inner();
    let mut list = Vec::new();
    while let Some(charge) = listed.message().await.expect("a charge") {
        list.push(charge);
    }
    assert!(list == charges[..2_000]);
}

#[tokio::test]
async fn a_request_that_breaks_the_contract_applies_nothing() {
    let Service {
        mut deliver,
        mut billing,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    let parts = vec![
        part(0, 0, 5, 1, vec![charge(0, 3, 1)]),
        part(1, 0, 5, 1, vec![charge(1, 5, 1)]),
    ];
    let status = send(&mut deliver, parts).await.expect_err("refused");
    let expected = "parts[1]: charges[0]: offset 5 is outside [0, 5)";
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, expected));
    assert_eq!(cursors(&mut deliver, &[0]).await, [None]);
    let backwards = GetUsageRequest {
        from_ms: 2,
        to_ms: 1,
        ..Default::default()
    };
    let status = billing.get_usage(backwards).await.expect_err("refused");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "from_ms 2 is after to_ms 1")
    );
}

#[tokio::test]
async fn a_message_over_the_limit_is_refused_with_the_limit_in_the_reason() {
    let Service {
        mut deliver,
        folder: _folder,
        ..
    } = service(|settings| settings.message_bytes_max = 10_000).await;
    let charges = (0..500).map(|offset| charge(0, offset, 1)).collect();
    let status = send(&mut deliver, vec![part(0, 0, 500, 1, charges)])
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::OutOfRange);
    assert!(
        status.message().ends_with("the limit is: 10000 bytes"),
        "{}",
        status.message()
    );
    // The connection lives on, and what fits is taken.
    let charges = (0..50).map(|offset| charge(0, offset, 1)).collect();
    assert_eq!(
        send(&mut deliver, vec![part(0, 0, 50, 1, charges)])
            .await
            .expect("an answer"),
        [(Kind::Applied, 50)]
    );
}

#[tokio::test]
async fn a_sum_over_64_bits_is_an_error_and_not_a_number() {
    let Service {
        mut deliver,
        mut billing,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    let charges = vec![charge(0, 0, i64::MAX), charge(0, 1, 1), charge(0, 2, -1)];
    send(&mut deliver, vec![part(0, 0, 3, 1, charges)])
        .await
        .expect("an answer");
    let mut window = GetUsageRequest {
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        from_ms: 0,
        to_ms: 1_002,
    };
    let status = billing.get_usage(window.clone()).await.expect_err("too large");
    let expected = "the sum 9223372036854775808 does not fit into 64 bits; ask for a shorter time";
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, expected));
    window.to_ms = 1_003;
    assert_eq!(
        billing.get_usage(window).await.expect("fits").into_inner().quantity,
        i64::MAX
    );
}

#[tokio::test]
async fn a_stream_goes_on_with_new_charges_and_resumes_where_it_was_left() {
    let Service {
        mut deliver,
        mut billing,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    send(
        &mut deliver,
        vec![part(0, 0, 2, 1, vec![charge(0, 0, 1), charge(0, 1, 1)])],
    )
    .await
    .expect("an answer");
    let ask = |cursor, tenant: &str| StreamUsageRequest {
        cursor,
        tenant: tenant.to_owned(),
        meter: String::new(),
    };
    let mut all = billing.stream_usage(ask(0, "")).await.expect("a stream").into_inner();
    let mut of_umbrella = billing
        .stream_usage(ask(0, "umbrella"))
        .await
        .expect("a stream")
        .into_inner();
    let mut resumed = billing.stream_usage(ask(1, "")).await.expect("a stream").into_inner();
    assert_eq!(next(&mut all).await.expect("an entry"), (1, "orders/0/0/0".to_owned()));
    for stream in [&mut all, &mut resumed] {
        assert_eq!(next(stream).await.expect("an entry"), (2, "orders/0/1/0".to_owned()));
    }
    let mut other = charge(0, 3, 1);
    other.tenant = "umbrella".to_owned();
    send(&mut deliver, vec![part(0, 2, 4, 1, vec![charge(0, 2, 1), other])])
        .await
        .expect("an answer");
    for stream in [&mut all, &mut resumed] {
        assert_eq!(next(stream).await.expect("an entry"), (3, "orders/0/2/0".to_owned()));
        assert_eq!(next(stream).await.expect("an entry"), (4, "orders/0/3/0".to_owned()));
    }
    assert_eq!(
        next(&mut of_umbrella).await.expect("an entry"),
        (4, "orders/0/3/0".to_owned())
    );
    let mut last = billing.stream_usage(ask(3, "")).await.expect("a stream").into_inner();
    assert_eq!(next(&mut last).await.expect("an entry"), (4, "orders/0/3/0".to_owned()));
}

#[tokio::test]
async fn a_cursor_that_the_ledger_has_not_reached_is_refused() {
    let Service {
        mut billing,
        folder: _folder,
        ..
    } = service(|_| ()).await;
    let ask = StreamUsageRequest {
        cursor: 1,
        ..Default::default()
    };
    let status = billing.stream_usage(ask).await.expect_err("refused");
    let expected = "cursor 1 is past the newest entry 0: it comes from another ledger, or this one has lost entries";
    assert_eq!((status.code(), status.message()), (Code::OutOfRange, expected));
}

#[tokio::test]
async fn a_stop_ends_streams_with_a_reason_and_keeps_what_was_applied() {
    let Service {
        mut deliver,
        mut billing,
        running,
        stop,
        folder,
    } = service(|_| ()).await;
    assert!(http(&running, "/readyz").await.starts_with("HTTP/1.1 200 OK"));
    send(&mut deliver, vec![part(0, 0, 2, 1, vec![charge(0, 0, 1)])])
        .await
        .expect("an answer");
    let mut stream = billing
        .stream_usage(StreamUsageRequest::default())
        .await
        .expect("a stream")
        .into_inner();
    assert_eq!(
        next(&mut stream).await.expect("an entry"),
        (1, "orders/0/0/0".to_owned())
    );
    stop.request();
    let status = next(&mut stream).await.expect_err("the end");
    let expected = "the service stops; go on with the cursor of the last entry";
    assert_eq!((status.code(), status.message()), (Code::Unavailable, expected));
    // Well below the ten seconds after which calls are cut off: nothing held the stop up.
    tokio::time::timeout(Duration::from_secs(8), running.ended())
        .await
        .expect("ends");

    let settings = Settings::new(Store::Sqlite(folder.path().join("ledger.db")));
    let running = billing_sink::serve(settings, Stop::new()).await.expect("begins again");
    let mut deliver = DeliveryClient::connect(format!("http://{}", running.addr))
        .await
        .expect("connects");
    let again = send(&mut deliver, vec![part(0, 0, 2, 1, vec![charge(0, 0, 1)])])
        .await
        .expect("an answer");
    assert_eq!(again, [(Kind::AlreadyApplied, 2)]);
}

#[tokio::test]
async fn a_store_that_is_locked_makes_delivery_unavailable_and_the_role_not_ready() {
    let Service {
        mut deliver,
        running,
        folder,
        ..
    } = service(|_| ()).await;
    let other = rusqlite::Connection::open(folder.path().join("ledger.db")).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let status = send(&mut deliver, vec![part(0, 0, 2, 1, Vec::new())])
        .await
        .expect_err("no answer");
    let expected = "the ledger's store is not available: database is locked";
    assert_eq!((status.code(), status.message()), (Code::Unavailable, expected));
    wait_for_ready(&running, false).await;
    assert!(http(&running, "/healthz").await.starts_with("HTTP/1.1 200 OK"));
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert_eq!(
        send(&mut deliver, vec![part(0, 0, 2, 1, Vec::new())])
            .await
            .expect("an answer"),
        [(Kind::Applied, 2)]
    );
    wait_for_ready(&running, true).await;
}

async fn wait_for_ready(running: &Running, ready: bool) {
    let expected = if ready {
        "HTTP/1.1 200 OK"
    } else {
        "HTTP/1.1 503 Service Unavailable"
    };
    let waiting = async { while !http(running, "/readyz").await.starts_with(expected) {} };
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("in time");
}
