//! What must hold at every step. The oracle sees what becomes visible at the moment when it does, and compares it with
//! the promises that are committed at that moment. It keeps its own books; the servers' are asked only for what they
//! hold.
//!
//! Of lanes that promise nothing it asks less: an offset that is committed has its row, its alert and its feeding, at least
//! once; without faults, once.

use std::collections::{BTreeMap, BTreeSet};

use exactly_once_protocol::{Guarantee, Metadata, Partition, Promise, Range};

use crate::Options;
use crate::billing::{Billing, Part};
use crate::clickhouse::{ClickHouse, Landed};
use crate::kafka::{Commit, Record};
use crate::source::{LATE_SCHEMA, Made, PARTITIONS, content, digest, offsets, summed};

/// Promised, committed, delivered: everything, from the beginning.
#[derive(Debug, Default)]
pub struct Oracle {
    /// The first thing that was wrong.
    pub wrong: Option<String>,
    /// Whether something may be there twice.
    repeats: bool,
    /// Whether nothing has gone wrong that could be a reason for that.
    calm: bool,
    /// How often something was there again.
    again: u64,
    committed: BTreeMap<Partition, (i64, Metadata)>,
    promised: BTreeMap<(Partition, i64), (i64, u128)>,
    audit: BTreeMap<Partition, Vec<(Range, Made)>>,
    rows: BTreeSet<(Partition, i64)>,
    fed: BTreeSet<(Partition, i64)>,
    audited: BTreeSet<(Partition, i64)>,
    alerts: BTreeMap<(Partition, i64), u64>,
    charges: BTreeSet<(Partition, i64)>,
}

/// With what a promise pins.
fn made(promise: &Promise) -> Made {
    Made {
        rules: promise.rules.0,
        knew: !promise.unknown_schemas.contains(&LATE_SCHEMA),
    }
}

impl Oracle {
    /// Of a run that has not begun.
    pub fn new(options: &Options) -> Oracle {
        Oracle {
            repeats: options.guarantee == Guarantee::AtLeastOnce,
            calm: options.calm,
            ..Oracle::default()
        }
    }

    /// How often something was there again.
    pub fn again(&self) -> u64 {
        self.again
    }

    /// `new`: it was not there before.
    fn once(&mut self, new: bool, what: impl FnOnce() -> String) {
        self.again += u64::from(!new);
        self.claim(new || (self.repeats && !self.calm), || {
            format!("{} is there twice", what())
        });
    }

    fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    /// Something that no run may have.
    pub fn never(&mut self, what: impl FnOnce() -> String) {
        self.claim(false, what);
    }

    fn pending(&self, partition: Partition) -> Option<Promise> {
        match self.committed.get(&partition) {
            Some((_, Metadata::Promised(promise))) => Some(promise.clone()),
            _ => None,
        }
    }

    /// Nothing reaches ClickHouse but under the promise that is committed and pending at this moment, once, and with
    /// the content that was promised.
    pub fn landed(&mut self, landed: &Landed) {
        if self.repeats {
            return self.landed_unpromised(landed);
        }
        match landed {
            Landed::Rows(token, rows) => {
                for (partition, offset, is) in rows {
                    let promise = self.pending(*partition).filter(|promise| promise.token == *token);
                    let covers = |p: &Promise| p.start <= *offset && *offset < p.end;
                    let as_promised = promise.as_ref().is_some_and(covers);
                    self.claim(as_promised, || {
                        format!("row {partition:?} {offset} lands under token {token:x}; pending: {promise:?}")
                    });
                    let wanted = promise.map(|promise| content(*offset, made(&promise)));
                    self.claim(wanted.is_none_or(|wanted| wanted == *is), || {
                        format!("row {partition:?} {offset} has other content than was promised")
                    });
                    let new = self.rows.insert((*partition, *offset));
                    self.claim(new, || format!("row {partition:?} {offset} is there twice"));
                }
            }
            Landed::Fed(token, rows) => {
                for (partition, offset) in rows {
                    let promise = self.pending(*partition).filter(|promise| promise.token == *token);
                    let covers = |p: &Promise| p.fed <= *offset && *offset < p.end;
                    let as_promised = promise.as_ref().is_some_and(covers);
                    self.claim(as_promised, || {
                        format!("{partition:?} {offset} is fed under token {token:x}; pending: {promise:?}")
                    });
                    let new = self.fed.insert((*partition, *offset));
                    self.claim(new, || format!("{partition:?} {offset} is in a rollup twice"));
                }
            }
        }
    }

