//! One growing column: plain vectors that become Arrow arrays without being copied, and can be cut back to any row.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, ListArray, MapArray, StringArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::error::ArrowError;
use pipeline::shape::Kind;

use super::error::Fault;

/// Bits, least significant first, as Arrow has them.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    length: usize,
}

impl Bits {
    #[inline]
    pub(super) fn push(&mut self, bit: bool) {
        let place = self.length % 8;
        if place == 0 {
            self.bytes.push(u8::from(bit));
        } else if let Some(last) = self.bytes.last_mut() {
            *last |= u8::from(bit) << place;
        }
        self.length += 1;
    }

    fn truncate(&mut self, length: usize) {
        if length >= self.length {
            return;
        }
        self.length = length;
        self.bytes.truncate(length.div_ceil(8));
        if !length.is_multiple_of(8)
            && let Some(last) = self.bytes.last_mut()
        {
            *last &= (1 << (length % 8)) - 1;
        }
    }

    fn keep(&mut self, first: usize, kept: &[usize]) {
        let get = |index: &usize| {
            self.bytes
                .get(index / 8)
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
        };
        let values: Vec<bool> = kept.iter().map(get).collect();
        self.truncate(first);
        values.into_iter().for_each(|value| self.push(value));
    }

    fn take(&mut self) -> BooleanBuffer {
        let length = std::mem::take(&mut self.length);
        BooleanBuffer::new(Buffer::from_vec(renew(&mut self.bytes)), 0, length)
    }
}

/// Texts are most often no longer: names, ids, currencies.
pub(super) const SHORT: usize = 32;

/// Values of varying length: `offsets` has one entry more than there are values and starts with 0.
#[derive(Debug, PartialEq)]
pub(super) struct Bytes {
    offsets: Vec<i32>,
    pub(super) data: Vec<u8>,
}

impl Bytes {
    fn new() -> Self {
        Bytes {
            offsets: vec![0],
            data: Vec::new(),
        }
    }

    /// Ends the value that was written to `data`.
    #[inline]
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.offsets
            .push(i32::try_from(self.data.len()).map_err(|_| Fault::BatchFull)?);
        Ok(())
    }

    #[inline]
    pub(super) fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.data.extend_from_slice(value);
        self.end()
    }

    /// The same of a value of which the payload has `ahead` from its first byte on: what is short is copied with what comes
    /// after it, because moving as many bytes each time takes no call.
    #[inline]
    pub(super) fn push_short(&mut self, value: &[u8], ahead: Option<&[u8; SHORT]>) -> Result<(), Fault> {
        match ahead {
            Some(ahead) if value.len() <= SHORT => {
                let end = self.data.len() + value.len();
                self.data.extend_from_slice(ahead);
                self.data.truncate(end);
                self.end()
            }
            _ => self.push(value),
        }
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        let start = offset(&self.offsets, index);
        self.data
            .get(start..offset(&self.offsets, index + 1))
            .unwrap_or_default()
    }

    fn truncate(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.data.truncate(offset(&self.offsets, rows));
    }

    fn keep(&mut self, first: usize, kept: &[usize]) -> Result<(), Fault> {
        let values: Vec<Vec<u8>> = kept.iter().map(|index| self.get(*index).to_vec()).collect();
        self.truncate(first);
        values.iter().try_for_each(|value| self.push(value))
    }
}

/// A list or the entries of a map.
#[derive(Debug, PartialEq)]
pub(super) struct Nested {
    offsets: Vec<i32>,
    /// A map's keys.
    pub(super) keys: Option<Bytes>,
    pub(super) items: Column,
}

impl Nested {
    /// Ends the list whose items were written.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        self.offsets
            .push(i32::try_from(self.items.len()).map_err(|_| Fault::BatchFull)?);
        Ok(())
    }

    /// Items of all lists that have ended.
    pub(super) fn ended(&self) -> usize {
        offset(&self.offsets, self.offsets.len().saturating_sub(1))
    }

    /// Of the items from `first` on, leaves those at `kept`, in that order.
    pub(super) fn keep_items(&mut self, first: usize, kept: &[usize]) -> Result<(), Fault> {
        if let Some(keys) = &mut self.keys {
            keys.keep(first, kept)?;
        }
        self.items.keep(first, kept)
    }

    /// Drops the items after the first `items`.
    fn truncate_items(&mut self, items: usize) {
        if let Some(keys) = &mut self.keys {
            keys.truncate(items);
        }
        self.items.truncate(items);
    }
}

fn offset(offsets: &[i32], index: usize) -> usize {
    offsets
        .get(index)
        .and_then(|offset| usize::try_from(*offset).ok())
        .unwrap_or(0)
}

#[derive(Debug, PartialEq)]
pub(super) enum Store {
    Bits(Bits),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Float32(Vec<f32>),
    Float64(Vec<f64>),
    Int128(Vec<i128>),
    Bytes(Bytes),
    Nested(Box<Nested>),
}

/// One column, or the items of a nested one.
#[derive(Debug, PartialEq)]
pub(super) struct Column {
    pub(super) store: Store,
    validity: Option<Bits>,
}

