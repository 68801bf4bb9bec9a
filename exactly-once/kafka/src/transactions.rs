//! Runs transactions on a thread of their own, because librdkafka's transactional calls can hang for longer than they
//! were told to (librdkafka#5456). The lane's watchdog gives such a thread up and starts a new one, whose
//! `init_transactions` fences the old.
//!
//! If the process dies: before `begin`, nothing happened; between `begin` and the commit, the coordinator aborts after
//! `transaction.timeout.ms` and readers of the offsets wait until then; after the commit was sent, the offsets say
//! whether it took place.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crash_points::{Mutation, Point, here, mutated};
use exactly_once_protocol::{Guarantee, Metadata, Partition, TxnEnd};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::KafkaError;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientContext, TopicPartitionList};

use crate::Error;
use crate::errors::{Verdict, is_fenced, verdict};
use crate::group::Topics;
use crate::plainly::Plainly;
use crate::presence::missing_topics;
use crate::settings::{self, Connection};

/// Key and value of a record without headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Its key.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// Records for one topic as whoever holds the batch has them, who may want to write them again: they are many, and not copied.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Target topic; it must exist.
    pub topic: String,
    /// In the order in which they are written.
    pub records: Arc<Vec<Pair>>,
}

/// A record to be written in a transaction: a dead letter, or the audit's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Target topic; it must exist.
    pub topic: String,
    /// Key; `None` spreads over partitions.
    pub key: Option<Vec<u8>>,
    /// Value; `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// Headers in order; a name may appear twice.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// For the brokers to say which topics there are.
const TOPICS_WITHIN: Duration = Duration::from_secs(2);

/// More than librdkafka tells between two looks; a bound for what cannot happen.
const MESSAGES_MAX: usize = 100_000;

/// How often a thread that has no transaction to run takes in what librdkafka tells, which is kept until then.
pub(crate) const LISTEN_EVERY: Duration = Duration::from_secs(1);

/// How the audit's topic is named, for a mutation alone.
const AUDIT: &str = ".audit";

/// One transaction to run.
pub struct Work {
    /// Given back in the answer.
    pub epoch: u64,
    /// Fences zombies: the member's generation when the transaction began.
    pub group: ConsumerGroupMetadata,
    /// Offsets to commit, each with its metadata: the promise of what comes next, or what rollups lack, or nothing.
    pub offsets: Vec<(Partition, i64, Metadata)>,
    /// Alerts of the batch whose end is committed.
    pub alerts: Vec<Pairs>,
    /// Its dead letters and the audit's record.
    pub messages: Vec<Message>,
    /// With [`Guarantee::AtLeastOnce`]: how it is done without a transaction.
    pub plainly: Option<Plainly>,
}

/// What the thread reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The producer asked for with this epoch is there; its predecessors are fenced.
    Ready(u64),
    /// A transaction ended.
    Ended(u64, TxnEnd),
}

/// Takes an answer to the lane, and wakes it; false once nobody listens.
pub type Answers = Arc<dyn Fn(Answer) -> bool + Send + Sync>;

/// What librdkafka has told of a producer.
#[derive(Default)]
pub(crate) struct Heard {
    /// A connection broke: librdkafka sends requests that had no answer again, and the first copy may still be under way. One that
    /// ends a transaction would end a later one.
    broken: AtomicBool,
    /// A record was not written. A transaction does not commit then; without one nobody else tells.
    pub(crate) unwritten: AtomicBool,
}

impl Heard {
    fn of_broker(&self, message: &str) {
        if message.contains(WAS_UP) && !HARMLESS.iter().any(|words| message.contains(words)) {
            self.broken.store(true, Ordering::Release);
        }
    }
}

pub(crate) struct Context(pub(crate) Arc<Heard>);

/// How librdkafka 2.12 says that a connection broke on which requests may have been under way (`rd_kafka_broker_set_error`, which
/// the log context `broker` has each time).
const WAS_UP: &str = "in state UP";
/// What it says so of, too: connections for the first question alone, which it closes when it knows all brokers, and ones on which
/// nothing has come or gone for `connections.max.idle.ms`. Most often nobody has asked for anything; [`SILENT`] tells the other case.
const HARMLESS: [&str; 2] = ["/bootstrap:", "idle time exceeded"];
/// A request that had no answer when its connection was closed as an idle one has waited longer than this:
/// `connections.max.idle.ms` less the two seconds by which librdkafka may close earlier, and a margin.
const SILENT: Duration = Duration::from_millis(1_500);

