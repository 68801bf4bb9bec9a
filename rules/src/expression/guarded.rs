//! Functions whose result may be larger than their arguments, with a bound on it.
//!
//! `replace(x, 'a', x)` makes a terabyte out of a megabyte: it has to be refused before it is computed. What can
//! only grow by a small factor is looked at afterwards, so that it can't be nested into a bomb.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, ScalarValue, resources_err};
use datafusion_expr::{ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature};

use super::functions::GROWING;
use crate::limits::{BATCH_TEXT_BYTES_MAX, TEXT_BYTES_MAX};

/// A function with bounds on what it makes.
#[derive(Debug)]
pub struct Guarded {
    inner: Arc<ScalarUDF>,
}

impl Guarded {
    /// The function to call instead; `None` for functions that don't grow.
    pub fn instead_of(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
        let guard = || {
            Arc::new(ScalarUDF::new_from_impl(Self {
                inner: Arc::clone(function),
            }))
        };
        GROWING.contains(&function.name()).then(guard)
    }
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.inner == other.inner
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.hash(state);
    }
}

/// The error that becomes `too_large`. Of a whole batch it only means that the batch has to be halved.
pub fn too_large<T>(bytes: usize) -> Result<T> {
    resources_err!("a text of {bytes} bytes is too large: at most {TEXT_BYTES_MAX} are allowed")
}

impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match self.name() {
            "replace" => refuse_large(&args, replaced_bytes_max)?,
            "regexp_replace" => refuse_large(&args, pattern_replaced_bytes_max)?,
            "concat" | "concat_ws" => refuse_large(&args, joined_bytes_max)?,
            _ => {}
        }
        let result = self.inner.invoke_with_args(args)?;
        refuse_large_result(&result)?;
        Ok(result)
    }
}

/// Computes a bound for each row from the texts of all arguments.
fn refuse_large(args: &ScalarFunctionArgs, bytes_max: fn(&[Option<&str>]) -> usize) -> Result<()> {
    let texts = args.args.iter().map(texts).collect::<Result<Vec<StringArray>>>()?;
    let rows = texts.iter().map(Array::len).max().unwrap_or_default();
    let mut row_texts = Vec::with_capacity(texts.len());
    let mut bytes_in_all = 0_usize;
    for row in 0..rows {
        row_texts.clear();
        row_texts.extend(texts.iter().map(|texts| {
            let row = if texts.len() == 1 { 0 } else { row };
            texts.is_valid(row).then(|| texts.value(row))
        }));
        let bytes = bytes_max(&row_texts);
        bytes_in_all = bytes_in_all.saturating_add(bytes);
        if bytes > TEXT_BYTES_MAX || (rows > 1 && bytes_in_all > BATCH_TEXT_BYTES_MAX) {
            return too_large(bytes);
        }
    }
    Ok(())
}

fn texts(value: &ColumnarValue) -> Result<StringArray> {
    let array = match value {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    Ok(cast(&array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// `replace(text, from, to)`: exact, once the cheap bound doesn't settle it.
fn replaced_bytes_max(texts: &[Option<&str>]) -> usize {
    let [Some(text), Some(from), Some(to)] = texts else {
        return 0;
    };
    if to.len() <= from.len() {
        return text.len();
    }
    // An empty `from` matches between all characters.
    let cheap = text
        .len()
        .saturating_add((text.len() / from.len().max(1) + 1).saturating_mul(to.len()));
    if cheap <= TEXT_BYTES_MAX || from.is_empty() {
        return cheap;
    }
    text.len()
        .saturating_add(text.matches(from).count().saturating_mul(to.len() - from.len()))
}

/// `regexp_replace(text, pattern, replacement)`: a match may be empty, and each `\1` brings in a part of the text,
/// but matches don't overlap.
fn pattern_replaced_bytes_max(texts: &[Option<&str>]) -> usize {
    let [Some(text), _, Some(replacement), ..] = texts else {
        return 0;
    };
    let references = replacement.matches(['\\', '$']).count();
    let everywhere = texts
        .get(3)
        .is_some_and(|flags| flags.is_some_and(|flags| flags.contains('g')));
    let matches = if everywhere { text.len() + 1 } else { 1 };
    text.len()
        .saturating_mul(1 + references)
        .saturating_add(matches.saturating_mul(replacement.len()))
}

fn joined_bytes_max(texts: &[Option<&str>]) -> usize {
    let separator = texts.first().copied().flatten().map_or(0, str::len);
    texts
        .iter()
        .flatten()
        .map(|text| text.len().saturating_add(separator))
        .fold(0, usize::saturating_add)
}

fn refuse_large_result(result: &ColumnarValue) -> Result<()> {
    let array: &ArrayRef = match result {
        ColumnarValue::Array(array) => array,
        ColumnarValue::Scalar(ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text))) => {
            return if text.len() > TEXT_BYTES_MAX {
                too_large(text.len())
            } else {
                Ok(())
            };
        }
        ColumnarValue::Scalar(_) => return Ok(()),
    };
    let longest = match array.data_type() {
        DataType::Utf8 => longest_by_offsets(array.as_string::<i32>().value_offsets()),
        DataType::Binary => longest_by_offsets(array.as_binary::<i32>().value_offsets()),
        DataType::Utf8View => array
            .as_string_view()
            .iter()
            .flatten()
            .map(str::len)
            .max()
            .unwrap_or_default(),
        _ => 0,
    };
    if longest > TEXT_BYTES_MAX {
        too_large(longest)
    } else {
        Ok(())
    }
}

fn longest_by_offsets(offsets: &[i32]) -> usize {
    let in_all = offsets
        .last()
        .zip(offsets.first())
        .map_or(0, |(end, start)| end - start);
    if usize::try_from(in_all).is_ok_and(|bytes| bytes <= TEXT_BYTES_MAX) {
        return 0;
    }
    let longest = offsets
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default();
    usize::try_from(longest).unwrap_or_default()
}
