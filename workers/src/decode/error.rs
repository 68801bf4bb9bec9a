//! What can be wrong with a payload, and with a schema.

use std::fmt;

/// Why a payload could not be decoded. The columns are as they were before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("field {field:?}: {reason} ({code})")]
pub struct DecodeError {
    /// Dotted Avro path of the field, in the writer's names; empty when no field is to blame.
    pub field: String,
    /// Stable, snake_case, for headers and metrics: `truncated`, `invalid_utf8`, `trailing_bytes`, `bad_varint`,
    /// `bad_boolean`, `bad_union_index`, `bad_enum_index`, `bad_uuid`, `negative_length`, `int_out_of_range`,
    /// `decimal_out_of_range`, `too_large`, `too_deep`, `batch_full`, `wrong_columns`.
    pub code: &'static str,
    /// What is wrong and at which byte of the payload.
    pub reason: String,
}

/// Why no plan can be made for this writer schema and shape. It says nothing about any event: events of that schema have
/// to wait until the shape covers it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The top level of the writer schema is not a record.
    #[error("the schema is a {found}, events must be records")]
    NotARecord {
        /// The Avro type that was found.
        found: String,
    },
    /// The schema refers to a name that it does not define.
    #[error("the schema does not resolve: {reason}")]
    Unresolved {
        /// What the Avro library says.
        reason: String,
    },
    /// The writer's type of a field cannot become the column's.
    #[error("field {field:?}: {writer} cannot become column {column:?} of type {kind}")]
    Incompatible {
        /// Dotted Avro path.
        field: String,
        /// The writer's type.
        writer: String,
        /// The column's name.
        column: String,
        /// The column's type.
        kind: String,
    },
    /// The column must not be NULL, and this schema does not always give it a value: the shape was made without it.
    #[error("column {column:?} must not be NULL, but this schema version {reason}")]
    NotCovered {
        /// The column's name.
        column: String,
        /// Why there may be no value.
        reason: &'static str,
    },
    /// Types nest deeper than [`super::DEPTH_MAX`].
    #[error("field {field:?} nests deeper than {} levels", super::DEPTH_MAX)]
    TooDeep {
        /// Dotted Avro path.
        field: String,
    },
}

/// A reason to give a row up, small enough to be returned from the hot path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Truncated,
    TrailingBytes,
    Varint,
    IntRange,
    Boolean,
    NegativeLength,
    TooManyItems,
    TooMuchText,
    TooDeep,
    Utf8,
    Union,
    Enum,
    Uuid,
    Decimal,
    BatchFull,
    WrongColumns,
}

impl Fault {
    fn code(self) -> &'static str {
        match self {
            Fault::Truncated => "truncated",
            Fault::TrailingBytes => "trailing_bytes",
            Fault::Varint => "bad_varint",
            Fault::IntRange => "int_out_of_range",
            Fault::Boolean => "bad_boolean",
            Fault::NegativeLength => "negative_length",
            Fault::TooManyItems | Fault::TooMuchText => "too_large",
            Fault::TooDeep => "too_deep",
            Fault::Utf8 => "invalid_utf8",
            Fault::Union => "bad_union_index",
            Fault::Enum => "bad_enum_index",
            Fault::Uuid => "bad_uuid",
            Fault::Decimal => "decimal_out_of_range",
            Fault::BatchFull => "batch_full",
            Fault::WrongColumns => "wrong_columns",
        }
    }

    fn text(self) -> &'static str {
        match self {
            Fault::Truncated => "the payload ends inside the value",
            Fault::TrailingBytes => "bytes are left after the last field",
            Fault::Varint => "the number does not end within ten bytes",
            Fault::IntRange => "the number does not fit an Avro int",
            Fault::Boolean => "a boolean is neither 0 nor 1",
            Fault::NegativeLength => "the length is negative",
            Fault::TooManyItems => "an array or map has more items than an event may hold",
            Fault::TooMuchText => "the value expands to more text than an event may hold",
            Fault::TooDeep => "the value nests deeper than an event may",
            Fault::Utf8 => "the text is not UTF-8",
            Fault::Union => "the union has no such branch",
            Fault::Enum => "the enum has no such symbol",
            Fault::Uuid => "the value is not a UUID",
            Fault::Decimal => "the number has more digits than the column",
            Fault::BatchFull => "a column of this batch would pass 2 GiB",
            Fault::WrongColumns => "the columns belong to another shape than the plan",
        }
    }

    /// The error for the caller. `at` is where reading stopped.
    #[cold]
    pub(super) fn at(self, field: &str, at: usize, length: usize) -> DecodeError {
        DecodeError {
            field: field.to_owned(),
            code: self.code(),
            reason: format!("{self} (at byte {at} of {length})"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}
