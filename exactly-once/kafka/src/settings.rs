//! Every librdkafka setting that Sluice depends on, in one place, each with its reason.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// Where Kafka is and how long things may take.
#[derive(Debug, Clone)]
pub struct Connection {
    /// `host:port` of one or more brokers.
    pub brokers: Vec<String>,
    /// Security and other settings of the user's. The pipeline file's check refuses those that are set below, but for the few that
    /// are left to the user.
    pub properties: BTreeMap<String, String>,
    /// Consumer group: the pipeline's name.
    pub group: String,
    /// Names this client in the broker's logs.
    pub client: String,
    /// A silent member loses its partitions after this long.
    pub session_timeout: Duration,
    /// The broker aborts a transaction that is open for longer.
    pub transaction_timeout: Duration,
    /// The longest time between two polls of a lane.
    pub poll_interval_max: Duration,
}

fn base(connection: &Connection) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in &connection.properties {
        config.set(key, value);
    }
    config.set("bootstrap.servers", connection.brokers.join(","));
    config.set("client.id", &connection.client);
    // A dead coordinator's connection otherwise keeps transactional calls hanging (librdkafka#5456, #5511).
    config.set("connections.max.idle.ms", "4000");
    config.set("reconnect.backoff.ms", "50");
    config.set("reconnect.backoff.max.ms", "1000");
    // Connections that idle out are closed on purpose, see above.
    config.set("log.connection.close", "false");
    config
}

/// Sets what is a matter of speed and memory alone, and depends on how far away the brokers are: the pipeline file may say otherwise.
fn unless_told(config: &mut ClientConfig, connection: &Connection, key: &str, value: &str) {
    if !connection.properties.contains_key(key) {
        config.set(key, value);
    }
}

/// The consumer of one lane.
pub fn consumer(connection: &Connection) -> ClientConfig {
    let mut config = base(connection);
    config.set("group.id", &connection.group);
    // Only the partitions that move stop; a revocation is answered after the in-flight batch.
    config.set("partition.assignment.strategy", "cooperative-sticky");
    config.set("session.timeout.ms", connection.session_timeout.as_millis().to_string());
    // A member hears in the answer to a heartbeat that the others wait for it.
    config.set(
        "heartbeat.interval.ms",
        (connection.session_timeout.as_millis() / 20).max(100).to_string(),
    );
    config.set(
        "max.poll.interval.ms",
        connection.poll_interval_max.as_millis().to_string(),
    );
    // Offsets are committed by a lane alone.
    config.set("enable.auto.commit", "false");
    config.set("enable.auto.offset.store", "false");
    // Never skip silently: an offset that is gone stops the partition.
    config.set("auto.offset.reset", "error");
    // Committed offsets are read only when no transaction is open on them (require_stable).
    config.set("isolation.level", "read_committed");
    config.set("enable.partition.eof", "false");
    // librdkafka prefetches 64 MiB by default; a lane needs about two of its largest batches.
    unless_told(&mut config, connection, "queued.max.messages.kbytes", "32768");
    unless_told(&mut config, connection, "queued.min.messages", "10000");
    unless_told(&mut config, connection, "fetch.message.max.bytes", "1048576");
    // An answer for every few records costs broker and worker more than the records themselves; 20 ms are half of
    // `linger`, which a batch waits anyway.
    config.set("fetch.wait.max.ms", "20");
    unless_told(&mut config, connection, "fetch.min.bytes", "65536");
    // The default of 1000 ms stalls a partition for a second after its queue was full.
    config.set("fetch.queue.backoff.ms", "10");
    config.set("fetch.error.backoff.ms", "100");
    // New partitions and topics are noticed within this time.
    config.set("topic.metadata.refresh.interval.ms", "10000");
    config
}

/// A client that is in no group and in no transaction: what [`crash_points::Mutation`] does without them.
pub(crate) fn outside(connection: &Connection) -> ClientConfig {
    let mut config = base(connection);
    config.set("group.id", &connection.group);
    config
}

/// The transactional producer of one lane. `id` is stable for a slot, so that a restart fences its predecessor.
pub fn producer(connection: &Connection, id: &str) -> ClientConfig {
    let mut config = base(connection);
    config.set("transactional.id", id);
    // That a connection broke is told in the log alone, and has to be: see `transactions`. Of the levels below this one
    // librdkafka leaves out what it closes itself, and what has broken in the same way a moment ago.
    let debug = match connection.properties.get("debug") {
        Some(more) => format!("broker,{more}"),
        None => "broker".to_owned(),
    };
    config.set("debug", debug);
    config.set_log_level(RDKafkaLogLevel::Debug);
    config.set(
        "transaction.timeout.ms",
        connection.transaction_timeout.as_millis().to_string(),
    );
    // Back-to-back transactions wait this long for the last one's markers: 100 ms by default, 4-14 ms with 1.
    config.set("retry.backoff.ms", "1");
    config.set("retry.backoff.max.ms", "50");
    records(&mut config);
    config
}

/// The producer of one lane that does without transactions.
pub(crate) fn plain_producer(connection: &Connection) -> ClientConfig {
    let mut config = base(connection);
    // What librdkafka itself sends again is there once.
    config.set("enable.idempotence", "true");
    // A record without an answer by then is in doubt, and everything is delivered again.
    config.set(
        "message.timeout.ms",
        connection.transaction_timeout.as_millis().to_string(),
    );
    records(&mut config);
    config
}

/// Alerts, dead letters and the audit's records.
fn records(config: &mut ClientConfig) {
    // The transaction, or the commit, is the batch.
    config.set("linger.ms", "0");
    config.set("compression.type", "lz4");
    // A dead letter is as large as its event and its headers; the topic has the last word.
    config.set("message.max.bytes", "104857600");
    config.set("queue.buffering.max.messages", "1000000");
    config.set("queue.buffering.max.kbytes", "262144");
}
