//! From what programs have made of their rows to a batch in the input's order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatchOptions, UInt32Array};
use arrow::compute::{concat, interleave, take};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::effects::Effects;
use super::work::Rows;
use crate::applied::{Applied, Code, Failure, Route};
use crate::catalog::EventShape;
use crate::expression::panicked;
use crate::program::{Action, Step};

/// What became of some rows.
#[derive(Debug)]
pub struct Outcome<'p> {
    /// What `routed` refers to.
    pub steps: &'p [Step],
    /// The rows that are still alive.
    pub rows: Rows,
    /// Columns that have other values, one for each of `rows`.
    pub changed: Vec<(usize, ArrayRef)>,
    /// For each of `rows` 0 for the event's own table, or 1 + the index of the step that routed it.
    pub routed: Option<Vec<u32>>,
    pub effects: Effects,
}

/// Puts outcomes together. Rows that are in none are unchanged.
pub fn merge(input: &RecordBatch, event: &EventShape, outcomes: Vec<Outcome<'_>>) -> Applied {
    let mut effects = Effects::default();
    let mut unchanged = Vec::new();
    let attempt = catch_unwind(AssertUnwindSafe(|| columns(input, &outcomes)));
    let batch = match attempt.unwrap_or_else(|panic| Err(ArrowError::ComputeError(panicked(panic.as_ref())))) {
        Ok(batch) => batch,
        Err(error) => {
            // Columns beyond two gigabytes: none of the changed rows can be trusted, the others can.
            unchanged = lost(&outcomes, &error);
            input.clone()
        }
    };
    let routes = routes(input.num_rows(), event, &outcomes, &unchanged);
    for outcome in outcomes {
        effects.alerts.extend(outcome.effects.alerts);
        effects.charges.extend(outcome.effects.charges);
        effects.failures.extend(outcome.effects.failures);
        effects.dropped.extend(outcome.effects.dropped);
    }
    effects.failures.extend(unchanged);
    finish(batch, routes, effects)
}

fn finish(batch: RecordBatch, routes: Vec<Route>, mut effects: Effects) -> Applied {
    effects.failures.sort_by_key(|failure| failure.row);
    effects.failures.dedup_by_key(|failure| failure.row);
    effects.dropped.sort_unstable();
    if !effects.failures.is_empty() {
        let failures = &effects.failures;
        let failed = |row: u32| failures.binary_search_by_key(&row, |failure| failure.row).is_ok();
        effects.alerts.retain(|(row, ..)| !failed(*row));
        effects.charges.retain(|(row, ..)| !failed(*row));
        effects.dropped.retain(|row| !failed(*row));
    }
    effects.alerts.sort_by_key(|(row, rule, _)| (*row, *rule));
    effects.charges.sort_by_key(|(row, rule, _)| (*row, *rule));
    Applied {
        batch,
        routes,
        alerts: effects.alerts.into_iter().map(|(.., alert)| alert).collect(),
        charges: effects.charges.into_iter().map(|(.., charge)| charge).collect(),
        failures: effects.failures,
        dropped: effects.dropped,
    }
}

