//! Messages on their way. Every one has a time at which it arrives at the earliest; which of those that are due comes
//! next is rolled, so messages overtake each other. Only what the group tells a member, and what a member tells the
//! group, keeps its order: both go over one connection.

use exactly_once_protocol::{Partition, Promise, Range, Stored};

use crate::billing::{Outcome, Part};
use crate::clickhouse::{Insert, Inserted, Present};
use crate::dice::Dice;
use crate::faults::{Counts, Fault, Rates};
use crate::group::News;
use crate::kafka::{TransactionReply, TransactionRequest};

/// A process of a lane: the lane, and which of its incarnations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Which lane, and so which transactional id.
    pub lane: usize,
    /// Which process; a restart is another one.
    pub incarnation: u64,
}

/// From a lane to a server.
#[derive(Debug, Clone)]
pub enum Request {
    /// To the transaction coordinator, and to the leaders of what the transaction writes.
    Transaction(TransactionRequest),
    /// To the group coordinator, about membership.
    Group(Membership),
    /// To the group coordinator: committed offsets, none as long as a transaction is open on one of them.
    Offsets(u64, Vec<Partition>),
    /// To ClickHouse: the first row at or after these offsets.
    RowsBeyond(u64, Vec<(Partition, i64)>),
    /// To billing: its cursors.
    Cursors(u64, Vec<Partition>),
    /// To ClickHouse: part of the delivery of a batch.
    Insert(u64, u8, Insert),
    /// To billing: the ranges of a batch.
    Deliver(u64, Vec<Part>),
    /// To ClickHouse: the time, and whether an insert of this promise runs.
    IsSafe(u64, Promise),
    /// To ClickHouse: what is there of a range, and what rollups have of it from the second number on.
    ReadBack(u64, Range, i64),
}

/// What a member tells its group.
#[derive(Debug, Clone)]
pub enum Membership {
    /// A new member.
    Join,
    /// These partitions are given back.
    HandBack(u64, Vec<Partition>),
    /// The member goes.
    Leave(u64),
}

/// From a server to a lane.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Of the group.
    News(News),
    /// To [`Request::Transaction`]: thread, number of the request, and what came of it.
    Transaction(u64, u64, TransactionReply),
    /// To [`Request::Offsets`]; `None`: not readable now.
    Offsets(u64, Option<Vec<(Partition, Stored)>>),
    /// To [`Request::RowsBeyond`].
    RowsBeyond(u64, Vec<Option<i64>>),
    /// To [`Request::Cursors`].
    Cursors(u64, Vec<Option<i64>>),
    /// To [`Request::Insert`].
    Insert(u64, u8, Inserted),
    /// To [`Request::Deliver`].
    Deliver(u64, Vec<(Partition, Outcome)>),
    /// To [`Request::IsSafe`]: whether it is, and the server's time.
    IsSafe(u64, bool, i64),
    /// To [`Request::ReadBack`].
    ReadBack(u64, Present),
}

/// What travels.
#[derive(Debug, Clone)]
pub enum Body {
    /// To a server. A copy that the network made is carried out, but nobody hears the answer.
    Ask {
        /// What is asked.
        request: Request,
        /// Whether the network made it.
        copy: bool,
    },
    /// To a lane.
    Tell(Answer),
}

/// A message on its way.
#[derive(Debug, Clone)]
pub struct Letter {
    due_ms: i64,
    /// The lane that asks or is told.
    pub lane: Address,
    /// What it says.
    pub body: Body,
}

impl Letter {
    /// Over the one connection between a member and its group, and in which direction.
    fn ordered(&self) -> Option<bool> {
        match &self.body {
            Body::Tell(Answer::News(_)) => Some(true),
            Body::Ask {
                request: Request::Group(_),
                ..
            } => Some(false),
            _ => None,
        }
    }
}

/// All messages on their way, in the order in which they were sent.
#[derive(Debug, Default)]
pub struct Network {
    letters: Vec<Letter>,
}

/// What the network did with a request that it did not simply deliver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carried {
    /// Once.
    Once,
    /// It is lost.
    Lost,
    /// Twice.
    Twice,
}

impl Network {
    /// A request or an answer sets out.
    pub fn send(
        &mut self,
        (now_ms, lane): (i64, Address),
        body: Body,
        dice: &mut Dice,
        (rates, counts): (&Rates, &mut Counts),
    ) -> Carried {
        let mut delay = || {
            if dice.one_in(rates.delayed) {
                counts.note(Fault::Delayed);
                20 + dice.ms(250)
            } else {
                dice.ms(5)
            }
        };
        let due_ms = now_ms + delay();
        let later_ms = due_ms + delay();
        let letter = Letter { due_ms, lane, body };
        if letter.ordered().is_some() {
            self.letters.push(letter);
            return Carried::Once;
        }
        if dice.one_in(rates.lost) {
            counts.note(Fault::Lost);
            return Carried::Lost;
        }
        // An insert comes twice only once the first has begun: `World::serve` makes that copy.
        let copies = match &letter.body {
            Body::Ask {
                request: Request::Insert(..),
                ..
            } => false,
            Body::Ask { copy, .. } => !copy,
            Body::Tell(_) => false,
        };
        if copies
            && dice.one_in(rates.doubled)
            && let Body::Ask { request, .. } = &letter.body
        {
            counts.note(Fault::Doubled);
            let body = Body::Ask {
                request: request.clone(),
                copy: true,
            };
            // The copy may overtake what it was made from.
            self.letters.push(Letter {
                due_ms: later_ms,
                lane,
                body,
            });
            self.letters.push(letter);
            return Carried::Twice;
        }
        self.letters.push(letter);
        Carried::Once
    }

    /// Some message that has arrived, for which the receiver is ready.
    pub fn arrived(
        &mut self,
        now_ms: i64,
        dice: &mut Dice,
        counts: &mut Counts,
        ready: impl Fn(&Letter) -> bool,
    ) -> Option<Letter> {
        if self.letters.is_empty() {
            return None;
        }
        for _ in 0..6 {
            let at = dice.index(self.letters.len());
            let letter = &self.letters[at];
            if letter.due_ms > now_ms || !ready(letter) {
                continue;
            }
            let (lane, ordered) = (letter.lane, letter.ordered());
            let before = self.letters[..at].iter();
            let mut same = before.filter(|other| other.lane.lane == lane.lane);
            let blocked = ordered.is_some() && same.clone().any(|other| other.ordered() == ordered);
            if blocked {
                continue;
            }
            if same.any(|other| other.ordered().is_none()) && ordered.is_none() {
                counts.note(Fault::Overtaken);
            }
            return Some(self.letters.remove(at));
        }
        None
    }

    /// Whether an insert is on its way.
    pub fn carries_inserts(&self) -> bool {
        self.letters.iter().any(|letter| {
            matches!(
                &letter.body,
                Body::Ask {
                    request: Request::Insert(..),
                    ..
                }
            )
        })
    }

    /// What was told to a member and it has not heard yet is void.
    pub fn forget_news(&mut self, lane: Address, void: impl Fn(&News) -> bool) {
        self.letters.retain(|letter| {
            !(letter.lane == lane && matches!(&letter.body, Body::Tell(Answer::News(news)) if void(news)))
        });
    }
}
