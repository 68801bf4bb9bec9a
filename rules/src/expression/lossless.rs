//! Which values a column takes without losing anything of them.

use arrow::datatypes::{DataType, TimeUnit};
use datafusion_common::ScalarValue;

/// Whether every value of type `from` can be stored as `to` and read back. A literal is judged by its value: `5` is a
/// 64-bit integer in SQL and still fits into an `int`, and everybody means the nearest float by `0.1`.
///
/// # Errors
/// What to write instead.
pub fn check(from: &DataType, to: &DataType, literal: Option<&ScalarValue>) -> Result<(), String> {
    if from == to || *from == DataType::Null || fits(from, to) || literal.is_some_and(|value| round_trips(value, to)) {
        return Ok(());
    }
    let (wanted, is) = (noun(to), noun(from));
    if let Some(value) = literal.filter(|_| from.is_numeric() && to.is_numeric()) {
        return Err(format!("the column holds {wanted}; {value} is none"));
    }
    let convertible = !from.is_nested() && arrow::compute::can_cast_types(from, to);
    // A CAST of a decimal cuts off what is behind the point.
    let value = if matches!(from, DataType::Decimal128(..)) && to.is_integer() {
        "round(…)"
    } else {
        "…"
    };
    Err(match sql_name(to).filter(|_| convertible) {
        Some(sql) => {
            format!(
                "the column holds {wanted}, the value is {is}: write CAST({value} AS {sql}), which fails where it doesn't fit"
            )
        }
        None => format!("the column holds {wanted}, the value is {is}"),
    })
}

fn round_trips(value: &ScalarValue, to: &DataType) -> bool {
    let is_number = |data_type: &DataType| data_type.is_numeric();
    is_number(to)
        && is_number(&value.data_type())
        && value
            .cast_to(to)
            .and_then(|there| there.cast_to(&value.data_type()))
            .is_ok_and(|back| back == *value)
}

fn fits(from: &DataType, to: &DataType) -> bool {
    use DataType::{Date32, Decimal128, Float32, Float64, LargeUtf8, Timestamp, Utf8, Utf8View};
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, Utf8) => true,
        (DataType::Binary | DataType::LargeBinary | DataType::BinaryView, DataType::Binary) => true,
        (_, Utf8) => is_plain(from),
        (Float32, Float64) | (Date32, Timestamp(..)) => true,
        (Timestamp(fine, _), Timestamp(finer, _)) => unit_rank(fine) <= unit_rank(finer),
        (Decimal128(digits, scale), Decimal128(more, larger)) => {
            scale <= larger && whole_digits(*digits, *scale) <= whole_digits(*more, *larger)
        }
        (_, Decimal128(digits, scale)) => {
            integer_digits(from).is_some_and(|needed| needed <= whole_digits(*digits, *scale) && *scale >= 0)
        }
        (_, Float64) => integer_digits(from).is_some_and(|digits| digits <= 10),
        (_, Float32) => integer_digits(from).is_some_and(|digits| digits <= 5),
        _ => integer_bits(from)
            .zip(integer_bits(to))
            .is_some_and(|(needed, offered)| needed <= offered),
    }
}

/// Whether a text of the value says all of it.
pub fn is_plain(data_type: &DataType) -> bool {
    use DataType::{Boolean, Date32, Date64, LargeUtf8, Time32, Time64, Timestamp, Utf8, Utf8View};
    data_type.is_numeric()
        || matches!(
            data_type,
            Boolean | Date32 | Date64 | Time32(_) | Time64(_) | Timestamp(..) | Utf8 | LargeUtf8 | Utf8View
        )
}

fn unit_rank(unit: &TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

fn whole_digits(digits: u8, scale: i8) -> i16 {
    i16::from(digits) - i16::from(scale)
}

fn integer_digits(data_type: &DataType) -> Option<i16> {
    match data_type {
        DataType::Int8 | DataType::UInt8 => Some(3),
        DataType::Int16 | DataType::UInt16 => Some(5),
        DataType::Int32 | DataType::UInt32 => Some(10),
        DataType::Int64 => Some(19),
        DataType::UInt64 => Some(20),
        _ => None,
    }
}

/// Bits of a signed type that holds all values.
fn integer_bits(data_type: &DataType) -> Option<u8> {
    match data_type {
        DataType::Int8 => Some(8),
        DataType::Int16 => Some(16),
        DataType::UInt8 => Some(9),
        DataType::Int32 => Some(32),
        DataType::UInt16 => Some(17),
        DataType::Int64 => Some(64),
        DataType::UInt32 => Some(33),
        DataType::UInt64 => Some(65),
        _ => None,
    }
}

/// What a type is called in messages: `an integer of 64 bits`.
pub fn noun(data_type: &DataType) -> String {
    use DataType as T;
    match data_type {
        T::Null => "NULL".to_owned(),
        T::Boolean => "true or false".to_owned(),
        T::Int8 | T::UInt8 => "an integer of 8 bits".to_owned(),
        T::Int16 | T::UInt16 => "an integer of 16 bits".to_owned(),
        T::Int32 | T::UInt32 => "an integer of 32 bits".to_owned(),
        T::Int64 | T::UInt64 => "an integer of 64 bits".to_owned(),
        T::Float16 | T::Float32 | T::Float64 => "a float".to_owned(),
        T::Decimal32(digits, scale)
        | T::Decimal64(digits, scale)
        | T::Decimal128(digits, scale)
        | T::Decimal256(digits, scale) => format!("a decimal({digits},{scale})"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => "text".to_owned(),
        T::Binary | T::LargeBinary | T::BinaryView | T::FixedSizeBinary(_) => "bytes".to_owned(),
        T::Date32 | T::Date64 => "a date".to_owned(),
        T::Time32(_) | T::Time64(_) => "a time of day".to_owned(),
        T::Timestamp(unit, _) => format!("a timestamp in {}", unit_name(unit)),
        T::Interval(_) | T::Duration(_) => "an interval".to_owned(),
        T::Map(..) => "a map".to_owned(),
        T::List(_) | T::LargeList(_) | T::ListView(_) | T::LargeListView(_) | T::FixedSizeList(..) => {
            "a list".to_owned()
        }
        _ => format!("a {data_type}"),
    }
}

fn unit_name(unit: &TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "seconds",
        TimeUnit::Millisecond => "milliseconds",
        TimeUnit::Microsecond => "microseconds",
        TimeUnit::Nanosecond => "nanoseconds",
    }
}

/// What to write after AS in a CAST.
fn sql_name(data_type: &DataType) -> Option<String> {
    Some(match data_type {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 => "VARCHAR".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => "TIMESTAMP(3)".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => "TIMESTAMP(6)".to_owned(),
        DataType::Decimal128(digits, scale) => format!("DECIMAL({digits},{scale})"),
        _ => return None,
    })
}
