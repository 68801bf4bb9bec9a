use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Counts something that only grows. Register it without `_total`: the text format adds that.
pub type Count = Counter<u64>;

/// Counts by labels, for example `[("outcome", "applied".into())]`. The values must be few and known: never a tenant's.
pub type CountBy = Family<Vec<(&'static str, String)>, Counter<u64>>;

/// A registry whose metrics are all called `sluice_...`.
pub fn registry() -> Registry {
    Registry::with_prefix("sluice")
}

/// A histogram of seconds from a millisecond to a minute. Register it with `Unit::Seconds`, which appends `_seconds`.
pub fn seconds() -> Histogram {
    Histogram::new([
        0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    ])
}
