//! One value of the writer as JSON text, for columns that have no kind of their own.
//!
//! Records are objects in the writer's order, unions the bare value of their branch, enums their symbol. Dates, times and
//! timestamps are their plain numbers; decimals are strings with all their digits (`"12.50"`), bytes and fixed (and
//! decimals of more than 38 digits) are lower-case hex, and so are the floats that JSON has no word for: `"NaN"`, `"Infinity"`, `"-Infinity"`.

use std::collections::HashMap;
use std::io::Write as _;

use super::cursor::Cursor;
use super::error::Fault;
use super::types::{Type, TypeId, Types, decimal, deeper};

/// Writes JSON to the end of a byte vector, and charges it to the event's text.
pub(super) struct Json<'t, 'o> {
    pub(super) types: &'t Types,
    pub(super) out: &'o mut Vec<u8>,
}

impl Json<'_, '_> {
    /// Writes the value at the cursor. `depth`: containers around it.
    pub(super) fn value(&mut self, id: TypeId, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Fault> {
        let types = self.types;
        match types.get(id) {
            Type::Union(branches) => {
                let branch = cursor.branch(branches.len())?;
                self.value(*branches.get(branch).ok_or(Fault::Union)?, cursor, depth)
            }
            Type::Record(fields) => self.record(fields, cursor, deeper(depth)?),
            Type::Array(item) => self.array(*item, cursor, deeper(depth)?),
            Type::Map(value) => self.map(*value, cursor, deeper(depth)?),
            scalar => {
                let before = self.out.len();
                self.scalar(scalar, cursor)?;
                cursor.expand(self.out.len() - before)
            }
        }
    }

    fn record(&mut self, fields: &[(String, TypeId)], cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Fault> {
        cursor.expand(2)?;
        self.out.push(b'{');
        for (index, (name, field)) in fields.iter().enumerate() {
            cursor.expand(name.len() + 4)?;
            if index > 0 {
                self.out.push(b',');
            }
            quoted(self.out, name);
            self.out.push(b':');
            self.value(*field, cursor, depth)?;
        }
        self.out.push(b'}');
        Ok(())
    }

    fn array(&mut self, item: TypeId, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Fault> {
        cursor.expand(2)?;
        self.out.push(b'[');
        let mut first = true;
        loop {
            let count = cursor.block(self.types.bytes_min(item))?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                cursor.expand(1)?;
                if !std::mem::take(&mut first) {
                    self.out.push(b',');
                }
                self.value(item, cursor, depth)?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    /// A key that comes twice has its last value, at its first place: what a reader with a map type would see.
    fn map(&mut self, value: TypeId, cursor: &mut Cursor<'_>, depth: u32) -> Result<(), Fault> {
        cursor.expand(2)?;
        let entries = cursor.uncharged(|cursor| self.last_of_each(value, cursor, depth))?;
        let end = cursor.position();
        self.out.push(b'{');
        for (index, (key, start)) in entries.into_iter().enumerate() {
            cursor.expand(key.len() + 4)?;
            if index > 0 {
                self.out.push(b',');
            }
            quoted(self.out, key);
            self.out.push(b':');
            cursor.seek(start);
            self.value(value, cursor, depth)?;
        }
        self.out.push(b'}');
        cursor.seek(end);
        Ok(())
    }

    /// The distinct keys of a map, and where the value of each stands.
    fn last_of_each<'a>(
        &self,
        value: TypeId,
        cursor: &mut Cursor<'a>,
        depth: u32,
    ) -> Result<Vec<(&'a str, usize)>, Fault> {
        let mut entries: Vec<(&str, usize)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        loop {
            let count = cursor.block(self.types.bytes_min(value) + 1)?;
            if count == 0 {
                return Ok(entries);
            }
            for _ in 0..count {
                let key = cursor.text()?;
                let start = cursor.position();
                self.types.skip(value, cursor, depth)?;
                let place = *places.entry(key).or_insert(entries.len());
                match entries.get_mut(place) {
                    Some(entry) => entry.1 = start,
                    None => entries.push((key, start)),
                }
            }
        }
    }

    fn scalar(&mut self, scalar: &Type, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        match scalar {
            Type::Boolean => self
                .out
                .extend_from_slice(if cursor.boolean()? { b"true" } else { b"false" }),
            Type::Int => display(self.out, cursor.int()?),
            Type::Long => display(self.out, cursor.long()?),
            Type::Float => {
                let value = cursor.float()?;
                match nameless(f64::from(value)) {
                    Some(name) => quoted(self.out, name),
                    None => number(self.out, &value),
                }
            }
            Type::Double => {
                let value = cursor.double()?;
                match nameless(value) {
                    Some(name) => quoted(self.out, name),
                    None => number(self.out, &value),
                }
            }
            Type::String => quoted(self.out, cursor.text()?),
            Type::Bytes => hex(self.out, cursor.bytes()?),
            Type::Fixed(size) => hex(self.out, cursor.take(*size)?),
            Type::UuidText => {
                let uuid = apache_avro::Uuid::try_parse(cursor.text()?).map_err(|_| Fault::Uuid)?;
                quoted(self.out, uuid.hyphenated().encode_lower(&mut [0; 36]));
            }
            Type::UuidBytes => uuid(self.out, cursor.bytes()?)?,
            Type::UuidFixed => uuid(self.out, cursor.take(16)?)?,
            Type::Decimal { size, limit, scale } => {
                quoted(self.out, &decimal_text(decimal(cursor, *size, *limit)?, *scale));
            }
            Type::Enum(symbols) => {
                let symbol = cursor.symbol(symbols.len())?;
                quoted(self.out, symbols.get(symbol).ok_or(Fault::Enum)?);
            }
            Type::Null | Type::Array(_) | Type::Map(_) | Type::Union(_) | Type::Record(_) => {
                self.out.extend_from_slice(b"null");
            }
        }
        Ok(())
    }
}

fn decimal_text(value: i128, scale: usize) -> String {
    if scale == 0 {
        return value.to_string();
    }
    let digits = format!("{:0>width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, part) = digits.split_at(digits.len() - scale);
    format!("{}{whole}.{part}", if value < 0 { "-" } else { "" })
}

fn nameless(value: f64) -> Option<&'static str> {
    match value {
        value if value.is_nan() => Some("NaN"),
        f64::INFINITY => Some("Infinity"),
        f64::NEG_INFINITY => Some("-Infinity"),
        _ => None,
    }
}

fn uuid(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), Fault> {
    let uuid = apache_avro::Uuid::from_slice(bytes).map_err(|_| Fault::Uuid)?;
    quoted(out, uuid.hyphenated().encode_lower(&mut [0; 36]));
    Ok(())
}

fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(bytes.len() * 2 + 2);
    out.push(b'"');
    for byte in bytes {
        out.extend([byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
    out.push(b'"');
}

// Writing to a vector cannot fail; a shorter text would be caught by the tests that parse every value again.
fn display(out: &mut Vec<u8>, value: impl std::fmt::Display) {
    if write!(out, "{value}").is_err() {
        out.extend_from_slice(b"null");
    }
}

fn number(out: &mut Vec<u8>, value: &impl serde::Serialize) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        out.extend_from_slice(b"null");
    }
}

fn quoted(out: &mut Vec<u8>, text: &str) {
    if serde_json::to_writer(&mut *out, text).is_err() {
        out.extend_from_slice(b"null");
    }
}
