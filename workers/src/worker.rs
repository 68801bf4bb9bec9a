//! Wires a worker together: one lane per core, and beside them the tasks that lanes share (the sink's clock, newer
//! rules, newer schemas, HTTP).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use exactly_once_kafka::{Connection, Start};
use exactly_once_protocol::Guarantee;
use futures::future::BoxFuture;
use pipeline::Pipeline;
use pipeline::shape::Shape;
use registry_cache::{Error as RegistryError, Registry, Schema};
use thiserror::Error;
use tokio::sync::Notify;

use crate::endpoint::EndpointError;
use crate::lane::{Inbox, LaneLoop, LaneSettings, Shared, Surroundings};
use crate::metrics::Metrics;
use crate::model::{Model, ModelFault};
use crate::prerequisites::{complete_tables, first_tables, first_topics};
use crate::rulebook::{Rulebook, RulebookError};
use crate::sinks::Sinks;

/// Between two tries to reach something that is away.
pub(crate) const TRY_EVERY: Duration = Duration::from_millis(500);

/// How long a command waits for a registry that does not answer: somebody sits before it.
const SHAPE_WITHIN: Duration = Duration::from_secs(10);

/// How often ClickHouse is asked for its clock.
const CLOCK_EVERY: Duration = Duration::from_secs(5);

/// Why a worker cannot start. Something that is merely away is waited for and is no error.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// The pipeline file leaves an address out.
    #[error(
        "`connections.{0}` has no address: give one in the pipeline file, or start the development stack with `sluice devstack up`"
    )]
    NoAddress(&'static str),
    /// A password or certificate file.
    #[error("{0}")]
    Secret(String),
    /// The registry's settings.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The registry gave a command no answer.
    #[error("{error}; it was tried for {} s: start the registry, or mend `connections.registry`", tried.as_secs())]
    NoSchemas {
        /// Whom it asked, and what happened at last.
        error: RegistryError,
        /// How long.
        tried: Duration,
    },
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] exactly_once_kafka::Error),
    /// Versions of a subject do not fit each other.
    #[error("source `{topic}`: {reason}")]
    Shape {
        /// The topic.
        topic: String,
        /// Which column of which versions.
        reason: String,
    },
    /// Schemas lack what the pipeline file says.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Model(Vec<ModelFault>),
    /// The rules.
    #[error(transparent)]
    Rules(#[from] RulebookError),
    /// ClickHouse's settings.
    #[error(transparent)]
    ClickHouse(#[from] clickhouse_sink::Error),
    /// A gRPC sink's address or certificates.
    #[error("a gRPC sink: {0}")]
    Endpoint(#[from] EndpointError),
    /// The metrics port.
    #[error(transparent)]
    Serve(#[from] serve::Error),
}

/// What the command line decides.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names the worker's slot: stable over restarts, different for every worker of a pipeline.
    pub name: String,
    /// Where `/metrics`, `/healthz` and `/readyz` are served; `None`: as the pipeline file says.
    pub listen: Option<String>,
}

struct Worker {
    pipeline: Arc<Pipeline>,
    registry: Registry,
    rulebook: Rulebook,
    /// Sources for which a lane met a schema that the model does not cover.
    wanted: Mutex<BTreeSet<usize>>,
    evolve: Notify,
}

impl Surroundings for Worker {
    fn documents(&self, rules: (u64, u64)) -> BoxFuture<'_, Option<Arc<Vec<(String, String)>>>> {
        Box::pin(self.rulebook.pinned(rules))
    }

    fn schema(&self, id: u32) -> BoxFuture<'_, Result<Arc<Schema>, String>> {
        Box::pin(async move {
            loop {
                match self.registry.schema(id).await {
                    Ok(schema) => return Ok(schema),
                    Err(error @ (RegistryError::Unknown { .. } | RegistryError::Unusable { .. })) => {
                        return Err(error.to_string());
                    }
                    // Down, or refusing us: that says nothing about the event. Wait.
                    Err(error) => tracing::warn!(id, %error, "waiting for a schema"),
                }
                tokio::time::sleep(TRY_EVERY).await;
            }
        })
    }

    fn evolve(&self, source: usize) {
        self.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(source);
        self.evolve.notify_one();
    }

    fn belongs(&self, source: usize, schema: Arc<Schema>) -> BoxFuture<'_, bool> {
        Box::pin(async move {
            let subject = &self.pipeline.sources[source].subject;
            let mut asked = 0;
            loop {
                match self.registry.versions_now(subject).await {
                    Ok(versions) => {
                        let versions: Vec<_> = versions.iter().map(|version| version.avro.clone()).collect();
                        match Shape::of(&versions) {
                            Ok(shape) if shape.covers(&schema.avro) => return true,
                            Ok(_) => asked += 1,
                            Err(error) => {
                                tracing::warn!(subject, %error, "the versions of a subject make no table; its events wait")
                            }
                        }
                    }
                    // That says nothing about the event. Wait.
                    Err(error) => tracing::warn!(subject, %error, "waiting for the versions of a subject"),
                }
                if asked >= self.pipeline.dead_letters.attempts.max(BELONGS_ASKED) {
                    return false;
                }
                // A registration may still be on its way to the registry's other nodes.
                tokio::time::sleep(BELONGS_EVERY).await;
            }
        })
    }
}

