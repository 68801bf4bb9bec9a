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
        let mut parts = id.rsplitn(4, '/');
        let index = parts.next()?.parse().ok()?;
        let offset = parts.next()?.parse().ok()?;
        let partition = parts.next()?.parse().ok()?;
        Some(
            self.place(parts.next()?, partition, offset)?
                .map(|place| Place { index, ..place }),
        )
    }
}
