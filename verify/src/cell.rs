//! One value in a form that is the same whoever tells it, and the fingerprint of a row of them.

use std::sync::Arc;

use xxhash_rust::xxh3::Xxh3;

use crate::ledger::Content;

/// A value. Dates and timestamps are their plain numbers; text and bytes are not told apart, for ClickHouse doesn't.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    Null,
    Bool(bool),
    Int(i64),
    Decimal(i128),
    Float32(f32),
    Float64(f64),
    Bytes(Vec<u8>),
    List(Vec<Cell>),
    /// In the order of the log; the order is no part of the fingerprint.
    Map(Vec<(Vec<u8>, Cell)>),
}

impl Cell {
    pub fn text(text: impl Into<String>) -> Cell {
        Cell::Bytes(text.into().into_bytes())
    }

    /// For people: text as text where it is some.
    pub fn show(&self) -> String {
        match self {
            Cell::Null => "NULL".to_owned(),
            Cell::Int(value) => value.to_string(),
            Cell::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => format!("{text:?}"),
                Err(_) => format!("b\"{}\"", bytes.escape_ascii()),
            },
            other => format!("{other:?}"),
        }
    }

    fn hash(&self, hasher: &mut Xxh3) {
        let mut tagged = |tag: u8, bytes: &[u8]| {
            hasher.update(&[tag]);
            hasher.update(bytes);
        };
        match self {
            Cell::Null => tagged(0, &[]),
            Cell::Bool(value) => tagged(1, &[u8::from(*value)]),
            Cell::Int(value) => tagged(2, &value.to_le_bytes()),
            Cell::Decimal(value) => tagged(3, &value.to_le_bytes()),
            Cell::Float32(value) => tagged(4, &value.to_bits().to_le_bytes()),
            Cell::Float64(value) => tagged(5, &value.to_bits().to_le_bytes()),
            Cell::Bytes(bytes) => {
                tagged(6, &(bytes.len() as u64).to_le_bytes());
                hasher.update(bytes);
            }
            Cell::List(items) => {
                tagged(7, &(items.len() as u64).to_le_bytes());
                items.iter().for_each(|item| item.hash(hasher));
            }
            Cell::Map(entries) => {
                tagged(8, &(entries.len() as u64).to_le_bytes());
                let mut sorted: Vec<_> = entries.iter().collect();
                sorted.sort_by(|one, other| one.0.cmp(&other.0));
                for (key, value) in sorted {
                    hasher.update(&(key.len() as u64).to_le_bytes());
                    hasher.update(key);
                    value.hash(hasher);
                }
            }
        }
    }
}

/// What is kept of a row: a hash of all of it, and a few bits for each column, so that a difference can be laid to a column
/// without keeping the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    hash: u128,
    sketch: Sketch,
}

/// Even columns have their bits in the first half, odd ones in the second.
type Sketch = [u128; 2];

/// A row's cells go in, in the order of the source's columns.
pub struct Fingerprinter {
    hasher: Xxh3,
    sketch: Sketch,
    columns: usize,
    column: usize,
}

/// Where a column's bits stand in its half of a sketch of this many columns. More than 256 columns share them.
fn bits(column: usize, columns: usize) -> (u128, usize) {
    let width = (128 / columns.div_ceil(2).max(1)).clamp(1, 16);
    ((1 << width) - 1, column / 2 % (128 / width) * width)
}

impl Fingerprinter {
    pub fn new(columns: usize) -> Fingerprinter {
        Fingerprinter {
            hasher: Xxh3::new(),
            sketch: [0; 2],
            columns,
            column: 0,
        }
    }

    pub fn add(&mut self, cell: &Cell) {
        let mut own = Xxh3::new();
        cell.hash(&mut own);
        let hash = own.digest();
        cell.hash(&mut self.hasher);
        let (mask, shift) = bits(self.column, self.columns);
        let [even, odd] = &mut self.sketch;
        let half = if self.column.is_multiple_of(2) { even } else { odd };
        *half ^= (u128::from(hash) & mask) << shift;
        self.column += 1;
    }

    pub fn finish(self) -> Fingerprint {
        Fingerprint {
            hash: self.hasher.digest128(),
            sketch: self.sketch,
        }
    }
}

/// A row as a table has it.
pub struct FoundRow {
    pub fingerprint: Fingerprint,
    pub columns: Arc<[String]>,
}

impl Content for Fingerprint {
    type Found = FoundRow;

    fn difference(&self, found: &FoundRow) -> Option<String> {
        let theirs = found.fingerprint;
        if *self == theirs {
            return None;
        }
        let half = |sketch: Sketch, column: usize| {
            let [even, odd] = sketch;
            if column.is_multiple_of(2) { even } else { odd }
        };
        let differs = |column: usize| {
            let (mask, shift) = bits(column, found.columns.len());
            (half(self.sketch, column) ^ half(theirs.sketch, column)) >> shift & mask != 0
        };
        let columns: Vec<_> = found
            .columns
            .iter()
            .enumerate()
            .filter(|(column, _)| differs(*column))
            .map(|(_, name)| name.as_str())
            .collect();
        Some(match columns.is_empty() {
            true => "some column differs".to_owned(),
            false => format!("probably {}", columns.join(", ")),
        })
    }
}

/// 128 bits over any parts; the lengths keep them apart.
pub fn hash_of(parts: &[&[u8]]) -> u128 {
    let mut hasher = Xxh3::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.digest128()
}
