//! The rows of a batch that one program works on, as the rules above have left them.

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array};
use arrow::compute::{filter, take};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::chosen::Chosen;
use super::effects::{Effects, Failed};
use super::merge::Outcome;
use crate::applied::Failure;
use crate::expression::{Evaluated, Expression, Input, map_entry};
use crate::program::Step;

/// Rows of a batch.
#[derive(Debug, Clone)]
pub enum Rows {
    /// The first so many, which are all of it.
    All(u32),
    /// These, ascending.
    Some(UInt32Array),
}

impl Rows {
    pub fn len(&self) -> usize {
        match self {
            Self::All(rows) => usize::try_from(*rows).unwrap_or(usize::MAX),
            Self::Some(rows) => rows.len(),
        }
    }

    /// The batch's number of the nth row.
    pub fn number(&self, nth: usize) -> u32 {
        match self {
            Self::All(_) => u32::try_from(nth).unwrap_or(u32::MAX),
            Self::Some(rows) => rows.value(nth),
        }
    }

    /// The first and the second half.
    pub fn halves(&self) -> [Self; 2] {
        let numbers: Vec<u32> = (0..self.len()).map(|nth| self.number(nth)).collect();
        let (first, second) = numbers.split_at(numbers.len() / 2);
        [Self::Some(first.to_vec().into()), Self::Some(second.to_vec().into())]
    }

    fn of(&self, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::All(_) => Ok(ArrayRef::clone(values)),
            Self::Some(rows) => take(values, rows, None),
        }
    }

    fn filtered(&self, keep: &BooleanArray) -> Self {
        let kept = keep.values().set_indices().map(|nth| self.number(nth));
        Self::Some(kept.collect::<Vec<u32>>().into())
    }
}

/// Where the entry of a key stands among the values of a map column, for each row.
type Places = Vec<Option<u32>>;

/// State of one run. Columns are taken from the input when a rule first needs them: most never are.
#[derive(Debug)]
pub struct Work<'a> {
    input: &'a RecordBatch,
    /// Those still alive.
    pub rows: Rows,
    columns: Vec<Option<ArrayRef>>,
    changed: Vec<bool>,
    /// For each row 0 for the event's own table, or 1 + the index of the step that routed it. `None`: all 0.
    pub routed: Option<Vec<u32>>,
    pub effects: Effects,
}

impl<'a> Work<'a> {
    pub fn new(input: &'a RecordBatch, rows: Rows) -> Self {
        let columns = input.num_columns();
        Self {
            input,
            rows,
            columns: vec![None; columns],
            changed: vec![false; columns],
            routed: None,
            effects: Effects::default(),
        }
    }

    pub fn column(&mut self, index: usize) -> Result<ArrayRef, ArrowError> {
        if let Some(column) = &self.columns[index] {
            return Ok(ArrayRef::clone(column));
        }
        let column = self.rows.of(self.input.column(index))?;
        self.columns[index] = Some(ArrayRef::clone(&column));
        Ok(column)
    }

    /// Where an entry stands for each of the rows, as long as no rule has touched the map: `None` then. The map itself, most of an event, is
    /// not taken for it.
    fn places(&self, map: usize, key: &str) -> Option<Places> {
        if self.columns[map].is_some() {
            return None;
        }
        let map = self.input.column(map).as_map();
        Some(match &self.rows {
            Rows::All(_) => map_entry::lookup(map, key, 0..map.len()),
            Rows::Some(rows) => {
                let rows = rows.values().iter().filter_map(|row| usize::try_from(*row).ok());
                map_entry::lookup(map, key, rows)
            }
        })
    }

    /// Whether it is certain that none of the rows has the entry.
    pub fn lacks(&self, map: usize, key: &str) -> bool {
        self.places(map, key)
            .is_some_and(|places| places.iter().all(Option::is_none))
    }

