//! The audit: what the workers say that they have committed, read from its topic (`docs/audit.md`). From it comes with which
//! rules each range was made, and whether ranges tile their partitions: each starts where the one before it ended. A range
//! that nobody committed is a gap; one that was committed twice, or in two pieces that share offsets, is an overlap. What the
//! records say came of a range is compared by `counts.rs`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::counts::Told;
use crate::error::Error;
use crate::kafka::{Log, Range};

/// Number of a rules revision, and digest of its content.
pub type RulesId = (u64, u64);

/// The form that this reader understands.
const VERSION: u64 = 1;

#[derive(Deserialize)]
struct Record {
    v: u64,
    pipeline: String,
    #[serde(default)]
    at_ms: i64,
    #[serde(default)]
    revision: Option<String>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Commit { ranges: Vec<CommittedRange> },
    Start { topic: String, partition: i32, at: i64 },
}

#[derive(Deserialize)]
struct CommittedRange {
    topic: String,
    #[serde(default)]
    topic_id: Option<String>,
    partition: i32,
    start: i64,
    end: i64,
    rules: u64,
    rules_digest: String,
    #[serde(default)]
    outputs: Option<u64>,
    #[serde(default)]
    rows: Option<BTreeMap<String, u64>>,
    #[serde(default)]
    charges: Option<u64>,
    #[serde(default)]
    dead_letters: Option<u64>,
}

/// One range as it was committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committed {
    pub start: i64,
    pub end: i64,
    pub rules: RulesId,
    at_ms: i64,
    /// 0 = not told.
    topic_id: u128,
    /// Whether a part of it was taken away since: by an operator, or because it has been verified.
    cut: bool,
    /// What came of the whole of it, by the record.
    pub told: Told,
}

/// Everything that the audit says of one pipeline.
#[derive(Debug, Clone, Default)]
pub struct Audit {
    /// By topic and partition, in the order of offsets.
    ranges: BTreeMap<(String, i32), Vec<Committed>>,
    /// Where operators have let partitions go on, and when, Unix milliseconds.
    starts: BTreeMap<(String, i32, i64), i64>,
    /// The lowest of the starts of each partition that nobody has asked for yet.
    news: BTreeMap<(String, i32), i64>,
    /// Names of tables, each once: ranges have their index.
    tables: Vec<String>,
}

/// How well ranges tile.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tiling {
    /// Ranges that the audit has.
    pub ranges: u64,
    /// Offsets that no range has, between two ranges or before the committed offset.
    pub gap: u64,
    /// Offsets that ranges have once too often.
    pub overlap: u64,
    /// Some of both, with topic, partition and offsets.
    pub examples: Vec<String>,
}

impl Audit {
    /// Reads these ranges of the topic, after what has been read of it before.
    pub fn read(&mut self, log: &Log, (topic, ranges): (&str, &[Range]), pipeline: &str) -> Result<(), Error> {
        log.read(topic, ranges, |record| {
            let at = || format!("{topic}/{}/{}", record.partition, record.offset);
            self.take(record.value.as_deref().unwrap_or_default(), pipeline, &at)
        })?;
        self.settle();
        Ok(())
    }

    /// What these records of the pipeline `p` say.
    #[cfg(test)]
    pub fn of(records: &[String]) -> Result<Audit, Error> {
        let mut audit = Audit::default();
        for record in records {
            audit.take(record.as_bytes(), "p", &|| "audit/0/1".to_owned())?;
        }
        audit.settle();
        Ok(audit)
    }

    /// Forgets of a partition what lies below this offset: it has been verified. Of a range that goes on behind it, what
    /// is behind it stays.
    pub fn forget_below(&mut self, topic: &str, partition: i32, verified: i64) {
        if let Some(ranges) = self.ranges.get_mut(&(topic.to_owned(), partition)) {
            ranges.retain(|range| range.end > verified);
            for range in ranges.iter_mut().filter(|range| range.start < verified) {
                range.start = verified;
                range.cut = true;
            }
        }
    }