/// Runs a worker until `stop` is requested; then what is in flight finishes and it returns.
pub async fn run(pipeline: Pipeline, options: Options, stop: serve::Stop) -> Result<(), WorkerError> {
    let pipeline = Arc::new(pipeline);
    let clickhouse = clickhouse(&pipeline)?;
    let health = serve::Health::new("worker");
    let mut metrics_registry = serve::registry();
    let metrics = Arc::new(Metrics::new(&mut metrics_registry));
    let listen = options.listen.clone().unwrap_or_else(|| pipeline.serve.listen.clone());
    let http = serve::http(&listen, Arc::new(metrics_registry), health.clone()).await?;
    tracing::info!(address = %http.addr, worker = options.name, pipeline = pipeline.name, "serving metrics and health");

    let worker = Arc::new(Worker {
        registry: registry(&pipeline)?,
        rulebook: Rulebook::open(
            pipeline.connections.rules.clone(),
            &pipeline.name,
            &pipeline.workers.state_dir,
        )?,
        wanted: Mutex::default(),
        evolve: Notify::new(),
        pipeline: Arc::clone(&pipeline),
    });
    let client = connection(&pipeline, &options.name)?;
    let started = async {
        first_topics(&pipeline, client, &health).await;
        let model = Arc::new(first_tables(async || first_model(&worker).await, &clickhouse, &health).await?);
        let revision = worker.rulebook.first(&model.catalog).await?;
        Ok::<_, WorkerError>((model, revision))
    };
    let (model, revision) = tokio::select! {
        started = started => started?,
        () = stop.requested() => {
            http.stop().await;
            return Ok(());
        }
    };
    metrics.rules_revision.set(revision.number);
    let sinks = Arc::new(Sinks::new(
        Arc::clone(&pipeline),
        clickhouse,
        health.clone(),
        Arc::clone(&metrics),
    )?);
    // Deadlines are the server's: with the clock of this machine they might be hours away.
    let learned = async {
        while !sinks.learn_clock().await {
            health
                .part("clickhouse")
                .ready(false, "does not say what time it is, and deadlines are by its clock");
            tokio::time::sleep(TRY_EVERY).await;
        }
        health.part("clickhouse").ready(true, "");
    };
    tokio::select! {
        () = learned => {}
        () = stop.requested() => {
            http.stop().await;
            return Ok(());
        }
    }
    let clock = tokio::spawn({
        let sinks = Arc::clone(&sinks);
        async move {
            loop {
                tokio::time::sleep(CLOCK_EVERY).await;
                sinks.learn_clock().await;
                sinks.guard.look();
            }
        }
    });

    if guarantee(&pipeline) == Guarantee::AtLeastOnce {
        tracing::info!(
            pipeline = pipeline.name,
            "the guarantee is at_least_once: after a crash, a timeout or a rebalance events may be delivered twice"
        );
    }
    let lanes = pipeline
        .workers
        .lanes
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let shared = Shared {
        sinks,
        surroundings: Arc::clone(&worker) as Arc<dyn Surroundings>,
        runtime: tokio::runtime::Handle::current(),
        metrics: Arc::clone(&metrics),
        health: health.clone(),
        unfinished: Arc::new(AtomicUsize::new(lanes)),
    };
    let newest = Arc::new(Mutex::new((Arc::clone(&model), Arc::clone(&revision))));
    let senders: Arc<Mutex<Vec<Option<SyncSender<Inbox>>>>> = Arc::new(Mutex::new(vec![None; lanes]));
    let draining = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for lane in 0..lanes {
        let settings = LaneSettings {
            slot: format!("{}-{lane}", options.name),
            connection: connection(&pipeline, &format!("{}-{lane}", options.name))?,
            start: start(&pipeline),
            lanes,
        };
        let (shared, newest) = (shared.clone(), Arc::clone(&newest));
        let (senders, draining) = (Arc::clone(&senders), Arc::clone(&draining));
        threads.push(tokio::task::spawn_blocking(move || {
            keep_running(lane, &settings, &shared, &newest, &senders, &draining);
        }));
    }
    health.ready(true, "");
    let news = tokio::spawn(watch(
        Arc::clone(&worker),
        Arc::clone(&newest),
        Arc::clone(&senders),
        shared.sinks.clone(),
    ));

    stop.requested().await;
    draining.store(true, Ordering::Release);
    health.ready(false, "draining");
    for sender in senders.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten() {
        tell(sender, || Inbox::Drain);
    }
    for thread in threads {
        if let Err(error) = thread.await {
            tracing::error!(%error, "a lane's thread ended badly");
        }
    }
    news.abort();
    clock.abort();
    http.stop().await;
    tracing::info!(worker = options.name, "drained");
    Ok(())
}