    fn landed_unpromised(&mut self, landed: &Landed) {
        match landed {
            Landed::Rows(_, rows) => {
                for (partition, offset, _) in rows {
                    let new = self.rows.insert((*partition, *offset));
                    self.once(new, || format!("row {partition:?} {offset}"));
                }
            }
            Landed::Fed(_, rows) => {
                for (partition, offset) in rows {
                    let new = self.fed.insert((*partition, *offset));
                    self.once(new, || format!("the feeding of {partition:?} {offset}"));
                }
            }
        }
    }

    /// Nothing is charged but what the pending promise says, once.
    pub fn charged(&mut self, part: &Part) {
        let Range { partition, start, end } = part.range;
        let promise = self.pending(partition);
        let same = |p: &Promise| (p.start, p.end, p.digest) == (start, end, part.digest);
        let as_promised = promise.as_ref().is_some_and(same);
        self.claim(as_promised, || {
            format!("billing applies {part:?}; pending: {promise:?}")
        });
        for row in offsets(part.range) {
            let new = self.charges.insert(row);
            self.claim(new, || format!("{row:?} is charged twice"));
        }
    }

    /// Records that readers see.
    pub fn visible(&mut self, records: &[Record]) {
        for record in records {
            match record {
                Record::Alert(partition, offset, is) => {
                    let before = self.alerts.insert((*partition, *offset), *is);
                    self.once(before.is_none(), || format!("alert {partition:?} {offset}"));
                }
                Record::Audit(range, ..) if self.repeats => {
                    let new = self.audited.insert((range.partition, range.start));
                    self.once(new, || format!("the audit of {range:?}"));
                }
                Record::Audit(range, of, with) => {
                    let ranges = self.audit.entry(range.partition).or_default();
                    let end = ranges.last().map_or(0, |(last, _)| last.end);
                    ranges.push((*range, *with));
                    self.claim(range.start == end, || format!("the audit has {range:?} after {end}"));
                    let promised = self.promised.get(&(range.partition, range.start)).copied();
                    self.claim(promised == Some((range.end, *of)), || {
                        format!("the audit has {range:?}, promised was {promised:?}")
                    });
                }
            }
        }
    }

    /// A transaction became visible.
    pub fn committed(&mut self, commit: &Commit, clickhouse: &ClickHouse, billing: &Billing) {
        self.visible(&commit.records);
        for (partition, offset, text) in &commit.offsets {
            let (partition, offset) = (*partition, *offset);
            let Ok(metadata) = Metadata::decode(text.as_bytes()) else {
                self.never(|| format!("{partition:?} is committed with metadata that nobody can read: {text}"));
                continue;
            };
            let before = self.committed.get(&partition).map_or(0, |(before, _)| *before);
            if self.repeats {
                self.nothing_is_lost(partition, offset, &metadata);
                // A commit that comes late sets the offset back until the next one, or a restart, which reads again from there.
                if offset >= before {
                    self.committed.insert(partition, (offset, metadata));
                }
                continue;
            }
            self.claim(offset >= before, || {
                format!("{partition:?} goes back from {before} to {offset}")
            });
            if offset > before {
                let ends = self.pending(partition).map(|promise| promise.end);
                self.claim(ends == Some(offset), || {
                    format!("{partition:?} is committed to {offset}, promised was {ends:?}")
                });
                self.every_sink_has(partition, before..offset, clickhouse, billing);
            }
            if let Metadata::Promised(promise) = &metadata {
                self.promised_anew(partition, promise, offset);
            }
            self.rollups_are_as(partition, offset, &metadata, clickhouse);
            self.committed.insert(partition, (offset, metadata));
        }
        if !self.repeats {
            self.audit_ends_at_offsets();
        }
    }

    /// Whatever was committed before, and however far back: all before the offset has reached every sink.
    fn nothing_is_lost(&mut self, partition: Partition, offset: i64, metadata: &Metadata) {
        let fed = match metadata {
            Metadata::Nothing => offset,
            Metadata::Settled { fed, .. } => *fed,
            Metadata::Promised(promise) => promise.fed,
        };
        for at in 0..offset {
            let key = (partition, at);
            self.claim(self.rows.contains(&key), || {
                format!("{key:?} is committed, its row is missing")
            });
            self.claim(self.alerts.contains_key(&key), || {
                format!("{key:?} is committed, its alert is missing")
            });
            self.claim(!summed(at) || at >= fed || self.fed.contains(&key), || {
                format!("{key:?} counts as fed and is in no rollup")
            });
        }
    }

    fn promised_anew(&mut self, partition: Partition, promise: &Promise, offset: i64) {
        self.claim(promise.start == offset, || {
            format!("{partition:?}: a promise from {} stands at {offset}", promise.start)
        });
        let range = Range {
            partition,
            start: promise.start,
            end: promise.end,
        };
        if range.start == range.end {
            return;
        }
        let is = (promise.end, promise.digest);
        self.claim(promise.digest == digest(range, made(promise)), || {
            format!("{range:?} is promised with a digest of something else")
        });
        let was = *self.promised.entry((partition, promise.start)).or_insert(is);
        self.claim(was == is, || {
            format!("{range:?} is promised with two contents: {was:?}, {is:?}")
        });
    }

