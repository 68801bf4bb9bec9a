//! The gRPC side.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use document::Fault;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use proto::config::v1::config_server::Config;
use proto::config::v1::{
    Document, GetRevisionRequest, PutRulesRequest, PutRulesResponse, Revision, RevisionId, WatchRevisionsRequest,
};
use serve::{CountBy, Stop};
use tokio::sync::{Mutex, mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::change::{Before, Checked, check};
use crate::run::CatalogProvider;
use crate::store::{Next, Snapshot, Store, StoreError};

/// Revisions that wait for a slow watcher.
const WATCH_WAITING_MAX: usize = 16;
/// How soon a watcher sees what *another* process has put into the same store. What this one takes it sees at once.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// `Config` over a store. Clones share it.
#[derive(Clone)]
pub struct ConfigService {
    store: Store,
    pipeline: Arc<str>,
    catalog: CatalogProvider,
    /// What the newest revision was compiled to, so that a put compiles only what it changes. Held during a put: puts are one after
    /// the other, each on top of the one before.
    compiled: Arc<Mutex<Option<Arc<rules::Revision>>>>,
    newest: watch::Sender<u64>,
    metrics: Metrics,
    stop: Stop,
}

/// What the service counts.
#[derive(Clone)]
pub struct Metrics {
    puts: CountBy,
    newest: Gauge,
    watchers: Gauge,
}

impl Metrics {
    /// Metrics that are shown by `registry`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            puts: CountBy::default(),
            newest: Gauge::default(),
            watchers: Gauge::default(),
        };
        registry.register("config_puts", "Puts of rules, by outcome", metrics.puts.clone());
        registry.register(
            "config_newest_revision",
            "Number of the newest revision",
            metrics.newest.clone(),
        );
        registry.register("config_watchers", "Open streams of revisions", metrics.watchers.clone());
        metrics
    }
}

/// What a service is made of.
pub struct Parts {
    pub store: Store,
    pub pipeline: String,
    pub catalog: CatalogProvider,
    pub metrics: Metrics,
    pub stop: Stop,
}

impl ConfigService {
    pub fn new(parts: Parts, newest: RevisionId) -> Self {
        let Parts {
            store,
            pipeline,
            catalog,
            metrics,
            stop,
        } = parts;
        metrics.newest.set(newest.number.cast_signed());
        let newest = watch::Sender::new(newest.number);
        Self {
            store,
            pipeline: pipeline.into(),
            catalog,
            compiled: Arc::default(),
            newest,
            metrics,
            stop,
        }
    }

    async fn put(&self, request: PutRulesRequest) -> Result<PutRulesResponse, Status> {
        let PutRulesRequest {
            documents,
            base,
            check_only,
            ..
        } = request;
        let catalog = self.catalog().await?;
        let mut compiled = self.compiled.lock().await;
        let before = self
            .snapshot(None)
            .await?
            .ok_or_else(|| Status::internal("there is no newest revision"))?;
        let newest = before.id;
        let number = newest.number + 1;
        let before = Before {
            documents: before.documents,
            compiled: compiled.clone().filter(|compiled| compiled.number == newest.number),
            meters: self.store.meters(&self.pipeline).await.map_err(status)?,
            number: newest.number,
        };
        // Compiling the rules of many tenants takes a while, and must not hold up the threads that answer others.
        let checking = tokio::task::spawn_blocking(move || check(documents, before, &catalog));
        let checked = checking
            .await
            .map_err(|error| Status::internal(format!("the check of the rules broke: {error}")))?;
        let Checked {
            changes,
            revision,
            meters,
        } = match checked {
            Ok(checked) => checked,
            Err(faults) => return Ok(refusal(faults, newest)),
        };
        // Before `base` is looked at: a put that was taken, and whose answer was lost, comes again with a base that is old by then.
        if changes.is_empty() || check_only {
            return Ok(PutRulesResponse {
                faults: Vec::new(),
                revision: Some(newest),
            });
        }
        if let Some(base) = base.filter(|base| *base != newest.number) {
            return Err(moved_on(base, newest.number));
        }
        let id = RevisionId {
            number,
            digest: revision.digest,
        };
        let created_at_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_millis();
        let next = Next {
            meters,
            id,
            created_at_ms: i64::try_from(created_at_ms).unwrap_or(i64::MAX),
            changes,
        };
        if !self.store.add(&self.pipeline, next).await.map_err(status)? {
            return Err(moved_on(newest.number, number));
        }
        *compiled = Some(Arc::new(revision));
        self.metrics.newest.set(number.cast_signed());
        self.newest.send_replace(number);
        tracing::info!(pipeline = &*self.pipeline, number, "a new revision of the rules");
        Ok(PutRulesResponse {
            faults: Vec::new(),
            revision: Some(id),
        })
    }

    async fn catalog(&self) -> Result<rules::Catalog, Status> {
        let catalog = Arc::clone(&self.catalog);
        // The provider may ask a schema registry.
        let asking = tokio::task::spawn_blocking(move || catalog());
        let answer = asking
            .await
            .map_err(|error| Status::internal(format!("the catalog of events broke: {error}")))?;
        answer.map_err(|reason| Status::unavailable(format!("the events that rules may name are not known: {reason}")))
    }