type Newest = Mutex<(Arc<Model>, Arc<rules::Revision>)>;
type Senders = Mutex<Vec<Option<SyncSender<Inbox>>>>;

/// At least so often a registry has to say that a subject has no such version, with this between two answers.
const BELONGS_ASKED: u32 = 3;
const BELONGS_EVERY: Duration = Duration::from_secs(1);

/// A lane that ends with an error is replaced: a new consumer and producer, and the committed offsets as the only truth.
fn keep_running(
    lane: usize,
    settings: &LaneSettings,
    shared: &Shared,
    newest: &Newest,
    senders: &Senders,
    draining: &AtomicBool,
) {
    while !draining.load(Ordering::Acquire) {
        let (model, revision) = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (running, sender) = LaneLoop::new(settings.clone(), shared.clone(), model, revision);
        let drain = sender.clone();
        senders.lock().unwrap_or_else(PoisonError::into_inner)[lane] = Some(sender);
        // What has become newer meanwhile was told to the lane before this one.
        let (model, revision) = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tell(&drain, || Inbox::Model(Arc::clone(&model), Arc::clone(&revision)));
        if draining.load(Ordering::Acquire) {
            tell(&drain, || Inbox::Drain);
        }
        match running.run() {
            Ok(()) => return,
            Err(error) => {
                tracing::error!(lane = settings.slot, %error, "a lane ended; starting a new one");
                shared.health.part(&settings.slot).ready(false, &error.to_string());
                std::thread::sleep(TRY_EVERY);
            }
        }
    }
    // It has ended with an error while the worker drains: the others need not wait for it.
    shared.unfinished.fetch_sub(1, Ordering::AcqRel);
}

fn tell(sender: &SyncSender<Inbox>, message: impl Fn() -> Inbox) {
    if sender.send(message()).is_err() {
        tracing::debug!("the lane has ended already");
    }
}

/// Brings newer rules and newer shapes to all lanes.
async fn watch(worker: Arc<Worker>, newest: Arc<Newest>, senders: Arc<Senders>, sinks: Arc<Sinks>) {
    // Waits on while subjects are read again, however often that is: it takes longer than they do.
    let mut changed = None;
    loop {
        let (model, revision) = newest.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rules = changed.get_or_insert_with(|| rules_after(&worker, &model, &revision));
        let (model, revision) = tokio::select! {
            biased;
            revision = rules => {
                tracing::info!(number = revision.number, digest = format!("{:016x}", revision.digest), "new rules");
                (model, revision)
            }
            () = worker.evolve.notified() => match evolved(&worker, &model, &sinks).await {
                Ok(Some(newer)) => match worker.rulebook.first(&newer.catalog).await {
                    Ok(revision) => (Arc::new(newer), revision),
                    Err(error) => {
                        tracing::error!(%error, "the rules do not fit the newer schemas");
                        // Partitions wait for this model: it is made again until the rules fit.
                        let all = 0..worker.pipeline.sources.len();
                        worker.wanted.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
                        tokio::time::sleep(TRY_EVERY * 4).await;
                        retry(&worker);
                        continue;
                    }
                },
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "a newer schema cannot be taken in yet; its events wait");
                    tokio::time::sleep(TRY_EVERY * 4).await;
                    retry(&worker);
                    continue;
                }
            },
        };
        changed = None;
        *newest.lock().unwrap_or_else(PoisonError::into_inner) = (Arc::clone(&model), Arc::clone(&revision));
        let all: Vec<_> = senders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .flatten()
            .cloned()
            .collect();
        for sender in all {
            tell(&sender, || Inbox::Model(Arc::clone(&model), Arc::clone(&revision)));
        }
    }
}

