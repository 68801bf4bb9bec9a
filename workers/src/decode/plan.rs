//! A compiled plan, and how it runs.

use apache_avro::Schema;
use pipeline::shape::{Kind, Shape};

use super::column::Column;
use super::columns::Columns;
use super::compile;
use super::cursor::Cursor;
use super::error::{DecodeError, Fault, PlanError};
use super::slot::Slot;
use super::types::{TypeId, Types};

/// How payloads of one writer schema become rows of one shape. Cheap to run, dear to make: keep it.
#[derive(Debug)]
pub struct Plan {
    pub(super) steps: Vec<Step>,
    /// Dotted writer path of each step that can fail.
    pub(super) paths: Vec<String>,
    pub(super) types: Types,
    pub(super) layout: u64,
}

/// One field of the writer, or one column that it lacks. The fields of a record that is always there stand among those
/// around it: Avro puts nothing between them.
#[derive(Debug)]
pub(super) enum Step {
    /// A field with a column.
    Put { column: usize, slot: Slot, path: usize },
    /// A field without one.
    Skip { id: TypeId, depth: u32, path: usize },
    /// A field without one that would be JSON if it had one: how long its text is decides whether the event is too large.
    SkipJson { slot: Slot, path: usize },
    /// A union of null and a record, or of a record alone (`null` is then `None`).
    Optional {
        null: Option<i64>,
        steps: Vec<Step>,
        columns: Vec<usize>,
        path: usize,
    },
    /// Columns that this version of the schema lacks.
    Nulls(Vec<usize>),
}

impl Plan {
    /// Makes the plan.
    ///
    /// # Errors
    /// [`PlanError`]: the schema is no record, or the shape was made without this version and cannot hold it. That is
    /// never the fault of an event.
    pub fn compile(writer: &Schema, shape: &Shape) -> Result<Plan, PlanError> {
        compile::plan(writer, shape)
    }

    /// Adds the row that `payload` encodes (without the registry's prefix), all of it.
    ///
    /// # Errors
    /// [`DecodeError`] names the field and what is wrong; the columns are then as before.
    pub fn decode(&self, columns: &mut Columns, payload: &[u8]) -> Result<(), DecodeError> {
        if self.layout != columns.layout {
            return Err(Fault::WrongColumns.at("", 0, payload.len()));
        }
        let mut cursor = Cursor::new(payload);
        let outcome = self
            .run(&self.steps, &mut cursor, columns)
            .and_then(|()| match cursor.remaining() {
                0 => Ok(()),
                _ => Err((Fault::TrailingBytes, None)),
            });
        match outcome {
            Ok(()) => {
                columns.rows += 1;
                Ok(())
            }
            Err((fault, path)) => {
                columns.undo();
                let field = path.and_then(|path| self.paths.get(path)).map_or("", String::as_str);
                Err(fault.at(field, cursor.position(), payload.len()))
            }
        }
    }

    fn run(
        &self,
        steps: &[Step],
        cursor: &mut Cursor<'_>,
        columns: &mut Columns,
    ) -> Result<(), (Fault, Option<usize>)> {
        for step in steps {
            match step {
                Step::Put { column, slot, path } => {
                    let column = columns
                        .columns
                        .get_mut(*column)
                        .ok_or((Fault::WrongColumns, Some(*path)))?;
                    slot.read(&self.types, cursor, column)
                        .map_err(|fault| (fault, Some(*path)))?;
                }
                Step::Skip { id, depth, path } => {
                    self.types
                        .skip(*id, cursor, *depth)
                        .map_err(|fault| (fault, Some(*path)))?;
                }
                Step::SkipJson { slot, path } => {
                    slot.read(&self.types, cursor, &mut Column::new(&Kind::Json, true))
                        .map_err(|fault| (fault, Some(*path)))?;
                }
                Step::Optional {
                    null,
                    steps,
                    columns: inside,
                    path,
                } => {
                    let branch = cursor.long().map_err(|fault| (fault, Some(*path)))?;
                    if Some(branch) == *null {
                        push_nulls(inside, columns).map_err(|fault| (fault, Some(*path)))?;
                    } else if branch == null.map_or(0, |null| 1 - null) {
                        self.run(steps, cursor, columns)?;
                    } else {
                        return Err((Fault::Union, Some(*path)));
                    }
                }
                Step::Nulls(lacked) => push_nulls(lacked, columns).map_err(|fault| (fault, None))?,
            }
        }
        Ok(())
    }
}

fn push_nulls(inside: &[usize], columns: &mut Columns) -> Result<(), Fault> {
    for column in inside {
        columns
            .columns
            .get_mut(*column)
            .ok_or(Fault::WrongColumns)?
            .push_null()?;
    }
    Ok(())
}
