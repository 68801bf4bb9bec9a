//! What the verifier says in the end.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The whole answer. Everything is fine exactly when [`Report::clean`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Records read from the source topics.
    pub produced: u64,
    /// Rows found in all tables.
    pub clickhouse_rows: u64,
    /// Alerts found.
    pub alerts: u64,
    /// Charges found.
    pub charges: u64,
    /// Dead letters found.
    pub dead_letters: u64,
    /// Events that a rule dropped.
    pub dropped: u64,
    /// Outputs that a sink must hold and does not.
    pub lost: u64,
    /// Outputs that a sink holds once too often, counted each time.
    pub duplicated: u64,
    /// Outputs with other content than they must have.
    pub altered: u64,
    /// Outputs that no event accounts for.
    pub unexpected: u64,
    /// Offsets that no committed range has, by the audit.
    pub gap: u64,
    /// Offsets that committed ranges have once too often, by the audit.
    pub overlap: u64,
    /// Ranges of which the audit says that other outputs came of them than the log gives. Says nothing about sinks.
    #[serde(default)]
    pub miscounted: u64,
    /// Ranges that the audit has.
    pub ranges: u64,
    /// Those of which the audit's counts were compared: the others are not looked at as a whole, share offsets with another, or
    /// their records have no counts.
    #[serde(default)]
    pub ranges_compared: u64,
    /// Offsets that retention removed from the log after they were committed and before a round looked at them.
    #[serde(default)]
    pub unread: u64,
    /// What was not compared, and why: a sentence each.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// The same for each sink.
    pub sinks: Vec<SinkReport>,
    /// Some of the differences, each with sink, kind, topic/partition/offset and event id.
    pub examples: Vec<String>,
}

/// One table, topic or service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SinkReport {
    /// `table orders`, `alerts`, `dead letters`, `billing`, `rollup orders_minute`, ...
    pub sink: String,
    /// Outputs that it must hold.
    pub expected: u64,
    /// Outputs that it holds.
    pub found: u64,
    /// Of the expected, those that it does not hold.
    pub lost: u64,
    /// Held once too often.
    pub duplicated: u64,
    /// Held with other content.
    pub altered: u64,
    /// Held without a reason.
    pub unexpected: u64,
}

impl Report {
    /// Nothing lost, duplicated, altered or unexpected anywhere, ranges tile, and the audit's counts are right.
    pub fn clean(&self) -> bool {
        self.differences() == 0
    }

    /// Nothing lost, duplicated, altered or unexpected anywhere, and ranges tile: whatever the audit counts.
    pub fn exactly_once(&self) -> bool {
        self.differences() == self.miscounted
    }

    /// All differences together.
    pub fn differences(&self) -> u64 {
        self.lost + self.duplicated + self.altered + self.unexpected + self.gap + self.overlap + self.miscounted
    }

    /// Adds one sink's outcome to the sums.
    pub(crate) fn add(&mut self, sink: SinkReport) {
        self.lost += sink.lost;
        self.duplicated += sink.duplicated;
        self.altered += sink.altered;
        self.unexpected += sink.unexpected;
        self.sinks.push(sink);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} events: {} rows, {} alerts, {} charges, {} dead letters, {} dropped",
            self.produced, self.clickhouse_rows, self.alerts, self.charges, self.dead_letters, self.dropped
        )?;
        let width = self.sinks.iter().map(|sink| sink.sink.len()).max().unwrap_or(0).max(4);
        writeln!(
            f,
            "{:width$}  {:>10} {:>10} {:>6} {:>10} {:>7} {:>10}",
            "sink", "expected", "found", "lost", "duplicated", "altered", "unexpected"
        )?;
        for s in &self.sinks {
            writeln!(
                f,
                "{:width$}  {:>10} {:>10} {:>6} {:>10} {:>7} {:>10}",
                s.sink, s.expected, s.found, s.lost, s.duplicated, s.altered, s.unexpected
            )?;
        }
        for example in &self.examples {
            writeln!(f, "{example}")?;
        }
        for left_out in &self.left_out {
            writeln!(f, "not compared: {left_out}")?;
        }
        if self.miscounted > 0 {
            writeln!(
                f,
                "the audit is WRONG: it miscounts what came of {} of {} ranges",
                self.miscounted, self.ranges_compared
            )?;
        }
        match self.exactly_once() {
            true => writeln!(
                f,
                "exactly once: lost = duplicated = altered = unexpected = gap = overlap = 0, over {} committed ranges, {} with \
                 their counts",
                self.ranges, self.ranges_compared
            ),
            false => writeln!(
                f,
                "NOT exactly once: lost {}, duplicated {}, altered {}, unexpected {}, gap {}, overlap {}",
                self.lost, self.duplicated, self.altered, self.unexpected, self.gap, self.overlap
            ),
        }
    }
}
