//! Schemas and values from a stream of choices: a shorter or smaller stream makes simpler ones, so that a failure shrinks.

use std::collections::HashMap;

use apache_avro::types::Value;
use apache_avro::{Days, Decimal, Duration, Millis, Months, Uuid};
use serde_json::{Value as Json, json};

/// Bytes that decide; zero when they are used up.
pub struct Choices<'a> {
    bytes: std::slice::Iter<'a, u8>,
    names: usize,
}

impl<'a> Choices<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Choices {
            bytes: bytes.iter(),
            names: 0,
        }
    }

    pub fn pick(&mut self, below: usize) -> usize {
        usize::from(self.bytes.next().copied().unwrap_or(0)) % below
    }

    pub fn name(&mut self, prefix: &str) -> String {
        self.names += 1;
        format!("{prefix}{}", self.names)
    }

    pub fn number(&mut self) -> i64 {
        let small = i64::from(self.bytes.next().copied().unwrap_or(0));
        match self.pick(5) {
            0 => small,
            1 => -small,
            2 => i64::MAX - small,
            3 => i64::MIN + small,
            _ => small << self.pick(56),
        }
    }

    pub fn text(&mut self) -> String {
        const LETTERS: [char; 8] = ['a', 'é', '"', '\\', '\n', '\0', '€', '😀'];
        (0..self.pick(6)).map(|_| LETTERS[self.pick(LETTERS.len())]).collect()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.pick(256) as u8).collect()
    }
}

