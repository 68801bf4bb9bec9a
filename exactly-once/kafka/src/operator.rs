//! What an operator does with a group's offsets while no worker runs.

use std::sync::Arc;
use std::time::Duration;

use exactly_once_protocol::{Metadata, Partition};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafka, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::Error;
use crate::group::Topics;
use crate::offsets::{Native, Reader};
use crate::settings::{self, Connection};

/// A client that reads and writes the group's offsets without being a member.
pub struct Operator {
    consumer: Arc<BaseConsumer>,
    topics: Topics,
    group: String,
    brokers: Vec<String>,
}

impl Operator {
    /// Connects lazily.
    ///
    /// # Errors
    /// [`Error::Configuration`] for refused settings.
    pub fn new(connection: &Connection, topics: &Topics) -> Result<Operator, Error> {
        let consumer: BaseConsumer = settings::consumer(connection).create().map_err(Error::Configuration)?;
        Ok(Operator {
            consumer: Arc::new(consumer),
            topics: topics.clone(),
            group: connection.group.clone(),
            brokers: connection.brokers.clone(),
        })
    }

    /// Fails with [`Error::Members`] while somebody is in the group. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Unanswered`] when no broker answers.
    pub fn nobody_in_group(&self, timeout: Duration) -> Result<(), Error> {
        let groups = self.consumer.fetch_group_list(Some(&self.group), timeout);
        let groups = groups.map_err(|error| self.failed(error))?;
        let empty = |group: &rdkafka::groups::GroupInfo| group.members().is_empty();
        if groups.groups().iter().all(empty) {
            Ok(())
        } else {
            Err(Error::Members)
        }
    }

    /// Reads committed offsets and topics' ids.
    pub fn reader(&self) -> Reader {
        Reader::new(self.topics.clone(), Arc::clone(&self.consumer) as Arc<dyn Native>)
    }

    /// The partitions of all topics that the brokers have, in order. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Unanswered`] when no broker answers.
    pub fn partitions(&self, timeout: Duration) -> Result<Vec<Partition>, Error> {
        let metadata = self.consumer.fetch_metadata(None, timeout);
        let metadata = metadata.map_err(|error| self.failed(error))?;
        let mut partitions = Vec::new();
        for found in metadata.topics() {
            if let Some(topic) = self.topics.index(found.name()) {
                let ids = found.partitions().iter().map(|partition| partition.id());
                partitions.extend(ids.map(|partition| Partition { topic, partition }));
            }
        }
        partitions.sort_unstable();
        Ok(partitions)
    }

    /// The oldest offset that is there, and the end of the partition. Blocks for `timeout` at most.
    ///
    /// # Errors
    /// [`Error::Unanswered`] when no broker answers.
    pub fn watermarks(&self, partition: Partition, timeout: Duration) -> Result<(i64, i64), Error> {
        let topic = self.topics.name(partition);
        let found = self.consumer.fetch_watermarks(topic, partition.partition, timeout);
        found.map_err(|error| self.failed(error))
    }

    /// Commits an offset with its metadata.
    ///
    /// # Errors
    /// [`Error::Members`] while the group has members: only they may write its offsets.
    pub fn commit(&self, partition: Partition, offset: i64, metadata: &Metadata) -> Result<(), Error> {
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(self.topics.name(partition), partition.partition);
        element.set_offset(Offset::Offset(offset)).map_err(Error::Consumer)?;
        element.set_metadata(metadata.encode());
        match self.consumer.commit(&list, CommitMode::Sync) {
            Ok(()) => Ok(()),
            Err(KafkaError::ConsumerCommit(
                RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::RebalanceInProgress,
            )) => Err(Error::Members),
            Err(error) => Err(self.failed(error)),
        }
    }

    fn failed(&self, error: KafkaError) -> Error {
        Error::asking(&self.brokers, error)
    }
}

impl Native for BaseConsumer {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
    fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        self.fetch_watermarks(topic, partition, timeout)
    }
    fn for_time(&self, list: TopicPartitionList, timeout: Duration) -> Result<TopicPartitionList, KafkaError> {
        self.offsets_for_times(list, timeout)
    }
}
