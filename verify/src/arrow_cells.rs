//! Cells to Arrow columns, for the rules, and back.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array,
    Int32Array, Int64Array, ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray,
    TimestampMillisecondArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Float32Type, Float64Type, Int32Type, Int64Type, TimeUnit,
    TimestampMicrosecondType, TimestampMillisecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use pipeline::shape::Shape;

use crate::cell::Cell;

/// One batch of the shape's columns.
pub fn batch(shape: &Shape, rows: &[Vec<Cell>]) -> Result<RecordBatch, ArrowError> {
    let schema = shape.arrow();
    let column = |(at, field): (usize, &Arc<Field>)| {
        let cells: Vec<&Cell> = rows.iter().map(|row| row.get(at).unwrap_or(&Cell::Null)).collect();
        array(field.data_type(), &cells)
    };
    let columns = schema
        .fields()
        .iter()
        .enumerate()
        .map(column)
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(schema, columns, &options)
}

fn array(data_type: &DataType, cells: &[&Cell]) -> Result<ArrayRef, ArrowError> {
    let ints = || cells.iter().map(|cell| int(cell));
    let narrow = || {
        cells
            .iter()
            .map(|cell| int(cell).and_then(|value| i32::try_from(value).ok()))
    };
    let bytes = || {
        cells.iter().map(|cell| {
            if let Cell::Bytes(bytes) = cell {
                Some(bytes.as_slice())
            } else {
                None
            }
        })
    };
    Ok(match data_type {
        DataType::Boolean => {
            let value = |cell: &&Cell| {
                if let Cell::Bool(value) = cell {
                    Some(*value)
                } else {
                    None
                }
            };
            Arc::new(cells.iter().map(value).collect::<BooleanArray>())
        }
        DataType::Int32 => Arc::new(narrow().collect::<Int32Array>()),
        DataType::Date32 => Arc::new(narrow().collect::<Date32Array>()),
        DataType::Int64 => Arc::new(ints().collect::<Int64Array>()),
        DataType::Timestamp(TimeUnit::Millisecond, zone) => Arc::new(
            ints()
                .collect::<TimestampMillisecondArray>()
                .with_timezone_opt(zone.clone()),
        ),
        DataType::Timestamp(_, zone) => Arc::new(
            ints()
                .collect::<TimestampMicrosecondArray>()
                .with_timezone_opt(zone.clone()),
        ),
        DataType::Float32 => Arc::new(cells.iter().map(|cell| float32(cell)).collect::<Float32Array>()),
        DataType::Float64 => Arc::new(cells.iter().map(|cell| float64(cell)).collect::<Float64Array>()),
        DataType::Decimal128(precision, scale) => {
            let value = |cell: &&Cell| {
                if let Cell::Decimal(value) = cell {
                    Some(*value)
                } else {
                    None
                }
            };
            let array = cells.iter().map(value).collect::<Decimal128Array>();
            Arc::new(array.with_precision_and_scale(*precision, *scale)?)
        }
        DataType::Utf8 => {
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad("text that is not UTF-8"));
            let texts = bytes()
                .map(|bytes| bytes.map(text).transpose())
                .collect::<Result<Vec<_>, _>>()?;
            Arc::new(StringArray::from(texts))
        }
        DataType::Binary => Arc::new(bytes().collect::<BinaryArray>()),
        DataType::List(item) => list(item, cells)?,
        DataType::Map(entries, _) => map(entries, cells)?,
        other => return Err(bad(&format!("a column of type {other}"))),
    })
}

fn bad(what: &str) -> ArrowError {
    ArrowError::InvalidArgumentError(what.to_owned())
}

fn int(cell: &Cell) -> Option<i64> {
    if let Cell::Int(value) = cell {
        Some(*value)
    } else {
        None
    }
}

// Never by way of a double: that would alter a signalling NaN.
fn float32(cell: &Cell) -> Option<f32> {
    match cell {
        Cell::Float32(value) => Some(*value),
        Cell::Float64(value) => Some(*value as f32),
        _ => None,
    }
}

fn float64(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Float32(value) => Some(f64::from(*value)),
        Cell::Float64(value) => Some(*value),
        _ => None,
    }
}

