//! The state machine of one lane. Every decision about promises, commits, doubt and hand-back is made here, and only
//! here; the hands do what the actions say and report what happened.
//!
//! **Invariant:** a batch is delivered only after the transaction that promises all of its ranges was confirmed.
//! **Invariant:** an offset is committed past a range only after every sink acknowledged the range cleanly or was read
//! back. **Invariant:** after any doubt nothing in memory is trusted: offsets and promises are read again, and only
//! after a new producer has fenced the old one if the doubt was about a transaction.
//! **Invariant:** without a promise, no row from the partition's `fed` on is in a rollup: rollups are fed under a promise
//! alone, and a promise ends only by a commit past what it may have fed, or by being settled.
//!
//! With [`Guarantee::AtLeastOnce`] only the second one holds, and that nothing in memory is trusted after doubt:
//! `at_least_once` says what takes the place of the others.

mod feeding;
mod transactions;
mod at_least_once;
mod leaving;

use std::collections::{BTreeMap, VecDeque};

use crate::promise::{Marks, Metadata, Promise};
use crate::witnesses::disagreement;
use crate::words::{
    Action, BatchId, Delivered, Event, Guarantee, Kind, Now, Offsets, Partition, Range, RangeOutput, StopCode, Stored,
    Wanted,
};

/// An aborted transaction is begun again this often before everything is read again.
const ABORTS_MAX: u32 = 10;
/// The wait before the first repetition, milliseconds; it doubles each time up to [`ABORT_WAIT_MAX_MS`].
const ABORT_WAIT_MS: u64 = 10;
const ABORT_WAIT_MAX_MS: u64 = 640;

/// What the machine has to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Whether anything is promised.
    pub guarantee: Guarantee,
    /// From a promise to its deadline, milliseconds.
    pub deadline_span_ms: i64,
    /// How long a hand-back or a drain may wait for in-flight work, milliseconds; past it the batch is abandoned.
    pub hand_back_wait_ms: u64,
    /// A transaction that takes longer hangs: the producer is discarded, milliseconds.
    pub transaction_watchdog_ms: u64,
    /// Rollups are fed this often, milliseconds.
    pub feed_every_ms: u64,
    /// How many offsets of a partition are fed at once, so that a feeding ends soon whatever has gathered.
    pub feed_max: i64,
    /// Revision of the pipeline file.
    pub pipeline: u64,
    /// The gRPC sinks of the pipeline, as [`sink_id`](crate::sink_id) names them.
    pub sinks: Vec<u64>,
    /// Distinguishes the tokens of this incarnation of the lane from those of every other one.
    pub token_seed: u64,
}

