//! The consumer-group member of a lane. The rebalance callback only reports; the lane answers when it is ready: it
//! assigns with the offsets that it has read itself, and hands back after its in-flight work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use exactly_once_protocol::Partition;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use crate::Error;
use crate::commits::Committer;
use crate::fetched::{Fetched, Record};
use crate::settings::{self, Connection};

/// More rebalance reports than this between two polls cannot happen: librdkafka waits for each answer.
const REPORTS_MAX: usize = 64;

/// Source topics by index: the `topic` of a [`Partition`].
#[derive(Debug, Clone)]
pub struct Topics(Arc<Vec<String>>);

impl Topics {
    /// In the order of the pipeline's sources.
    pub fn new(names: Vec<String>) -> Topics {
        Topics(Arc::new(names))
    }

    /// The topic's name.
    pub fn name(&self, partition: Partition) -> &str {
        self.0.get(usize::from(partition.topic)).map_or("", String::as_str)
    }

    /// The index of a topic that Kafka named.
    pub fn index(&self, name: &str) -> Option<u16> {
        self.0
            .iter()
            .position(|known| known == name)
            .and_then(|index| u16::try_from(index).ok())
    }

    pub(crate) fn list(&self, partitions: &[(Partition, Option<i64>)]) -> TopicPartitionList {
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (partition, offset) in partitions {
            let mut element = list.add_partition(self.name(*partition), partition.partition);
            if let Some(offset) = offset {
                // An offset below zero is never passed: ranges start at 0 or later.
                if element.set_offset(Offset::Offset(*offset)).is_err() {
                    tracing::error!(
                        topic = self.name(*partition),
                        offset,
                        "refused to set a negative offset"
                    );
                }
            }
        }
        list
    }

    fn partitions(&self, list: &TopicPartitionList) -> Vec<Partition> {
        list.elements()
            .iter()
            .filter_map(|element| {
                self.index(element.topic()).map(|topic| Partition {
                    topic,
                    partition: element.partition(),
                })
            })
            .collect()
    }
}

/// What the group decided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Moved {
    /// These partitions are the lane's, once it assigns them to itself.
    Assigned(Vec<Partition>),
    /// The group waits for these to be handed back.
    RevokeAsked(Vec<Partition>),
    /// These have another owner already; they are unassigned.
    Lost(Vec<Partition>),
}

/// What the group still waits for when a member leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unanswered {
    /// Nothing.
    Nothing,
    /// An assignment that was not taken yet.
    Assignment(Vec<Partition>),
    /// A revocation that was not handed back yet.
    Revocation(Vec<Partition>),
}

/// Result of one poll.
pub enum Polled<'a> {
    /// A record; its payload lives in librdkafka's memory.
    Record(Record<'a>),
    /// An offset that was to be read is not in its topic. The partition is paused; [`Group::oldest`] tells where it begins.
    OffsetGone(Partition),
    /// An error in place of a partition's next record: the partition is paused, and goes on where [`Group::go_on`] says.
    Trouble(Partition, KafkaError),
    /// Nothing within the time.
    Nothing,
}

/// Reports, logs and errors that are taken in for each [`Fetched::take`].
const EVENTS_AT_ONCE: usize = 8;

/// For Kafka to say where one partition begins.
const OLDEST_WITHIN: Duration = Duration::from_secs(5);

/// What [`Group::oldest`] has heard.
#[derive(Debug, Default)]
pub struct Oldest {
    /// The oldest offset of each partition, and the one behind its newest.
    pub offsets: Vec<(Partition, i64, i64)>,
    /// Kafka has not told these.
    pub unanswered: Vec<Partition>,
}

struct Context {
    topics: Topics,
    moves: SyncSender<Moved>,
    /// Set when the member leaves: from then on nobody else answers rebalances.
    leaving: AtomicBool,
}

impl ClientContext for Context {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        match fac {
            // What it would hand to a callback for errors: a topic or partition that is not there, or not for this client.
            "ERROR" => tracing::warn!(target: "librdkafka", "{message}"),
            _ => tracing::debug!(target: "librdkafka", ?level, fac, "{message}"),
        }
    }
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(target: "librdkafka", %error, reason, "kafka consumer");
    }
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, err: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if self.leaving.load(Ordering::Acquire) {
            let answered = match err {
                RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => consumer.incremental_assign(list),
                _ => consumer.incremental_unassign(list),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "while leaving the group");
            }
            return;
        }
        let partitions = self.topics.partitions(list);
        let moved = match err {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => Moved::Assigned(partitions),
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS if !consumer.assignment_lost() => {
                Moved::RevokeAsked(partitions)
            }
            _ => Moved::Lost(partitions),
        };
        if self.moves.try_send(moved).is_err() {
            tracing::error!("more rebalances than the lane can take in; it will be fenced and start over");
        }
    }
}

/// One member of the consumer group, owned by its lane.
pub struct Group {
    /// Before the consumer: it has to be dropped first.
    fetched: Fetched,
    consumer: Arc<BaseConsumer<Context>>,
    topics: Topics,
    moves: Receiver<Moved>,
}

