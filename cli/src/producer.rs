//! A producer for commands: every record is acknowledged by all replicas, or the command fails.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use pipeline::Pipeline;
use rdkafka::ClientContext;
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use crate::{Failure, topics};

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// What Kafka said of the records that were sent.
#[derive(Default)]
struct Answers {
    acknowledged: AtomicU64,
    refused: Mutex<Option<KafkaError>>,
}

impl ClientContext for Answers {}

impl ProducerContext for Answers {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        match result {
            Ok(_) => {
                self.acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            Err((error, _)) => *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.clone()),
        }
    }
}

/// See the module.
pub struct Producer {
    client: ThreadedProducer<Answers>,
    brokers: String,
}

impl Producer {
    /// Connects lazily.
    pub fn of(pipeline: &Pipeline) -> Result<Producer, Failure> {
        let mut config = topics::config(pipeline)?;
        let client = config
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("message.max.bytes", "104857600")
            .create_with_context(Answers::default())?;
        let brokers = config.get("bootstrap.servers").unwrap_or_default().to_owned();
        Ok(Producer { client, brokers })
    }

    /// Hands a record over; waits while the client's queue is full.
    pub fn send(&self, topic: &str, key: Option<&str>, payload: &[u8], headers: OwnedHeaders) -> Result<(), Failure> {
        loop {
            let message = BaseRecord::<str, [u8]>::to(topic).payload(payload);
            let message = message.headers(headers.clone());
            let message = match key {
                Some(key) => message.key(key),
                None => message,
            };
            match self.client.send(message) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    // The client's own thread empties it, as fast as the brokers take records.
                    std::thread::sleep(Duration::from_millis(10));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }

    /// Waits for every answer: how many records were acknowledged, and why others were not.
    pub fn finish(self) -> (u64, Option<Failure>) {
        let flushed = self.client.flush(ANSWER_WITHIN);
        let answers = self.client.context();
        let refused = answers.refused.lock().unwrap_or_else(PoisonError::into_inner).take();
        let failed = refused.or(flushed.err());
        let failed =
            failed.map(|error| Failure::Error(format!("Kafka at {} has not taken all records: {error}", self.brokers)));
        (answers.acknowledged.load(Ordering::Relaxed), failed)
    }
}
