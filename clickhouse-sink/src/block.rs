//! One batch as one block of ClickHouse's Native format, ready to be sent.

use arrow::array::{Array, ArrayData, ArrayRef, RecordBatch};
use bytes::Bytes;
use pipeline::Compression;

use crate::insert::DEADLINE_COLUMN;
use crate::native::{Layout, varint};
use crate::plain::plain;
use crate::{Error, frames};

/// The server splits larger blocks (`max_insert_block_size`, which inserts pin); a block that is split is not one
/// token's block any more.
pub(crate) const ROWS_MAX: usize = 1_000_000;
/// Below `min_insert_block_size_bytes`, at which the server would emit what it has gathered.
const RAW_BYTES_MAX: usize = 200 * 1024 * 1024;

/// Where each row of a batch came from, in the order of the batch's rows.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The Kafka topic of all of them.
    pub topic: &'a str,
    /// The partition.
    pub partition: &'a [i32],
    /// The offset of the event.
    pub offset: &'a [i64],
    /// Which of the rows that rules made of this event, from 0.
    pub index: &'a [u16],
    /// [`crate::row_hashes`] of the batch.
    pub row_hash: &'a [u64],
}

/// A batch as the server takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Native format, packed; the last column, the deadline, is added when the block is sent.
    pub bytes: Vec<u8>,
    /// How it is packed: frames of LZ4 are for `decompress=1`.
    pub compression: Compression,
    /// How many rows.
    pub rows: usize,
    /// `name type, …`: the columns of a table that holds it as it is.
    pub structure: String,
    /// The names alone, in the same order.
    pub columns: Vec<String>,
}

/// A block with the deadline in every row, as it is sent: as often as it has to be.
#[derive(Debug, Clone)]
pub struct Dated {
    pub(crate) bytes: Bytes,
    pub(crate) compression: Compression,
    pub(crate) columns: Vec<String>,
    /// How many rows.
    pub rows: usize,
}

impl Dated {
    /// Bytes of the request.
    pub fn length(&self) -> usize {
        self.bytes.len()
    }
}

/// What the deadline takes in each row.
const DEADLINE_BYTES: usize = 4;
/// And once, with its name and type.
const DEADLINE_HEAD: usize = 32;

impl Block {
    /// The block with the deadline in every row (Unix time, seconds), packed by itself behind the others.
    ///
    /// # Errors
    /// [`Error::Block`] for a time that ClickHouse does not have.
    pub fn until(self, deadline_unix_s: i64) -> Result<Dated, Error> {
        let deadline = u32::try_from(deadline_unix_s)
            .map_err(|_| Error::Block(format!("{deadline_unix_s} s is no point in time of ClickHouse's")))?;
        let (name, type_name) = DEADLINE_COLUMN;
        let mut column = Vec::with_capacity(DEADLINE_HEAD + DEADLINE_BYTES * self.rows);
        for text in [name, type_name] {
            varint(&mut column, text.len() as u64);
            column.extend_from_slice(text.as_bytes());
        }
        (0..self.rows).for_each(|_| column.extend_from_slice(&deadline.to_le_bytes()));
        let mut bytes = self.bytes;
        bytes.extend_from_slice(&packed(column, self.compression)?);
        Ok(Dated {
            bytes: bytes.into(),
            compression: self.compression,
            columns: self.columns,
            rows: self.rows,
        })
    }
}

