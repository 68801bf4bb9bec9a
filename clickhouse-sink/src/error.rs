//! What can go wrong outside an insert (whose outcomes are [`crate::Inserted`]).

use crate::schema::Refusal;

/// Why a call on ClickHouse, or the making of a block, failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings can't make a client: fix the pipeline file.
    #[error("the ClickHouse connection can't be set up: {0}")]
    Settings(String),
    /// No answer came: wait and ask again. Everything that returns this may be repeated.
    #[error("ClickHouse gives no answer: {0}")]
    Unreachable(String),
    /// The server answered with an exception.
    #[error("ClickHouse refuses with code {code}: {reason}")]
    Server {
        /// Its number, as in ClickHouse's `ErrorCodes`.
        code: i32,
        /// Its text.
        reason: String,
    },
    /// The answer isn't what ClickHouse sends: something else answers at this address, or the answer was cut.
    #[error("the answer is not what ClickHouse sends: {0}")]
    Answer(String),
    /// A column can't be written, hashed or sorted by at all.
    #[error("column {column}: {reason}")]
    Column {
        /// The column's name.
        column: String,
        /// Why not.
        reason: String,
    },
    /// One value can't be stored without being altered: the row is a dead letter, the others are fine.
    #[error("column {column}, row {row}: {reason}")]
    Value {
        /// The column's name.
        column: String,
        /// The row in the batch.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The tables can't become what the pipeline needs; nothing was changed.
    #[error("the tables can't become what the pipeline needs: {}", first_of(.0))]
    Refused(Vec<Refusal>),
    /// The batch, the identity and the order don't fit each other, or the block would be split by the server.
    #[error("the block can't be made: {0}")]
    Block(String),
}

fn first_of(refusals: &[Refusal]) -> String {
    let more = refusals.len().saturating_sub(1);
    let first = refusals
        .first()
        .map(|first| format!("{}: {} ({})", first.what, first.reason, first.remedy));
    first.unwrap_or_default()
        + &if more > 0 {
            format!(", and {more} more")
        } else {
            String::new()
        }
}

impl Error {
    /// Like [`crate::Inserted::is_overload`], of a question.
    pub fn is_overload(&self) -> bool {
        match self {
            Error::Unreachable(_) | Error::Answer(_) => true,
            Error::Server { code, .. } => crate::verdict::is_overload(*code),
            _ => false,
        }
    }

    /// A fault of a whole column.
    pub(crate) fn column(column: &str, reason: impl Into<String>) -> Self {
        Self::Column {
            column: column.to_owned(),
            reason: reason.into(),
        }
    }
}
