//! How each part is prepared and run: one file a part.

mod clickhouse;
mod kafka;
mod postgres;
mod registry;

pub use clickhouse::CLICKHOUSE_KEEPS_FREE;
pub(crate) use clickhouse::{MODE as CLICKHOUSE_MODE, main as clickhouse_main};

use crate::error::{At, Error};
use crate::part::{Part, Ports};
use crate::supervise::Spec;
use std::path::{Path, PathBuf};

/// Where a stack lives.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The stack's directory.
    pub dir: PathBuf,
    pub cache: PathBuf,
    /// The program that supervises.
    pub launcher: PathBuf,
    pub ports: Ports,
    /// Whether Kafka is a cluster of three nodes.
    pub cluster: bool,
    /// What the nodes call themselves for clients that come through a proxy.
    pub kafka_proxies: Option<[u16; 3]>,
    /// Whether Kafka's JVM has its optimizing compiler.
    pub kafka_optimizes: bool,
}

impl Place {
    /// The directory of one part: its configuration, logs and data.
    pub fn of(&self, part: Part) -> PathBuf {
        self.dir.join(part.name())
    }

    /// What the part writes to its standard output and error.
    pub fn log(&self, part: Part) -> PathBuf {
        self.of(part).join("log")
    }
}

/// Writes the part's configuration and says how to run it. Data that is there is used as it is.
pub(crate) async fn prepare(place: &Place, part: Part) -> Result<Spec, Error> {
    let dir = place.of(part);
    std::fs::create_dir_all(&dir).at(&dir)?;
    match part {
        Part::Kafka | Part::Kafka2 | Part::Kafka3 => kafka::prepare(place, part),
        Part::Registry => registry::prepare(place),
        Part::ClickHouse => clickhouse::prepare(place),
        Part::Postgres => postgres::prepare(place).await,
    }
}

/// The flags that use the class archive of a Java part (see `fetch.sh`); the JVM goes on without it where it doesn't fit.
fn with_class_archive(home: &Path) -> Vec<String> {
    if !home.join("classes.jsa").exists() {
        return Vec::new();
    }
    let flags = [
        "-XX:SharedArchiveFile=classes.jsa",
        "-Xshare:auto",
        "-Xlog:cds=off",
        "-Xlog:cds+dynamic=off",
    ];
    flags.map(str::to_owned).into()
}

/// The signal that asks a part to stop properly. PostgreSQL waits for its clients to go on SIGTERM; SIGINT is its "fast".
pub(crate) fn stop_signal(part: Part) -> i32 {
    match part {
        Part::Postgres => libc::SIGINT,
        _ => libc::SIGTERM,
    }
}