/// Writes the rows of `batch` and where they came from as one block, in this `order` (see [`crate::sort_order`]; a
/// subset of the rows may be written, as for a route or a repair). `low_cardinality` names the text columns that the
/// table stores so; a wrong list costs the server a conversion and changes no value.
///
/// # Errors
/// [`Error::Value`] for a decimal of more digits than its column has; [`Error::Column`] for a type no pipeline has;
/// [`Error::Block`] when the arguments don't fit each other or the block is over a million rows or 200 MiB.
pub fn encode(
    batch: &RecordBatch,
    identity: &Identity<'_>,
    order: &[usize],
    low_cardinality: &[impl AsRef<str>],
    compression: Compression,
) -> Result<Block, Error> {
    fits(batch, identity, order)?;
    // A buffer that grows is copied: room for the rows as they lie in Arrow, and for their identities.
    let room = batch.get_array_memory_size() / batch.num_rows().max(1) * order.len() + order.len() * 32;
    // Those of the batch, five of the identity, and the deadline.
    let columns = batch.num_columns() + 6;
    let mut block = Writer {
        raw: Vec::with_capacity(room.min(RAW_BYTES_MAX)),
        structure: String::new(),
        columns: Vec::new(),
    };
    varint(&mut block.raw, columns as u64);
    varint(&mut block.raw, order.len() as u64);
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let array = plain(field.name(), array)?;
        let low = low_cardinality.iter().any(|name| name.as_ref() == field.name());
        let layout = Layout::of(array.data_type(), field.is_nullable(), low)
            .map_err(|reason| Error::column(field.name(), reason))?;
        block.column(field.name(), &layout, &array, order)?;
    }
    block.identity(identity, order);
    if block.raw.len() > RAW_BYTES_MAX {
        return Err(Error::Block(format!(
            "{} bytes, at most {RAW_BYTES_MAX}: make the batches smaller",
            block.raw.len()
        )));
    }
    let mut bytes = packed(block.raw, compression)?;
    // What was too much room is given back, but for the deadline's.
    bytes.shrink_to(bytes.len() + DEADLINE_HEAD + DEADLINE_BYTES * order.len());
    Ok(Block {
        bytes,
        compression,
        rows: order.len(),
        structure: block.structure,
        columns: block.columns,
    })
}

fn packed(raw: Vec<u8>, compression: Compression) -> Result<Vec<u8>, Error> {
    match compression {
        Compression::Lz4 => frames::compress(&raw),
        Compression::None => Ok(raw),
    }
}

/// Whether all rows of a batch fit into one block for certain: what [`encode`] refuses, this does, too, and what is close to it.
pub fn fits_one_block(batch: &RecordBatch) -> bool {
    batch.num_rows() <= ROWS_MAX && raw_bytes_at_most(batch) <= RAW_BYTES_MAX
}

/// What the rows take in Native, at most.
fn raw_bytes_at_most(batch: &RecordBatch) -> usize {
    /// Eight for where a list or a map ends, one for null, and where Arrow has a bit a byte; of the identity, with its topic's number, and the deadline.
    const BESIDE_A_VALUE: usize = 10;
    const IDENTITY: usize = 40;
    let (rows, mut bytes) = (batch.num_rows(), 4096);
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        // Arrow has a text's end in four bytes and Native its length in at most four; a number is as long in both.
        // What can't be made plain is refused by `encode`, with the reason.
        let data = plain(field.name(), array).map_or_else(|_| array.to_data(), |array| array.to_data());
        let values = data.get_slice_memory_size().unwrap_or(usize::MAX / 2);
        bytes += values + (rows + elements(&data)) * BESIDE_A_VALUE + 2 * field.name().len() + 64;
    }
    bytes + rows * IDENTITY
}

/// Elements of all lists and maps in a column, and of those in them.
fn elements(data: &ArrayData) -> usize {
    data.child_data()
        .iter()
        .map(|child| child.len() + elements(child))
        .sum()
}

fn fits(batch: &RecordBatch, identity: &Identity<'_>, order: &[usize]) -> Result<(), Error> {
    let rows = batch.num_rows();
    let lengths = [
        identity.partition.len(),
        identity.offset.len(),
        identity.index.len(),
        identity.row_hash.len(),
    ];
    if lengths != [rows; 4] {
        return Err(Error::Block(format!("{rows} rows, but identities of {lengths:?}")));
    }
    if let Some(beyond) = order.iter().find(|&&row| row >= rows) {
        return Err(Error::Block(format!("the order names row {beyond} of {rows}")));
    }
    if order.len() > ROWS_MAX {
        return Err(Error::Block(format!(
            "{} rows, at most {ROWS_MAX}: make the batches smaller",
            order.len()
        )));
    }
    Ok(())
}

struct Writer {
    raw: Vec<u8>,
    structure: String,
    columns: Vec<String>,
}

