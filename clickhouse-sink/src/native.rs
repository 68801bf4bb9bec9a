//! ClickHouse's Native format, column by column: Arrow's values in a given order of rows, without a copy in between.
//! The format is described by ClickHouse's `docs/en/interfaces/formats/Native` and, where that is silent, by its
//! `SerializationLowCardinality.cpp`; over HTTP it has no block info and no kinds of serialization.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};

use crate::dictionary::Dictionary;

/// How a column lies in a Native block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A value a row.
    Plain(DataType),
    /// A byte a row that says whether it is null, then a value a row.
    Nullable(DataType),
    /// Each different text once, then a small number a row.
    LowCardinality { nullable: bool },
    /// Where each row's elements end, then the elements. ClickHouse knows no null array: it becomes an empty one.
    Array(Box<Layout>),
    /// The same with keys, which are few and therefore low in cardinality, and values.
    Map(Box<Layout>),
}

/// One value can't be written without altering it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unwritable {
    /// The row in the batch.
    pub row: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Layout {
    /// The layout for an Arrow type; fails for types that no column of a pipeline has.
    pub(crate) fn of(data_type: &DataType, nullable: bool, low_cardinality: bool) -> Result<Self, String> {
        match data_type {
            DataType::Utf8 if low_cardinality => Ok(Self::LowCardinality { nullable }),
            DataType::List(item) => Ok(Self::Array(Box::new(Self::of(
                item.data_type(),
                item.is_nullable(),
                false,
            )?))),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == DataType::Utf8 => Ok(Self::Map(
                    Box::new(Self::of(pair[1].data_type(), pair[1].is_nullable(), false)?),
                )),
                other => Err(format!("a map's keys are texts, not {other}")),
            },
            scalar => {
                scalar_name(scalar)?;
                Ok(if nullable {
                    Self::Nullable(scalar.clone())
                } else {
                    Self::Plain(scalar.clone())
                })
            }
        }
    }

    /// The type's name in ClickHouse, spelled as `system.columns` spells it.
    pub(crate) fn type_name(&self) -> String {
        // `of` has checked that every scalar has a name.
        let scalar = |data_type| scalar_name(data_type).unwrap_or_default();
        match self {
            Self::Plain(data_type) => scalar(data_type),
            Self::Nullable(data_type) => format!("Nullable({})", scalar(data_type)),
            Self::LowCardinality { nullable: false } => "LowCardinality(String)".to_owned(),
            Self::LowCardinality { nullable: true } => "LowCardinality(Nullable(String))".to_owned(),
            Self::Array(item) => format!("Array({})", item.type_name()),
            Self::Map(value) => format!("Map(LowCardinality(String), {})", value.type_name()),
        }
    }

    /// What stands before all of the column's values: the version of each low-cardinality column in it, outermost first.
    pub(crate) fn prefix(&self, out: &mut Vec<u8>) {
        /// `KeysSerializationVersion::SharedDictionariesWithAdditionalKeys`, the only one.
        const KEYS_VERSION: u64 = 1;
        match self {
            Self::Plain(_) | Self::Nullable(_) => {}
            Self::LowCardinality { .. } => out.extend(KEYS_VERSION.to_le_bytes()),
            Self::Array(item) => item.prefix(out),
            Self::Map(value) => {
                out.extend(KEYS_VERSION.to_le_bytes());
                value.prefix(out);
            }
        }
    }

    /// The values of `rows`, in that order.
    pub(crate) fn values(&self, out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize]) -> Result<(), Unwritable> {
        match self {
            Self::Plain(_) => scalars(out, array, rows),
            Self::Nullable(_) => {
                match array.nulls() {
                    None => out.resize(out.len() + rows.len(), 0),
                    Some(nulls) => out.extend(rows.iter().map(|&row| u8::from(nulls.is_null(row)))),
                }
                scalars(out, array, rows)
            }
            Self::LowCardinality { nullable } => {
                low_cardinality(out, array, rows, *nullable);
                Ok(())
            }
            Self::Array(item) => {
                let lists = array.as_list::<i32>();
                let elements = nested(out, array, lists.offsets(), rows);
                item.values(out, lists.values(), &elements)
                    .map_err(|fault| fault.of_parent(lists.offsets()))
            }
            Self::Map(value) => {
                let maps = array.as_map();
                let entries = nested(out, array, maps.offsets(), rows);
                // A block's columns of low cardinality have no rows where no row has an entry: then nothing follows.
                if !entries.is_empty() {
                    low_cardinality(out, maps.keys(), &entries, false);
                }
                value
                    .values(out, maps.values(), &entries)
                    .map_err(|fault| fault.of_parent(maps.offsets()))
            }
        }
    }
}