    /// Where an operator has let this partition go on since this was asked last: the lowest of these offsets.
    pub fn take_news(&mut self, topic: &str, partition: i32) -> Option<i64> {
        self.news.remove(&(topic.to_owned(), partition))
    }

    /// Whether a range begins there.
    pub fn begins_at(&self, topic: &str, partition: i32, at: i64) -> bool {
        let ranges = self.ranges.get(&(topic.to_owned(), partition));
        ranges.is_some_and(|ranges| ranges.iter().any(|range| range.start == at))
    }

    /// The first offset of which the audit has a range.
    pub fn first(&self, topic: &str, partition: i32) -> Option<i64> {
        let ranges = self.ranges.get(&(topic.to_owned(), partition))?;
        ranges.first().map(|range| range.start)
    }

    /// Where the last range ends.
    pub fn end(&self, topic: &str, partition: i32) -> Option<i64> {
        let ranges = self.ranges.get(&(topic.to_owned(), partition))?;
        ranges.iter().map(|range| range.end).max()
    }

    fn take(&mut self, value: &[u8], pipeline: &str, at: &dyn Fn() -> String) -> Result<(), Error> {
        let wrong = |reason: String| Error::Audit { at: at(), reason };
        let record: Record = serde_json::from_slice(value).map_err(|error| wrong(error.to_string()))?;
        if record.v != VERSION {
            return Err(wrong(format!("version {}, this program reads {VERSION}", record.v)));
        }
        if record.pipeline != pipeline {
            return Ok(());
        }
        match record.kind {
            Kind::Start { topic, partition, at } => {
                let lowest = self.news.entry((topic.clone(), partition)).or_insert(at);
                *lowest = at.min(*lowest);
                let latest = self.starts.entry((topic, partition, at)).or_default();
                *latest = record.at_ms.max(*latest);
            }
            Kind::Commit { ranges } => {
                let revision = record.revision.and_then(|hash| u64::from_str_radix(&hash, 16).ok());
                for range in ranges {
                    let told = self.told(&range, revision);
                    let digest = u64::from_str_radix(&range.rules_digest, 16);
                    let digest = digest.map_err(|error| wrong(format!("rules_digest: {error}")))?;
                    let topic_id = range.topic_id.map_or(Ok(0), |id| u128::from_str_radix(&id, 16));
                    let committed = Committed {
                        start: range.start,
                        end: range.end,
                        rules: (range.rules, digest),
                        at_ms: record.at_ms,
                        topic_id: topic_id.map_err(|error| wrong(format!("topic_id: {error}")))?,
                        cut: false,
                        told,
                    };
                    self.ranges
                        .entry((range.topic, range.partition))
                        .or_default()
                        .push(committed);
                }
            }
        }
        Ok(())
    }

    fn told(&mut self, range: &CommittedRange, revision: Option<u64>) -> Told {
        let mut index = |name: &String| {
            let known = self.tables.iter().position(|table| table == name);
            known.unwrap_or_else(|| {
                self.tables.push(name.clone());
                self.tables.len() - 1
            })
        };
        let rows = range.rows.as_ref();
        Told {
            outputs: range.outputs,
            rows: rows.map(|rows| rows.iter().map(|(table, rows)| (index(table), *rows)).collect()),
            charges: range.charges,
            dead_letters: range.dead_letters,
            revision,
        }
    }

    /// The name of a table that a range has the index of.
    pub fn table(&self, index: usize) -> &str {
        self.tables.get(index).map_or("", String::as_str)
    }

