//! What a worker counts. Prometheus names and units; every label has few and known values, never a tenant's.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::breaker::State;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serve::{Count, CountBy};

type Labels = Vec<(&'static str, String)>;
type Seconds = Family<Labels, Histogram, fn() -> Histogram>;

/// See the module.
pub struct Metrics {
    /// Records that lanes took in.
    pub records: CountBy,
    /// Records whose range is committed.
    pub committed: Count,
    rows: CountBy,
    bytes: Count,
    /// Alerts committed.
    pub alerts: Count,
    /// Charges committed.
    pub charges: Count,
    /// Dead letters committed, by stage and code.
    pub dead: CountBy,
    /// Events that rules dropped.
    pub dropped: Count,
    /// Transactions by outcome.
    pub transactions: CountBy,
    inserts_failed: CountBy,
    /// Of ClickHouse: 0 closed, 1 half-open, 2 open.
    breaker: Family<Vec<(&'static str, String)>, Gauge>,
    breaker_opened: CountBy,
    deliveries_failed: CountBy,
    insert: Seconds,
    feed: Seconds,
    deliver: Seconds,
    /// From the record's timestamp to the commit of its range, for the oldest record of each batch.
    pub age: Histogram,
    /// Records between the committed offset and the end of the log, by topic.
    pub lag: Family<Labels, Gauge>,
    /// Partitions owned, by lane.
    pub owned: Family<Labels, Gauge>,
    /// Partitions that wait for a promise to be settled, by lane.
    pub doubtful: Family<Labels, Gauge>,
    /// Partitions that need an operator, by code.
    pub stopped: Family<Labels, Gauge>,
    /// Rows held in memory, by lane.
    pub in_flight: Family<Labels, Gauge>,
    /// Times that a partition was paused or, for `pressure`, a lane took no more records, by reason.
    pub paused: CountBy,
    /// Batches that closed later than `batch.age_max` after their first record.
    pub late: Count,
    /// Promises that were settled by reading back.
    pub settled: Count,
    /// Number of the rules revision in force.
    pub rules_revision: Gauge<u64, AtomicU64>,
}

impl Metrics {
    /// Registers everything; names get the registry's prefix.
    pub fn new(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            records: CountBy::default(),
            committed: Counter::default(),
            rows: CountBy::default(),
            bytes: Counter::default(),
            alerts: Counter::default(),
            charges: Counter::default(),
            dead: CountBy::default(),
            dropped: Counter::default(),
            transactions: CountBy::default(),
            inserts_failed: CountBy::default(),
            breaker: Family::default(),
            breaker_opened: CountBy::default(),
            deliveries_failed: CountBy::default(),
            insert: Family::new_with_constructor(serve::seconds as fn() -> Histogram),
            feed: Family::new_with_constructor(serve::seconds as fn() -> Histogram),
            deliver: Family::new_with_constructor(serve::seconds as fn() -> Histogram),
            age: serve::seconds(),
            lag: Family::default(),
            owned: Family::default(),
            doubtful: Family::default(),
            stopped: Family::default(),
            in_flight: Family::default(),
            paused: CountBy::default(),
            late: Counter::default(),
            settled: Counter::default(),
            rules_revision: Gauge::default(),
        };
        let mut counter = |name: &str, help: &str, family: &CountBy| registry.register(name, help, family.clone());
        counter("records", "records taken in, by topic", &metrics.records);
        counter("rows", "rows acknowledged by ClickHouse, by table", &metrics.rows);
        counter("dead_letters", "events committed as dead letters", &metrics.dead);
        counter("transactions", "Kafka transactions by outcome", &metrics.transactions);
        counter(
            "inserts_failed",
            "inserts that were not cleanly acknowledged",
            &metrics.inserts_failed,
        );
        counter(
            "deliveries_failed",
            "gRPC calls without an answer",
            &metrics.deliveries_failed,
        );
        counter(
            "breaker_opened",
            "times the circuit breaker before ClickHouse has opened, by what is asked for",
            &metrics.breaker_opened,
        );
        counter(
            "pauses",
            "times a partition was paused, or a lane took no more records, by reason",
            &metrics.paused,
        );
        registry.register(
            "records_committed",
            "records whose range is committed",
            metrics.committed.clone(),
        );
        registry.register(
            "inserted_bytes",
            "bytes of blocks sent to ClickHouse, compressed unless clickhouse.compression is none",
            metrics.bytes.clone(),
        );
        registry.register(
            "breaker_state",
            "the circuit breaker before ClickHouse, by what is asked for: 0 closed, 1 half-open, 2 open",
            metrics.breaker.clone(),
        );
        registry.register("alerts", "alerts committed", metrics.alerts.clone());
        registry.register("charges", "charges committed", metrics.charges.clone());
        registry.register("events_dropped", "events that a rule dropped", metrics.dropped.clone());
        registry.register(
            "batches_late",
            "batches that closed later than batch.age_max after their first record: sinks do not keep up",
            metrics.late.clone(),
        );
        registry.register(
            "promises_settled",
            "promises settled by reading back",
            metrics.settled.clone(),
        );
        let seconds = Unit::Seconds;
        registry.register_with_unit("insert", "one INSERT", seconds.clone(), metrics.insert.clone());
        registry.register_with_unit(
            "rollup_feed",
            "one feeding of a rollup",
            seconds.clone(),
            metrics.feed.clone(),
        );
        registry.register_with_unit("deliver", "one gRPC Deliver", seconds.clone(), metrics.deliver.clone());
        let help = "oldest record of a batch, from its timestamp to its commit";
        registry.register_with_unit("batch_age", help, seconds, metrics.age.clone());
        let mut gauge = |name: &str, help: &str, family: &Family<Labels, Gauge>| {
            registry.register(name, help, family.clone());
        };
        gauge(
            "lag_records",
            "records not yet committed, by topic and lane",
            &metrics.lag,
        );
        gauge("partitions_owned", "partitions owned by a lane", &metrics.owned);
        gauge(
            "partitions_doubtful",
            "partitions that wait for a promise to be settled",
            &metrics.doubtful,
        );
        gauge(
            "partitions_stopped",
            "partitions that need an operator",
            &metrics.stopped,
        );
        gauge("in_flight_rows", "rows that a lane holds", &metrics.in_flight);
        registry.register(
            "rules_revision",
            "rules revision in force",
            metrics.rules_revision.clone(),
        );
        metrics
    }

    pub(crate) fn inserted(&self, table: &str, rows: usize, bytes: usize, took: Duration) {
        let labels = vec![("table", table.to_string())];
        self.rows.get_or_create(&labels).inc_by(rows as u64);
        self.bytes.inc_by(bytes as u64);
        self.insert.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn fed(&self, rollup: &str, took: Duration) {
        self.feed
            .get_or_create(&vec![("rollup", rollup.to_string())])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn insert_failed(&self, outcome: &str) {
        self.inserts_failed
            .get_or_create(&vec![("outcome", outcome.to_string())])
            .inc();
    }

    pub(crate) fn breaker(&self, requests: &str, state: State) {
        let state = match state {
            State::Closed => 0,
            State::HalfOpen => 1,
            State::Open => 2,
        };
        let labels = vec![("requests", requests.to_string())];
        self.breaker.get_or_create(&labels).set(state);
    }

    pub(crate) fn breaker_opened(&self, requests: &str) {
        let labels = vec![("requests", requests.to_string())];
        self.breaker_opened.get_or_create(&labels).inc();
    }

    pub(crate) fn delivered(&self, sink: &str, took: Duration) {
        self.deliver
            .get_or_create(&vec![("sink", sink.to_string())])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn delivery_failed(&self, sink: &str) {
        self.deliveries_failed
            .get_or_create(&vec![("sink", sink.to_string())])
            .inc();
    }
}
