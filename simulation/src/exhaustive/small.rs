//! The small world: a value that can be copied, compared and asked what could happen next.

mod hands;
mod servers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::Hash;

use exactly_once_protocol::{
    Action, BatchId, Delivered, Event, Guarantee, Lane, Metadata, Partition, Promise, Range, RangeOutput, Settings,
    Transaction, TxnEnd, Wanted,
};
use xxhash_rust::xxh3::Xxh3;

use super::Move;

const LANES: usize = 2;
const PARTITIONS: [Partition; 2] = [
    Partition { topic: 0, partition: 0 },
    Partition { topic: 0, partition: 1 },
];
const BILLING: u64 = 77;
const TOPIC_ID: u128 = 4_711;
const SPAN_MS: i64 = 100;
/// When time passes, every deadline does.
const PASSES_MS: i64 = SPAN_MS + 1;

/// How much may happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// Where each partition's log ends: so many ranges of one offset each.
    pub ranges: i64,
    /// Lanes that die.
    pub crashes: u8,
    /// Answers that are lost, and messages that are delayed past their client's patience.
    pub lost: u8,
    /// Partitions that are asked back.
    pub asked: u8,
    /// Lanes that are expelled.
    pub expelled: u8,
    /// How often time passes.
    pub passes: u8,
    /// Both lanes have begun: their producers are there and the beginnings of their partitions are committed.
    pub begun: bool,
    /// Taken away: the fence for members of older generations.
    pub no_fence: bool,
    /// Taken away: the deadline.
    pub no_deadline: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Txn {
    epoch: u64,
    transaction: Transaction,
    generation: u8,
    producer: u8,
    /// Its offsets have arrived.
    sent: bool,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Open {
    producer: u8,
    transaction: Transaction,
    ranges: Vec<Range>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum News {
    Assigned(Vec<Partition>, u8),
    RevokeAsked(Partition),
    Lost(Vec<Partition>, u8),
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Held {
    ranges: Vec<Range>,
    rows: Vec<(Partition, i64)>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Hands {
    machine: Lane,
    incarnation: u8,
    generation: u8,
    news: VecDeque<News>,
    producer: u8,
    init: Option<u64>,
    read: Option<(u64, Vec<Wanted>)>,
    txn: Option<Txn>,
    flows: BTreeMap<Partition, i64>,
    settling: BTreeMap<Partition, Promise>,
    batches: BTreeMap<BatchId, Held>,
    next_batch: BatchId,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Insert {
    token: u64,
    deadline_ms: i64,
    rows: Vec<(Partition, i64)>,
    started: bool,
    /// Whom to answer: lane, incarnation, batch.
    asker: Option<(usize, u8, BatchId)>,
}

/// A state.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Small {
    bounds: Bounds,
    /// More than one fault of those that befall a lane may happen.
    several: bool,
    now_ms: i64,
    lanes: Vec<Hands>,
    generation: u8,
    incarnations: u8,
    owners: [usize; 2],
    /// Asked of the first for the second.
    moving: Option<(Partition, usize, usize)>,
    epochs: [u8; LANES],
    open: [Option<Open>; LANES],
    /// Ends on their way whose clients have given up: lane and epoch.
    late: BTreeSet<(usize, u8)>,
    committed: BTreeMap<Partition, (i64, Metadata)>,
    inserts: Vec<Insert>,
    rows: BTreeSet<(Partition, i64)>,
    alerts: BTreeSet<(Partition, i64)>,
    cursors: BTreeMap<Partition, i64>,
    promised: BTreeMap<(Partition, i64), i64>,
    /// What must not be.
    pub wrong: Option<String>,
}

fn each(range: Range) -> impl Iterator<Item = (Partition, i64)> {
    (range.start..range.end).map(move |offset| (range.partition, offset))
}

fn output(range: Range) -> RangeOutput {
    RangeOutput {
        range,
        outputs: 1,
        digest: range.start as u128 + 1,
        unknown_schemas: Vec::new(),
        summed: false,
    }
}

impl Small {
    /// The first state.
    pub fn new(bounds: Bounds) -> Small {
        let mut small = Small {
            bounds,
            several: bounds.crashes + bounds.asked + bounds.expelled > 1,
            now_ms: 1_000,
            lanes: Vec::new(),
            generation: 1,
            incarnations: 0,
            owners: [0, 1],
            moving: None,
            epochs: [0; LANES],
            open: [None, None],
            late: BTreeSet::new(),
            committed: BTreeMap::new(),
            inserts: Vec::new(),
            rows: BTreeSet::new(),
            alerts: BTreeSet::new(),
            cursors: BTreeMap::new(),
            promised: BTreeMap::new(),
            wrong: None,
        };
        for (lane, partition) in PARTITIONS.iter().enumerate() {
            let hands = small.fresh();
            small.lanes.push(hands);
            small.give(&[*partition], lane);
        }
        let first = [Move::News, Move::Producer, Move::Read, Move::Offsets, Move::End];
        for what in first.iter().filter(|_| bounds.begun) {
            (0..LANES).for_each(|lane| small.apply(what(lane)));
        }
        small
    }

    /// Lanes and partitions are alike at first: where only one of these faults happens, that it happens to the first
    /// lane is as good as to the other.
    fn may_suffer(&self, lane: usize) -> bool {
        lane == 0 || self.several
    }

    /// Whether something waits for time to pass.
    fn waits(&self) -> bool {
        let waits =
            |hands: &Hands| !hands.settling.is_empty() || (hands.txn.is_none() && hands.machine.standing().busy);
        !self.inserts.is_empty() || self.lanes.iter().any(waits)
    }

    fn fresh(&mut self) -> Hands {
        self.incarnations += 1;
        let (machine, first) = Lane::new(Settings {
            guarantee: Guarantee::ExactlyOnce,
            deadline_span_ms: SPAN_MS,
            hand_back_wait_ms: 150,
            transaction_watchdog_ms: 150,
            feed_every_ms: 1_000_000,
            feed_max: 5,
            sinks: vec![BILLING],
            pipeline: 1,
            token_seed: u64::from(self.incarnations),
        });
        let init = first.into_iter().find_map(|action| match action {
            Action::NewProducer { epoch } => Some(epoch),
            _ => None,
        });
        Hands {
            machine,
            incarnation: self.incarnations,
            generation: self.generation,
            news: VecDeque::new(),
            producer: 0,
            init,
            read: None,
            txn: None,
            flows: BTreeMap::new(),
            settling: BTreeMap::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
        }
    }

    /// A digest over all of it.
    pub fn digest(&self) -> u128 {
        let mut hasher = Xxh3::new();
        self.hash(&mut hasher);
        hasher.digest128()
    }

    /// Whether everything is committed.
    pub fn finished(&self) -> bool {
        let done = |partition: &Partition| match self.committed.get(partition) {
            Some((offset, Metadata::Settled { .. })) => *offset == self.bounds.ranges,
            _ => false,
        };
        PARTITIONS.iter().all(done)
    }

    fn claim(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds && self.wrong.is_none() {
            self.wrong = Some(what());
        }
    }

    fn give(&mut self, partitions: &[Partition], lane: usize) {
        for partition in partitions {
            self.owners[partition.partition as usize] = lane;
        }
        let news = News::Assigned(partitions.to_vec(), self.generation);
        self.lanes[lane].news.push_back(news);
    }

    fn owned_by(&self, lane: usize) -> Vec<Partition> {
        let owned = PARTITIONS.iter().filter(|p| self.owners[p.partition as usize] == lane);
        owned.copied().collect()
    }

    /// A new generation, of which all but `unknowing` hear at once.
    fn rebalance(&mut self, unknowing: Option<usize>) {
        self.generation += 1;
        for (lane, hands) in self.lanes.iter_mut().enumerate() {
            if Some(lane) != unknowing && !hands.news.iter().any(|news| matches!(news, News::Lost(..))) {
                hands.generation = self.generation;
            }
        }
    }

    // --- what can happen ---------------------------------------------------------------------------------------------

    /// Every state that can come next.
    pub fn next(&self) -> Vec<(Move, Small)> {
        let mut all = Vec::new();
        let mut add = |what: Move| {
            let mut next = self.clone();
            next.apply(what);
            all.push((what, next));
        };
        for (lane, hands) in self.lanes.iter().enumerate() {
            if !hands.news.is_empty() {
                add(Move::News(lane));
            }
            if hands.init.is_some() {
                add(Move::Producer(lane));
            }
            if let Some((_, wanted)) = &hands.read
                && !wanted.iter().any(|wanted| self.is_open(wanted.partition))
            {
                add(Move::Read(lane));
            }
            if hands.machine.standing().waiting == 0 {
                for bits in 1..4u8 {
                    let chosen = |p: &Partition| bits & (1 << p.partition) != 0;
                    let ready = |p: &Partition| hands.flows.get(p).is_some_and(|next| *next < self.bounds.ranges);
                    if PARTITIONS.iter().filter(|p| chosen(p)).all(ready) {
                        add(Move::Close(lane, bits));
                    }
                }
            }
            match &hands.txn {
                Some(txn) if txn.sent => {
                    add(Move::End(lane));
                    if self.bounds.lost > 0 {
                        add(Move::EndUnheard(lane));
                        add(Move::EndDelayed(lane));
                    }
                }
                Some(_) => add(Move::Offsets(lane)),
                None if self.open[lane].is_some() => add(Move::TimeOut(lane)),
                None => {}
            }
            for (partition, promise) in &hands.settling {
                let running = self
                    .inserts
                    .iter()
                    .any(|insert| insert.started && insert.token == promise.token);
                if self.bounds.no_deadline || (self.now_ms > promise.deadline_ms && !running) {
                    add(Move::Settle(lane, partition.partition as usize));
                }
            }
            if self.bounds.crashes > 0 && self.may_suffer(lane) {
                add(Move::Crash(lane, 0));
                add(Move::Crash(lane, 1));
            }
            let owned = self.owned_by(lane);
            if self.bounds.expelled > 0 && self.may_suffer(lane) && !owned.is_empty() {
                add(Move::Expel(lane));
            }
            if self.bounds.asked > 0 && self.may_suffer(lane) && self.moving.is_none() {
                owned
                    .iter()
                    .for_each(|partition| add(Move::Ask(lane, partition.partition as usize)));
            }
        }
        for (lane, _) in &self.late {
            add(Move::LateEnd(*lane));
        }
        for (nth, insert) in self.inserts.iter().enumerate() {
            let in_time = self.bounds.no_deadline || self.now_ms < insert.deadline_ms;
            match (insert.started, in_time) {
                (true, _) => {
                    add(Move::Land(nth));
                    if self.bounds.lost > 0 && insert.asker.is_some() {
                        add(Move::LandUnheard(nth));
                    }
                }
                // That it runs for a while matters only as long as time can pass.
                (false, true) if self.bounds.passes == 0 => add(Move::Land(nth)),
                (false, true) => add(Move::Start(nth)),
                (false, false) => add(Move::TooLate(nth)),
            }
            if self.bounds.lost > 0 && insert.asker.is_some() {
                add(Move::InsertDelayed(nth));
            }
        }
        if self.bounds.passes > 0 && self.waits() {
            add(Move::TimePasses);
        }
        all
    }

    fn is_open(&self, partition: Partition) -> bool {
        let writes = |open: &Open| open.transaction.offsets.iter().any(|(of, ..)| *of == partition);
        self.open.iter().flatten().any(writes)
    }

    fn apply(&mut self, what: Move) {
        match what {
            Move::Begin => {}
            Move::News(lane) => self.hear_news(lane),
            Move::Producer(lane) => {
                self.epochs[lane] += 1;
                self.open[lane] = None;
                self.lanes[lane].producer = self.epochs[lane];
                if let Some(epoch) = self.lanes[lane].init.take() {
                    self.feed(lane, Event::ProducerReady { epoch });
                }
            }
            Move::Read(lane) => {
                if let Some((epoch, wanted)) = self.lanes[lane].read.take() {
                    let offsets = wanted.iter().map(|wanted| self.stored(*wanted)).collect();
                    self.feed(lane, Event::OffsetsRead { epoch, offsets });
                }
            }
            Move::Close(lane, bits) => self.close(lane, bits),
            Move::Offsets(lane) => self.offsets(lane),
            Move::End(lane) => {
                let end = if self.end(lane) {
                    TxnEnd::Committed
                } else {
                    TxnEnd::Doubt
                };
                self.ended(lane, end);
            }
            Move::EndUnheard(lane) => {
                self.bounds.lost -= 1;
                self.end(lane);
                self.ended(lane, TxnEnd::Doubt);
            }
            Move::EndDelayed(lane) => {
                self.bounds.lost -= 1;
                self.late.insert((lane, self.lanes[lane].producer));
                self.ended(lane, TxnEnd::Doubt);
            }
            Move::LateEnd(lane) => {
                let epoch = self.late.iter().find(|(of, _)| *of == lane).map(|(_, epoch)| *epoch);
                if let Some(epoch) = epoch {
                    self.late.remove(&(lane, epoch));
                    if epoch == self.epochs[lane] {
                        self.commit(lane);
                    }
                }
            }
            Move::TimeOut(lane) => {
                self.open[lane] = None;
                self.epochs[lane] += 1;
            }
            Move::Start(nth) => self.inserts[nth].started = true,
            Move::Land(nth) => {
                let asker = self.land(nth);
                self.answer(asker, Delivered::Clean);
            }
            Move::LandUnheard(nth) => {
                self.bounds.lost -= 1;
                let asker = self.land(nth);
                self.answer(asker, Delivered::Doubt);
            }
            Move::InsertDelayed(nth) => {
                self.bounds.lost -= 1;
                let asker = self.inserts[nth].asker.take();
                self.answer(asker, Delivered::Doubt);
            }
            Move::TooLate(nth) => {
                let asker = self.inserts.remove(nth).asker;
                self.answer(asker, Delivered::Doubt);
            }
            Move::Settle(lane, partition) => self.settle(lane, PARTITIONS[partition]),
            Move::Crash(lane, to) => {
                self.bounds.crashes -= 1;
                self.moving = self.moving.filter(|(_, from, _)| *from != lane);
                let owned = self.owned_by(lane);
                self.lanes[lane] = self.fresh();
                self.rebalance(None);
                if !owned.is_empty() {
                    self.give(&owned, to);
                }
            }
            Move::Expel(lane) => {
                self.bounds.expelled -= 1;
                self.moving = self.moving.filter(|(_, from, _)| *from != lane);
                let owned = self.owned_by(lane);
                self.rebalance(Some(lane));
                let hands = &mut self.lanes[lane];
                hands.news.clear();
                hands.news.push_back(News::Lost(owned.clone(), self.generation));
                self.give(&owned, (lane + 1) % LANES);
            }
            Move::Ask(lane, partition) => {
                self.bounds.asked -= 1;
                let partition = PARTITIONS[partition];
                self.moving = Some((partition, lane, (lane + 1) % LANES));
                self.lanes[lane].news.push_back(News::RevokeAsked(partition));
            }
            Move::TimePasses => {
                self.bounds.passes -= 1;
                self.now_ms += PASSES_MS;
                (0..LANES).for_each(|lane| self.feed(lane, Event::Tick));
            }
        }
    }
}
