//! Changing single entries of a map column. The other entries keep their order.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, StringArray, StructArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::interleave;
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

/// Where keys and values of the new map come from: `(0, entry)` of the old map or `(1, nth)` of the new ones.
struct Entries {
    keys: Vec<(usize, usize)>,
    values: Vec<(usize, usize)>,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

impl Entries {
    fn new(map: &MapArray) -> Self {
        let count = map.entries().len() + map.len();
        let mut offsets = Vec::with_capacity(map.len() + 1);
        offsets.push(0);
        Self {
            keys: Vec::with_capacity(count),
            values: Vec::with_capacity(count),
            offsets,
            valid: Vec::with_capacity(map.len()),
        }
    }

    fn push(&mut self, key: (usize, usize), value: (usize, usize)) {
        self.keys.push(key);
        self.values.push(value);
    }

    fn end_row(&mut self, valid: bool) -> Result<(), ArrowError> {
        let end = i32::try_from(self.keys.len()).map_err(|_| ArrowError::OffsetOverflowError(self.keys.len()))?;
        self.offsets.push(end);
        self.valid.push(valid);
        Ok(())
    }

    fn build(self, map: &MapArray, new_key: &str, new_values: &dyn Array) -> Result<ArrayRef, ArrowError> {
        let DataType::Map(field, ordered) = map.data_type() else {
            return Err(ArrowError::SchemaError("a map column is no map".to_owned()));
        };
        let DataType::Struct(fields) = field.data_type() else {
            return Err(ArrowError::SchemaError("a map's entries are no structs".to_owned()));
        };
        let new_keys = StringArray::from(vec![new_key]);
        let keys = interleave(&[map.keys().as_ref(), &new_keys], &self.keys)?;
        let values = interleave(&[map.values().as_ref(), new_values], &self.values)?;
        let entries = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
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

/// The entries of a row.
fn range(map: &MapArray, row: usize) -> std::ops::Range<usize> {
    let offsets = map.value_offsets();
    let at = |index: usize| usize::try_from(offsets[index]).unwrap_or(0);
    if map.is_null(row) { 0..0 } else { at(row)..at(row + 1) }
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
    if !(0..map.len()).any(changes_row) {
        return Ok(None);
    }
    let mut entries = Entries::new(map);
    for (row, change) in changes.iter().enumerate() {
        let mut pending = match change {
            Change::Put(nth) => Some(*nth),
            _ => None,
        };
        for entry in range(map, row) {
            if *change == Change::Keep || !is_key(&entry) {
                entries.push((0, entry), (0, entry));
            } else if let Some(nth) = pending.take() {
                // The first keeps its place; a key that a producer wrote twice comes only once after it.
                entries.push((0, entry), (1, nth));
            }
        }
        if let Some(nth) = pending {
            entries.push((1, 0), (1, nth));
        }
        entries.end_row(map.is_valid(row) || matches!(change, Change::Put(_)))?;
    }
    entries.build(map, key, new).map(Some)
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
    let mut entries = Entries::new(map);
    for (row, moved) in moved.iter().enumerate() {
        for entry in range(map, row) {
            let key = keys.value(entry);
            match moved {
                Some(moved) if entry == *moved => entries.push((1, 0), (0, entry)),
                Some(_) if key == from || key == to => {}
                _ => entries.push((0, entry), (0, entry)),
            }
        }
        entries.end_row(map.is_valid(row))?;
    }
    entries.build(map, to, map.values().as_ref()).map(Some)
}
