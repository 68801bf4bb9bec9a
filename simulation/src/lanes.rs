//! The hands of the lanes: they carry out what the production machine says, over a network that loses messages, and may
//! die before and after each action. As in the worker, transactions run on threads of their own that can be given up,
//! and deliveries, read-backs and readings of offsets go on beside each other.

mod delivering;
mod reading;
mod settling;
mod transacting;

use std::collections::{BTreeMap, VecDeque};

use exactly_once_protocol::{Action, BatchId, Event, FEEDING, Guarantee, Kind, Lane, Partition, Range, Settings};

pub(crate) use delivering::Delivery;
pub(crate) use reading::Reading;
pub(crate) use settling::Settling;
pub(crate) use transacting::Transactor;

use crate::faults::Fault;
use crate::group::News;
use crate::network::{Address, Answer, Body, Letter, Membership, Request};
use crate::source::{Made, output};
use crate::world::{SPAN_MS, World};

/// How the machines' marks name billing.
pub(crate) const BILLING: u64 = 77;
/// A question that is not answered for so long is asked again, milliseconds.
pub(crate) const ASK_AGAIN_MS: i64 = 40;

/// A partition that is read.
#[derive(Debug)]
struct Flow {
    next: i64,
    collecting: bool,
}

/// One range of a batch: what is delivered of it.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub range: Range,
    pub made: Made,
    /// Rows to be inserted; `None`: all.
    pub missing: Option<Vec<i64>>,
    /// What rollups lack.
    pub lacking: Option<Range>,
}

/// A process, or the place where there was one.
pub(crate) struct Hands {
    machine: Option<Lane>,
    pub incarnation: u64,
    /// As the group has told it; 0: no member.
    pub member: u64,
    pub generation: u64,
    flows: BTreeMap<Partition, Flow>,
    settling: BTreeMap<Partition, Settling>,
    batches: BTreeMap<BatchId, Vec<Piece>>,
    next_batch: BatchId,
    readings: BTreeMap<u64, Reading>,
    transactors: Vec<Transactor>,
    deliveries: BTreeMap<BatchId, Delivery>,
    /// What its threads have reported and the machine has not heard yet.
    inbox: VecDeque<Event>,
    made: Made,
    /// Its wall clock is ahead of the true time, milliseconds.
    pub ahead_ms: i64,
    /// What it believes ClickHouse's clock to be ahead of its own.
    pub sink_ahead_ms: i64,
    /// A process that stands still does nothing at all until then; its threads may wake up earlier.
    pub paused_until_ms: i64,
    pub threads_paused_until_ms: i64,
    pub restart_ms: i64,
}

impl Hands {
    /// No process, until a time.
    pub fn dead(ahead_ms: i64, restart_ms: i64) -> Hands {
        Hands {
            machine: None,
            incarnation: 0,
            member: 0,
            generation: 0,
            flows: BTreeMap::new(),
            settling: BTreeMap::new(),
            batches: BTreeMap::new(),
            next_batch: 0,
            readings: BTreeMap::new(),
            transactors: Vec::new(),
            deliveries: BTreeMap::new(),
            inbox: VecDeque::new(),
            made: Made { rules: 1, knew: false },
            ahead_ms,
            sink_ahead_ms: 0,
            paused_until_ms: 0,
            threads_paused_until_ms: 0,
            restart_ms,
        }
    }

    /// Whether there is a process.
    pub fn is_alive(&self) -> bool {
        self.machine.is_some()
    }

    /// Whether it has nothing of which an insert could still come.
    pub fn holds_no_insert(&self) -> bool {
        self.batches.is_empty() && self.deliveries.is_empty()
    }
}

/// Which letters a lane can take now.
pub(crate) struct Hurdle {
    paused: bool,
    threads_paused: bool,
    hanging: Vec<u64>,
}

impl Hurdle {
    /// Servers are always ready.
    pub fn lets(&self, letter: &Letter) -> bool {
        match &letter.body {
            Body::Ask { .. } => true,
            Body::Tell(Answer::Transaction(thread, ..)) => !self.threads_paused && !self.hanging.contains(thread),
            Body::Tell(_) => !self.paused,
        }
    }
}