    /// The ranges of a partition that lie in `window` with their first and last offset, as they were committed: none of which
    /// a part was taken away, and none that shares offsets with another. In the order of offsets.
    pub fn whole(&self, topic: &str, window: &Range) -> Vec<&Committed> {
        let ranges = self.ranges.get(&(topic.to_owned(), window.partition));
        let ranges = ranges.map(Vec::as_slice).unwrap_or_default();
        let mut whole = Vec::new();
        let mut before = i64::MIN;
        for (index, range) in ranges.iter().enumerate() {
            let after = ranges.get(index + 1).map_or(i64::MAX, |next| next.start);
            let alone = before <= range.start && range.end <= after;
            before = before.max(range.end);
            if alone && !range.cut && window.start <= range.start && range.end <= window.end {
                whole.push(range);
            }
        }
        whole
    }

    /// Puts the ranges in order, and leaves out what an operator has taken back: from where he let a partition go on, what was
    /// committed before counts no more. Nor does what a topic of the same name had before it was made again.
    fn settle(&mut self) {
        for ((topic, partition), ranges) in &mut self.ranges {
            let newest = ranges
                .iter()
                .max_by_key(|range| range.at_ms)
                .map_or(0, |range| range.topic_id);
            ranges.retain(|range| range.topic_id == newest || range.topic_id == 0);
            let of = (topic.clone(), *partition, i64::MIN)..=(topic.clone(), *partition, i64::MAX);
            for ((.., at), since_ms) in self.starts.range(of) {
                // A start that Kafka refused in the end, or after which nothing came, takes nothing back.
                if !ranges
                    .iter()
                    .any(|range| range.start == *at && range.at_ms >= *since_ms)
                {
                    continue;
                }
                let taken_back = |range: &&mut Committed| range.at_ms < *since_ms && range.end > *at;
                for range in ranges.iter_mut().filter(taken_back) {
                    range.end = *at;
                    range.cut = true;
                }
                ranges.retain(|range| range.start < range.end);
            }
            ranges.sort_unstable();
        }
    }

    /// Every rules revision with which something was committed.
    pub fn revisions(&self) -> BTreeSet<RulesId> {
        let ranges = self.ranges.values().flatten();
        ranges.map(|committed| committed.rules).collect()
    }

    /// With which rules an offset was committed; `None` if the audit doesn't reach back so far.
    pub fn rules_of(&self, topic: &str, partition: i32, offset: i64) -> Option<RulesId> {
        let ranges = self.ranges.get(&(topic.to_owned(), partition))?;
        let after = ranges.partition_point(|range| range.start <= offset);
        let range = ranges.get(after.checked_sub(1)?)?;
        (offset < range.end).then_some(range.rules)
    }

