//! A record's frame: which schema its bytes were written with, and where they begin.

use pipeline::{SchemaIdFrom, Source};

/// Confluent's wire format: a zero byte and the id, big-endian.
const PREFIX_BYTES: usize = 5;

/// Why a record has no usable frame. The codes are stable: they stand in dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameFault {
    /// The record has no value.
    NoValue,
    /// Fewer bytes than the prefix needs.
    TruncatedPrefix,
    /// The first byte is not zero and there is no header.
    NoSchemaId,
    /// The header is neither a decimal number nor four bytes.
    BadHeader,
}

impl FrameFault {
    /// Stable name for the dead letter's `sluice-code`.
    pub fn code(self) -> &'static str {
        match self {
            FrameFault::NoValue => "no_value",
            FrameFault::TruncatedPrefix => "truncated_prefix",
            FrameFault::NoSchemaId => "no_schema_id",
            FrameFault::BadHeader => "bad_schema_header",
        }
    }

    /// One sentence for people.
    pub fn reason(self) -> &'static str {
        match self {
            FrameFault::NoValue => "the record has no value",
            FrameFault::TruncatedPrefix => "the value is shorter than the 5-byte schema prefix",
            FrameFault::NoSchemaId => "the value has no schema prefix and the record no schema header",
            FrameFault::BadHeader => "the schema header is neither a decimal number nor 4 bytes",
        }
    }
}

/// Schema id and Avro body of a value. `header` is the value of the source's schema header, if the record has one.
pub fn frame<'a>(
    source: &Source,
    value: Option<&'a [u8]>,
    header: Option<&[u8]>,
) -> Result<(u32, &'a [u8]), FrameFault> {
    let value = value.ok_or(FrameFault::NoValue)?;
    match (source.schema_id, header) {
        (SchemaIdFrom::Auto | SchemaIdFrom::Header, Some(header)) => {
            Ok((header_id(header).ok_or(FrameFault::BadHeader)?, value))
        }
        (SchemaIdFrom::Header, None) => Err(FrameFault::NoSchemaId),
        (SchemaIdFrom::Auto | SchemaIdFrom::Prefix, _) => prefix(value),
    }
}

fn prefix(value: &[u8]) -> Result<(u32, &[u8]), FrameFault> {
    match value {
        [0, a, b, c, d, body @ ..] => Ok((u32::from_be_bytes([*a, *b, *c, *d]), body)),
        [] => Err(FrameFault::TruncatedPrefix),
        [0, ..] if value.len() < PREFIX_BYTES => Err(FrameFault::TruncatedPrefix),
        _ => Err(FrameFault::NoSchemaId),
    }
}

/// Decimal digits, or four bytes big-endian. Four ASCII digits are read as decimal: producers that write text are the
/// rule, and ids above 808 million are not to be had from a registry.
fn header_id(header: &[u8]) -> Option<u32> {
    let decimal = std::str::from_utf8(header)
        .ok()
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()));
    match decimal.and_then(|text| text.parse().ok()) {
        Some(id) => Some(id),
        None => <[u8; 4]>::try_from(header).ok().map(u32::from_be_bytes),
    }
}
