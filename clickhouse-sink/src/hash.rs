//! What a row contains, as one number: how a read-back tells "this row is there" from "another row is there".

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{ArrowPrimitiveType, TimeUnit};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
    TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::Error;
use crate::plain::plain;

/// One hash a row over all its columns: the wrapping sum of each value's xxh3-64, seeded by the column's name. A null
/// adds nothing, so a nullable column that is added later changes no hash; neither does the order of the columns, nor
/// a promotion that Avro allows (int to long, float to double, string to bytes).
///
/// # Errors
/// [`Error::Column`] for a type that no column of a pipeline has.
pub fn row_hashes(batch: &RecordBatch) -> Result<Vec<u64>, Error> {
    let mut hashes = vec![0_u64; batch.num_rows()];
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let seed = xxh3_64(field.name().as_bytes());
        let array = plain(field.name(), array)?;
        add_column(&mut hashes, &array, seed).map_err(|reason| Error::column(field.name(), reason))?;
    }
    Ok(hashes)
}

/// Adds one column's values to the rows' hashes, one tight loop a type.
fn add_column(hashes: &mut [u64], array: &ArrayRef, seed: u64) -> Result<(), String> {
    match array.data_type() {
        DataType::Utf8 => {
            let texts = array.as_string::<i32>();
            each_value(hashes, array, |row| {
                xxh3_64_with_seed(texts.value(row).as_bytes(), seed)
            });
        }
        DataType::Binary => {
            let bytes = array.as_binary::<i32>();
            each_value(hashes, array, |row| xxh3_64_with_seed(bytes.value(row), seed));
        }
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let elements = value_hashes(lists.values())?;
            each_value(hashes, array, |row| {
                let of_row = &elements[range(lists.value_offsets(), row)];
                let chain = |sum: u64, element: &u64| xxh3_64_with_seed(&element.to_le_bytes(), sum);
                xxh3_64_with_seed(&of_row.iter().fold(of_row.len() as u64, chain).to_le_bytes(), seed)
            });
        }
        DataType::Map(_, _) => {
            let maps = array.as_map();
            let (keys, values) = (value_hashes(maps.keys())?, value_hashes(maps.values())?);
            let entries: Vec<u64> = keys
                .iter()
                .zip(&values)
                .map(|(key, value)| xxh3_64_with_seed(&value.to_le_bytes(), *key))
                .collect();
            // A map has no order, so its entries are summed; their number tells an empty map from none.
            each_value(hashes, array, |row| {
                let of_row = &entries[range(maps.value_offsets(), row)];
                let sum = of_row
                    .iter()
                    .fold(of_row.len() as u64, |sum, entry| sum.wrapping_add(*entry));
                xxh3_64_with_seed(&sum.to_le_bytes(), seed)
            });
        }
        _ => return add_fixed(hashes, array, seed),
    }
    Ok(())
}

/// Integers as 64 bits and floats as double precision, so that a promoted column keeps its hashes.
fn add_fixed(hashes: &mut [u64], array: &ArrayRef, seed: u64) -> Result<(), String> {
    fn numbers<T: ArrowPrimitiveType, const N: usize>(
        hashes: &mut [u64],
        array: &ArrayRef,
        seed: u64,
        bytes: impl Fn(T::Native) -> [u8; N],
    ) {
        let values = array.as_primitive::<T>().values();
        each_value(hashes, array, |row| xxh3_64_with_seed(&bytes(values[row]), seed));
    }
    let signed = i64::to_le_bytes;
    match array.data_type() {
        DataType::Boolean => {
            let values = array.as_boolean();
            each_value(hashes, array, |row| {
                xxh3_64_with_seed(&[u8::from(values.value(row))], seed)
            });
        }
        DataType::Int8 => numbers::<Int8Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::Int16 => numbers::<Int16Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::Int32 => numbers::<Int32Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::Int64 => numbers::<Int64Type, 8>(hashes, array, seed, signed),
        DataType::UInt8 => numbers::<UInt8Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::UInt16 => numbers::<UInt16Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::UInt32 => numbers::<UInt32Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::UInt64 => numbers::<UInt64Type, 8>(hashes, array, seed, u64::to_le_bytes),
        DataType::Float32 => {
            numbers::<Float32Type, 8>(hashes, array, seed, |value| f64::from(value).to_bits().to_le_bytes());
        }
        DataType::Float64 => numbers::<Float64Type, 8>(hashes, array, seed, |value| value.to_bits().to_le_bytes()),
        DataType::Date32 => numbers::<Date32Type, 8>(hashes, array, seed, |value| signed(value.into())),
        DataType::Timestamp(TimeUnit::Second, _) => numbers::<TimestampSecondType, 8>(hashes, array, seed, signed),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            numbers::<TimestampMillisecondType, 8>(hashes, array, seed, signed);
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            numbers::<TimestampMicrosecondType, 8>(hashes, array, seed, signed);
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            numbers::<TimestampNanosecondType, 8>(hashes, array, seed, signed);
        }
        DataType::Decimal128(_, _) => numbers::<Decimal128Type, 16>(hashes, array, seed, i128::to_le_bytes),
        other => return Err(format!("no column of a pipeline has the type {other}")),
    }
    Ok(())
}

fn each_value(hashes: &mut [u64], array: &ArrayRef, mut hash: impl FnMut(usize) -> u64) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => {
            for (row, sum) in hashes.iter_mut().enumerate() {
                *sum = sum.wrapping_add(hash(row));
            }
        }
        Some(nulls) => {
            for row in nulls.valid_indices() {
                hashes[row] = hashes[row].wrapping_add(hash(row));
            }
        }
    }
}

