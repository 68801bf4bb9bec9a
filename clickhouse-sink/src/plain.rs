//! Arrow has several layouts for one meaning; expressions may answer in any of them. Here they become the one that
//! the rest of the crate reads.

use std::borrow::Cow;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::Error;

/// `array` as `Utf8` or `Binary` if it is text or bytes in another layout, otherwise as it is.
pub(crate) fn plain<'a>(column: &str, array: &'a ArrayRef) -> Result<Cow<'a, ArrayRef>, Error> {
    let to = match array.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        DataType::Null => DataType::Utf8,
        _ => return Ok(Cow::Borrowed(array)),
    };
    cast(array, &to)
        .map(Cow::Owned)
        .map_err(|error| Error::column(column, error.to_string()))
}
