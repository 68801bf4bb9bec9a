//! One lane: a consumer-group member with its own consumer, transactional producer, thread and memory. One loop owns
//! all of it by value.
//!
//! The loop's order and why: records first, but at most [`RECORDS_A_TURN`], so that answers of sinks are never more
//! than a few milliseconds late; then the group, because a rebalance waits for us; then answers; then closing a batch,
//! because answers may have made room. The group is served whenever what was taken over from the client library is used
//! up, and in every turn of a lane without room: back-pressure leaves records where they are, so that a full lane still
//! heartbeats and takes part in rebalances. Nothing in the loop blocks but a rest of at most [`IDLE`] where
//! nothing came, and `seek`, which the client library answers from memory.

mod reading;
mod flow;
mod holding;
mod closing;
mod settling;
mod act;
mod report;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use exactly_once_kafka::transactions::Recipe;
use exactly_once_kafka::{Answer, Connection, Group, Moved, Oldest, Polled, Start, Topics, Transactor, Unanswered};
use exactly_once_protocol::{BatchId, Delivered, Event, Kind, Lane, Now, Offsets, Partition, Settings, sink_id};
use prometheus_client::metrics::counter::Counter;
use rules::Revision;
use thiserror::Error;

use crate::brake::Brake;
use crate::collect::Collector;
use crate::decode::Plan;
use crate::metrics::Metrics;
use crate::model::Model;
use crate::settle::Present;
use crate::sinks::{Shipment, Sinks};
use crate::transform::{Outputs, TransformError};
use flow::{Flow, Foreign, Wait};
use settling::Settling;

const RECORDS_A_TURN: usize = 2_000;
const IDLE: Duration = Duration::from_millis(1);
const TICK: Duration = Duration::from_millis(20);
/// How long a lane that has finished waits for the others; what they have in flight then takes a little longer to settle.
const LEAVE_TOGETHER: Duration = Duration::from_secs(5);
/// How often gauges are written.
const REPORT: Duration = Duration::from_millis(500);
/// Offsets of a partition that are fed to rollups at once, so that what has gathered in a catch-up is fed piece by piece.
const FEED_MAX: i64 = 100_000;
const INBOX_MAX: usize = 4_096;

/// What lanes need of the rest of the worker.
pub trait Surroundings: Send + Sync {
    /// Documents of a rules revision that a promise names; waits for the config service. `None`: it is gone for good.
    fn documents(&self, rules: (u64, u64)) -> futures::future::BoxFuture<'_, Option<Arc<Vec<(String, String)>>>>;
    /// A schema by its id; waits while the registry is away. `Err`: definite, with the reason.
    fn schema(&self, id: u32) -> futures::future::BoxFuture<'_, Result<Arc<registry_cache::Schema>, String>>;
    /// Whether a schema that the model does not hold fits a source all the same, by what the registry has of its subject now; waits
    /// while the registry is away.
    fn belongs(&self, source: usize, schema: Arc<registry_cache::Schema>) -> futures::future::BoxFuture<'_, bool>;
    /// A writer's schema has fields that the model lacks: the source's subject is read again, and a newer model comes through the
    /// inbox if there is one.
    fn evolve(&self, source: usize);
}

/// Everything that a lane shares with its worker.
#[derive(Clone)]
pub struct Shared {
    /// Sinks, stateless per batch.
    pub sinks: Arc<Sinks>,
    /// Schemas and rules.
    pub surroundings: Arc<dyn Surroundings>,
    /// Runs deliveries, read-backs and look-ups.
    pub runtime: tokio::runtime::Handle,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Readiness.
    pub health: serve::Health,
    /// Lanes of this worker that have not finished their drain.
    pub unfinished: Arc<AtomicUsize>,
}

/// How one lane is made.
#[derive(Clone)]
pub struct LaneSettings {
    /// `worker-lane`: names the transactional id and the client.
    pub slot: String,
    /// How to reach Kafka.
    pub connection: Connection,
    /// Where partitions without an offset begin.
    pub start: Start,
    /// Lanes of this worker, to share the limits.
    pub lanes: usize,
}

