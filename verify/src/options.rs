//! What to verify, and against what.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pipeline::Pipeline;

use crate::audit::RulesId;

/// One revision of the rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RulesRevision {
    /// As alerts and charges carry it; 0 = the empty revision.
    pub number: u64,
    /// Each a file's name, for messages, and its text.
    pub documents: Vec<(String, String)>,
}

type Asked = Pin<Box<dyn Future<Output = Option<RulesRevision>> + Send>>;

/// Who is asked for the rules revisions that the audit names. The default knows none.
#[derive(Clone)]
pub struct Revisions(Arc<dyn Fn(RulesId) -> Asked + Send + Sync>);

impl Revisions {
    /// `ask` answers `None` for a revision that is not kept any more.
    pub fn new<A>(ask: impl Fn(RulesId) -> A + Send + Sync + 'static) -> Revisions
    where
        A: Future<Output = Option<RulesRevision>> + Send + 'static,
    {
        Revisions(Arc::new(move |id| Box::pin(ask(id))))
    }

    pub(crate) fn ask(&self, id: RulesId) -> Asked {
        (self.0)(id)
    }
}

impl Default for Revisions {
    fn default() -> Revisions {
        Revisions::new(|_| std::future::ready(None))
    }
}

impl fmt::Debug for Revisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Revisions")
    }
}

/// How far the log is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Wait until the group has committed every partition up to its end, at most this long.
    Settled(Duration),
    /// Up to what the group has committed now; what lies beyond in the sinks is under way and not looked at.
    Committed,
}

/// See [`Options::of`] for the defaults.
#[derive(Debug, Clone)]
pub struct Options {
    /// `host:port`, comma-separated.
    pub brokers: String,
    /// The consumer group; the pipeline's name unless told otherwise.
    pub group: String,
    /// Base address of the schema registry.
    pub registry: String,
    /// Base address of ClickHouse's HTTP interface.
    pub clickhouse: String,
    /// Address of the billing service; `None` = charges are not looked at.
    pub billing: Option<String>,
    /// The rules for what the audit does not name: those in force.
    pub rules: RulesRevision,
    /// The rules that the audit names, as far as they are others.
    pub revisions: Revisions,
    /// Where the group began, by topic and partition; elsewhere the log's start. Rows, alerts, charges and dead letters of
    /// earlier offsets are not looked at.
    pub from: BTreeMap<(String, i32), i64>,
    /// How far.
    pub until: Until,
    /// Whether the billing service's sums are compared, too: right when no other pipeline charges the same meters.
    pub usage: bool,
    /// Examples of each kind of difference in each sink.
    pub examples_max: usize,
}

impl Options {
    /// Addresses and names as the pipeline has them, no rules, the whole log, settled within a minute. What the
    /// pipeline leaves open is empty until the caller fills it in.
    pub fn of(pipeline: &Pipeline) -> Options {
        let connections = &pipeline.connections;
        let billing = pipeline.sinks.grpc.iter().find(|sink| sink.name == "billing");
        Options {
            brokers: connections
                .kafka
                .as_ref()
                .map(|kafka| kafka.brokers.join(","))
                .unwrap_or_default(),
            group: pipeline.name.clone(),
            registry: connections.registry.url.clone().unwrap_or_default(),
            clickhouse: connections.clickhouse.url.clone().unwrap_or_default(),
            billing: billing.map(|sink| sink.url.clone()),
            rules: RulesRevision::default(),
            revisions: Revisions::default(),
            from: BTreeMap::new(),
            until: Until::Settled(Duration::from_secs(60)),
            usage: true,
            examples_max: 20,
        }
    }
}
