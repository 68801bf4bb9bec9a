//! `sluice-drive` as a process of its own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use end_to_end::program;
use tokio::process::{Child, Command};

/// What Kafka has not acknowledged by then is counted as failed.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// Longer than any trial: it is told when to stop.
const SECONDS: &str = "86400";

/// While a partition's batch is due and the one before it is not acknowledged, librdkafka's thread of that broker spins (2.12:
/// `rd_kafka_toppar_producer_serve` counts messages in flight against the five requests of an idempotent producer). Three brokers
/// on few cores acknowledge late, and later still when a core spins: batches are due later than that.
const LINGER_MS: &str = "500";

/// A driver that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Driver {
    child: Child,
    report: PathBuf,
    log: PathBuf,
}

/// What was produced.
#[derive(Debug, Clone, serde::Deserialize)]
pub struct Driven {
    /// Good events that Kafka acknowledged.
    pub produced: u64,
    /// Broken ones, by kind.
    pub poison: BTreeMap<String, u64>,
    /// Events without an acknowledgement.
    pub failed: u64,
    /// Why.
    pub last_failure: Option<String>,
}

impl Driven {
    /// Records in the log.
    pub fn records(&self) -> u64 {
        self.produced + self.poison.values().sum::<u64>()
    }
}

impl Driver {
    /// Begins to drive what the pipeline file of this directory says, `words` on top. `name` is of its files, `drive.log`: each
    /// of one directory has another, and another seed.
    pub fn start(dir: &Path, name: &str, words: &[String]) -> Driver {
        let (report, log) = (dir.join(format!("{name}.json")), dir.join(format!("{name}.log")));
        let child = Command::new(program("sluice-drive"))
            .arg("--pipeline")
            .arg(dir.join("pipeline.yaml"))
            .args([
                "--seconds",
                SECONDS,
                "--tenants",
                "8",
                "--no-latency",
                "--linger",
                LINGER_MS,
            ])
            .args(words)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&report).unwrap())
            .stderr(std::fs::File::create(&log).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Driver { child, report, log }
    }

    /// Ends it, and reads what it has produced.
    ///
    /// # Panics
    /// When an event was not acknowledged.
    pub async fn finish(mut self) -> Driven {
        let pid = self.child.id().unwrap_or_else(|| panic!("{}", self.said())).to_string();
        let told = Command::new("kill").args(["-INT", &pid]).status().await.unwrap();
        assert!(told.success(), "the driver has ended by itself: {}", self.said());
        let ended = tokio::time::timeout(ENDS_WITHIN, self.child.wait()).await;
        assert!(ended.is_ok(), "the driver does not end: {}", self.said());
        let text = std::fs::read_to_string(&self.report).unwrap();
        let driven: Driven = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {}", self.said()));
        assert_eq!(driven.failed, 0, "Kafka refused events: {:?}", driven.last_failure);
        driven
    }

    fn said(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}
