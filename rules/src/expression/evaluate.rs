//! Evaluation in which one bad row fails alone.
//!
//! A kernel answers for a whole batch or not at all. So a batch that fails is halved until what fails is one row. A
//! row's outcome is that of its own evaluation: DataFusion's `AND`, `OR` and `CASE` skip what no row of a batch
//! needs, and a batch never skips what one of its rows alone would need. Together with another row it is therefore
//! never worse off, and no batch boundary can be seen in the outcome.

use std::any::Any;
use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatchOptions, new_empty_array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use datafusion_common::DataFusionError;

use super::Expression;
use crate::applied::Code;
use crate::limits::{HALVE_ROWS_MIN, REASON_BYTES_MAX};

/// The value for each row; NULL where the row has failed.
#[derive(Debug)]
pub struct Evaluated {
    pub values: ArrayRef,
    /// Ascending by row.
    pub errors: Vec<RowError>,
}

/// Why one row has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowError {
    pub row: u32,
    pub code: Code,
    pub reason: String,
}

impl Expression {
    /// Evaluates over `rows` rows of its inputs, which come in the order of [`Expression::inputs`].
    pub fn evaluate(&self, columns: Vec<ArrayRef>, rows: usize) -> Evaluated {
        let whole = self
            .constant
            .as_ref()
            .and_then(|value| value.to_array_of_size(rows).ok());
        if let Some(values) = whole {
            return Evaluated {
                values,
                errors: Vec::new(),
            };
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options);
        match batch.map_err(DataFusionError::from) {
            Ok(batch) => self.evaluate_batch(&batch),
            Err(error) => self.all_failed(rows, &error),
        }
    }

    /// Why it fails for every event: a unit of time or an encoding that isn't one, for example. Found by a row of
    /// NULLs, which gives no other reason to fail.
    pub fn hopeless(&self) -> Option<String> {
        let blank = |field: &FieldRef| Field::new(field.name(), field.data_type().clone(), true);
        let schema = Arc::new(Schema::new(
            self.schema.fields().iter().map(blank).collect::<Vec<Field>>(),
        ));
        let columns = schema
            .fields()
            .iter()
            .map(|field| new_null_array(field.data_type(), 1))
            .collect();
        let options = RecordBatchOptions::new().with_row_count(Some(1));
        let row = RecordBatch::try_new_with_options(schema, columns, &options).ok()?;
        let (code, reason) = self.attempt(&row).err()?.classified();
        (code == Code::Evaluation).then_some(reason)
    }

    fn evaluate_batch(&self, batch: &RecordBatch) -> Evaluated {
        match self.attempt(batch) {
            Ok(values) => Evaluated {
                values,
                errors: Vec::new(),
            },
            Err(refusal) => {
                let mut search = Search {
                    expression: self,
                    pieces: Vec::new(),
                    errors: Vec::new(),
                };
                search.narrow(batch, 0, refusal);
                search.finish(batch.num_rows())
            }
        }
    }

    fn attempt(&self, batch: &RecordBatch) -> Result<ArrayRef, Refusal> {
        let rows = batch.num_rows();
        let attempt = catch_unwind(AssertUnwindSafe(|| self.physical.evaluate(batch)?.into_array(rows)));
        match attempt {
            Ok(Ok(values)) if values.len() == rows => Ok(values),
            Ok(Ok(values)) => Err(Refusal::Lost(values.len())),
            Ok(Err(error)) => Err(Refusal::Error(error)),
            Err(panic) => Err(Refusal::Panic(panicked(panic.as_ref()))),
        }
    }

    fn all_failed(&self, rows: usize, error: &DataFusionError) -> Evaluated {
        let (code, reason) = classified(error);
        let failed = |row| RowError {
            row,
            code,
            reason: reason.clone(),
        };
        Evaluated {
            values: new_null_array(&self.data_type(), rows),
            errors: (0..u32::try_from(rows).unwrap_or(u32::MAX)).map(failed).collect(),
        }
    }

