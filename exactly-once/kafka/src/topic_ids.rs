//! Kafka's ids of topics: a topic that is deleted and made again has the same name, the same partitions, and another id
//! (KIP-516). rdkafka doesn't offer them, librdkafka does.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::time::Duration;

use rdkafka::bindings;
use rdkafka::error::KafkaError;
use rdkafka::types::{RDKafka, RDKafkaErrorCode, RDKafkaRespErr};

/// The ids of these topics; one that is not there, or whose broker does not tell, is left out. Blocks for `timeout` at most.
///
/// # Errors
/// [`KafkaError::AdminOp`] when no broker answers: ask again.
///
/// # Safety
/// `client` is a librdkafka handle that lives for the call.
pub(crate) unsafe fn topic_ids(
    client: *mut RDKafka,
    topics: &[&str],
    timeout: Duration,
) -> Result<BTreeMap<String, u128>, KafkaError> {
    let Ok(names) = topics
        .iter()
        .map(|name| CString::new(*name))
        .collect::<Result<Vec<_>, _>>()
    else {
        return Err(KafkaError::AdminOp(RDKafkaErrorCode::InvalidTopic));
    };
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = c_int::try_from(timeout.as_millis()).unwrap_or(c_int::MAX);
    // SAFETY: every object is made here, used while what it belongs to lives, and destroyed once by its guard, in the reverse
    // order; what the result points at lives as long as its event and is copied before that ends.
    unsafe {
        let collection = Guard(
            bindings::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()),
            bindings::rd_kafka_TopicCollection_destroy,
        );
        let options = Guard(
            bindings::rd_kafka_AdminOptions_new(
                client,
                bindings::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
            ),
            bindings::rd_kafka_AdminOptions_destroy,
        );
        let set = bindings::rd_kafka_AdminOptions_set_request_timeout(options.0, timeout_ms, std::ptr::null_mut(), 0);
        checked(set)?;
        let queue = Guard(bindings::rd_kafka_queue_new(client), bindings::rd_kafka_queue_destroy);
        bindings::rd_kafka_DescribeTopics(client, collection.0, options.0, queue.0);
        let event = Guard(
            bindings::rd_kafka_queue_poll(queue.0, timeout_ms),
            bindings::rd_kafka_event_destroy,
        );
        if event.0.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::OperationTimedOut));
        }
        checked(bindings::rd_kafka_event_error(event.0))?;
        let result = bindings::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(KafkaError::AdminOp(RDKafkaErrorCode::Fail));
        }
        let mut count = 0;
        let found = bindings::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        Ok((0..count).filter_map(|at| described(*found.add(at))).collect())
    }
}

/// SAFETY of the caller: `topic` lives for the call.
unsafe fn described(topic: *const bindings::rd_kafka_TopicDescription_t) -> Option<(String, u128)> {
    // SAFETY: the description and what it points at live for the call; nothing is kept.
    unsafe {
        let error = bindings::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && bindings::rd_kafka_error_code(error) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let name = CStr::from_ptr(bindings::rd_kafka_TopicDescription_name(topic));
        let id = bindings::rd_kafka_TopicDescription_topic_id(topic);
        if id.is_null() {
            return None;
        }
        let high = bindings::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = bindings::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        let id = u128::from(high) << 64 | u128::from(low);
        (id != 0).then(|| (name.to_string_lossy().into_owned(), id))
    }
}

fn checked(error: RDKafkaRespErr) -> Result<(), KafkaError> {
    if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        Ok(())
    } else {
        Err(KafkaError::AdminOp(RDKafkaErrorCode::from(error)))
    }
}

/// A librdkafka object and what destroys it.
struct Guard<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the function that this one belongs to, and destroyed only here.
            unsafe { (self.1)(self.0) }
        }
    }
}
