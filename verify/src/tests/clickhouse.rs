//! Tables as ClickHouse sends them, from a server that sends what the test says.

use pipeline::Pipeline;
use pipeline::shape::Shape;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::{record, verified};
use crate::cell::{Cell, Fingerprint, Fingerprinter};
use crate::clickhouse::ClickHouse;
use crate::error::Error;
use crate::ledger::{Ledger, Place};
use crate::report::SinkReport;
use crate::row_binary::{Bytes, Type};

const PIPELINE: &str = "\
pipeline: shop
start: earliest
event: {id: id, tenant: tenant, time: at}
sources:
  - {topic: order.created, table: orders}
";

fn pipeline() -> Pipeline {
    pipeline::check("p.yaml", PIPELINE, std::path::Path::new("/")).unwrap()
}

/// Answers one request with this, in pieces of `piece` bytes; gives back what was asked.
async fn server(head: &str, body: Vec<u8>, piece: usize) -> (String, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let head = format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !String::from_utf8_lossy(&asked).contains("FROM") {
            let mut some = [0; 4096];
            let read = stream.read(&mut some).await.unwrap();
            asked.extend_from_slice(&some[..read]);
        }
        stream.write_all(head.as_bytes()).await.unwrap();
        for piece in body.chunks(piece) {
            stream.write_all(piece).await.unwrap();
            stream.flush().await.unwrap();
        }
        String::from_utf8_lossy(&asked).into_owned()
    });
    (url, served)
}

fn shape() -> Shape {
    Shape::of(&[record(
        r#"{"name":"id","type":"string"},{"name":"amount","type":["null","long"]},
           {"name":"tags","type":["null",{"type":"array","items":"string"}]},{"name":"m","type":{"type":"map","values":"double"}}"#,
    )])
    .unwrap()
}

fn string(text: &str) -> Vec<u8> {
    [&[text.len() as u8], text.as_bytes()].concat()
}

fn header() -> Vec<u8> {
    let names = ["_topic", "_partition", "_offset", "_index", "id", "amount", "tags", "m"];
    let types = [
        "LowCardinality(String)",
        "Int32",
        "Int64",
        "UInt16",
        "String",
        "Nullable(Int64)",
        "Array(String)",
        "Map(LowCardinality(String), Float64)",
    ];
    [vec![8], names.into_iter().chain(types).flat_map(string).collect()].concat()
}

fn row(topic: &str, offset: i64, index: u16, amount: Option<i64>) -> Vec<u8> {
    let amount = amount.map_or(vec![1], |amount| [&[0], &amount.to_le_bytes()[..]].concat());
    let map = [vec![1], string("k"), 0.5f64.to_le_bytes().to_vec()].concat();
    let identity = [
        string(topic),
        1i32.to_le_bytes().to_vec(),
        offset.to_le_bytes().to_vec(),
        index.to_le_bytes().to_vec(),
    ];
    [identity.concat(), string("event"), amount, vec![0], map].concat()
}

fn ledger() -> Ledger<Fingerprint> {
    let mut ledger = Ledger::new("table orders", 20);
    for (offset, index, amount) in [(10, 0, Cell::Int(7)), (11, 0, Cell::Null), (12, 1, Cell::Int(9))] {
        let mut fingerprint = Fingerprinter::new(4);
        let map = Cell::Map(vec![(b"k".to_vec(), Cell::Float64(0.5))]);
        for cell in [Cell::text("event"), amount, Cell::List(Vec::new()), map] {
            fingerprint.add(&cell);
        }
        ledger.expect(
            Place {
                source: 0,
                partition: 1,
                offset,
                index,
            },
            fingerprint.finish(),
        );
    }
    ledger
}

async fn compare(rows: &[Vec<u8>]) -> (SinkReport, Vec<String>) {
    let body = [header(), rows.concat()].concat();
    let (url, served) = server("200 OK", body, 7).await;
    let clickhouse = ClickHouse::connect(&pipeline(), &url).unwrap();
    let mut ledger = ledger();
    let place = |topic: &str, partition, offset| verified().place(topic, partition, offset);
    clickhouse
        .table(("orders", None), &shape(), &mut ledger, place)
        .await
        .unwrap();
    let asked = served.await.unwrap();
    assert!(
        asked.contains("SELECT _topic, _partition, _offset, _index, `id`, `amount`, `tags`, `m` FROM `"),
        "{asked}"
    );
    let (report, examples) = ledger.finish();
    (
        report,
        examples
            .into_iter()
            .map(|example| format!("{} {}", example.kind.word(), example.detail))
            .collect(),
    )
}

