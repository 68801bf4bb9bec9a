//! The order in which rows are written. A block that is already sorted by the table's key costs the server about a
//! third less CPU (design, section 1).

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::SortOptions;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use arrow::row::{RowConverter, SortField};

use crate::Error;
use crate::dictionary::Dictionary;

/// Texts of a column that has more different ones than this share of its rows are compared as they are: ordering them first would be
/// the same work again.
const DIFFERENT_TEXTS_MAX: usize = 2;

/// The rows of `batch` in ascending order of `columns` (names), nulls last, as ClickHouse sorts; equal rows keep
/// their order, so that equal input gives equal bytes. No columns: the order they have.
///
/// # Errors
/// [`Error::Column`] for a column that the batch doesn't have or that has no order (a map).
pub fn sort_order(batch: &RecordBatch, columns: &[impl AsRef<str>]) -> Result<Vec<usize>, Error> {
    if columns.is_empty() {
        return Ok((0..batch.num_rows()).collect());
    }
    let mut keys: Vec<ArrayRef> = Vec::with_capacity(columns.len());
    let mut fields = Vec::with_capacity(columns.len());
    for name in columns.iter().map(AsRef::as_ref) {
        let array = batch
            .column_by_name(name)
            .ok_or_else(|| Error::column(name, "not in the batch"))?;
        fields.push(SortField::new_with_options(
            array.data_type().clone(),
            SortOptions::new(false, false),
        ));
        keys.push(array.clone());
    }
    if let Some(order) = by_numbers(&keys, batch.num_rows()) {
        return Ok(order);
    }
    let unordered = |error: arrow::error::ArrowError| {
        let names: Vec<&str> = columns.iter().map(AsRef::as_ref).collect();
        Error::column(&names.join(", "), error.to_string())
    };
    let converter = RowConverter::new(fields).map_err(unordered)?;
    let rows = converter.convert_columns(&keys).map_err(unordered)?;
    let mut order: Vec<usize> = (0..batch.num_rows()).collect();
    order.sort_by(|&left, &right| rows.row(left).cmp(&rows.row(right)));
    Ok(order)
}

/// A column as numbers that are in the order of its values.
struct Ranks {
    ranks: Vec<u64>,
    /// All of them are smaller than two to this power.
    bits: u32,
}

/// The order of rows whose key fits into 128 bits together with the row's number, which most keys of a few texts and a time do: numbers
/// sort several times faster than rows of bytes. `None`: it does not fit, or a column is of a kind that this does not know.
fn by_numbers(keys: &[ArrayRef], rows: usize) -> Option<Vec<usize>> {
    let row_bits = bits(rows.saturating_sub(1) as u64);
    let mut left = 128_u32.checked_sub(row_bits)?;
    let mut packed = vec![0_u128; rows];
    for key in keys {
        let Ranks { ranks, bits } = ranks(key)?;
        left = left.checked_sub(bits)?;
        for (packed, rank) in packed.iter_mut().zip(ranks) {
            *packed = *packed << bits | u128::from(rank);
        }
    }
    let with_row = |(row, packed): (usize, u128)| packed << row_bits | row as u128;
    let row_of = (1_u128 << row_bits) - 1;
    if left >= 64 {
        let narrow = |both: (usize, u128)| with_row(both) as u64;
        let mut packed: Vec<u64> = packed.into_iter().enumerate().map(narrow).collect();
        packed.sort_unstable();
        return Some(packed.into_iter().map(|key| (key & row_of as u64) as usize).collect());
    }
    let mut packed: Vec<u128> = packed.into_iter().enumerate().map(with_row).collect();
    packed.sort_unstable();
    Some(packed.into_iter().map(|key| (key & row_of) as usize).collect())
}

fn bits(number: u64) -> u32 {
    u64::BITS - number.leading_zeros()
}

fn ranks(key: &ArrayRef) -> Option<Ranks> {
    match key.data_type() {
        DataType::Utf8 => of_texts(key.as_string::<i32>()),
        DataType::Int32 => of_numbers::<Int32Type>(key),
        DataType::Int64 => of_numbers::<Int64Type>(key),
        DataType::Date32 => of_numbers::<Date32Type>(key),
        DataType::Timestamp(TimeUnit::Millisecond, _) => of_numbers::<TimestampMillisecondType>(key),
        DataType::Timestamp(TimeUnit::Microsecond, _) => of_numbers::<TimestampMicrosecondType>(key),
        _ => None,
    }
}

