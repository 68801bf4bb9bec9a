//! One digest for each range over everything that it delivers, in log order: rebuilding a promised range has to give
//! the same one.

use std::collections::BTreeMap;

use exactly_once_protocol::{Partition, Range};
use xxhash_rust::xxh3::Xxh3;

/// What kind of output an entry stands for. The order is part of the digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// A row of a table.
    Row,
    /// An alert.
    Alert,
    /// A charge.
    Charge,
    /// A dead letter.
    Dead,
}

/// Offset, kind, which of its kind, and a hash of its content.
type Entry = (i64, Output, u16, u64);

/// Collects one entry for each output of a batch.
#[derive(Default)]
pub struct Digests {
    entries: BTreeMap<Partition, Vec<Entry>>,
}

impl Digests {
    /// Adds an output: where its event stands, what it is, which of its kind, and a hash of its content.
    pub fn push(&mut self, partition: Partition, offset: i64, output: Output, n: u16, content: u64) {
        let entries = self.entries.entry(partition).or_default();
        entries.push((offset, output, n, content));
    }

    /// Digest and number of outputs of each range, one of each partition.
    pub fn by_range(mut self, ranges: &[Range]) -> Vec<(u128, u32)> {
        let mut digested = Vec::with_capacity(ranges.len());
        for range in ranges {
            let mut own = self.entries.remove(&range.partition).unwrap_or_default();
            // Rows, alerts and charges each come in order: the stable sort finds these runs, and merges them.
            own.sort();
            let mut hasher = Xxh3::new();
            hasher.update(&range.start.to_le_bytes());
            hasher.update(&range.end.to_le_bytes());
            for (offset, output, n, content) in &own {
                let mut bytes = [0u8; 19];
                bytes[..8].copy_from_slice(&offset.to_le_bytes());
                bytes[8] = *output as u8;
                bytes[9..11].copy_from_slice(&n.to_le_bytes());
                bytes[11..].copy_from_slice(&content.to_le_bytes());
                hasher.update(&bytes);
            }
            digested.push((hasher.digest128(), u32::try_from(own.len()).unwrap_or(u32::MAX)));
        }
        digested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(partition: i32) -> Partition {
        Partition { topic: 0, partition }
    }

    fn range(p: i32, start: i64, end: i64) -> Range {
        Range {
            partition: partition(p),
            start,
            end,
        }
    }

    #[test]
    fn a_digest_does_not_depend_on_the_order_in_which_sources_were_transformed() {
        let entries = [
            (0, 5, Output::Row, 0, 7),
            (0, 4, Output::Alert, 1, 8),
            (2, 1, Output::Dead, 0, 9),
        ];
        let digest = |order: &[usize]| {
            let mut digests = Digests::default();
            for at in order {
                let (p, offset, output, n, content) = entries[*at];
                digests.push(partition(p), offset, output, n, content);
            }
            digests.by_range(&[range(0, 4, 6), range(1, 0, 3), range(2, 1, 2)])
        };
        assert_eq!(digest(&[0, 1, 2]), digest(&[2, 1, 0]));
        assert_eq!(
            digest(&[0, 1, 2]).iter().map(|(_, count)| *count).collect::<Vec<_>>(),
            [2, 0, 1]
        );
    }

    #[test]
    fn another_content_offset_kind_or_range_gives_another_digest() {
        let digest = |offset, output, n, content, end| {
            let mut digests = Digests::default();
            digests.push(partition(0), offset, output, n, content);
            digests.by_range(&[range(0, 0, end)])[0].0
        };
        let all = [
            digest(0, Output::Row, 0, 1, 2),
            digest(1, Output::Row, 0, 1, 2),
            digest(0, Output::Alert, 0, 1, 2),
            digest(0, Output::Row, 1, 1, 2),
            digest(0, Output::Row, 0, 2, 2),
            digest(0, Output::Row, 0, 1, 3),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
