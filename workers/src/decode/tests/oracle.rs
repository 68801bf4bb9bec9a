//! What a payload should become, by `apache-avro`'s own decoding; and what an Arrow batch says, cell by cell.

use std::collections::BTreeMap;
use std::io::Read;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use pipeline::shape::{Kind, Shape};

/// One value, comparable: floats by their bits, maps by their keys, JSON as parsed.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i128),
    Float(u64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    Map(BTreeMap<String, Cell>),
    Json(serde_json::Value),
}

/// `apache-avro` answers a payload that ends inside a string, a boolean or a union with null; this reader tells.
struct Ending<'a> {
    rest: &'a [u8],
    starved: bool,
}

impl Read for Ending<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let read = self.rest.read(into)?;
        self.starved |= read < into.len();
        Ok(read)
    }
}

/// The value, when the payload is exactly one.
pub fn decode(schema: &Schema, payload: &[u8]) -> Option<Value> {
    let mut ending = Ending {
        rest: payload,
        starved: false,
    };
    let value = GenericDatumReader::builder(schema)
        .build()
        .unwrap()
        .read_value(&mut ending)
        .ok()?;
    (!ending.starved && ending.rest.is_empty()).then_some(value)
}

/// The row that the value should become.
pub fn row(shape: &Shape, value: &Value) -> Vec<Cell> {
    let names = |path: &str| path.split('.').map(str::to_owned).collect::<Vec<_>>();
    shape
        .columns
        .iter()
        .map(|column| cell(&column.kind, find(value, &names(&column.path))))
        .collect()
}

fn find<'v>(value: &'v Value, names: &[String]) -> &'v Value {
    match (value, names) {
        (value, []) => value,
        (Value::Union(_, inner), names) => find(inner, names),
        (Value::Record(fields), [name, rest @ ..]) => {
            find(&fields.iter().find(|(field, _)| field == name).unwrap().1, rest)
        }
        _ => &Value::Null,
    }
}

fn cell(kind: &Kind, value: &Value) -> Cell {
    match (kind, value) {
        (_, Value::Null) => Cell::Null,
        (kind, Value::Union(_, inner)) => cell(kind, inner),
        (Kind::Json, value) => Cell::Json(json(value)),
        (Kind::Float64, Value::Float(value)) => Cell::Float(f64::from(*value).to_bits()),
        (Kind::Float64, Value::Long(value)) => Cell::Float((*value as f64).to_bits()),
        (Kind::Float64, Value::Int(value)) => Cell::Float(f64::from(*value).to_bits()),
        (Kind::Bytes, Value::String(text)) => Cell::Bytes(text.clone().into_bytes()),
        (Kind::String, Value::Bytes(bytes)) => Cell::Text(String::from_utf8(bytes.clone()).unwrap()),
        (_, Value::Boolean(value)) => Cell::Bool(*value),
        (_, Value::Int(value) | Value::Date(value) | Value::TimeMillis(value)) => Cell::Int(i128::from(*value)),
        (_, Value::Float(value)) => Cell::Float(u64::from(value.to_bits())),
        (_, Value::Double(value)) => Cell::Float(value.to_bits()),
        (_, Value::String(text) | Value::Enum(_, text)) => Cell::Text(text.clone()),
        (_, Value::Uuid(uuid)) => Cell::Text(uuid.to_string()),
        (_, Value::Bytes(bytes) | Value::Fixed(_, bytes)) => Cell::Bytes(bytes.clone()),
        (_, Value::Duration(duration)) => Cell::Bytes(<[u8; 12]>::from(*duration).to_vec()),
        (_, Value::Decimal(decimal)) => Cell::Int(unscaled(decimal)),
        (Kind::List(element), Value::Array(items)) => {
            Cell::List(items.iter().map(|item| cell(&element.kind, item)).collect())
        }
        (Kind::Map(element), Value::Map(entries)) => Cell::Map(
            entries
                .iter()
                .map(|(key, value)| (key.clone(), cell(&element.kind, value)))
                .collect(),
        ),
        (_, value) => Cell::Int(i128::from(
            integer(value).unwrap_or_else(|| panic!("{kind:?} from {value:?}")),
        )),
    }
}

fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Long(value)
        | Value::TimeMicros(value)
        | Value::TimestampMillis(value)
        | Value::TimestampMicros(value)
        | Value::TimestampNanos(value)
        | Value::LocalTimestampMillis(value)
        | Value::LocalTimestampMicros(value)
        | Value::LocalTimestampNanos(value) => Some(*value),
        _ => None,
    }
}

