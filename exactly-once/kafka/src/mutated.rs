//! What a mutation does in the place of what the protocol says. Never called but by the program that is made to crash.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::settings::{self, Connection};
use crate::transactions::Message;

/// A group's metadata without a member: no broker can tell that whoever commits with it is out of date.
pub(crate) fn nobody(connection: &Connection) -> Option<ConsumerGroupMetadata> {
    static CONSUMER: OnceLock<Option<BaseConsumer>> = OnceLock::new();
    let consumer = CONSUMER.get_or_init(|| settings::outside(connection).create().ok());
    consumer.as_ref()?.group_metadata()
}

/// A transactional id that no other producer has, so that nobody who comes later fences it.
pub(crate) fn nobodys(id: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("{id}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Writes a record at once and for good, whatever becomes of the transaction.
pub(crate) fn produce(connection: &Connection, message: &Message) -> Result<(), KafkaError> {
    let producer: BaseProducer = settings::outside(connection).create()?;
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&message.topic);
    record.key = message.key.as_deref();
    record.payload = message.value.as_deref();
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(Duration::from_secs(10))
}