impl Group {
    /// Joins the group and subscribes to all topics.
    pub fn join(connection: &Connection, topics: &Topics) -> Result<Group, Error> {
        let (sender, moves) = sync_channel(REPORTS_MAX);
        let context = Context {
            topics: topics.clone(),
            moves: sender,
            leaving: AtomicBool::new(false),
        };
        let consumer: BaseConsumer<Context> = settings::consumer(connection)
            .create_with_context(context)
            .map_err(Error::Configuration)?;
        let names: Vec<&str> = topics.0.iter().map(String::as_str).collect();
        // SAFETY: the consumer is dropped after it, see `Group::fetched`.
        let fetched = unsafe { Fetched::new(consumer.client().native_ptr(), topics.clone()) };
        let fetched = fetched.ok_or(Error::Consumer(KafkaError::ClientCreation("no queue".to_owned())))?;
        consumer.subscribe(&names).map_err(Error::Consumer)?;
        Ok(Group {
            fetched,
            consumer: Arc::new(consumer),
            topics: topics.clone(),
            moves,
        })
    }

    /// The next record, if one is there. Must be called often: it also serves the group. There is no timeout, because
    /// rdkafka spins through the last millisecond of one: who finds nothing sleeps.
    pub fn poll(&self) -> Result<Polled<'_>, Error> {
        if let Some(record) = self.fetched.next() {
            return self.told(record);
        }
        self.serve()?;
        self.fetched.take();
        self.fetched
            .next()
            .map_or(Ok(Polled::Nothing), |record| self.told(record))
    }

    /// The group, and what is told of no partition, alone: no record is taken. librdkafka fetches until it has what its queue may hold, and
    /// hands it out later. Whoever takes no records must call this as often as [`Group::poll`]: it counts as a poll for `max.poll.interval.ms`.
    pub fn serve(&self) -> Result<(), Error> {
        // Each poll serves one event, and does not say whether there was one.
        for _ in 0..EVENTS_AT_ONCE {
            match self.consumer.poll(Duration::ZERO) {
                None => {}
                Some(Ok(message)) => {
                    return Err(Error::Astray {
                        topic: message.topic().to_owned(),
                        partition: message.partition(),
                        offset: message.offset(),
                    });
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(Error::Consumer(error)),
                // Librdkafka deals with it itself: a broker is away, a topic does not exist yet.
                Some(Err(error)) => tracing::debug!(%error, "kafka"),
            }
        }
        Ok(())
    }

    /// What a record says, or the error in its place.
    fn told<'a>(&'a self, record: Record<'a>) -> Result<Polled<'a>, Error> {
        let Some(error) = record.error() else {
            return Ok(Polled::Record(record));
        };
        let partition = record.partition();
        let reason = String::from_utf8_lossy(record.payload().unwrap_or_default());
        tracing::warn!(target: "librdkafka", topic = self.topics.name(partition), partition = partition.partition, %reason, "kafka consumer");
        self.pause(&[partition])?;
        match RDKafkaErrorCode::from(error) {
            RDKafkaErrorCode::Fatal => Err(Error::Consumer(KafkaError::MessageConsumptionFatal(error.into()))),
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => Ok(Polled::OffsetGone(partition)),
            code => Ok(Polled::Trouble(partition, KafkaError::MessageConsumption(code))),
        }
    }

    /// The next report of the group, if there is one.
    pub fn moved(&self) -> Option<Moved> {
        self.moves.try_recv().ok()
    }

    /// Takes partitions at these offsets. Answers an assignment, however late.
    pub fn assign(&self, partitions: &[(Partition, Option<i64>)]) -> Result<(), Error> {
        let taken = || partitions.iter().map(|(partition, _)| *partition);
        // A partition that was paused before it was handed back is still paused for librdkafka when it comes again: an
        // assignment clears only librdkafka's own pauses (rdkafka_assignment.c of 2.12: RD_KAFKA_TOPPAR_F_LIB_PAUSE).
        let resumed = self.topics.list(&taken().map(|one| (one, None)).collect::<Vec<_>>());
        self.consumer.resume(&resumed).map_err(Error::Consumer)?;
        self.fetched.lead_here(taken());
        self.consumer
            .incremental_assign(&self.topics.list(partitions))
            .map_err(Error::Consumer)?;
        self.fetched.lead_here(taken());
        Ok(())
    }

    /// Gives partitions back to the group, or accepts that they are lost.
    pub fn unassign(&self, partitions: &[Partition]) -> Result<(), Error> {
        self.fetched.forget(partitions);
        self.consumer
            .incremental_unassign(&self.plain(partitions))
            .map_err(Error::Consumer)
    }

    /// Stops fetching. What was fetched is thrown away: [`Group::go_on`] says from where it goes on.
    pub fn pause(&self, partitions: &[Partition]) -> Result<(), Error> {
        self.consumer.pause(&self.plain(partitions)).map_err(Error::Consumer)?;
        self.fetched.discard(partitions);
        Ok(())
    }

    /// Fetches a partition from this offset, paused or not.
    pub fn go_on(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.seek(partition, offset)?;
        self.consumer.resume(&self.plain(&[partition])).map_err(Error::Consumer)
    }

    /// Moves the position. Records that were fetched before are never handed out after it.
    pub fn seek(&self, partition: Partition, offset: i64) -> Result<(), Error> {
        self.fetched.discard(&[partition]);
        self.consumer
            .seek(
                self.topics.name(partition),
                partition.partition,
                Offset::Offset(offset),
                Duration::from_secs(5),
            )
            .map_err(Error::Consumer)
    }

    /// Leaves the group. `unanswered` are partitions that were given or asked back and not yet answered for: the group
    /// waits for an answer before it lets a member go.
    pub fn leave(self, unanswered: &Unanswered) {
        self.consumer.context().leaving.store(true, Ordering::Release);
        let answered = match unanswered {
            Unanswered::Nothing => Ok(()),
            Unanswered::Assignment(partitions) => self.consumer.incremental_assign(&self.plain(partitions)),
            Unanswered::Revocation(partitions) => self.consumer.incremental_unassign(&self.plain(partitions)),
        };
        if let Err(error) = answered {
            tracing::debug!(%error, "while leaving the group");
        }
    }

    /// The newest offset that the last fetch answer told, plus one; `None` before the first.
    pub fn high_watermark(&self, partition: Partition) -> Option<i64> {
        self.watermarks_told(partition)
            .map(|(_, high)| high)
            .filter(|high| *high >= 0)
    }

    /// A question that blocks its thread until Kafka has answered, or has not within [`OLDEST_WITHIN`] for one of them: the oldest
    /// offset of each of these partitions and the one behind its newest, and those for which there was no answer.
    pub fn oldest(&self, partitions: Vec<Partition>) -> impl FnOnce() -> Oldest + Send + 'static {
        let (consumer, topics) = (Arc::clone(&self.consumer), self.topics.clone());
        move || {
            let mut oldest = Oldest::default();
            for partition in partitions {
                let topic = topics.name(partition);
                match consumer.fetch_watermarks(topic, partition.partition, OLDEST_WITHIN) {
                    Ok((low, high)) => oldest.offsets.push((partition, low, high)),
                    Err(error) => {
                        tracing::warn!(topic, partition = partition.partition, %error, "where it begins is not known yet");
                        oldest.unanswered.push(partition);
                    }
                }
            }
            oldest
        }
    }

    fn watermarks_told(&self, partition: Partition) -> Option<(i64, i64)> {
        let topic = std::ffi::CString::new(self.topics.name(partition)).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: the consumer and the topic's name live for the call; both numbers are plain locals.
        let error = unsafe {
            rdkafka::bindings::rd_kafka_get_watermark_offsets(
                self.consumer.client().native_ptr(),
                topic.as_ptr(),
                partition.partition,
                &mut low,
                &mut high,
            )
        };
        (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then_some((low, high))
    }

    /// For `send_offsets_to_transaction`. `None` while the lane is no member: then nothing may be committed.
    pub fn metadata(&self) -> Option<ConsumerGroupMetadata> {
        // A generation below zero with an empty member id would pass the broker unfenced. The client's own
        // thread may change it meanwhile: what is handed out has the generation that was seen before and after it.
        let before = self.generation()?;
        let metadata = self.consumer.group_metadata()?;
        (before >= 0 && self.generation() == Some(before)).then_some(metadata)
    }

    fn generation(&self) -> Option<i32> {
        // SAFETY: the consumer is alive for the call.
        unsafe { crate::commits::generation(self.consumer.client().native_ptr()) }
    }

    /// For commits without transactions, on another thread. `None` while the lane is no member.
    pub fn committer(&self) -> Option<Committer> {
        let generation = self.generation().filter(|generation| *generation >= 0)?;
        let consumer = Arc::clone(&self.consumer) as Arc<dyn crate::offsets::Native>;
        Some(Committer::new(consumer, generation))
    }

    /// A handle for reading committed offsets from another thread.
    pub fn reader(&self) -> crate::offsets::Reader {
        crate::offsets::Reader::new(
            self.topics.clone(),
            Arc::clone(&self.consumer) as Arc<dyn crate::offsets::Native>,
        )
    }

    fn plain(&self, partitions: &[Partition]) -> TopicPartitionList {
        self.topics.list(
            &partitions
                .iter()
                .map(|partition| (*partition, None))
                .collect::<Vec<_>>(),
        )
    }
}

impl crate::offsets::Native for BaseConsumer<Context> {
    fn native(&self) -> *mut rdkafka::types::RDKafka {
        self.client().native_ptr()
    }
    fn watermarks(&self, topic: &str, partition: i32, timeout: Duration) -> Result<(i64, i64), KafkaError> {
        self.fetch_watermarks(topic, partition, timeout)
    }
    fn for_time(&self, list: TopicPartitionList, timeout: Duration) -> Result<TopicPartitionList, KafkaError> {
        self.offsets_for_times(list, timeout)
    }
}
