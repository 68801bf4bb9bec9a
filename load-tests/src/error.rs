//! Why a load run could not be made.

/// What stopped a run before or while it drove. Events that Kafka refused are no error but part of the report.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The settings cannot work.
    #[error("{0}")]
    Settings(String),
    /// The schemas could not be registered.
    #[error("schema registry {url}: {reason}")]
    Registry {
        /// The registry's address.
        url: String,
        /// One line.
        reason: String,
    },
    /// Kafka could not be used at all.
    #[error("kafka {brokers}: {reason}")]
    Kafka {
        /// The brokers asked.
        brokers: String,
        /// One line.
        reason: String,
    },
    /// The record of what was produced could not be written.
    #[error("record file {path}: {reason}")]
    Record {
        /// The file.
        path: String,
        /// One line.
        reason: String,
    },
}
