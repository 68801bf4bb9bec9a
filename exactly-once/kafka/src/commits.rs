//! Commits of offsets without a transaction: where a pipeline asks for at least once.

use std::ffi::c_int;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::TopicPartitionList;
use rdkafka::bindings;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaRespErr};

use crate::offsets::Native;

/// Commits once, for one member of one generation; may be used on another thread than the lane's.
pub struct Committer {
    consumer: Arc<dyn Native>,
    generation: i32,
}

impl Committer {
    pub(crate) fn new(consumer: Arc<dyn Native>, generation: i32) -> Committer {
        Committer { consumer, generation }
    }

    /// Commits offsets with their metadata as the group's member; blocks for `timeout` at most. The broker refuses a member that the
    /// group has expelled, or one of an older generation; the client sends whatever generation it is of by then, so one that has
    /// changed since this was made is refused here.
    ///
    /// # Errors
    /// As the broker says, for all offsets or one of them; [`RDKafkaErrorCode::OperationTimedOut`] when it says nothing: the
    /// offsets may be committed, or be yet.
    pub(crate) fn commit(&self, offsets: &TopicPartitionList, timeout: Duration) -> Result<(), KafkaError> {
        let client = self.consumer.native();
        // SAFETY: `self` holds the consumer that the handle is of.
        if unsafe { generation(client) } != Some(self.generation) {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::IllegalGeneration));
        }
        let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: the queue is destroyed once, after the event that was taken from it; the list of the event is read before that. The
        // client copies `offsets`, and an answer that nobody waits for any more goes with its queue.
        unsafe {
            let queue = bindings::rd_kafka_queue_new(client);
            let asked = bindings::rd_kafka_commit_queue(client, offsets.ptr(), queue, None, std::ptr::null_mut());
            let answered = checked(asked).and_then(|()| answer(queue, timeout_ms));
            bindings::rd_kafka_queue_destroy(queue);
            answered
        }
    }
}

/// SAFETY of the caller: `queue` lives for the call.
unsafe fn answer(queue: *mut bindings::rd_kafka_queue_t, timeout_ms: c_int) -> Result<(), KafkaError> {
    // SAFETY: the event is destroyed once, and what it points at is read before.
    unsafe {
        let event = bindings::rd_kafka_queue_poll(queue, timeout_ms);
        if event.is_null() {
            return Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::OperationTimedOut));
        }
        let mut all = checked(bindings::rd_kafka_event_error(event));
        // One of several that is refused is no error of the whole.
        let list = bindings::rd_kafka_event_topic_partition_list(event);
        if !list.is_null() {
            for at in 0..usize::try_from((*list).cnt).unwrap_or(0) {
                all = all.and(checked((*(*list).elems.add(at)).err));
            }
        }
        bindings::rd_kafka_event_destroy(event);
        all
    }
}

fn checked(error: RDKafkaRespErr) -> Result<(), KafkaError> {
    match error {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        error => Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::from(error))),
    }
}

/// The generation of the group that a member believes in; below zero while it is none.
///
/// # Safety
/// `client` is the handle of a consumer that lives for the call.
pub(crate) unsafe fn generation(client: *mut RDKafka) -> Option<i32> {
    // SAFETY: the metadata object is destroyed exactly once.
    unsafe {
        let metadata = bindings::rd_kafka_consumer_group_metadata(client);
        if metadata.is_null() {
            return None;
        }
        let generation = bindings::rd_kafka_consumer_group_metadata_generation_id(metadata);
        bindings::rd_kafka_consumer_group_metadata_destroy(metadata);
        Some(generation)
    }
}
