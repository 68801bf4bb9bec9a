//! What a pipeline file need not say, each with its reason.

use std::time::Duration;

use crate::Guarantee;

const MIB: usize = 1 << 20;

/// What Sluice is for; who can do with less has to say so.
pub(crate) const GUARANTEE: Guarantee = Guarantee::ExactlyOnce;

/// Half the latency that people notice; at 5,000 events a second it makes batches of some hundred rows.
pub(crate) const LINGER: Duration = Duration::from_millis(40);
/// While sinks keep up nobody looks at older data.
pub(crate) const AGE_MAX: Duration = Duration::from_millis(500);
/// A rollup by the minute that is a few seconds behind is current; feeding it costs as much as several inserts into its table.
pub(crate) const ROLLUP_EVERY: Duration = Duration::from_secs(5);
/// From here on ClickHouse's cost a row falls only slowly.
pub(crate) const ROWS: usize = 5000;
/// Room to grow where a lane moves 200,000 events a second: the larger inserts are, the fewer parts has ClickHouse to merge.
pub(crate) const ROWS_MAX: usize = 131_072;
/// About 90,000 events of 200 bytes. While a batch is written as blocks it is held as columns and as bytes, from then on as bytes.
pub(crate) const BATCH_BYTES_MAX: usize = 48 * MIB;
/// Longer than a healthy insert ever took, and with `GRACE` still shorter than Kafka's session timeout: the wait
/// after a crash then overlaps with one that happens anyway.
pub(crate) const DEADLINE: Duration = Duration::from_secs(8);
/// Machines with a working NTP are within some tens of milliseconds of each other.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// Beside the pipeline's other topics in every listing.
pub(crate) const AUDIT_PATTERN: &str = "{pipeline}.audit";
/// As long as rows are kept, and a month.
pub(crate) const AUDIT_KEEP: Duration = Duration::from_secs(430 * 86_400);
/// Less than the longest outage that is planned for would make the audit useless.
pub(crate) const AUDIT_KEEP_MIN: Duration = Duration::from_secs(86_400);

/// Kafka's own default for a message.
pub(crate) const EVENT_BYTES_MAX: usize = MIB;
/// Of all lanes of a worker together; a batch is full with half of its lane's share, so that one can be in delivery and one be gathered.
pub(crate) const IN_FLIGHT_ROWS_MAX: usize = 400_000;
/// The same in memory: with what librdkafka and the encoder hold, a worker stays under 1 GiB.
pub(crate) const IN_FLIGHT_BYTES_MAX: usize = 256 * MIB;
/// A pause throws away what was fetched ahead, so it should not come and go quickly.
pub(crate) const RESUME_BELOW: f64 = 0.5;
/// A crash costs about this much; much less would take a busy machine for a dead one.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the session timeout: a zombie's transaction has ended before its partitions have a new owner.
pub(crate) const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(8);
/// A lane that hangs for this long gives its partitions up; a quarter of it is the wait for a hand-back.
pub(crate) const POLL_INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Dashboards over a year need the same month of the year before.
pub(crate) const KEEP_MONTHS: u32 = 13;
/// ClickHouse's own for replicated tables. A token is a belt, not the proof.
pub(crate) const DEDUP_WINDOW: u32 = 10_000;
/// Alerts are few, and each partition that a transaction writes to costs the broker about a millisecond (`docs/performance.md`, row 5).
pub(crate) const ALERT_PARTITIONS: u32 = 1;
/// Enough for two workers of four lanes; a topic's partitions can be added to but never taken away.
pub(crate) const PARTITIONS: u32 = 8;
/// What our own clients and those of others have settled on.
pub(crate) const SCHEMA_ID_HEADER: &str = "schema-id";
/// More than a year back: imports of last year's data pass, a clock in 1970 doesn't.
pub(crate) const ACCEPT_PAST: Duration = Duration::from_secs(400 * 86_400);
/// A time zone taken for UTC is wrong by less than a day.
pub(crate) const ACCEPT_FUTURE: Duration = Duration::from_secs(86_400);

/// Every schema id in use at once, some times over, in a few MiB.
pub(crate) const REGISTRY_ENTRIES_MAX: u64 = 1000;
/// Schemas never change under their id; only a deletion is noticed this late.
pub(crate) const REGISTRY_TTL: Duration = Duration::from_secs(600);

/// A third look tells a hiccup from a fact.
pub(crate) const ATTEMPTS: u32 = 3;
/// Beside its topic in every listing.
pub(crate) const DEAD_LETTER_PATTERN: &str = "{topic}.dlq";
/// Half of everything is no bad producer but a bad deploy.
pub(crate) const BRAKE_SHARE: f64 = 0.5;
/// Long enough that one client's burst of bad events doesn't stop a partition.
pub(crate) const BRAKE_OVER_EVENTS: u64 = 1000;
/// Enough for a charge of some 200 bytes from each event of a full batch; tonic's own 4 MiB is not. Larger batches are cut.
pub(crate) const MESSAGE_BYTES_MAX: usize = 32 * MIB;

/// Only this machine, until someone decides otherwise.
pub(crate) const LISTEN: &str = "127.0.0.1:7301";
/// Beside the pipeline file.
pub(crate) const STATE_DIR: &str = "state";
/// ClickHouse's own default user.
pub(crate) const CLICKHOUSE_USER: &str = "default";
