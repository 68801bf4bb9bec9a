//! A lane's transactional producers, each on a thread of its own. One that was given up goes on with what it was doing,
//! as a thread that hangs in a call does; nobody listens to it any more, and its epoch is fenced.

use exactly_once_protocol::{BatchId, Event, Metadata, Partition, Transaction, TxnEnd};

use super::ASK_AGAIN_MS;
use crate::faults::Fault;
use crate::kafka::{Call, Record, TransactionReply, TransactionRequest};
use crate::mutations::Mutation;
use crate::network::{Address, Carried, Request};
use crate::source::{content, digest, offsets};
use crate::world::World;

/// A client that has waited so long for a transaction gives up, milliseconds.
const TRANSACTION_MS: i64 = 150;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Waits for its epoch.
    Init,
    Idle,
    Producing,
    Offsets,
    /// True: commits.
    Ending(bool),
    /// Not to be used any more.
    Over,
}

#[derive(Debug)]
struct Work {
    epoch: u64,
    commits: Option<BatchId>,
    offsets: Vec<(Partition, i64, Metadata)>,
    records: Vec<Record>,
    member: u64,
    generation: u64,
    began_ms: i64,
}

/// One thread with its producer.
#[derive(Debug)]
pub(crate) struct Transactor {
    pub thread: u64,
    /// The machine's number of the producer, until it was told that it is there.
    asked_for: Option<u64>,
    producer: u64,
    stage: Stage,
    number: u64,
    asked_ms: i64,
    /// A request may have been sent twice: after this transaction the producer is made anew.
    broken: bool,
    work: Option<Work>,
    hangs_until_ms: i64,
    /// Another thread has taken its place.
    given_up: bool,
    /// Without transactions: the batch whose records were written, which are not written again when its commit is refused.
    written: Option<BatchId>,
}

impl Transactor {
    /// Whether a call of it hangs.
    pub fn hangs(&self, now_ms: i64) -> bool {
        now_ms < self.hangs_until_ms
    }
}

impl World {
    pub(super) fn new_producer(&mut self, lane: usize, epoch: u64) {
        let thread = self.id();
        let hands = &mut self.lanes[lane];
        hands
            .transactors
            .retain(|old| old.stage != Stage::Over && old.work.is_some());
        hands.transactors.iter_mut().for_each(|old| old.given_up = true);
        hands.transactors.push(Transactor {
            thread,
            asked_for: Some(epoch),
            producer: 0,
            stage: Stage::Init,
            number: 0,
            asked_ms: 0,
            broken: false,
            work: None,
            hangs_until_ms: 0,
            given_up: false,
            written: None,
        });
        self.enter(lane, thread, Stage::Init);
    }

    fn transactor(&mut self, lane: usize, thread: u64) -> Option<&mut Transactor> {
        self.lanes[lane].transactors.iter_mut().find(|one| one.thread == thread)
    }

    /// The thread takes its next step. Calls that wait for the coordinator may hang before they send anything
    /// (librdkafka#5456).
    fn enter(&mut self, lane: usize, thread: u64, stage: Stage) {
        if stage == Stage::Init && !self.is_exact() {
            return self.made(lane, thread);
        }
        let number = self.id();
        let may_hang = matches!(stage, Stage::Init | Stage::Ending(true));
        let hangs_ms = if may_hang && self.dice.one_in(self.rates.hang) {
            self.counts.note(Fault::Hangs);
            60 + self.dice.ms(500)
        } else {
            0
        };
        let until_ms = self.now_ms + hangs_ms;
        if let Some(one) = self.transactor(lane, thread) {
            (one.stage, one.number) = (stage, number);
            one.hangs_until_ms = one.hangs_until_ms.max(until_ms);
        }
        self.request(lane, thread);
    }

    /// A producer without transactions fences nobody, and is there at once.
    fn made(&mut self, lane: usize, thread: u64) {
        if let Some(one) = self.transactor(lane, thread) {
            one.stage = Stage::Idle;
            if let Some(epoch) = one.asked_for.take() {
                self.lanes[lane].inbox.push_back(Event::ProducerReady { epoch });
            }
        }
    }

