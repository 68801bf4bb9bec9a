//! The columns of one batch.

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use pipeline::shape::Shape;
use xxhash_rust::xxh3::xxh3_64;

use super::column::Column;

/// Rows of one shape, growing. [`super::Plan::decode`] adds a row or leaves them as they were.
#[derive(Debug)]
pub struct Columns {
    schema: SchemaRef,
    pub(super) layout: u64,
    pub(super) columns: Vec<Column>,
    pub(super) rows: usize,
}

impl Columns {
    /// No rows yet.
    pub fn new(shape: &Shape) -> Self {
        Columns {
            schema: shape.arrow(),
            layout: layout(shape),
            columns: shape
                .columns
                .iter()
                .map(|column| Column::new(&column.kind, column.nullable))
                .collect(),
            rows: 0,
        }
    }

    /// Rows so far.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes that the rows take, without the spare room of the vectors. Costs a few instructions a column.
    pub fn bytes(&self) -> usize {
        self.columns.iter().map(Column::bytes).sum()
    }

    /// Gives up all rows after the first `rows`.
    pub fn truncate(&mut self, rows: usize) {
        if rows < self.rows {
            self.rows = rows;
            self.undo();
        }
    }

    /// Gives up whatever was written of the row after the last.
    pub(super) fn undo(&mut self) {
        for column in &mut self.columns {
            column.truncate(self.rows);
        }
    }

    /// The rows as one batch, without copying a value, and no rows again.
    ///
    /// # Errors
    /// When Arrow refuses the arrays, which would be a fault of this module. The rows are gone then, too.
    pub fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        // All columns are emptied before a failure is reported, so that none is left longer than another.
        let arrays: Vec<_> = self
            .columns
            .iter_mut()
            .zip(self.schema.fields())
            .map(|(column, field)| column.finish(field.data_type()))
            .collect();
        let arrays = arrays
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .inspect_err(|_| self.undo())?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)
    }
}

/// Tells shapes with other columns apart: a plan must not write to the columns of another shape.
pub(super) fn layout(shape: &Shape) -> u64 {
    let kinds: Vec<_> = shape
        .columns
        .iter()
        .map(|column| (&column.name, &column.kind, column.nullable))
        .collect();
    xxh3_64(format!("{kinds:?}").as_bytes())
}
