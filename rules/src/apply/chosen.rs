//! Which rows a rule is about.

use arrow::array::{Array, ArrayRef, BooleanArray, UInt32Array};
use arrow::compute::{interleave, prep_null_mask_filter, take};
use arrow::error::ArrowError;

/// Some of the rows that are being worked on, by their place among them.
#[derive(Debug)]
pub enum Chosen {
    All(usize),
    /// Ascending.
    Some(UInt32Array),
}

impl Chosen {
    /// Those for which a condition is true. NULL is not.
    pub fn by(condition: &BooleanArray) -> Self {
        let certain = match condition.null_count() {
            0 => condition.clone(),
            _ => prep_null_mask_filter(condition),
        };
        let bits = certain.values();
        if bits.count_set_bits() == bits.len() {
            return Self::All(bits.len());
        }
        Self::Some(bits.set_indices_u32().collect::<Vec<u32>>().into())
    }

    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => *rows,
            Self::Some(rows) => rows.len(),
        }
    }

    /// The place, among all rows, of the nth chosen one.
    pub fn row(&self, nth: usize) -> usize {
        match self {
            Self::All(_) => nth,
            Self::Some(rows) => usize::try_from(rows.value(nth)).unwrap_or(usize::MAX),
        }
    }

    pub fn rows(&self) -> impl Iterator<Item = usize> {
        (0..self.len()).map(|nth| self.row(nth))
    }

    /// Their values.
    pub fn of(&self, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::All(_) => Ok(ArrayRef::clone(values)),
            Self::Some(rows) => take(values, rows, None),
        }
    }

    /// All values, those of the chosen rows replaced by `new` (one for each chosen row) unless `keep` says otherwise
    /// of the nth.
    pub fn replaced(
        &self,
        old: &ArrayRef,
        new: &ArrayRef,
        keep: impl Fn(usize) -> bool,
    ) -> Result<ArrayRef, ArrowError> {
        let untouched = (0..self.len()).any(&keep);
        if let (Self::All(_), false) = (self, untouched) {
            return Ok(ArrayRef::clone(new));
        }
        let mut sources: Vec<(usize, usize)> = (0..old.len()).map(|row| (0, row)).collect();
        for nth in (0..self.len()).filter(|nth| !keep(*nth)) {
            sources[self.row(nth)] = (1, nth);
        }
        interleave(&[old, new], &sources)
    }
}