    /// Whether the ranges of these partitions tile from the first that the audit has to the offset that is committed. What lies
    /// before the first was committed before there was an audit, or its records have been deleted, or the pipeline began there.
    /// `tiled` is up to where a partition is known to be tiled already: what comes now has to begin there.
    pub fn tile(
        &self,
        (topic, verified): (&str, &[Range]),
        tiled: impl Fn(i32) -> Option<i64>,
        examples_max: usize,
        tiling: &mut Tiling,
    ) {
        for whole in verified {
            let ranges = self.ranges.get(&(topic.to_owned(), whole.partition));
            let ranges = ranges.map(Vec::as_slice).unwrap_or_default();
            let first = ranges.first().map(|range| range.start);
            let Some(mut next) = tiled(whole.partition).or(first) else {
                continue;
            };
            let ends = ranges.iter().map(|range| (range.start, range.end));
            // What is committed since the log was looked at is left out.
            let within = ends.filter(|(start, _)| *start < whole.end);
            for (start, end) in within.chain([(whole.end, whole.end)]) {
                tiling.ranges += u64::from(start < end);
                let restarted = self.starts.contains_key(&(topic.to_owned(), whole.partition, start));
                // The last range goes on past what was looked at.
                if start == end && next > start {
                    continue;
                }
                let off = start.abs_diff(next);
                if off > 0 && !restarted {
                    let what = if start > next { "gap" } else { "overlap" };
                    match what {
                        "gap" => tiling.gap += off,
                        _ => tiling.overlap += end.min(next).abs_diff(start),
                    }
                    if tiling.examples.len() < examples_max {
                        let partition = whole.partition;
                        tiling.examples.push(format!(
                            "audit: {what}: {topic}/{partition}: a range ends at {next}, the next begins at {start}"
                        ));
                    }
                }
                next = if restarted { end } else { next.max(end) };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn audit(ranges: &[(i64, i64)], starts: &[i64]) -> Audit {
        let mut audit = Audit::default();
        for (nth, (start, end)) in ranges.iter().enumerate() {
            let text = format!(
                r#"{{"v": 1, "kind": "commit", "pipeline": "p", "slot": "w-0", "at_ms": {nth}, "ranges": [{{"topic": "t", "partition": 0,
                    "start": {start}, "end": {end}, "rules": {start}, "rules_digest": "00ff", "outputs": 1}}]}}"#
            );
            audit.take(text.as_bytes(), "p", &String::new).unwrap();
        }
        for at in starts {
            let text = format!(
                r#"{{"v": 1, "kind": "start", "pipeline": "p", "at_ms": 2, "topic": "t", "partition": 0, "at": {at}, "was": "x"}}"#
            );
            audit.take(text.as_bytes(), "p", &String::new).unwrap();
        }
        audit.settle();
        audit
    }

    fn tiling(audit: &Audit, end: i64) -> (u64, u64, u64) {
        tiling_from(audit, None, end)
    }

    fn tiling_from(audit: &Audit, tiled: Option<i64>, end: i64) -> (u64, u64, u64) {
        let mut tiling = Tiling::default();
        let whole = Range {
            partition: 0,
            start: tiled.unwrap_or(0),
            end,
        };
        audit.tile(("t", &[whole]), |_| tiled, 10, &mut tiling);
        (tiling.ranges, tiling.gap, tiling.overlap)
    }

    #[test]
    fn what_comes_after_a_round_begins_where_the_round_ended() {
        let mut read = audit(&[(0, 5), (5, 9), (9, 12)], &[]);
        // The offsets said 9; the last range was committed since.
        assert_eq!(tiling(&read, 9), (2, 0, 0));
        read.forget_below("t", 0, 9);
        assert_eq!(tiling_from(&read, Some(9), 12), (1, 0, 0));
        assert_eq!(tiling_from(&audit(&[(10, 12)], &[]), Some(9), 12), (1, 1, 0), "a gap");
        assert_eq!(tiling_from(&audit(&[], &[]), Some(9), 12), (0, 3, 0), "no range at all");
        // A position inside of a range: what is behind it stays, and begins there.
        read.forget_below("t", 0, 10);
        assert_eq!(tiling_from(&read, Some(10), 12), (1, 0, 0));
        assert_eq!((read.first("t", 0), read.begins_at("t", 0, 9)), (Some(10), false));
        let again = audit(&[(5, 9), (9, 12)], &[]);
        assert_eq!(
            tiling_from(&again, Some(9), 12),
            (2, 0, 4),
            "committed again after the round"
        );
        assert_eq!(tiling_from(&audit(&[], &[]), Some(9), 9), (0, 0, 0));
    }

    #[test]
    fn an_operators_start_is_news_once() {
        let mut read = audit(&[(0, 5)], &[3, 2]);
        assert_eq!(read.take_news("t", 1), None);
        assert_eq!(read.take_news("t", 0), Some(2));
        assert_eq!(read.take_news("t", 0), None);
    }

    #[test]
    fn ranges_in_any_order_tile() {
        assert_eq!(tiling(&audit(&[(5, 9), (0, 5), (9, 12)], &[]), 12), (3, 0, 0));
        assert_eq!(tiling(&audit(&[], &[]), 12), (0, 0, 0));
        assert_eq!(tiling(&audit(&[(5, 9)], &[]), 9), (1, 0, 0), "begun late");
    }

    #[test]
    fn a_range_that_is_missing_is_a_gap_also_at_the_end() {
        assert_eq!(tiling(&audit(&[(0, 5), (9, 12)], &[]), 12), (2, 4, 0));
        assert_eq!(tiling(&audit(&[(0, 5)], &[]), 12), (1, 7, 0));
    }

    #[test]
    fn a_range_that_was_committed_twice_is_an_overlap() {
        assert_eq!(tiling(&audit(&[(0, 5), (0, 5), (5, 12)], &[]), 12), (3, 0, 5));
        assert_eq!(tiling(&audit(&[(0, 5), (3, 12)], &[]), 12), (2, 0, 2));
        assert_eq!(tiling(&audit(&[(0, 9), (3, 5), (9, 12)], &[]), 12), (3, 0, 2));
    }

    /// The start takes place after the first two commits.
    #[test]
    fn where_an_operator_let_a_partition_go_on_what_was_committed_before_counts_no_more() {
        assert_eq!(
            tiling(&audit(&[(0, 3), (3, 5), (9, 12)], &[9]), 12),
            (3, 0, 0),
            "forward"
        );
        let back = audit(&[(0, 5), (5, 12), (5, 9), (9, 12)], &[5]);
        assert_eq!(tiling(&back, 12), (3, 0, 0), "back, and cut in another way");
        assert_eq!(back.rules_of("t", 0, 6).map(|rules| rules.0), Some(5));
        let refused = audit(&[(0, 5), (5, 12)], &[3]);
        assert_eq!(tiling(&refused, 12), (2, 0, 0), "no start took place");
        let within = audit(&[(0, 5), (5, 12), (3, 12)], &[3]);
        assert_eq!(tiling(&within, 12), (2, 0, 0), "back into a range");
    }

    #[test]
    fn ranges_of_a_topic_that_was_made_again_count_no_more() {
        let mut audit = audit(&[], &[]);
        for (at_ms, id, end) in [(1, "0a", 50), (2, "0b", 12)] {
            let text = format!(
                r#"{{"v": 1, "kind": "commit", "pipeline": "p", "at_ms": {at_ms}, "ranges": [{{"topic": "t", "topic_id": "{id}",
                    "partition": 0, "start": 0, "end": {end}, "rules": 1, "rules_digest": "0"}}]}}"#
            );
            audit.take(text.as_bytes(), "p", &String::new).unwrap();
        }
        audit.settle();
        assert_eq!(tiling(&audit, 12), (1, 0, 0));
    }

    #[test]
    fn what_was_committed_after_the_look_is_left_out() {
        assert_eq!(tiling(&audit(&[(0, 5), (5, 12)], &[]), 5), (1, 0, 0));
    }

    #[test]
    fn each_offset_has_the_rules_of_its_range() {
        let audit = audit(&[(2, 5), (5, 9)], &[]);
        let of = |offset| audit.rules_of("t", 0, offset).map(|rules| rules.0);
        assert_eq!(
            (of(1), of(2), of(4), of(5), of(8), of(9)),
            (None, Some(2), Some(2), Some(5), Some(5), None)
        );
        assert_eq!(audit.rules_of("u", 0, 3), None);
        assert_eq!(audit.revisions().len(), 2);
    }

    #[test]
    fn a_record_of_another_pipeline_is_passed_over_and_one_of_another_version_is_an_error() {
        let mut audit = Audit::default();
        let other = br#"{"v": 1, "kind": "start", "pipeline": "q", "topic": "t", "partition": 0, "at": 1, "was": ""}"#;
        audit.take(other, "p", &String::new).unwrap();
        assert!(audit.starts.is_empty());
        for wrong in [
            &b"{}"[..],
            b"",
            br#"{"v": 2, "kind": "start", "pipeline": "p", "topic": "t", "partition": 0, "at": 1}"#,
        ] {
            assert!(matches!(
                audit.take(wrong, "p", &|| "a/0/1".to_owned()),
                Err(Error::Audit { .. })
            ));
        }
    }
}
