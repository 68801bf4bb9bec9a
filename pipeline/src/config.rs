//! The checked pipeline: what every other crate reads. Each default stands beside its field, with its reason, in
//! `defaults.rs`; how a file becomes one of these is in `check.rs`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::Secret;

/// One pipeline, checked: every name resolves and every relation between settings holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    /// Names the consumer group, the transactional ids and the insert tokens; a live one is never renamed.
    pub name: String,
    /// Changes exactly when outputs may change: hash of the name, sources, event fields, tables and sinks.
    pub revision: u64,
    /// Where to begin when the group has no committed offset.
    pub start: Start,
    /// How often an event may be in a sink.
    pub guarantee: Guarantee,
    /// The systems on either side.
    pub connections: Connections,
    /// One a topic, in the order of the file.
    pub sources: Vec<Source>,
    /// First the sources' own tables in the order of the sources, then the others in the order of the file.
    pub tables: Vec<Table>,
    /// Summaries that ClickHouse keeps while rows arrive.
    pub rollups: Vec<Rollup>,
    /// Where else events go.
    pub sinks: Sinks,
    /// What becomes of events that no retry can help.
    pub dead_letters: DeadLetters,
    /// The record of what was committed.
    pub audit: Audit,
    /// When a batch closes and how long its delivery may take.
    pub batch: Batch,
    /// The bounds of memory and time.
    pub limits: Limits,
    /// Where the worker answers `/metrics`, `/healthz` and `/readyz`.
    pub serve: Serve,
    /// How a worker uses its machine.
    pub workers: Workers,
}

/// Which ranges were committed when, with which rules, and what became of them: written in the transaction that commits them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    /// The topic; `schema apply` makes it.
    pub topic: String,
    /// Its retention.
    pub keep: Duration,
}

/// Where to begin in a topic for which the group has no committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// The oldest record that is still there.
    Earliest,
    /// Only what arrives from now on.
    Latest,
    /// The first record at or after this time, in milliseconds since 1970-01-01T00:00:00Z.
    At(i64),
}

/// How often what comes of an event may be in a sink after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Once.
    ExactlyOnce,
    /// Once or more: nothing is promised before it is delivered, and nothing is read back.
    AtLeastOnce,
}

impl Guarantee {
    /// Whether a sink may hold an event more than once.
    pub fn may_repeat(self) -> bool {
        self == Guarantee::AtLeastOnce
    }
}

/// The systems on either side of the pipeline. A missing address is filled in by the local stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// `None`: no brokers were named.
    pub kafka: Option<Kafka>,
    /// Schema ids and their schemas.
    pub registry: Registry,
    /// The tables.
    pub clickhouse: ClickHouse,
    /// Where the tenants' rules come from.
    pub rules: RulesFrom,
}

/// How to reach Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kafka {
    /// `host:port`, at least one.
    pub brokers: Vec<String>,
    /// `None`: plain text.
    pub tls: Option<Tls>,
    /// `None`: no authentication.
    pub sasl: Option<Sasl>,
    /// Extra librdkafka settings, handed on as they are; those that the protocol depends on are refused.
    pub properties: BTreeMap<String, String>,
}

/// Certificates. All `None`: the system's trusted roots and no client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// PEM; trusted instead of the system's roots.
    pub ca_file: Option<PathBuf>,
    /// PEM; the client's certificate, always together with `key_file`.
    pub cert_file: Option<PathBuf>,
    /// PEM; the client's key.
    pub key_file: Option<PathBuf>,
}

/// A user and password for Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sasl {
    /// How the password travels.
    pub mechanism: SaslMechanism,
    /// The user.
    pub user: String,
    /// The password, in a file.
    pub password: Secret,
}

/// The SASL mechanisms that need a user and a password only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password as it is: only sensible under TLS.
    Plain,
    /// Salted challenge and response, SHA-256.
    ScramSha256,
    /// Salted challenge and response, SHA-512.
    ScramSha512,
}