fn unscaled(decimal: &apache_avro::Decimal) -> i128 {
    // It has no bytes to give for a decimal of no bytes, which is zero.
    let bytes = <Vec<u8>>::try_from(decimal).unwrap_or_default();
    let negative = bytes.first().is_some_and(|byte| *byte > 0x7f);
    bytes.iter().fold(if negative { -1 } else { 0 }, |value, byte| {
        (value << 8) | i128::from(*byte)
    })
}

fn json(value: &Value) -> serde_json::Value {
    use serde_json::json;
    let hex = |bytes: &[u8]| json!(bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    match value {
        Value::Null => json!(null),
        Value::Union(_, inner) => self::json(inner),
        Value::Boolean(value) => json!(value),
        Value::Int(value) | Value::Date(value) | Value::TimeMillis(value) => json!(value),
        Value::Float(value) if !value.is_finite() => json!(nameless(f64::from(*value))),
        Value::Float(value) => serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap(),
        Value::Double(value) if !value.is_finite() => json!(nameless(*value)),
        // Parsed again, as the other side is: serde_json may read a double's last digit differently.
        Value::Double(value) => serde_json::from_str(&serde_json::to_string(value).unwrap()).unwrap(),
        Value::String(text) | Value::Enum(_, text) => json!(text),
        Value::Uuid(uuid) => json!(uuid.to_string()),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => hex(bytes),
        Value::Duration(duration) => hex(&<[u8; 12]>::from(*duration)),
        // All generated decimals have three digits behind the point.
        Value::Decimal(decimal) => {
            let unscaled = unscaled(decimal);
            let digits = format!("{:04}", unscaled.unsigned_abs());
            let (whole, behind) = digits.split_at(digits.len() - 3);
            json!(format!("{}{whole}.{behind}", if unscaled < 0 { "-" } else { "" }))
        }
        Value::Array(items) => items.iter().map(self::json).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| (key.clone(), self::json(value)))
            .collect(),
        Value::Record(fields) => fields
            .iter()
            .map(|(name, value)| (name.clone(), self::json(value)))
            .collect(),
        value => json!(integer(value).unwrap_or_else(|| panic!("JSON of {value:?}"))),
    }
}

fn nameless(value: f64) -> &'static str {
    if value.is_nan() {
        "NaN"
    } else if value > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    }
}

/// One row of a batch.
pub fn batch_row(shape: &Shape, batch: &RecordBatch, row: usize) -> Vec<Cell> {
    let columns = shape.columns.iter().zip(batch.columns());
    columns
        .map(|(column, array)| array_cell(&column.kind, array.as_ref(), row))
        .collect()
}

fn array_cell(kind: &Kind, array: &dyn Array, row: usize) -> Cell {
    if array.is_null(row) {
        return Cell::Null;
    }
    match (array.data_type(), kind) {
        (DataType::Boolean, _) => Cell::Bool(array.as_boolean().value(row)),
        (DataType::Int32, _) => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        (DataType::Date32, _) => Cell::Int(array.as_primitive::<Date32Type>().value(row).into()),
        (DataType::Int64, _) => Cell::Int(array.as_primitive::<Int64Type>().value(row).into()),
        (DataType::Timestamp(TimeUnit::Millisecond, _), _) => {
            Cell::Int(array.as_primitive::<TimestampMillisecondType>().value(row).into())
        }
        (DataType::Timestamp(..), _) => Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row).into()),
        (DataType::Decimal128(..), _) => Cell::Int(array.as_primitive::<Decimal128Type>().value(row)),
        (DataType::Float32, _) => Cell::Float(array.as_primitive::<Float32Type>().value(row).to_bits().into()),
        (DataType::Float64, _) => Cell::Float(array.as_primitive::<Float64Type>().value(row).to_bits()),
        (DataType::Utf8, Kind::Json) => Cell::Json(serde_json::from_str(array.as_string::<i32>().value(row)).unwrap()),
        (DataType::Utf8, _) => Cell::Text(array.as_string::<i32>().value(row).to_owned()),
        (DataType::Binary, _) => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        (DataType::List(_), Kind::List(element)) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List(
                (0..items.len())
                    .map(|index| array_cell(&element.kind, items.as_ref(), index))
                    .collect(),
            )
        }
        (DataType::Map(..), Kind::Map(element)) => {
            let entries = array.as_map().value(row);
            let keys = entries.column(0).as_string::<i32>();
            let value = |index| array_cell(&element.kind, entries.column(1).as_ref(), index);
            let map: BTreeMap<_, _> = (0..entries.len())
                .map(|at| (keys.value(at).to_owned(), value(at)))
                .collect();
            assert_eq!(map.len(), entries.len(), "a key came twice");
            Cell::Map(map)
        }
        (data_type, kind) => panic!("{data_type} for {kind:?}"),
    }
}