impl Writer {
    fn head(&mut self, name: &str, type_name: &str) {
        for text in [name, type_name] {
            varint(&mut self.raw, text.len() as u64);
            self.raw.extend_from_slice(text.as_bytes());
        }
        if !self.structure.is_empty() {
            self.structure.push_str(", ");
        }
        self.structure.push_str(&crate::sql::name(name));
        self.structure.push(' ');
        self.structure.push_str(type_name);
        self.columns.push(name.to_owned());
    }

    fn column(&mut self, name: &str, layout: &Layout, array: &ArrayRef, order: &[usize]) -> Result<(), Error> {
        self.head(name, &layout.type_name());
        layout.prefix(&mut self.raw);
        layout
            .values(&mut self.raw, array, order)
            .map_err(|fault| Error::Value {
                column: name.to_owned(),
                row: fault.row,
                reason: fault.reason,
            })
    }

    fn identity(&mut self, identity: &Identity<'_>, order: &[usize]) {
        self.head("_topic", "LowCardinality(String)");
        crate::native::constant_text(&mut self.raw, identity.topic, order.len());
        self.numbers("_partition", "Int32", order, |row| {
            identity.partition[row].to_le_bytes()
        });
        self.numbers("_offset", "Int64", order, |row| identity.offset[row].to_le_bytes());
        self.numbers("_index", "UInt16", order, |row| identity.index[row].to_le_bytes());
        self.numbers("_row_hash", "UInt64", order, |row| identity.row_hash[row].to_le_bytes());
    }

    fn numbers<const N: usize>(&mut self, name: &str, type_name: &str, order: &[usize], of: impl Fn(usize) -> [u8; N]) {
        self.head(name, type_name);
        self.raw.reserve(order.len() * N);
        order.iter().for_each(|&row| self.raw.extend_from_slice(&of(row)));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Decimal128Array, Int32Array, ListArray, StringArray};
    use arrow::datatypes::{DataType, Int32Type};

    use super::*;
    use crate::frames::tests::decompress;