impl ClientContext for Context {
    fn log(&self, level: rdkafka::config::RDKafkaLogLevel, fac: &str, message: &str) {
        self.0.of_broker(message);
        tracing::debug!(target: "librdkafka", ?level, fac, "{message}");
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.of_broker(reason);
        tracing::warn!(target: "librdkafka", %error, reason, "kafka producer");
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();
    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.unwritten.store(true, Ordering::Release);
            // The commit fails because of it; this line says which message it was about.
            match error.rdkafka_error_code() {
                // Of an abort, whose reason is told.
                Some(RDKafkaErrorCode::PurgeQueue | RDKafkaErrorCode::PurgeInflight) => {
                    tracing::debug!(%error, "a record of a transaction was thrown away");
                }
                _ => tracing::warn!(%error, "a record of a transaction was not written"),
            }
        }
    }
}

/// One incarnation of a lane's transactional producer. Dropping it gives the thread up.
pub struct Transactor {
    work: SyncSender<Work>,
    given_up: Arc<AtomicBool>,
}

impl Drop for Transactor {
    fn drop(&mut self) {
        self.given_up.store(true, Ordering::Release);
    }
}

/// What every incarnation is made from.
#[derive(Clone)]
pub struct Recipe {
    /// How to reach Kafka.
    pub connection: Connection,
    /// Stable for the lane's slot.
    pub transactional_id: String,
    /// Names of the source topics.
    pub topics: Topics,
    /// Where answers go.
    pub answers: Answers,
    /// Whether there are transactions at all.
    pub guarantee: Guarantee,
}

impl Transactor {
    /// Starts a thread that makes a producer, fences its predecessors and answers [`Answer::Ready`].
    pub fn start(recipe: Recipe, epoch: u64) -> Result<Transactor, Error> {
        let (sender, work) = sync_channel(1);
        let given_up = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&given_up);
        std::thread::Builder::new()
            .name(format!("{}-txn", recipe.transactional_id))
            .spawn(move || match recipe.guarantee {
                Guarantee::ExactlyOnce => serve(&recipe, epoch, &work, &asked),
                Guarantee::AtLeastOnce => crate::plainly::serve(&recipe, epoch, &work, &asked),
            })
            .map_err(Error::Thread)?;
        Ok(Transactor { work: sender, given_up })
    }

    /// Hands a transaction to the thread. False if the thread has ended: then the outcome is as if it had never begun.
    pub fn run(&self, work: Work) -> bool {
        self.work.try_send(work).is_ok()
    }
}

fn serve(recipe: &Recipe, epoch: u64, work: &Receiver<Work>, given_up: &AtomicBool) {
    let mut producer = match fenced(recipe, work) {
        Some(producer) => producer,
        None => return,
    };
    if !(recipe.answers)(Answer::Ready(epoch)) {
        return;
    }
    loop {
        let next = match work.recv_timeout(LISTEN_EVERY) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => {
                producer.listen();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        // A channel hands over what was sent before its sender was dropped. If this thread waited for a new epoch meanwhile, it
        // has fenced its successor, and would commit what the lane has given up. Asked with the epoch in hand: a lane that gives
        // up later than this has a successor whose epoch is newer.
        if given_up.load(Ordering::Acquire) {
            return;
        }
        let (epoch, began) = (next.epoch, Instant::now());
        let end = run(recipe, &producer.producer, &next, given_up);
        if !(recipe.answers)(Answer::Ended(epoch, end)) || end == TxnEnd::Doubt {
            return;
        }
        producer.listen();
        if let Some(why) = producer.spent(began.elapsed()) {
            tracing::info!(
                id = recipe.transactional_id,
                took = ?began.elapsed(),
                why,
                "another producer goes on"
            );
            producer = match fenced(recipe, work) {
                Some(producer) => producer,
                None => return,
            };
        }
    }
}

pub(crate) struct Fenced {
    pub(crate) producer: BaseProducer<Context>,
    pub(crate) heard: Arc<Heard>,
}

impl Fenced {
    /// Why this producer must not begin another transaction, although the outcome of the last one, which `took` so long, is certain.
    fn spent(&self, took: Duration) -> Option<&'static str> {
        // A stray copy of a request may still be under way: a new epoch refuses it. Whatever broke since this producer was made counts.
        if self.heard.broken.load(Ordering::Acquire) {
            return Some("a connection broke");
        }
        if took >= SILENT {
            return Some("a connection was silent for long");
        }
        // An abort throws away records that were not sent, and with them their sequence numbers: the next transaction would fail with
        // "skipped sequence numbers" (`rd_kafka_handle_Produce_error` of librdkafka 2.12), and be in doubt.
        let unwritten = self.heard.unwritten.load(Ordering::Acquire);
        unwritten.then_some("records of a transaction that was aborted were not written")
    }

    /// Takes in all that librdkafka has told until now: one poll takes in one message, and what waits is counted with the records
    /// that have no answer yet.
    pub(crate) fn listen(&self) {
        for _ in 0..MESSAGES_MAX {
            if self.producer.in_flight_count() == 0 {
                return;
            }
            self.producer.poll(Duration::ZERO);
        }
    }
}

