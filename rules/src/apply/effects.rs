//! What rules cause besides changed values, while it is being collected.

use std::collections::BTreeMap;

use crate::applied::{Alert, Charge, Code, Failure};

/// Effects by row of the input. The second number is the rule's place in its document.
#[derive(Debug, Default)]
pub struct Effects {
    pub alerts: Vec<(u32, u32, Alert)>,
    pub charges: Vec<(u32, u32, Charge)>,
    pub failures: Vec<Failure>,
    pub dropped: Vec<u32>,
}

/// Rows that one step found wrong, by their place among the rows worked on. The first thing wrong is what counts.
#[derive(Debug, Default)]
pub struct Failed<'a> {
    rows: BTreeMap<usize, (Code, &'a str, String)>,
}

impl<'a> Failed<'a> {
    pub fn add(&mut self, row: usize, code: Code, field: &'a str, reason: impl Into<String>) {
        self.rows.entry(row).or_insert_with(|| (code, field, reason.into()));
    }

    pub fn contains(&self, row: usize) -> bool {
        !self.rows.is_empty() && self.rows.contains_key(&row)
    }

    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub fn into_rows(self) -> impl Iterator<Item = (usize, (Code, &'a str, String))> {
        self.rows.into_iter()
    }
}
