//! Kafka: a frame is an i32 length and as many bytes, all numbers big-endian. A request begins with i16 API key, i16 version,
//! i32 correlation id, an answer with the correlation id (kafka.apache.org/protocol, "Protocol Primitive Types" and
//! "Headers"). A broker answers the requests of a connection in their order.

use super::framed::{AnswerHead, Asked, Framing, RequestHead};
use super::message::{Body, Broken, Extent};

/// Above what brokers take (`socket.request.max.bytes`, 100 MiB) and what clients fetch at a time.
const FRAME_BYTES_MAX: u32 = 256 * 1024 * 1024;

pub(super) struct Kafka;

impl Framing for Kafka {
    fn request(bytes: &[u8]) -> Result<Option<RequestHead>, Broken> {
        let [l0, l1, l2, l3, k0, k1, _, _, c0, c1, c2, c3, ..] = *bytes else {
            return Ok(None);
        };
        let asked = Asked::Kafka {
            api_key: i16::from_be_bytes([k0, k1]),
            correlation: i32::from_be_bytes([c0, c1, c2, c3]),
        };
        let extent = frame([l0, l1, l2, l3], 8)?;
        let bytes = 12;
        Ok(Some(RequestHead { bytes, extent, asked }))
    }

    fn answer(bytes: &[u8], asked: Option<Asked>) -> Result<Option<AnswerHead>, Broken> {
        let [l0, l1, l2, l3, c0, c1, c2, c3, ..] = *bytes else {
            return Ok(None);
        };
        let answered = i32::from_be_bytes([c0, c1, c2, c3]);
        match asked {
            Some(Asked::Kafka { correlation, .. }) if correlation == answered => Ok(Some(AnswerHead {
                extent: frame([l0, l1, l2, l3], 4)?,
                interim: false,
            })),
            _ => Err(Broken::Unframed(format!(
                "an answer to request {answered} came where {asked:?} waits for one: requests without an answer (Produce \
                 with acks=0) are not supported"
            ))),
        }
    }
}

fn frame(length: [u8; 4], least: u32) -> Result<Extent, Broken> {
    let length = u32::from_be_bytes(length);
    if !(least..=FRAME_BYTES_MAX).contains(&length) {
        return Err(Broken::Unframed(format!(
            "a frame of {length} bytes is not Kafka's without TLS ({least} to {FRAME_BYTES_MAX} are)"
        )));
    }
    Ok(Extent::new(4, Body::Length(u64::from(length))))
}
