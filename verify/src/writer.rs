//! One writer schema: how its values become the columns of a source's shape.

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, ResolvedSchema};
use apache_avro::types::Value;
use pipeline::shape::{Kind, Shape};

use crate::avro::{self, View, unscaled, view};
use crate::cell::Cell;

/// Where a column's value comes from.
enum Origin {
    /// A field, by the names from the top.
    Field(Vec<String>),
    /// None: the writer lacks it, whatever default a later version gives it.
    Nowhere,
}

/// See the module.
pub struct Writer {
    /// The schema that payloads are decoded with.
    pub schema: Schema,
    origins: Vec<Origin>,
}

impl Writer {
    /// Finds the origin of every column of the shape.
    pub fn new(schema: &Schema, shape: &Shape) -> Result<Writer, String> {
        let resolved = ResolvedSchema::new(schema).map_err(|error| error.to_string())?;
        let Schema::Record(root) = schema else {
            return Err("the schema is not a record".to_owned());
        };
        let known = Known {
            root,
            resolved: &resolved,
        };
        let origins = shape.columns.iter().map(|column| {
            let paths = || std::iter::once(&column.path).chain(&column.aliases);
            if let Some(path) = paths().find(|path| known.field(&names(path))) {
                return Origin::Field(names(path));
            }
            Origin::Nowhere
        });
        Ok(Writer {
            origins: origins.collect(),
            schema: avro::transparent(schema)?,
        })
    }

    /// The columns of one event.
    ///
    /// # Errors
    /// The code with which a worker must refuse the event.
    pub fn cells(&self, shape: &Shape, event: &Value) -> Result<Vec<Cell>, &'static str> {
        let columns = shape.columns.iter().zip(&self.origins);
        let cell = |(column, origin): (&pipeline::shape::Column, &Origin)| match origin {
            Origin::Field(names) => find(event, names).map_or(Ok(Cell::Null), |value| cell(&column.kind, value)),
            Origin::Nowhere => Ok(Cell::Null),
        };
        columns.map(cell).collect()
    }
}

/// What a schema has, looked up by names.
struct Known<'s> {
    root: &'s RecordSchema,
    resolved: &'s ResolvedSchema<'s>,
}

impl<'s> Known<'s> {
    /// The record at the end of these names, however often it may be null on the way.
    fn record(&self, names: &[String]) -> Option<(&'s RecordSchema, Option<String>)> {
        let space = |record: &RecordSchema, outer: Option<&str>| {
            record.name.fully_qualified_name(outer).namespace().map(str::to_owned)
        };
        let mut record = self.root;
        let mut namespace = space(record, None);
        for name in names {
            let field = record.fields.iter().find(|field| field.name == *name)?;
            let mut schema = &field.schema;
            if let Schema::Union(union) = schema {
                let mut others = union.variants().iter().filter(|branch| !matches!(branch, Schema::Null));
                schema = others.next()?;
                if others.next().is_some() {
                    return None;
                }
            }
            if let Schema::Ref { name } = schema {
                let full = name.fully_qualified_name(namespace.as_deref()).into_owned();
                schema = self.resolved.get_names().get(&full).copied()?;
                namespace = full.namespace().map(str::to_owned);
            }
            let Schema::Record(inner) = schema else { return None };
            namespace = space(inner, namespace.as_deref());
            record = inner;
        }
        Some((record, namespace))
    }

    fn field(&self, names: &[String]) -> bool {
        let Some((last, above)) = names.split_last() else {
            return false;
        };
        self.record(above)
            .is_some_and(|(record, _)| record.fields.iter().any(|field| field.name == *last))
    }
}

fn names(path: &str) -> Vec<String> {
    path.split('.').map(str::to_owned).collect()
}

/// The value at the end of these names; `None` = something on the way is null.
fn find<'v>(value: &'v Value, names: &[String]) -> Option<&'v Value> {
    let Some((name, rest)) = names.split_first() else {
        return match value {
            Value::Union(_, inner) => find(inner, names),
            Value::Null => None,
            value => Some(value),
        };
    };
    match value {
        Value::Union(_, inner) => find(inner, names),
        Value::Record(fields) => find(&fields.iter().find(|(field, _)| field == name)?.1, rest),
        _ => None,
    }
}