impl World {
    pub(crate) fn address(&self, lane: usize) -> Address {
        let incarnation = self.lanes[lane].incarnation;
        Address { lane, incarnation }
    }

    /// What each lane is asked for now.
    pub(crate) fn is_exact(&self) -> bool {
        self.guarantee == Guarantee::ExactlyOnce
    }

    /// A charge is never applied twice, so billing is left out of runs that end at least once.
    pub(crate) fn has_billing(&self) -> bool {
        self.options.guarantee == Guarantee::ExactlyOnce
    }

    pub(crate) fn is_paused(&self, lane: usize) -> bool {
        self.now_ms < self.lanes[lane].paused_until_ms
    }

    pub(crate) fn hurdle(&self, lane: usize) -> Hurdle {
        let hands = &self.lanes[lane];
        let hangs = hands.transactors.iter().filter(|thread| thread.hangs(self.now_ms));
        Hurdle {
            paused: self.is_paused(lane),
            threads_paused: self.now_ms < hands.threads_paused_until_ms,
            hanging: hangs.map(|thread| thread.thread).collect(),
        }
    }

    /// A new process.
    pub(crate) fn spawn(&mut self, lane: usize) {
        let incarnation = self.id();
        // Time that passes is no reason for doubt in a run without faults.
        let patience = |ms: i64| if self.options.calm { 100 * ms } else { ms };
        let (machine, first) = Lane::new(Settings {
            guarantee: self.guarantee,
            deadline_span_ms: patience(SPAN_MS),
            hand_back_wait_ms: 400,
            transaction_watchdog_ms: patience(200).unsigned_abs(),
            feed_every_ms: 60,
            feed_max: 5,
            sinks: self.has_billing().then_some(BILLING).into_iter().collect(),
            pipeline: 1,
            token_seed: incarnation,
        });
        let ahead_ms = self.lanes[lane].ahead_ms;
        self.lanes[lane] = Hands {
            machine: Some(machine),
            incarnation,
            made: Made {
                rules: self.rules,
                knew: self.registered,
            },
            ..Hands::dead(ahead_ms, 0)
        };
        if !self.is_exact() {
            self.learn_clock(lane);
        }
        self.note(|| format!("lane {lane} starts as {incarnation}"));
        let at = self.address(lane);
        self.ask(at, Request::Group(Membership::Join));
        self.carry_out(lane, first, &mut VecDeque::new());
    }

    /// Where nothing is settled nobody learns the server's clock by that; a worker asks for it anyway, before it begins and now
    /// and then.
    fn learn_clock(&mut self, lane: usize) {
        if self.clickhouse.is_up(self.now_ms) {
            self.lanes[lane].sink_ahead_ms = self.clickhouse.ahead_ms - self.lanes[lane].ahead_ms;
        }
    }

    pub(crate) fn crash(&mut self, lane: usize) {
        self.counts.note(Fault::Crash);
        self.note(|| format!("lane {lane} crashes"));
        let restart_ms = self.now_ms + self.dice.ms(200);
        self.lanes[lane] = Hands::dead(self.lanes[lane].ahead_ms, restart_ms);
    }

    /// True if the process died here.
    fn dies(&mut self, lane: usize) -> bool {
        let dies = self.dice.one_in(self.rates.crash);
        if dies {
            self.crash(lane);
        }
        dies
    }

