//! Records as librdkafka has fetched them, taken over many at a time. Through [`rdkafka`]'s own poll each record costs three looks at
//! the clock, two locks and an event; a batch of them costs that once, and one lock for each.
//!
//! All partitions of a member are forwarded to one queue that holds records alone: `rd_kafka_consume_batch_queue` on the consumer's queue
//! would answer rebalances itself, because rdkafka takes them as events and sets no callback (`rd_kafka_poll_cb`,
//! `RD_KAFKA_OP_REBALANCE`).
//!
//! What librdkafka promises of its queues (2.12, `rdkafka_queue.c`, `rdkafka_partition.c`):
//!
//! - A record that was fetched before a seek, a pause or the end of an assignment is not handed out after it: its operation has an
//!   older version. That holds for what is in the queue, and not for what was taken from it: [`Fetched::discard`].
//! - A partition that was forwarded by the application is not forwarded to the consumer's queue when it is assigned
//!   (`RD_KAFKA_Q_F_FWD_APP`), so it is forwarded *before* its first assignment, and none of its records goes there.
//! - When a partition stops, its queue is forwarded to nobody (`rd_kafka_toppar_fetch_stop`), at some time after the call that asked
//!   for it. Records that come then wait in the partition's own queue, in order, until it is forwarded again. So it is forwarded
//!   again after the assignment, which the same thread of librdkafka carries out later than an earlier stop, and, should that ever be
//!   otherwise, each [`AGAIN_EVERY`].
//!
//! And what it does not promise: an error that comes in place of a record counts as that record (`rd_kafka_q_serve_rkmessages`). The position moves
//! behind it, and the next pause, of librdkafka's own in a rebalance, too, goes on there: the record would be left out. So
//! [`crate::Group::poll`] pauses such a partition, and its owner says from where it goes on.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::ffi::CString;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use exactly_once_protocol::Partition;
use rdkafka::bindings::{self, rd_kafka_message_t, rd_kafka_queue_t, rd_kafka_topic_t};
use rdkafka::types::{RDKafka, RDKafkaRespErr};

use crate::group::Topics;

/// Records that are taken over by one call: enough that what the call costs is not seen, and few against a batch.
const AT_ONCE: usize = 256;

/// Partitions are forwarded again so often.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

/// A record, or an error in its place. It lives in librdkafka's memory until it is dropped, and so does its payload.
#[derive(Debug)]
pub struct Record<'a> {
    message: Owned,
    partition: Partition,
    group: PhantomData<&'a ()>,
}

/// A message that belongs to us; destroyed once, here.
#[derive(Debug)]
struct Owned(NonNull<rd_kafka_message_t>);