fn cell(kind: &Kind, value: &Value) -> Result<Cell, &'static str> {
    let element = |element: &pipeline::shape::Element, value: &Value| cell(&element.kind, value);
    Ok(match (kind, view(value)) {
        (_, View::Plain(Value::Null)) => Cell::Null,
        (Kind::Json, _) => {
            let mut text = String::new();
            json(value, &mut text)?;
            Cell::text(text)
        }
        (Kind::Map(values), View::Map(entries)) => {
            let entry = |(key, value): (&str, &Value)| {
                Ok::<_, &'static str>((key.as_bytes().to_vec(), element(values, value)?))
            };
            Cell::Map(entries.into_iter().map(entry).collect::<Result<_, _>>()?)
        }
        (Kind::List(items), View::Plain(Value::Array(values))) => Cell::List(
            values
                .iter()
                .map(|value| element(items, value))
                .collect::<Result<_, _>>()?,
        ),
        (Kind::Decimal { .. }, View::Decimal { bytes, precision, .. }) => {
            Cell::Decimal(unscaled(bytes, precision).ok_or("decimal_out_of_range")?)
        }
        (Kind::Float32, View::Plain(Value::Int(value))) => Cell::Float32(*value as f32),
        (Kind::Float32, View::Plain(Value::Long(value))) => Cell::Float32(*value as f32),
        (Kind::Float64, View::Plain(Value::Int(value))) => Cell::Float64(f64::from(*value)),
        (Kind::Float64, View::Plain(Value::Long(value))) => Cell::Float64(*value as f64),
        (Kind::Float64, View::Plain(Value::Float(value))) => Cell::Float64(f64::from(*value)),
        (Kind::String, View::Plain(Value::Bytes(bytes) | Value::Fixed(_, bytes))) => {
            std::str::from_utf8(bytes).map_err(|_| "invalid_utf8")?;
            Cell::Bytes(bytes.clone())
        }
        (_, View::Plain(value)) => scalar(value),
        (_, View::Map(_) | View::Decimal { .. }) => Cell::Null,
    })
}

fn scalar(value: &Value) -> Cell {
    match value {
        Value::Boolean(value) => Cell::Bool(*value),
        Value::Int(value) => Cell::Int(i64::from(*value)),
        Value::Long(value) => Cell::Int(*value),
        Value::Float(value) => Cell::Float32(*value),
        Value::Double(value) => Cell::Float64(*value),
        Value::String(text) | Value::Enum(_, text) => Cell::text(text.clone()),
        Value::Uuid(uuid) => Cell::text(uuid.to_string()),
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Cell::Bytes(bytes.clone()),
        _ => Cell::Null,
    }
}

/// The text of a JSON column, as the workers document it.
fn json(value: &Value, out: &mut String) -> Result<(), &'static str> {
    const TEXT_BYTES_MAX: usize = 16 << 20;
    if out.len() > TEXT_BYTES_MAX {
        return Err("too_large");
    }
    let hex = |bytes: &[u8]| {
        format!(
            "\"{}\"",
            bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        )
    };
    match view(value) {
        View::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.into_iter().enumerate() {
                member(at, key, out);
                json(value, out)?;
            }
            out.push('}');
        }
        View::Decimal {
            bytes,
            precision,
            scale,
        } => {
            let value = unscaled(bytes, precision).ok_or("decimal_out_of_range")?;
            out.push_str(&format!("\"{}\"", decimal(value, scale)));
        }
        View::Plain(Value::Record(fields)) => {
            out.push('{');
            for (at, (name, value)) in fields.iter().enumerate() {
                member(at, name, out);
                json(value, out)?;
            }
            out.push('}');
        }
        View::Plain(Value::Array(items)) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                json(item, out)?;
            }
            out.push(']');
        }
        View::Plain(Value::Boolean(value)) => out.push_str(if *value { "true" } else { "false" }),
        View::Plain(Value::Int(value)) => out.push_str(&value.to_string()),
        View::Plain(Value::Long(value)) => out.push_str(&value.to_string()),
        View::Plain(Value::Float(value)) => float(f64::from(*value), serde_json::to_string(value), out),
        View::Plain(Value::Double(value)) => float(*value, serde_json::to_string(value), out),
        View::Plain(Value::String(text) | Value::Enum(_, text)) => out.push_str(&quoted(text)),
        View::Plain(Value::Uuid(uuid)) => out.push_str(&quoted(&uuid.to_string())),
        View::Plain(Value::Bytes(bytes) | Value::Fixed(_, bytes)) => out.push_str(&hex(bytes)),
        View::Plain(_) => out.push_str("null"),
    }
    Ok(())
}

fn member(at: usize, name: &str, out: &mut String) {
    if at > 0 {
        out.push(',');
    }
    out.push_str(&quoted(name));
    out.push(':');
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn float(value: f64, text: Result<String, serde_json::Error>, out: &mut String) {
    match (value, text) {
        (value, Ok(text)) if value.is_finite() => out.push_str(&text),
        (value, _) if value.is_nan() => out.push_str("\"NaN\""),
        (value, _) if value > 0.0 => out.push_str("\"Infinity\""),
        _ => out.push_str("\"-Infinity\""),
    }
}

fn decimal(value: i128, scale: usize) -> String {
    let sign = if value < 0 { "-" } else { "" };
    let digits = value.unsigned_abs().to_string();
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{}{digits}", "0".repeat((scale + 1).saturating_sub(digits.len())));
    let (whole, behind) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{behind}")
}
