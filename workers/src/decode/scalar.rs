//! Which types of a writer fit which kinds of column, and how their values are read.

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, UuidSchema};
use pipeline::shape::Kind;

use super::slot::{Number, Op, UuidBytes};
use super::types::decimal_limit;

/// How to read a value that is neither array nor map into a column of this kind; `None` = it cannot become one. The
/// promotions are those that the shape makes when it merges versions.
pub(super) fn scalar(schema: &Schema, kind: &Kind) -> Option<Op> {
    use Schema as S;
    Some(match (schema, kind) {
        (S::Boolean, Kind::Bool) => Op::Bool,
        (S::Int | S::TimeMillis, Kind::Int32) | (S::Date, Kind::Date) => Op::Int32,
        (S::Int | S::TimeMillis, Kind::Int64) => Op::Int64 { int: true },
        (S::Long | S::TimeMicros | S::TimestampNanos | S::LocalTimestampNanos, Kind::Int64)
        | (S::TimestampMillis | S::LocalTimestampMillis, Kind::TimestampMillis)
        | (S::TimestampMicros | S::LocalTimestampMicros, Kind::TimestampMicros) => Op::Int64 { int: false },
        (_, Kind::Float32) => Op::Float32(number(schema).filter(|number| *number != Number::Double)?),
        (_, Kind::Float64) => Op::Float64(number(schema)?),
        (S::String, Kind::String | Kind::Bytes) => Op::Bytes { utf8: true },
        (S::Bytes | S::BigDecimal, Kind::Bytes) => Op::Bytes { utf8: false },
        (S::Bytes | S::BigDecimal, Kind::String) => Op::Bytes { utf8: true },
        (S::Fixed(fixed) | S::Duration(fixed), Kind::Bytes) => Op::Fixed {
            size: fixed.size,
            utf8: false,
        },
        (S::Fixed(fixed) | S::Duration(fixed), Kind::String) => Op::Fixed {
            size: fixed.size,
            utf8: true,
        },
        (S::Enum(symbols), Kind::Enum | Kind::String) => Op::Enum {
            symbols: symbols.symbols.clone(),
        },
        (S::Uuid(form), Kind::Uuid | Kind::String) => Op::Uuid(match form {
            UuidSchema::String => UuidBytes::Text,
            UuidSchema::Bytes => UuidBytes::Prefixed,
            UuidSchema::Fixed(_) => UuidBytes::Fixed,
        }),
        (S::Decimal(decimal), Kind::Decimal { precision, scale }) => {
            let fits = decimal.precision <= usize::from(*precision) && i8::try_from(decimal.scale) == Ok(*scale);
            Op::Decimal {
                size: fixed_size(decimal),
                limit: decimal_limit(decimal.precision).filter(|_| fits)?,
            }
        }
        _ => return None,
    })
}

fn number(schema: &Schema) -> Option<Number> {
    match schema {
        Schema::Int | Schema::TimeMillis => Some(Number::Int),
        Schema::Long | Schema::TimeMicros | Schema::TimestampNanos | Schema::LocalTimestampNanos => Some(Number::Long),
        Schema::Float => Some(Number::Float),
        Schema::Double => Some(Number::Double),
        _ => None,
    }
}

fn fixed_size(decimal: &DecimalSchema) -> Option<usize> {
    match &decimal.inner {
        InnerDecimalSchema::Bytes => None,
        InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
    }
}
