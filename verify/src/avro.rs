//! Payload to value, by `apache-avro`, and what has to be known to do that exactly.
//!
//! `apache-avro` gives maps as hash maps, decimals without their scale, and null for a string or union at which the bytes
//! end. So the writer's schema is rewritten into one with the same encoding that hides nothing: a map becomes a record with
//! an array of entries, a decimal a record whose only field is named after precision and scale; and the payload is read
//! through a reader that remembers that it ended.

use std::collections::HashMap;
use std::io::{Error as IoError, ErrorKind, Read};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use serde_json::{Map, Value as Json, json};

/// The field of a record that stands for a map.
const ENTRIES: &str = "sluice_map_entries__";
/// How the field of a record that stands for a decimal begins; `<precision>_<scale>` follows.
const DECIMAL: &str = "sluice_decimal__";
/// The workers' documented limits (`workers::decode`), told again here.
const DEPTH_MAX: u32 = 64;
const ZERO_WIDTH_ITEMS_MAX: usize = 65_536;
/// More digits are plain bytes, in the workers and here.
const DECIMAL_DIGITS_MAX: u64 = 38;
/// Recursive schemas recurse in `apache-avro`, too; this much of the stack is enough for [`DEPTH_MAX`] levels.
const STACK_BYTES_MAX: usize = 1 << 20;

/// The schema that decodes the same bytes and hides nothing.
pub fn transparent(writer: &Schema) -> Result<Schema, String> {
    let json = serde_json::to_value(writer).map_err(|error| error.to_string())?;
    let mut rewrite = Rewrite {
        made: 0,
        decimals: HashMap::new(),
    };
    let json = rewrite.schema(&json);
    Schema::parse(&json).map_err(|error| error.to_string())
}

struct Rewrite {
    made: usize,
    /// Full names of fixed types that are decimals -> the field's name.
    decimals: HashMap<String, String>,
}

impl Rewrite {
    fn name(&mut self) -> String {
        self.made += 1;
        format!("SluiceVerify{}", self.made)
    }

    fn schema(&mut self, json: &Json) -> Json {
        match json {
            Json::String(name) => match self.decimals.get(name).cloned() {
                Some(field) => self.record(&field, json!(name)),
                None => json.clone(),
            },
            Json::Array(branches) => branches.iter().map(|branch| self.schema(branch)).collect(),
            Json::Object(object) => self.object(object),
            other => other.clone(),
        }
    }

    fn record(&mut self, field: &str, inner: Json) -> Json {
        json!({"type": "record", "name": self.name(), "fields": [{"name": field, "type": inner}]})
    }

    fn object(&mut self, object: &Map<String, Json>) -> Json {
        let get = |key: &str| object.get(key).cloned().unwrap_or(Json::Null);
        let only = |keys: &[&str]| -> Map<String, Json> {
            keys.iter()
                .filter_map(|key| Some(((*key).to_owned(), object.get(*key)?.clone())))
                .collect()
        };
        match object.get("type").and_then(Json::as_str) {
            Some("record") => {
                let mut record = only(&["type", "name", "namespace"]);
                let none = Vec::new();
                let fields = object.get("fields").and_then(Json::as_array).unwrap_or(&none);
                // Defaults would have to be rewritten, too, and are of no use to a reader of bytes.
                let field = |field: &Json| json!({"name": field["name"], "type": self.schema(&field["type"])});
                record.insert("fields".to_owned(), fields.iter().map(field).collect());
                Json::Object(record)
            }
            Some("array") => json!({"type": "array", "items": self.schema(&get("items"))}),
            Some("map") => {
                let values = self.schema(&get("values"));
                let entry = json!({"type": "record", "name": self.name(), "fields": [
                    {"name": "key", "type": "string"}, {"name": "value", "type": values}]});
                self.record(ENTRIES, json!({"type": "array", "items": entry}))
            }
            Some("enum") => Json::Object(only(&["type", "name", "namespace", "symbols"])),
            Some("fixed") => {
                let mut fixed = only(&["type", "name", "namespace", "size"]);
                match self.decimal(object) {
                    Some(field) => {
                        let namespace = object.get("namespace").and_then(Json::as_str);
                        let name = get("name").as_str().unwrap_or_default().to_owned();
                        let full = namespace.map_or(name.clone(), |namespace| format!("{namespace}.{name}"));
                        self.decimals.insert(full, field.clone());
                        self.record(&field, Json::Object(fixed))
                    }
                    None => {
                        if get("logicalType") == "uuid" {
                            fixed.insert("logicalType".to_owned(), json!("uuid"));
                        }
                        Json::Object(fixed)
                    }
                }
            }
            Some(name) => match self.decimal(object) {
                Some(field) => self.record(&field, json!(name)),
                None if get("logicalType") == "uuid" => json!({"type": name, "logicalType": "uuid"}),
                // Dates, times and timestamps are their plain numbers.
                None => json!(name),
            },
            None => self.schema(&get("type")),
        }
    }

    fn decimal(&self, object: &Map<String, Json>) -> Option<String> {
        let number = |key: &str| object.get(key).and_then(Json::as_u64);
        let precision = number("precision").filter(|precision| *precision <= DECIMAL_DIGITS_MAX)?;
        (object.get("logicalType")? == "decimal")
            .then(|| format!("{DECIMAL}{precision}_{}", number("scale").unwrap_or(0)))
    }
}

