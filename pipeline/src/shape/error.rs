//! Why some schemas have no common shape.

/// Why the versions of a topic's schema have no common shape. Versions count from 1, the oldest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// There is nothing to make a shape of.
    #[error("there is no schema version yet; register the topic's schema first")]
    NoVersions,
    /// Events have to be records.
    #[error("version {version} of the schema is {found}, not a record; put it into a record with an id and a time")]
    NotARecord {
        /// Which version.
        version: usize,
        /// What it is.
        found: String,
    },
    /// No field of any version becomes a column.
    #[error("no version of the schema has a field that could become a column")]
    NoColumns,
    /// A named type is not defined in the schema, or twice.
    #[error("version {version} of the schema does not resolve: {reason}")]
    Unresolved {
        /// Which version.
        version: usize,
        /// Avro's reason.
        reason: String,
    },
    /// Flattened it would be larger than a table should be.
    #[error("version {version} of the schema is too large at `{path}`: at most {what} are possible")]
    TooLarge {
        /// Which version.
        version: usize,
        /// Where the bound was passed.
        path: String,
        /// The bound.
        what: String,
    },
    /// One field has two types that no column can hold together.
    #[error(
        "`{path}` is {newer} in version {newer_version} of the schema and {older} in version {older_version}; \
         one column can't hold both: give the new field another name"
    )]
    Incompatible {
        /// The field.
        path: String,
        /// What the newer version says.
        newer: String,
        /// Which that is.
        newer_version: usize,
        /// What the older version says.
        older: String,
        /// Which that is.
        older_version: usize,
    },
    /// Two fields become one column name.
    #[error("`{first}` and `{second}` both become the column `{name}`; rename one of them")]
    Collision {
        /// The column's name.
        name: String,
        /// One field.
        first: String,
        /// The other.
        second: String,
    },
    /// A name means one field in one version and another field in another, through an alias.
    #[error(
        "`{field}` in version {version} of the schema could be `{path}` or another field, for some version has that \
         name as an alias; take the alias away"
    )]
    Ambiguous {
        /// A column that the name may mean.
        path: String,
        /// The name.
        field: String,
        /// The version that has it.
        version: usize,
    },
    /// Columns that begin with `_` are Sluice's own (`_topic`, `_offset`, ...).
    #[error("the column of `{path}` would begin with `_`, as only Sluice's own columns do; rename the field")]
    ReservedName {
        /// The field.
        path: String,
    },
    /// A decimal that 128 bits can't hold.
    #[error("`{path}` is a decimal of {precision} digits with scale {scale}; at most 38 digits are possible")]
    Decimal {
        /// The field.
        path: String,
        /// Digits in all.
        precision: usize,
        /// Digits behind the point.
        scale: usize,
    },
}
