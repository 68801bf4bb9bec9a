//! How long one event takes from Avro bytes to Arrow columns, on one thread:
//! `cargo run -p workers --example decode_speed`.
//!
//! The schema and the 203-byte events are those of the benchmark against ClickHouse's own Kafka engine.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::Instant;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use pipeline::shape::Shape;
use workers::decode::{Columns, Plan};

const EVENTS: usize = 50_000;
const BATCH: usize = 5_000;

const SCHEMA: &str = r#"{"type":"record","name":"Event","namespace":"x","fields":[
{"name":"event_id","type":{"type":"string"}},
{"name":"tenant_id","type":"string"},
{"name":"type","type":"string"},
{"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
{"name":"user_id","type":["null","string"],"default":null},
{"name":"anonymous_id","type":"string"},
{"name":"session_id","type":"string"},
{"name":"amount_cents","type":["null","long"],"default":null},
{"name":"currency","type":["null","string"],"default":null},
{"name":"context","type":{"type":"record","name":"Ctx","fields":[{"name":"locale","type":["null","string"],"default":null},{"name":"page_url","type":["null","string"],"default":null},{"name":"page_path","type":["null","string"],"default":null},{"name":"screen_w","type":["null","int"],"default":null},{"name":"screen_h","type":["null","int"],"default":null}]}},
{"name":"properties","type":{"type":"map","values":"string"}}
]}"#;

fn event(number: usize) -> Value {
    let text = |text: String| Value::String(text);
    let some = |value: Value| Value::Union(1, Box::new(value));
    let id = |salt: usize| {
        format!(
            "{:08x}-0000-4000-8000-{:012x}",
            number * 2_654_435_761 % (1 << 32),
            number + salt
        )
    };
    let context = Value::Record(vec![
        ("locale".into(), some(text("en-GB".into()))),
        (
            "page_url".into(),
            some(text(format!("https://shop.example/p/{}", number % 100))),
        ),
        ("page_path".into(), some(text(format!("/p/{}", number % 100)))),
        ("screen_w".into(), some(Value::Int(1920))),
        ("screen_h".into(), some(Value::Int(1080))),
    ]);
    Value::Record(vec![
        ("event_id".into(), text(id(1))),
        ("tenant_id".into(), text(format!("tenant-{}", number % 50))),
        ("type".into(), text("order.created".into())),
        (
            "timestamp".into(),
            Value::TimestampMillis(1_795_228_766_362 + number as i64),
        ),
        ("user_id".into(), some(text(format!("u{}", number % 10_000)))),
        ("anonymous_id".into(), text(format!("a{}", number % 20_000))),
        ("session_id".into(), text(id(7))),
        ("amount_cents".into(), some(Value::Long(number as i64))),
        ("currency".into(), some(text("EUR".into()))),
        ("context".into(), context),
        (
            "properties".into(),
            Value::Map(
                [
                    ("ref", format!("https://x.y/{}", number % 1000)),
                    ("plan", "pro".to_owned()),
                ]
                .map(|(key, value)| (key.to_owned(), text(value)))
                .into(),
            ),
        ),
    ])
}

fn main() {
    let schema = Schema::parse_str(SCHEMA).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let payloads: Vec<Vec<u8>> = (0..EVENTS)
        .map(|number| writer.write_value_to_vec(event(number)).unwrap())
        .collect();
    let shape = Shape::of(std::slice::from_ref(&schema)).unwrap();
    let plan = Plan::compile(&schema, &shape).unwrap();
    let mut columns = Columns::new(&shape);
    println!(
        "{} bytes an event",
        payloads.iter().map(Vec::len).sum::<usize>() / EVENTS
    );
    let mut best = f64::MAX;
    for _ in 0..10 {
        let start = Instant::now();
        for batch in payloads.chunks(BATCH) {
            for payload in batch {
                plan.decode(&mut columns, payload).unwrap();
            }
            assert_eq!(columns.finish().unwrap().num_rows(), batch.len());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / EVENTS as f64);
    }
    println!("{best:.0} ns an event, good records");
    let start = Instant::now();
    for payload in &payloads {
        plan.decode(&mut columns, &payload[..payload.len() - 3]).unwrap_err();
    }
    println!(
        "{:.0} ns an event, records cut short",
        start.elapsed().as_nanos() as f64 / EVENTS as f64
    );
}
