//! What reading the topic costs whoever does nothing else: librdkafka as it is configured by default.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _, DefaultConsumerContext};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::Filling;
use crate::Error;

const TICK: Duration = Duration::from_millis(1);
/// Nothing for as many ticks in a row: there are not as many events.
const TICKS_MAX: u32 = 30_000;

impl Filling<'_> {
    /// Reads so many events from the beginning of the topic and drops them. Blocks.
    ///
    /// # Errors
    /// [`Error::Kafka`] when Kafka refuses, or no event came for half a minute.
    pub fn consume(&self, count: usize) -> Result<(), Error> {
        let fault = |reason: String| self.fault(reason);
        let consumer: BaseConsumer<DefaultConsumerContext> = ClientConfig::new()
            .set("bootstrap.servers", self.brokers)
            .set("group.id", "nobody")
            .set("enable.auto.commit", "false")
            .create()
            .map_err(|error| fault(error.to_string()))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..self.partitions {
            let partition = i32::try_from(partition).unwrap_or(0);
            all.add_partition_offset(self.topic, partition, Offset::Beginning)
                .map_err(|error| fault(error.to_string()))?;
        }
        consumer.assign(&all).map_err(|error| fault(error.to_string()))?;
        let (mut seen, mut idle) = (0, 0);
        while seen < count {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(_)) => (seen, idle) = (seen + 1, 0),
                Some(Err(error)) => return Err(fault(error.to_string())),
                None if idle == TICKS_MAX => {
                    return Err(fault(format!(
                        "{seen} of {count} events, and no more for half a minute"
                    )));
                }
                None => {
                    // Who finds nothing sleeps: rdkafka spins through the last millisecond of a timeout.
                    std::thread::sleep(TICK);
                    idle += 1;
                }
            }
        }
        Ok(())
    }
}