/// What reaches a lane from outside.
pub enum Inbox {
    /// A transaction has ended, or a producer is there.
    Answered(Answer),
    /// Committed offsets and promises.
    Offsets {
        /// The read's number.
        epoch: u64,
        /// One entry for each partition.
        offsets: Offsets,
    },
    /// A batch was delivered, or not.
    Delivered {
        /// The batch.
        batch: BatchId,
        /// All sinks together.
        outcome: Delivered,
    },
    /// Rows of a pending promise were read back.
    ReadBack {
        /// The partition.
        partition: Partition,
        /// Which settling asked.
        ticket: u64,
        /// What is there.
        present: Present,
    },
    /// Documents of a pinned rules revision.
    Documents {
        /// The partition.
        partition: Partition,
        /// Which settling asked.
        ticket: u64,
        /// `None`: the revision cannot be had any more.
        documents: Option<Arc<Vec<(String, String)>>>,
    },
    /// A schema that records wait for; `Err`: definitely none.
    Schema {
        /// The id.
        id: u32,
        /// The schema, or why there is none.
        schema: Result<Arc<registry_cache::Schema>, String>,
    },
    /// Whether a schema fits a source.
    Belongs {
        /// Which source.
        source: usize,
        /// The schema's id.
        id: u32,
        /// What came of it.
        belongs: bool,
    },
    /// Where partitions begin, after one of them was found to lack an offset.
    Oldest(Oldest, BTreeMap<Partition, i64>),
    /// A source's topic was deleted and made again.
    TopicReplaced(u16),
    /// Newer shapes, newer rules, or both.
    Model(Arc<Model>, Arc<Revision>),
    /// Finish what is in flight and leave.
    Drain,
}