#[tokio::test]
async fn rows_go_red() {
    let fine = |offset, index, amount| row("order.created", offset, index, amount);
    let all = [fine(10, 0, Some(7)), fine(11, 0, None), fine(12, 1, Some(9))];
    let (green, examples) = compare(&all).await;
    assert_eq!((green.expected, green.found, examples), (3, 3, Vec::new()));

    let (lost, _) = compare(&all[..2]).await;
    assert_eq!(
        (lost.lost, lost.duplicated, lost.altered, lost.unexpected),
        (1, 0, 0, 0)
    );
    let (doubled, _) = compare(&[&all[..], &all[1..2]].concat()).await;
    assert_eq!(
        (doubled.lost, doubled.duplicated, doubled.altered, doubled.unexpected),
        (0, 1, 0, 0)
    );
    let (altered, examples) = compare(&[all[0].clone(), fine(11, 0, Some(0)), all[2].clone()]).await;
    assert_eq!(
        (altered.lost, altered.duplicated, altered.altered, altered.unexpected),
        (0, 0, 1, 0)
    );
    assert_eq!(examples, ["altered probably amount"]);
    // Another index, another offset, another topic; and outside of the range, which nobody looks at.
    let strangers = [
        fine(12, 0, Some(9)),
        fine(13, 0, None),
        row("else", 10, 0, None),
        fine(20, 0, None),
        fine(9, 0, None),
    ];
    let (unexpected, _) = compare(&[&all[..], &strangers[..]].concat()).await;
    assert_eq!(
        (
            unexpected.lost,
            unexpected.duplicated,
            unexpected.altered,
            unexpected.unexpected
        ),
        (0, 0, 0, 3)
    );
}

#[tokio::test]
async fn an_answer_that_fails_or_ends_early_is_an_error_and_no_verdict() {
    let all = [header(), row("order.created", 10, 0, None)].concat();
    let cases = [
        (
            "500 Internal Server Error",
            b"Code: 60. DB::Exception: no such table".to_vec(),
            "Code: 60",
        ),
        ("200 OK\r\nX-ClickHouse-Exception-Code: 241", all.clone(), ""),
        ("200 OK", all[..all.len() - 1].to_vec(), "middle of a row"),
        ("200 OK", header()[..20].to_vec(), "middle of a row"),
        ("200 OK", Vec::new(), "middle of a row"),
    ];
    for (head, body, expected) in cases {
        let (url, _served) = server(head, body, 1000).await;
        let clickhouse = ClickHouse::connect(&pipeline(), &url).unwrap();
        let place = |topic: &str, partition, offset| verified().place(topic, partition, offset);
        let error = clickhouse
            .table(("orders", None), &shape(), &mut ledger(), place)
            .await
            .unwrap_err();
        assert!(
            matches!(&error, Error::ClickHouse { reason, .. } if reason.contains(expected)),
            "{head}: {error}"
        );
    }
}

#[test]
fn types_are_read_as_clickhouse_spells_them() {
    let types = [
        (
            "Nullable(DateTime64(3, 'UTC'))",
            Type::Nullable(Box::new(Type::Int(8, true))),
        ),
        (
            "LowCardinality(Nullable(String))",
            Type::Nullable(Box::new(Type::String)),
        ),
        ("Decimal(38, 2)", Type::Decimal(16)),
        ("Decimal(9, 0)", Type::Decimal(4)),
        ("DateTime('UTC')", Type::Int(4, false)),
        (
            "Map(LowCardinality(String), Array(Map(String, Nullable(Date32))))",
            Type::Map(
                Box::new(Type::String),
                Box::new(Type::Array(Box::new(Type::Map(
                    Box::new(Type::String),
                    Box::new(Type::Nullable(Box::new(Type::Int(4, true)))),
                )))),
            ),
        ),
    ];
    for (spelling, expected) in types {
        assert_eq!(Type::parse(spelling), Some(expected), "{spelling}");
    }
    for spelling in [
        "Decimal(76, 2)",
        "Tuple(String)",
        "Map(String)",
        "Array(String",
        "AggregateFunction(count)",
    ] {
        assert_eq!(Type::parse(spelling), None, "{spelling}");
    }
}

#[test]
fn numbers_are_read_with_their_sign_and_width() {
    let cell = |kind, bytes: &[u8]| Bytes::new(bytes).cell(&kind);
    assert_eq!(cell(Type::Int(4, true), &[0xfe, 0xff, 0xff, 0xff]), Some(Cell::Int(-2)));
    assert_eq!(cell(Type::Int(2, false), &[0xfe, 0xff]), Some(Cell::Int(65_534)));
    assert_eq!(
        cell(Type::Decimal(16), &(-5i128).to_le_bytes()),
        Some(Cell::Decimal(-5))
    );
    assert_eq!(cell(Type::Int(8, true), &[0; 7]), None);
}
