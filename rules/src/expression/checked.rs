//! Arithmetic that fails instead of giving something else: DataFusion's integers wrap, and its floats divide by zero.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::error::ArrowError;
use datafusion_common::{Result, ScalarValue, exec_err};
use datafusion_expr::{ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// One checked operator. Both arguments have the same type, which is the result's.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Checked {
    operation: Operation,
    signature: Signature,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    DivideFloat,
    RemainderFloat,
}

impl Checked {
    /// The function that stands in for an operator on values of a type; `None` where DataFusion's own is right.
    pub fn instead_of(operator: Operator, data_type: &DataType) -> Option<Arc<ScalarUDF>> {
        let operation = match operator {
            Operator::Plus if data_type.is_integer() => Operation::Add,
            Operator::Minus if data_type.is_integer() => Operation::Subtract,
            Operator::Multiply if data_type.is_integer() => Operation::Multiply,
            Operator::Divide if is_float(data_type) => Operation::DivideFloat,
            Operator::Modulo if is_float(data_type) => Operation::RemainderFloat,
            _ => return None,
        };
        Some(Arc::new(ScalarUDF::new_from_impl(Self {
            operation,
            signature: Signature::user_defined(Volatility::Immutable),
        })))
    }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.operation {
            Operation::Add => "checked_add",
            Operation::Subtract => "checked_subtract",
            Operation::Multiply => "checked_multiply",
            Operation::DivideFloat => "checked_divide",
            Operation::RemainderFloat => "checked_remainder",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] if left == right => Ok(left.clone()),
            _ => exec_err!("arithmetic needs two values of one type"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return exec_err!("arithmetic needs two values");
        };
        let kernel = match self.operation {
            Operation::Add => numeric::add,
            Operation::Subtract => numeric::sub,
            Operation::Multiply => numeric::mul,
            Operation::DivideFloat => divide,
            Operation::RemainderFloat => remainder,
        };
        match (left, right) {
            (ColumnarValue::Array(left), ColumnarValue::Array(right)) => array(kernel(left, right)),
            (ColumnarValue::Array(left), ColumnarValue::Scalar(right)) => array(kernel(left, &right.to_scalar()?)),
            (ColumnarValue::Scalar(left), ColumnarValue::Array(right)) => array(kernel(&left.to_scalar()?, right)),
            (ColumnarValue::Scalar(left), ColumnarValue::Scalar(right)) => {
                let result = kernel(&left.to_scalar()?, &right.to_scalar()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?))
            }
        }
    }
}

fn array(result: Result<ArrayRef, ArrowError>) -> Result<ColumnarValue> {
    Ok(ColumnarValue::Array(result?))
}

fn divide(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    refuse_zero(left, right)?;
    numeric::div(left, right)
}

fn remainder(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    refuse_zero(left, right)?;
    numeric::rem(left, right)
}

/// A zero under a value that is NULL does no harm: the result is NULL.
fn refuse_zero(left: &dyn Datum, right: &dyn Datum) -> Result<(), ArrowError> {
    let (dividend, one_dividend) = left.get();
    let (divisor, one_divisor) = right.get();
    let present = |row: usize| dividend.is_valid(if one_dividend { 0 } else { row });
    let is_zero = |row: usize| match divisor.data_type() {
        DataType::Float32 => divisor.as_primitive::<Float32Type>().value(row) == 0.0,
        DataType::Float64 => divisor.as_primitive::<Float64Type>().value(row) == 0.0,
        _ => false,
    };
    let zero = if one_divisor {
        divisor.is_valid(0) && is_zero(0) && (0..dividend.len()).any(present)
    } else {
        (0..divisor.len()).any(|row| divisor.is_valid(row) && is_zero(row) && present(row))
    };
    if zero { Err(ArrowError::DivideByZero) } else { Ok(()) }
}
