//! The real parts that figures are taken on: Kafka with a full topic, the registry and ClickHouse, on free ports of this machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use devstack::{Part, Stack};
use load_tests::envelope::{self, Filling};
use load_tests::register::{RegistryAddress, register_schema};

use crate::cpu;
use crate::error::Error;
use crate::guarantees::Guarantee;
use crate::role;
use crate::shop::{self, Addresses, PARTITIONS, TOPIC};

/// Different events; a topic has them again and again. More than the largest batch has rows: an event that is in a block twice costs
/// less, as LZ4 writes the second one as a reference.
pub const DIFFERENT: usize = 200_000;
/// ClickHouse goes on working after the last insert.
const QUIET_WITHIN: Duration = Duration::from_secs(60);

/// Running parts. Dropping it ends them.
pub struct Stand {
    /// The parts.
    pub stack: Stack,
    /// Directories of pipelines go below.
    pub dir: tempfile::TempDir,
    http: reqwest::Client,
}

/// A source topic and the id of its schema.
#[derive(Debug, Clone)]
pub struct Topic {
    name: String,
    brokers: String,
    schema_id: u32,
}

impl Topic {
    /// Runs what blocks on a thread of its own.
    ///
    /// # Errors
    /// What it fails with.
    pub async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(Filling<'_>) -> Result<T, load_tests::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let topic = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            work(Filling {
                brokers: &topic.brokers,
                topic: &topic.name,
                partitions: PARTITIONS,
                schema_id: topic.schema_id,
            })
        });
        Ok(done.await.map_err(|error| Error::Failed(error.to_string()))??)
    }
}

/// So many different events from now on.
pub fn payloads(different: usize, tenants: usize) -> Vec<Vec<u8>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first_ms = i64::try_from(now.as_millis()).unwrap_or(0);
    envelope::payloads(different, tenants, 1, first_ms)
}

