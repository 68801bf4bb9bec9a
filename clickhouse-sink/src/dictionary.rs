//! The dictionary of one `LowCardinality(String)` column in one block.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::native::varint;

/// Each different text once, in the order in which it was first seen. An open-addressing table of our own because the
/// standard one can't be probed by a slice while its keys lie in one buffer.
#[derive(Debug)]
pub(crate) struct Dictionary {
    /// All texts, end to end.
    texts: Vec<u8>,
    /// Where each text ends.
    ends: Vec<usize>,
    /// Index of a text + 1, or 0 for an empty slot; a power of two of them, at most half full.
    slots: Vec<u32>,
    /// The first number that a text may get: 1 if the column is nullable, because the server reads 0 as null.
    first: u32,
    /// The number given last: rows are sorted, so the next is likely to be the same.
    last: Option<u32>,
}

impl Dictionary {
    pub(crate) fn new(nullable: bool) -> Self {
        let ends = if nullable { vec![0] } else { Vec::new() };
        Self {
            texts: Vec::new(),
            first: ends.len() as u32,
            ends,
            slots: vec![0; 64],
            last: None,
        }
    }

    /// The number of `text`.
    pub(crate) fn index(&mut self, text: &[u8]) -> u32 {
        if let Some(last) = self.last.filter(|&last| &self.texts[self.range(last)] == text) {
            return last;
        }
        let mut slot = xxh3_64(text) as usize & (self.slots.len() - 1);
        let index = loop {
            match self.slots[slot].checked_sub(1) {
                None => break self.insert(text, slot),
                Some(index) if &self.texts[self.range(index)] == text => break index,
                Some(_) => slot = (slot + 1) & (self.slots.len() - 1),
            }
        };
        self.last = Some(index);
        index
    }

    /// How many numbers were given; the null of a nullable column is one.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The text of a number.
    pub(crate) fn text(&self, number: u32) -> &[u8] {
        &self.texts[self.range(number)]
    }

    fn insert(&mut self, text: &[u8], slot: usize) -> u32 {
        let index = self.ends.len() as u32;
        self.texts.extend_from_slice(text);
        self.ends.push(self.texts.len());
        self.slots[slot] = index + 1;
        if self.ends.len() * 2 > self.slots.len() {
            self.grow();
        }
        index
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 4 - 1;
        let mut slots = vec![0; mask + 1];
        for index in self.first..self.ends.len() as u32 {
            let mut slot = xxh3_64(&self.texts[self.range(index)]) as usize & mask;
            while slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            slots[slot] = index + 1;
        }
        self.slots = slots;
    }

    fn range(&self, index: u32) -> Range<usize> {
        let index = index as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        start..self.ends[index]
    }

    /// The column's values: the texts, then a number a row in as few bytes as the texts need.
    pub(crate) fn write(&self, out: &mut Vec<u8>, indices: &[u32]) {
        /// The keys come with the block, and the server is to start a new dictionary with them.
        const HAS_ADDITIONAL_KEYS: u64 = 1 << 9;
        const NEEDS_UPDATE: u64 = 1 << 10;
        let (width, kind): (usize, u64) = match self.ends.len() {
            0..=0x100 => (1, 0),
            0x101..=0x1_0000 => (2, 1),
            _ => (4, 2),
        };
        out.extend((kind | HAS_ADDITIONAL_KEYS | NEEDS_UPDATE).to_le_bytes());
        out.extend((self.ends.len() as u64).to_le_bytes());
        for index in 0..self.ends.len() as u32 {
            let text = &self.texts[self.range(index)];
            varint(out, text.len() as u64);
            out.extend_from_slice(text);
        }
        out.extend((indices.len() as u64).to_le_bytes());
        out.reserve(indices.len() * width);
        for index in indices {
            out.extend_from_slice(&index.to_le_bytes()[..width]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_texts_get_equal_numbers_and_each_number_leads_back_to_its_text(
            texts in proptest::collection::vec("[a-d]{0,4}", 0..600), nullable: bool,
        ) {
            let mut dictionary = Dictionary::new(nullable);
            let mut seen = BTreeMap::new();
            for text in &texts {
                let index = dictionary.index(text.as_bytes());
                prop_assert_eq!(&dictionary.texts[dictionary.range(index)], text.as_bytes());
                prop_assert_eq!(*seen.entry(text).or_insert(index), index);
                prop_assert!(index >= u32::from(nullable));
            }
            prop_assert_eq!(dictionary.ends.len(), seen.len() + usize::from(nullable));
        }
    }

    #[test]
    fn more_texts_take_wider_numbers() {
        for (texts, width) in [(256, 1), (257, 2), (65_536, 2), (65_537, 4)] {
            let mut dictionary = Dictionary::new(false);
            let indices: Vec<u32> = (0..texts)
                .map(|text: u32| dictionary.index(&text.to_le_bytes()))
                .collect();
            let mut out = Vec::new();
            dictionary.write(&mut out, &indices);
            assert_eq!(out.len(), 8 + 8 + texts as usize * 5 + 8 + texts as usize * width);
        }
    }
}