impl Unwritable {
    /// The same fault, seen from the row whose list or map has the element.
    fn of_parent(self, offsets: &OffsetBuffer<i32>) -> Self {
        let row = offsets
            .partition_point(|&offset| offset as usize <= self.row)
            .saturating_sub(1);
        Self {
            row,
            reason: self.reason,
        }
    }
}

fn scalar_name(data_type: &DataType) -> Result<String, String> {
    Ok(match data_type {
        DataType::Boolean => "Bool".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => data_type.to_string(),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => data_type.to_string(),
        DataType::Float32 | DataType::Float64 => data_type.to_string(),
        DataType::Utf8 | DataType::Binary => "String".to_owned(),
        DataType::Date32 => "Date32".to_owned(),
        DataType::Timestamp(TimeUnit::Second, _) => "DateTime64(0, 'UTC')".to_owned(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => "DateTime64(3, 'UTC')".to_owned(),
        DataType::Timestamp(TimeUnit::Microsecond, _) => "DateTime64(6, 'UTC')".to_owned(),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "DateTime64(9, 'UTC')".to_owned(),
        DataType::Decimal128(precision, scale) if *scale >= 0 && *scale as u8 <= *precision => {
            format!("Decimal({precision}, {scale})")
        }
        other => return Err(format!("no column of a pipeline has the type {other}")),
    })
}

/// A length, as the format writes it: seven bits a byte, the lowest first.
pub(crate) fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// One text for all rows, as a column of low cardinality with its prefix.
pub(crate) fn constant_text(out: &mut Vec<u8>, text: &str, rows: usize) {
    Layout::LowCardinality { nullable: false }.prefix(out);
    let mut dictionary = Dictionary::new(false);
    dictionary.index(text.as_bytes());
    dictionary.write(out, &vec![0; rows]);
}

fn low_cardinality(out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize], nullable: bool) {
    let texts = array.as_string::<i32>();
    let mut dictionary = Dictionary::new(nullable);
    let index = |&row: &usize| {
        if nullable && texts.is_null(row) {
            0
        } else {
            dictionary.index(texts.value(row).as_bytes())
        }
    };
    let indices: Vec<u32> = rows.iter().map(index).collect();
    dictionary.write(out, &indices);
}

/// Writes where each row's elements end and answers which elements those are.
fn nested(out: &mut Vec<u8>, array: &ArrayRef, offsets: &OffsetBuffer<i32>, rows: &[usize]) -> Vec<usize> {
    let mut elements = Vec::new();
    out.reserve(rows.len() * 8);
    for &row in rows {
        if array.is_valid(row) {
            elements.extend(Range {
                start: offsets[row] as usize,
                end: offsets[row + 1] as usize,
            });
        }
        out.extend((elements.len() as u64).to_le_bytes());
    }
    elements
}

