//! Tests of the decoder. `oracle` says what `apache-avro` makes of the same bytes; `generate` makes schemas and values.

pub(crate) mod oracle;
pub(crate) mod generate;
mod differential;
mod bad_bytes;
mod limits;
mod resolution;
mod json_text;
mod maps;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use pipeline::shape::Shape;

use super::{Columns, Plan};

fn schema(text: &str) -> Schema {
    Schema::parse_str(text).unwrap()
}

/// A record with these fields, given as Avro JSON separated by commas.
fn record(fields: &str) -> Schema {
    schema(&format!(
        r#"{{"type":"record","name":"Event","namespace":"x","fields":[{fields}]}}"#
    ))
}

pub(crate) fn encode(schema: &Schema, value: &Value) -> Vec<u8> {
    GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(value.clone())
        .unwrap()
}

/// A shape of one version, its plan, and no rows.
fn ready(schema: &Schema) -> (Shape, Plan, Columns) {
    let shape = Shape::of(std::slice::from_ref(schema)).unwrap();
    let plan = Plan::compile(schema, &shape).unwrap();
    let columns = Columns::new(&shape);
    (shape, plan, columns)
}

/// An Avro long.
fn long(value: i64) -> Vec<u8> {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

/// An Avro string.
fn text(value: &str) -> Vec<u8> {
    [long(i64::try_from(value.len()).unwrap()), value.as_bytes().to_vec()].concat()
}

/// The five kinds of event that one row of the peer's benchmark can be.
const PEER: &str = r#"{"type":"record","name":"Event","namespace":"x","fields":[
    {"name":"event_id","type":{"type":"string"}},
    {"name":"tenant_id","type":"string"},
    {"name":"type","type":"string"},
    {"name":"timestamp","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"user_id","type":["null","string"],"default":null},
    {"name":"amount_cents","type":["null","long"],"default":null},
    {"name":"context","type":{"type":"record","name":"Ctx","fields":[
        {"name":"locale","type":["null","string"],"default":null},
        {"name":"screen_w","type":["null","int"],"default":null}]}},
    {"name":"campaign","type":["null",{"type":"record","name":"Campaign","fields":[
        {"name":"source","type":"string"},
        {"name":"tags","type":{"type":"array","items":"string"}}]}],"default":null},
    {"name":"properties","type":{"type":"map","values":"string"}}
]}"#;

fn some(branch: u32, value: Value) -> Value {
    Value::Union(branch, Box::new(value))
}

fn peer_event(number: i64) -> Value {
    let string = |text: &str| Value::String(text.to_owned());
    let campaign = Value::Record(vec![
        ("source".to_owned(), string("mail")),
        ("tags".to_owned(), Value::Array(vec![string("a"), string("bé")])),
    ]);
    let context = Value::Record(vec![
        ("locale".to_owned(), some(1, string("en-GB"))),
        ("screen_w".to_owned(), some(0, Value::Null)),
    ]);
    Value::Record(vec![
        ("event_id".to_owned(), string("5e0f4a0e-3a44-4d6a-93f4-2bd0c6a8a5c1")),
        ("tenant_id".to_owned(), string("tenant-1")),
        ("type".to_owned(), string("order.created")),
        (
            "timestamp".to_owned(),
            Value::TimestampMillis(1_795_228_766_362 + number),
        ),
        (
            "user_id".to_owned(),
            if number % 2 == 0 {
                some(1, string("u7"))
            } else {
                some(0, Value::Null)
            },
        ),
        ("amount_cents".to_owned(), some(1, Value::Long(-number))),
        ("context".to_owned(), context),
        (
            "campaign".to_owned(),
            if number % 3 == 0 {
                some(0, Value::Null)
            } else {
                some(1, campaign)
            },
        ),
        (
            "properties".to_owned(),
            Value::Map([("plan".to_owned(), string("pro"))].into()),
        ),
    ])
}