    fn data_type(&self) -> DataType {
        self.physical.data_type(&self.schema).unwrap_or(DataType::Null)
    }
}

/// What a panic said.
pub fn panicked(panic: &(dyn Any + Send)) -> String {
    let said = panic
        .downcast_ref::<&str>()
        .copied()
        .or(panic.downcast_ref::<String>().map(String::as_str));
    shortened(said.unwrap_or("no message")).into_owned()
}

/// At most as many bytes as a reason may have.
pub fn shortened(text: &str) -> Cow<'_, str> {
    if text.len() <= REASON_BYTES_MAX {
        return Cow::Borrowed(text);
    }
    let end = (0..=REASON_BYTES_MAX)
        .rev()
        .find(|end| text.is_char_boundary(*end))
        .unwrap_or(0);
    Cow::Owned(format!("{}…", &text[..end]))
}

enum Refusal {
    Error(DataFusionError),
    Panic(String),
    Lost(usize),
}

impl Refusal {
    fn classified(&self) -> (Code, String) {
        match self {
            Self::Error(error) => classified(error),
            Self::Panic(said) => (Code::Internal, format!("a function panicked: {said}")),
            Self::Lost(rows) => (
                Code::Internal,
                format!("a function answered {rows} rows for another number of rows"),
            ),
        }
    }
}

/// The search for the rows that fail. Its cost is bounded: halving stops at a few rows, which are then tried one by
/// one, so that a batch of nothing but bad rows costs its rows and a third more.
struct Search<'a> {
    expression: &'a Expression,
    pieces: Vec<ArrayRef>,
    errors: Vec<RowError>,
}

impl Search<'_> {
    /// `batch` has failed; its first row is the `first` of all.
    fn narrow(&mut self, batch: &RecordBatch, first: usize, refusal: Refusal) {
        let rows = batch.num_rows();
        if rows <= 1 {
            if rows == 1 {
                self.failed(first, &refusal);
            }
            return;
        }
        drop(refusal);
        let step = if rows <= HALVE_ROWS_MIN { 1 } else { rows.div_ceil(2) };
        for start in (0..rows).step_by(step) {
            let part = batch.slice(start, step.min(rows - start));
            match self.expression.attempt(&part) {
                Ok(values) => self.pieces.push(values),
                Err(refusal) => self.narrow(&part, first + start, refusal),
            }
        }
    }

    fn failed(&mut self, row: usize, refusal: &Refusal) {
        let (code, reason) = refusal.classified();
        self.pieces.push(new_null_array(&self.expression.data_type(), 1));
        self.errors.push(RowError {
            row: u32::try_from(row).unwrap_or(u32::MAX),
            code,
            reason,
        });
    }

    fn finish(self, rows: usize) -> Evaluated {
        let pieces: Vec<&dyn Array> = self.pieces.iter().map(AsRef::as_ref).collect();
        let joined = match pieces.as_slice() {
            [] => Ok(new_empty_array(&self.expression.data_type())),
            some => concat(some),
        };
        match joined {
            Ok(values) => Evaluated {
                values,
                errors: self.errors,
            },
            // Only texts beyond two gigabytes in all can't be joined.
            Err(error) => self.expression.all_failed(rows, &DataFusionError::from(error)),
        }
    }
}

fn classified(error: &DataFusionError) -> (Code, String) {
    let root = error.find_root();
    let message = root.message();
    let line = message
        .split(DataFusionError::BACK_TRACE_SEP)
        .next()
        .unwrap_or_default()
        .trim();
    let code = match root {
        DataFusionError::ArrowError(error, _) => match error.as_ref() {
            ArrowError::DivideByZero => Code::DivideByZero,
            ArrowError::ArithmeticOverflow(_) => Code::Overflow,
            ArrowError::CastError(_) | ArrowError::ParseError(_) => Code::BadCast,
            ArrowError::OffsetOverflowError(_) => Code::TooLarge,
            _ => code_of_message(line),
        },
        DataFusionError::ResourcesExhausted(_) => Code::TooLarge,
        DataFusionError::Internal(_) => Code::Internal,
        _ => code_of_message(line),
    };
    (code, shortened(line).into_owned())
}

