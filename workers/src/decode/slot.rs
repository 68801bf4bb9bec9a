//! From one value of the payload to one value of a column.

use std::collections::HashMap;

use super::column::{Column, Nested, Store};
use super::cursor::Cursor;
use super::error::Fault;
use super::json::Json;
use super::types::{TypeId, Types, decimal, symbol};

/// What a number is in the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Int,
    Long,
    Float,
    Double,
}

/// How the payload has the sixteen bytes of a UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UuidBytes {
    Text,
    Prefixed,
    Fixed,
}

/// How one value is read and where its column keeps it.
#[derive(Debug)]
pub(super) enum Op {
    Null,
    Bool,
    Int32,
    /// A `long` column from a `long` or, promoted, an `int`.
    Int64 {
        int: bool,
    },
    Float32(Number),
    Float64(Number),
    /// Text or bytes, length first. `utf8`: the writer or the column says that it is text.
    Bytes {
        utf8: bool,
    },
    Fixed {
        size: usize,
        utf8: bool,
    },
    Enum {
        symbols: Vec<String>,
    },
    Uuid(UuidBytes),
    Decimal {
        size: Option<usize>,
        limit: i128,
    },
    Json {
        id: TypeId,
        depth: u32,
    },
    List {
        item: Box<Slot>,
        id: TypeId,
    },
    Map {
        value: Box<Slot>,
        id: TypeId,
    },
}

/// A value with the union around it, if there is one.
#[derive(Debug)]
pub(super) enum Slot {
    Plain(Op),
    /// A union of null and one type: by far the most frequent.
    Optional {
        null: i64,
        op: Op,
    },
    Union(Vec<Op>),
}

