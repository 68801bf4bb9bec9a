//! The role: opens the store, offers the service, and drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::config::v1::RevisionId;
use proto::config::v1::config_server::ConfigServer;
use rules::Catalog;
use serve::{Health, Stop};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::service::{ConfigService, Metrics, Parts};
use crate::store::{Store, StoreError};

/// How often readiness is asked of the store.
const LOOK_AT_STORE: Duration = Duration::from_secs(2);

/// Says which events there are when rules are checked. Called on a thread that may block, once for each put, so that a new schema
/// is seen without a restart. The error is a sentence: why it can't be said now.
pub type CatalogProvider = Arc<dyn Fn() -> Result<Catalog, String> + Send + Sync>;

/// What the role needs to know.
#[derive(Clone)]
pub struct Settings {
    /// Address of the gRPC service; port 0 takes a free one.
    pub listen: String,
    /// The SQLite file, made when it isn't there.
    pub store: PathBuf,
    /// The pipeline whose rules are kept; others are refused.
    pub pipeline: String,
    /// Which events there are.
    pub catalog: CatalogProvider,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None`: not offered.
    pub http_listen: Option<String>,
    /// The largest message in bytes: a put, or the rules of all tenants in a revision.
    pub message_bytes_max: usize,
    /// How long calls in flight may take to end after the stop.
    pub drain: Duration,
}

impl Settings {
    /// Settings for a store on this machine, on free ports.
    pub fn new(pipeline: impl Into<String>, store: impl Into<PathBuf>, catalog: CatalogProvider) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            store: store.into(),
            pipeline: pipeline.into(),
            catalog,
            http_listen: Some("127.0.0.1:0".to_owned()),
            message_bytes_max: 64 * 1024 * 1024,
            drain: Duration::from_secs(10),
        }
    }
}

/// Why the role doesn't begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An address can't be had.
    #[error(transparent)]
    Listen(#[from] serve::Error),
}

/// A running rules service.
#[derive(Debug)]
pub struct Running {
    /// Where the gRPC service is.
    pub addr: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub http_addr: Option<SocketAddr>,
    ended: JoinHandle<()>,
}

impl Running {
    /// Resolves when the service has ended: after its `stop` was requested, and what was in flight is answered.
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!("the rules service broke while it stopped: {error}");
        }
    }
}

/// Begins the rules service, which runs until `stop`.
///
/// # Errors
/// [`Error::Store`] when the store is foreign or can't be opened, [`Error::Listen`] when an address can't be had.
pub async fn serve(settings: Settings, stop: Stop) -> Result<Running, Error> {
    let Settings {
        listen,
        store,
        pipeline,
        catalog,
        http_listen,
        message_bytes_max,
        drain,
    } = settings;
    let opening = tokio::task::spawn_blocking(move || Store::open(&store, empty_revision())).await;
    let store = opening.map_err(|error| StoreError::Unavailable(error.to_string()))??;
    let newest = store.newest(&pipeline).await?;

    let mut registry = serve::registry();
    let metrics = Metrics::register(&mut registry);
    let parts = Parts {
        store: store.clone(),
        pipeline: pipeline.clone(),
        catalog,
        metrics,
        stop: stop.clone(),
    };
    let service = ConfigServer::new(ConfigService::new(parts, newest))
        .max_decoding_message_size(message_bytes_max)
        .max_encoding_message_size(message_bytes_max);
    let grpc = serve::grpc(&listen, Routes::new(service), stop.clone(), drain).await?;
    let health = Health::new("store");
    health.ready(true, "");
    let http = match &http_listen {
        Some(listen) => Some(serve::http(listen, Arc::new(registry), health.clone()).await?),
        None => None,
    };
    let (addr, http_addr) = (grpc.addr, http.as_ref().map(|http| http.addr));
    let ended = tokio::spawn(async move {
        tokio::select! {
            () = watch_store(&store, &pipeline, &health) => {}
            () = stop.requested() => health.part("role").ready(false, "stopping"),
        }
        grpc.ended().await;
        if let Some(http) = http {
            http.stop().await;
        }
    });
    Ok(Running { addr, http_addr, ended })
}

/// Revision 0: no rules, every event is delivered unchanged.
fn empty_revision() -> RevisionId {
    let nothing = rules::Revision::compile(
        0,
        &[],
        &Catalog {
            events: Vec::new(),
            alerts: true,
            charges: true,
        },
    );
    // Nothing has no faults. Should that ever change, 0 is a digest like another.
    RevisionId {
        number: 0,
        digest: nothing.map_or(0, |nothing| nothing.digest),
    }
}

async fn watch_store(store: &Store, pipeline: &str, health: &Health) {
    loop {
        tokio::time::sleep(LOOK_AT_STORE).await;
        match store.newest(pipeline).await {
            Ok(_) => health.ready(true, ""),
            Err(error) => health.ready(false, &error.to_string()),
        }
    }
}