    /// The machine takes an event, and what follows is done, in order.
    pub(crate) fn feed(&mut self, lane: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = self.clocks(lane);
            if !matches!(event, Event::Tick) {
                self.note(|| format!("lane {lane} hears {event:?}"));
            }
            let Some(machine) = &mut self.lanes[lane].machine else {
                return;
            };
            let actions = machine.step(now, event);
            if !self.carry_out(lane, actions, &mut events) {
                return;
            }
        }
    }

    /// False if the process died on the way: before or after any of the actions.
    fn carry_out(&mut self, lane: usize, actions: Vec<Action>, events: &mut VecDeque<Event>) -> bool {
        for action in actions {
            if self.dies(lane) {
                return false;
            }
            self.note(|| format!("lane {lane}: {action:?}"));
            self.act(lane, action, events);
            if self.lanes[lane].machine.is_none() {
                return false;
            }
        }
        !self.dies(lane)
    }

    fn act(&mut self, lane: usize, action: Action, events: &mut VecDeque<Event>) {
        let at = self.address(lane);
        match action {
            Action::ReadOffsets { epoch, partitions } => self.read_offsets(lane, epoch, partitions),
            Action::Collect { partition, from } => {
                let flow = Flow {
                    next: from,
                    collecting: true,
                };
                self.lanes[lane].flows.insert(partition, flow);
            }
            Action::Settle { partition, promise } => self.settle(lane, partition, promise),
            Action::Forget(partitions) => self.forget(lane, &partitions),
            Action::Transact { epoch, transaction } => self.transact(lane, epoch, transaction),
            Action::Deliver {
                batch,
                deadline_ms,
                token,
                feeds,
                begins,
            } => self.deliver(lane, batch, (deadline_ms, token), (feeds, begins)),
            Action::Done(batch) | Action::Drop(batch) => {
                self.lanes[lane].batches.remove(&batch);
                self.lanes[lane].deliveries.remove(&batch);
            }
            Action::NewProducer { epoch } => self.new_producer(lane, epoch),
            Action::StopCollecting(partitions) => {
                // What is collected already is closed first, unless nothing is.
                if self.dice.one_in(2)
                    && let Some(prepared) = self.close(lane)
                {
                    events.push_back(prepared);
                }
                for partition in &partitions {
                    if let Some(flow) = self.lanes[lane].flows.get_mut(partition) {
                        flow.collecting = false;
                    }
                }
                events.push_back(Event::Quiet(partitions));
            }
            Action::HandBack(partitions) => {
                for partition in &partitions {
                    self.lanes[lane].flows.remove(partition);
                    self.lanes[lane].settling.remove(partition);
                }
                let member = self.lanes[lane].member;
                self.ask(at, Request::Group(Membership::HandBack(member, partitions)));
            }
            Action::Stop(partition, code) => {
                self.oracle
                    .never(|| format!("lane {lane} stops {partition:?} without cause: {}", code.explain()));
            }
            Action::Leave => {
                let member = self.lanes[lane].member;
                self.ask(at, Request::Group(Membership::Leave(member)));
                let restart_ms = self.now_ms + self.dice.ms(100);
                self.lanes[lane] = Hands::dead(self.lanes[lane].ahead_ms, restart_ms);
            }
        }
    }

    fn forget(&mut self, lane: usize, partitions: &[Partition]) {
        for partition in partitions {
            self.lanes[lane].settling.remove(partition);
            if let Some(flow) = self.lanes[lane].flows.get_mut(partition) {
                flow.collecting = false;
            }
        }
    }

    /// An answer has arrived at its process.
    pub(crate) fn hear(&mut self, lane: usize, answer: Answer) {
        if !self.lanes[lane].is_alive() || self.dies(lane) {
            return;
        }
        match answer {
            Answer::News(news) => self.hear_news(lane, news),
            Answer::Transaction(thread, number, reply) => self.hear_transaction(lane, (thread, number), reply),
            Answer::Offsets(reading, offsets) => self.hear_offsets(lane, reading, offsets),
            Answer::RowsBeyond(reading, rows) => self.hear_rows(lane, reading, rows),
            Answer::Cursors(reading, cursors) => self.hear_cursors(lane, reading, cursors),
            Answer::Insert(batch, part, inserted) => self.hear_insert(lane, batch, part, inserted),
            Answer::Deliver(batch, outcomes) => self.hear_outcomes(lane, batch, &outcomes),
            Answer::IsSafe(ticket, safe, server_ms) => self.hear_safe(lane, ticket, safe, server_ms),
            Answer::ReadBack(ticket, present) => self.hear_present(lane, ticket, &present),
        }
    }

    fn hear_news(&mut self, lane: usize, news: News) {
        let hands = &mut self.lanes[lane];
        match news {
            News::Joined(member, generation) => (hands.member, hands.generation) = (member, generation),
            News::Rebalanced(generation) => hands.generation = generation,
            News::Assigned(partitions, generation) => {
                hands.generation = generation;
                self.feed(lane, Event::Assigned(partitions));
            }
            News::RevokeAsked(partitions) => self.feed(lane, Event::RevokeAsked(partitions)),
            News::Lost(partitions) => {
                hands.member = 0;
                for partition in &partitions {
                    hands.flows.remove(partition);
                    hands.settling.remove(partition);
                }
                self.feed(lane, Event::Lost(partitions));
                if self.lanes[lane].is_alive() {
                    let at = self.address(lane);
                    self.ask(at, Request::Group(Membership::Join));
                }
            }
        }
    }

    /// What a process does without being told: questions are asked again, threads report.
    pub(crate) fn work(&mut self, lane: usize) {
        if !self.lanes[lane].is_alive() {
            return;
        }
        if self.now_ms >= self.lanes[lane].threads_paused_until_ms {
            self.work_on_transactions(lane);
        }
        if self.is_paused(lane) {
            return;
        }
        if !self.is_exact() && self.dice.one_in(8) {
            self.learn_clock(lane);
        }
        self.work_on_readings(lane);
        self.work_on_settling(lane);
        self.work_on_deliveries(lane);
        if let Some(event) = self.lanes[lane].inbox.pop_front() {
            self.feed(lane, event);
        }
    }

    /// A batch closes.
    pub(crate) fn collect(&mut self, lane: usize) {
        let waits = |machine: &Lane| machine.standing().waiting > 0;
        if self.is_paused(lane) || self.lanes[lane].machine.as_ref().is_none_or(waits) {
            return;
        }
        if let Some(prepared) = self.close(lane) {
            self.feed(lane, prepared);
        }
    }

    fn close(&mut self, lane: usize) -> Option<Event> {
        // Rules and schemas reach each process at a time of its own.
        if self.dice.one_in(4) {
            self.lanes[lane].made = Made {
                rules: self.rules,
                knew: self.registered,
            };
        }
        let made = self.lanes[lane].made;
        let mut pieces = Vec::new();
        for (partition, flow) in &mut self.lanes[lane].flows {
            let end = (flow.next + 1 + self.dice.ms(4)).min(self.log_end);
            if flow.collecting && end > flow.next && !self.dice.one_in(3) {
                let range = Range {
                    partition: *partition,
                    start: flow.next,
                    end,
                };
                flow.next = end;
                pieces.push(Piece {
                    range,
                    made,
                    missing: None,
                    lacking: None,
                });
            }
        }
        if pieces.is_empty() {
            return None;
        }
        Some(self.prepared(lane, pieces, Kind::New))
    }

    /// Holds a batch and announces it.
    fn prepared(&mut self, lane: usize, pieces: Vec<Piece>, kind: Kind) -> Event {
        let rules = pieces.first().map(|piece| piece.made.named()).unwrap_or_default();
        let ranges = pieces.iter().map(|piece| output(piece.range, piece.made)).collect();
        let hands = &mut self.lanes[lane];
        hands.next_batch += 1;
        hands.batches.insert(hands.next_batch, pieces);
        Event::Prepared {
            batch: hands.next_batch,
            kind,
            ranges,
            rules,
        }
    }

    /// The pieces of a batch; none if the machine made it itself.
    fn pieces(&mut self, lane: usize, batch: BatchId) -> Vec<Piece> {
        let batches = &mut self.lanes[lane].batches;
        if batch >= FEEDING {
            batches.entry(batch).or_default();
        }
        batches.get(&batch).cloned().unwrap_or_default()
    }
}