fn offsets(lengths: impl Iterator<Item = usize>) -> Result<OffsetBuffer<i32>, ArrowError> {
    let mut offsets = vec![0i32];
    let mut end = 0usize;
    for length in lengths {
        end += length;
        offsets.push(i32::try_from(end).map_err(|_| bad("more items than a batch can hold"))?);
    }
    Ok(OffsetBuffer::new(ScalarBuffer::from(offsets)))
}

fn nulls(cells: &[&Cell]) -> Option<NullBuffer> {
    let valid: Vec<bool> = cells.iter().map(|cell| **cell != Cell::Null).collect();
    valid.contains(&false).then(|| NullBuffer::from(valid))
}

fn list(item: &Arc<Field>, cells: &[&Cell]) -> Result<ArrayRef, ArrowError> {
    let length = |cell: &&Cell| if let Cell::List(items) = cell { items.len() } else { 0 };
    let offsets = offsets(cells.iter().map(length))?;
    let mut all: Vec<&Cell> = Vec::new();
    for cell in cells {
        if let Cell::List(items) = cell {
            all.extend(items);
        }
    }
    let values = array(item.data_type(), &all)?;
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(item),
        offsets,
        values,
        nulls(cells),
    )?))
}

fn map(entries: &Arc<Field>, cells: &[&Cell]) -> Result<ArrayRef, ArrowError> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(bad("a map without entries"));
    };
    let length = |cell: &&Cell| {
        if let Cell::Map(entries) = cell {
            entries.len()
        } else {
            0
        }
    };
    let offsets = offsets(cells.iter().map(length))?;
    let (mut keys, mut values): (Vec<Cell>, Vec<&Cell>) = (Vec::new(), Vec::new());
    for cell in cells {
        if let Cell::Map(entries) = cell {
            for (key, value) in entries {
                keys.push(Cell::Bytes(key.clone()));
                values.push(value);
            }
        }
    }
    let value_type = fields.get(1).map_or(&DataType::Null, |field| field.data_type());
    let keys: Vec<&Cell> = keys.iter().collect();
    let columns = vec![array(&DataType::Utf8, &keys)?, array(value_type, &values)?];
    let structs = StructArray::try_new(fields.clone(), columns, None)?;
    Ok(Arc::new(MapArray::try_new(
        Arc::clone(entries),
        offsets,
        structs,
        nulls(cells),
        false,
    )?))
}

/// One value of a column; `None` = a type that no shape has.
pub fn cell(array: &dyn Array, row: usize) -> Option<Cell> {
    if array.is_null(row) {
        return Some(Cell::Null);
    }
    Some(match array.data_type() {
        DataType::Boolean => Cell::Bool(array.as_boolean().value(row)),
        DataType::Int32 => Cell::Int(array.as_primitive::<Int32Type>().value(row).into()),
        DataType::Date32 => Cell::Int(array.as_primitive::<Date32Type>().value(row).into()),
        DataType::Int64 => Cell::Int(array.as_primitive::<Int64Type>().value(row)),
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Cell::Int(array.as_primitive::<TimestampMillisecondType>().value(row))
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            Cell::Int(array.as_primitive::<TimestampMicrosecondType>().value(row))
        }
        DataType::Float32 => Cell::Float32(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Cell::Float64(array.as_primitive::<Float64Type>().value(row)),
        DataType::Decimal128(..) => Cell::Decimal(array.as_primitive::<Decimal128Type>().value(row)),
        DataType::Utf8 => Cell::text(array.as_string::<i32>().value(row)),
        DataType::Binary => Cell::Bytes(array.as_binary::<i32>().value(row).to_vec()),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            Cell::List(
                (0..items.len())
                    .map(|at| cell(items.as_ref(), at))
                    .collect::<Option<_>>()?,
            )
        }
        DataType::Map(..) => {
            let entries = array.as_map().value(row);
            let keys = entries.column(0).as_string::<i32>();
            let entry = |at| {
                Some((
                    keys.value(at).as_bytes().to_vec(),
                    cell(entries.column(1).as_ref(), at)?,
                ))
            };
            Cell::Map((0..entries.len()).map(entry).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}
