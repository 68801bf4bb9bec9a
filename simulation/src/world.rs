//! The world: servers, lanes, the messages between them, and who moves next.

use exactly_once_protocol::{Cursor, Event, Guarantee, Now};

use crate::Options;
use crate::billing::Billing;
use crate::clickhouse::ClickHouse;
use crate::dice::Dice;
use crate::faults::{Counts, Fault, Rates};
use crate::group::News;
use crate::kafka::{Call, Kafka, Record, TransactionRequest};
use crate::lanes::{Hands, Hurdle};
use crate::mutations::Mutation;
use crate::network::{Address, Answer, Body, Carried, Letter, Membership, Network, Request};
use crate::oracle::Oracle;
use crate::trace::Trace;

/// Lanes, each with a transactional id of its own.
pub const LANES: usize = 2;
/// From a promise to its deadline, milliseconds.
pub const SPAN_MS: i64 = 80;
/// How far past the deadline ClickHouse's clock has to be before anything is read back, milliseconds.
pub const GRACE_MS: i64 = 10;

/// Everything there is.
pub struct World {
    pub(crate) options: Options,
    /// Of the lanes that run now.
    pub(crate) guarantee: Guarantee,
    pub(crate) dice: Dice,
    pub(crate) rates: Rates,
    /// Faults so far.
    pub counts: Counts,
    /// The true time, milliseconds. No lane and no server reads it but through a clock of its own.
    pub now_ms: i64,
    /// What happened.
    pub trace: Trace,
    pub(crate) network: Network,
    pub(crate) kafka: Kafka,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) billing: Billing,
    /// What must hold.
    pub oracle: Oracle,
    pub(crate) lanes: Vec<Hands>,
    /// Source of ids that are never used twice: incarnations, threads, requests, tickets.
    pub(crate) ids: u64,
    /// The newest rules revision.
    pub(crate) rules: u64,
    /// Whether the registry knows the late schema.
    pub(crate) registered: bool,
    /// Where each partition's log ends.
    pub(crate) log_end: i64,
}

impl World {
    /// A world in which nothing has happened yet.
    pub fn new(options: &Options, log_end: i64) -> World {
        let mut dice = Dice::new(options.seed);
        let rates = Rates::draw(&mut dice);
        let rates = if options.calm { rates.calm() } else { rates };
        let switches = options.seed.is_multiple_of(2) && !options.calm;
        let mut world = World {
            options: options.clone(),
            guarantee: if switches {
                Guarantee::ExactlyOnce
            } else {
                options.guarantee
            },
            dice,
            rates,
            counts: Counts::default(),
            now_ms: 1_000,
            trace: Trace::new(options.told),
            network: Network::default(),
            kafka: Kafka::new(LANES),
            clickhouse: ClickHouse::default(),
            billing: Billing::default(),
            oracle: Oracle::new(options),
            lanes: Vec::new(),
            ids: 0,
            rules: 1,
            registered: false,
            log_end,
        };
        world.clickhouse.ahead_ms = world.dice.ms(600) - 300;
        for lane in 0..LANES {
            let ahead_ms = world.dice.ms(600) - 300;
            world.lanes.push(Hands::dead(ahead_ms, 0));
            world.spawn(lane);
        }
        world
    }

    pub(crate) fn mutated(&self, mutation: Mutation) -> bool {
        self.options.mutation == mutation
    }