impl Stand {
    /// Starts the parts.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn up() -> Result<Self, Error> {
        Self::with(false).await
    }

    /// The same with a broker that optimizes its code, as one does that runs for days: for what it costs once it is warm.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn up_for_long() -> Result<Self, Error> {
        Self::with(true).await
    }

    async fn with(optimizes: bool) -> Result<Self, Error> {
        let files = crate::files::dir();
        let dir = tempfile::Builder::new()
            .prefix("sluice-bench-")
            .tempdir_in(&files)
            .map_err(Error::io(&files))?;
        let options = devstack::Options::new(dir.path().join("stack"));
        let options = devstack::Options {
            ports: devstack::Ports::any(),
            kafka_optimizes: optimizes || options.kafka_optimizes,
            ..options
        };
        let stack = devstack::up(options).await?;
        let http = load_tests::register::client(&stack.clickhouse)?;
        Ok(Self { stack, dir, http })
    }

    /// Registers the event's schema for a topic of this name.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn topic(&self, name: &str) -> Result<Topic, Error> {
        let registry = RegistryAddress {
            url: self.stack.registry.clone(),
            credentials: None,
        };
        Ok(Topic {
            name: name.to_owned(),
            brokers: self.stack.kafka.clone(),
            schema_id: register_schema(&registry, &format!("{name}-value"), envelope::SCHEMA).await?,
        })
    }

    /// Registers the event's schema, makes the topic [`TOPIC`] as `sluice schema apply` does, and fills it with so many events, `different`
    /// ones again and again.
    ///
    /// # Errors
    /// When a part refuses.
    pub async fn fill(&self, count: usize, different: usize, tenants: usize) -> Result<Topic, Error> {
        let topic = self.topic(TOPIC).await?;
        self.pipeline(("filled", TOPIC), "http://127.0.0.1:9", tenants).await?;
        let payloads = payloads(different.min(count), tenants);
        topic.with(move |filling| filling.fill(&payloads, count)).await?;
        Ok(topic)
    }

    /// Writes a pipeline file of this name and source, with rules, into a directory of its own, and makes its topics and tables.
    ///
    /// # Errors
    /// When `sluice schema apply` fails.
    pub async fn pipeline(&self, (name, topic): (&str, &str), billing: &str, tenants: usize) -> Result<PathBuf, Error> {
        let at = Addresses {
            topic,
            ..self.at(name, billing)
        };
        self.applied(name, |dir| shop::write(dir, &at, tenants)).await
    }

    /// The same of a pipeline that only filters: payments become alerts, and nothing goes further.
    ///
    /// # Errors
    /// When `sluice schema apply` fails.
    pub async fn filter(&self, name: &str, tenants: usize) -> Result<PathBuf, Error> {
        self.applied(name, |dir| shop::write_filter(dir, &self.at(name, ""), tenants))
            .await
    }

    /// The whole pipeline without its gRPC sink, and with a guarantee.
    ///
    /// # Errors
    /// When `sluice schema apply` fails.
    pub async fn guaranteed(
        &self,
        (name, topic): (&str, &str),
        guarantee: Guarantee,
        tenants: usize,
    ) -> Result<PathBuf, Error> {
        let at = Addresses {
            topic,
            ..self.at(name, "")
        };
        let write = |dir: &Path| shop::write_guaranteed(dir, &at, guarantee.name(), tenants);
        self.applied(name, write).await
    }

    /// Where the parts are, for a pipeline of this name.
    pub fn at<'a>(&'a self, name: &'a str, billing: &'a str) -> Addresses<'a> {
        Addresses {
            name,
            topic: TOPIC,
            kafka: &self.stack.kafka,
            registry: &self.stack.registry,
            clickhouse: &self.stack.clickhouse,
            billing,
        }
    }

    async fn applied(&self, name: &str, write: impl FnOnce(&Path) -> Result<(), Error>) -> Result<PathBuf, Error> {
        let dir = self.dir.path().join(name);
        write(&dir)?;
        role::run(&dir, &["schema", "apply"]).await?;
        Ok(dir)
    }

    /// What ClickHouse answers.
    ///
    /// # Errors
    /// [`Error::ClickHouse`] with its reason.
    pub async fn sql(&self, query: &str) -> Result<String, Error> {
        let sent = self.http.post(&self.stack.clickhouse).body(query.to_owned()).send();
        let answer = sent.await?;
        let good = answer.status().is_success();
        let text = answer.text().await?;
        if good { Ok(text) } else { Err(Error::ClickHouse(text)) }
    }

    /// The number that ClickHouse answers.
    ///
    /// # Errors
    /// Like [`Stand::sql`].
    pub async fn number(&self, query: &str) -> Result<u64, Error> {
        let text = self.sql(query).await?;
        let number = text.trim().parse();
        number.map_err(|_| Error::ClickHouse(format!("`{query}` gives {text}")))
    }

    /// Returns once ClickHouse merges nothing, and has not for a second.
    ///
    /// # Errors
    /// Like [`Stand::sql`].
    pub async fn quiet(&self) -> Result<(), Error> {
        let deadline = Instant::now() + QUIET_WITHIN;
        let mut since = Instant::now();
        while since.elapsed() < Duration::from_secs(1) && Instant::now() < deadline {
            if self.number("SELECT count() FROM system.merges").await? > 0 {
                since = Instant::now();
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// CPU time that a part has taken so far.
    ///
    /// # Errors
    /// [`Error::Failed`] when it has ended.
    pub fn cpu(&self, part: Part) -> Result<Duration, Error> {
        let pid = self.stack.pid(part);
        cpu::of_process(pid.ok_or_else(|| Error::Failed(format!("{} does not run", part.name())))?)
    }

    /// Ends the parts.
    ///
    /// # Errors
    /// When one of them cannot be ended.
    pub async fn down(self) -> Result<(), Error> {
        Ok(self.stack.down().await?)
    }
}
