//! The billing service: the contract of `docs/delivery.md`. Its cursor moves together with the charges.

use std::collections::BTreeMap;

use exactly_once_protocol::{Partition, Range};

use crate::mutations::Mutation;

/// One range with its charges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The offsets.
    pub range: Range,
    /// Over its charges.
    pub digest: u128,
    /// The first range ever of its partition, as the sender says.
    pub first: bool,
}

/// What came of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Charges and cursor are stored.
    Applied,
    /// They were.
    AlreadyApplied,
    /// Another content, or an overlap.
    Conflict,
    /// The range does not begin at the cursor.
    Gap,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Billing {
    cursors: BTreeMap<Partition, i64>,
    ranges: BTreeMap<(Partition, i64), (i64, u128)>,
    /// Parts that were applied since the oracle was told last.
    pub applied: Vec<Part>,
}

impl Billing {
    /// Applies a part, or says why not.
    pub fn deliver(&mut self, part: &Part, mutation: Mutation) -> Outcome {
        let Range { partition, start, end } = part.range;
        match self.cursors.get(&partition) {
            None if !part.first => return Outcome::Gap,
            Some(cursor) if *cursor < start => return Outcome::Gap,
            Some(cursor) if *cursor > start => {
                let known = self.ranges.get(&(partition, start));
                if known != Some(&(end, part.digest)) {
                    return Outcome::Conflict;
                }
                if mutation == Mutation::ForgetfulBilling {
                    self.applied.push(*part);
                }
                return Outcome::AlreadyApplied;
            }
            _ => {}
        }
        self.cursors.insert(partition, end);
        self.ranges.insert((partition, start), (end, part.digest));
        self.applied.push(*part);
        Outcome::Applied
    }

    /// Up to where a partition is applied.
    pub fn cursor(&self, partition: Partition) -> Option<i64> {
        self.cursors.get(&partition).copied()
    }
}
