//! What rules make of a batch.

use std::fmt;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

/// A batch after the rules.
#[derive(Debug, Clone, PartialEq)]
pub struct Applied {
    /// The input's rows in the input's order. Rows that were dropped or have failed hold no meaning.
    pub batch: RecordBatch,
    /// Which rows go to which table, each table once, in the order of [`EventShape::tables`](crate::EventShape::tables).
    /// A row may go to several; dropped and failed rows go to none.
    pub routes: Vec<Route>,
    /// By row, then by the rule's place in the document.
    pub alerts: Vec<Alert>,
    /// By row, then by the rule's place in the document.
    pub charges: Vec<Charge>,
    /// By row; a row fails once at most, and a failed row has no other effect.
    pub failures: Vec<Failure>,
    /// Rows that a rule dropped, ascending. What rules above it raised and charged for them stays.
    pub dropped: Vec<u32>,
}

/// The rows of one table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The table.
    pub table: String,
    /// Rows of the batch, ascending.
    pub rows: Vec<u32>,
}

/// An alert that a rule raised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// The row of the batch.
    pub row: u32,
    /// The rule's name.
    pub rule: Arc<str>,
    /// As the rule says.
    pub severity: Severity,
    /// The rule's key; `None` when it has none or the value is NULL.
    pub key: Option<String>,
    /// At most 64 KiB; NULL is the empty text.
    pub text: String,
}

/// How bad an alert is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody should look now.
    Critical,
}

impl Severity {
    pub(crate) const WORDS: [(&'static str, Self); 3] = [
        ("info", Self::Info),
        ("warning", Self::Warning),
        ("critical", Self::Critical),
    ];

    /// `info`, `warning` or `critical`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a rule charges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// The row of the batch.
    pub row: u32,
    /// The rule's name.
    pub rule: Arc<str>,
    /// The meter's name.
    pub meter: Arc<str>,
    /// The meter's unit: `EUR`.
    pub unit: Arc<str>,
    /// The meter's scale.
    pub scale: u32,
    /// Counts 10^-scale of the unit: 1250 at scale 2 is 12.50.
    pub quantity: i64,
}

/// Why rules could not be applied to a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The row of the batch.
    pub row: u32,
    /// The rule's name.
    pub rule: Arc<str>,
    /// Stable, for machines.
    pub code: Code,
    /// What the rule was about to set, charge or raise: a column as the rule names it, `when`, `text`, `quantity`.
    pub field: Option<String>,
    /// For people. May quote the event's values, shortened.
    pub reason: String,
}

/// What went wrong with a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// A division by zero, of integers, decimals or floats.
    DivideByZero,
    /// A number outside its type's range.
    Overflow,
    /// A CAST, or a function that reads text, of a value that it can't read.
    BadCast,
    /// NULL for a column that can't be NULL, or for a quantity.
    NullValue,
    /// A quantity that is no whole number of the meter's smallest part.
    Inexact,
    /// A text over its limit.
    TooLarge,
    /// A function refused the value for another reason.
    Evaluation,
    /// A fault in Sluice or in a library: the row is kept as a dead letter, and nothing else is touched.
    Internal,
}

impl Code {
    /// `divide_by_zero`, `overflow`, `bad_cast`, `null_value`, `inexact`, `too_large`, `evaluation`, `internal`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::DivideByZero => "divide_by_zero",
            Self::Overflow => "overflow",
            Self::BadCast => "bad_cast",
            Self::NullValue => "null_value",
            Self::Inexact => "inexact",
            Self::TooLarge => "too_large",
            Self::Evaluation => "evaluation",
            Self::Internal => "internal",
        }
    }

    pub(crate) const ALL: [Self; 8] = [
        Self::DivideByZero,
        Self::Overflow,
        Self::BadCast,
        Self::NullValue,
        Self::Inexact,
        Self::TooLarge,
        Self::Evaluation,
        Self::Internal,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