/// Functions say in words what arrow's kernels say by type.
fn code_of_message(message: &str) -> Code {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    if says(&["divide by zero", "division by zero"]) {
        Code::DivideByZero
    } else if says(&["overflow", "too large to store", "out of range"]) {
        Code::Overflow
    } else if says(&["cast", "parse", "parsing", "decode", "invalid timestamp"]) {
        Code::BadCast
    } else {
        Code::Evaluation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::Input;
    use arrow::array::{AsArray, Int64Array};
    use arrow::datatypes::Int64Type;
    use datafusion_common::{DFSchema, Result};
    use datafusion_expr::execution_props::ExecutionProps;
    use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, col};
    use std::sync::atomic::{AtomicUsize, Ordering};

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    /// Panics on 13 and otherwise gives back what it gets.
    #[derive(Debug, PartialEq, Eq, Hash)]
    struct Unlucky {
        signature: Signature,
    }

    impl ScalarUDFImpl for Unlucky {
        fn name(&self) -> &str {
            "unlucky"
        }

        fn signature(&self) -> &Signature {
            &self.signature
        }

        fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
            Ok(DataType::Int64)
        }

        fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
            CALLS.fetch_add(1, Ordering::Relaxed);
            let ColumnarValue::Array(values) = &args.args[0] else {
                panic!("a column")
            };
            let numbers = values.as_primitive::<Int64Type>();
            assert!(numbers.values().iter().all(|number| *number != 13), "thirteen");
            Ok(args.args[0].clone())
        }
    }

    fn unlucky() -> Expression {
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)]));
        let function = ScalarUDF::new_from_impl(Unlucky {
            signature: Signature::exact(vec![DataType::Int64], Volatility::Immutable),
        });
        let call = function.call(vec![col("n")]);
        let narrow = DFSchema::try_from(Arc::clone(&schema)).unwrap();
        let props = ExecutionProps::new();
        let physical = datafusion_physical_expr::create_physical_expr(&call, &narrow, &props, &Default::default());
        Expression {
            physical: physical.unwrap(),
            inputs: vec![Input::Column(0)],
            schema,
            constant: None,
        }
    }

    #[test]
    fn a_panic_is_narrowed_to_its_rows() {
        let numbers = Int64Array::from_iter_values((0..100).map(|n| if n == 40 || n == 99 { 13 } else { n + 100 }));
        let evaluated = unlucky().evaluate(vec![Arc::new(numbers)], 100);
        let errors: Vec<_> = evaluated
            .errors
            .iter()
            .map(|error| (error.row, error.code, error.reason.as_str()))
            .collect();
        let reason = "a function panicked: thirteen";
        assert_eq!(errors, [(40, Code::Internal, reason), (99, Code::Internal, reason)]);
        let values = evaluated.values.as_primitive::<Int64Type>();
        assert!((0..100).all(|row| if row == 40 || row == 99 {
            values.is_null(row)
        } else {
            values.value(row) == row as i64 + 100
        }));
    }

    #[test]
    fn the_search_costs_a_bounded_number_of_attempts_however_many_rows_are_bad() {
        let before = CALLS.load(Ordering::Relaxed);
        let evaluated = unlucky().evaluate(vec![Arc::new(Int64Array::from_value(13, 512))], 512);
        let attempts = CALLS.load(Ordering::Relaxed) - before;
        assert_eq!(evaluated.errors.len(), 512);
        // 512 rows one by one and 127 parts above them; the other test may be counted, too.
        assert!((639..750).contains(&attempts), "{attempts}");
    }

    #[test]
    fn reasons_are_cut_between_letters() {
        assert_eq!(shortened("short"), "short");
        let long = "ä".repeat(200);
        assert_eq!(shortened(&long), format!("{}…", "ä".repeat(150)));
    }
}