impl SaslMechanism {
    /// The name that librdkafka's `sasl.mechanism` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// How to reach the schema registry and how much of it to remember.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// `http://` or `https://`, without a slash at the end. `None`: the local stack.
    pub url: Option<String>,
    /// The user of HTTP basic authentication.
    pub user: Option<String>,
    /// Its password; present exactly when `user` is.
    pub password: Option<Secret>,
    /// Certificates for an `https` address.
    pub tls: Option<Tls>,
    /// At most so many schemas in memory.
    pub entries_max: u64,
    /// How old a schema may grow before it is asked for again.
    pub ttl: Duration,
    /// Where schemas survive a restart.
    pub snapshot_dir: PathBuf,
}

/// How to reach ClickHouse's HTTP interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClickHouse {
    /// `http://` or `https://`, without a slash at the end. `None`: the local stack.
    pub url: Option<String>,
    /// The database of all tables and rollups.
    pub database: String,
    /// The user.
    pub user: String,
    /// `None`: an empty password.
    pub password: Option<Secret>,
    /// Certificates for an `https` address.
    pub tls: Option<Tls>,
    /// `None`: LZ4, and nothing to an address of this machine, where bytes cost less than packing and unpacking them.
    pub compression: Option<Compression>,
}

/// How rows travel to ClickHouse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// In LZ4 frames.
    Lz4,
    /// As they are.
    None,
}

/// Where the tenants' rules come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesFrom {
    /// The config service at this gRPC address.
    Service {
        /// `http://` or `https://`, without a slash at the end.
        url: String,
        /// Certificates for an `https` address.
        tls: Option<Tls>,
    },
    /// A directory of rule files.
    Dir(PathBuf),
    /// No rules: every event is delivered as it came.
    None,
}

/// Which fields of an event mean what: dotted paths into the Avro record, such as `context.page.url`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFields {
    /// The id that the event's maker gave it.
    pub id: String,
    /// Whose event it is.
    pub tenant: String,
    /// What kind of event it is, where the schema has such a field.
    pub event_type: Option<String>,
    /// When it happened.
    pub time: String,
    /// How long before the record's Kafka timestamp an event may have happened.
    pub accept_past: Duration,
    /// How long after the record's Kafka timestamp an event may claim to have happened.
    pub accept_future: Duration,
}

/// Where a record carries the id of its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaIdFrom {
    /// The header where there is one, the prefix otherwise.
    Auto,
    /// The five bytes before the Avro: a zero, then the id, big-endian.
    Prefix,
    /// A header: ASCII decimal, or four bytes big-endian.
    Header,
}

/// One topic and what becomes of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The Kafka topic.
    pub topic: String,
    /// What rules call these events; the topic unless the file says otherwise.
    pub name: String,
    /// Index into [`Pipeline::tables`]; no other source has this table.
    pub table: usize,
    /// Where the schema's id is.
    pub schema_id: SchemaIdFrom,
    /// The header's name, when a header has it.
    pub schema_id_header: String,
    /// The pipeline's event fields with this source's own on top.
    pub event: EventFields,
    /// The registry's subject that lists this topic's schema versions.
    pub subject: String,
    /// How many partitions `schema apply` gives a topic that doesn't exist.
    pub partitions: u32,
    /// Where this topic's dead letters go.
    pub dead_letter_topic: String,
}

/// One table for raw rows. Its columns come from the Avro schemas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// The table's name in the database.
    pub name: String,
    /// Has the columns of this table; only rules route rows to it.
    pub like: Option<String>,
    /// Index into [`Pipeline::sources`] of the source whose columns it has (its own, or that of `like`).
    pub source: usize,
    /// How rows are parted on disk.
    pub partition_by: PartitionBy,
    /// Names of columns (`context_page_url`), never empty.
    pub order_by: Vec<String>,
    /// `None`: kept for ever.
    pub keep: Option<Keep>,
    /// Names of columns that are stored as `LowCardinality(String)`.
    pub low_cardinality: Vec<String>,
    /// How many insert tokens the table remembers.
    pub dedup_window: u32,
}

/// How a table's rows are parted on disk, by the event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartitionBy {
    /// One part of the disk a day.
    Day,
    /// One a month.
    Month,
    /// Not at all.
    None,
}

/// How long rows are kept after the event's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// So many days.
    Days(u32),
    /// So many calendar months.
    Months(u32),
}