/// A new producer whose `init_transactions` succeeded; waits as long as Kafka is away, ends when the lane gives up.
fn fenced(recipe: &Recipe, work: &Receiver<Work>) -> Option<Fenced> {
    loop {
        let heard = Arc::new(Heard::default());
        let id = match mutated(Mutation::NoFence) {
            true => crate::mutated::nobodys(&recipe.transactional_id),
            false => recipe.transactional_id.clone(),
        };
        let made: Result<BaseProducer<Context>, KafkaError> =
            settings::producer(&recipe.connection, &id).create_with_context(Context(Arc::clone(&heard)));
        let outcome = made.and_then(|producer| {
            producer
                .init_transactions(recipe.connection.transaction_timeout)
                .map(|()| producer)
        });
        match outcome {
            Ok(producer) => return Some(Fenced { producer, heard }),
            Err(error) => {
                tracing::warn!(id = recipe.transactional_id, %error, "cannot begin transactions yet, trying again");
                match work.recv_timeout(Duration::from_millis(500)) {
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return None,
                    // The lane asks for nothing before `Ready`; if it did, it would never be answered otherwise.
                    Ok(early) => {
                        if !(recipe.answers)(Answer::Ended(early.epoch, TxnEnd::Doubt)) {
                            return None;
                        }
                    }
                }
            }
        }
    }
}

fn run(recipe: &Recipe, producer: &BaseProducer<Context>, work: &Work, given_up: &AtomicBool) -> TxnEnd {
    match attempt(recipe, producer, work) {
        Ok(()) => TxnEnd::Committed,
        Err(error) => {
            let judged = verdict(&error);
            tracing::warn!(id = recipe.transactional_id, %error, ?judged, "a transaction did not commit");
            if matches!(error, KafkaError::Flush(_)) {
                why_not_taken(recipe, work);
            }
            // A lane that gives up has the next producer take the id, which is no news.
            if is_fenced(&error) && !given_up.load(Ordering::Acquire) {
                tracing::error!(
                    id = recipe.transactional_id,
                    "another producer has taken this lane's transactional id: a second worker has the same --name, which each worker of a \
                     pipeline needs for its own, or the transaction took longer than limits.transaction_timeout"
                );
            }
            if judged == Verdict::Discard {
                return TxnEnd::Doubt;
            }
            // Aborting waits for every record's delivery report, and only a poll of ours hands those over.
            answered(producer, Instant::now() + recipe.connection.transaction_timeout);
            match producer.abort_transaction(recipe.connection.transaction_timeout) {
                Ok(()) => TxnEnd::Aborted,
                Err(error) => {
                    tracing::warn!(id = recipe.transactional_id, %error, "the abort was not confirmed");
                    TxnEnd::Doubt
                }
            }
        }
    }
}

