//! What bounds the work and memory of a tenant's rules. All are counts: a limit in time would break the replay.

/// Bytes of one expression. The longest that anybody should have to read is a tenth of it.
pub const EXPRESSION_BYTES_MAX: usize = 4096;
/// How deep an expression's tree may be: planning walks it recursively, on a lane's two-megabyte stack.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Parts that the planner may make of one expression. It repeats what `BETWEEN`, `CASE`, `coalesce` and patterns look at.
pub const EXPRESSION_PARTS_MAX: usize = 10_000;
/// Columns that one `set`, `mask` or `rename` names.
pub const COLUMNS_MAX: usize = 200;
/// Rules of one document.
pub const RULES_MAX: usize = 200;
/// Tests of one document.
pub const TESTS_MAX: usize = 500;
/// Meters of one document.
pub const METERS_MAX: usize = 100;
/// Bytes of a name: of a tenant, rule, meter, unit.
pub const NAME_BYTES_MAX: usize = 200;
/// The largest scale of a meter: 10^18 still fits into an `i64`.
pub const SCALE_MAX: u32 = 18;
/// Bytes of one text that an expression makes, on the way or in the end. As large as an event may be by default.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Bytes that one function may make of one batch before the batch is halved.
pub const BATCH_TEXT_BYTES_MAX: usize = 64 << 20;
/// Bytes of an alert's text or key: an alert is for people, and one Kafka message.
pub const ALERT_BYTES_MAX: usize = 64 << 10;
/// Bytes of the replacement in `regexp_replace`: with the text's length it bounds the result.
pub const REPLACEMENT_BYTES_MAX: usize = 64;
/// Bytes of a reason that quotes an event's value.
pub const REASON_BYTES_MAX: usize = 300;
/// Rows below which a failing batch is no longer halved but tried row by row.
pub const HALVE_ROWS_MIN: usize = 8;
