//! Reads topics from end to end, as a reader of committed records sees them. Blocking: runs on a thread of its own.

use std::ffi::CStr;
use std::time::{Duration, Instant};

use pipeline::Kafka;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::error::Error;
use crate::options::Options;

/// How long one question to the brokers may take.
const ANSWER_MAX: Duration = Duration::from_secs(15);
/// How long a partition may deliver nothing before its end.
const SILENCE_MAX: Duration = Duration::from_secs(60);
/// How long a transaction may be open before the verifier gives up: the longest that a worker's may be, and some.
const OPEN_MAX: Duration = Duration::from_secs(120);
/// Between two looks at the group's offsets.
const SETTLING_PAUSE: Duration = Duration::from_millis(100);

/// Headers in order; a name may come twice.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// One record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    pub partition: i32,
    pub offset: i64,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Headers,
}

/// Offsets `[start, end)` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    pub partition: i32,
    pub start: i64,
    pub end: i64,
}

/// One Kafka cluster and one consumer group, which is never joined.
pub struct Log {
    config: ClientConfig,
    consumer: BaseConsumer,
    /// Sees the ends of the log, open transactions included.
    uncommitted: BaseConsumer,
    brokers: String,
}

fn failed(doing: impl Into<String>) -> impl FnOnce(KafkaError) -> Error {
    move |error| Error::Kafka {
        doing: doing.into(),
        reason: error.to_string(),
    }
}

/// The same of a question to the brokers: librdkafka does not say who was asked.
fn unanswered(brokers: &str, doing: impl Into<String>) -> impl FnOnce(KafkaError) -> Error {
    use RDKafkaErrorCode as Code;
    let away = [
        Code::BrokerTransportFailure,
        Code::AllBrokersDown,
        Code::OperationTimedOut,
        Code::Resolve,
        Code::Authentication,
        Code::NetworkException,
    ];
    move |error| match error.rdkafka_error_code() {
        Some(code) if away.contains(&code) => Error::Kafka {
            doing: doing.into(),
            reason: format!(
                "no answer from {brokers} ({error}): is Kafka there, and do `tls` and `sasl` of `connections.kafka` fit?"
            ),
        },
        _ => failed(doing)(error),
    }
}

impl Log {
    pub fn connect(kafka: Option<&Kafka>, options: &Options) -> Result<Log, Error> {
        let mut config = ClientConfig::new();
        if let Some(kafka) = kafka {
            secure(&mut config, kafka)?;
        }
        config.set("bootstrap.servers", &options.brokers);
        config.set("group.id", &options.group);
        config.set("client.id", "sluice-verify");
        config.set("isolation.level", "read_committed");
        config.set("enable.auto.commit", "false");
        config.set("enable.partition.eof", "true");
        config.set("auto.offset.reset", "error");
        config.set("queued.max.messages.kbytes", "32768");
        config.set("fetch.wait.max.ms", "50");
        let consumer = config.create().map_err(failed("making a consumer"))?;
        let mut seeing_all = config.clone();
        seeing_all.set("isolation.level", "read_uncommitted");
        let uncommitted = seeing_all.create().map_err(failed("making a consumer"))?;
        Ok(Log {
            config,
            consumer,
            uncommitted,
            brokers: options.brokers.clone(),
        })
    }

    /// As [`Log::whole`], with everything that is in the log now: transactions that are open are waited for. What a commit that
    /// the group's offsets show has written to the topic lies before these ends, whoever else writes there meanwhile.
    pub fn stable(&self, topic: &str) -> Result<Vec<Range>, Error> {
        let began = Instant::now();
        let now = self.ends(&self.uncommitted, topic)?;
        loop {
            let whole = self.whole(topic)?;
            let open = now.iter().find(|end| {
                let seen = whole.iter().find(|range| range.partition == end.partition);
                seen.is_none_or(|range| range.end < end.end)
            });
            let Some(open) = open else { return Ok(whole) };
            if began.elapsed() > OPEN_MAX {
                return Err(Error::Kafka {
                    doing: format!("reading {topic}/{}", open.partition),
                    reason: format!("a transaction has been open for {} s", OPEN_MAX.as_secs()),
                });
            }
            std::thread::sleep(SETTLING_PAUSE);
        }
    }

    /// The topic's partitions with their first and last offsets; empty when there is no such topic.
    pub fn whole(&self, topic: &str) -> Result<Vec<Range>, Error> {
        self.ends(&self.consumer, topic)
    }