    fn input(&mut self, input: &Input) -> Result<ArrayRef, ArrowError> {
        match input {
            Input::Column(index) => self.column(*index),
            Input::Entry(map, key) => match self.places(*map, key) {
                Some(places) => map_entry::values(self.input.column(*map).as_map(), places),
                None => {
                    let column = self.column(*map)?;
                    map_entry::values(
                        column.as_map(),
                        map_entry::lookup(column.as_map(), key, 0..column.len()),
                    )
                }
            },
        }
    }

    pub fn replace(&mut self, index: usize, column: ArrayRef) {
        self.columns[index] = Some(column);
        self.changed[index] = true;
    }

    pub fn column_type(&self, index: usize) -> DataType {
        self.input.column(index).data_type().clone()
    }

    pub fn nullable(&self, index: usize) -> bool {
        self.input.schema_ref().field(index).is_nullable()
    }

    /// Evaluates over the chosen rows; their errors are recorded, and their values are NULL.
    pub fn evaluate<'s>(
        &mut self,
        expression: &Expression,
        chosen: &Chosen,
        field: &'s str,
        failed: &mut Failed<'s>,
    ) -> Result<ArrayRef, ArrowError> {
        let mut columns = Vec::with_capacity(expression.inputs().len());
        for input in expression.inputs() {
            columns.push(chosen.of(&self.input(input)?)?);
        }
        let Evaluated { values, errors } = expression.evaluate(columns, chosen.len());
        for error in errors {
            let nth = usize::try_from(error.row).unwrap_or(usize::MAX);
            failed.add(chosen.row(nth), error.code, field, error.reason);
        }
        Ok(values)
    }

    /// The rows for which a step's condition is true.
    pub fn choose<'s>(&mut self, step: &'s Step, failed: &mut Failed<'s>) -> Result<Chosen, ArrowError> {
        let all = Chosen::All(self.rows.len());
        let Some(when) = &step.when else {
            return Ok(all);
        };
        let condition = self.evaluate(when, &all, "when", failed)?;
        match condition.as_boolean_opt() {
            Some(condition) => Ok(Chosen::by(condition)),
            None => Err(ArrowError::SchemaError("a condition is no boolean".to_owned())),
        }
    }

    /// Ends the life of rows: the failed ones, and the dropped ones. Neither sees the rules below.
    pub fn bury(&mut self, step: &Step, failed: Failed<'_>, dropped: Option<&Chosen>) -> Result<(), ArrowError> {
        if failed.is_empty() && dropped.is_none() {
            return Ok(());
        }
        let mut alive = vec![true; self.rows.len()];
        for row in dropped
            .iter()
            .flat_map(|chosen| chosen.rows())
            .filter(|row| !failed.contains(*row))
        {
            alive[row] = false;
            self.effects.dropped.push(self.rows.number(row));
        }
        for (row, (code, field, reason)) in failed.into_rows() {
            alive[row] = false;
            self.effects.failures.push(Failure {
                row: self.rows.number(row),
                rule: std::sync::Arc::clone(&step.rule),
                code,
                field: Some(field.to_owned()),
                reason,
            });
        }
        let mut kept = alive.iter();
        if let Some(routed) = &mut self.routed {
            routed.retain(|_| kept.next().copied().unwrap_or(true));
        }
        let keep = BooleanArray::from(alive);
        for column in self.columns.iter_mut().flatten() {
            *column = filter(column, &keep)?;
        }
        self.rows = self.rows.filtered(&keep);
        Ok(())
    }

    /// What has become of the rows.
    pub fn outcome(self, steps: &[Step]) -> Outcome<'_> {
        let changed = self.columns.into_iter().zip(self.changed).enumerate();
        Outcome {
            steps,
            rows: self.rows,
            changed: changed
                .filter_map(|(index, (column, changed))| Some((index, column.filter(|_| changed)?)))
                .collect(),
            routed: self.routed,
            effects: self.effects,
        }
    }
}
