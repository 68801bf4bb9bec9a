//! An open loop of the one event: payloads that are made beforehand, so that a hundred thousand a second cost little beside what is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext};

use super::{FLUSHED_WITHIN, Filling};
use crate::drive::sampling::Sampling;
use crate::drive::schedule::{Due, Schedule};
use crate::latency::{Feed, Sample};
use crate::{Error, Framing, unix_ms};

/// How long the loop rests when nothing is due; also how precise the schedule is.
const TICK: Duration = Duration::from_millis(1);
const SAMPLES_PER_SECOND: f64 = 20.0;

/// So many events a second for so long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Phase {
    /// Events a second.
    pub rate: f64,
    /// How long.
    pub duration: Duration,
}

/// What a run has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub struct Paced {
    /// Events that Kafka acknowledged.
    pub acknowledged: u64,
    /// Events without an acknowledgement: whether they are in the log is not known.
    pub failed: u64,
    /// How far the sender was behind its schedule at worst, ms: above some tens the load was not the one asked for.
    pub late_ms_max: u64,
}

struct Acks {
    topic: Arc<str>,
    feed: Option<Feed>,
    acknowledged: AtomicU64,
    failed: AtomicU64,
}

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    /// When a sample was due, Unix milliseconds; 0 of an event that is none.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, due_ms: usize) {
        let Ok(message) = result else {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
        if let Some(feed) = self.feed.as_ref().filter(|_| due_ms > 0) {
            feed.published(Sample {
                topic: Arc::clone(&self.topic),
                partition: message.partition(),
                offset: message.offset(),
                at_ms: i64::try_from(due_ms).unwrap_or(i64::MAX),
            });
        }
    }
}

impl Filling<'_> {
    /// Writes these payloads again and again, each event when it is due, phase after phase; then waits for acknowledgements. Some of them
    /// are sampled to `feed`, from `warm_up` after the begin on. Kafka's timestamp of an event is the time at which it was due. Blocks: call it on a thread of its own.
    ///
    /// # Errors
    /// [`Error::Kafka`] when an event cannot be sent; those that were sent and not acknowledged are counted.
    pub fn pace(
        &self,
        payloads: &[Vec<u8>],
        phases: &[Phase],
        warm_up: Duration,
        feed: Option<Feed>,
    ) -> Result<Paced, Error> {
        let fault = |reason: String| self.fault(reason);
        let framed = payloads
            .iter()
            .map(|payload| Framing::Prefix.frame(self.schema_id, payload).value);
        let framed: Vec<Vec<u8>> = framed.collect();
        let first_ms = unix_ms().saturating_add(i64::try_from(warm_up.as_millis()).unwrap_or(i64::MAX));
        let mut sampling = Sampling::new(feed.is_some().then_some(SAMPLES_PER_SECOND), 1, first_ms);
        let producer: BaseProducer<Acks> = config(self.brokers)
            .create_with_context(Acks {
                topic: self.topic.into(),
                feed,
                acknowledged: AtomicU64::new(0),
                failed: AtomicU64::new(0),
            })
            .map_err(|error| fault(error.to_string()))?;
        let mut paced = Paced::default();
        let mut values = framed.iter().cycle().enumerate();
        let (mut began, mut began_ms) = (Instant::now(), unix_ms());
        for phase in phases {
            let mut schedule = Schedule::start(phase.rate, phase.duration, began, began_ms);
            loop {
                let at_ms = match schedule.due(Instant::now()) {
                    Due::Event { at_ms, .. } => at_ms,
                    Due::Nothing => {
                        serve(&producer);
                        std::thread::sleep(TICK);
                        continue;
                    }
                    Due::Over => break,
                };
                let Some((number, value)) = values.next() else { break };
                if number % 256 == 0 {
                    let late = u64::try_from(unix_ms() - at_ms).unwrap_or(0);
                    paced.late_ms_max = paced.late_ms_max.max(late);
                    serve(&producer);
                }
                let due = match sampling.takes(0, at_ms) {
                    true => usize::try_from(at_ms).unwrap_or(0),
                    false => 0,
                };
                let mut record = BaseRecord::<(), Vec<u8>, usize>::with_opaque_to(self.topic, due)
                    .partition(i32::try_from(number % self.partitions).unwrap_or(0))
                    .timestamp(at_ms)
                    .payload(value);
                while let Err((error, back)) = producer.send(record) {
                    if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                        return Err(fault(error.to_string()));
                    }
                    producer.poll(TICK);
                    record = back;
                }
            }
            began += phase.duration;
            began_ms += i64::try_from(phase.duration.as_millis()).unwrap_or(0);
        }
        producer
            .flush(FLUSHED_WITHIN)
            .map_err(|error| fault(error.to_string()))?;
        paced.acknowledged = producer.context().acknowledged.load(Ordering::Relaxed);
        paced.failed = producer.context().failed.load(Ordering::Relaxed);
        Ok(paced)
    }
}

/// All reports that are there: without a timeout rdkafka serves one batch of them a call, and a sample that is told late is looked for late.
fn serve(producer: &BaseProducer<Acks>) {
    let told =
        || producer.context().acknowledged.load(Ordering::Relaxed) + producer.context().failed.load(Ordering::Relaxed);
    loop {
        let before = told();
        producer.poll(Duration::ZERO);
        if told() == before {
            return;
        }
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("compression.codec", "lz4")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "1000000")
        .set("queue.buffering.max.kbytes", "524288");
    config
}
