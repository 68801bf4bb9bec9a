//! What came of many trials, family by family.

use std::collections::BTreeMap;
use std::fmt;

use crate::failures::Failure;
use crate::families::Family;
use crate::trial::Outcome;

/// Seeds that went wrong, and what was said.
#[derive(Debug, Default, serde::Serialize)]
struct Red(BTreeMap<u64, String>);

impl Red {
    /// Keeps what was said of a trial that went wrong, and hands on what came of one that did not.
    fn unless_good(&mut self, seed: u64, outcome: Result<Outcome, String>) -> Option<Outcome> {
        outcome.map_err(|said| self.0.insert(seed, said)).ok()
    }
}

impl fmt::Display for Red {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.keys().map(u64::to_string).collect::<Vec<_>>().join(", ") {
            none if none.is_empty() => f.write_str("exactly once"),
            seeds => write!(f, "RED: seed {seeds}"),
        }
    }
}

/// The rows so far.
#[derive(Debug, Default, serde::Serialize)]
pub struct Table {
    rows: BTreeMap<u8, Row>,
}

#[derive(Debug, Default, serde::Serialize)]
struct Row {
    what: &'static str,
    how: &'static str,
    runs: u64,
    faults: BTreeMap<String, u64>,
    events: u64,
    outputs: u64,
    recovered_s_max: f64,
    red: Red,
}

impl Table {
    /// Notes what came of one trial.
    pub fn note(&mut self, family: &Family, seed: u64, outcome: Result<Outcome, String>) {
        let row = self.rows.entry(family.number).or_default();
        (row.what, row.how) = (family.what, family.how);
        row.runs += 1;
        let Some(outcome) = row.red.unless_good(seed, outcome) else {
            return;
        };
        row.events += outcome.events;
        row.outputs += outcome.outputs;
        row.recovered_s_max = row.recovered_s_max.max(outcome.recovered_s_max);
        for (kind, count) in outcome.faults {
            *row.faults.entry(kind).or_default() += count;
        }
    }

    /// Nothing went wrong.
    pub fn green(&self) -> bool {
        self.rows.values().all(|row| row.red.0.is_empty())
    }

    /// Whether a trial of the family with this number was made.
    pub fn has(&self, number: u8) -> bool {
        self.rows.contains_key(&number)
    }
}

/// What came of the failure table's trials.
#[derive(Debug, Default, serde::Serialize)]
pub struct Recoveries {
    rows: BTreeMap<&'static str, Recovery>,
}

#[derive(Debug, Default, serde::Serialize)]
struct Recovery {
    what: &'static str,
    flows: &'static str,
    /// Of each run that went well.
    seconds: Vec<f64>,
    events: u64,
    red: Red,
}

impl Recoveries {
    /// Notes what came of one trial.
    pub fn note(&mut self, failure: &Failure, seed: u64, outcome: Result<Outcome, String>) {
        let row = self.rows.entry(failure.name).or_default();
        (row.what, row.flows) = (failure.what, failure.flows);
        let Some(outcome) = row.red.unless_good(seed, outcome) else {
            return;
        };
        row.events += outcome.events;
        row.seconds.extend(outcome.flowing_s);
        row.seconds.sort_by(f64::total_cmp);
    }

    /// Nothing went wrong.
    pub fn green(&self) -> bool {
        self.rows.values().all(|row| row.red.0.is_empty())
    }
}

impl fmt::Display for Recoveries {
    /// As Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| failure | events flow again when | runs | median | longest | events | result |"
        )?;
        writeln!(f, "|---|---|--:|--:|--:|--:|---|")?;
        for row in self.rows.values() {
            let at = |at: usize| {
                row.seconds
                    .get(at)
                    .map_or("-".to_owned(), |seconds| format!("{seconds:.1} s"))
            };
            let (median, longest) = (at(row.seconds.len() / 2), at(row.seconds.len().saturating_sub(1)));
            writeln!(
                f,
                "| {} | {} | {} | {median} | {longest} | {} | {} |",
                row.what,
                row.flows,
                row.seconds.len() + row.red.0.len(),
                row.events,
                row.red
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    /// As Markdown.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| # | fault | how | runs | faults | events | outputs | recovered within | result |"
        )?;
        writeln!(f, "|---|---|---|--:|--:|--:|--:|--:|---|")?;
        for (number, row) in &self.rows {
            let faults: u64 = row.faults.values().sum();
            let result = &row.red;
            writeln!(
                f,
                "| {number} | {} | {} | {} | {faults} | {} | {} | {:.1} s | {result} |",
                row.what, row.how, row.runs, row.events, row.outputs, row.recovered_s_max
            )?;
        }
        writeln!(
            f,
            "\n| # | what was struck in trials that went well | times |\n|---|---|--:|"
        )?;
        for (number, row) in &self.rows {
            for (kind, times) in &row.faults {
                writeln!(f, "| {number} | {kind} | {times} |")?;
            }
        }
        Ok(())
    }
}