/// A value as it was meant before the schema was rewritten.
pub enum View<'v> {
    Plain(&'v Value),
    /// In the order of the bytes, each key once, with its last value.
    Map(Vec<(&'v str, &'v Value)>),
    Decimal {
        bytes: &'v [u8],
        precision: u32,
        scale: usize,
    },
}

/// Looks through unions and through what [`transparent`] put in.
pub fn view(value: &Value) -> View<'_> {
    match value {
        Value::Union(_, inner) => view(inner),
        Value::Record(fields) => match fields.as_slice() {
            [(name, Value::Array(entries))] if name == ENTRIES => View::Map(last_of_each(entries)),
            [(name, inner)] => match name.strip_prefix(DECIMAL).and_then(|digits| digits.split_once('_')) {
                Some((precision, scale)) => View::Decimal {
                    bytes: match inner {
                        Value::Bytes(bytes) | Value::Fixed(_, bytes) => bytes,
                        _ => &[],
                    },
                    precision: precision.parse().unwrap_or(0),
                    scale: scale.parse().unwrap_or(0),
                },
                None => View::Plain(value),
            },
            _ => View::Plain(value),
        },
        value => View::Plain(value),
    }
}

fn last_of_each(entries: &[Value]) -> Vec<(&str, &Value)> {
    let mut map: Vec<(&str, &Value)> = Vec::with_capacity(entries.len());
    let mut places = HashMap::new();
    for entry in entries {
        let Value::Record(fields) = entry else { continue };
        let [(_, Value::String(key)), (_, value)] = fields.as_slice() else {
            continue;
        };
        let place = *places.entry(key.as_str()).or_insert(map.len());
        match map.get_mut(place) {
            Some(entry) => entry.1 = value,
            None => map.push((key, value)),
        }
    }
    map
}

/// The unscaled integer, `None` when it has more digits than it may.
pub fn unscaled(bytes: &[u8], precision: u32) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut value: i128 = if negative { -1 } else { 0 };
    for byte in bytes {
        // A value of more than 128 bits has far more than 38 digits.
        value = value.checked_mul(256)?.checked_add(i128::from(*byte))?;
    }
    (value.unsigned_abs() < 10u128.checked_pow(precision)?).then_some(value)
}

/// One payload to one value, all of it.
///
/// # Errors
/// The code with which a worker must refuse it, if this crate can tell (`None` otherwise).
pub fn decode(reader: &GenericDatumReader<'_>, payload: &[u8]) -> Result<Value, Option<&'static str>> {
    let base = 0u8;
    let mut ending = Ending {
        rest: payload,
        starved: false,
        base: std::ptr::addr_of!(base) as usize,
    };
    let value = reader.read_value(&mut ending);
    // The first fault wins, and running out of bytes is always the last thing that happens.
    if ending.starved {
        return Err(None);
    }
    let value = value.map_err(|_| None)?;
    if !ending.rest.is_empty() {
        return Err(Some("trailing_bytes"));
    }
    let mut zero_width_left = ZERO_WIDTH_ITEMS_MAX;
    limits(&value, 0, &mut zero_width_left)?;
    Ok(value)
}

struct Ending<'a> {
    rest: &'a [u8],
    starved: bool,
    base: usize,
}

impl Read for Ending<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let here = 0u8;
        if self.base.abs_diff(std::ptr::addr_of!(here) as usize) > STACK_BYTES_MAX {
            return Err(IoError::new(ErrorKind::InvalidData, "nested too deep"));
        }
        let read = self.rest.read(into)?;
        self.starved |= read < into.len();
        Ok(read)
    }
}

/// What `apache-avro` lets pass and the workers do not.
fn limits(value: &Value, depth: u32, zero_width_left: &mut usize) -> Result<(), Option<&'static str>> {
    let deeper = || {
        if depth < DEPTH_MAX {
            Ok(depth + 1)
        } else {
            Err(Some("too_deep"))
        }
    };
    match view(value) {
        View::Decimal { bytes, precision, .. } => unscaled(bytes, precision)
            .map(|_| ())
            .ok_or(Some("decimal_out_of_range")),
        View::Map(entries) => {
            let depth = deeper()?;
            entries
                .iter()
                .try_for_each(|(_, value)| limits(value, depth, zero_width_left))
        }
        View::Plain(Value::Record(fields)) => {
            let depth = deeper()?;
            fields
                .iter()
                .try_for_each(|(_, value)| limits(value, depth, zero_width_left))
        }
        View::Plain(Value::Array(items)) => {
            let depth = deeper()?;
            if items.first().is_some_and(zero_width) {
                *zero_width_left = zero_width_left.checked_sub(items.len()).ok_or(Some("too_large"))?;
            }
            items.iter().try_for_each(|item| limits(item, depth, zero_width_left))
        }
        View::Plain(_) => Ok(()),
    }
}

/// Whether the value takes no bytes at all.
fn zero_width(value: &Value) -> bool {
    match value {
        Value::Null | Value::Fixed(0, _) => true,
        Value::Record(fields) => fields.iter().all(|(_, value)| zero_width(value)),
        _ => false,
    }
}
