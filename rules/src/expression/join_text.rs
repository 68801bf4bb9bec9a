//! `a || b || c`: one pass over all parts, with a bound on the result. NULL in any part makes the whole NULL.

use std::sync::Arc;

use arrow::array::{Array, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use super::guarded::too_large;
use crate::limits::{BATCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX};

#[derive(Debug, PartialEq, Eq, Hash)]
pub struct JoinText {
    signature: Signature,
}

impl JoinText {
    /// The function, of any number of values.
    pub fn function() -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self {
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    }
}

enum Part {
    Each(StringArray),
    Same(Option<String>),
}

impl Part {
    fn value(&self, row: usize) -> Option<&str> {
        match self {
            Self::Each(texts) => texts.is_valid(row).then(|| texts.value(row)),
            Self::Same(text) => text.as_deref(),
        }
    }
}

impl ScalarUDFImpl for JoinText {
    fn name(&self) -> &str {
        "join_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        Ok(types.to_vec())
    }

    fn return_type(&self, _types: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = |value: &ColumnarValue| matches!(value, ColumnarValue::Scalar(_));
        let one = args.args.iter().all(is_scalar);
        let parts = args.args.iter().map(part).collect::<Result<Vec<Part>>>()?;
        let rows = if one { 1 } else { args.number_rows };
        let mut joined = StringBuilder::with_capacity(rows, rows * 32);
        let mut bytes_in_all = 0;
        for row in 0..rows {
            let bytes = parts
                .iter()
                .map(|part| part.value(row).map(str::len))
                .sum::<Option<usize>>();
            let Some(bytes) = bytes else {
                joined.append_null();
                continue;
            };
            bytes_in_all += bytes;
            if bytes > TEXT_BYTES_MAX || bytes_in_all > BATCH_TEXT_BYTES_MAX {
                return too_large(bytes);
            }
            for text in parts.iter().filter_map(|part| part.value(row)) {
                // Writing into the builder extends the value that `append_value` then ends; it can't fail.
                std::fmt::Write::write_str(&mut joined, text)
                    .map_err(|_| arrow::error::ArrowError::OffsetOverflowError(bytes))?;
            }
            joined.append_value("");
        }
        let joined = joined.finish();
        if one {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&joined, 0)?));
        }
        Ok(ColumnarValue::Array(Arc::new(joined)))
    }
}

fn part(value: &ColumnarValue) -> Result<Part> {
    Ok(match value {
        ColumnarValue::Array(array) => Part::Each(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()),
        ColumnarValue::Scalar(scalar) => match scalar.cast_to(&DataType::Utf8)? {
            ScalarValue::Utf8(text) => Part::Same(text),
            _ => Part::Same(None),
        },
    })
}
