//! From Avro schemas to flattened columns. Whatever decodes, writes or creates tables agrees through [`Shape`].
//!
//! A nested record becomes one column a leaf, its name the path joined by `_`. What has no column of its own kind
//! (recursive records, arrays and maps of records, unions of several types) becomes one column of JSON text.
//! A field of type `null` becomes no column.
//!
//! **Invariant:** what a writer's schema lacks is null, whatever default a later version gives it: an event has the same
//! values before and after a version that only adds fields is registered, so a promise made before it can be rebuilt after.

mod tree;
mod merge;
mod writer;
mod error;

use std::fmt;
use std::sync::Arc;

use apache_avro::Schema;
use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, SchemaRef, TimeUnit};

pub use error::ShapeError;

/// The columns of one topic's events, the same for all versions of its schema.
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// The fields of the newest version in its order, then those that only older versions have.
    pub columns: Vec<Column>,
}

/// One flattened field.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// The path joined by `_`: `context_page_url`. The column's name in Arrow and in ClickHouse.
    pub name: String,
    /// The names of the fields from the record's top, joined by `.`: `context.page.url`. What rules say.
    pub path: String,
    /// Other paths under which some version may have the same field: the product of the fields' Avro aliases.
    pub aliases: Vec<String>,
    /// What the values are.
    pub kind: Kind,
    /// Whether a row may have no value: its field may be null, or some version lacks it.
    pub nullable: bool,
}

/// What a column's values are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// True or false.
    Bool,
    /// Avro `int` (also `time-millis`, the milliseconds since midnight).
    Int32,
    /// Avro `long` (also `time-micros` and both kinds of nanosecond timestamps, as their plain numbers).
    Int64,
    /// Avro `float`.
    Float32,
    /// Avro `double`.
    Float64,
    /// Avro `string`.
    String,
    /// Avro `bytes` or `fixed` (also `duration` and `big-decimal`, as their plain bytes).
    Bytes,
    /// Days since 1970-01-01.
    Date,
    /// Milliseconds since 1970-01-01T00:00:00Z; a local timestamp keeps its digits.
    TimestampMillis,
    /// Microseconds since 1970-01-01T00:00:00Z; a local timestamp keeps its digits.
    TimestampMicros,
    /// An unscaled integer of `precision` digits (1 to 38), `scale` of them behind the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits behind the point, 0 to `precision`.
        scale: i8,
    },
    /// A UUID as its 36 characters, lower case when Avro has it as bytes.
    Uuid,
    /// The symbol's text.
    Enum,
    /// JSON text of what has no column of its own kind.
    Json,
    /// An array whose elements have a kind (never [`Kind::Json`]).
    List(Box<Element>),
    /// A map from strings to values that have a kind (never [`Kind::Json`]).
    Map(Box<Element>),
}

/// The elements of a list or the values of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Element {
    /// What they are. Lists and maps among them are never nullable.
    pub kind: Kind,
    /// Whether one may be missing.
    pub nullable: bool,
}

impl Kind {
    /// The Arrow type of a column of this kind.
    pub fn arrow(&self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Float32 => DataType::Float32,
            Self::Float64 => DataType::Float64,
            Self::String | Self::Uuid | Self::Enum | Self::Json => DataType::Utf8,
            Self::Bytes => DataType::Binary,
            Self::Date => DataType::Date32,
            Self::TimestampMillis => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            Self::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Self::List(element) => DataType::List(Arc::new(Field::new("item", element.kind.arrow(), element.nullable))),
            Self::Map(element) => {
                let entry = Fields::from(vec![
                    Field::new("keys", DataType::Utf8, false),
                    Field::new("values", element.kind.arrow(), element.nullable),
                ]);
                DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entry), false)), false)
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("boolean"),
            Self::Int32 => f.write_str("int"),
            Self::Int64 => f.write_str("long"),
            Self::Float32 => f.write_str("float"),
            Self::Float64 => f.write_str("double"),
            Self::String => f.write_str("string"),
            Self::Bytes => f.write_str("bytes"),
            Self::Date => f.write_str("date"),
            Self::TimestampMillis => f.write_str("timestamp-millis"),
            Self::TimestampMicros => f.write_str("timestamp-micros"),
            Self::Decimal { precision, scale } => write!(f, "decimal({precision},{scale})"),
            Self::Uuid => f.write_str("uuid"),
            Self::Enum => f.write_str("enum"),
            Self::Json => f.write_str("json"),
            Self::List(element) => write!(f, "list of {element}"),
            Self::Map(element) => write!(f, "map of {element}"),
        }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.kind, if self.nullable { " or null" } else { "" })
    }
}

impl Shape {
    /// The columns of all versions of one topic's schema, oldest first. The same versions always give the same shape.
    ///
    /// # Errors
    /// When the versions have no common shape; the error names the field and the versions.
    pub fn of(versions: &[Schema]) -> Result<Self, ShapeError> {
        let (newest, older) = versions.split_last().ok_or(ShapeError::NoVersions)?;
        let mut fields = tree::of(newest, versions.len())?;
        for (index, schema) in older.iter().enumerate().rev() {
            merge::merge(&mut fields, tree::of(schema, index + 1)?, "")?;
        }
        let (columns, origins): (Vec<_>, Vec<_>) = merge::columns(&fields)?.into_iter().unzip();
        if columns.is_empty() {
            return Err(ShapeError::NoColumns);
        }
        merge::refuse_collisions(&columns)?;
        let shape = Self { columns };
        for (index, schema) in versions.iter().enumerate() {
            shape.refuse_ambiguity(schema, index + 1, &origins)?;
        }
        Ok(shape)
    }

    /// The Arrow schema: the columns in their order, under their names.
    pub fn arrow(&self) -> SchemaRef {
        let field = |column: &Column| Field::new(&column.name, column.kind.arrow(), column.nullable);
        Arc::new(ArrowSchema::new(self.columns.iter().map(field).collect::<Vec<_>>()))
    }

    /// Which column has this path (`context.page.url`) or this name (`context_page_url`).
    pub fn index(&self, path_or_name: &str) -> Option<usize> {
        self.columns
            .iter()
            .position(|column| column.path == path_or_name || column.name == path_or_name)
    }

    /// Which column takes the field that a writer has under this path: its own or an alias.
    pub fn place(&self, writer_path: &str) -> Option<usize> {
        let by_alias = |column: &Column| column.aliases.iter().any(|alias| alias == writer_path);
        let own = self.columns.iter().position(|column| column.path == writer_path);
        own.or_else(|| self.columns.iter().position(by_alias))
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

#[cfg(test)]
mod tests;
