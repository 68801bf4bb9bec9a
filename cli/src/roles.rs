//! The long-running roles. Each drains on SIGTERM: what is in flight finishes, then it exits with 0.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use billing_sink::Store;
use clap::Args;
use pipeline::{Pipeline, RulesFrom};
use serve::Stop;

use crate::{Failure, Files, rules, target};

#[derive(Args, Clone)]
pub struct WorkerArgs {
    #[command(flatten)]
    pub files: Files,
    /// Names this worker: the same after a restart, another for every worker of the pipeline
    #[arg(long, default_value = "worker", value_name = "NAME")]
    pub name: String,
    /// Address for /metrics, /healthz and /readyz instead of the pipeline file's
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    #[command(flatten)]
    pub parent: Parent,
}

#[derive(Args, Clone)]
pub struct ConfigArgs {
    #[command(flatten)]
    pub files: Files,
    /// Address of the gRPC service; default: `connections.rules.url` of the pipeline file
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// The SQLite file of the revisions; default: rules.sqlite in the state directory
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7302")]
    pub http: String,
    #[command(flatten)]
    pub parent: Parent,
}

#[derive(Args, Clone)]
pub struct BillingArgs {
    #[command(flatten)]
    pub files: Files,
    /// Address of the gRPC service; default: that of the pipeline's sink `billing`
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
    #[command(flatten)]
    pub store: BillingStore,
    /// Address for /metrics, /healthz and /readyz
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7401")]
    pub http: String,
    #[command(flatten)]
    pub parent: Parent,
}

/// Where the billing service keeps what it has charged.
#[derive(Args, Clone)]
pub struct BillingStore {
    /// A SQLite file, or postgres://user:password@host:port/database; default: billing.sqlite in the state directory
    #[arg(long, value_name = "STORE", env = "SLUICE_BILLING_STORE", hide_env_values = true)]
    pub store: Option<String>,
}

impl BillingStore {
    /// That of a pipeline.
    pub fn of(self, pipeline: &Pipeline) -> Store {
        match self.store {
            Some(store) if store.starts_with("postgres://") || store.starts_with("postgresql://") => {
                Store::Postgres(store)
            }
            Some(file) => Store::Sqlite(PathBuf::from(file)),
            None => Store::Sqlite(billing_store(pipeline)),
        }
    }
}

/// For roles that another `sluice` started: they must not outlive it.
#[derive(Args, Clone)]
pub struct Parent {
    #[arg(long, hide = true)]
    pub with_parent: bool,
    /// Go on without the parent as long as this file is there.
    #[arg(long, hide = true, value_name = "FILE")]
    pub unless: Option<std::path::PathBuf>,
}

impl Parent {
    /// A stop on SIGTERM or SIGINT, and when the parent has died.
    pub fn stop(&self) -> Stop {
        let stop = Stop::on_signal();
        if self.with_parent {
            let (parent, stop) = (std::os::unix::process::parent_id(), stop.clone());
            let kept = self.unless.clone();
            tokio::spawn(async move {
                let kept = || kept.as_ref().is_some_and(|file| file.exists());
                // Nothing tells a process that its parent has ended but the signal of prctl(2), which follows a thread.
                while std::os::unix::process::parent_id() == parent || kept() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                tracing::warn!("the process that started this one is gone");
                stop.request();
            });
        }
        stop
    }
}

pub async fn worker(args: WorkerArgs) -> Result<(), Failure> {
    let pipeline = target::load_for_role(&args.files).await?;
    let options = workers::Options {
        name: args.name,
        listen: args.listen,
    };
    Ok(workers::run(pipeline, options, args.parent.stop()).await?)
}

pub async fn config(args: ConfigArgs) -> Result<(), Failure> {
    let pipeline = target::load_for_role(&args.files).await?;
    let url = match &pipeline.connections.rules {
        RulesFrom::Service { url, .. } => Some(url.clone()),
        RulesFrom::Dir(_) | RulesFrom::None => None,
    };
    let listen = args
        .listen
        .or_else(|| url.as_deref().and_then(host_port))
        .ok_or_else(|| {
            Failure::Error(
                "where to listen? give `connections.rules: {url: ...}` in the pipeline file, or --listen".into(),
            )
        })?;
    let store = args
        .store
        .unwrap_or_else(|| pipeline.workers.state_dir.join("rules.sqlite"));
    make_parent(&store)?;
    let runtime = tokio::runtime::Handle::current();
    let shared = Arc::new(pipeline.clone());
    let catalog = Arc::new(move || match runtime.block_on(rules::catalog(&shared)) {
        Ok(catalog) => Ok(catalog),
        Err(Failure::Error(reason)) => Err(reason),
        Err(Failure::Found) => Err("the schemas cannot be read".to_string()),
    });
    let mut settings = config_service::Settings::new(pipeline.name, store, catalog);
    settings.listen = listen;
    settings.http_listen = Some(args.http);
    let running = config_service::serve(settings, args.parent.stop()).await?;
    tracing::info!(address = %running.addr, "rules service");
    running.ended().await;
    Ok(())
}

pub async fn billing(args: BillingArgs) -> Result<(), Failure> {
    let pipeline = target::load_for_role(&args.files).await?;
    let sink = pipeline.sinks.grpc.iter().find(|sink| sink.name == "billing");
    let listen = args
        .listen
        .or_else(|| sink.and_then(|sink| host_port(&sink.url)))
        .ok_or_else(|| {
            Failure::Error(
                "where to listen? give `sinks.billing: {grpc: ...}` in the pipeline file, or --listen".into(),
            )
        })?;
    let store = args.store.of(&pipeline);
    if let Store::Sqlite(file) = &store {
        make_parent(file)?;
    }
    let mut settings = billing_sink::Settings::new(store);
    settings.listen = listen;
    settings.http_listen = Some(args.http);
    if let Some(sink) = sink {
        settings.message_bytes_max = sink.message_bytes_max;
    }
    let running = billing_sink::serve(settings, args.parent.stop()).await?;
    tracing::info!(address = %running.addr, "billing service");
    running.ended().await;
    Ok(())
}

fn billing_store(pipeline: &Pipeline) -> PathBuf {
    pipeline.workers.state_dir.join("billing.sqlite")
}

fn make_parent(file: &std::path::Path) -> Result<(), Failure> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}

/// `host:port` of a URL, for a service that listens where the pipeline file says that it is.
pub fn host_port(url: &str) -> Option<String> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split('/').next()?;
    authority
        .contains(':')
        .then(|| authority.replace("localhost", "127.0.0.1"))
}