    fn ends(&self, consumer: &BaseConsumer, topic: &str) -> Result<Vec<Range>, Error> {
        let asking = || format!("asking for the partitions of {topic}");
        let metadata = consumer
            .fetch_metadata(Some(topic), ANSWER_MAX)
            .map_err(unanswered(&self.brokers, asking()))?;
        let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
            return Ok(Vec::new());
        };
        match found.error() {
            None => {}
            Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(Vec::new()),
            Some(error) => {
                return Err(Error::Kafka {
                    doing: asking(),
                    reason: RDKafkaErrorCode::from(error).to_string(),
                });
            }
        }
        let range = |partition: i32| {
            let asking = format!("asking for the ends of {topic}/{partition}");
            let (start, end) = consumer
                .fetch_watermarks(topic, partition, ANSWER_MAX)
                .map_err(unanswered(&self.brokers, asking))?;
            Ok::<_, Error>(Range { partition, start, end })
        };
        let mut ranges: Vec<Range> = found
            .partitions()
            .iter()
            .map(|part| range(part.id()))
            .collect::<Result<_, _>>()?;
        ranges.sort_by_key(|range| range.partition);
        Ok(ranges)
    }

    /// What the group has committed of these partitions (-1 = nothing), and whether nothing is pending there: metadata
    /// says what is promised, or what rollups lack.
    pub fn committed(&self, topic: &str, partitions: &[Range]) -> Result<Vec<(i64, bool)>, Error> {
        let mut list = TopicPartitionList::new();
        for range in partitions {
            list.add_partition(topic, range.partition);
        }
        let deadline = Instant::now() + ANSWER_MAX;
        loop {
            // While a transaction is open on an offset the answer is an error, on the whole or on one partition.
            let answer = self.consumer.committed_offsets(list.clone(), ANSWER_MAX);
            let answer = answer.and_then(
                |answer| match answer.elements().iter().find_map(|part| part.error().err()) {
                    Some(error) => Err(error),
                    None => Ok(answer),
                },
            );
            match answer {
                Ok(answer) => {
                    let offset = |range: &Range| {
                        let part = answer.find_partition(topic, range.partition)?;
                        match part.offset() {
                            Offset::Offset(offset) => Some((offset, is_settled(offset, part.metadata()))),
                            _ => None,
                        }
                    };
                    let committed = partitions.iter().map(|range| offset(range).unwrap_or((-1, true)));
                    return Ok(committed.collect());
                }
                Err(error) if Instant::now() > deadline => {
                    return Err(failed(format!(
                        "asking {} for the group's offsets of {topic}, on which a transaction may still be open",
                        self.brokers
                    ))(error));
                }
                Err(_) => std::thread::sleep(SETTLING_PAUSE),
            }
        }
    }

    /// Waits until the group has committed all of these topics, as they are now and as they grow meanwhile.
    pub fn settle(&self, topics: &[&str], patience: Duration) -> Result<(), Error> {
        let began = Instant::now();
        loop {
            let Some((topic, partition, committed, end)) = self.behind(topics)? else {
                return Ok(());
            };
            if began.elapsed() > patience {
                let waited_s = patience.as_secs();
                return Err(Error::NotSettled {
                    topic,
                    partition,
                    committed,
                    end,
                    waited_s,
                });
            }
            std::thread::sleep(SETTLING_PAUSE);
        }
    }

    fn behind(&self, topics: &[&str]) -> Result<Option<(String, i32, i64, i64)>, Error> {
        for topic in topics {
            let ranges = self.whole(topic)?;
            let committed = self.committed(topic, &ranges)?;
            for (range, (committed, nothing_pending)) in ranges.iter().zip(committed) {
                // A partition that never had a record needs no commit.
                let short = committed < range.end && !(committed < 0 && range.start == range.end);
                if short || !nothing_pending {
                    return Ok(Some(((*topic).to_owned(), range.partition, committed, range.end)));
                }
            }
        }
        Ok(None)
    }

    /// Hands every record of the ranges to `each`, in order within a partition.
    pub fn read(
        &self,
        topic: &str,
        ranges: &[Range],
        mut each: impl FnMut(Record) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut open: Vec<Range> = ranges.iter().copied().filter(|range| range.start < range.end).collect();
        if open.is_empty() {
            return Ok(());
        }
        let reading = || failed(format!("reading {topic}"));
        let consumer: BaseConsumer = self.config.create().map_err(reading())?;
        let mut list = TopicPartitionList::new();
        for range in &open {
            list.add_partition_offset(topic, range.partition, Offset::Offset(range.start))
                .map_err(reading())?;
        }
        consumer.assign(&list).map_err(reading())?;
        let mut heard = Instant::now();
        while !open.is_empty() {
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(message)) => {
                    heard = Instant::now();
                    let (partition, offset) = (message.partition(), message.offset());
                    let Some(at) = open.iter().position(|range| range.partition == partition) else {
                        continue;
                    };
                    let end = open.get(at).map_or(0, |range| range.end);
                    if offset < end {
                        each(record(&message))?;
                    }
                    if offset + 1 >= end {
                        open.swap_remove(at);
                    }
                }
                // Ends in transaction markers or aborted records come only as this.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    heard = Instant::now();
                    open.retain(|range| range.partition != partition);
                }
                Some(Err(error)) if fatal(&error) => return Err(reading()(error)),
                Some(Err(_)) | None => {}
            }
            if heard.elapsed() > SILENCE_MAX {
                let reason = format!("nothing came for {} s before the end", SILENCE_MAX.as_secs());
                return Err(Error::Kafka {
                    doing: format!("reading {topic}"),
                    reason,
                });
            }
        }
        Ok(())
    }
}

