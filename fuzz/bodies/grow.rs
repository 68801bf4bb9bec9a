//! Avro values grown from bytes that decide, written down as they are: with the places of all numbers that a reader
//! has to believe or not, so that they can be replaced.

use std::ops::Range;

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, NamesRef, NamespaceRef, ResolvedSchema, UuidSchema};

/// Deeper, a union is its null and a list is empty.
const DEPTH: u32 = 12;

/// A valid payload.
#[derive(Default)]
pub struct Grown {
    pub bytes: Vec<u8>,
    /// Where lengths, counts of items, branches of unions and symbols of enums stand.
    pub numbers: Vec<Range<usize>>,
}

/// A payload of this schema.
pub fn grow(schema: &Schema, choices: &[u8]) -> Grown {
    let resolved = ResolvedSchema::new(schema).unwrap();
    let mut growing = Growing {
        choices: choices.iter(),
        names: resolved.get_names(),
        grown: Grown::default(),
    };
    growing.value(schema, None, 0);
    growing.grown
}

/// The least payload of a record, but for one field that is these bytes.
pub fn with_field(schema: &Schema, field: &str, value: &[u8]) -> Vec<u8> {
    let Schema::Record(record) = schema else {
        panic!("an event is a record")
    };
    let resolved = ResolvedSchema::new(schema).unwrap();
    let mut growing = Growing {
        choices: [].iter(),
        names: resolved.get_names(),
        grown: Grown::default(),
    };
    for one in &record.fields {
        if one.name == field {
            growing.grown.bytes.extend_from_slice(value);
        } else {
            growing.value(&one.schema, record.name.namespace(), 1);
        }
    }
    growing.grown.bytes
}

/// A `long` as Avro writes it.
pub fn long(value: i64) -> Vec<u8> {
    let mut zigzag = ((value << 1) ^ (value >> 63)) as u64;
    let mut bytes = Vec::new();
    while zigzag >= 0x80 {
        bytes.push(zigzag as u8 | 0x80);
        zigzag >>= 7;
    }
    bytes.push(zigzag as u8);
    bytes
}

struct Growing<'a> {
    choices: std::slice::Iter<'a, u8>,
    names: &'a NamesRef<'a>,
    grown: Grown,
}

impl Growing<'_> {
    fn pick(&mut self, below: usize) -> usize {
        usize::from(self.choices.next().copied().unwrap_or(0)) % below
    }

    fn number(&mut self, value: usize) {
        let start = self.grown.bytes.len();
        self.grown.bytes.extend(long(i64::try_from(value).unwrap()));
        self.grown.numbers.push(start..self.grown.bytes.len());
    }

    fn raw(&mut self, length: usize) {
        for _ in 0..length {
            let byte = self.pick(256) as u8;
            self.grown.bytes.push(byte);
        }
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.grown.bytes.extend(text.bytes());
    }

    fn short_text(&mut self) {
        const TEXTS: [&str; 6] = ["", "a", "b", "\u{1}\"\\", "é€😀", "a longer text than the others"];
        let text = TEXTS[self.pick(TEXTS.len())];
        self.text(text);
    }

    fn any_long(&mut self) -> i64 {
        let small = self.pick(256) as i64;
        match self.pick(4) {
            0 => -small,
            1 => i64::MAX - small,
            2 => i64::MIN + small,
            _ => small,
        }
    }

    fn value(&mut self, schema: &Schema, around: NamespaceRef<'_>, depth: u32) {
        match schema {
            Schema::Null => {}
            Schema::Boolean => {
                let bit = self.pick(2) as u8;
                self.grown.bytes.push(bit);
            }
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                let value = self.any_long() as i32;
                self.grown.bytes.extend(long(i64::from(value)));
            }
            Schema::Long
            | Schema::TimeMicros
            | Schema::TimestampMillis
            | Schema::TimestampMicros
            | Schema::TimestampNanos
            | Schema::LocalTimestampMillis
            | Schema::LocalTimestampMicros
            | Schema::LocalTimestampNanos => {
                let value = self.any_long();
                self.grown.bytes.extend(long(value));
            }
            Schema::Float => self.raw(4),
            Schema::Double => self.raw(8),
            Schema::String => self.short_text(),
            Schema::Bytes | Schema::BigDecimal => {
                let length = self.pick(20);
                self.number(length);
                self.raw(length);
            }
            Schema::Fixed(fixed) | Schema::Duration(fixed) => self.raw(fixed.size),
            Schema::Uuid(UuidSchema::String) => self.text("5e0f4a0e-3a44-4d6a-93f4-2bd0c6a8a5c1"),
            Schema::Uuid(UuidSchema::Bytes) => {
                self.number(16);
                self.raw(16);
            }
            Schema::Uuid(UuidSchema::Fixed(_)) => self.raw(16),
            Schema::Decimal(decimal) => {
                let digits = match &decimal.inner {
                    InnerDecimalSchema::Bytes => {
                        let length = 1 + self.pick(3);
                        self.number(length);
                        length
                    }
                    InnerDecimalSchema::Fixed(fixed) => fixed.size,
                };
                // Few digits fit every precision.
                self.grown
                    .bytes
                    .extend(std::iter::repeat_n(0, digits.saturating_sub(1)));
                self.raw(digits.min(1));
            }
            Schema::Enum(symbols) => {
                let symbol = self.pick(symbols.symbols.len());
                self.number(symbol);
            }
            Schema::Array(array) => self.items(&array.items, (false, around), depth),
            Schema::Map(map) => self.items(&map.types, (true, around), depth),
            Schema::Union(union) => {
                let branches = union.variants();
                let null = branches.iter().position(|branch| *branch == Schema::Null);
                let branch = match null {
                    Some(null) if depth > DEPTH => null,
                    _ => self.pick(branches.len()),
                };
                self.number(branch);
                self.value(&branches[branch], around, depth + 1);
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(around).into_owned();
                for field in &record.fields {
                    self.value(&field.schema, name.namespace(), depth + 1);
                }
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(around);
                let named = *self.names.get(name.as_ref()).unwrap();
                self.value(named, name.namespace(), depth);
            }
        }
    }

    fn items(&mut self, item: &Schema, (keys, around): (bool, NamespaceRef<'_>), depth: u32) {
        let blocks = if depth > DEPTH { 0 } else { self.pick(3) };
        for _ in 0..blocks {
            let count = 1 + self.pick(3);
            self.number(count);
            for _ in 0..count {
                if keys {
                    self.short_text();
                }
                self.value(item, around, depth + 1);
            }
        }
        self.number(0);
    }
}