impl Slot {
    /// Reads one value and adds it to the column. After a fault the column has to be cut back.
    #[inline]
    pub(super) fn read(&self, types: &Types, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Fault> {
        match self {
            Slot::Plain(op) => op.read(types, cursor, column),
            Slot::Optional { null, op } => {
                let branch = cursor.long()?;
                if branch == *null {
                    column.push_null()
                } else if branch == 1 - *null {
                    op.read(types, cursor, column)
                } else {
                    Err(Fault::Union)
                }
            }
            Slot::Union(ops) => {
                let branch = cursor.branch(ops.len())?;
                ops.get(branch).ok_or(Fault::Union)?.read(types, cursor, column)
            }
        }
    }
}

impl Op {
    #[inline]
    fn read(&self, types: &Types, cursor: &mut Cursor<'_>, column: &mut Column) -> Result<(), Fault> {
        match (self, &mut column.store) {
            (Op::Bytes { utf8: true }, Store::Bytes(bytes)) => {
                let text = cursor.text_bytes()?;
                bytes.push_short(text, cursor.seen_from(text.len()))?;
            }
            (Op::Bytes { utf8: false }, Store::Bytes(bytes)) => bytes.push(cursor.bytes()?)?,
            (Op::Int32, Store::Int32(values)) => values.push(cursor.int()?),
            (Op::Int64 { int: false }, Store::Int64(values)) => values.push(cursor.long()?),
            (Op::Int64 { int: true }, Store::Int64(values)) => values.push(i64::from(cursor.int()?)),
            (Op::Bool, Store::Bits(bits)) => bits.push(cursor.boolean()?),
            (Op::Float32(number), Store::Float32(values)) => values.push(float32(*number, cursor)?),
            (Op::Float64(number), Store::Float64(values)) => values.push(float64(*number, cursor)?),
            (Op::Enum { symbols }, Store::Bytes(bytes)) => bytes.push(symbol(cursor, symbols)?.as_bytes())?,
            (Op::Fixed { size, utf8 }, Store::Bytes(bytes)) => {
                let value = cursor.take(*size)?;
                if *utf8 && std::str::from_utf8(value).is_err() {
                    return Err(Fault::Utf8);
                }
                bytes.push(value)?;
            }
            (Op::Decimal { size, limit }, Store::Int128(values)) => values.push(decimal(cursor, *size, *limit)?),
            (Op::Uuid(form), Store::Bytes(bytes)) => {
                let uuid = uuid(*form, cursor)?;
                bytes.push(uuid.hyphenated().encode_lower(&mut [0; 36]).as_bytes())?;
            }
            (Op::Json { id, depth }, Store::Bytes(bytes)) => {
                Json {
                    types,
                    out: &mut bytes.data,
                }
                .value(*id, cursor, *depth)?;
                bytes.end()?;
            }
            (Op::List { item, id }, Store::Nested(nested)) => list(types, cursor, (item, *id), nested)?,
            (Op::Map { value, id }, Store::Nested(nested)) => map(types, cursor, (value, *id), nested)?,
            (Op::Null, _) => return column.push_null(),
            _ => return Err(Fault::WrongColumns),
        }
        column.present();
        Ok(())
    }
}

fn float32(number: Number, cursor: &mut Cursor<'_>) -> Result<f32, Fault> {
    Ok(match number {
        Number::Int => cursor.int()? as f32,
        Number::Long => cursor.long()? as f32,
        _ => cursor.float()?,
    })
}

fn float64(number: Number, cursor: &mut Cursor<'_>) -> Result<f64, Fault> {
    Ok(match number {
        Number::Int => f64::from(cursor.int()?),
        Number::Long => cursor.long()? as f64,
        Number::Float => f64::from(cursor.float()?),
        Number::Double => cursor.double()?,
    })
}

fn uuid(form: UuidBytes, cursor: &mut Cursor<'_>) -> Result<apache_avro::Uuid, Fault> {
    match form {
        UuidBytes::Text => apache_avro::Uuid::try_parse(cursor.text()?),
        UuidBytes::Prefixed => apache_avro::Uuid::from_slice(cursor.bytes()?),
        UuidBytes::Fixed => apache_avro::Uuid::from_slice(cursor.take(16)?),
    }
    .map_err(|_| Fault::Uuid)
}

fn list(types: &Types, cursor: &mut Cursor<'_>, (item, id): (&Slot, TypeId), nested: &mut Nested) -> Result<(), Fault> {
    let bytes_min = types.bytes_min(id);
    loop {
        let count = cursor.block(bytes_min)?;
        if count == 0 {
            return nested.end();
        }
        for _ in 0..count {
            item.read(types, cursor, &mut nested.items)?;
        }
    }
}

fn map(types: &Types, cursor: &mut Cursor<'_>, (value, id): (&Slot, TypeId), nested: &mut Nested) -> Result<(), Fault> {
    let bytes_min = types.bytes_min(id) + 1;
    let first = nested.ended();
    loop {
        let count = cursor.block(bytes_min)?;
        if count == 0 {
            break;
        }
        for _ in 0..count {
            let key = cursor.text_bytes()?;
            nested.keys.as_mut().ok_or(Fault::WrongColumns)?.push(key)?;
            value.read(types, cursor, &mut nested.items)?;
        }
    }
    if let Some(kept) = last_of_each(nested, first) {
        nested.keep_items(first, &kept)?;
    }
    nested.end()
}

/// The entries from `first` on that stay when a key comes twice: its last value, at its first place. ClickHouse would
/// answer with the first value, and other readers of Avro, whose maps are hash maps, with the last. `None` = all stay.
fn last_of_each(nested: &Nested, first: usize) -> Option<Vec<usize>> {
    const FEW: usize = 12;
    let keys = nested.keys.as_ref()?;
    let last = nested.items.len();
    // Comparing a few keys with each other is cheaper than hashing them.
    let few = last - first <= FEW;
    if few && !(first + 1..last).any(|index| (first..index).any(|earlier| keys.get(earlier) == keys.get(index))) {
        return None;
    }
    let mut kept: Vec<usize> = Vec::new();
    let mut places: HashMap<&[u8], usize> = HashMap::new();
    for index in first..last {
        let place = *places.entry(keys.get(index)).or_insert(kept.len());
        match kept.get_mut(place) {
            Some(earlier) => *earlier = index,
            None => kept.push(index),
        }
    }
    (kept.len() < last - first).then_some(kept)
}
