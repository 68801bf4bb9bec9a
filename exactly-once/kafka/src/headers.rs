//! Headers of a record, read through librdkafka itself: rdkafka's own iterator panics on a header name that is not
//! UTF-8, and a producer anywhere may send one.

use std::ffi::CStr;

use rdkafka::types::RDKafkaRespErr;

use crate::fetched::Record;

/// All headers in order. A name that is not UTF-8 gets replacement characters; values are kept byte for byte.
pub fn all(record: &Record<'_>) -> Vec<(String, Option<Vec<u8>>)> {
    let mut all = Vec::new();
    let mut headers = std::ptr::null_mut();
    // SAFETY: the record lives for the whole call; librdkafka keeps ownership of the headers, their names (which end
    // in a zero byte) and their values (`size` bytes, or null).
    unsafe {
        let found = rdkafka::bindings::rd_kafka_message_headers(record.native(), &mut headers);
        if found != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || headers.is_null() {
            return all;
        }
        for index in 0.. {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0);
            let got = rdkafka::bindings::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut size);
            if got != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                break;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            all.push((CStr::from_ptr(name).to_string_lossy().into_owned(), value));
        }
    }
    all
}