/// Why a lane ended other than by a drain; the worker starts a new one.
#[derive(Debug, Error)]
pub enum LaneError {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] exactly_once_kafka::Error),
    /// The pure middle failed on a whole batch.
    #[error(transparent)]
    Transform(#[from] TransformError),
    /// Columns could not be closed.
    #[error("columns: {0}")]
    Columns(#[from] arrow::error::ArrowError),
}

/// A batch between its preparation and its commit.
struct Held {
    /// What is delivered, until it is.
    shipments: Vec<Shipment>,
    /// What is written with the commit, and told of after it.
    outputs: Vec<Arc<Outputs>>,
    kind: Kind,
    task: Option<tokio::task::AbortHandle>,
    records: usize,
    by_partition: BTreeMap<Partition, usize>,
    room: Room,
    oldest_ms: i64,
}

/// What a batch takes of a lane's share.
#[derive(Default)]
struct Room {
    rows: usize,
    bytes: usize,
    by_partition: BTreeMap<Partition, usize>,
}

impl Held {
    /// A batch that takes no room.
    fn of(shipments: Vec<Shipment>, kind: Kind) -> Held {
        Held {
            outputs: shipments.iter().map(|shipment| Arc::clone(&shipment.outputs)).collect(),
            shipments,
            kind,
            task: None,
            records: 0,
            by_partition: BTreeMap::new(),
            room: Room::default(),
            oldest_ms: i64::MAX,
        }
    }

    /// Every sink has it: the rows are gone, and what the commit writes still takes room, as do the charges that it tells of.
    fn delivered(&mut self) {
        let mut room = Room::default();
        for outputs in &self.outputs {
            room.rows += outputs.alerts.len() + outputs.dead.len();
            room.bytes += outputs.kept();
        }
        // Several alerts of a record are no more records.
        room.rows = room.rows.min(self.room.rows);
        self.room = room;
    }
}

/// The lane's loop and everything it owns.
pub struct LaneLoop {
    settings: LaneSettings,
    shared: Shared,
    topics: Topics,
    model: Arc<Model>,
    revision: Arc<Revision>,
    next_model: Option<(Arc<Model>, Arc<Revision>)>,
    machine: Lane,
    began: Instant,
    recipe: Recipe,
    transactor: Option<Transactor>,
    /// A transaction without an answer: its epoch, and since when.
    transacting: Option<(u64, Instant)>,
    /// How long transactions took of late.
    transaction_took: Duration,
    inbox: Receiver<Inbox>,
    /// What has ended a rest.
    early: Option<Inbox>,
    sender: SyncSender<Inbox>,
    flows: BTreeMap<Partition, Flow>,
    /// Given by the group, not taken yet; the offset is known once it was read.
    unassigned: Option<BTreeMap<Partition, Option<i64>>>,
    /// Asked back by the group, not handed back yet.
    asked_back: Vec<Partition>,
    collector: Collector,
    first_at: Option<Instant>,
    /// More than another full batch waits in the log.
    behind: bool,
    /// The lane holds as much as it may: it takes no records, and they stay where librdkafka has them.
    sated: bool,
    oldest_ms: i64,
    batches: BTreeMap<BatchId, Held>,
    settling: BTreeMap<Partition, Settling>,
    /// How often ClickHouse has said that it cannot feed what a rollup lacks of a partition's pending range.
    refused: BTreeMap<Partition, Arc<AtomicU16>>,
    tickets: u64,
    schemas: BTreeMap<u32, Arc<registry_cache::Schema>>,
    plans: Vec<((u64, usize, u32), Plan)>,
    /// Ids that the registry definitely does not know, and until when that is believed.
    unknown: BTreeMap<u32, Instant>,
    asking: BTreeMap<u32, u32>,
    /// Schemas that the model does not hold, by source and id.
    foreign: BTreeMap<(usize, u32), Foreign>,
    brake: Brake,
    /// The next batch has no more: with more, a range's charges did not fit a sink's message, or a table's rows a block. Grows again with each batch.
    records_max: usize,
    /// Counts the records of each source, and those of this turn: lanes share the counter. Looked up once: a look-up allocates the label.
    taken: Vec<(Counter<u64>, u64)>,
    /// What was found of a partition when the group gave it, in words.
    found: BTreeMap<Partition, String>,
    /// Kafka's id of each topic when its partitions were taken.
    topic_ids: BTreeMap<u16, u128>,
    /// Partitions that the health names as stopped.
    stopped: BTreeSet<Partition>,
    left: bool,
    events: VecDeque<Event>,
}

impl LaneLoop {
    /// A lane and where to reach it.
    pub fn new(
        settings: LaneSettings,
        shared: Shared,
        model: Arc<Model>,
        revision: Arc<Revision>,
    ) -> (LaneLoop, SyncSender<Inbox>) {
        let (sender, inbox) = sync_channel(INBOX_MAX);
        let pipeline = &model.pipeline;
        let topics = Topics::new(pipeline.sources.iter().map(|source| source.topic.clone()).collect());
        let recipe = Recipe {
            connection: settings.connection.clone(),
            transactional_id: format!("{}-{}", pipeline.name, settings.slot),
            topics: topics.clone(),
            answers: {
                let sender = sender.clone();
                Arc::new(move |answer| sender.send(Inbox::Answered(answer)).is_ok())
            },
            guarantee: crate::worker::guarantee(pipeline),
        };
        let seed = format!(
            "{}-{}-{}",
            recipe.transactional_id,
            std::process::id(),
            crate::sinks::unix_ms()
        );
        let (machine, first) = Lane::new(Settings {
            guarantee: recipe.guarantee,
            feed_every_ms: u64::try_from(pipeline.batch.rollup_every.as_millis()).unwrap_or(u64::MAX),
            feed_max: FEED_MAX,
            deadline_span_ms: i64::try_from(pipeline.batch.deadline.as_millis()).unwrap_or(i64::MAX),
            hand_back_wait_ms: pipeline.limits.poll_interval_max.as_millis() as u64 / 4,
            transaction_watchdog_ms: pipeline.limits.transaction_timeout.as_millis() as u64 + 5_000,
            pipeline: pipeline.revision,
            sinks: pipeline.sinks.grpc.iter().map(|sink| sink_id(&sink.name)).collect(),
            token_seed: xxhash_rust::xxh3::xxh3_64(seed.as_bytes()),
        });
        let count = |source: &pipeline::Source| {
            let label = vec![("topic", source.topic.clone())];
            (shared.metrics.records.get_or_create(&label).clone(), 0)
        };
        let taken = pipeline.sources.iter().map(count).collect();
        let brake = Brake::new(pipeline.dead_letters.brake);
        let mut lane = LaneLoop {
            settings,
            shared,
            topics,
            model,
            revision,
            next_model: None,
            machine,
            began: Instant::now(),
            recipe,
            transactor: None,
            transacting: None,
            transaction_took: Duration::ZERO,
            inbox,
            early: None,
            sender: sender.clone(),
            flows: BTreeMap::new(),
            unassigned: None,
            asked_back: Vec::new(),
            collector: Collector::default(),
            first_at: None,
            behind: false,
            sated: false,
            oldest_ms: i64::MAX,
            batches: BTreeMap::new(),
            settling: BTreeMap::new(),
            refused: BTreeMap::new(),
            tickets: 0,
            schemas: BTreeMap::new(),
            plans: Vec::new(),
            unknown: BTreeMap::new(),
            asking: BTreeMap::new(),
            foreign: BTreeMap::new(),
            brake,
            records_max: usize::MAX,
            taken,
            found: BTreeMap::new(),
            topic_ids: BTreeMap::new(),
            stopped: BTreeSet::new(),
            left: false,
            events: VecDeque::new(),
        };
        for action in first {
            if let exactly_once_protocol::Action::NewProducer { epoch } = action {
                lane.new_producer(epoch);
            }
        }
        (lane, sender)
    }

    /// Runs until a drain has finished (`Ok`) or the lane cannot go on (`Err`: start a new one).
    pub fn run(mut self) -> Result<(), LaneError> {
        let group = Group::join(&self.settings.connection, &self.topics)?;
        let ended = self.turn_until_left(&group);
        if ended.is_ok() {
            self.stay_for_the_others(&group);
        }
        let unanswered = match (&self.unassigned, self.asked_back.is_empty()) {
            (Some(partitions), _) => Unanswered::Assignment(partitions.keys().copied().collect()),
            (None, false) => Unanswered::Revocation(std::mem::take(&mut self.asked_back)),
            (None, true) => Unanswered::Nothing,
        };
        for held in self.batches.values().filter_map(|held| held.task.as_ref()) {
            held.abort();
        }
        group.leave(&unanswered);
        ended
    }

    fn turn_until_left(&mut self, group: &Group) -> Result<(), LaneError> {
        let (mut ticked, mut reported, mut looked) = (Instant::now(), Instant::now(), Instant::now());
        while !self.left {
            self.take_records(group)?;
            self.take_moves(group)?;
            self.take_answers(group)?;
            self.settle_what_is_ready(group)?;
            if self.should_close() {
                self.close(group)?;
            }
            self.swap_model(group)?;
            self.carry_out(group)?;
            self.pressure(group)?;
            if ticked.elapsed() >= TICK {
                ticked = Instant::now();
                self.behind = self.waits_in_log(group) > self.model.pipeline.batch.rows_max;
                self.events.push_back(Event::Tick);
                self.carry_out(group)?;
            }
            if reported.elapsed() >= REPORT {
                reported = Instant::now();
                self.report(group);
                self.evolve_again(group)?;
                self.release(group, |wait| wait == Wait::Error)?;
            }
            if looked.elapsed() >= reading::TOPICS_EVERY {
                looked = Instant::now();
                self.look_at_topics(group);
            }
        }
        Ok(())
    }

    /// A member that leaves begins a new generation of the group, in which the last commits of this worker's other lanes
    /// would be refused. So all of them finish before the first one leaves.
    fn stay_for_the_others(&mut self, group: &Group) {
        self.shared.unfinished.fetch_sub(1, Ordering::AcqRel);
        let until = Instant::now() + LEAVE_TOGETHER;
        while self.shared.unfinished.load(Ordering::Acquire) > 0 && Instant::now() < until {
            // Polling serves the group; a record that still comes stays in the log.
            std::thread::sleep(IDLE);
            let served = group
                .poll()
                .map(|_| ())
                .map_err(LaneError::from)
                .and_then(|()| self.take_moves(group));
            if let Err(error) = served {
                tracing::debug!(lane = self.settings.slot, %error, "while the other lanes finish");
                return;
            }
        }
    }

    fn take_records(&mut self, group: &Group) -> Result<(), LaneError> {
        let taken = self.take_some(group);
        self.count_taken();
        taken
    }

    /// Nothing came: until something may have, or an answer is there.
    fn rest(&mut self) {
        if self.early.is_none() {
            self.early = self.inbox.recv_timeout(IDLE).ok();
        }
    }

    fn take_some(&mut self, group: &Group) -> Result<(), LaneError> {
        for nth in 0..RECORDS_A_TURN {
            if self.sated || self.has_no_room() {
                if nth == 0 {
                    group.serve()?;
                    self.rest();
                }
                break;
            }
            match group.poll()? {
                Polled::Record(message) => self.record(group, &message)?,
                Polled::Nothing => {
                    if nth == 0 {
                        self.rest();
                    }
                    break;
                }
                Polled::OffsetGone(partition) => {
                    self.ask_for_oldest(group, vec![partition]);
                    self.interrupted(group, partition, Wait::Gone)?;
                }
                Polled::Trouble(partition, _) => self.interrupted(group, partition, Wait::Error)?,
            }
        }
        Ok(())
    }

    fn take_moves(&mut self, group: &Group) -> Result<(), LaneError> {
        while let Some(moved) = group.moved() {
            match moved {
                Moved::Assigned(partitions) => {
                    if partitions.is_empty() {
                        group.assign(&[])?;
                    } else {
                        self.unassigned = Some(partitions.iter().map(|partition| (*partition, None)).collect());
                        self.events.push_back(Event::Assigned(partitions));
                    }
                }
                Moved::RevokeAsked(partitions) if partitions.is_empty() => group.unassign(&[])?,
                Moved::RevokeAsked(partitions) => {
                    self.asked_back.clone_from(&partitions);
                    self.events.push_back(Event::RevokeAsked(partitions));
                }
                Moved::Lost(partitions) => {
                    tracing::warn!(
                        lane = self.settings.slot,
                        count = partitions.len(),
                        "partitions lost to another member"
                    );
                    let held: Vec<_> = partitions
                        .iter()
                        .copied()
                        .filter(|partition| self.flows.contains_key(partition))
                        .collect();
                    if let Some(waiting) = &mut self.unassigned {
                        waiting.retain(|partition, _| !partitions.contains(partition));
                    }
                    self.asked_back.retain(|partition| !partitions.contains(partition));
                    partitions.iter().for_each(|partition| {
                        self.flows.remove(partition);
                    });
                    group.unassign(&held)?;
                    self.events.push_back(Event::Lost(partitions));
                }
            }
            self.carry_out(group)?;
        }
        Ok(())
    }

    fn take_answers(&mut self, group: &Group) -> Result<(), LaneError> {
        while let Some(message) = self.early.take().or_else(|| self.inbox.try_recv().ok()) {
            match message {
                Inbox::Answered(Answer::Ready(epoch)) => self.events.push_back(Event::ProducerReady { epoch }),
                Inbox::Answered(Answer::Ended(epoch, end)) => {
                    tracing::debug!(lane = self.settings.slot, epoch, ?end, "transaction ended");
                    self.transaction_ended(epoch, &format!("{end:?}").to_lowercase());
                    self.events.push_back(Event::TxnEnded { epoch, end });
                }
                Inbox::Offsets { epoch, offsets } => self.offsets(epoch, offsets),
                Inbox::TopicReplaced(topic) => self.topic_replaced(topic),
                Inbox::Delivered { batch, outcome } => {
                    if outcome == Delivered::Clean {
                        if let Some(held) = self.batches.get_mut(&batch) {
                            held.delivered();
                        }
                        if self.may_ride() {
                            self.close(group)?;
                        }
                    }
                    self.events.push_back(Event::Delivered { batch, outcome });
                }
                Inbox::ReadBack {
                    partition,
                    ticket,
                    present,
                } => self.read_back(partition, ticket, present),
                Inbox::Documents {
                    partition,
                    ticket,
                    documents,
                } => self.pinned(partition, ticket, documents),
                Inbox::Schema { id, schema } => self.schema_arrived(group, id, schema)?,
                Inbox::Belongs { source, id, belongs } => self.belonging(group, source, id, belongs)?,
                Inbox::Oldest(oldest, asked) => self.offsets_gone(group, oldest, &asked)?,
                Inbox::Model(model, revision) => self.next_model = Some((model, revision)),
                Inbox::Drain => self.events.push_back(Event::Drain),
            }
            self.carry_out(group)?;
        }
        Ok(())
    }

    fn now(&self) -> Now {
        Now {
            monotonic_ms: self.began.elapsed().as_millis() as u64,
            sink_ms: self.shared.sinks.clock.now_ms(),
        }
    }

    /// Newer shapes or rules take effect between two batches.
    fn swap_model(&mut self, group: &Group) -> Result<(), LaneError> {
        if self.collector.records() > 0 || self.next_model.is_none() {
            return Ok(());
        }
        if let Some((model, revision)) = self.next_model.take() {
            let reshaped = model.version != self.model.version;
            self.model = model;
            self.revision = revision;
            self.shared.metrics.rules_revision.set(self.revision.number);
            if self.brake.release() {
                self.shared.health.part(&self.settings.slot).ready(true, "");
            }
            if reshaped {
                self.plans.retain(|((version, _, _), _)| *version == self.model.version);
                self.foreign.retain(|_, found| matches!(found, Foreign::Asked));
                self.restart_settlings(group)?;
            }
            self.release(group, |wait| matches!(wait, Wait::Model | Wait::Brake))?;
        }
        Ok(())
    }
}