/// The hashes of a list's elements, or of a map's keys or values. A null among them isn't left out as a null column
/// is: `[null]` is not `[]`.
fn value_hashes(values: &ArrayRef) -> Result<Vec<u64>, String> {
    const NULL_ELEMENT: u64 = 0x5AFE_0000_0000_0001;
    let mut hashes = vec![0; values.len()];
    add_column(&mut hashes, values, 0)?;
    for index in (0..values.len()).filter(|&index| values.is_null(index)) {
        hashes[index] = NULL_ELEMENT;
    }
    Ok(hashes)
}

fn range(offsets: &[i32], row: usize) -> Range<usize> {
    offsets[row] as usize..offsets[row + 1] as usize
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, ListArray,
        MapBuilder, StringArray, StringBuilder, StringViewArray,
    };
    use proptest::prelude::*;

    use super::*;

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn hashes(columns: Vec<(&str, ArrayRef)>) -> Vec<u64> {
        row_hashes(&batch(columns)).unwrap()
    }

    fn map(rows: &[&[(&str, Option<&str>)]]) -> ArrayRef {
        let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in rows {
            for (key, value) in *row {
                maps.keys().append_value(key);
                maps.values().append_option(*value);
            }
            maps.append(true).unwrap();
        }
        Arc::new(maps.finish())
    }

    #[test]
    fn hashes_stay_what_they_are_because_tables_hold_them() {
        let got = hashes(vec![
            ("tenant_id", Arc::new(StringArray::from(vec![Some("acme"), None]))),
            ("amount", Arc::new(Int64Array::from(vec![1250, -7]))),
            ("paid", Arc::new(BooleanArray::from(vec![Some(true), None]))),
            ("day", Arc::new(Date32Array::from(vec![Some(20_000), None]))),
            ("properties", map(&[&[("a", Some("1")), ("b", None)], &[]])),
            (
                "sizes",
                Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                    Some(vec![Some(1), None]),
                    None,
                ])),
            ),
        ]);
        assert_eq!(got, GOLDEN);
    }

    /// Computed by another implementation of xxh3 from the description at `row_hashes`.
    const GOLDEN: [u64; 2] = [4_421_427_920_430_617_664, 13_423_162_943_256_635_270];

    #[test]
    fn promotions_of_avro_and_other_layouts_of_arrow_change_no_hash() {
        let number = |array: ArrayRef| hashes(vec![("n", array)]);
        assert_eq!(
            number(Arc::new(Int32Array::from(vec![-5]))),
            number(Arc::new(Int64Array::from(vec![-5])))
        );
        assert_eq!(
            number(Arc::new(Float32Array::from(vec![0.5]))),
            number(Arc::new(Float64Array::from(vec![0.5])))
        );
        let text = number(Arc::new(StringArray::from(vec!["caf\u{e9}"])));
        assert_eq!(text, number(Arc::new(BinaryArray::from(vec!["caf\u{e9}".as_bytes()]))));
        assert_eq!(text, number(Arc::new(StringViewArray::from(vec!["caf\u{e9}"]))));
    }

    #[test]
    fn a_null_an_empty_value_and_a_null_element_are_three_things() {
        let lists = |rows: Vec<Option<Vec<Option<i32>>>>| -> ArrayRef {
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(rows))
        };
        let got = hashes(vec![(
            "l",
            lists(vec![
                None,
                Some(vec![]),
                Some(vec![None]),
                Some(vec![Some(1), Some(2)]),
                Some(vec![Some(2), Some(1)]),
            ]),
        )]);
        assert_eq!(got[0], 0);
        let mut different = got.clone();
        different.sort_unstable();
        different.dedup();
        assert_eq!(different.len(), got.len());
        assert_ne!(hashes(vec![("m", map(&[&[]]))]), [0]);
    }

    #[test]
    fn the_order_of_a_maps_entries_does_not_matter_but_which_key_has_which_value_does() {
        let got = hashes(vec![(
            "m",
            map(&[
                &[("a", Some("1")), ("b", Some("2"))],
                &[("b", Some("2")), ("a", Some("1"))],
                &[("a", Some("2")), ("b", Some("1"))],
            ]),
        )]);
        assert_eq!(got[0], got[1]);
        assert_ne!(got[0], got[2]);
    }

    proptest! {
        #[test]
        fn column_order_slices_and_added_null_columns_change_nothing(
            rows in proptest::collection::vec((proptest::option::of(any::<i64>()), ".{0,20}", any::<bool>()), 1..20),
            cut in 0_usize..20,
        ) {
            let a: ArrayRef = Arc::new(Int64Array::from(rows.iter().map(|row| row.0).collect::<Vec<_>>()));
            let b: ArrayRef = Arc::new(StringArray::from(rows.iter().map(|row| row.1.as_str()).collect::<Vec<_>>()));
            let c: ArrayRef = map(&rows.iter().map(|row| if row.2 { &[("k", Some("v"))][..] } else { &[] }).collect::<Vec<_>>());
            let new: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>; rows.len()]));
            let whole = batch(vec![("a", a.clone()), ("b", b.clone()), ("c", c.clone())]);
            let expected = row_hashes(&whole).unwrap();
            prop_assert_eq!(&hashes(vec![("c", c.clone()), ("new", new), ("b", b.clone()), ("a", a.clone())]), &expected);
            let cut = cut.min(rows.len() - 1);
            prop_assert_eq!(row_hashes(&whole.slice(cut, rows.len() - cut)).unwrap(), expected[cut..].to_vec());
            // The same values under other names are other rows.
            prop_assert_ne!(hashes(vec![("x", a), ("b", b), ("c", c)])[0] == expected[0], rows[0].0.is_some());
        }
    }
}