    pub(crate) fn id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }

    pub(crate) fn note(&mut self, line: impl FnOnce() -> String) {
        self.trace.note(self.now_ms, line);
    }

    /// The clocks of a lane: monotonic since some moment, and what it believes to be ClickHouse's.
    pub(crate) fn clocks(&self, lane: usize) -> Now {
        let hands = &self.lanes[lane];
        Now {
            monotonic_ms: self.now_ms.abs_diff(0) + hands.incarnation * 7,
            sink_ms: self.now_ms + hands.ahead_ms + hands.sink_ahead_ms,
        }
    }

    /// The pipeline file says something else from now on: all lanes are killed, and started again.
    pub fn switch(&mut self) {
        if self.guarantee != self.options.guarantee {
            self.guarantee = self.options.guarantee;
            (0..LANES).for_each(|lane| self.crash(lane));
        }
    }

    /// From now on nothing goes wrong; what went wrong before stays.
    pub fn calm(&mut self) {
        self.rates = self.rates.calm();
        for hands in &mut self.lanes {
            (hands.paused_until_ms, hands.threads_paused_until_ms) = (0, 0);
        }
        self.note(|| "-- faults end --".into());
    }

    /// One move of one of all who can move.
    pub fn step(&mut self) {
        self.now_ms += self.dice.ms(3);
        let lane = self.dice.index(LANES);
        match self.dice.roll(16) {
            0..=5 => self.carry(),
            6 => self.tick(lane),
            7 | 8 => self.collect(lane),
            9..=11 => self.work(lane),
            12 | 13 => {
                let noted = (&self.rates, &mut self.counts, self.options.mutation);
                self.clickhouse.advance(self.now_ms, &mut self.dice, noted);
                self.after_clickhouse();
            }
            14 => self.coordinate(),
            _ => self.trouble(),
        }
    }

    fn tick(&mut self, lane: usize) {
        if !self.is_paused(lane) {
            self.feed(lane, Event::Tick);
        }
    }

    // --- messages ----------------------------------------------------------------------------------------------------

    pub(crate) fn ask(&mut self, lane: Address, request: Request) -> Carried {
        let body = Body::Ask { request, copy: false };
        self.post(lane, body)
    }

    pub(crate) fn tell(&mut self, lane: Address, answer: Answer) {
        self.post(lane, Body::Tell(answer));
    }

    fn post(&mut self, lane: Address, body: Body) -> Carried {
        let sent = (self.now_ms, lane);
        let noted = (&self.rates, &mut self.counts);
        self.network.send(sent, body, &mut self.dice, noted)
    }

    /// A copy of an insert that has begun.
    fn perhaps_again(&mut self, lane: Address, request: Request) {
        if self.rates.doubled_inserts && self.dice.one_in(self.rates.doubled.div_ceil(4)) {
            self.counts.note(Fault::Doubled);
            self.post(lane, Body::Ask { request, copy: true });
        }
    }

    fn carry(&mut self) {
        let hurdles: Vec<Hurdle> = (0..LANES).map(|lane| self.hurdle(lane)).collect();
        let ready = |letter: &Letter| hurdles[letter.lane.lane].lets(letter);
        let arrived = self
            .network
            .arrived(self.now_ms, &mut self.dice, &mut self.counts, ready);
        let Some(letter) = arrived else { return };
        match letter.body {
            Body::Ask { request, copy } => self.serve(letter.lane, request, copy),
            Body::Tell(answer) => {
                if self.lanes[letter.lane.lane].incarnation == letter.lane.incarnation {
                    self.hear(letter.lane.lane, answer);
                }
            }
        }
    }

    /// A server does what it is asked.
    fn serve(&mut self, lane: Address, request: Request, copy: bool) {
        self.note(|| {
            format!(
                "{}.{}{} asks {request:?}",
                lane.lane,
                lane.incarnation,
                if copy { " (copy)" } else { "" }
            )
        });
        let answer = match request {
            Request::Transaction(request) => self.serve_transaction(lane, request),
            Request::Group(membership) => {
                match membership {
                    Membership::Join => self.kafka.group.join(lane, self.now_ms),
                    Membership::HandBack(member, partitions) => self.kafka.group.handed_back(member, &partitions),
                    Membership::Leave(member) => self.kafka.group.leave(member),
                }
                self.send_news();
                None
            }
            Request::Offsets(read, partitions) => {
                let offsets = self.kafka.offsets(&partitions, self.options.mutation);
                Some(Answer::Offsets(read, offsets))
            }
            Request::Cursors(read, partitions) => {
                let cursors = partitions.iter().map(|partition| self.billing.cursor(*partition));
                Some(Answer::Cursors(read, cursors.collect()))
            }
            Request::Deliver(batch, parts) => {
                if self.dice.one_in(self.rates.billing) {
                    self.counts.note(Fault::BillingDown);
                    return;
                }
                let mut outcomes = Vec::new();
                for part in parts {
                    let outcome = self.billing.deliver(&part, self.options.mutation);
                    if outcome == crate::billing::Outcome::AlreadyApplied {
                        self.counts.note(Fault::AlreadyApplied);
                    }
                    outcomes.push((part.range.partition, outcome));
                }
                for part in std::mem::take(&mut self.billing.applied) {
                    self.oracle.charged(&part);
                }
                Some(Answer::Deliver(batch, outcomes))
            }
            Request::Insert(batch, part, insert) => {
                let asker = (!copy).then_some((lane, batch, part));
                let noted = (&self.rates, &mut self.counts, self.options.mutation);
                let begins = self
                    .clickhouse
                    .begin(insert.clone(), asker, self.now_ms, &mut self.dice, noted);
                self.after_clickhouse();
                if begins && !copy {
                    self.perhaps_again(lane, Request::Insert(batch, part, insert));
                }
                None
            }
            // A server that is down answers no question; it is asked again.
            _ if !self.clickhouse.is_up(self.now_ms) => None,
            Request::RowsBeyond(read, reaches) => {
                let beyond = reaches
                    .iter()
                    .map(|(partition, reach)| self.clickhouse.row_beyond(*partition, *reach));
                Some(Answer::RowsBeyond(read, beyond.collect()))
            }
            Request::IsSafe(ticket, promise) => {
                let after_ms = promise.deadline_ms + GRACE_MS;
                let safe = self.clickhouse.is_safe(promise.token, after_ms, self.now_ms);
                Some(Answer::IsSafe(ticket, safe, self.clickhouse.now_ms(self.now_ms)))
            }
            Request::ReadBack(ticket, range, fed) => {
                let present = self.clickhouse.read_back(range, fed, self.options.mutation);
                Some(Answer::ReadBack(ticket, present))
            }
        };
        if let Some(answer) = answer.filter(|_| !copy) {
            self.tell(lane, answer);
        }
    }

    fn serve_transaction(&mut self, lane: Address, mut request: TransactionRequest) -> Option<Answer> {
        if self.mutated(Mutation::AuditOutside)
            && let Call::Produce(records) = &mut request.call
        {
            let beside = |record: &mut Record| matches!(record, Record::Audit(..));
            let audit: Vec<Record> = records.extract_if(.., beside).collect();
            self.oracle.visible(&audit);
        }
        let noted = (self.options.mutation, &mut self.counts);
        let (reply, commit) = self.kafka.carry_out(lane.lane, &request, self.now_ms, noted);
        if let Some(commit) = commit {
            if !self.waits_for(lane, request.thread, request.number) {
                self.counts.note(Fault::LateEnd);
            }
            self.note(|| format!("lane {} commits {commit:?}", lane.lane));
            self.oracle.committed(&commit, &self.clickhouse, &self.billing);
        }
        Some(Answer::Transaction(request.thread, request.number, reply))
    }

    pub(crate) fn send_news(&mut self) {
        for (lane, news) in std::mem::take(&mut self.kafka.group.news) {
            if matches!(news, News::Lost(_)) {
                // What was on its way to it about its membership is void: it hears of the loss first.
                self.network.forget_news(lane, |_| true);
            }
            self.tell(lane, Answer::News(news));
        }
    }

    pub(crate) fn after_clickhouse(&mut self) {
        for ((lane, batch, part), inserted) in std::mem::take(&mut self.clickhouse.answers) {
            self.tell(lane, Answer::Insert(batch, part, inserted));
        }
        for landed in std::mem::take(&mut self.clickhouse.landed) {
            self.note(|| format!("ClickHouse has {landed:?}"));
            self.oracle.landed(&landed);
        }
    }

    // --- what happens by itself
    // ----------------------------------------------------------------------------------------

    fn coordinate(&mut self) {
        for lane in 0..LANES {
            if !self.is_paused(lane) && self.lanes[lane].is_alive() {
                let at = self.address(lane);
                self.kafka.group.hears(at, self.now_ms);
            }
        }
        if self.kafka.time_out(self.now_ms) {
            self.counts.note(Fault::TransactionTimeout);
        }
        if let Some(member) = self.kafka.group.expired(self.now_ms) {
            self.counts.note(Fault::SessionEnded);
            self.kafka.group.expel(member);
        } else if self.dice.one_in(3) {
            self.kafka.group.assign(&mut self.dice);
        }
        self.send_news();
        for lane in 0..LANES {
            let hands = &self.lanes[lane];
            if !hands.is_alive() && self.now_ms >= hands.restart_ms {
                self.spawn(lane);
            }
        }
    }

    fn trouble(&mut self) {
        let lane = self.dice.index(LANES);
        let rates = self.rates.clone();
        if self.dice.one_in(rates.pause) {
            self.counts.note(Fault::Paused);
            let until_ms = self.now_ms + self.dice.ms(300);
            self.lanes[lane].threads_paused_until_ms = until_ms;
            self.lanes[lane].paused_until_ms = until_ms + self.dice.ms(200);
        }
        if self.dice.one_in(rates.expel)
            && let Some(member) = self.kafka.group.any(&mut self.dice)
        {
            self.counts.note(Fault::Expelled);
            let at = self.kafka.group.expel(member);
            // Mostly because it stands still; and its transactions may wake up earlier than the lane.
            if let Some(at) = at.filter(|_| !self.dice.one_in(3)) {
                let until_ms = self.now_ms + self.dice.ms(300);
                self.lanes[at.lane].threads_paused_until_ms = until_ms;
                self.lanes[at.lane].paused_until_ms = until_ms + self.dice.ms(200);
            }
            self.send_news();
        }
        if self.dice.one_in(rates.rebalance) && self.kafka.group.ask(&mut self.dice) {
            self.counts.note(Fault::Rebalance);
            self.send_news();
        }
        if self.dice.one_in(rates.drain) && self.lanes[lane].is_alive() && !self.is_paused(lane) {
            self.counts.note(Fault::Drain);
            self.feed(lane, Event::Drain);
        }
        if self.dice.one_in(rates.kill) {
            let noted = (&rates, &mut self.counts, self.options.mutation);
            let interrupted = self.clickhouse.kill(self.now_ms, &mut self.dice, noted);
            self.note(|| "ClickHouse is killed".into());
            self.after_clickhouse();
            // Something on the way may repeat a request whose connection broke.
            for ((at, batch, part), insert) in interrupted {
                self.perhaps_again(at, Request::Insert(batch, part, insert));
            }
        }
        if self.dice.one_in(rates.sink_clock) {
            self.counts.note(Fault::SinkClock);
            let idle = !self.network.carries_inserts() && self.lanes.iter().all(Hands::holds_no_insert);
            let idle = idle || self.mutated(Mutation::ClockBack);
            self.clickhouse.jump(self.now_ms, GRACE_MS, idle, &mut self.dice);
        }
        if self.dice.one_in(rates.worker_clock) {
            self.counts.note(Fault::WorkerClock);
            self.lanes[lane].ahead_ms += self.dice.ms(600) - 300;
        }
        if self.dice.one_in(rates.rules) {
            self.counts.note(Fault::Rules);
            self.rules += 1;
            self.registered |= self.dice.one_in(2);
        }
    }
}

/// As a lane's machine wants to know it.
pub(crate) fn cursor(told: Option<i64>) -> Cursor {
    told.map_or(Cursor::Nothing, Cursor::At)
}