/// A schema with what is needed to make values of it.
#[derive(Debug, Clone)]
pub enum Model {
    Scalar(&'static str),
    Logical(&'static str, &'static str),
    Fixed(String, usize),
    Duration(String),
    UuidFixed(String),
    Decimal(Option<String>),
    Enum(String, usize),
    Array(Box<Model>),
    Map(Box<Model>),
    Union(Vec<Model>),
    Record(String, Vec<(String, Model)>),
    /// A list: a value and, maybe, another list.
    Recursive(String),
}

const SCALARS: [&str; 8] = ["null", "boolean", "int", "long", "float", "double", "bytes", "string"];
const LOGICALS: [(&str, &str); 10] = [
    ("int", "date"),
    ("int", "time-millis"),
    ("long", "time-micros"),
    ("long", "timestamp-millis"),
    ("long", "timestamp-micros"),
    ("long", "timestamp-nanos"),
    ("long", "local-timestamp-millis"),
    ("long", "local-timestamp-micros"),
    ("long", "local-timestamp-nanos"),
    ("string", "uuid"),
];

/// An event: a record whose first field becomes a column, whatever the others are.
pub fn event(choices: &mut Choices<'_>) -> Model {
    let mut fields = vec![("id".to_owned(), Model::Scalar("string"))];
    for _ in 0..choices.pick(8) {
        fields.push((choices.name("f"), model(choices, 4)));
    }
    Model::Record(choices.name("R"), fields)
}

fn model(choices: &mut Choices<'_>, depth: usize) -> Model {
    match choices.pick(if depth == 0 { 8 } else { 14 }) {
        0..=2 => Model::Scalar(SCALARS[choices.pick(SCALARS.len())]),
        3 => {
            let (base, logical) = LOGICALS[choices.pick(LOGICALS.len())];
            Model::Logical(base, logical)
        }
        4 => Model::Fixed(choices.name("F"), choices.pick(6)),
        5 => match choices.pick(3) {
            0 => Model::Duration(choices.name("D")),
            _ => Model::UuidFixed(choices.name("U")),
        },
        6 => Model::Decimal((choices.pick(2) == 1).then(|| choices.name("N"))),
        7 => Model::Enum(choices.name("E"), 1 + choices.pick(4)),
        8 => Model::Array(Box::new(model(choices, depth - 1))),
        9 => Model::Map(Box::new(model(choices, depth - 1))),
        10 => union(choices, depth),
        11 => Model::Recursive(choices.name("L")),
        12 => {
            let record = record(choices, depth);
            let branches = [Model::Scalar("null"), record];
            Model::Union(if choices.pick(2) == 0 {
                branches.into()
            } else {
                branches.into_iter().rev().collect()
            })
        }
        _ => record(choices, depth),
    }
}

fn record(choices: &mut Choices<'_>, depth: usize) -> Model {
    let fields = (0..1 + choices.pick(4))
        .map(|_| (choices.name("f"), model(choices, depth - 1)))
        .collect();
    Model::Record(choices.name("R"), fields)
}

/// One branch of each unnamed type at most, as Avro wants it; often null and one other.
fn union(choices: &mut Choices<'_>, depth: usize) -> Model {
    let mut seen = Vec::new();
    let mut branches = Vec::new();
    for _ in 0..1 + choices.pick(3) {
        let branch = if choices.pick(3) == 0 {
            Model::Scalar("null")
        } else {
            model(choices, depth - 1)
        };
        let kind = match &branch {
            Model::Union(_) => continue,
            Model::Scalar(name) => (*name).to_owned(),
            Model::Logical(base, _) => (*base).to_owned(),
            Model::Decimal(None) => "bytes".to_owned(),
            Model::Array(_) => "array".to_owned(),
            Model::Map(_) => "map".to_owned(),
            _ => choices.name("named"),
        };
        if !seen.contains(&kind) {
            seen.push(kind);
            branches.push(branch);
        }
    }
    if branches.is_empty() {
        Model::Scalar("null")
    } else {
        Model::Union(branches)
    }
}

/// The Avro JSON.
pub fn schema(model: &Model) -> Json {
    match model {
        Model::Scalar(name) => json!(name),
        Model::Logical(base, logical) => json!({"type": base, "logicalType": logical}),
        Model::Fixed(name, size) => json!({"type": "fixed", "name": name, "size": size}),
        Model::Duration(name) => json!({"type": "fixed", "name": name, "size": 12, "logicalType": "duration"}),
        Model::UuidFixed(name) => json!({"type": "fixed", "name": name, "size": 16, "logicalType": "uuid"}),
        Model::Decimal(None) => json!({"type": "bytes", "logicalType": "decimal", "precision": 18, "scale": 3}),
        Model::Decimal(Some(name)) => {
            json!({"type": "fixed", "name": name, "size": 9, "logicalType": "decimal", "precision": 18, "scale": 3})
        }
        Model::Enum(name, symbols) => {
            let symbols: Vec<_> = (0..*symbols).map(|at| format!("S{at}")).collect();
            json!({"type": "enum", "name": name, "symbols": symbols})
        }
        Model::Array(items) => json!({"type": "array", "items": schema(items)}),
        Model::Map(values) => json!({"type": "map", "values": schema(values)}),
        Model::Union(branches) => branches.iter().map(schema).collect(),
        Model::Record(name, fields) => {
            let fields: Vec<_> = fields
                .iter()
                .map(|(name, model)| json!({"name": name, "type": schema(model)}))
                .collect();
            json!({"type": "record", "name": name, "fields": fields})
        }
        Model::Recursive(name) => json!({"type": "record", "name": name, "fields": [
            {"name": "head", "type": "int"}, {"name": "tail", "type": ["null", name]}]}),
    }
}

/// A value of it.
pub fn value(model: &Model, choices: &mut Choices<'_>) -> Value {
    match model {
        Model::Scalar(name) => scalar(name, choices),
        Model::Logical(_, name) => logical(name, choices),
        Model::Fixed(_, size) => Value::Fixed(*size, choices.bytes(*size)),
        Model::Duration(_) => {
            let mut part = || choices.pick(256) as u32;
            Value::Duration(Duration::new(
                Months::new(part()),
                Days::new(part()),
                Millis::new(part()),
            ))
        }
        Model::UuidFixed(_) => Value::Uuid(uuid(choices)),
        Model::Decimal(form) => {
            let number = choices.number() % 1_000_000_000_000_000_000;
            let bytes = number.to_be_bytes().to_vec();
            let sign = if number < 0 { 0xff } else { 0 };
            Value::Decimal(Decimal::from(if form.is_some() {
                [vec![sign], bytes].concat()
            } else {
                bytes
            }))
        }
        Model::Enum(_, symbols) => {
            let symbol = choices.pick(*symbols);
            Value::Enum(symbol as u32, format!("S{symbol}"))
        }
        Model::Array(items) => Value::Array((0..choices.pick(4)).map(|_| value(items, choices)).collect()),
        Model::Map(values) => {
            let entries: HashMap<_, _> = (0..choices.pick(4))
                .map(|_| (choices.text(), value(values, choices)))
                .collect();
            Value::Map(entries)
        }
        Model::Union(branches) => {
            let branch = choices.pick(branches.len());
            Value::Union(branch as u32, Box::new(value(&branches[branch], choices)))
        }
        Model::Record(_, fields) => Value::Record(
            fields
                .iter()
                .map(|(name, model)| (name.clone(), value(model, choices)))
                .collect(),
        ),
        Model::Recursive(_) => {
            let mut list = Value::Union(0, Box::new(Value::Null));
            for _ in 0..1 + choices.pick(4) {
                let head = Value::Int(choices.number() as i32);
                let cell = Value::Record(vec![("head".to_owned(), head), ("tail".to_owned(), list)]);
                list = Value::Union(1, Box::new(cell));
            }
            match list {
                Value::Union(_, list) => *list,
                other => other,
            }
        }
    }
}

fn scalar(name: &str, choices: &mut Choices<'_>) -> Value {
    match name {
        "null" => Value::Null,
        "boolean" => Value::Boolean(choices.pick(2) == 1),
        "int" => Value::Int(choices.number() as i32),
        "long" => Value::Long(choices.number()),
        "float" => Value::Float(f32::from_bits(choices.number() as u32)),
        "double" => Value::Double(f64::from_bits(choices.number() as u64)),
        "bytes" => {
            let length = choices.pick(5);
            Value::Bytes(choices.bytes(length))
        }
        _ => Value::String(choices.text()),
    }
}

fn logical(name: &str, choices: &mut Choices<'_>) -> Value {
    if name == "uuid" {
        return Value::Uuid(uuid(choices));
    }
    let number = choices.number();
    match name {
        "date" => Value::Date(number as i32),
        "time-millis" => Value::TimeMillis(number as i32),
        "time-micros" => Value::TimeMicros(number),
        "timestamp-millis" => Value::TimestampMillis(number),
        "timestamp-micros" => Value::TimestampMicros(number),
        "timestamp-nanos" => Value::TimestampNanos(number),
        "local-timestamp-millis" => Value::LocalTimestampMillis(number),
        "local-timestamp-micros" => Value::LocalTimestampMicros(number),
        _ => Value::LocalTimestampNanos(number),
    }
}

fn uuid(choices: &mut Choices<'_>) -> Uuid {
    Uuid::from_slice(&choices.bytes(16)).unwrap()
}
