//! What to drive, where and how long.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use pipeline::{Pipeline, SchemaIdFrom};

use super::Stop;
use crate::Error;
use crate::event::EventType;
use crate::frame::Framing;
use crate::latency::Feed;
use crate::poison::{Mix, Poison};
use crate::register::RegistryAddress;

/// One run. [`Settings::new`] has the defaults.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `host:port`, separated by commas.
    pub brokers: String,
    /// Further librdkafka settings (TLS, SASL); they win over the driver's own.
    pub kafka: BTreeMap<String, String>,
    /// Where the example schemas are registered.
    pub registry: RegistryAddress,
    /// Which event type goes to which topic; types without a target are not sent.
    pub targets: Vec<Target>,
    /// `tenant-00` to one less than this.
    pub tenants: u32,
    /// Events a second, poison included, bursts not.
    pub rate: f64,
    /// How long the schedule is.
    pub duration: Duration,
    /// Decides every event; two runs into the same topics need different seeds, or their event ids are the same.
    pub seed: u64,
    /// How many events are broken, and how.
    pub poison: Mix,
    /// A run of broken events on top.
    pub burst: Option<Burst>,
    /// When the second schema versions are registered and sent from then on.
    pub second_version_after: Option<Duration>,
    /// Writes one line for each acknowledged event: topic, partition, offset, event id, tenant, version, poison or `-`; tabs between.
    pub record: Option<PathBuf>,
    /// Where sampled events are reported, once acknowledged, to have their latency measured.
    pub samples: Option<Feed>,
    /// How many to sample.
    pub samples_per_second: f64,
    /// Events that are due earlier than this are not sampled: systems that have just started warm up.
    pub samples_after: Duration,
    /// How long to wait for acknowledgements after the last event.
    pub drain: Duration,
    /// How often progress is told.
    pub progress_every: Duration,
    /// Ends the run early when set; what was sent is still waited for.
    pub stop: Stop,
}

/// Where one event type goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// What is sent.
    pub event: EventType,
    /// The Kafka topic; it must exist.
    pub topic: String,
    /// The registry's subject for its schemas.
    pub subject: String,
    /// How records carry the schema id.
    pub framing: Framing,
    /// The ClickHouse table where it becomes visible, for the sampler.
    pub table: String,
}

/// Many broken events in a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burst {
    /// When, counted from the start.
    pub at: Duration,
    /// What they are.
    pub kind: Poison,
    /// How many.
    pub count: u64,
}

impl Settings {
    /// 50 tenants, 5,000 events a second for a minute, no poison, 20 samples a second, and all five types, each into the topic
    /// of its name with the prefix framing.
    #[must_use]
    pub fn new(brokers: impl Into<String>, registry_url: impl Into<String>) -> Self {
        let target = |event: EventType| Target {
            event,
            topic: event.name().to_owned(),
            subject: format!("{event}-value"),
            framing: Framing::Prefix,
            table: event.name().replace('.', "_"),
        };
        Self {
            brokers: brokers.into(),
            kafka: BTreeMap::new(),
            registry: RegistryAddress {
                url: registry_url.into(),
                credentials: None,
            },
            targets: EventType::ALL.into_iter().map(target).collect(),
            tenants: 50,
            rate: 5_000.0,
            duration: Duration::from_secs(60),
            seed: 1,
            poison: Mix::default(),
            burst: None,
            second_version_after: None,
            record: None,
            samples: None,
            samples_per_second: 20.0,
            samples_after: Duration::ZERO,
            drain: Duration::from_secs(60),
            progress_every: Duration::from_secs(1),
            stop: Stop::default(),
        }
    }

    /// The same, with topics, framing, subjects, tables and access as a pipeline file has them. A source takes part when its
    /// topic or its name is one of the five event types.
    ///
    /// # Errors
    /// [`Error::Settings`] when the file names no brokers or registry (the local stack's addresses are filled in by whoever
    /// started it), has none of the types, or a password file can't be read.
    pub fn for_pipeline(pipeline: &Pipeline) -> Result<Self, Error> {
        let missing = |what: &str| Error::Settings(format!("the pipeline file names no {what}; give its address"));
        let kafka = pipeline
            .connections
            .kafka
            .as_ref()
            .ok_or_else(|| missing("kafka brokers"))?;
        let registry = &pipeline.connections.registry;
        let url = registry.url.clone().ok_or_else(|| missing("schema registry"))?;
        let mut settings = Self::new(kafka.brokers.join(","), url);
        settings.kafka = access(kafka)?;
        if let (Some(user), Some(password)) = (&registry.user, &registry.password) {
            settings.registry.credentials = Some((user.clone(), secret(password)?));
        }
        settings.targets = pipeline
            .sources
            .iter()
            .filter_map(|source| target(pipeline, source))
            .collect();
        if settings.targets.is_empty() {
            return Err(Error::Settings(
                "none of the pipeline's sources is one of the five example event types".to_owned(),
            ));
        }
        Ok(settings)
    }

    /// Topic to table, as the sampler wants it.
    #[must_use]
    pub fn tables(&self) -> BTreeMap<String, String> {
        self.targets
            .iter()
            .map(|target| (target.topic.clone(), target.table.clone()))
            .collect()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let fault = |reason: &str| Err(Error::Settings(reason.to_owned()));
        if !(self.rate > 0.0 && self.rate.is_finite()) {
            return fault("the rate must be more than 0 events a second");
        }
        if self.targets.is_empty() {
            return fault("there is no target to send to");
        }
        if !(0.0..=1.0).contains(&self.poison.share) {
            return fault("the share of poison must be between 0 and 1");
        }
        Ok(())
    }
}

fn target(pipeline: &Pipeline, source: &pipeline::Source) -> Option<Target> {
    let event = source.topic.parse().or_else(|_| source.name.parse()).ok()?;
    Some(Target {
        event,
        topic: source.topic.clone(),
        subject: source.subject.clone(),
        framing: match source.schema_id {
            SchemaIdFrom::Header => Framing::Header(source.schema_id_header.clone()),
            SchemaIdFrom::Auto | SchemaIdFrom::Prefix => Framing::Prefix,
        },
        table: pipeline.tables.get(source.table)?.name.clone(),
    })
}

/// librdkafka's names for what the pipeline file says of TLS and SASL.
fn access(kafka: &pipeline::Kafka) -> Result<BTreeMap<String, String>, Error> {
    let mut settings = kafka.properties.clone();
    let mut set = |name: &str, value: String| settings.insert(name.to_owned(), value);
    let protocol = match (&kafka.tls, &kafka.sasl) {
        (None, None) => "plaintext",
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    set("security.protocol", protocol.to_owned());
    if let Some(tls) = &kafka.tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                set(name, file.display().to_string());
            }
        }
    }
    if let Some(sasl) = &kafka.sasl {
        set("sasl.mechanism", sasl.mechanism.name().to_owned());
        set("sasl.username", sasl.user.clone());
        set("sasl.password", secret(&sasl.password)?);
    }
    Ok(settings)
}

fn secret(secret: &pipeline::Secret) -> Result<String, Error> {
    secret.read().map_err(|error| Error::Settings(error.to_string()))
}