/// librdkafka waits for a topic that is not there as for a broker that is slow.
pub(crate) fn why_not_taken(recipe: &Recipe, work: &Work) {
    let id = &recipe.transactional_id;
    let alerts = work.alerts.iter().filter(|alerts| !alerts.records.is_empty());
    let alerts = alerts.map(|alerts| &alerts.topic);
    let topics: BTreeSet<&String> = alerts
        .chain(work.messages.iter().map(|message| &message.topic))
        .collect();
    let topics: Vec<String> = topics.into_iter().cloned().collect();
    match missing_topics(&recipe.connection, &topics, TOPICS_WITHIN) {
        Ok(missing) if !missing.is_empty() => tracing::error!(
            id,
            missing = missing.join(", "),
            "a batch's alerts, dead letters or audit record have no topic, and it waits: `sluice schema apply` makes it"
        ),
        _ => tracing::warn!(
            id,
            timeout = ?recipe.connection.transaction_timeout,
            "Kafka did not take the batch's alerts and dead letters in time; if it goes on, lower `batch.bytes_max` or raise \
             `limits.transaction_timeout`"
        ),
    }
}

fn attempt(recipe: &Recipe, producer: &BaseProducer<Context>, work: &Work) -> Result<(), KafkaError> {
    let timeout = recipe.connection.transaction_timeout;
    // A batch's commit carries the audit's record at least.
    let commits = !work.messages.is_empty();
    producer.begin_transaction()?;
    here(Point::AfterBegin);
    let deadline = Instant::now() + timeout;
    let aside = |message: &Message| mutated(Mutation::AuditOutside) && message.topic.ends_with(AUDIT);
    for message in work.messages.iter().filter(|message| aside(message)) {
        crate::mutated::produce(&recipe.connection, message)?;
    }
    work.write(producer, deadline, |message| !aside(message))?;
    if commits {
        here(Point::AlertsProduced);
    }
    let nobody = match mutated(Mutation::NoFence) {
        true => crate::mutated::nobody(&recipe.connection),
        false => None,
    };
    let group = nobody.as_ref().unwrap_or(&work.group);
    producer.send_offsets_to_transaction(&offsets(&recipe.topics, work)?, group, timeout)?;
    here(Point::OffsetsSent);
    // rdkafka's flush polls for 100 ms at a time: waiting here keeps a commit with messages as quick as one without.
    if !answered(producer, deadline) {
        return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
    }
    let [unsent, sent, acknowledged] = match commits {
        true => [Point::CommitUnsent, Point::CommitSent, Point::CommitAnswered],
        false => [Point::PromiseUnsent, Point::PromiseSent, Point::PromiseAnswered],
    };
    here(unsent);
    here(sent);
    producer.commit_transaction(timeout)?;
    here(acknowledged);
    Ok(())
}

/// Waits until every record has its delivery report. False if some still have none at the deadline.
pub(crate) fn answered(producer: &BaseProducer<Context>, deadline: Instant) -> bool {
    while producer.in_flight_count() > 0 {
        if Instant::now() > deadline {
            return false;
        }
        rest(producer);
    }
    true
}

/// Serves delivery reports, all that are there, or sleeps: rdkafka's own poll spins through the last millisecond of its
/// timeout, and without one serves a single batch of reports.
fn rest(producer: &BaseProducer<Context>) {
    let before = producer.in_flight_count();
    producer.poll(Duration::ZERO);
    if producer.in_flight_count() == before {
        std::thread::sleep(Duration::from_micros(500));
    }
}

impl Work {
    /// Hands the batch's records to the producer: alerts, and those messages.
    pub(crate) fn write(
        &self,
        producer: &BaseProducer<Context>,
        deadline: Instant,
        only: impl Fn(&Message) -> bool,
    ) -> Result<(), KafkaError> {
        for alerts in &self.alerts {
            for Pair { key, value } in &*alerts.records {
                let record = BaseRecord::to(&alerts.topic).key(&key[..]).payload(&value[..]);
                produce(producer, record, deadline)?;
            }
        }
        for message in self.messages.iter().filter(|message| only(message)) {
            produce(producer, message.record(), deadline)?;
        }
        Ok(())
    }
}

impl Message {
    fn record(&self) -> BaseRecord<'_, [u8], [u8]> {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&self.topic);
        // librdkafka would allocate an empty list.
        if !self.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(self.headers.len());
            for (key, value) in &self.headers {
                headers = headers.insert(Header {
                    key,
                    value: value.as_deref(),
                });
            }
            record.headers = Some(headers);
        }
        record.key = self.key.as_deref();
        record.payload = self.value.as_deref();
        record
    }
}

