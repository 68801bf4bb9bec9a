//! The newest schema's defaults, for what a writer's schema lacks.

use pipeline::shape::Fill;

use super::column::{Column, Store};
use super::error::Fault;

/// Adds the default to the column; `None` = null.
pub(super) fn push(fill: Option<&Fill>, column: &mut Column) -> Result<(), Fault> {
    let Some(fill) = fill else { return column.push_null() };
    match (fill, &mut column.store) {
        (Fill::Bool(value), Store::Bits(bits)) => bits.push(*value),
        (Fill::Int(value), Store::Int32(values)) => values.push(i32::try_from(*value).map_err(|_| Fault::IntRange)?),
        (Fill::Int(value), Store::Int64(values)) => values.push(*value),
        (Fill::Float(value), Store::Float32(values)) => values.push(*value as f32),
        (Fill::Float(value), Store::Float64(values)) => values.push(*value),
        (Fill::Text(value), Store::Bytes(bytes)) => bytes.push(value.as_bytes())?,
        (Fill::Bytes(value), Store::Bytes(bytes)) => bytes.push(value)?,
        (Fill::Decimal(value), Store::Int128(values)) => values.push(*value),
        (Fill::List(items), Store::Nested(nested)) => {
            for item in items {
                push(item.as_ref(), &mut nested.items)?;
            }
            nested.end()?;
        }
        (Fill::Map(entries), Store::Nested(nested)) => {
            for (key, value) in entries {
                nested.keys.as_mut().ok_or(Fault::WrongColumns)?.push(key.as_bytes())?;
                push(value.as_ref(), &mut nested.items)?;
            }
            nested.end()?;
        }
        _ => return Err(Fault::WrongColumns),
    }
    column.present();
    Ok(())
}
