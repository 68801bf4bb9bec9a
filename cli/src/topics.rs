//! Topics from the pipeline file: sources, dead letters, alerts. Existing topics are left as they are; what could not
//! hold this pipeline's records is refused with the reason.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::Pipeline;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use workers::records::{batch_bytes_max, dead_letter_bytes_max};

use crate::Failure;

const TIMEOUT: Duration = Duration::from_secs(15);
const AUDIT_PARTITIONS: u32 = 4;

/// A topic that the pipeline needs.
pub struct Wanted {
    pub name: String,
    pub partitions: u32,
    /// What the topic's own configuration is to say: its largest batch, and how long it keeps one.
    bytes_max: usize,
    retention: Option<Duration>,
    pub why: String,
}

/// Every topic that the pipeline reads or writes.
pub fn wanted(pipeline: &Pipeline) -> Vec<Wanted> {
    let bytes_max = batch_bytes_max(&pipeline.limits);
    let mut all = BTreeMap::new();
    let mut want = |name: &str, partitions: u32, bytes_max: usize, why: String| {
        all.entry(name.to_string()).or_insert(Wanted {
            name: name.to_string(),
            partitions,
            bytes_max,
            retention: None,
            why,
        });
    };
    for source in &pipeline.sources {
        want(&source.topic, source.partitions, bytes_max, "source".to_string());
        want(
            &source.dead_letter_topic,
            source.partitions,
            dead_letter_bytes_max(&pipeline.limits),
            format!("dead letters of {}", source.topic),
        );
    }
    if let Some(alerts) = &pipeline.sinks.alerts {
        want(&alerts.topic, alerts.partitions, bytes_max, "alerts".to_string());
    }
    all.insert(
        pipeline.audit.topic.clone(),
        Wanted {
            name: pipeline.audit.topic.clone(),
            partitions: AUDIT_PARTITIONS,
            bytes_max,
            retention: Some(pipeline.audit.keep),
            why: "audit".to_string(),
        },
    );
    all.into_values().collect()
}

/// Those of [`wanted`] that Kafka does not have.
pub fn missing(pipeline: &Pipeline) -> Result<Vec<Wanted>, Failure> {
    let mut wanted = wanted(pipeline);
    let names: Vec<String> = wanted.iter().map(|topic| topic.name.clone()).collect();
    let missing = workers::worker::missing_topics(pipeline, &names, TIMEOUT)?;
    wanted.retain(|topic| missing.contains(&topic.name));
    Ok(wanted)
}

/// Creates topics. One that another process creates at the same time is no error.
pub async fn create(pipeline: &Pipeline, topics: &[Wanted]) -> Result<(), Failure> {
    if topics.is_empty() {
        return Ok(());
    }
    let admin: AdminClient<DefaultClientContext> = config(pipeline)?.create()?;
    let settings: Vec<(String, Option<String>)> = topics.iter().map(settings).collect();
    let new: Vec<NewTopic<'_>> = topics
        .iter()
        .zip(&settings)
        .map(|(topic, (bytes_max, retention))| {
            let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
            let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(-1));
            let new = new.set("max.message.bytes", bytes_max);
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

/// `max.message.bytes`, which Kafka counts in 31 bits, and `retention.ms`.
fn settings(topic: &Wanted) -> (String, Option<String>) {
    let bytes_max = i32::try_from(topic.bytes_max).unwrap_or(i32::MAX);
    let retention = topic.retention.map(|keep| keep.as_millis().to_string());
    (bytes_max.to_string(), retention)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_get_larger_batches_than_their_source_and_no_topic_more_than_kafka_can_count() {
        let sized = |event_bytes_max: &str| {
            let text = format!(
                "\
pipeline: shop
start: latest
event: {{id: event_id, tenant: tenant_id, time: occurred_at}}
sources:
  - {{topic: orders, table: orders}}
sinks: {{alerts: {{topic: alerts}}}}
batch: {{bytes_max: {event_bytes_max}}}
limits: {{event_bytes_max: {event_bytes_max}, in_flight_bytes_max: 4GiB}}
"
            );
            let pipeline = pipeline::check("p.yaml", &text, std::path::Path::new(".")).unwrap();
            let wanted = wanted(&pipeline);
            wanted
                .iter()
                .map(|topic| (topic.name.clone(), settings(topic).0.parse::<i64>().unwrap()))
                .collect::<BTreeMap<String, i64>>()
        };
        let small = sized("1MiB");
        assert_eq!(
            (small["orders"], small["alerts"], small["shop.audit"]),
            (4 << 20, 4 << 20, 4 << 20)
        );
        assert_eq!(small["orders.dlq"], (9 << 20) + (64 << 10));
        assert_eq!(sized("4GiB")["orders.dlq"], i64::from(i32::MAX));
    }
}
