//! The event that figures are about: one envelope of 203 bytes, of `envelope.avsc`. All events of one seed and one moment are the
//! same bytes on every machine.

mod consume;
mod pace;

use std::time::Duration;

pub use pace::{Paced, Phase};
use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, DefaultProducerContext, Producer as _};

use crate::encode::Writer;
use crate::random::Random;
use crate::{Error, Framing};

/// Its Avro schema.
pub const SCHEMA: &str = include_str!("envelope.avsc");

/// What the events are about; each is as frequent as the others.
const TYPES: [&str; 5] = [
    "user.pageview",
    "order.created",
    "payment.processed",
    "session.end",
    "error.captured",
];
/// Of these types an amount is given.
const WITH_AMOUNT: [&str; 3] = ["user.pageview", "order.created", "payment.processed"];
/// Amounts lie below, in hundredths.
pub const AMOUNT_BELOW: i64 = 50_000;
/// Until Kafka has taken the last event.
const FLUSHED_WITHIN: Duration = Duration::from_secs(120);

/// Name of a tenant.
pub fn tenant(number: usize) -> String {
    format!("tenant-{number}")
}

/// So many events of so many tenants in Avro's binary encoding, without a frame; another seed gives other ones. The time of each is a
/// millisecond after that of the one before, from `first_ms` (Unix milliseconds) on.
pub fn payloads(count: usize, tenants: usize, seed: u64, first_ms: i64) -> Vec<Vec<u8>> {
    let mut random = Random::new(seed);
    let times = first_ms..;
    (0..count)
        .zip(times)
        .map(|(number, time)| payload(&mut random, tenants, number, time))
        .collect()
}

fn payload(random: &mut Random, tenants: usize, number: usize, time_ms: i64) -> Vec<u8> {
    let kind = random.pick(&TYPES);
    let page = random.index(100);
    let mut bytes = Vec::with_capacity(256);
    let mut to = Writer(&mut bytes);
    to.uuid(random.uuid());
    to.string(&tenant(random.index(tenants)));
    to.string(kind);
    to.long(time_ms);
    to.optional(Some(format!("u{}", number % 10_000).as_str()), Writer::string);
    to.string(&format!("a{}", number % 20_000));
    to.uuid(random.uuid());
    let amount = WITH_AMOUNT.contains(&kind).then(|| random.between(0, AMOUNT_BELOW));
    to.optional(amount, Writer::long);
    to.optional(Some("EUR"), Writer::string);
    // The context, a record of five.
    to.optional(Some("en-GB"), Writer::string);
    to.optional(Some(format!("https://shop.example/p/{page}").as_str()), Writer::string);
    to.optional(Some(format!("/p/{page}").as_str()), Writer::string);
    to.optional(Some(1920), Writer::long);
    to.optional(Some(1080), Writer::long);
    let properties = [
        ("ref", format!("https://x.y/{}", random.index(1000))),
        ("plan", "pro".to_owned()),
    ];
    to.blocks(&properties, |to, (key, value)| {
        to.string(key);
        to.string(value);
    });
    bytes
}

/// A topic to be filled.
#[derive(Debug, Clone)]
pub struct Filling<'a> {
    /// Bootstrap servers.
    pub brokers: &'a str,
    /// The topic, which is there.
    pub topic: &'a str,
    /// Its partitions, which get events in turn.
    pub partitions: usize,
    /// Id of [`SCHEMA`] in the registry.
    pub schema_id: u32,
}

impl Filling<'_> {
    fn fault(&self, reason: String) -> Error {
        Error::Kafka {
            brokers: self.brokers.to_owned(),
            reason,
        }
    }

    /// Writes so many events into the topic, these payloads again and again, as fast as Kafka takes them.
    ///
    /// # Errors
    /// [`Error::Kafka`] when Kafka refuses one, or has not acknowledged all within two minutes after the last was written.
    pub fn fill(&self, payloads: &[Vec<u8>], count: usize) -> Result<(), Error> {
        let fault = |reason: String| self.fault(reason);
        let framed = |payload: &Vec<u8>| Framing::Prefix.frame(self.schema_id, payload).value;
        let framed: Vec<Vec<u8>> = payloads.iter().map(framed).collect();
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", self.brokers)
            .set("compression.codec", "lz4")
            .set("linger.ms", "20")
            .set("batch.size", "262144")
            .set("queue.buffering.max.messages", "200000");
        let producer: BaseProducer<DefaultProducerContext> =
            config.create().map_err(|error| fault(error.to_string()))?;
        for (number, value) in framed.iter().cycle().take(count).enumerate() {
            let partition = i32::try_from(number % self.partitions).unwrap_or(0);
            let mut record = BaseRecord::<(), Vec<u8>>::to(self.topic)
                .partition(partition)
                .payload(value);
            while let Err((error, back)) = producer.send(record) {
                if !matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) {
                    return Err(fault(error.to_string()));
                }
                producer.poll(Duration::from_millis(20));
                record = back;
            }
            if number % 1000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(FLUSHED_WITHIN).map_err(|error| fault(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;

    #[test]
    fn events_are_of_the_size_that_figures_are_about_and_the_same_for_the_same_seed() {
        let events = payloads(1000, 50, 7, 1_700_000_000_000);
        let bytes: usize = events.iter().map(Vec::len).sum();
        assert!((190_000..215_000).contains(&bytes), "{bytes} bytes for 1000 events");
        assert_eq!(events, payloads(1000, 50, 7, 1_700_000_000_000));
        assert_ne!(events, payloads(1000, 50, 8, 1_700_000_000_000));
    }

    #[test]
    fn every_event_reads_as_the_schema_says_to_its_last_byte() {
        let schema = Schema::parse_str(SCHEMA).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let mut kinds = std::collections::BTreeSet::new();
        for event in payloads(200, 50, 7, 1_700_000_000_000) {
            let mut rest = event.as_slice();
            let Value::Record(fields) = reader.read_value(&mut rest).unwrap() else {
                panic!("an event is a record");
            };
            assert!(rest.is_empty(), "bytes are left behind the event");
            let Value::String(kind) = &fields[2].1 else {
                panic!("a type is a string");
            };
            kinds.insert(kind.clone());
        }
        assert_eq!(kinds.len(), TYPES.len());
    }
}
