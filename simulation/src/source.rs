//! The source log and the pure middle: what a range of offsets delivers.

use exactly_once_protocol::{Partition, Range, RangeOutput};
use xxhash_rust::xxh3::xxh3_128;

/// Partitions of the source topics: two of the first topic, one of the second.
pub const PARTITIONS: [Partition; 3] = [
    Partition { topic: 0, partition: 0 },
    Partition { topic: 0, partition: 1 },
    Partition { topic: 1, partition: 0 },
];

/// Rows go to two tables, by their offset: an insert of one may land and that of the other not.
pub const TABLES: i64 = 2;

/// The schema id that the registry does not know at first. Events of every eighth offset have it.
pub const LATE_SCHEMA: u32 = 9;

/// What decides the bytes of a delivery beside the log. The promise pins both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Made {
    /// Number of the rules revision.
    pub rules: u64,
    /// Whether the registry knew [`LATE_SCHEMA`].
    pub knew: bool,
}

impl Made {
    /// As a promise names the rules: number, and digest of their content.
    pub fn named(self) -> (u64, u64) {
        (self.rules, self.rules.wrapping_mul(0x0101_0101))
    }
}

/// What is delivered for one offset: in place of a row's bytes.
pub fn content(offset: i64, made: Made) -> u64 {
    made.rules * 2 + u64::from(is_late(offset) && !made.knew)
}

fn is_late(offset: i64) -> bool {
    offset % 8 == 5
}

/// Whether an offset's row belongs into a rollup.
pub fn summed(offset: i64) -> bool {
    offset % 6 < 4
}

/// Kafka's id of a topic.
pub fn topic_id(topic: u16) -> u128 {
    4_711 + u128::from(topic)
}

/// Every offset of a range.
pub fn offsets(range: Range) -> impl Iterator<Item = (Partition, i64)> {
    (range.start..range.end).map(move |offset| (range.partition, offset))
}

/// The digest over all outputs of a range, in log order.
pub fn digest(range: Range, made: Made) -> u128 {
    let mut bytes = Vec::with_capacity(24 + 8 * (range.end - range.start).max(0) as usize);
    bytes.extend(range.partition.topic.to_le_bytes());
    bytes.extend(range.partition.partition.to_le_bytes());
    for (_, offset) in offsets(range) {
        bytes.extend(offset.to_le_bytes());
        bytes.extend(content(offset, made).to_le_bytes());
    }
    xxh3_128(&bytes)
}

/// What a range delivers is a pure function of the log and of what the promise pins.
pub fn output(range: Range, made: Made) -> RangeOutput {
    if range.start == range.end {
        return RangeOutput::of_nothing(range);
    }
    let late = (range.start..range.end).any(is_late) && !made.knew;
    RangeOutput {
        range,
        outputs: u32::try_from(range.end - range.start).unwrap_or(u32::MAX),
        digest: digest(range, made),
        unknown_schemas: if late { vec![LATE_SCHEMA] } else { Vec::new() },
        summed: (range.start..range.end).any(summed),
    }
}