impl Column {
    pub(super) fn new(kind: &Kind, nullable: bool) -> Self {
        let store = match kind {
            Kind::Bool => Store::Bits(Bits::default()),
            Kind::Int32 | Kind::Date => Store::Int32(Vec::new()),
            Kind::Int64 | Kind::TimestampMillis | Kind::TimestampMicros => Store::Int64(Vec::new()),
            Kind::Float32 => Store::Float32(Vec::new()),
            Kind::Float64 => Store::Float64(Vec::new()),
            Kind::Decimal { .. } => Store::Int128(Vec::new()),
            Kind::String | Kind::Uuid | Kind::Enum | Kind::Json | Kind::Bytes => Store::Bytes(Bytes::new()),
            Kind::List(element) => nested(None, Column::new(&element.kind, element.nullable)),
            Kind::Map(element) => nested(Some(Bytes::new()), Column::new(&element.kind, element.nullable)),
        };
        Column {
            store,
            validity: nullable.then(Bits::default),
        }
    }

    /// Values so far.
    pub(super) fn len(&self) -> usize {
        match &self.store {
            Store::Bits(bits) => bits.length,
            Store::Int32(values) => values.len(),
            Store::Int64(values) => values.len(),
            Store::Float32(values) => values.len(),
            Store::Float64(values) => values.len(),
            Store::Int128(values) => values.len(),
            Store::Bytes(bytes) => bytes.offsets.len().saturating_sub(1),
            Store::Nested(nested) => nested.offsets.len().saturating_sub(1),
        }
    }

    /// Bytes of the values, offsets and validity.
    pub(super) fn bytes(&self) -> usize {
        let values = match &self.store {
            Store::Bits(bits) => bits.bytes.len(),
            Store::Int32(values) => values.len() * 4,
            Store::Int64(values) => values.len() * 8,
            Store::Float32(values) => values.len() * 4,
            Store::Float64(values) => values.len() * 8,
            Store::Int128(values) => values.len() * 16,
            Store::Bytes(bytes) => bytes.offsets.len() * 4 + bytes.data.len(),
            Store::Nested(nested) => {
                let keys = nested
                    .keys
                    .as_ref()
                    .map_or(0, |keys| keys.offsets.len() * 4 + keys.data.len());
                nested.offsets.len() * 4 + keys + nested.items.bytes()
            }
        };
        values + self.validity.as_ref().map_or(0, |bits| bits.bytes.len())
    }

    /// Says that the value just written is there. Every write of a value ends with this.
    #[inline]
    pub(super) fn present(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.push(true);
        }
    }

    #[inline]
    pub(super) fn push_null(&mut self) -> Result<(), Fault> {
        // Plans are compiled so that this never meets a column without validity; if one did, the row is given up.
        let Some(validity) = &mut self.validity else {
            return Err(Fault::WrongColumns);
        };
        validity.push(false);
        match &mut self.store {
            Store::Bits(bits) => bits.push(false),
            Store::Int32(values) => values.push(0),
            Store::Int64(values) => values.push(0),
            Store::Float32(values) => values.push(0.0),
            Store::Float64(values) => values.push(0.0),
            Store::Int128(values) => values.push(0),
            Store::Bytes(bytes) => bytes.end()?,
            Store::Nested(nested) => nested.end()?,
        }
        Ok(())
    }

    /// Cuts back to the first `rows` values, however far the writing of the next one came.
    pub(super) fn truncate(&mut self, rows: usize) {
        if let Some(validity) = &mut self.validity {
            validity.truncate(rows);
        }
        match &mut self.store {
            Store::Bits(bits) => bits.truncate(rows),
            Store::Int32(values) => values.truncate(rows),
            Store::Int64(values) => values.truncate(rows),
            Store::Float32(values) => values.truncate(rows),
            Store::Float64(values) => values.truncate(rows),
            Store::Int128(values) => values.truncate(rows),
            Store::Bytes(bytes) => bytes.truncate(rows),
            Store::Nested(nested) => {
                nested.offsets.truncate(rows + 1);
                let items = nested.ended();
                nested.truncate_items(items);
            }
        }
    }

    /// Of the values from `first` on, leaves those at `kept`, in that order.
    fn keep(&mut self, first: usize, kept: &[usize]) -> Result<(), Fault> {
        if let Some(validity) = &mut self.validity {
            validity.keep(first, kept);
        }
        match &mut self.store {
            Store::Bits(bits) => bits.keep(first, kept),
            Store::Int32(values) => keep(values, first, kept),
            Store::Int64(values) => keep(values, first, kept),
            Store::Float32(values) => keep(values, first, kept),
            Store::Float64(values) => keep(values, first, kept),
            Store::Int128(values) => keep(values, first, kept),
            Store::Bytes(bytes) => bytes.keep(first, kept)?,
            Store::Nested(nested) => {
                let range = |index: &usize| offset(&nested.offsets, *index)..offset(&nested.offsets, index + 1);
                let ranges: Vec<_> = kept.iter().map(range).collect();
                let items: Vec<usize> = ranges.iter().cloned().flatten().collect();
                nested.offsets.truncate(first + 1);
                let mut end = nested.ended();
                nested.keep_items(end, &items)?;
                for range in ranges {
                    end += range.len();
                    nested.offsets.push(i32::try_from(end).map_err(|_| Fault::BatchFull)?);
                }
            }
        }
        Ok(())
    }

    /// The values as an Arrow array of this type, and an empty column again.
    pub(super) fn finish(&mut self, data_type: &DataType) -> Result<ArrayRef, ArrowError> {
        let nulls = self.validity.as_mut().map(|bits| NullBuffer::new(bits.take()));
        Ok(match (&mut self.store, data_type) {
            (Store::Bits(bits), _) => Arc::new(BooleanArray::new(bits.take(), nulls)),
            (Store::Int32(values), DataType::Date32) => Arc::new(Date32Array::try_new(scalars(values), nulls)?),
            (Store::Int32(values), _) => Arc::new(Int32Array::try_new(scalars(values), nulls)?),
            (Store::Int64(values), DataType::Timestamp(TimeUnit::Millisecond, zone)) => {
                Arc::new(TimestampMillisecondArray::try_new(scalars(values), nulls)?.with_timezone_opt(zone.clone()))
            }
            (Store::Int64(values), DataType::Timestamp(_, zone)) => {
                Arc::new(TimestampMicrosecondArray::try_new(scalars(values), nulls)?.with_timezone_opt(zone.clone()))
            }
            (Store::Int64(values), _) => Arc::new(Int64Array::try_new(scalars(values), nulls)?),
            (Store::Float32(values), _) => Arc::new(Float32Array::try_new(scalars(values), nulls)?),
            (Store::Float64(values), _) => Arc::new(Float64Array::try_new(scalars(values), nulls)?),
            (Store::Int128(values), data_type) => {
                let array = Decimal128Array::try_new(scalars(values), nulls)?;
                Arc::new(match data_type {
                    DataType::Decimal128(precision, scale) => array.with_precision_and_scale(*precision, *scale)?,
                    _ => array,
                })
            }
            (Store::Bytes(bytes), DataType::Binary) => {
                let (offsets, data) = bytes_buffers(bytes);
                Arc::new(BinaryArray::try_new(offsets, data, nulls)?)
            }
            (Store::Bytes(bytes), _) => Arc::new(text(bytes, nulls)?),
            (Store::Nested(nested), data_type) => finish_nested(nested, data_type, nulls)?,
        })
    }
}

