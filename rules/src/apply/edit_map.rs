//! Changing single entries of a map column. The other entries keep their order.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, MapArray, MutableArrayData, StringArray, StructArray, make_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

/// What happens to an entry of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Keep,
    Remove,
    /// The nth of the new values.
    Put(usize),
}

/// A map being rewritten. Runs of entries that stay as they are are copied as a whole.
struct Rewriting<'a> {
    keys: MutableArrayData<'a>,
    values: MutableArrayData<'a>,
    /// Old entries before this one are copied or left out.
    done: usize,
    entries: usize,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

/// The first array of a [`MutableArrayData`].
const OLD: usize = 0;
/// The second.
const NEW: usize = 1;

impl<'a> Rewriting<'a> {
    fn new((old_keys, new_key): (&'a ArrayData, &'a ArrayData), values: Vec<&'a ArrayData>, map: &MapArray) -> Self {
        let capacity = map.entries().len() + map.len();
        let mut offsets = Vec::with_capacity(map.len() + 1);
        offsets.push(0);
        Self {
            keys: MutableArrayData::new(vec![old_keys, new_key], false, capacity),
            values: MutableArrayData::new(values, false, capacity),
            done: first_entry(map),
            entries: 0,
            offsets,
            valid: Vec::with_capacity(map.len()),
        }
    }

    /// Copies the old entries up to one, which is then done, too.
    fn keep_until(&mut self, entry: usize) -> Result<(), ArrowError> {
        if self.done < entry {
            self.keys.try_extend(OLD, self.done, entry)?;
            self.values.try_extend(OLD, self.done, entry)?;
            self.entries += entry - self.done;
        }
        self.done = entry;
        Ok(())
    }

    /// Leaves the next old entry out.
    fn skip(&mut self) {
        self.done += 1;
    }

    fn push(&mut self, key: (usize, usize), value: (usize, usize)) -> Result<(), ArrowError> {
        self.keys.try_extend(key.0, key.1, key.1 + 1)?;
        self.values.try_extend(value.0, value.1, value.1 + 1)?;
        self.entries += 1;
        Ok(())
    }

    fn end_row(&mut self, map: &MapArray, row: usize, valid: bool) -> Result<(), ArrowError> {
        let kept = range(map, row).end;
        let next = index(map.value_offsets()[row + 1]);
        if kept < next {
            // What a NULL covers is left out.
            self.keep_until(kept)?;
            self.done = next;
        }
        // What is kept of this row may still be to be copied, together with the next ones.
        let entries = self.entries + next.saturating_sub(self.done);
        self.offsets
            .push(i32::try_from(entries).map_err(|_| ArrowError::OffsetOverflowError(entries))?);
        self.valid.push(valid);
        Ok(())
    }

    fn finish(mut self, map: &MapArray) -> Result<ArrayRef, ArrowError> {
        self.keep_until(map.value_offsets().last().map_or(0, |end| index(*end)))?;
        let DataType::Map(field, ordered) = map.data_type() else {
            return Err(ArrowError::SchemaError("a map column is no map".to_owned()));
        };
        let DataType::Struct(fields) = field.data_type() else {
            return Err(ArrowError::SchemaError("a map's entries are no structs".to_owned()));
        };
        let columns = vec![make_array(self.keys.freeze()), make_array(self.values.freeze())];
        let entries = StructArray::try_new(fields.clone(), columns, None)?;
        let nulls = self.valid.contains(&false).then(|| NullBuffer::from(self.valid));
        let offsets = OffsetBuffer::new(self.offsets.into());
        Ok(Arc::new(MapArray::try_new(
            Arc::clone(field),
            offsets,
            entries,
            nulls,
            *ordered,
        )?))
    }
}

fn index(offset: i32) -> usize {
    usize::try_from(offset).unwrap_or(0)
}

fn first_entry(map: &MapArray) -> usize {
    map.value_offsets().first().map_or(0, |start| index(*start))
}

