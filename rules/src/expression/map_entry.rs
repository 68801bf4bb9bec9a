//! `properties['key']`: the value of a map's entry, NULL where there is none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, MapArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::DataType;
use arrow::error::ArrowError;
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// What the SQL planner sees instead of brackets.
pub const NAME: &str = "map_entry";

#[derive(Debug, PartialEq, Eq, Hash)]
struct MapEntry {
    signature: Signature,
}

/// The lookup as a function of a map and a key.
pub fn function() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(MapEntry {
        signature: Signature::user_defined(Volatility::Immutable),
    }))
}

/// The place of a key's value among all values of the map array, for each of these rows. A key that a producer has written
/// twice counts as its last entry, as in the JSON objects and maps of most languages.
pub fn lookup(map: &MapArray, key: &str, rows: impl Iterator<Item = usize>) -> Vec<Option<u32>> {
    let keys = map.keys().as_string::<i32>();
    let offsets = map.value_offsets();
    let last_in = |row: usize| {
        if map.is_null(row) {
            return None;
        }
        let (start, end) = (
            usize::try_from(offsets[row]).ok()?,
            usize::try_from(offsets[row + 1]).ok()?,
        );
        let found = (start..end).rev().find(|entry| keys.value(*entry) == key)?;
        u32::try_from(found).ok()
    };
    rows.map(last_in).collect()
}

/// The values at those places; NULL where there is none.
pub fn values(map: &MapArray, found: Vec<Option<u32>>) -> std::result::Result<ArrayRef, ArrowError> {
    if found.iter().all(Option::is_none) {
        return Ok(new_null_array(map.values().data_type(), found.len()));
    }
    take(map.values(), &UInt32Array::from(found), None)
}

fn value_type(map: &DataType) -> Option<&DataType> {
    let DataType::Map(entries, _) = map else {
        return None;
    };
    let DataType::Struct(fields) = entries.data_type() else {
        return None;
    };
    fields.get(1).map(|values| values.data_type())
}

impl ScalarUDFImpl for MapEntry {
    fn name(&self) -> &str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [
                map @ DataType::Map(..),
                DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8,
            ] => Ok(vec![map.clone(), DataType::Utf8]),
            [DataType::Map(..), _] => plan_err!("the key of a map entry has to be text in single quotes"),
            _ => plan_err!("brackets read an entry of a map, and this column is no map"),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types.first().and_then(value_type) {
            Some(values) => Ok(values.clone()),
            None => plan_err!("brackets read an entry of a map, and this column is no map"),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let values = args.return_type().clone();
        let [ColumnarValue::Array(map), key] = args.args.as_slice() else {
            return Ok(ColumnarValue::Array(new_null_array(&values, args.number_rows)));
        };
        let ColumnarValue::Scalar(ScalarValue::Utf8(Some(key))) = key else {
            return exec_err!("the key of a map entry has to be a literal");
        };
        let map = map.as_map();
        Ok(ColumnarValue::Array(self::values(map, lookup(map, key, 0..map.len()))?))
    }
}
