//! Reads committed offsets with their metadata: the only truth after a start, a rebalance or any doubt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use exactly_once_protocol::{Metadata, Offsets, Partition, Stored};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};

use crate::group::Topics;
use crate::topic_ids::topic_ids;

const OFFSET_INVALID: i64 = -1001;

/// Where a partition begins that has no committed offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the oldest record.
    Earliest,
    /// After the newest record.
    Latest,
    /// At the first record of this Unix time in milliseconds or later.
    At(i64),
}

/// What reading needs of a consumer; a seam only because the consumer's context type is private.
pub trait Native: Send + Sync {
    /// The librdkafka handle, valid while `self` lives.
    fn native(&self) -> *mut RDKafka;
    /// Low and high watermark.
    fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), KafkaError>;
    /// Offsets for times.
    fn for_time(&self, list: TopicPartitionList, timeout: Duration) -> Result<TopicPartitionList, KafkaError>;
}

/// Reads for one lane; may be used on another thread than the lane's.
#[derive(Clone)]
pub struct Reader {
    topics: Topics,
    consumer: Arc<dyn Native>,
}

impl Reader {
    pub(crate) fn new(topics: Topics, consumer: Arc<dyn Native>) -> Reader {
        Reader { topics, consumer }
    }

    /// True when the lane is gone and nobody waits for the answer.
    pub fn abandoned(&self) -> bool {
        Arc::strong_count(&self.consumer) == 1
    }

    /// Reads every partition; fails as a whole if one cannot be read yet (a transaction is open on it, a broker is
    /// away), because "not readable" must never be taken for "no offset". The caller asks again.
    pub fn read(&self, partitions: &[Partition], start: Start, timeout: Duration) -> Result<Offsets, KafkaError> {
        let plain: Vec<_> = partitions.iter().map(|partition| (*partition, None)).collect();
        let list = self.topics.list(&plain);
        // SAFETY: both pointers live for the call; the list is ours alone.
        let error = unsafe {
            rdkafka::bindings::rd_kafka_committed(
                self.consumer.native(),
                list.ptr(),
                i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
            )
        };
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::from(error)));
        }
        let mut offsets = Vec::with_capacity(partitions.len());
        for (topic, partition, offset, metadata, error) in raw(&list) {
            if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::from(error)));
            }
            let Some(topic) = self.topics.index(&topic) else {
                continue;
            };
            let partition = Partition { topic, partition };
            let stored = if offset >= 0 {
                Stored {
                    offset,
                    committed: true,
                    metadata: Metadata::decode(&metadata),
                    witnesses: None,
                }
            } else if offset == OFFSET_INVALID {
                Stored {
                    offset: self.first(partition, start, timeout)?,
                    committed: false,
                    metadata: Ok(Metadata::Nothing),
                    witnesses: None,
                }
            } else {
                return Err(KafkaError::OffsetFetch(RDKafkaErrorCode::InvalidArgument));
            };
            offsets.push((partition, stored));
        }
        Ok(offsets)
    }

    /// Kafka's ids of the topics of these partitions, as they are now; a topic without one is left out.
    ///
    /// # Errors
    /// As of the client when no broker answers: ask again.
    pub fn topic_ids(&self, partitions: &[Partition], timeout: Duration) -> Result<BTreeMap<u16, u128>, KafkaError> {
        let names: BTreeMap<u16, &str> = partitions
            .iter()
            .map(|partition| (partition.topic, self.topics.name(*partition)))
            .collect();
        let asked: Vec<&str> = names.values().copied().collect();
        // SAFETY: the handle lives as long as the consumer, which `self` holds.
        let ids = unsafe { topic_ids(self.consumer.native(), &asked, timeout) }?;
        let id = |(topic, name): (&u16, &&str)| Some((*topic, *ids.get(*name)?));
        Ok(names.iter().filter_map(id).collect())
    }

    fn first(&self, partition: Partition, start: Start, timeout: Duration) -> Result<i64, KafkaError> {
        let topic = self.topics.name(partition);
        let (low, high) = self.consumer.watermarks(topic, partition.partition, timeout)?;
        let time = match start {
            Start::Earliest => return Ok(low),
            Start::Latest => return Ok(high),
            Start::At(time) => time,
        };
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition.partition, Offset::Offset(time))?;
        let found = self.consumer.for_time(list, timeout)?;
        Ok(match found.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset,
            _ => high,
        })
    }
}

/// The list's elements with their metadata as bytes: rdkafka's `metadata()` panics on anything but UTF-8.
fn raw(list: &TopicPartitionList) -> Vec<(String, i32, i64, Vec<u8>, RDKafkaRespErr)> {
    // SAFETY: `elems` points at `cnt` elements that live as long as the list; metadata is null or `metadata_size` long.
    unsafe {
        let native = &*list.ptr();
        (0..usize::try_from(native.cnt).unwrap_or(0))
            .map(|index| {
                let element = &*native.elems.add(index);
                let topic = std::ffi::CStr::from_ptr(element.topic).to_string_lossy().into_owned();
                let metadata = if element.metadata.is_null() || element.metadata_size == 0 {
                    Vec::new()
                } else {
                    std::slice::from_raw_parts(element.metadata.cast::<u8>(), element.metadata_size).to_vec()
                };
                (topic, element.partition, element.offset, metadata, element.err)
            })
            .collect()
    }
}