    async fn snapshot(&self, number: Option<u64>) -> Result<Option<Snapshot>, Status> {
        self.store.snapshot(&self.pipeline, number).await.map_err(status)
    }

    /// Rules that are put under a name that no worker asks for would never be used, and nobody would know.
    fn of_this_pipeline(&self, pipeline: &str) -> Result<(), Status> {
        if pipeline == &*self.pipeline {
            return Ok(());
        }
        Err(Status::not_found(format!(
            "this service keeps the rules of pipeline \"{}\", not \"{pipeline}\"",
            self.pipeline
        )))
    }

    /// Sends the newest revision and then each later one, until the watcher goes, the service stops or the store fails.
    async fn follow(self, newest: RevisionId, revisions: mpsc::Sender<Result<RevisionId, Status>>) {
        let mut seen = newest.number;
        let mut changes = self.newest.subscribe();
        if revisions.send(Ok(newest)).await.is_err() {
            return;
        }
        loop {
            let later = if self.stop.is_requested() {
                Err(Status::unavailable("the service stops; watch again"))
            } else {
                self.store.after(&self.pipeline, seen).await.map_err(status)
            };
            let later = match later {
                Ok(later) => later,
                Err(status) => {
                    // A watcher that has gone needs no reason.
                    revisions.send(Err(status)).await.ok();
                    return;
                }
            };
            for id in later {
                seen = id.number;
                if revisions.send(Ok(id)).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                // What was put since the store was asked has changed the watch already, so it is not missed.
                changed = changes.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = revisions.closed() => return,
                () = self.stop.requested() => {}
            }
        }
    }
}

fn refusal(faults: Vec<Fault>, newest: RevisionId) -> PutRulesResponse {
    let faults = faults.into_iter().map(|fault| {
        let Fault {
            file,
            line,
            column,
            path,
            message,
        } = fault;
        proto::config::v1::Fault {
            file,
            line,
            column,
            path,
            message,
        }
    });
    PutRulesResponse {
        faults: faults.collect(),
        revision: Some(newest),
    }
}

fn moved_on(base: u64, newest: u64) -> Status {
    Status::aborted(format!(
        "the newest revision is {newest}, not {base}: get it, and put again on top of it"
    ))
}

fn status(error: StoreError) -> Status {
    tracing::warn!("{error}");
    match error {
        StoreError::Unavailable(_) => Status::unavailable(error.to_string()),
        StoreError::Foreign(_) => Status::failed_precondition(error.to_string()),
    }
}

#[tonic::async_trait]
impl Config for ConfigService {
    type WatchRevisionsStream = ReceiverStream<Result<RevisionId, Status>>;

    async fn put_rules(&self, request: Request<PutRulesRequest>) -> Result<Response<PutRulesResponse>, Status> {
        let request = request.into_inner();
        self.of_this_pipeline(&request.pipeline)?;
        // In a task of its own: a caller who goes away must not stop a put between the store and those who watch.
        let service = self.clone();
        let put = tokio::spawn(async move { service.put(request).await });
        let answer = put
            .await
            .map_err(|error| Status::internal(format!("the put broke: {error}")))?;
        let outcome = match &answer {
            Ok(answer) if answer.faults.is_empty() => "accepted",
            Ok(_) => "refused",
            Err(_) => "failed",
        };
        self.metrics
            .puts
            .get_or_create(&vec![("outcome", outcome.to_owned())])
            .inc();
        answer.map(Response::new)
    }

    async fn get_revision(&self, request: Request<GetRevisionRequest>) -> Result<Response<Revision>, Status> {
        let GetRevisionRequest { pipeline, number } = request.into_inner();
        self.of_this_pipeline(&pipeline)?;
        let Some(Snapshot {
            id,
            created_at_ms,
            documents,
        }) = self.snapshot(number).await?
        else {
            let number = number.unwrap_or_default();
            return Err(Status::not_found(format!(
                "there is no revision {number} of pipeline \"{pipeline}\""
            )));
        };
        let documents = documents.into_iter().map(|(tenant, kept)| Document {
            tenant,
            text: kept.text,
            file: kept.file,
        });
        Ok(Response::new(Revision {
            id: Some(id),
            documents: documents.collect(),
            created_at_ms,
        }))
    }

    async fn watch_revisions(
        &self,
        request: Request<WatchRevisionsRequest>,
    ) -> Result<Response<Self::WatchRevisionsStream>, Status> {
        self.of_this_pipeline(&request.into_inner().pipeline)?;
        let newest = self.store.newest(&self.pipeline).await.map_err(status)?;
        let (revisions, stream) = mpsc::channel(WATCH_WAITING_MAX);
        let service = self.clone();
        tokio::spawn(async move {
            let watchers = service.metrics.watchers.clone();
            watchers.inc();
            service.follow(newest, revisions).await;
            watchers.dec();
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}
