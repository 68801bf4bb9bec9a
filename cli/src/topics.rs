//! Topics from the pipeline file: sources, dead letters, alerts. Existing topics are left as they are; what could not
//! hold this pipeline's records is refused with the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::Pipeline;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::Failure;

const TIMEOUT: Duration = Duration::from_secs(15);
const ALERT_PARTITIONS: u32 = 8;
const AUDIT_PARTITIONS: u32 = 4;

/// A topic that the pipeline needs.
pub struct Wanted {
    pub name: String,
    pub partitions: u32,
    /// What the topic's own configuration is to say beside the largest record.
    pub retention: Option<Duration>,
    pub why: String,
}

/// Every topic that the pipeline reads or writes.
pub fn wanted(pipeline: &Pipeline) -> Vec<Wanted> {
    let mut all = BTreeMap::new();
    let mut want = |name: &str, partitions: u32, why: String| {
        all.entry(name.to_string()).or_insert(Wanted {
            name: name.to_string(),
            partitions,
            retention: None,
            why,
        });
    };
    for source in &pipeline.sources {
        want(&source.topic, source.partitions, "source".to_string());
        want(
            &source.dead_letter_topic,
            source.partitions,
            format!("dead letters of {}", source.topic),
        );
    }
    if let Some(alerts) = &pipeline.sinks.alerts {
        want(&alerts.topic, ALERT_PARTITIONS, "alerts".to_string());
    }
    all.insert(
        pipeline.audit.topic.clone(),
        Wanted {
            name: pipeline.audit.topic.clone(),
            partitions: AUDIT_PARTITIONS,
            retention: Some(pipeline.audit.keep),
            why: "audit".to_string(),
        },
    );
    all.into_values().collect()
}

/// Those of [`wanted`] that Kafka does not have.
pub fn missing(pipeline: &Pipeline) -> Result<Vec<Wanted>, Failure> {
    let consumer: BaseConsumer = config(pipeline)?.create()?;
    let metadata = consumer.fetch_metadata(None, TIMEOUT)?;
    let there: std::collections::BTreeSet<&str> = metadata.topics().iter().map(|topic| topic.name()).collect();
    Ok(wanted(pipeline)
        .into_iter()
        .filter(|topic| !there.contains(topic.name.as_str()))
        .collect())
}

/// Creates topics. One that another process creates at the same time is no error.
pub async fn create(pipeline: &Pipeline, topics: &[Wanted]) -> Result<(), Failure> {
    if topics.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config(pipeline)?.create()?;
    // A dead letter carries its headers on top of an event at the limit.
    let bytes_max = (pipeline.limits.event_bytes_max * 2).max(4 << 20).to_string();
    let retention = |topic: &Wanted| topic.retention.map(|keep| keep.as_millis().to_string());
    let retentions: Vec<Option<String>> = topics.iter().map(retention).collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&retentions)
        .map(|(topic, retention)| {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(-1));
            let new = new.set("max.message.bytes", &bytes_max);
            retention.iter().fold(new, |new, ms| new.set("retention.ms", ms))
        })
        .collect();
    for outcome in admin
        .create_topics(&new, &AdminOptions::new().operation_timeout(Some(TIMEOUT)))
        .await?
    {
        match outcome {
            Ok(_) | Err((_, rdkafka::types::RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(Failure::Error(format!("topic {topic} could not be created: {code}"))),
        }
    }
    Ok(())
}

/// How a client reaches the pipeline's Kafka.
pub fn config(pipeline: &Pipeline) -> Result<ClientConfig, Failure> {
    let kafka = pipeline
        .connections
        .kafka
        .as_ref()
        .ok_or(workers::WorkerError::NoAddress("kafka"))?;
    let mut config = ClientConfig::new();
    for (key, value) in workers::worker::kafka_properties(kafka)? {
        config.set(key, value);
    }
    config.set("bootstrap.servers", kafka.brokers.join(","));
    Ok(config)
}
