//! Why nothing could be verified. A difference is never an error: it stands in the report.

/// Why the verifier could not finish.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pipeline file names no address for a part, and the options none either.
    #[error(
        "no address for {part}: name it in the pipeline file, or start the development stack with `sluice devstack up`"
    )]
    NoAddress {
        /// `kafka`, `registry`, `clickhouse` or `billing`.
        part: &'static str,
    },
    /// A setting of a connection can't be used.
    #[error("{part}: {reason}")]
    Settings {
        /// Which connection.
        part: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Kafka did not answer.
    #[error("kafka: {doing}: {reason}")]
    Kafka {
        /// What was tried.
        doing: String,
        /// What librdkafka says.
        reason: String,
    },
    /// The group is not through with the log.
    #[error(
        "not settled after {waited_s} s: {topic}/{partition} is committed to {committed} of {end}, or its metadata says that \
         something is pending; let the workers finish, or verify without waiting"
    )]
    NotSettled {
        /// A topic that is behind.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Committed offset of the group; -1 = none.
        committed: i64,
        /// High watermark.
        end: i64,
        /// How long was waited.
        waited_s: u64,
    },
    /// The registry did not answer, or answered what cannot be understood.
    #[error("registry: {doing}: {reason}")]
    Registry {
        /// What was asked.
        doing: String,
        /// What happened.
        reason: String,
    },
    /// A source's schemas have no common columns.
    #[error("source {topic:?}: {reason}")]
    Shape {
        /// The source's topic.
        topic: String,
        /// Why.
        reason: String,
    },
    /// The rules do not compile against the pipeline's events.
    #[error("rules: {}", faults.join("; "))]
    Rules {
        /// All faults.
        faults: Vec<String>,
    },
    /// A record of the audit cannot be read.
    #[error("audit record {at}: {reason}")]
    Audit {
        /// Topic, partition and offset.
        at: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The rules cannot be had from where the pipeline has them.
    #[error("rules: {doing}: {reason}")]
    RulesUnread {
        /// What was asked or read.
        doing: String,
        /// What happened.
        reason: String,
    },
    /// A revision of the rules is asked for by its number where there are no numbers.
    #[error("`--rules` needs a rules service: the pipeline has {0}, and no revision {1}")]
    RulesUnnumbered(&'static str, u64),
    /// The audit names rules that the caller does not have.
    #[error("ranges were committed with rules revision {number} (digest {digest:016x}), which cannot be had any more")]
    RulesGone {
        /// Number of the revision.
        number: u64,
        /// Digest of its content.
        digest: u64,
    },
    /// The rules service does not answer.
    #[error("rules revision {number} is not answered for {waited_s} s: start the rules service")]
    RulesUnanswered {
        /// Number of the revision.
        number: u64,
        /// How long it was waited.
        waited_s: u64,
    },
    /// ClickHouse did not answer, or answered what cannot be understood.
    #[error("clickhouse: {doing}: {reason}")]
    ClickHouse {
        /// What was asked.
        doing: String,
        /// What happened.
        reason: String,
    },
    /// The billing service did not answer.
    #[error("billing: {doing}: {reason}")]
    Billing {
        /// What was asked.
        doing: String,
        /// What happened.
        reason: String,
    },
    /// The role's address cannot be had.
    #[error("{0}")]
    Listen(String),
    /// A batch for the rules could not be built: a fault of this crate.
    #[error("columns: {0}")]
    Columns(#[from] arrow::error::ArrowError),
    /// The part of the verifier that reads the log ended early: a fault of this crate.
    #[error("the reader of the log ended early: {0}")]
    Ended(String),
}