    fn batch() -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "bc"]));
        let low: ArrayRef = Arc::new(StringArray::from(vec![None, Some("x")]));
        let numbers: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None]));
        let lists: ArrayRef = Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
            Some(vec![Some(5), None]),
            None,
        ]));
        RecordBatch::try_from_iter_with_nullable([
            ("t", texts, false),
            ("low", low, true),
            ("n", numbers, true),
            ("l", lists, true),
        ])
        .unwrap()
    }

    const IDENTITY: Identity<'static> = Identity {
        topic: "k",
        partition: &[1, 2],
        offset: &[3, 4],
        index: &[5, 6],
        row_hash: &[7, 8],
    };

    fn bytes(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn a_block_is_these_bytes_and_no_others() {
        let block = encode(&batch(), &IDENTITY, &[1, 0], &["low"], Compression::Lz4).unwrap();
        let number = |number: u64| number.to_le_bytes();
        let expected = bytes(&[
            &[10, 2],
            b"\x01t\x06String\x02bc\x01a",
            b"\x03low\x20LowCardinality(Nullable(String))",
            &number(1),
            // One-byte numbers, keys come with the block; the first key stands for null.
            &number(0x600),
            &number(2),
            b"\x00\x01x",
            &number(2),
            &[1, 0],
            b"\x01n\x0FNullable(Int32)",
            &[1, 0, 0, 0, 0, 0, 1, 0, 0, 0],
            b"\x01l\x16Array(Nullable(Int32))",
            &number(0),
            &number(2),
            &[0, 1, 5, 0, 0, 0, 0, 0, 0, 0],
            b"\x06_topic\x16LowCardinality(String)",
            &number(1),
            &number(0x600),
            &number(1),
            b"\x01k",
            &number(2),
            &[0, 0],
            b"\x0A_partition\x05Int32\x02\0\0\0\x01\0\0\0",
            b"\x07_offset\x05Int64",
            &number(4),
            &number(3),
            b"\x06_index\x06UInt16\x06\0\x05\0",
            b"\x09_row_hash\x06UInt64",
            &number(8),
            &number(7),
        ]);
        assert_eq!(decompress(&block.bytes), expected);
        let plain = encode(&batch(), &IDENTITY, &[1, 0], &["low"], Compression::None).unwrap();
        assert_eq!(plain.bytes, expected);
        let deadline = bytes(&[b"\x09_deadline\x0FDateTime('UTC')", &[1, 2, 0, 0, 1, 2, 0, 0]]);
        assert_eq!(
            decompress(&block.clone().until(0x201).unwrap().bytes),
            [expected.clone(), deadline.clone()].concat()
        );
        assert_eq!(
            plain.until(0x201).unwrap().bytes,
            [expected.clone(), deadline.clone()].concat()
        );
        assert!(block.clone().until(-1).is_err());
        assert_eq!(block.rows, 2);
        assert_eq!(
            block.columns,
            [
                "t",
                "low",
                "n",
                "l",
                "_topic",
                "_partition",
                "_offset",
                "_index",
                "_row_hash"
            ]
        );
        assert!(
            block
                .structure
                .starts_with("`t` String, `low` LowCardinality(Nullable(String)), "),
            "{}",
            block.structure
        );
    }

    #[test]
    fn a_block_is_never_larger_than_what_is_said_beforehand() {
        for rows in [0, 1, 2, 1000] {
            let indices: arrow::array::UInt32Array = (0..rows).map(|row| row % 2).collect();
            let batch = arrow::compute::take_record_batch(&batch(), &indices).unwrap();
            let count = batch.num_rows();
            let identity = Identity {
                topic: "k",
                partition: &vec![1; count],
                offset: &vec![3; count],
                index: &vec![5; count],
                row_hash: &vec![7; count],
            };
            let order: Vec<usize> = (0..count).collect();
            for low in [&["low", "t"][..], &[]] {
                let block = encode(&batch, &identity, &order, low, Compression::Lz4).unwrap();
                let raw = decompress(&block.until(1).unwrap().bytes).len();
                assert!(raw <= raw_bytes_at_most(&batch), "{raw} bytes of {rows} rows");
                assert!(raw_bytes_at_most(&batch) < 4 * raw + 8192, "{raw} bytes of {rows} rows");
            }
            assert!(fits_one_block(&batch));
        }
        let long: ArrayRef = Arc::new(StringArray::from(vec!["x".repeat(1 << 20); 200]));
        assert!(!fits_one_block(&RecordBatch::try_from_iter([("t", long)]).unwrap()));
    }

    #[test]
    fn some_of_the_rows_can_be_written_and_none_beyond_them() {
        let block = encode(&batch(), &IDENTITY, &[1], &[] as &[&str], Compression::Lz4).unwrap();
        assert_eq!(block.rows, 1);
        assert!(decompress(&block.bytes).starts_with(b"\x0A\x01\x01t\x06String\x02bc"));
        let beyond = encode(&batch(), &IDENTITY, &[0, 2], &[] as &[&str], Compression::Lz4).unwrap_err();
        assert_eq!(
            beyond.to_string(),
            "the block can't be made: the order names row 2 of 2"
        );
        let short = encode(
            &batch(),
            &Identity {
                offset: &[3],
                ..IDENTITY
            },
            &[0],
            &[] as &[&str],
            Compression::Lz4,
        )
        .unwrap_err();
        assert_eq!(
            short.to_string(),
            "the block can't be made: 2 rows, but identities of [2, 1, 2, 2]"
        );
    }

    #[test]
    fn a_decimal_of_too_many_digits_names_its_row_even_inside_a_list() {
        let decimals = |values: Vec<i128>| Decimal128Array::from(values).with_precision_and_scale(3, 1).unwrap();
        let lists = ListArray::new(
            Arc::new(arrow::datatypes::Field::new("item", DataType::Decimal128(3, 1), false)),
            arrow::buffer::OffsetBuffer::from_lengths([0, 2]),
            Arc::new(decimals(vec![999, 1000])),
            None,
        );
        for array in [Arc::new(decimals(vec![-999, -1000])) as ArrayRef, Arc::new(lists)] {
            let batch = RecordBatch::try_from_iter([("d", array)]).unwrap();
            let fault = encode(&batch, &IDENTITY, &[0, 1], &[] as &[&str], Compression::Lz4).unwrap_err();
            assert!(matches!(&fault, Error::Value { row: 1, .. }), "{fault:?}");
            assert!(fault.to_string().ends_with("1000 has more than 3 digits"), "{fault}");
        }
    }
}
