//! The verifier has to go red: one lost, one doubled, one altered and one unexpected output of each sink are fed to the
//! same functions that read the real sinks.

mod ledgers;
mod avro;
mod judge;
mod counts;
mod rulebook;
mod clickhouse;
mod report;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;

use crate::kafka::{Range, Record};
use crate::verified::Verified;

/// `order.created` with two partitions, of which offsets 10 to 20 are verified.
fn verified() -> Verified {
    let range = |partition| Range {
        partition,
        start: 10,
        end: 20,
    };
    Verified::new([("order.created".to_owned(), vec![range(0), range(1)])])
}

fn record(fields: &str) -> Schema {
    Schema::parse_str(&format!(
        r#"{{"type":"record","name":"Event","namespace":"x","fields":[{fields}]}}"#
    ))
    .unwrap()
}

fn encode(schema: &Schema, fields: &[(&str, Value)]) -> Vec<u8> {
    let value = Value::Record(
        fields
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect(),
    );
    GenericDatumWriter::builder(schema)
        .build()
        .unwrap()
        .write_value_to_vec(value)
        .unwrap()
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

/// A record of the log, framed with schema id 7.
fn framed(offset: i64, payload: &[u8]) -> Record {
    Record {
        partition: 0,
        offset,
        timestamp_ms: 1_700_000_000_000,
        key: Some(b"k".to_vec()),
        value: Some([&[0, 0, 0, 0, 7], payload].concat()),
        headers: vec![("trace".to_owned(), Some(b"t".to_vec()))],
    }
}
