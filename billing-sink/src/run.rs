//! The role: opens the store, offers the services, watches the store, and drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::delivery::v1::billing_server::BillingServer;
use proto::delivery::v1::delivery_server::DeliveryServer;
use serve::{Health, Stop};
use tokio::task::JoinHandle;
use tonic::service::Routes;

use crate::ledger::{Ledger, LedgerError, Moved, Source};
use crate::postgres::Postgres;
use crate::service::{BillingService, Metrics};
use crate::sqlite::Sqlite;

/// How often readiness is asked of the store.
const LOOK_AT_STORE: Duration = Duration::from_secs(2);

/// A store that takes longer for an empty delivery is not ready.
const STORE_SLOW: Duration = Duration::from_secs(5);

/// What the role needs to know.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the gRPC services; port 0 takes a free one.
    pub listen: String,
    /// Where the ledger is.
    pub store: Store,
    /// The largest message that is taken, in bytes. A sender learns it from the status of one that is larger.
    pub message_bytes_max: usize,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None`: not offered.
    pub http_listen: Option<String>,
    /// How long calls in flight may take to end after the stop.
    pub drain: Duration,
}

impl Settings {
    /// Settings for a store on this machine, on free ports.
    pub fn new(store: Store) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            store,
            message_bytes_max: 32 * 1024 * 1024,
            http_listen: Some("127.0.0.1:0".to_owned()),
            drain: Duration::from_secs(10),
        }
    }
}

/// Where a ledger is kept.
#[derive(Clone)]
pub enum Store {
    /// A SQLite file, made when it isn't there.
    Sqlite(PathBuf),
    /// `postgres://user:password@host:port/database`; the tables are made when they aren't there.
    Postgres(String),
}

impl std::fmt::Debug for Store {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => formatter.debug_tuple("Sqlite").field(path).finish(),
            // The URL may hold a password.
            Self::Postgres(_) => formatter.write_str("Postgres(..)"),
        }
    }
}

/// Why the role doesn't begin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store can't be opened.
    #[error(transparent)]
    Store(#[from] LedgerError),
    /// An address can't be had.
    #[error(transparent)]
    Listen(#[from] serve::Error),
}

/// A running billing service.
#[derive(Debug)]
pub struct Running {
    /// Where the gRPC services are.
    pub addr: SocketAddr,
    /// Where `/metrics`, `/healthz` and `/readyz` are.
    pub http_addr: Option<SocketAddr>,
    ended: JoinHandle<()>,
}

impl Running {
    /// Resolves when the service has ended: after its `stop` was requested, and what was in flight is answered.
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!("the billing service broke while it stopped: {error}");
        }
    }
}

/// Begins the billing service, which runs until `stop`.
///
/// # Errors
/// [`Error::Store`] when the store is foreign or can't be made (a PostgreSQL that doesn't answer yet is waited for, not an error),
/// [`Error::Listen`] when an address can't be had.
pub async fn serve(settings: Settings, stop: Stop) -> Result<Running, Error> {
    match &settings.store {
        Store::Sqlite(path) => {
            let path = path.clone();
            let opening = tokio::task::spawn_blocking(move || Sqlite::open(&path)).await;
            let ledger = opening.map_err(|error| LedgerError::Unavailable(error.to_string()))??;
            begin(ledger, settings, stop).await
        }
        Store::Postgres(url) => {
            let ledger = Postgres::open(url).await?;
            begin(ledger, settings, stop).await
        }
    }
}

/// Moves a partition's cursor in a store, whether a service works on it or not: [`Ledger::move_cursor`].
///
/// # Errors
/// [`LedgerError::Foreign`] when there is no ledger in the store; the others when it can't be asked.
pub async fn move_cursor(store: &Store, source: Source, to: i64) -> Result<Moved, LedgerError> {
    match store {
        Store::Sqlite(path) if !path.exists() => {
            Err(LedgerError::Foreign(format!("there is no file {}", path.display())))
        }
        Store::Sqlite(path) => Sqlite::open(path)?.move_cursor(source, to).await,
        Store::Postgres(url) => Postgres::open(url).await?.move_cursor(source, to).await,
    }
}

async fn begin<L: Ledger>(ledger: L, settings: Settings, stop: Stop) -> Result<Running, Error> {
    let ledger = Arc::new(ledger);
    let mut registry = serve::registry();
    let service = BillingService::new(Arc::clone(&ledger), Metrics::register(&mut registry), stop.clone());
    let limit = settings.message_bytes_max;
    let routes = Routes::new(DeliveryServer::new(service.clone()).max_decoding_message_size(limit))
        .add_service(BillingServer::new(service));
    let health = Health::new("store");
    look_at_store(&*ledger, &health).await;
    let grpc = serve::grpc(&settings.listen, routes, stop.clone(), settings.drain).await?;
    let http = match &settings.http_listen {
        Some(listen) => Some(serve::http(listen, Arc::new(registry), health.clone()).await?),
        None => None,
    };
    let (addr, http_addr) = (grpc.addr, http.as_ref().map(|http| http.addr));
    let ended = tokio::spawn(async move {
        tokio::select! {
            () = watch_store(&*ledger, &health) => {}
            () = stop.requested() => health.part("role").ready(false, "stopping"),
        }
        grpc.ended().await;
        if let Some(http) = http {
            http.stop().await;
        }
    });
    Ok(Running { addr, http_addr, ended })
}

async fn watch_store<L: Ledger>(ledger: &L, health: &Health) {
    loop {
        tokio::time::sleep(LOOK_AT_STORE).await;
        look_at_store(ledger, health).await;
    }
}

async fn look_at_store<L: Ledger>(ledger: &L, health: &Health) {
    match tokio::time::timeout(STORE_SLOW, ledger.ping()).await {
        Ok(Ok(())) => health.ready(true, ""),
        Ok(Err(error)) => health.ready(false, &error.to_string()),
        Err(_) => health.ready(false, &format!("the store has not answered for {STORE_SLOW:?}")),
    }
}
