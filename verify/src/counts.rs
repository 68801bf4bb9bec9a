//! What the audit says came of each range, against what the log gives for it: rows by table, charges, dead letters, and all
//! outputs together. A range whose record says something else is *miscounted*: the audit is wrong about it, whatever sinks hold.
//!
//! The record's digest is not compared: it is the worker's own hash over its own encoding of each output, and could not be
//! computed here without that code.
//!
//! **Invariant:** nothing is said of a range that is not looked at as a whole, or of a count that its record does not have.

use std::collections::{BTreeMap, HashMap};

use pipeline::Pipeline;

use crate::audit::{Audit, Committed};
use crate::judge::Ledgers;
use crate::kafka::Range;
use crate::ledger::Place;

/// What a record says of a range. `None`: it doesn't say.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// Rows, alerts, charges and dead letters together.
    pub outputs: Option<u64>,
    /// By the audit's index of the table; a table that is not there has none.
    pub rows: Option<Box<[(usize, u64)]>>,
    pub charges: Option<u64>,
    pub dead_letters: Option<u64>,
    /// Hash of what decided outputs in the pipeline file.
    pub revision: Option<u64>,
}

impl Told {
    fn is_silent(&self) -> bool {
        self.outputs.is_none() && self.rows.is_none() && self.charges.is_none() && self.dead_letters.is_none()
    }
}

/// What the log gives for a range.
#[derive(Debug, Default)]
struct Made {
    outputs: u64,
    /// By the pipeline's index of the table.
    rows: BTreeMap<usize, u64>,
    charges: u64,
    dead_letters: u64,
}

/// How well the audit counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counting {
    /// Ranges of which at least one count was compared.
    pub compared: u64,
    /// Of these, those with at least one wrong count.
    pub miscounted: u64,
    /// Some of them, with topic, partition, offsets and counts.
    pub examples: Vec<String>,
}

/// Which kind an output is of.
#[derive(Clone, Copy)]
enum Kind {
    Row(usize),
    Alert,
    Charge,
    Dead,
}

/// The ranges of one partition that are compared, in the order of offsets.
type Ranges<'a> = Vec<(&'a Committed, Made)>;

/// Compares the counts of every range of these sources that lies in what was looked at. `looked_at`: in the order of the
/// pipeline's sources. `ledgers`: after everything in it was judged, and before sinks were read.
pub fn compare(
    pipeline: &Pipeline,
    audit: &Audit,
    looked_at: &[(String, Vec<Range>)],
    ledgers: &Ledgers,
    examples_max: usize,
) -> Counting {
    let mut partitions: HashMap<(u16, i32), Ranges<'_>> = HashMap::new();
    for (source, (topic, windows)) in (0u16..).zip(looked_at) {
        for window in windows {
            let whole = audit.whole(topic, window).into_iter();
            let ranges = whole.filter(|range| !range.told.is_silent());
            partitions.insert(
                (source, window.partition),
                ranges.map(|range| (range, Made::default())).collect(),
            );
        }
    }
    for (kind, place) in outputs(ledgers) {
        if let Some(made) = partitions
            .get_mut(&(place.source, place.partition))
            .and_then(|ranges| of(ranges, place.offset))
        {
            made.add(kind);
        }
    }
    let mut counting = Counting::default();
    for (source, (topic, windows)) in (0u16..).zip(looked_at) {
        for partition in windows.iter().map(|window| window.partition) {
            for (range, made) in partitions.get(&(source, partition)).into_iter().flatten() {
                counting.compared += 1;
                let wrong = made.differences(range, audit, pipeline);
                if wrong.is_empty() {
                    continue;
                }
                counting.miscounted += 1;
                if counting.examples.len() < examples_max {
                    let (start, end, wrong) = (range.start, range.end, wrong.join(", "));
                    counting.examples.push(format!(
                        "audit: miscounted: {topic}/{partition}, offsets {start} to {end}: {wrong}"
                    ));
                }
            }
        }
    }
    counting
}

/// Every output that must be somewhere, or may be.
fn outputs(ledgers: &Ledgers) -> impl Iterator<Item = (Kind, &Place)> {
    let tables = ledgers.tables.iter().enumerate();
    let rows = tables.flat_map(|(table, ledger)| ledger.places().map(move |place| (Kind::Row(table), place)));
    rows.chain(ledgers.alerts.places().map(|place| (Kind::Alert, place)))
        .chain(ledgers.charges.places().map(|place| (Kind::Charge, place)))
        .chain(ledgers.dead.places().map(|place| (Kind::Dead, place)))
}

/// The range that has this offset.
fn of<'r>(ranges: &'r mut Ranges<'_>, offset: i64) -> Option<&'r mut Made> {
    let after = ranges.partition_point(|(range, _)| range.start <= offset);
    let (range, made) = ranges.get_mut(after.checked_sub(1)?)?;
    (offset < range.end).then_some(made)
}

impl Made {
    fn add(&mut self, kind: Kind) {
        self.outputs += 1;
        match kind {
            Kind::Row(table) => *self.rows.entry(table).or_default() += 1,
            Kind::Alert => {}
            Kind::Charge => self.charges += 1,
            Kind::Dead => self.dead_letters += 1,
        }
    }

    /// Each wrong count, in a few words.
    fn differences(&self, range: &Committed, audit: &Audit, pipeline: &Pipeline) -> Vec<String> {
        let told = &range.told;
        let mut wrong = Vec::new();
        let mut compare = |what: &str, told: Option<u64>, made: u64| {
            if let Some(told) = told.filter(|told| *told != made) {
                wrong.push(format!("says {told} {what}, must be {made}"));
            }
        };
        if let Some(rows) = &told.rows {
            let told: BTreeMap<&str, u64> = rows.iter().map(|(table, rows)| (audit.table(*table), *rows)).collect();
            let name = |table: &usize| pipeline.tables.get(*table).map_or("", |table| table.name.as_str());
            let made: BTreeMap<&str, u64> = self.rows.iter().map(|(table, rows)| (name(table), *rows)).collect();
            let tables: std::collections::BTreeSet<&str> = told.keys().chain(made.keys()).copied().collect();
            for table in tables {
                let of = |counts: &BTreeMap<&str, u64>| counts.get(table).copied().unwrap_or_default();
                compare(&format!("rows of {table}"), Some(of(&told)), of(&made));
            }
        }
        compare("charges", told.charges, self.charges);
        compare("dead letters", told.dead_letters, self.dead_letters);
        compare("outputs", told.outputs, self.outputs);
        // Outputs may be others by another pipeline file: whoever reads this has to know.
        if let Some(then) = told.revision.filter(|then| *then != pipeline.revision)
            && !wrong.is_empty()
        {
            wrong.push(format!(
                "by revision {then:016x} of the pipeline file, now {:016x}",
                pipeline.revision
            ));
        }
        wrong
    }
}