/// The next revision of the rules that fits the model.
fn rules_after(
    worker: &Arc<Worker>,
    model: &Arc<Model>,
    revision: &Arc<rules::Revision>,
) -> BoxFuture<'static, Arc<rules::Revision>> {
    let (worker, model) = (Arc::clone(worker), Arc::clone(model));
    let in_force = (revision.number, revision.digest);
    Box::pin(async move { worker.rulebook.changed(in_force, &model.catalog).await })
}

fn retry(worker: &Worker) {
    worker.evolve.notify_one();
}

/// The model with the shapes of every wanted source read anew, and the tables with their new columns. `None`: no shape has changed;
/// whoever still waits for one asks again.
async fn evolved(worker: &Worker, model: &Model, sinks: &Sinks) -> Result<Option<Model>, WorkerError> {
    let wanted = worker.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let mut shapes = model.shapes.clone();
    for source in &wanted {
        let read = shape(worker, *source).await?;
        // An answer with fewer columns is of a registry's node that lags behind, or a version was deleted: its column stays.
        if read.columns.len() >= shapes[*source].columns.len() {
            shapes[*source] = read;
        }
    }
    let newer = if shapes == model.shapes {
        None
    } else {
        let newer = Model::new(Arc::clone(&worker.pipeline), shapes, model.version + 1).map_err(WorkerError::Model)?;
        // Tables first: a block must never name a column that is not there.
        complete_tables(&newer, &sinks.clickhouse, wanted.iter().copied()).await?;
        Some(newer)
    };
    let mut left = worker.wanted.lock().unwrap_or_else(PoisonError::into_inner);
    left.retain(|source| !wanted.contains(source));
    Ok(newer)
}

async fn first_model(worker: &Worker) -> Result<Model, WorkerError> {
    let mut shapes = Vec::new();
    for source in 0..worker.pipeline.sources.len() {
        shapes.push(shape(worker, source).await?);
    }
    Model::new(Arc::clone(&worker.pipeline), shapes, 1).map_err(WorkerError::Model)
}

async fn shape(worker: &Worker, source: usize) -> Result<Shape, WorkerError> {
    shape_of(&worker.registry, &worker.pipeline, source).await
}

/// The shapes of all sources, for a command: without an answer of the registry, or a snapshot, it fails after a while.
pub async fn shapes(pipeline: &Pipeline) -> Result<Vec<Shape>, WorkerError> {
    shapes_within(&registry(pipeline)?, pipeline, SHAPE_WITHIN).await
}

async fn shapes_within(registry: &Registry, pipeline: &Pipeline, within: Duration) -> Result<Vec<Shape>, WorkerError> {
    let until = Instant::now() + within;
    let mut shapes = Vec::new();
    for source in 0..pipeline.sources.len() {
        let shape = loop {
            match shape_now(registry, pipeline, source).await {
                Err(WorkerError::Registry(error)) if error.is_wait() && Instant::now() >= until => {
                    return Err(WorkerError::NoSchemas { error, tried: within });
                }
                Err(WorkerError::Registry(error)) if error.is_wait() => tokio::time::sleep(TRY_EVERY).await,
                shape => break shape?,
            }
        };
        shapes.push(shape);
    }
    Ok(shapes)
}

/// The shape of a source from all versions of its subject; waits for a registry that is away, unless a snapshot is there.
async fn shape_of(registry: &Registry, pipeline: &Pipeline, source: usize) -> Result<Shape, WorkerError> {
    loop {
        match shape_now(registry, pipeline, source).await {
            Err(WorkerError::Registry(error)) if error.is_wait() => {
                let subject = &pipeline.sources[source].subject;
                tracing::warn!(subject, %error, "waiting for schemas");
            }
            shape => return shape,
        }
        tokio::time::sleep(TRY_EVERY).await;
    }
}

async fn shape_now(registry: &Registry, pipeline: &Pipeline, source: usize) -> Result<Shape, WorkerError> {
    let source = &pipeline.sources[source];
    let versions = registry.versions(&source.subject).await?;
    let schemas: Vec<_> = versions.iter().map(|version| version.avro.clone()).collect();
    Shape::of(&schemas).map_err(|error| WorkerError::Shape {
        topic: source.topic.clone(),
        reason: error.to_string(),
    })
}

// --- from the pipeline file to clients --------------------------------------------------------------------------------