impl Drop for Owned {
    fn drop(&mut self) {
        // SAFETY: it was handed to us by `rd_kafka_consume_batch_queue`, nobody else destroys it, and the client outlives it: see `Fetched`.
        unsafe { bindings::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

impl Owned {
    fn get(&self) -> &rd_kafka_message_t {
        // SAFETY: it is valid until it is destroyed, and nobody changes it.
        unsafe { self.0.as_ref() }
    }
}

impl Record<'_> {
    /// Where it stands.
    pub fn partition(&self) -> Partition {
        self.partition
    }

    /// Its offset.
    pub fn offset(&self) -> i64 {
        self.message.get().offset
    }

    /// Kafka's timestamp, Unix milliseconds; `None` where the topic has none.
    pub fn timestamp_ms(&self) -> Option<i64> {
        let mut kind = bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is valid, and `kind` is a local.
        let timestamp = unsafe { bindings::rd_kafka_message_timestamp(self.message.get(), &mut kind) };
        (kind != bindings::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && timestamp != -1)
            .then_some(timestamp)
    }

    /// Its key, if it has one.
    pub fn key(&self) -> Option<&[u8]> {
        let message = self.message.get();
        // SAFETY: librdkafka gives a pointer to so many bytes, or null; they live as long as the message.
        unsafe { bytes(message.key, message.key_len) }
    }

    /// Its value, if it has one.
    pub fn payload(&self) -> Option<&[u8]> {
        let message = self.message.get();
        // SAFETY: as for the key.
        unsafe { bytes(message.payload, message.len) }
    }

    pub(crate) fn native(&self) -> *mut rd_kafka_message_t {
        self.message.0.as_ptr()
    }

    /// The error that came in place of a record.
    pub(crate) fn error(&self) -> Option<RDKafkaRespErr> {
        let error = self.message.get().err;
        (error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then_some(error)
    }
}

/// SAFETY of the caller: null, or `size` bytes that live for `'a`.
unsafe fn bytes<'a>(start: *const std::ffi::c_void, size: usize) -> Option<&'a [u8]> {
    // SAFETY: see above.
    (!start.is_null()).then(|| unsafe { std::slice::from_raw_parts(start.cast::<u8>(), size) })
}

/// One member's queue of records, and those that were taken from it and not handed out yet.
///
/// It has to be dropped before the client: both hold references to its partitions.
pub(crate) struct Fetched {
    queue: NonNull<rd_kafka_queue_t>,
    client: *mut RDKafka,
    topics: Topics,
    state: RefCell<State>,
}

struct State {
    taken: VecDeque<(Partition, Owned)>,
    /// Room for one call.
    pointers: Vec<*mut rd_kafka_message_t>,
    forwarded: BTreeSet<Partition>,
    forwarded_at: Instant,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        let mut state = self.state.borrow_mut();
        state.taken.clear();
        // Others may hold the client for a while. A partition that leads to nobody is fetched until its own queue is full; one that leads to a
        // queue which is gone is fetched for ever.
        for partition in &state.forwarded {
            self.lead(*partition, std::ptr::null_mut());
        }
        // SAFETY: it was made by `new`, and is not used again. What librdkafka still puts into it is destroyed there.
        unsafe { bindings::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

impl Fetched {
    /// # Safety
    /// `client` is a consumer that lives longer than what is made here.
    pub(crate) unsafe fn new(client: *mut RDKafka, topics: Topics) -> Option<Fetched> {
        // SAFETY: the client lives.
        let queue = NonNull::new(unsafe { bindings::rd_kafka_queue_new(client) })?;
        let state = State {
            taken: VecDeque::with_capacity(AT_ONCE),
            pointers: vec![std::ptr::null_mut(); AT_ONCE],
            forwarded: BTreeSet::new(),
            forwarded_at: Instant::now(),
        };
        Some(Fetched {
            queue,
            client,
            topics,
            state: RefCell::new(state),
        })
    }

    /// The next record that is there, or the error that came in its place.
    pub(crate) fn next(&self) -> Option<Record<'_>> {
        let (partition, message) = self.state.borrow_mut().taken.pop_front()?;
        Some(Record {
            message,
            partition,
            group: PhantomData,
        })
    }

    /// Takes over what librdkafka has fetched: at most [`AT_ONCE`], at once.
    pub(crate) fn take(&self) {
        let mut state = self.state.borrow_mut();
        if state.forwarded_at.elapsed() >= AGAIN_EVERY {
            state.forwarded_at = Instant::now();
            for partition in &state.forwarded {
                self.lead(*partition, self.queue.as_ptr());
            }
        }
        let State { taken, pointers, .. } = &mut *state;
        // SAFETY: the queue lives, there is room for as many pointers, and the call does not wait.
        let count = unsafe {
            bindings::rd_kafka_consume_batch_queue(self.queue.as_ptr(), 0, pointers.as_mut_ptr(), pointers.len())
        };
        let count = usize::try_from(count).unwrap_or(0);
        // A topic lives as long as a message of it. Of one that is thrown away here nothing is remembered: another could take its place in memory.
        let mut known: Option<(*mut rd_kafka_topic_t, u16)> = None;
        for message in pointers.iter().take(count).filter_map(|message| NonNull::new(*message)) {
            let message = Owned(message);
            let topic = message.get().rkt;
            let index = match known {
                Some((one, index)) if one == topic => Some(index),
                _ => index(&self.topics, topic),
            };
            if let Some(index) = index {
                known = Some((topic, index));
                let partition = Partition {
                    topic: index,
                    partition: message.get().partition,
                };
                taken.push_back((partition, message));
            }
        }
    }

    /// Throws away what was taken of these partitions and not handed out. librdkafka takes it for read: who wants it seeks.
    pub(crate) fn discard(&self, partitions: &[Partition]) {
        let mut state = self.state.borrow_mut();
        state.taken.retain(|(partition, _)| !partitions.contains(partition));
    }

    /// Leads the records of these partitions here: before and after they are assigned.
    pub(crate) fn lead_here(&self, partitions: impl Iterator<Item = Partition>) {
        let mut state = self.state.borrow_mut();
        for partition in partitions {
            self.lead(partition, self.queue.as_ptr());
            state.forwarded.insert(partition);
        }
    }

    /// These are the member's no longer.
    pub(crate) fn forget(&self, partitions: &[Partition]) {
        self.discard(partitions);
        let mut state = self.state.borrow_mut();
        partitions.iter().for_each(|partition| {
            state.forwarded.remove(partition);
        });
    }

    /// Leads a partition's records to a queue of this client, or to nobody.
    fn lead(&self, partition: Partition, to: *mut rd_kafka_queue_t) {
        let Ok(name) = CString::new(self.topics.name(partition)) else {
            return;
        };
        // SAFETY: the client and the queue live, the name for the call; the handle of the partition's queue is destroyed once, after its use.
        unsafe {
            let queue = bindings::rd_kafka_queue_get_partition(self.client, name.as_ptr(), partition.partition);
            if !queue.is_null() {
                bindings::rd_kafka_queue_forward(queue, to);
                bindings::rd_kafka_queue_destroy(queue);
            }
        }
    }
}

/// `None` for a message without a topic, or with one that the member did not subscribe to.
fn index(topics: &Topics, topic: *mut rd_kafka_topic_t) -> Option<u16> {
    if topic.is_null() {
        return None;
    }
    // SAFETY: the topic lives as long as the message it was taken from, and its name as long as the topic.
    let name = unsafe { std::ffi::CStr::from_ptr(bindings::rd_kafka_topic_name(topic)) };
    topics.index(name.to_str().ok()?)
}

#[cfg(test)]
mod tests {
    use rdkafka::ClientConfig;
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

    use super::*;
    use crate::group::{Group, Polled, Unanswered};
    use crate::mocked::{self, Cluster, WITHIN};
    use crate::settings::Connection;

    /// More than are taken over at once, by far.
    const RECORDS: i64 = 3_000;

    /// A member that was given all partitions of a topic with so many records each, whose values are their offsets.
    struct Stand {
        group: Option<Group>,
        partitions: Vec<Partition>,
        connection: Connection,
        /// Last: who leaves a group waits for its broker.
        _cluster: Cluster,
    }

    impl Drop for Stand {
        fn drop(&mut self) {
            if let Some(group) = self.group.take() {
                group.leave(&Unanswered::Nothing);
            }
        }
    }

    impl Stand {
        fn new(partitions: i32) -> Stand {
            Stand::with(partitions, |_| {})
        }

        fn with(partitions: i32, change: impl FnOnce(&mut Connection)) -> Stand {
            let cluster = mocked::cluster(&[("orders", partitions)]);
            let mut connection = mocked::connection(&cluster);
            change(&mut connection);
            let mut config = ClientConfig::new();
            config.set("bootstrap.servers", connection.brokers.join(","));
            let producer: BaseProducer = config.create().expect("a producer");
            for offset in 0..RECORDS {
                let value = offset.to_string();
                for partition in 0..partitions {
                    let record: BaseRecord<'_, [u8], str> =
                        BaseRecord::to("orders").partition(partition).payload(&value);
                    producer.send(record).map_err(|(error, _)| error).expect("room");
                }
            }
            producer.flush(WITHIN).expect("all are written");
            let topics = Topics::new(vec!["orders".to_owned()]);
            let (group, partitions) = mocked::joined(&connection, &topics);
            Stand {
                group: Some(group),
                partitions,
                connection,
                _cluster: cluster,
            }
        }

        fn group(&self) -> &Group {
            self.group.as_ref().expect("until it is dropped")
        }

        fn assign(&self, offset: i64) {
            let offsets: Vec<_> = self.partitions.iter().map(|one| (*one, Some(offset))).collect();
            self.group().assign(&offsets).expect("an assignment");
        }

        /// Partition and offset of the next record, which says its offset.
        fn next(&self) -> (Partition, i64) {
            let until = Instant::now() + WITHIN;
            loop {
                match self.group().poll().expect("no record comes by another way") {
                    Polled::Record(record) => {
                        let offset = record.offset();
                        assert_eq!(record.payload(), Some(offset.to_string().as_bytes()));
                        assert_eq!(record.key(), None);
                        assert!(record.timestamp_ms().is_some());
                        return (record.partition(), offset);
                    }
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
                assert!(Instant::now() < until, "no record came");
            }
        }

        fn nothing_comes(&self) {
            for _ in 0..300 {
                assert!(matches!(self.group().poll(), Ok(Polled::Nothing)));
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn zero() -> Partition {
        Partition { topic: 0, partition: 0 }
    }

    #[test]
    fn every_record_of_every_partition_comes_once_and_in_order() {
        let stand = Stand::new(3);
        stand.assign(0);
        let mut next = std::collections::BTreeMap::new();
        for _ in 0..3 * RECORDS {
            let (partition, offset) = stand.next();
            let expected = next.entry(partition).or_insert(0);
            assert_eq!(offset, *expected, "{partition:?}");
            *expected += 1;
        }
        assert_eq!(next.len(), 3);
        assert!(next.values().all(|next| *next == RECORDS));
        stand.nothing_comes();
    }

    /// Scenario: a lane that holds as much as it may takes no records for longer than a member may be silent.
    #[test]
    fn a_member_that_only_serves_its_group_stays_in_it() {
        let stand = Stand::with(1, |connection| {
            connection.poll_interval_max = connection.session_timeout
        });
        stand.assign(0);
        assert_eq!(stand.next(), (zero(), 0));
        let until = Instant::now() + stand.connection.poll_interval_max * 3 / 2;
        while Instant::now() < until {
            stand.group().serve().expect("no record comes by another way");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(stand.group().moved(), None);
        for offset in 1..RECORDS {
            assert_eq!(stand.next(), (zero(), offset));
        }
    }

    /// A record that was taken over and not handed out is one of before, too.
    #[test]
    fn after_a_seek_or_a_pause_no_record_of_before_comes() {
        let stand = Stand::new(1);
        stand.assign(0);
        assert_eq!(stand.next(), (zero(), 0));
        assert_eq!(stand.next(), (zero(), 1));
        stand.group().seek(zero(), 500).expect("a seek");
        assert_eq!(stand.next(), (zero(), 500));
        stand.group().pause(&[zero()]).expect("a pause");
        stand.nothing_comes();
        stand.group().go_on(zero(), 10).expect("it goes on");
        for offset in 10..RECORDS {
            assert_eq!(stand.next(), (zero(), offset));
        }
    }

    #[test]
    fn an_offset_that_is_not_there_is_said_of_its_partition() {
        let stand = Stand::new(2);
        let one = Partition { topic: 0, partition: 1 };
        let offsets = [(zero(), Some(0)), (one, Some(RECORDS + 500))];
        stand.group().assign(&offsets).expect("an assignment");
        let until = Instant::now() + WITHIN;
        let mut read = 0;
        loop {
            match stand.group().poll().expect("no fatal error") {
                Polled::OffsetGone(partition) => {
                    assert_eq!(partition, one);
                    break;
                }
                Polled::Record(record) => {
                    assert_eq!((record.partition(), record.offset()), (zero(), read));
                    read += 1;
                }
                _ => std::thread::sleep(Duration::from_millis(1)),
            }
            assert!(Instant::now() < until, "nothing was said");
        }
        stand.group().unassign(&[one]).expect("it is given back");
        stand.group().assign(&[(one, Some(7))]).expect("an assignment");
        let mut next = std::collections::BTreeMap::from([(zero(), read), (one, 7)]);
        while next[&zero()] < RECORDS || next[&one] < RECORDS {
            let (partition, offset) = stand.next();
            assert_eq!(next.insert(partition, offset + 1), Some(offset), "{partition:?}");
        }
    }

    /// Scenario: the records from `RECORDS` on are there, and cannot be unpacked.
    #[test]
    fn an_error_in_place_of_a_record_is_not_taken_for_it() {
        let stand = Stand::new(1);
        mocked::write_broken(&stand.connection, "orders");
        stand.assign(RECORDS - 2);
        assert_eq!(stand.next(), (zero(), RECORDS - 2));
        assert_eq!(stand.next(), (zero(), RECORDS - 1));
        for _ in 0..3 {
            let until = Instant::now() + WITHIN;
            loop {
                match stand.group().poll().expect("no fatal error") {
                    Polled::Trouble(partition, _) => {
                        assert_eq!(partition, zero());
                        break;
                    }
                    Polled::Record(record) => panic!("record {} after the error", record.offset()),
                    _ => std::thread::sleep(Duration::from_millis(1)),
                }
                assert!(Instant::now() < until, "no error was told");
            }
            // Nothing is read until somebody says from where.
            stand.nothing_comes();
            stand.group().go_on(zero(), RECORDS).expect("it goes on");
        }
        stand.group().go_on(zero(), 5).expect("it goes on");
        assert_eq!(stand.next(), (zero(), 5));
    }

    /// librdkafka ends the forwarding of a partition that stops at some time after it was told to.
    #[test]
    fn partitions_that_come_again_are_read_where_they_are_assigned() {
        let stand = Stand::new(2);
        for round in 0..20 {
            stand.assign(round);
            let mut next = std::collections::BTreeMap::new();
            while next.len() < 2 || next.values().any(|next| *next < round + 300) {
                let (partition, offset) = stand.next();
                let expected = next.entry(partition).or_insert(round);
                assert_eq!(offset, *expected, "{partition:?} in round {round}");
                *expected += 1;
            }
            if round % 2 == 0 {
                stand.group().pause(&stand.partitions).expect("a pause");
            }
            stand.group().unassign(&stand.partitions).expect("they are given back");
            assert!(matches!(stand.group().poll(), Ok(Polled::Nothing)));
        }
    }
}