/// Errors that do not go away by polling on.
fn fatal(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::OffsetOutOfRange
                | Code::AutoOffsetReset
                | Code::UnknownTopicOrPartition
                | Code::UnknownTopic
                | Code::UnknownPartition
                | Code::TopicAuthorizationFailed
                | Code::GroupAuthorizationFailed
                | Code::Authentication
                | Code::Fatal
        )
    )
}

fn secure(config: &mut ClientConfig, kafka: &Kafka) -> Result<(), Error> {
    for (name, value) in &kafka.properties {
        config.set(name, value);
    }
    let protocol = match (&kafka.tls, &kafka.sasl) {
        (None, None) => return Ok(()),
        (Some(_), None) => "ssl",
        (None, Some(_)) => "sasl_plaintext",
        (Some(_), Some(_)) => "sasl_ssl",
    };
    config.set("security.protocol", protocol);
    if let Some(tls) = &kafka.tls {
        let files = [
            ("ssl.ca.location", &tls.ca_file),
            ("ssl.certificate.location", &tls.cert_file),
            ("ssl.key.location", &tls.key_file),
        ];
        for (name, file) in files {
            if let Some(file) = file {
                config.set(name, file.to_string_lossy());
            }
        }
    }
    if let Some(sasl) = &kafka.sasl {
        let password = sasl.password.read().map_err(|error| Error::Settings {
            part: "kafka",
            reason: error.to_string(),
        })?;
        config.set("sasl.mechanism", sasl.mechanism.name());
        config.set("sasl.username", &sasl.user);
        config.set("sasl.password", password);
    }
    Ok(())
}

fn record(message: &BorrowedMessage<'_>) -> Record {
    Record {
        partition: message.partition(),
        offset: message.offset(),
        timestamp_ms: message.timestamp().to_millis().unwrap_or(-1),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers(message),
    }
}

/// Read through librdkafka: rdkafka's own way panics on a name that is not UTF-8. Such a name gets replacement characters.
fn headers(message: &BorrowedMessage<'_>) -> Headers {
    let mut all = Vec::new();
    let mut native = std::ptr::null_mut();
    // SAFETY: the message outlives the call. librdkafka owns the headers; names end in a zero byte, and a value is null or
    // `size` bytes long.
    unsafe {
        let answer = rdkafka::bindings::rd_kafka_message_headers(message.ptr(), &mut native);
        if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR || native.is_null() {
            return all;
        }
        loop {
            let (mut name, mut value, mut size) = (std::ptr::null(), std::ptr::null(), 0usize);
            let answer =
                rdkafka::bindings::rd_kafka_header_get_all(native, all.len(), &mut name, &mut value, &mut size);
            if answer != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return all;
            }
            let value = (!value.is_null()).then(|| std::slice::from_raw_parts(value.cast::<u8>(), size).to_vec());
            all.push((CStr::from_ptr(name).to_string_lossy().into_owned(), value));
        }
    }
}

/// Metadata without a promise has five fields (version, topic, sinks, `fed`, checksum); where rollups lack nothing, `fed` is
/// the offset itself (docs/errors/README.md).
fn is_settled(offset: i64, metadata: &str) -> bool {
    let fields: Vec<&str> = metadata.split(';').collect();
    metadata.is_empty() || (fields.len() == 5 && fields[3].parse() == Ok(offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_without_an_answer_names_who_was_asked() {
        let said =
            |code| unanswered("a:1,b:2", "asking for the ends of t/0")(KafkaError::MetadataFetch(code)).to_string();
        let away = said(RDKafkaErrorCode::BrokerTransportFailure);
        assert!(
            away.starts_with("kafka: asking for the ends of t/0: no answer from a:1,b:2 (Meta data fetch error: "),
            "{away}"
        );
        let refused = said(RDKafkaErrorCode::TopicAuthorizationFailed);
        assert!(
            refused.starts_with("kafka: asking for the ends of t/0: Meta data fetch error: "),
            "{refused}"
        );
    }
}