    /// Sends what the thread waits for.
    fn request(&mut self, lane: usize, thread: u64) {
        let (now_ms, exact) = (self.now_ms, self.is_exact());
        let Some(one) = self.transactor(lane, thread) else {
            return;
        };
        let call = match (&one.stage, &one.work) {
            (Stage::Init, _) => Call::Init,
            (Stage::Producing, Some(work)) if !exact => Call::Write(work.records.clone()),
            (Stage::Offsets, Some(work)) if !exact => Call::Commit(work.member, work.generation, work.offsets.clone()),
            (Stage::Producing, Some(work)) => Call::Produce(work.records.clone()),
            (Stage::Offsets, Some(work)) => Call::Offsets(work.member, work.generation, work.offsets.clone()),
            (Stage::Ending(commit), _) => Call::End(*commit),
            _ => return,
        };
        one.asked_ms = now_ms;
        if matches!(one.stage, Stage::Init | Stage::Ending(true)) && one.hangs(now_ms) {
            return;
        }
        let request = TransactionRequest {
            thread,
            number: one.number,
            epoch: one.producer,
            call,
        };
        let at = self.address(lane);
        if self.ask(at, Request::Transaction(request)) == Carried::Twice
            && let Some(one) = self.transactor(lane, thread)
        {
            one.broken = true;
        }
    }

    /// Whether the client still waits for this request.
    pub(crate) fn waits_for(&self, at: Address, thread: u64, number: u64) -> bool {
        let mut all = self.lanes[at.lane].transactors.iter();
        all.any(|one| one.thread == thread && one.number == number && one.stage != Stage::Over)
    }

    pub(super) fn transact(&mut self, lane: usize, epoch: u64, transaction: Transaction) {
        let hangs_ms = if self.dice.one_in(self.rates.hang) {
            self.counts.note(Fault::Hangs);
            100 + self.dice.ms(400)
        } else {
            0
        };
        let records = transaction
            .commits
            .map(|batch| self.records(lane, batch))
            .unwrap_or_default();
        let now_ms = self.now_ms;
        let hands = &mut self.lanes[lane];
        let (member, generation) = (hands.member, hands.generation);
        let current = hands.transactors.last_mut().filter(|one| one.stage != Stage::Over);
        let refused = match (&current, member) {
            (None, _) => Some(TxnEnd::Doubt),
            // Not a member now: nothing was begun, so nothing is in doubt.
            (Some(_), 0) => Some(TxnEnd::Aborted),
            _ => None,
        };
        if let Some(end) = refused {
            hands.inbox.push_back(Event::TxnEnded { epoch, end });
        } else if let Some(one) = current {
            one.work = Some(Work {
                epoch,
                commits: transaction.commits,
                offsets: transaction.offsets,
                records,
                member,
                generation,
                began_ms: now_ms,
            });
            one.hangs_until_ms = one.hangs_until_ms.max(now_ms + hangs_ms);
            if one.stage == Stage::Idle {
                let thread = one.thread;
                self.begin_work(lane, thread);
            }
        }
    }

    fn records(&mut self, lane: usize, batch: BatchId) -> Vec<Record> {
        let mut records = Vec::new();
        for piece in self.pieces(lane, batch) {
            if piece.range.start == piece.range.end {
                continue;
            }
            let made = piece.made;
            let alert = |(partition, offset)| Record::Alert(partition, offset, content(offset, made));
            records.extend(offsets(piece.range).map(alert));
            records.push(Record::Audit(piece.range, digest(piece.range, made), made));
        }
        records
    }

    fn begin_work(&mut self, lane: usize, thread: u64) {
        let Some(one) = self.transactor(lane, thread) else {
            return;
        };
        let written = |work: &Work| work.records.is_empty() || (work.commits.is_some() && work.commits == one.written);
        let silent = one.work.as_ref().is_none_or(written);
        self.enter(lane, thread, if silent { Stage::Offsets } else { Stage::Producing });
    }

