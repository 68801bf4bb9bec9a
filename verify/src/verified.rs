//! Which offsets are verified, and where in them an output says that it comes from.

use std::collections::{BTreeMap, HashMap};

use crate::kafka::Range;
use crate::ledger::Place;

/// The ranges that are verified, by topic and partition.
pub struct Verified {
    pub sources: HashMap<String, (u16, BTreeMap<i32, Range>)>,
}

impl Verified {
    pub fn new(sources: impl IntoIterator<Item = (String, Vec<Range>)>) -> Verified {
        let numbered = (0u16..).zip(sources);
        let entry = |(index, (topic, ranges)): (u16, (String, Vec<Range>))| {
            (
                topic,
                (
                    index,
                    ranges.into_iter().map(|range| (range.partition, range)).collect(),
                ),
            )
        };
        Verified {
            sources: numbered.map(entry).collect(),
        }
    }

    /// `None` = of no source; `Some(None)` = of a source, outside of what is verified.
    pub fn place(&self, topic: &str, partition: i32, offset: i64) -> Option<Option<Place>> {
        let (source, ranges) = self.sources.get(topic)?;
        let range = ranges.get(&partition)?;
        let inside = range.start <= offset && offset < range.end;
        Some(inside.then_some(Place {
            source: *source,
            partition,
            offset,
            index: 0,
        }))
    }

    /// The same for an id `topic/partition/offset/n`.
    pub fn place_of_id(&self, id: &str) -> Option<Option<Place>> {
        let (topic, partition, offset, index) = parts(id)?;
        let place = self.place(topic, partition, offset)?;
        Some(place.map(|place| Place { index, ..place }))
    }

    /// Whether the offset lies before what is verified.
    pub fn is_past(&self, topic: &str, partition: i32, offset: i64) -> bool {
        let ranges = self.sources.get(topic).map(|(_, ranges)| ranges);
        let range = ranges.and_then(|ranges| ranges.get(&partition));
        range.is_some_and(|range| offset < range.start)
    }

    /// The same for an id `topic/partition/offset/n`.
    pub fn is_past_id(&self, id: &str) -> bool {
        parts(id).is_some_and(|(topic, partition, offset, _)| self.is_past(topic, partition, offset))
    }

    /// What is verified of a source, as a condition on `_topic`, `_partition` and `_offset` of a table: one box for the index, and
    /// each partition's own offsets in a form whose cost does not grow with the number of partitions.
    pub fn condition(&self, source: usize) -> String {
        let Some((topic, mut ranges)) = self.of(source) else {
            return "false".to_owned();
        };
        ranges.retain(|range| range.start < range.end);
        let (first, last) = (
            ranges.iter().map(|range| range.start),
            ranges.iter().map(|range| range.end),
        );
        let (Some(first), Some(last)) = (first.min(), last.max()) else {
            return "false".to_owned();
        };
        format!(
            "_topic = '{topic}' AND _offset >= {first} AND _offset < {last} AND _offset >= {} AND _offset < {}",
            bound(&ranges, |range| range.start, i64::MAX),
            bound(&ranges, |range| range.end, -1),
        )
    }

    /// The same without what lies before it: rows of no source or partition, and of offsets beyond, are looked at. `None` =
    /// there is nothing before it.
    pub fn but_the_past(&self, source: usize) -> Option<String> {
        let (topic, ranges) = self.of(source)?;
        ranges.iter().any(|range| range.start > 0).then(|| {
            format!(
                "_topic != '{topic}' OR _offset >= {}",
                bound(&ranges, |range| range.start, i64::MIN)
            )
        })
    }

    /// A source's topic inside a text of SQL, and its ranges.
    fn of(&self, source: usize) -> Option<(String, Vec<&Range>)> {
        let mut sources = self.sources.iter();
        let (topic, (_, ranges)) = sources.find(|(_, (index, _))| usize::from(*index) == source)?;
        let topic = topic.replace('\\', "\\\\").replace('\'', "\\'");
        Some((topic, ranges.values().collect()))
    }
}

/// A bound of the ranges by `_partition`.
fn bound(ranges: &[&Range], of: fn(&Range) -> i64, otherwise: i64) -> String {
    let list = |of: fn(&Range) -> i64| {
        let numbers: Vec<String> = ranges.iter().map(|range| of(range).to_string()).collect();
        format!("CAST([{}], 'Array(Int64)')", numbers.join(", "))
    };
    format!(
        "transform(toInt64(_partition), {}, {}, toInt64({otherwise}))",
        list(|range| i64::from(range.partition)),
        list(of)
    )
}

/// Topic, partition, offset and n of an id `topic/partition/offset/n`.
fn parts(id: &str) -> Option<(&str, i32, i64, u32)> {
    let mut parts = id.rsplitn(4, '/');
    let index = parts.next()?.parse().ok()?;
    let offset = parts.next()?.parse().ok()?;
    let partition = parts.next()?.parse().ok()?;
    Some((parts.next()?, partition, offset, index))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_verified_as_a_place_and_as_a_condition() {
        let range = |partition, start, end| Range { partition, start, end };
        let verified = Verified::new([
            ("a".to_owned(), vec![range(0, 5, 9), range(1, 4, 4)]),
            ("it's".to_owned(), vec![range(0, 0, 1)]),
        ]);
        assert!(verified.place("a", 0, 5).flatten().is_some());
        assert_eq!(verified.place("a", 0, 9), Some(None));
        assert_eq!(verified.place("b", 0, 5), None);
        assert!(verified.is_past("a", 0, 4) && !verified.is_past("a", 0, 9) && !verified.is_past("b", 0, 4));
        assert!(verified.is_past_id("a/0/4/0") && !verified.is_past_id("a/0/5/0") && !verified.is_past_id("nonsense"));
        assert_eq!(
            verified.condition(0),
            "_topic = 'a' AND _offset >= 5 AND _offset < 9 \
             AND _offset >= transform(toInt64(_partition), CAST([0], 'Array(Int64)'), CAST([5], 'Array(Int64)'), \
             toInt64(9223372036854775807)) \
             AND _offset < transform(toInt64(_partition), CAST([0], 'Array(Int64)'), CAST([9], 'Array(Int64)'), toInt64(-1))"
        );
        assert!(verified.condition(1).starts_with("_topic = 'it\\'s' AND"));
        assert_eq!(verified.condition(2), "false");
        assert_eq!(
            verified.but_the_past(0).unwrap(),
            "_topic != 'a' OR _offset >= transform(toInt64(_partition), CAST([0, 1], 'Array(Int64)'), \
             CAST([5, 4], 'Array(Int64)'), toInt64(-9223372036854775808))"
        );
        assert_eq!((verified.but_the_past(1), verified.but_the_past(2)), (None, None));
    }
}