fn lost(outcomes: &[Outcome<'_>], error: &ArrowError) -> Vec<Failure> {
    let changed = outcomes.iter().filter(|outcome| !outcome.changed.is_empty());
    let failures = changed.flat_map(|outcome| {
        (0..outcome.rows.len()).map(|nth| Failure {
            row: outcome.rows.number(nth),
            rule: outcome
                .steps
                .first()
                .map_or_else(|| Arc::from(""), |step| Arc::clone(&step.rule)),
            code: Code::Internal,
            field: None,
            reason: error.to_string(),
        })
    });
    failures.collect()
}

fn columns(input: &RecordBatch, outcomes: &[Outcome<'_>]) -> Result<RecordBatch, ArrowError> {
    if outcomes.iter().all(|outcome| outcome.changed.is_empty()) {
        return Ok(input.clone());
    }
    let mut pieces: BTreeMap<usize, Vec<(&Rows, &ArrayRef)>> = BTreeMap::new();
    for outcome in outcomes {
        for (index, values) in &outcome.changed {
            pieces.entry(*index).or_default().push((&outcome.rows, values));
        }
    }
    let mut columns = input.columns().to_vec();
    for (index, pieces) in pieces {
        columns[index] = put_back(&columns[index], &pieces)?;
    }
    let options = RecordBatchOptions::new().with_row_count(Some(input.num_rows()));
    RecordBatch::try_new_with_options(input.schema(), columns, &options)
}

fn put_back(column: &ArrayRef, pieces: &[(&Rows, &ArrayRef)]) -> Result<ArrayRef, ArrowError> {
    if let [(Rows::All(_), values)] = pieces {
        return Ok(ArrayRef::clone(values));
    }
    if column.data_type().is_nested() {
        return put_back_nested(column, pieces);
    }
    let mut sources: Vec<(usize, usize)> = (0..column.len()).map(|row| (0, row)).collect();
    let mut arrays: Vec<&dyn Array> = vec![column.as_ref()];
    for (piece, (rows, values)) in pieces.iter().enumerate() {
        arrays.push(values.as_ref());
        for nth in 0..rows.len() {
            sources[at(rows.number(nth))] = (piece + 1, nth);
        }
    }
    interleave(&arrays, &sources)
}

/// Arrow interleaves maps value by value, which costs three times as much as to join and reorder them.
fn put_back_nested(column: &ArrayRef, pieces: &[(&Rows, &ArrayRef)]) -> Result<ArrayRef, ArrowError> {
    let mut arrays: Vec<&dyn Array> = vec![column.as_ref()];
    let mut order: Vec<u32> = (0..u32::try_from(column.len()).unwrap_or(u32::MAX)).collect();
    let mut next = u32::try_from(column.len()).unwrap_or(u32::MAX);
    for (rows, values) in pieces {
        arrays.push(values.as_ref());
        for nth in 0..rows.len() {
            order[at(rows.number(nth))] = next;
            next = next.saturating_add(1);
        }
    }
    take(&concat(&arrays)?, &UInt32Array::from(order), None)
}

fn at(row: u32) -> usize {
    usize::try_from(row).unwrap_or(usize::MAX)
}

/// A row that goes nowhere.
const GONE: u32 = u32::MAX;

fn routes(rows: usize, event: &EventShape, outcomes: &[Outcome<'_>], lost: &[Failure]) -> Vec<Route> {
    let own = [event.table_index(&event.table).unwrap_or(0)];
    // For each row an index into `sets`.
    let mut sets: Vec<&[usize]> = vec![&own];
    let mut fates = vec![0_u32; rows];
    for outcome in outcomes {
        let failures = outcome.effects.failures.iter().map(|failure| failure.row);
        for row in failures.chain(outcome.effects.dropped.iter().copied()) {
            fates[at(row)] = GONE;
        }
        let Some(routed) = &outcome.routed else { continue };
        let first = u32::try_from(sets.len()).unwrap_or(GONE);
        sets.extend(outcome.steps.iter().map(|step| match &step.action {
            Action::Route(tables) => tables.as_slice(),
            _ => &own,
        }));
        for (nth, step) in routed.iter().enumerate().filter(|(_, step)| **step > 0) {
            fates[at(outcome.rows.number(nth))] = first + step - 1;
        }
    }
    for failure in lost {
        fates[at(failure.row)] = GONE;
    }
    let mut tables: Vec<Vec<u32>> = vec![Vec::new(); event.tables.len()];
    if sets.len() == 1
        && let Some(table) = tables.get_mut(own[0])
    {
        table.reserve(rows);
    }
    for (row, fate) in (0_u32..).zip(&fates) {
        for table in sets.get(at(*fate)).copied().unwrap_or_default() {
            if let Some(rows) = tables.get_mut(*table) {
                rows.push(row);
            }
        }
    }
    let route = |(table, rows): (&String, Vec<u32>)| Route {
        table: table.clone(),
        rows,
    };
    event
        .tables
        .iter()
        .zip(tables)
        .map(route)
        .filter(|route| !route.rows.is_empty())
        .collect()
}