/// Numbers for metrics and health.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    /// Partitions that the lane owns, stopped ones included.
    pub owned: usize,
    /// Partitions that wait for a promise to be settled.
    pub doubtful: usize,
    /// Partitions that need an operator.
    pub stopped: Vec<(Partition, StopCode)>,
    /// True while a batch is promised and not yet committed; with [`Guarantee::AtLeastOnce`], while one is delivered.
    pub busy: bool,
    /// Prepared batches that wait for their promise.
    pub waiting: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Phase {
    /// The offset is being read by the read of this number; `None`: as soon as there is a producer.
    Reading(Option<u64>),
    /// Nothing is in doubt; new ranges start at `next`; what is committed is in the rollups up to `fed`.
    Flowing { next: i64, fed: i64 },
    /// A promise was found; it has to be settled before anything new.
    Doubtful(Promise),
    /// An operator has to act.
    Stopped(StopCode),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Owned {
    phase: Phase,
    /// Of the committed offset; known once it was read.
    marks: Marks,
    /// Topic and sinks were asked since the group gave the partition.
    witnessed: bool,
    /// What was read when topic or sinks contradicted it. They were asked a moment later, when others may have gone on: only
    /// if the same is read again do they contradict it in truth.
    suspected: Option<(i64, Metadata)>,
    /// Where the partition begins, as long as no offset of it is committed. Until then a restart could begin elsewhere
    /// (`start: latest`), and leave out what came in between.
    beginning: Option<i64>,
    /// False while the driver may hold collected records that are in no prepared batch.
    quiet: bool,
}

impl Owned {
    /// Whether `stored`, which disagrees with itself or with its witnesses, does so in truth.
    fn confirms(&mut self, stored: &Stored, guarantee: Guarantee) -> bool {
        let alone = Stored {
            witnesses: None,
            ..stored.clone()
        };
        let (Ok(metadata), Ok(())) = (&stored.metadata, disagreement(&alone, guarantee)) else {
            return true;
        };
        let read = Some((stored.offset, metadata.clone()));
        let again = self.suspected == read;
        self.suspected = read;
        again
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Batch {
    id: BatchId,
    kind: Kind,
    ranges: Vec<RangeOutput>,
    rules: (u64, u64),
    /// For each range the attempt number that a promise of it carries.
    attempts: Vec<u16>,
    token: u64,
    deadline_ms: Option<i64>,
    /// What it feeds to the rollups beside what it delivers; chosen when it is promised.
    feeds: Vec<Range>,
    delivered: bool,
}

impl Batch {
    fn needs_promise(&self) -> bool {
        !matches!(self.kind, Kind::Recovery { missing: false })
    }

    /// Partitions of which it delivers something to sinks; the others take part so that rollups are fed.
    fn delivers(&self) -> impl Iterator<Item = Partition> + '_ {
        let ranges = self.ranges.iter().map(|output| output.range);
        ranges
            .filter(|range| range.start < range.end)
            .map(|range| range.partition)
    }

    fn holds(&self, partition: Partition) -> bool {
        self.ranges.iter().any(|output| output.range.partition == partition)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct OpenTransaction {
    epoch: u64,
    since_ms: u64,
    commits: bool,
    /// Taken out of `prepared` while its promise is under way.
    promised: Option<Batch>,
    /// Partitions of which it commits the first offset ever.
    beginnings: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Producer {
    Ready,
    /// Asked for with this epoch; until it is there nothing is read, promised or committed.
    Renewing(u64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Revoking {
    partitions: Vec<Partition>,
    since_ms: u64,
}

/// The state machine of one lane: [`Lane::step`] takes an event and answers with actions, in the order to carry out. It can
/// be copied and compared, so that a search can try each of several events on the same state.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lane {
    settings: Settings,
    owned: BTreeMap<Partition, Owned>,
    prepared: VecDeque<Batch>,
    current: Option<Batch>,
    /// Delivered, and not committed yet while the next one is delivered: with [`Guarantee::AtLeastOnce`] alone.
    acknowledged: Option<Batch>,
    transaction: Option<OpenTransaction>,
    /// Transactions that were aborted since the last one that was committed.
    aborts: u32,
    /// No transaction begins before this, milliseconds of the monotonic clock.
    begin_at_ms: u64,
    /// Deliveries in doubt since the last commit, and before when none begins after that: with [`Guarantee::AtLeastOnce`]
    /// alone, where no deadline is waited for.
    doubts: u32,
    deliver_at_ms: u64,
    /// When the rollups of each topic were fed last, milliseconds of the monotonic clock.
    fed_at_ms: BTreeMap<u16, u64>,
    producer: Producer,
    revoking: Option<Revoking>,
    draining_since_ms: Option<u64>,
    left: bool,
    counter: u64,
}

impl Lane {
    /// A lane that owns nothing yet, and the first action: a producer.
    pub fn new(settings: Settings) -> (Lane, Vec<Action>) {
        let lane = Lane {
            settings,
            owned: BTreeMap::new(),
            prepared: VecDeque::new(),
            current: None,
            acknowledged: None,
            transaction: None,
            aborts: 0,
            begin_at_ms: 0,
            doubts: 0,
            deliver_at_ms: 0,
            fed_at_ms: BTreeMap::new(),
            producer: Producer::Renewing(1),
            revoking: None,
            draining_since_ms: None,
            left: false,
            counter: 1,
        };
        let epoch = 1;
        (lane, vec![Action::NewProducer { epoch }])
    }

    /// Takes what happened and says what to do.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Assigned(partitions) => self.assigned(partitions, &mut actions),
            Event::RevokeAsked(partitions) => self.revoke_asked(now, partitions, &mut actions),
            Event::Lost(partitions) => self.lost(&partitions, &mut actions),
            Event::OffsetsRead { epoch, offsets } => self.offsets_read(epoch, offsets, &mut actions),
            Event::Prepared {
                batch,
                kind,
                ranges,
                rules,
            } => self.prepared(batch, kind, ranges, rules, &mut actions),
            Event::Unsettled(partition, code) => self.unsettled(partition, code, &mut actions),
            Event::Quiet(partitions) => self.quiet(&partitions),
            Event::TxnEnded { epoch, end } => self.transaction_ended(now, epoch, end, &mut actions),
            Event::Delivered { batch, outcome } => self.delivered(now, batch, outcome, &mut actions),
            Event::ProducerReady { epoch } => self.producer_ready(epoch, &mut actions),
            Event::Drain => self.drain(now, &mut actions),
            Event::Tick => self.tick(now, &mut actions),
        }
        self.advance(now, &mut actions);
        actions
    }

    /// Where the lane stands, for metrics and health.
    pub fn standing(&self) -> Standing {
        Standing {
            owned: self.owned.len(),
            doubtful: self
                .owned
                .values()
                .filter(|owned| matches!(owned.phase, Phase::Doubtful(_)))
                .count(),
            stopped: self
                .owned
                .iter()
                .filter_map(|(p, o)| stop_of(o).map(|code| (*p, code)))
                .collect(),
            busy: self.current.is_some() || (self.promises() && self.transaction.is_some()),
            waiting: self.prepared.len(),
        }
    }

    fn promises(&self) -> bool {
        self.settings.guarantee == Guarantee::ExactlyOnce
    }

    fn count(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    // --- the group ---------------------------------------------------------------------------------------------------

    fn assigned(&mut self, partitions: Vec<Partition>, actions: &mut Vec<Action>) {
        for partition in &partitions {
            self.owned.insert(
                *partition,
                Owned {
                    phase: Phase::Reading(None),
                    marks: Marks::default(),
                    witnessed: false,
                    suspected: None,
                    beginning: None,
                    quiet: true,
                },
            );
        }
        self.read(actions);
    }

    /// Offsets are read only when no transaction of an earlier producer can still change them.
    fn read(&mut self, actions: &mut Vec<Action>) {
        if self.producer != Producer::Ready || self.draining_since_ms.is_some() {
            return;
        }
        let epoch = self.count();
        let mut partitions = Vec::new();
        for (partition, owned) in &mut self.owned {
            if owned.phase == Phase::Reading(None) && !is_revoking(&self.revoking, *partition) {
                owned.phase = Phase::Reading(Some(epoch));
                let (partition, witnesses) = (*partition, !owned.witnessed);
                partitions.push(Wanted { partition, witnesses });
            }
        }
        if !partitions.is_empty() {
            actions.push(Action::ReadOffsets { epoch, partitions });
        }
    }

    fn offsets_read(&mut self, epoch: u64, offsets: Offsets, actions: &mut Vec<Action>) {
        let guarantee = self.settings.guarantee;
        for (partition, stored) in offsets {
            let Some(owned) = self.owned.get_mut(&partition) else {
                continue;
            };
            let leaving = self.draining_since_ms.is_some() || is_revoking(&self.revoking, partition);
            if owned.phase != Phase::Reading(Some(epoch)) || leaving {
                continue;
            }
            // A partition whose beginning is not committed yet still begins where it was said to.
            let kept = owned.beginning.filter(|_| owned.witnessed && !stored.committed);
            let next = kept.unwrap_or(stored.offset);
            // Kafka drops a group's offsets with their topic, even while the group has members.
            let vanished = owned.witnessed && !stored.committed && kept.is_none();
            let stop = disagreement(&stored, guarantee).err();
            if stop.is_some() && !owned.confirms(&stored, guarantee) {
                owned.phase = Phase::Reading(None);
                continue;
            }
            let stop = stop.or(vanished.then_some(StopCode::OffsetBehind));
            owned.witnessed |= stored.witnesses.is_some() && stop.is_none();
            let found = stored
                .metadata
                .as_ref()
                .ok()
                .and_then(Metadata::marks)
                .cloned()
                .unwrap_or_default();
            let told = stored.witnesses.as_ref().and_then(|witnesses| witnesses.topic);
            owned.marks = Marks {
                topic: told.or(found.topic).or(owned.marks.topic),
                sinks: found.sinks,
            };
            owned.beginning = (!stored.committed && stop.is_none()).then_some(next);
            owned.phase = match (stop, stored.metadata) {
                (Some(code), _) => Phase::Stopped(code),
                (None, Err(_)) => Phase::Stopped(StopCode::PromiseUnreadable),
                (None, Ok(Metadata::Nothing)) => Phase::Flowing { next, fed: next },
                (None, Ok(Metadata::Settled { fed, .. })) => Phase::Flowing { next, fed },
                (None, Ok(Metadata::Promised(promise))) => Phase::Doubtful(promise),
            };
            actions.push(match &owned.phase {
                Phase::Doubtful(promise) => Action::Settle {
                    partition,
                    promise: promise.clone(),
                },
                Phase::Stopped(code) => Action::Stop(partition, *code),
                _ => Action::Collect { partition, from: next },
            });
            owned.quiet = !matches!(owned.phase, Phase::Flowing { .. });
        }
        self.read(actions);
    }

    fn revoke_asked(&mut self, now: Now, partitions: Vec<Partition>, actions: &mut Vec<Action>) {
        let mut all = partitions;
        if let Some(earlier) = self.revoking.take() {
            all.extend(earlier.partitions);
        }
        all.sort_unstable();
        all.dedup();
        let idle: Vec<Partition> = all.iter().copied().filter(|p| !self.flows(*p)).collect();
        if !idle.is_empty() {
            actions.push(Action::Forget(idle));
        }
        actions.push(Action::StopCollecting(all.clone()));
        self.revoking = Some(Revoking {
            partitions: all,
            since_ms: now.monotonic_ms,
        });
    }

    fn phase(&mut self, partition: Partition) -> Option<&mut Phase> {
        self.owned.get_mut(&partition).map(|owned| &mut owned.phase)
    }

    fn flows(&self, partition: Partition) -> bool {
        matches!(
            self.owned.get(&partition),
            Some(Owned {
                phase: Phase::Flowing { .. },
                ..
            })
        )
    }

    fn quiet(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            if let Some(owned) = self.owned.get_mut(partition) {
                owned.quiet = true;
            }
        }
    }

    /// Others own these partitions already. Whatever is in flight for them cannot be committed by us; the broker
    /// refuses it. Everything is read again, because batches mix partitions.
    fn lost(&mut self, partitions: &[Partition], actions: &mut Vec<Action>) {
        for partition in partitions {
            self.owned.remove(partition);
        }
        if let Some(revoking) = &mut self.revoking {
            revoking.partitions.retain(|p| !partitions.contains(p));
            if revoking.partitions.is_empty() {
                self.revoking = None;
            }
        }
        actions.push(Action::Forget(partitions.to_vec()));
        self.abandon(false, actions);
    }

    // --- batches -----------------------------------------------------------------------------------------------------

    fn prepared(
        &mut self,
        id: BatchId,
        kind: Kind,
        ranges: Vec<RangeOutput>,
        rules: (u64, u64),
        actions: &mut Vec<Action>,
    ) {
        let checked = match kind {
            Kind::New => self.admit_new(&ranges),
            Kind::Recovery { .. } => self.admit_recovery(&ranges, rules),
        };
        let token = self.token(id);
        match checked {
            Ok(attempts) => {
                let batch = Batch {
                    id,
                    kind,
                    ranges,
                    rules,
                    attempts,
                    token,
                    deadline_ms: None,
                    feeds: Vec::new(),
                    delivered: false,
                };
                // Settling goes first: partitions in doubt have waited the longest.
                match kind {
                    Kind::New => self.prepared.push_back(batch),
                    Kind::Recovery { .. } => self.prepared.push_front(batch),
                }
            }
            Err(Refused::Stale) => {
                actions.push(Action::Drop(id));
                self.abandon(false, actions);
            }
            Err(Refused::Differs(stopped)) => {
                actions.push(Action::Drop(id));
                for partition in stopped {
                    self.stop(partition, StopCode::DigestDiffers, actions);
                }
                for output in &ranges {
                    let partition = output.range.partition;
                    if let Some(Owned {
                        phase: Phase::Doubtful(promise),
                        ..
                    }) = self.owned.get(&partition)
                    {
                        actions.push(Action::Settle {
                            partition,
                            promise: promise.clone(),
                        });
                    }
                }
            }
        }
    }

    /// New ranges tile the log: each starts where the last one of its partition ended.
    fn admit_new(&mut self, ranges: &[RangeOutput]) -> Result<Vec<u16>, Refused> {
        let tiles = ranges.iter().all(|output| {
            output.range.end > output.range.start
                && matches!(self.owned.get(&output.range.partition),
                    Some(Owned { phase: Phase::Flowing { next, .. }, .. }) if *next == output.range.start)
        });
        if ranges.is_empty() || !tiles {
            return Err(Refused::Stale);
        }
        for output in ranges {
            if let Some(Phase::Flowing { next, .. }) = self.phase(output.range.partition) {
                *next = output.range.end;
            }
        }
        Ok(vec![0; ranges.len()])
    }

    fn admit_recovery(&mut self, ranges: &[RangeOutput], rules: (u64, u64)) -> Result<Vec<u16>, Refused> {
        let mut attempts = Vec::new();
        let mut differing = Vec::new();
        for output in ranges {
            let Some(Owned {
                phase: Phase::Doubtful(promise),
                ..
            }) = self.owned.get(&output.range.partition)
            else {
                return Err(Refused::Stale);
            };
            let same_range = promise.start == output.range.start && promise.end == output.range.end;
            let same = same_range
                && promise.digest == output.digest
                && promise.outputs == output.outputs
                && promise.rules == rules
                && promise.unknown_schemas == output.unknown_schemas;
            if !same {
                differing.push(output.range.partition);
            }
            attempts.push(promise.attempt.saturating_add(1));
        }
        if !differing.is_empty() {
            return Err(Refused::Differs(differing));
        }
        Ok(attempts)
    }

    fn unsettled(&mut self, partition: Partition, code: StopCode, actions: &mut Vec<Action>) {
        // Stopping the first partition of a topic makes the lane read the others again: they are another topic's, too.
        let read_again = matches!(
            self.owned.get(&partition).map(|owned| &owned.phase),
            Some(Phase::Reading(_))
        );
        if read_again && code == StopCode::TopicReplaced {
            return self.stop(partition, code, actions);
        }
        if matches!(
            self.owned.get(&partition),
            Some(Owned {
                phase: Phase::Doubtful(_) | Phase::Flowing { .. },
                ..
            })
        ) {
            let mixed = self.flows(partition) || self.in_flight(partition);
            self.stop(partition, code, actions);
            if mixed {
                self.abandon(false, actions);
            }
        }
    }

    fn stop(&mut self, partition: Partition, code: StopCode, actions: &mut Vec<Action>) {
        if let Some(owned) = self.owned.get_mut(&partition) {
            owned.phase = Phase::Stopped(code);
            owned.quiet = true;
            actions.push(Action::Forget(vec![partition]));
            actions.push(Action::Stop(partition, code));
        }
    }

    fn delivered(&mut self, now: Now, id: BatchId, outcome: Delivered, actions: &mut Vec<Action>) {
        let Some(batch) = self.current.as_mut().filter(|batch| batch.id == id) else {
            return;
        };
        match outcome {
            Delivered::Clean => batch.delivered = true,
            Delivered::Doubt => {
                self.abandon(false, actions);
                self.wait_after_doubt(now);
            }
            Delivered::Impossible(partitions) => {
                for (partition, code) in partitions {
                    self.stop(partition, code, actions);
                }
                self.abandon(false, actions);
            }
        }
    }
}

enum Refused {
    /// The ranges are not what the lane owns and expects.
    Stale,
    /// Rebuilding gave something else than was promised, for these partitions.
    Differs(Vec<Partition>),
}

fn stop_of(owned: &Owned) -> Option<StopCode> {
    match owned.phase {
        Phase::Stopped(code) => Some(code),
        _ => None,
    }
}

fn is_revoking(revoking: &Option<Revoking>, partition: Partition) -> bool {
    revoking
        .as_ref()
        .is_some_and(|revoking| revoking.partitions.contains(&partition))
}