/// The entries of a row. A NULL has none, though its offsets may cover some.
fn range(map: &MapArray, row: usize) -> Range<usize> {
    let offsets = map.value_offsets();
    let (start, end) = (index(offsets[row]), index(offsets[row + 1]));
    if map.is_null(row) { start..start } else { start..end }
}

/// Puts or removes the entry `key` of each row. `None` when nothing changes.
pub fn put(map: &MapArray, key: &str, changes: &[Change], new: &dyn Array) -> Result<Option<ArrayRef>, ArrowError> {
    let keys = map.keys().as_string::<i32>();
    let is_key = |entry: &usize| keys.value(*entry) == key;
    let changes_row = |row: usize| match changes[row] {
        Change::Keep => false,
        Change::Put(_) => true,
        Change::Remove => range(map, row).any(|entry| is_key(&entry)),
    };
    let Some(first) = (0..map.len()).find(|row| changes_row(*row)) else {
        return Ok(None);
    };
    let (old_keys, new_key) = (map.keys().to_data(), StringArray::from(vec![key]).to_data());
    let (old_values, new_values) = (map.values().to_data(), new.to_data());
    let mut rewriting = Rewriting::new((&old_keys, &new_key), vec![&old_values, &new_values], map);
    for (row, change) in changes.iter().enumerate() {
        let entries = range(map, row);
        if *change != Change::Keep && row >= first {
            let mut pending = match change {
                Change::Put(nth) => Some(*nth),
                _ => None,
            };
            for entry in entries.clone().filter(is_key) {
                rewriting.keep_until(entry)?;
                rewriting.skip();
                // The first keeps its place; a key that a producer wrote twice comes only once after it.
                if let Some(nth) = pending.take() {
                    rewriting.push((OLD, entry), (NEW, nth))?;
                }
            }
            if let Some(nth) = pending {
                rewriting.keep_until(entries.end)?;
                rewriting.push((NEW, 0), (NEW, nth))?;
            }
        }
        rewriting.end_row(map, row, map.is_valid(row) || matches!(change, Change::Put(_)))?;
    }
    rewriting.finish(map).map(Some)
}