/// A summary table that ClickHouse keeps while rows arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollup {
    /// The summary's name in the database; differs from every table's.
    pub name: String,
    /// Index into [`Pipeline::tables`].
    pub from: usize,
    /// The width of a bucket of event time, whole seconds.
    pub every: Duration,
    /// Names of columns that each bucket is split by, besides time.
    pub by: Vec<String>,
    /// What is computed, at least one.
    pub measures: Vec<Measure>,
}

/// One computed column of a rollup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// The column's name.
    pub name: String,
    /// What is computed.
    pub function: Function,
    /// Over which column; `None` exactly for [`Function::Count`].
    pub column: Option<String>,
}

/// What a rollup can compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// How many different values, exactly.
    Uniq,
    /// How many different values, about.
    UniqCombined,
    /// The sum.
    Sum,
    /// The number of rows.
    Count,
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

/// Where events go besides the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sinks {
    /// `None`: rules that raise alerts are refused.
    pub alerts: Option<AlertSink>,
    /// Services that speak `sluice.delivery.v1`, by the order of the file.
    pub grpc: Vec<GrpcSink>,
}

/// Where alerts go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSink {
    /// The Kafka topic.
    pub topic: String,
    /// How many partitions `schema apply` gives it if it doesn't exist.
    pub partitions: u32,
}

/// A service that speaks `sluice.delivery.v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcSink {
    /// Its name in the file; charges go to the one named `billing`.
    pub name: String,
    /// `http://` or `https://`, without a slash at the end.
    pub url: String,
    /// The largest message that it takes, in bytes.
    pub message_bytes_max: usize,
    /// Certificates for an `https` address.
    pub tls: Option<Tls>,
}

/// What becomes of events that no retry can help.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetters {
    /// Contains `{topic}`; already applied in [`Source::dead_letter_topic`].
    pub topic_pattern: String,
    /// How often something that a retry may help is tried.
    pub attempts: u32,
    /// What stops a bad deploy from draining a topic into the dead letters.
    pub brake: Brake,
}

/// Stops a partition when too many of its latest events were dead letters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Brake {
    /// Above 0, at most 1: the share of dead letters at which to stop.
    pub share: f64,
    /// Over how many of the latest events the share is taken.
    pub over_events: u64,
}

/// When a batch closes and how long its delivery may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// How long an idle lane gathers before it delivers.
    pub linger: Duration,
    /// While sinks keep up no event waits longer than this for its batch to close; batches that did are counted.
    pub age_max: Duration,
    /// So many rows close a batch before `linger` has passed.
    pub rows: usize,
    /// How far a batch may grow while a sink is busy.
    pub rows_max: usize,
    /// The same in bytes of memory.
    pub bytes_max: usize,
    /// From a promise to the time after which a sink refuses to begin its delivery.
    pub deadline: Duration,
    /// How often rows that are committed are added to their rollups.
    pub rollup_every: Duration,
    /// How far clocks may differ, and how long a delivery that began in time may run on.
    pub grace: Duration,
}

/// The bounds of memory and time of one worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    /// A larger event is a dead letter.
    pub event_bytes_max: usize,
    /// Rows between Kafka and the sinks at which a lane stops reading.
    pub in_flight_rows_max: usize,
    /// The same in bytes of memory.
    pub in_flight_bytes_max: usize,
    /// A partition that was paused for holding more than twice its share of the rows goes on below this part of that; between 0 and 1.
    pub resume_below: f64,
    /// How long Kafka waits for a silent member before it gives its partitions to others.
    pub session_timeout: Duration,
    /// How long Kafka keeps a transaction open whose producer is silent; less than `session_timeout`.
    pub transaction_timeout: Duration,
    /// How long a lane may go without polling; more than `session_timeout`.
    pub poll_interval_max: Duration,
}

/// Where a role answers `/metrics`, `/healthz` and `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serve {
    /// `host:port`; port 0 takes a free one.
    pub listen: String,
}

/// How a worker uses its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workers {
    /// `None`: as many as there are cores.
    pub lanes: Option<usize>,
    /// Where a worker keeps what survives a restart (revisions of rules, for one).
    pub state_dir: PathBuf,
}