/// Distances from the smallest; a null is behind the largest.
fn of_numbers<T: ArrowPrimitiveType<Native: Into<i64>>>(key: &ArrayRef) -> Option<Ranks> {
    let values = key.as_primitive::<T>();
    let all = || values.iter().flatten().map(Into::<i64>::into);
    let (least, most) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
    let span = most.abs_diff(least);
    let null = span.checked_add(1)?;
    let rank = |value: Option<T::Native>| value.map_or(null, |value| value.into().abs_diff(least));
    Some(Ranks {
        ranks: values.iter().map(rank).collect(),
        bits: bits(null),
    })
}

/// Places among the different texts; a null is behind the last.
fn of_texts(texts: &StringArray) -> Option<Ranks> {
    let mut dictionary = Dictionary::new(false);
    let different_max = texts.len() / DIFFERENT_TEXTS_MAX + 64;
    let mut numbers = Vec::with_capacity(texts.len());
    for text in texts {
        let Some(text) = text else {
            numbers.push(None);
            continue;
        };
        numbers.push(Some(dictionary.index(text.as_bytes())));
        if dictionary.len() > different_max {
            return None;
        }
    }
    let mut sorted: Vec<u32> = (0..dictionary.len() as u32).collect();
    sorted.sort_unstable_by_key(|number| dictionary.text(*number));
    let mut places = vec![0_u64; sorted.len()];
    for (place, number) in sorted.iter().enumerate() {
        places[*number as usize] = place as u64;
    }
    let null = sorted.len() as u64;
    let rank = |number: Option<u32>| number.map_or(null, |number| places[number as usize]);
    Some(Ranks {
        ranks: numbers.into_iter().map(rank).collect(),
        bits: bits(null),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int64Array, StringArray, TimestampMillisecondArray};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Narrow and wide keys, nulls, the ends of 64 bits, many equal rows.
        #[test]
        fn numbers_give_the_order_that_arrows_rows_give(
            rows in prop::collection::vec(
                (
                    prop::option::of("[a-c]{0,2}"),
                    prop::option::of(prop_oneof![0..5_i64, Just(i64::MIN), Just(i64::MAX), any::<i64>()]),
                    prop::option::of(0..3_i64),
                ),
                0..200,
            ),
            order_by in Just(["text", "wide", "time"]).prop_shuffle(),
            columns in 1..4_usize,
        ) {
            let batch = RecordBatch::try_from_iter_with_nullable([
                ("text", Arc::new(rows.iter().map(|row| row.0.clone()).collect::<StringArray>()) as ArrayRef, true),
                ("wide", Arc::new(rows.iter().map(|row| row.1).collect::<Int64Array>()) as ArrayRef, true),
                ("time", Arc::new(rows.iter().map(|row| row.2).collect::<TimestampMillisecondArray>()) as ArrayRef, true),
            ])
            .unwrap();
            let columns = &order_by[..columns];
            let mut expected: Vec<usize> = (0..rows.len()).collect();
            // `None` is smaller than any `Some`, and belongs behind them.
            let key = |row: usize, column: &str| match column {
                "text" => (rows[row].0.is_none(), rows[row].0.clone().unwrap_or_default(), 0),
                "wide" => (rows[row].1.is_none(), String::new(), rows[row].1.unwrap_or_default()),
                _ => (rows[row].2.is_none(), String::new(), rows[row].2.unwrap_or_default()),
            };
            expected.sort_by_key(|row| columns.iter().map(|column| key(*row, column)).collect::<Vec<_>>());
            prop_assert_eq!(sort_order(&batch, columns).unwrap(), expected);
        }
    }

    #[test]
    fn a_key_of_many_different_texts_is_sorted_too() {
        let texts: StringArray = (0..5000).rev().map(|number| Some(format!("{number:04}"))).collect();
        let batch = RecordBatch::try_from_iter([("text", Arc::new(texts) as ArrayRef)]).unwrap();
        let descending: Vec<usize> = (0..5000).rev().collect();
        assert_eq!(sort_order(&batch, &["text"]).unwrap(), descending);
    }

    #[test]
    fn rows_sort_by_every_column_with_nulls_last_and_equal_rows_in_their_order() {
        let tenants = StringArray::from(vec![Some("b"), None, Some("a"), Some("b"), Some("b")]);
        let times = Int64Array::from(vec![2, 1, 9, -1, 2]);
        let batch = RecordBatch::try_from_iter([
            ("tenant", Arc::new(tenants) as ArrayRef),
            ("time", Arc::new(times) as ArrayRef),
        ])
        .unwrap();
        assert_eq!(sort_order(&batch, &["tenant", "time"]).unwrap(), [2, 3, 0, 4, 1]);
        assert_eq!(sort_order(&batch, &[] as &[&str]).unwrap(), [0, 1, 2, 3, 4]);
        let missing = sort_order(&batch, &["tenants"]).unwrap_err();
        assert_eq!(missing.to_string(), "column tenants: not in the batch");
    }
}
