//! From a YAML value to a column of one row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Int64Array, ListArray, MapArray, StringArray, StructArray, new_empty_array, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{DataType, Field, FieldRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use document::Item;

/// One text.
pub fn text(text: &str) -> ArrayRef {
    Arc::new(StringArray::from(vec![text]))
}

/// What a column holds of which a test says nothing: NULL where it may, else zero, false, empty.
pub fn default_of(field: &Field) -> ArrayRef {
    if field.is_nullable() {
        return new_null_array(field.data_type(), 1);
    }
    let empty = match field.data_type() {
        DataType::Utf8 => Ok(text("")),
        DataType::Map(entries, ordered) => map(entries, *ordered, Vec::new()),
        DataType::List(element) => list(element, &[]),
        // Zero is false, 1970-01-01, no bytes: the cast from an integer, or from the empty text, says so.
        other => converted(&(Arc::new(Int64Array::from(vec![0])) as ArrayRef), other)
            .or_else(|_| converted(&text(""), other)),
    };
    empty.unwrap_or_else(|_| new_null_array(field.data_type(), 1))
}

/// A value of a column, or (with a fault) `None`.
pub fn read(item: &Item<'_>, field: &Field) -> Option<ArrayRef> {
    if item.is_null() {
        if !field.is_nullable() {
            item.fault("this column can't be NULL");
            return None;
        }
        return Some(new_null_array(field.data_type(), 1));
    }
    let made = match field.data_type() {
        DataType::Map(entries, ordered) => {
            let values = values_field(entries)?;
            let read = |(key, item): &(&str, Item<'_>)| Some(((*key).to_owned(), read(item, values)?));
            map(
                entries,
                *ordered,
                item.entries()?.iter().map(read).collect::<Option<Vec<_>>>()?,
            )
        }
        DataType::List(element) => list(
            element,
            &item
                .list()?
                .iter()
                .map(|item| read(item, element))
                .collect::<Option<Vec<_>>>()?,
        ),
        plain => {
            let written = item.scalar()?;
            converted(&text(written), plain).or_else(|error| {
                // Times are texts such as 2026-11-21T12:00:00Z, or the integers that Avro has.
                let number = written.parse::<i64>().map_err(|_| error)?;
                converted(&(Arc::new(Int64Array::from(vec![number])) as ArrayRef), plain)
            })
        }
    };
    made.map_err(|error| item.fault(format!("this column can't hold that: {error}")))
        .ok()
}

/// The field of the values of a map column; NULL stands for an entry that isn't there.
pub fn entry_field(map: &Field) -> Option<Field> {
    match map.data_type() {
        DataType::Map(entries, _) => Some(values_field(entries)?.as_ref().clone().with_nullable(true)),
        _ => None,
    }
}

/// For messages.
pub fn shown(value: &ArrayRef) -> String {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(value.as_ref(), &options);
    formatter.map_or_else(
        |error| error.to_string(),
        |formatter| format!("`{}`", formatter.value(0)),
    )
}

fn converted(value: &ArrayRef, to: &DataType) -> Result<ArrayRef, ArrowError> {
    let options = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(value, to, &options)
}

fn values_field(entries: &FieldRef) -> Option<&FieldRef> {
    match entries.data_type() {
        DataType::Struct(fields) => fields.get(1),
        _ => None,
    }
}

fn joined(values: &[ArrayRef], data_type: &DataType) -> Result<ArrayRef, ArrowError> {
    let arrays: Vec<&dyn Array> = values.iter().map(AsRef::as_ref).collect();
    if arrays.is_empty() {
        Ok(new_empty_array(data_type))
    } else {
        concat(&arrays)
    }
}

fn list(element: &FieldRef, values: &[ArrayRef]) -> Result<ArrayRef, ArrowError> {
    let elements = joined(values, element.data_type())?;
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    Ok(Arc::new(ListArray::try_new(
        Arc::clone(element),
        offsets,
        elements,
        None,
    )?))
}

fn map(entries: &FieldRef, ordered: bool, values: Vec<(String, ArrayRef)>) -> Result<ArrayRef, ArrowError> {
    let DataType::Struct(fields) = entries.data_type() else {
        return Err(ArrowError::SchemaError("a map's entries are no structs".to_owned()));
    };
    let (keys, values): (Vec<String>, Vec<ArrayRef>) = values.into_iter().unzip();
    let value_type = fields.get(1).map_or(&DataType::Null, |field| field.data_type());
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from_iter_values(&keys)),
        joined(&values, value_type)?,
    ];
    let structs = StructArray::try_new(fields.clone(), columns, None)?;
    let offsets = OffsetBuffer::from_lengths([keys.len()]);
    Ok(Arc::new(MapArray::try_new(
        Arc::clone(entries),
        offsets,
        structs,
        None,
        ordered,
    )?))
}
