//! What can go wrong, by what the caller can do about it.

/// Why a question to the registry has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nobody answered, or not properly (timeout, refused connection, 408, 429, 5xx, a body that isn't the registry's). Wait and
    /// ask again: this says nothing about the event.
    #[error("schema registry at {url}: {reason}")]
    Unreachable {
        /// The address that was asked, without credentials.
        url: String,
        /// What happened, one line: nothing came (`unreachable: ...`), or no proper answer (`answered 503 ...`).
        reason: String,
    },
    /// The registry answered that it has no such schema. Definite now; a producer's registration may still be on its way.
    #[error("schema id {id} is unknown to the registry")]
    Unknown {
        /// The id in the event.
        id: u32,
    },
    /// The registry answered that it has no such subject, or no version of it.
    #[error("subject {subject} is unknown to the registry; register its schema first")]
    UnknownSubject {
        /// The subject asked for.
        subject: String,
    },
    /// The schema exists and can never be used: not Avro, or not parsable.
    #[error("schema id {id} cannot be used: {reason}")]
    Unusable {
        /// The id in the event.
        id: u32,
        /// Why, one line.
        reason: String,
    },
    /// The registry refused the request (wrong credentials, incompatible schema, wrong path). An operator has to act.
    #[error("schema registry refused with status {status}: {body}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The registry's words, shortened.
        body: String,
    },
    /// The settings cannot work: the url, a certificate, the snapshot directory.
    #[error("schema registry settings: {reason}")]
    Settings {
        /// Which setting and why.
        reason: String,
    },
}

impl Error {
    /// True when asking again later can help without anybody acting.
    #[must_use]
    pub fn is_wait(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
