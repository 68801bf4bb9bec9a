//! What a table has of some ranges of the log.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::Client;
use crate::{Error, sql};

/// Half-open offsets of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub start: i64,
    /// The offset behind the last.
    pub end: i64,
}

/// A place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

/// Which row it is, and what it contains.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RowId {
    /// The Kafka topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The event's offset.
    pub offset: i64,
    /// Which of the rows that rules made of this event.
    pub index: u16,
    /// [`crate::row_hashes`].
    pub row_hash: u64,
}

/// Answers out of a cache are about the past.
pub(crate) const FRESH: [(&str, &str); 2] = [("use_query_cache", "0"), ("use_query_condition_cache", "0")];

impl Client {
    /// The rows that `table` has of `ranges`, in no order; a row that is there twice comes twice. One query, which the
    /// minmax index on the position makes cheap. Only true once nothing that could write them runs any more: see [`Client::running`].
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn read_back(&self, table: &str, ranges: &[Range]) -> Result<Vec<RowId>, Error> {
        let Some(within) = within(ranges) else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT CAST(_topic AS String), _partition, _offset, _index, _row_hash FROM {} WHERE {within} FORMAT RowBinary",
            self.table(table),
        );
        let fresh = FRESH.map(|(name, value)| (name, value.to_owned()));
        decode(&self.query_bytes(&sql, &fresh).await?)
    }

    /// The last row that `table` has of each partition at its position or later; partitions without one are left out.
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn rows_from(&self, table: &str, positions: &[Position]) -> Result<Vec<Position>, Error> {
        let open: Vec<Range> = positions
            .iter()
            .map(|position| Range {
                topic: position.topic.clone(),
                partition: position.partition,
                start: position.offset,
                end: i64::MAX,
            })
            .collect();
        let Some(within) = within(&open) else {
            return Ok(Vec::new());
        };
        self.positions("max(_offset)", &format!("{} WHERE {within}", self.table(table)))
            .await
    }

    /// The first row that `table` has of each partition. Reads three columns of the whole table.
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn oldest(&self, table: &str) -> Result<Vec<Position>, Error> {
        self.positions("min(_offset)", &self.table(table)).await
    }

    async fn positions(&self, which: &str, rows: &str) -> Result<Vec<Position>, Error> {
        let sql = format!(
            "SELECT CAST(_topic AS String) AS topic, _partition, {which} FROM {rows} \
             GROUP BY topic, _partition FORMAT TabSeparatedRaw",
        );
        let fresh = FRESH.map(|(name, value)| (name, value.to_owned()));
        let answer = self.query_bytes(&sql, &fresh).await?;
        let answer = String::from_utf8(answer).map_err(|error| Error::Answer(error.to_string()))?;
        let position = |line: &str| {
            let mut words = line.split('\t');
            let (topic, partition, offset) = (words.next()?, words.next()?, words.next()?);
            Some(Position {
                topic: topic.to_owned(),
                partition: partition.parse().ok()?,
                offset: offset.parse().ok()?,
            })
        };
        answer
            .lines()
            .map(|line| position(line).ok_or_else(|| Error::Answer(format!("{line:?} is no position"))))
            .collect()
    }
}

/// At most so many boxes a topic: see [`within`].
const BOXES_MAX: usize = 8;

/// The condition for `ranges`; `None` if they are all empty.
///
/// A disjunction of all ranges is what one would write, but the server checks each of its terms against the index of
/// each part: 500 parts and 128 ranges took six seconds, a thousand ranges more than a minute. So the index is asked
/// about a few boxes (some partitions, from one offset to another) that hold all ranges, and the rows in them are
/// compared with the ranges themselves in a way that the index doesn't see: a tenth of that, and constant.
pub(crate) fn within(ranges: &[Range]) -> Option<String> {
    let mut topics = BTreeMap::<&str, Vec<&Range>>::new();
    for range in ranges.iter().filter(|range| range.start < range.end) {
        topics.entry(&range.topic).or_default().push(range);
    }
    let of_topic = |(topic, mut ranges): (&str, Vec<&Range>)| {
        ranges.sort_by_key(|range| (range.start, range.end, range.partition));
        let boxes: Vec<String> = boxes(&ranges).into_iter().map(a_box).collect();
        format!(
            "(_topic = {} AND ({}) AND arrayExists((p, s, e) -> _partition = p AND _offset >= s AND _offset < e, \
             [{}], [{}], [{}]))",
            sql::text(topic),
            boxes.join(" OR "),
            list(&ranges, |range| range.partition.into()),
            list(&ranges, |range| range.start),
            list(&ranges, |range| range.end),
        )
    };
    let conditions: Vec<String> = topics.into_iter().map(of_topic).collect();
    (!conditions.is_empty()).then(|| conditions.join(" OR "))
}