/// The registry client of a pipeline.
pub fn registry(pipeline: &Pipeline) -> Result<Registry, WorkerError> {
    let from = &pipeline.connections.registry;
    let mut settings = registry_cache::Settings::new(from.url.clone().ok_or(WorkerError::NoAddress("registry"))?);
    settings.user.clone_from(&from.user);
    settings.password = from
        .password
        .as_ref()
        .map(|secret| secret.read())
        .transpose()
        .map_err(secret)?;
    if let Some(tls) = &from.tls {
        let read = |path: &PathBuf| {
            std::fs::read(path).map_err(|error| WorkerError::Secret(format!("{}: {error}", path.display())))
        };
        settings.ca_pem = tls.ca_file.as_ref().map(read).transpose()?;
        if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
            let pem = [read(cert)?, read(key)?].join(&b'\n');
            settings.identity = Some(registry_cache::Identity { pem });
        }
    }
    settings.entries_max = from.entries_max;
    settings.ttl = from.ttl;
    settings.snapshot_dir = Some(from.snapshot_dir.clone());
    Ok(Registry::open(settings)?)
}

/// The ClickHouse client of a pipeline.
pub fn clickhouse(pipeline: &Pipeline) -> Result<clickhouse_sink::Client, WorkerError> {
    let from = &pipeline.connections.clickhouse;
    let url = from.url.as_deref().ok_or(WorkerError::NoAddress("clickhouse"))?;
    Ok(clickhouse_sink::Client::new(from, url)?)
}

fn secret(error: impl std::fmt::Display) -> WorkerError {
    WorkerError::Secret(error.to_string())
}

/// librdkafka's settings for a pipeline's security.
pub fn kafka_properties(kafka: &pipeline::Kafka) -> Result<std::collections::BTreeMap<String, String>, WorkerError> {
    let mut properties = kafka.properties.clone();
    let mut set = |key: &str, value: String| properties.insert(key.to_string(), value);
    let protocol = match (&kafka.tls, &kafka.sasl) {
        (None, None) => None,
        (Some(_), None) => Some("ssl"),
        (None, Some(_)) => Some("sasl_plaintext"),
        (Some(_), Some(_)) => Some("sasl_ssl"),
    };
    if let Some(protocol) = protocol {
        set("security.protocol", protocol.to_string());
    }
    if let Some(tls) = &kafka.tls {
        for (key, path) in [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ] {
            if let Some(path) = path {
                set(key, path.display().to_string());
            }
        }
    }
    if let Some(sasl) = &kafka.sasl {
        set("sasl.mechanism", sasl.mechanism.name().to_string());
        set("sasl.username", sasl.user.clone());
        set("sasl.password", sasl.password.read().map_err(secret)?);
    }
    Ok(properties)
}

/// How a client of this name reaches a pipeline's Kafka.
pub fn connection(pipeline: &Pipeline, client: &str) -> Result<Connection, WorkerError> {
    let kafka = pipeline
        .connections
        .kafka
        .as_ref()
        .ok_or(WorkerError::NoAddress("kafka"))?;
    Ok(Connection {
        brokers: kafka.brokers.clone(),
        properties: kafka_properties(kafka)?,
        group: pipeline.name.clone(),
        client: format!("sluice-{}-{client}", pipeline.name),
        session_timeout: pipeline.limits.session_timeout,
        transaction_timeout: pipeline.limits.transaction_timeout,
        poll_interval_max: pipeline.limits.poll_interval_max,
    })
}

/// Those of `topics` that the pipeline's Kafka does not have. Blocks for `within` at most.
pub fn missing_topics(pipeline: &Pipeline, topics: &[String], within: Duration) -> Result<Vec<String>, WorkerError> {
    let connection = connection(pipeline, "topics")?;
    Ok(exactly_once_kafka::missing_topics(&connection, topics, within)?)
}

/// What a pipeline's lanes are asked for.
pub fn guarantee(pipeline: &Pipeline) -> Guarantee {
    match pipeline.guarantee {
        pipeline::Guarantee::ExactlyOnce => Guarantee::ExactlyOnce,
        pipeline::Guarantee::AtLeastOnce => Guarantee::AtLeastOnce,
    }
}

/// Where partitions begin that have no offset.
pub fn start(pipeline: &Pipeline) -> Start {
    match pipeline.start {
        pipeline::Start::Earliest => Start::Earliest,
        pipeline::Start::Latest => Start::Latest,
        pipeline::Start::At(ms) => Start::At(ms),
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