fn produce(
    producer: &BaseProducer<Context>,
    mut record: BaseRecord<'_, [u8], [u8]>,
    deadline: Instant,
) -> Result<(), KafkaError> {
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) if Instant::now() < deadline => {
                record = back;
                rest(producer);
            }
            Err((error, _)) => return Err(error),
        }
    }
}

pub(crate) fn offsets(topics: &Topics, work: &Work) -> Result<TopicPartitionList, KafkaError> {
    let plain: Vec<_> = work
        .offsets
        .iter()
        .map(|(partition, offset, _)| (*partition, Some(*offset)))
        .collect();
    let list = topics.list(&plain);
    for (partition, _, metadata) in &work.offsets {
        if *metadata != Metadata::Nothing {
            match list.find_partition(topics.name(*partition), partition.partition) {
                Some(mut element) => element.set_metadata(metadata.encode()),
                None => return Err(KafkaError::SetPartitionOffset(RDKafkaErrorCode::UnknownPartition)),
            }
        }
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::producer::PurgeConfig;

    use super::*;

    fn recipe(cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>) -> Recipe {
        Recipe {
            connection: crate::mocked::connection(cluster),
            transactional_id: "shop-0".to_owned(),
            topics: Topics::new(Vec::new()),
            answers: Arc::new(|_| true),
            guarantee: Guarantee::ExactlyOnce,
        }
    }

    fn made(cluster: &MockCluster<'_, rdkafka::producer::DefaultProducerContext>) -> Fenced {
        let (_lane, work) = sync_channel(1);
        let made = fenced(&recipe(cluster), &work).expect("the lane has not given up");
        made.listen();
        assert!(!made.heard.broken.load(Ordering::Acquire), "nothing has happened yet");
        made
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "librdkafka says it in other words: {what}");
        }
    }

    /// The words are librdkafka's own, and another version may choose others.
    #[test]
    fn a_producer_hears_each_time_that_its_connection_broke() {
        let cluster = MockCluster::new(1).expect("librdkafka's own broker");
        let made = made(&cluster);
        // The second time of the same kind, too, which librdkafka tells at no other level. A connection that was not up again yet
        // has nothing to tell.
        for _ in 0..2 {
            until("that it broke", || {
                cluster.broker_down(1).expect("closes its connections");
                made.producer.poll(Duration::from_millis(300));
                cluster.broker_up(1).expect("takes connections again");
                made.producer.poll(Duration::from_millis(300));
                made.heard.broken.swap(false, Ordering::AcqRel)
            });
        }
    }

    /// Scenario: a record was not sent yet when librdkafka throws away what it holds, as it does for a transaction that cannot commit.
    #[test]
    fn a_producer_is_spent_once_records_were_thrown_away() {
        let cluster = MockCluster::new(1).expect("librdkafka's own broker");
        let made = made(&cluster);
        let abort = || made.producer.abort_transaction(Duration::from_secs(60));
        made.producer.begin_transaction().unwrap();
        abort().unwrap();
        made.listen();
        assert!(!made.heard.unwritten.load(Ordering::Acquire));
        made.producer.begin_transaction().unwrap();
        // Nobody has said yet who leads its topic.
        let record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to("alerts").payload(b"large".as_slice());
        made.producer.send(record).map_err(|(error, _)| error).unwrap();
        made.producer.purge(PurgeConfig::default().queue());
        until("that it was thrown away", || {
            made.listen();
            made.heard.unwritten.load(Ordering::Acquire)
        });
        abort().unwrap();
        assert!(made.spent(Duration::ZERO).is_some());
        // What is made anew begins with nothing.
        assert_eq!(self::made(&cluster).spent(Duration::ZERO), None);
    }

    /// Scenario: nobody asks for anything until connections are closed as idle ones, which is after four seconds at the latest.
    #[test]
    fn a_connection_that_nobody_used_did_not_break() {
        // On a busy machine a connection may break for another reason; idle ones are closed each time.
        let unbroken = (0..5).any(|_| {
            let cluster = MockCluster::new(1).expect("librdkafka's own broker");
            let made = made(&cluster);
            made.producer.poll(Duration::from_secs(7));
            !made.heard.broken.load(Ordering::Acquire)
        });
        assert!(unbroken);
    }
}