fn scalars(out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize]) -> Result<(), Unwritable> {
    match array.data_type() {
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            texts_of(out, array, rows, |row| texts.value(row).as_bytes());
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            texts_of(out, array, rows, |row| bytes.value(row));
        }
        DataType::Boolean => {
            let values = array.as_boolean();
            fixed(out, array, rows, |row| [u8::from(values.value(row))]);
        }
        DataType::Int8 => numbers::<Int8Type, 1>(out, array, rows, i8::to_le_bytes),
        DataType::Int16 => numbers::<Int16Type, 2>(out, array, rows, i16::to_le_bytes),
        DataType::Int32 => numbers::<Int32Type, 4>(out, array, rows, i32::to_le_bytes),
        DataType::Int64 => numbers::<Int64Type, 8>(out, array, rows, i64::to_le_bytes),
        DataType::UInt8 => numbers::<UInt8Type, 1>(out, array, rows, u8::to_le_bytes),
        DataType::UInt16 => numbers::<UInt16Type, 2>(out, array, rows, u16::to_le_bytes),
        DataType::UInt32 => numbers::<UInt32Type, 4>(out, array, rows, u32::to_le_bytes),
        DataType::UInt64 => numbers::<UInt64Type, 8>(out, array, rows, u64::to_le_bytes),
        DataType::Float32 => numbers::<Float32Type, 4>(out, array, rows, f32::to_le_bytes),
        DataType::Float64 => numbers::<Float64Type, 8>(out, array, rows, f64::to_le_bytes),
        DataType::Date32 => numbers::<Date32Type, 4>(out, array, rows, i32::to_le_bytes),
        DataType::Timestamp(TimeUnit::Second, _) => {
            numbers::<TimestampSecondType, 8>(out, array, rows, i64::to_le_bytes);
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            numbers::<TimestampMillisecondType, 8>(out, array, rows, i64::to_le_bytes);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers::<TimestampMicrosecondType, 8>(out, array, rows, i64::to_le_bytes);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            numbers::<TimestampNanosecondType, 8>(out, array, rows, i64::to_le_bytes);
        }
        DataType::Decimal128(precision, _) => return decimals(out, array, rows, *precision),
        // `Layout::of` admits no other type; a column without values fails the insert instead of altering it.
        other => {
            return Err(Unwritable {
                row: 0,
                reason: format!("no column of a pipeline has the type {other}"),
            });
        }
    }
    Ok(())
}

fn numbers<T: ArrowPrimitiveType, const N: usize>(
    out: &mut Vec<u8>,
    array: &ArrayRef,
    rows: &[usize],
    bytes: impl Fn(T::Native) -> [u8; N],
) {
    let values = array.as_primitive::<T>().values();
    fixed(out, array, rows, |row| bytes(values[row]));
}

/// As many bytes a row; zeros for a null, whatever Arrow has there, so that equal rows give equal bytes.
fn fixed<const N: usize>(out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize], bytes: impl Fn(usize) -> [u8; N]) {
    let start = out.len();
    out.resize(start + rows.len() * N, 0);
    let places = out[start..].chunks_exact_mut(N).zip(rows);
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => places.for_each(|(place, &row)| place.copy_from_slice(&bytes(row))),
        Some(nulls) => {
            places
                .filter(|(_, row)| nulls.is_valid(**row))
                .for_each(|(place, &row)| place.copy_from_slice(&bytes(row)));
        }
    }
}

fn texts_of<'a>(out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize], text: impl Fn(usize) -> &'a [u8]) {
    let nulls = array.nulls().filter(|nulls| nulls.null_count() > 0);
    for &row in rows {
        let null = nulls.is_some_and(|nulls| nulls.is_null(row));
        let bytes = if null { &[] } else { text(row) };
        varint(out, bytes.len() as u64);
        out.extend_from_slice(bytes);
    }
}

/// ClickHouse takes the smallest integer that holds the digits, and doesn't look at how many a value has: so look here.
fn decimals(out: &mut Vec<u8>, array: &ArrayRef, rows: &[usize], precision: u8) -> Result<(), Unwritable> {
    let values = array.as_primitive::<Decimal128Type>().values();
    let beyond = 10_i128.checked_pow(precision.into()).unwrap_or(i128::MAX);
    if let Some(&row) = rows
        .iter()
        .find(|&&row| array.is_valid(row) && values[row].unsigned_abs() >= beyond as u128)
    {
        let reason = format!("the unscaled number {} has more than {precision} digits", values[row]);
        return Err(Unwritable { row, reason });
    }
    match precision {
        ..=9 => fixed(out, array, rows, |row| (values[row] as i32).to_le_bytes()),
        10..=18 => fixed(out, array, rows, |row| (values[row] as i64).to_le_bytes()),
        _ => fixed(out, array, rows, |row| values[row].to_le_bytes()),
    }
    Ok(())
}
