//! Defaults of the newest schema, as their columns hold them.

use std::collections::HashMap;

use serde_json::Value;

use super::error::ShapeError;
use super::tree::{Branch, Tree};
use super::{Element, Fill, Kind};

/// By a column's path, for each of its levels: what stands in the column when a writer lacks that level's field.
pub(super) type Fills = HashMap<String, Vec<Option<Fill>>>;

/// The defaults of the newest version, read with its own kinds, before other versions widen them.
pub(super) fn of_newest(fields: &[Branch]) -> Result<Fills, ShapeError> {
    let mut all = Fills::new();
    collect(fields, &mut Vec::new(), &mut all)?;
    Ok(all)
}

fn collect<'b>(fields: &'b [Branch], above: &mut Vec<&'b Branch>, all: &mut Fills) -> Result<(), ShapeError> {
    for branch in fields {
        above.push(branch);
        match &branch.tree {
            Tree::Nothing => {}
            Tree::Record(fields) => collect(fields, above, all)?,
            Tree::Leaf(kind) => {
                let path = above
                    .iter()
                    .map(|branch| branch.name.as_str())
                    .collect::<Vec<_>>()
                    .join(".");
                let fills = fills(above, kind, &path)?;
                all.insert(path, fills);
            }
        }
        above.pop();
    }
    Ok(())
}

fn fills(above: &[&Branch], kind: &Kind, path: &str) -> Result<Vec<Option<Fill>>, ShapeError> {
    let fill = |level: usize| match default(above, level) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => of(value, kind).map(Some).map_err(|reason| ShapeError::Default {
            path: path.to_owned(),
            reason,
        }),
    };
    (0..above.len()).map(fill).collect()
}

/// The default at `level`, followed down to the leaf. What a record's default doesn't name has a default of its own.
fn default<'b>(above: &[&'b Branch], level: usize) -> Option<&'b Value> {
    let mut value = above.get(level)?.default.as_ref()?;
    for below in above.iter().skip(level + 1) {
        value = match value.as_object() {
            Some(fields) => fields.get(&below.name).or(below.default.as_ref())?,
            None => return None,
        };
    }
    Some(value)
}

fn of(value: &Value, kind: &Kind) -> Result<Fill, String> {
    let wrong = || format!("{} is no {kind}", excerpt(value));
    let text = || value.as_str().ok_or_else(wrong);
    let integer = || value.as_i64().ok_or_else(wrong);
    Ok(match kind {
        Kind::Bool => Fill::Bool(value.as_bool().ok_or_else(wrong)?),
        Kind::Int32 | Kind::Date => Fill::Int(i32::try_from(integer()?).map_err(|_| wrong())?.into()),
        Kind::Int64 | Kind::TimestampMillis | Kind::TimestampMicros => Fill::Int(integer()?),
        // As a reader of Avro would have it: the nearest `float`, not the nearest `double`.
        Kind::Float32 => Fill::Float(f64::from(value.as_f64().ok_or_else(wrong)? as f32)),
        Kind::Float64 => Fill::Float(value.as_f64().ok_or_else(wrong)?),
        Kind::String | Kind::Enum => Fill::Text(text()?.to_owned()),
        Kind::Uuid => Fill::Text(uuid(text()?).ok_or_else(wrong)?),
        Kind::Bytes => Fill::Bytes(bytes(text()?).ok_or_else(wrong)?),
        Kind::Decimal { precision, .. } => {
            let unscaled = bytes(text()?).and_then(|bytes| unscaled(&bytes)).ok_or_else(wrong)?;
            if unscaled.unsigned_abs() >= 10_u128.pow(u32::from(*precision)) {
                return Err(wrong());
            }
            Fill::Decimal(unscaled)
        }
        Kind::Json => Fill::Text(value.to_string()),
        Kind::List(element) => {
            let values = value.as_array().ok_or_else(wrong)?;
            Fill::List(
                values
                    .iter()
                    .map(|value| of_element(value, element))
                    .collect::<Result<_, _>>()?,
            )
        }
        Kind::Map(element) => {
            let entries = value.as_object().ok_or_else(wrong)?.iter();
            let entry = |(key, value): (&String, &Value)| Ok((key.clone(), of_element(value, element)?));
            Fill::Map(entries.map(entry).collect::<Result<_, String>>()?)
        }
    })
}

fn of_element(value: &Value, element: &Element) -> Result<Option<Fill>, String> {
    match value {
        Value::Null if element.nullable => Ok(None),
        _ => of(value, &element.kind).map(Some),
    }
}

fn excerpt(value: &Value) -> String {
    value.to_string().chars().take(40).collect()
}

/// Avro writes bytes in JSON as characters 0 to 255.
fn bytes(text: &str) -> Option<Vec<u8>> {
    text.chars()
        .map(|letter| u8::try_from(u32::from(letter)).ok())
        .collect()
}

/// Big-endian two's complement of at most 16 bytes.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut all = [if negative { 0xff } else { 0 }; 16];
    all.get_mut(16_usize.checked_sub(bytes.len())?..)?
        .copy_from_slice(bytes);
    Some(i128::from_be_bytes(all))
}

/// A UUID's text as it is, or sixteen bytes as text.
fn uuid(text: &str) -> Option<String> {
    if text.len() == 36 && text.is_ascii() {
        return Some(text.to_owned());
    }
    let bytes = bytes(text).filter(|bytes| bytes.len() == 16)?;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |range| hex.get(range);
    Some([part(0..8)?, part(8..12)?, part(12..16)?, part(16..20)?, part(20..32)?].join("-"))
}