    fn every_sink_has(
        &mut self,
        partition: Partition,
        range: std::ops::Range<i64>,
        clickhouse: &ClickHouse,
        billing: &Billing,
    ) {
        let cursor = billing.cursor(partition).unwrap_or(0);
        self.claim(cursor >= range.end, || {
            format!(
                "{partition:?} is committed to {}, billing's cursor is {cursor}",
                range.end
            )
        });
        for at in range {
            let key = (partition, at);
            self.claim(clickhouse.row(key).is_some(), || {
                format!("{key:?} is committed, its row is missing")
            });
            self.claim(self.alerts.contains_key(&key), || {
                format!("{key:?} is committed, its alert is missing")
            });
            self.claim(self.charges.contains(&key), || {
                format!("{key:?} is committed, its charge is missing")
            });
        }
    }

    /// `fed` says what is in the rollups: all before it, and without a promise nothing from it on.
    fn rollups_are_as(&mut self, partition: Partition, offset: i64, metadata: &Metadata, clickhouse: &ClickHouse) {
        let (fed, exactly) = match metadata {
            Metadata::Nothing => (offset, true),
            Metadata::Settled { fed, .. } => (*fed, true),
            Metadata::Promised(promise) => (promise.fed, false),
        };
        let lacks = (0..fed).find(|at| summed(*at) && !clickhouse.is_fed((partition, *at)));
        self.claim(lacks.is_none(), || {
            format!("{partition:?} {lacks:?} counts as fed and is in no rollup")
        });
        let early = (fed..offset).find(|at| exactly && clickhouse.is_fed((partition, *at)));
        self.claim(early.is_none(), || {
            format!("{partition:?} {early:?} counts as unfed and is in a rollup")
        });
    }

    fn audit_ends_at_offsets(&mut self) {
        for partition in PARTITIONS {
            let audit = self.audit.get(&partition).and_then(|ranges| ranges.last());
            let end = audit.map_or(0, |(range, _)| range.end);
            let offset = self.committed.get(&partition).map_or(0, |(offset, _)| *offset);
            self.claim(end == offset, || {
                format!("the audit of {partition:?} ends at {end}, committed is {offset}")
            });
        }
    }

    /// Whether everything up to `log_end` is committed and in the rollups.
    pub fn finished(&self, log_end: i64) -> bool {
        PARTITIONS.iter().all(|partition| {
            matches!(self.committed.get(partition), Some((offset, Metadata::Settled { fed, .. }))
                if *offset == log_end && *fed == log_end)
        })
    }

    /// How many offsets are committed, of all partitions together.
    pub fn progress(&self) -> u64 {
        self.committed.values().map(|(offset, _)| offset.unsigned_abs()).sum()
    }

    /// Where partitions stand, for people.
    pub fn standing(&self) -> String {
        format!("{:?}", self.committed)
    }

    /// At the end: recomputed from the log, with what the audit says that each range was made with, every sink holds
    /// exactly that and nothing else.
    pub fn all_is_there(&mut self, log_end: i64, clickhouse: &ClickHouse) {
        if self.repeats {
            // Everything was looked at when it was committed.
            return;
        }
        let mut expected = BTreeMap::new();
        for (partition, ranges) in &self.audit {
            for (range, with) in ranges {
                for (_, offset) in offsets(*range) {
                    expected.insert((*partition, offset), content(offset, *with));
                }
            }
        }
        let whole = PARTITIONS.len() * usize::try_from(log_end).unwrap_or_default();
        self.claim(expected.len() == whole, || "the audit lacks offsets".into());
        let (rows, fed) = clickhouse.sizes();
        let differs = expected.iter().find(|(key, is)| clickhouse.row(**key) != Some(**is));
        let differs = differs.map(|(key, _)| *key);
        self.claim(differs.is_none() && rows == whole, || {
            format!("rows differ: {differs:?}, {rows} of {whole}")
        });
        let same = self.alerts == expected;
        self.claim(same, || "alerts differ from the log".into());
        let same = self.charges.len() == whole;
        self.claim(same, || "charges differ from the log".into());
        let wanted = expected.keys().filter(|(_, offset)| summed(*offset)).count();
        let lacks = expected
            .keys()
            .find(|key| summed(key.1) && !clickhouse.is_fed(**key))
            .copied();
        self.claim(lacks.is_none() && fed == wanted, || {
            format!("rollups differ: {lacks:?}, {fed} of {wanted}")
        });
    }
}