/// Moves the value of `from` to `to` in the chosen rows that have a `from`. `None` when none has.
pub fn rename(
    map: &MapArray,
    from: &str,
    to: &str,
    chosen: impl Iterator<Item = usize>,
) -> Result<Option<ArrayRef>, ArrowError> {
    let keys = map.keys().as_string::<i32>();
    let mut moved: Vec<Option<usize>> = vec![None; map.len()];
    for row in chosen {
        // As in a lookup, the last of several is the one that counts.
        moved[row] = range(map, row).rev().find(|entry| keys.value(*entry) == from);
    }
    if moved.iter().all(Option::is_none) {
        return Ok(None);
    }
    let (old_keys, new_key) = (map.keys().to_data(), StringArray::from(vec![to]).to_data());
    let values = map.values().to_data();
    let mut rewriting = Rewriting::new((&old_keys, &new_key), vec![&values], map);
    for (row, moved) in moved.iter().enumerate() {
        if let Some(moved) = moved {
            for entry in range(map, row).filter(|entry| keys.value(*entry) == from || keys.value(*entry) == to) {
                rewriting.keep_until(entry)?;
                rewriting.skip();
                if entry == *moved {
                    rewriting.push((NEW, 0), (OLD, entry))?;
                }
            }
        }
        rewriting.end_row(map, row, map.is_valid(row))?;
    }
    rewriting.finish(map).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{MapBuilder, StringBuilder};

    /// `None` is a NULL map.
    fn map(rows: &[Option<&[(&str, &str)]>]) -> MapArray {
        let mut builder = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
        for row in rows {
            for (key, value) in row.unwrap_or_default() {
                builder.keys().append_value(key);
                builder.values().append_value(value);
            }
            builder.append(row.is_some()).unwrap();
        }
        builder.finish()
    }

    fn rows(map: &dyn Array) -> Vec<Option<String>> {
        let map = map.as_map();
        let row = |row: usize| {
            let entries = map.value(row);
            let (keys, values) = (
                entries.column(0).as_string::<i32>(),
                entries.column(1).as_string::<i32>(),
            );
            let text = (0..keys.len()).map(|entry| format!("{}={}", keys.value(entry), values.value(entry)));
            map.is_valid(row).then(|| text.collect::<Vec<_>>().join(" "))
        };
        (0..map.len()).map(row).collect()
    }

    fn texts(texts: &[Option<&str>]) -> Vec<Option<String>> {
        texts.iter().map(|text| text.map(str::to_owned)).collect()
    }

    const ROWS: [Option<&[(&str, &str)]>; 6] = [
        Some(&[("a", "1"), ("k", "2"), ("b", "3")]),
        Some(&[]),
        None,
        Some(&[("k", "4"), ("c", "5"), ("k", "6")]),
        Some(&[("d", "7")]),
        None,
    ];

    #[test]
    fn entries_are_put_in_their_place_or_at_the_end_and_a_null_becomes_a_map() {
        let new = StringArray::from(vec!["x", "y", "z"]);
        let changes = [
            Change::Put(0),
            Change::Put(1),
            Change::Put(2),
            Change::Put(0),
            Change::Keep,
            Change::Keep,
        ];
        let put = put(&map(&ROWS), "k", &changes, &new).unwrap().unwrap();
        let expected = [
            Some("a=1 k=x b=3"),
            Some("k=y"),
            Some("k=z"),
            Some("k=x c=5"),
            Some("d=7"),
            None,
        ];
        assert_eq!(rows(&put), texts(&expected));
    }

    #[test]
    fn entries_are_removed_and_what_has_none_is_left_alone() {
        let none = StringArray::from(Vec::<&str>::new());
        let changes = [
            Change::Keep,
            Change::Remove,
            Change::Remove,
            Change::Remove,
            Change::Remove,
            Change::Remove,
        ];
        let removed = put(&map(&ROWS), "k", &changes, &none).unwrap().unwrap();
        let expected = [Some("a=1 k=2 b=3"), Some(""), None, Some("c=5"), Some("d=7"), None];
        assert_eq!(rows(&removed), texts(&expected));
        assert!(put(&map(&ROWS), "z", &changes, &none).unwrap().is_none());
    }

    #[test]
    fn a_rename_takes_the_last_of_doubled_keys_and_replaces_the_target() {
        let with_both: &[(&str, &str)] = &[("to", "8"), ("k", "9")];
        let all = [ROWS[0], ROWS[1], ROWS[2], ROWS[3], ROWS[4], Some(with_both)];
        let renamed = rename(&map(&all), "k", "to", 0..6).unwrap().unwrap();
        let expected = [
            Some("a=1 to=2 b=3"),
            Some(""),
            None,
            Some("c=5 to=6"),
            Some("d=7"),
            Some("to=9"),
        ];
        assert_eq!(rows(&renamed), texts(&expected));
        assert!(rename(&map(&all), "k", "to", [1, 2, 4].into_iter()).unwrap().is_none());
    }

    #[test]
    fn a_slice_of_a_map_is_edited_like_a_map_of_its_own() {
        let new = StringArray::from(vec!["x"]);
        let slice = map(&ROWS).slice(1, 3);
        let changes = [Change::Keep, Change::Keep, Change::Put(0)];
        let put = put(&slice, "k", &changes, &new).unwrap().unwrap();
        assert_eq!(rows(&put), texts(&[Some(""), None, Some("k=x c=5")]));
        let renamed = rename(&slice, "c", "e", 0..3).unwrap().unwrap();
        assert_eq!(rows(&renamed), texts(&[Some(""), None, Some("k=4 e=5 k=6")]));
    }
}
