//! Settles pending promises: waits until no old insert can land, by the server's clock; reads back; rebuilds the range
//! with what the promise pins; hands those that are ready to the machine together.

use exactly_once_protocol::{Event, Kind, Partition, Promise, Range, StopCode};

use super::{ASK_AGAIN_MS, Piece};
use crate::clickhouse::Present;
use crate::mutations::Mutation;
use crate::network::Request;
use crate::source::{LATE_SCHEMA, Made, content};
use crate::world::World;

/// One promise that is being settled.
#[derive(Debug)]
pub(crate) struct Settling {
    promise: Promise,
    ticket: u64,
    asked_ms: i64,
    /// By the lane's own wall clock.
    asked_wall_ms: i64,
    safe: bool,
    ready: Option<Piece>,
}

impl World {
    pub(super) fn settle(&mut self, lane: usize, partition: Partition, promise: Promise) {
        let settling = Settling {
            promise,
            ticket: 0,
            asked_ms: 0,
            asked_wall_ms: 0,
            safe: self.mutated(Mutation::NoWait) || self.mutated(Mutation::NoDeadline),
            ready: None,
        };
        self.lanes[lane].settling.insert(partition, settling);
        self.ask_about(lane, partition);
    }

    /// Each question has a ticket of its own: an answer to an earlier one is not believed.
    fn ask_about(&mut self, lane: usize, partition: Partition) {
        let (ticket, now_ms, at) = (self.id(), self.now_ms, self.address(lane));
        let hands = &mut self.lanes[lane];
        let wall_ms = now_ms + hands.ahead_ms;
        let Some(settling) = hands.settling.get_mut(&partition) else {
            return;
        };
        (settling.ticket, settling.asked_ms, settling.asked_wall_ms) = (ticket, now_ms, wall_ms);
        let Promise { start, end, fed, .. } = settling.promise;
        let range = Range { partition, start, end };
        let request = if settling.safe {
            Request::ReadBack(ticket, range, fed)
        } else {
            Request::IsSafe(ticket, settling.promise.clone())
        };
        self.ask(at, request);
    }

    fn asked(&mut self, lane: usize, ticket: u64) -> Option<(Partition, &mut Settling)> {
        let mut all = self.lanes[lane].settling.iter_mut();
        let found = all.find(|(_, settling)| settling.ticket == ticket && settling.ready.is_none());
        found.map(|(partition, settling)| (*partition, settling))
    }

    pub(super) fn hear_safe(&mut self, lane: usize, ticket: u64, safe: bool, server_ms: i64) {
        let Some((partition, settling)) = self.asked(lane, ticket) else {
            return;
        };
        settling.safe = safe;
        let asked_wall_ms = settling.asked_wall_ms;
        self.lanes[lane].sink_ahead_ms = server_ms - asked_wall_ms;
        if safe {
            self.ask_about(lane, partition);
        }
    }

    pub(super) fn hear_present(&mut self, lane: usize, ticket: u64, present: &Present) {
        let today = self.lanes[lane].made;
        let pinned = !self.mutated(Mutation::PresentRules);
        let Some((partition, settling)) = self.asked(lane, ticket).filter(|(_, settling)| settling.safe) else {
            return;
        };
        let promise = &settling.promise;
        let made = Made {
            rules: if pinned { promise.rules.0 } else { today.rules },
            knew: !promise.unknown_schemas.contains(&LATE_SCHEMA),
        };
        let (start, end) = (promise.start, promise.end);
        let altered = present.rows.iter().any(|(offset, is)| content(*offset, made) != *is);
        let missing = (start..end).filter(|offset| !present.rows.contains_key(offset));
        let lacking = Range {
            partition,
            start: promise.fed,
            end,
        };
        settling.ready = Some(Piece {
            range: Range { partition, start, end },
            made,
            missing: Some(missing.collect()),
            lacking: present.unfed.then_some(lacking),
        });
        if altered {
            self.lanes[lane].settling.remove(&partition);
            let stopped = Event::Unsettled(partition, StopCode::RowsAltered);
            self.lanes[lane].inbox.push_back(stopped);
        }
    }

    pub(super) fn work_on_settling(&mut self, lane: usize) {
        let late = |settling: &Settling| settling.ready.is_none() && self.now_ms - settling.asked_ms > ASK_AGAIN_MS;
        let all = self.lanes[lane].settling.iter();
        let again: Vec<Partition> = all.filter(|(_, settling)| late(settling)).map(|(p, _)| *p).collect();
        for partition in again {
            self.ask_about(lane, partition);
        }
        let hands = &self.lanes[lane];
        let busy = hands
            .machine
            .as_ref()
            .is_none_or(|machine| machine.standing().waiting > 0);
        let soon = hands
            .settling
            .values()
            .any(|settling| settling.ready.is_none() && settling.safe);
        if !busy && (!soon || self.dice.one_in(4)) {
            self.send_ready(lane);
        }
    }

    /// Those with the same rules travel together.
    fn send_ready(&mut self, lane: usize) {
        let all = self.lanes[lane].settling.iter();
        let ready = all.filter_map(|(partition, settling)| Some((*partition, settling.ready.as_ref()?.made.rules)));
        let ready: Vec<(Partition, u64)> = ready.collect();
        let Some((_, rules)) = ready.first().copied() else {
            return;
        };
        let mut pieces = Vec::new();
        for (partition, _) in ready.into_iter().filter(|(_, of)| *of == rules) {
            let settled = self.lanes[lane].settling.remove(&partition);
            pieces.extend(settled.and_then(|settling| settling.ready));
        }
        let lacks =
            |piece: &Piece| piece.lacking.is_some() || piece.missing.as_ref().is_some_and(|rows| !rows.is_empty());
        let missing = pieces.iter().any(lacks);
        let prepared = self.prepared(lane, pieces, Kind::Recovery { missing });
        self.feed(lane, prepared);
    }
}