    pub(super) fn hear_transaction(&mut self, lane: usize, (thread, number): (u64, u64), reply: TransactionReply) {
        if !self.is_exact() {
            return self.hear_plain(lane, (thread, number), reply);
        }
        let fails = self.dice.one_in(self.rates.abort);
        let stale = self.mutated(Mutation::StaleWork);
        let Some(one) = self.transactor(lane, thread).filter(|one| one.number == number) else {
            return;
        };
        match (one.stage, reply) {
            (Stage::Init, TransactionReply::Done(epoch)) => {
                (one.producer, one.stage, one.broken) = (epoch, Stage::Idle, false);
                // A thread that was given up while it waited for its epoch has fenced its successor: what it was to do
                // next is of before, and must not be begun.
                let works = one.work.is_some() && (!one.given_up || stale);
                if one.given_up && !works {
                    one.stage = Stage::Over;
                }
                let announced = one.asked_for.take();
                if let Some(epoch) = announced {
                    self.lanes[lane].inbox.push_back(Event::ProducerReady { epoch });
                }
                if works {
                    self.begin_work(lane, thread);
                }
            }
            (Stage::Producing | Stage::Offsets, TransactionReply::Done(_)) if fails => {
                self.counts.note(Fault::Aborted);
                self.enter(lane, thread, Stage::Ending(false));
            }
            (Stage::Producing, TransactionReply::Done(_)) => self.enter(lane, thread, Stage::Offsets),
            (Stage::Offsets, TransactionReply::Done(_)) => self.enter(lane, thread, Stage::Ending(true)),
            (Stage::Producing | Stage::Offsets, TransactionReply::Refused) => {
                self.enter(lane, thread, Stage::Ending(false));
            }
            (Stage::Ending(true), TransactionReply::Done(_)) => self.ended(lane, thread, TxnEnd::Committed),
            (Stage::Ending(false), TransactionReply::Done(_)) => self.ended(lane, thread, TxnEnd::Aborted),
            (Stage::Idle | Stage::Over, _) => {}
            (_, TransactionReply::Refused | TransactionReply::Fenced) => self.ended(lane, thread, TxnEnd::Doubt),
        }
    }

    /// Without a transaction there is nothing to abort: what was refused did surely not take place, all else is doubt.
    fn hear_plain(&mut self, lane: usize, (thread, number): (u64, u64), reply: TransactionReply) {
        let fails = self.dice.one_in(self.rates.abort);
        let Some(one) = self.transactor(lane, thread).filter(|one| one.number == number) else {
            return;
        };
        match (one.stage, reply) {
            (Stage::Producing | Stage::Offsets, TransactionReply::Done(_)) if fails => {
                self.counts.note(Fault::Aborted);
                self.ended(lane, thread, TxnEnd::Doubt);
            }
            (Stage::Producing, TransactionReply::Done(_)) => {
                one.written = one.work.as_ref().and_then(|work| work.commits);
                match one.given_up {
                    true => one.stage = Stage::Over,
                    false => self.enter(lane, thread, Stage::Offsets),
                }
            }
            (Stage::Offsets, TransactionReply::Done(_)) => self.ended(lane, thread, TxnEnd::Committed),
            (Stage::Offsets, TransactionReply::Refused) => self.ended(lane, thread, TxnEnd::Aborted),
            _ => {}
        }
    }

    fn ended(&mut self, lane: usize, thread: u64, end: TxnEnd) {
        let keeps = self.mutated(Mutation::KeepProducer);
        let Some(one) = self.transactor(lane, thread) else {
            return;
        };
        let Some(work) = one.work.take() else { return };
        one.stage = if end == TxnEnd::Doubt { Stage::Over } else { Stage::Idle };
        let renew = one.stage == Stage::Idle && one.broken && !keeps;
        let epoch = work.epoch;
        self.lanes[lane].inbox.push_back(Event::TxnEnded { epoch, end });
        if renew {
            self.enter(lane, thread, Stage::Init);
        }
    }

    /// Requests that nobody answers are sent again, or given up.
    pub(super) fn work_on_transactions(&mut self, lane: usize) {
        if self.options.calm {
            // Every answer comes, and impatience would be a fault of its own.
            return;
        }
        let now_ms = self.now_ms;
        let waits = |one: &&Transactor| {
            let asks = !matches!(one.stage, Stage::Idle | Stage::Over);
            asks && !one.hangs(now_ms) && now_ms - one.asked_ms > ASK_AGAIN_MS
        };
        let waiting = self.lanes[lane].transactors.iter().filter(waits);
        let waiting: Vec<_> = waiting
            .map(|one| {
                (
                    one.thread,
                    one.stage,
                    one.work.as_ref().map_or(now_ms, |work| work.began_ms),
                )
            })
            .collect();
        for (thread, stage, began_ms) in waiting {
            if stage == Stage::Init {
                self.enter(lane, thread, Stage::Init);
            } else if now_ms - began_ms > TRANSACTION_MS || self.dice.one_in(3) {
                self.ended(lane, thread, TxnEnd::Doubt);
            } else {
                if let Some(one) = self.transactor(lane, thread) {
                    one.broken = true;
                }
                self.request(lane, thread);
            }
        }
    }
}