fn a_box(ranges: &[&Range]) -> String {
    let start = ranges.iter().map(|range| range.start).min().unwrap_or_default();
    let end = ranges.iter().map(|range| range.end).max().unwrap_or_default();
    let partitions: BTreeSet<i32> = ranges.iter().map(|range| range.partition).collect();
    let partitions: Vec<String> = partitions.iter().map(i32::to_string).collect();
    format!(
        "(_partition IN ({}) AND _offset >= {start} AND _offset < {end})",
        partitions.join(", ")
    )
}

/// `ranges`, which are sorted by their starts, cut where the widest gaps are: partitions of one topic may be far apart.
fn boxes<'a, 'b>(ranges: &'b [&'a Range]) -> Vec<&'b [&'a Range]> {
    let mut gaps = Vec::new();
    let mut end = i64::MIN;
    for (at, range) in ranges.iter().enumerate() {
        if at > 0 && range.start > end {
            gaps.push((range.start.saturating_sub(end), at));
        }
        // Ranges without an end lie close where their starts do.
        end = end.max(if range.end == i64::MAX { range.start } else { range.end });
    }
    gaps.sort_unstable_by(|left, right| right.cmp(left));
    let mut cuts: Vec<usize> = gaps.iter().take(BOXES_MAX - 1).map(|(_, at)| *at).collect();
    cuts.sort_unstable();
    let starts = [0].into_iter().chain(cuts.iter().copied());
    let ends = cuts.iter().copied().chain([ranges.len()]);
    starts
        .zip(ends)
        .filter_map(|(start, end)| ranges.get(start..end))
        .collect()
}

fn list(ranges: &[&Range], of: impl Fn(&Range) -> i64) -> String {
    ranges
        .iter()
        .map(|range| of(range).to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn decode(mut bytes: &[u8]) -> Result<Vec<RowId>, Error> {
    let mut rows = Vec::new();
    while !bytes.is_empty() {
        let row = row(&mut bytes).ok_or_else(|| Error::Answer(format!("row {} is cut short", rows.len())))?;
        rows.push(row);
    }
    Ok(rows)
}

fn row(bytes: &mut &[u8]) -> Option<RowId> {
    let length = varint(bytes)?;
    let (topic, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(RowId {
        topic: String::from_utf8(topic.to_vec()).ok()?,
        partition: i32::from_le_bytes(take(bytes)?),
        offset: i64::from_le_bytes(take(bytes)?),
        index: u16::from_le_bytes(take(bytes)?),
        row_hash: u64::from_le_bytes(take(bytes)?),
    })
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

fn varint(bytes: &mut &[u8]) -> Option<usize> {
    let mut number = 0;
    for shift in (0..63).step_by(7) {
        let [byte] = take(bytes)?;
        number |= usize::from(byte & 0x7F) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_boxed_where_they_lie_close_and_cut_at_the_widest_gaps() {
        let range = |partition, start, end| Range {
            topic: "it's".to_owned(),
            partition,
            start,
            end,
        };
        assert_eq!(within(&[range(0, 5, 5)]), None);
        let one = within(&[range(1, 5, 9), range(0, 2, 6), range(0, 9, 9)]).unwrap();
        assert_eq!(
            one,
            r"(_topic = 'it\'s' AND ((_partition IN (0, 1) AND _offset >= 2 AND _offset < 9)) AND arrayExists((p, s, e) -> _partition = p AND _offset >= s AND _offset < e, [0, 1], [2, 5], [6, 9]))"
        );
        // Twenty ranges of ten, of which the first three are close; the gaps grow, so the seven last ones are cuts.
        let starts = (0..20).scan(0, |start, at| {
            *start += 10 + if at < 3 { 0 } else { at * 100 };
            Some(*start)
        });
        let ranges: Vec<Range> = starts.map(|start| range(0, start, start + 10)).collect();
        let sizes: Vec<usize> = boxes(&ranges.iter().collect::<Vec<_>>())
            .iter()
            .map(|some| some.len())
            .collect();
        assert_eq!(sizes, [13, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn rows_are_decoded_and_a_cut_answer_is_an_error() {
        let mut bytes = vec![3];
        bytes.extend(b"top");
        bytes.extend(7_i32.to_le_bytes());
        bytes.extend(8_i64.to_le_bytes());
        bytes.extend(9_u16.to_le_bytes());
        bytes.extend(u64::MAX.to_le_bytes());
        let row = RowId {
            topic: "top".to_owned(),
            partition: 7,
            offset: 8,
            index: 9,
            row_hash: u64::MAX,
        };
        assert_eq!(decode(&bytes.repeat(2)).unwrap(), [row.clone(), row]);
        for cut in 1..bytes.len() {
            assert!(matches!(decode(&bytes[..cut]), Err(Error::Answer(_))), "{cut}");
        }
    }
}