fn keep<T: Copy>(values: &mut Vec<T>, first: usize, kept: &[usize]) {
    let picked: Vec<T> = kept.iter().filter_map(|index| values.get(*index).copied()).collect();
    values.truncate(first);
    values.extend(picked);
}

fn nested(keys: Option<Bytes>, items: Column) -> Store {
    Store::Nested(Box::new(Nested {
        offsets: vec![0],
        keys,
        items,
    }))
}

fn finish_nested(nested: &mut Nested, data_type: &DataType, nulls: Option<NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let offsets = OffsetBuffer::new(scalars_from_zero(&mut nested.offsets));
    match (data_type, &mut nested.keys) {
        (DataType::List(item), _) => {
            let values = nested.items.finish(item.data_type())?;
            Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, values, nulls)?))
        }
        (DataType::Map(entries, ordered), Some(keys)) => {
            let DataType::Struct(fields) = entries.data_type() else {
                return Err(ArrowError::SchemaError("the entries of a map are a struct".to_owned()));
            };
            let value_type = fields.get(1).map_or(&DataType::Null, |field| field.data_type());
            let columns: Vec<ArrayRef> = vec![Arc::new(text(keys, None)?), nested.items.finish(value_type)?];
            let entries_array = StructArray::try_new(fields.clone(), columns, None)?;
            Ok(Arc::new(MapArray::try_new(
                Arc::clone(entries),
                offsets,
                entries_array,
                nulls,
                *ordered,
            )?))
        }
        (other, _) => Err(ArrowError::SchemaError(format!(
            "a nested column cannot become {other}"
        ))),
    }
}

fn text(bytes: &mut Bytes, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
    let (offsets, data) = bytes_buffers(bytes);
    StringArray::try_new(offsets, data, nulls)
}

fn bytes_buffers(bytes: &mut Bytes) -> (OffsetBuffer<i32>, Buffer) {
    (
        OffsetBuffer::new(scalars_from_zero(&mut bytes.offsets)),
        Buffer::from_vec(renew(&mut bytes.data)),
    )
}

fn scalars<T: arrow::datatypes::ArrowNativeType>(values: &mut Vec<T>) -> ScalarBuffer<T> {
    ScalarBuffer::from(renew(values))
}

fn scalars_from_zero(offsets: &mut Vec<i32>) -> ScalarBuffer<i32> {
    let taken = scalars(offsets);
    offsets.push(0);
    taken
}

/// Takes the vector and leaves an empty one with room for as much and a quarter: the next batch is likely to be about as long, and what
/// grows beyond its room is copied.
pub(crate) fn renew<T>(values: &mut Vec<T>) -> Vec<T> {
    let empty = Vec::with_capacity(values.len() + values.len() / 4);
    std::mem::replace(values, empty)
}
