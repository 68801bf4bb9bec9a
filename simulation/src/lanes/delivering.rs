//! Delivers batches: inserts of two tables, feedings of rollups, a call of billing, side by side. What was surely not
//! begun is sent again until the deadline; every other answer but a clean one is doubt. Billing is called until it
//! answers.

use exactly_once_protocol::{BatchId, Delivered, Event, Partition, Range, StopCode};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{ASK_AGAIN_MS, BILLING, Piece};
use crate::billing::{Outcome, Part};
use crate::clickhouse::{Feeding, Insert, Inserted};
use crate::mutations::Mutation;
use crate::network::Request;
use crate::source::{TABLES, content, digest, offsets};
use crate::world::World;

/// An insert that is not answered for so long is in doubt, milliseconds.
const INSERT_MS: i64 = 150;
/// Between a refusal and the next attempt, milliseconds.
const RETRY_MS: i64 = 10;
/// Rows that are committed, for rollups.
const FEED_WHOLE: u8 = 10;
/// Rows that rollups lack, once all rows are there.
const FEED_LACKING: u8 = 11;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Refused,
    Clean,
    Failed,
}

#[derive(Debug)]
struct Task {
    part: u8,
    insert: Insert,
    state: State,
    since_ms: i64,
}

/// One delivery of one batch.
#[derive(Debug)]
pub(crate) struct Delivery {
    tasks: Vec<Task>,
    /// To be fed last.
    lacking: Option<Insert>,
    /// `None`: answered.
    charges: Option<Vec<Part>>,
    called_ms: i64,
    impossible: Vec<(Partition, StopCode)>,
}

impl World {
    /// The deduplication token of a part of a delivery.
    fn name(&self, token: u64, part: u8, pieces: &[Piece]) -> u64 {
        if !self.mutated(Mutation::TokenWithoutEnd) || pieces.is_empty() {
            return xxh3_64_with_seed(&[part], token);
        }
        let start = |name: u64, piece: &Piece| {
            let Range { partition, start, .. } = piece.range;
            let text = format!("{partition:?} {start}");
            xxh3_64_with_seed(text.as_bytes(), name)
        };
        pieces.iter().fold(u64::from(part), start)
    }

    pub(super) fn deliver(
        &mut self,
        lane: usize,
        batch: BatchId,
        (deadline_ms, token): (Option<i64>, u64),
        (feeds, begins): (Vec<Range>, Vec<(Partition, u64)>),
    ) {
        let pieces = self.pieces(lane, batch);
        let mut inserts = Vec::new();
        let mut lacking = None;
        if let Some(deadline_ms) = deadline_ms {
            let insert = |name: u64, rows: Vec<_>, feeding: Option<Feeding>| Insert {
                token,
                name,
                deadline_ms,
                rows,
                feeding,
            };
            for table in 0..TABLES {
                let mut rows = Vec::new();
                for piece in &pieces {
                    let missing = |offset: &i64| piece.missing.as_ref().is_none_or(|missing| missing.contains(offset));
                    let of_table =
                        offsets(piece.range).filter(|(_, offset)| offset % TABLES == table && missing(offset));
                    rows.extend(of_table.map(|(partition, offset)| (partition, offset, content(offset, piece.made))));
                }
                let part = u8::try_from(table).unwrap_or_default();
                if !rows.is_empty() {
                    inserts.push((part, insert(self.name(token, part, &pieces), rows, None)));
                }
            }
            let fed = |ranges, lacking| Some(Feeding { ranges, lacking });
            if !feeds.is_empty() {
                let name = self.name(token, FEED_WHOLE, &pieces);
                inserts.push((FEED_WHOLE, insert(name, Vec::new(), fed(feeds, false))));
            }
            let ranges: Vec<Range> = pieces.iter().filter_map(|piece| piece.lacking).collect();
            if !ranges.is_empty() {
                let name = self.name(token, FEED_LACKING, &pieces);
                lacking = Some(insert(name, Vec::new(), fed(ranges, true)));
            }
        }
        let delivering = pieces.iter().filter(|piece| piece.range.start < piece.range.end);
        let parts: Vec<Part> = delivering
            .map(|piece| Part {
                range: piece.range,
                digest: digest(piece.range, piece.made),
                first: begins.contains(&(piece.range.partition, BILLING)),
            })
            .collect();
        let delivery = Delivery {
            tasks: Vec::new(),
            lacking,
            charges: (!parts.is_empty() && self.has_billing()).then_some(parts),
            called_ms: 0,
            impossible: Vec::new(),
        };
        self.lanes[lane].deliveries.insert(batch, delivery);
        self.call_billing(lane, batch);
        for (part, insert) in inserts {
            self.begin_insert(lane, batch, part, insert);
        }
        self.look_at_delivery(lane, batch);
    }

    fn begin_insert(&mut self, lane: usize, batch: BatchId, part: u8, insert: Insert) {
        let (since_ms, at) = (self.now_ms, self.address(lane));
        if let Some(delivery) = self.lanes[lane].deliveries.get_mut(&batch) {
            delivery.tasks.push(Task {
                part,
                insert: insert.clone(),
                state: State::Waiting,
                since_ms,
            });
            self.ask(at, Request::Insert(batch, part, insert));
        }
    }

    fn call_billing(&mut self, lane: usize, batch: BatchId) {
        let (now_ms, at) = (self.now_ms, self.address(lane));
        let Some(delivery) = self.lanes[lane].deliveries.get_mut(&batch) else {
            return;
        };
        delivery.called_ms = now_ms;
        if let Some(parts) = delivery.charges.clone() {
            self.ask(at, Request::Deliver(batch, parts));
        }
    }

    pub(super) fn hear_outcomes(&mut self, lane: usize, batch: BatchId, outcomes: &[(Partition, Outcome)]) {
        if let Some(delivery) = self.lanes[lane].deliveries.get_mut(&batch)
            && delivery.charges.take().is_some()
        {
            for (partition, outcome) in outcomes {
                match outcome {
                    Outcome::Applied | Outcome::AlreadyApplied => {}
                    Outcome::Gap => delivery.impossible.push((*partition, StopCode::SinkGap)),
                    Outcome::Conflict => delivery.impossible.push((*partition, StopCode::SinkConflict)),
                }
            }
            self.look_at_delivery(lane, batch);
        }
    }

    pub(super) fn hear_insert(&mut self, lane: usize, batch: BatchId, part: u8, inserted: Inserted) {
        let repeats = self.mutated(Mutation::RepeatDoubt);
        let now_ms = self.now_ms;
        let Some(delivery) = self.lanes[lane].deliveries.get_mut(&batch) else {
            return;
        };
        let waits = |task: &&mut Task| task.part == part && task.state == State::Waiting;
        if let Some(task) = delivery.tasks.iter_mut().find(waits) {
            task.since_ms = now_ms;
            task.state = match inserted {
                Inserted::Clean => State::Clean,
                Inserted::Refused => State::Refused,
                Inserted::Doubt if repeats => State::Refused,
                Inserted::Doubt => State::Failed,
            };
            self.look_at_delivery(lane, batch);
        }
    }

    /// Ends a delivery of which every part is settled.
    fn look_at_delivery(&mut self, lane: usize, batch: BatchId) {
        let Some(delivery) = self.lanes[lane].deliveries.get_mut(&batch) else {
            return;
        };
        let under_way = |task: &Task| matches!(task.state, State::Waiting | State::Refused);
        if delivery.tasks.iter().any(under_way) {
            return;
        }
        let clean = delivery.tasks.iter().all(|task| task.state == State::Clean);
        if clean && let Some(insert) = delivery.lacking.take() {
            return self.begin_insert(lane, batch, FEED_LACKING, insert);
        }
        if delivery.charges.is_some() {
            return;
        }
        let outcome = match (delivery.impossible.is_empty(), clean) {
            (false, _) => Delivered::Impossible(delivery.impossible.clone()),
            (true, true) => Delivered::Clean,
            (true, false) => Delivered::Doubt,
        };
        self.lanes[lane].deliveries.remove(&batch);
        self.lanes[lane].inbox.push_back(Event::Delivered { batch, outcome });
    }

    /// Inserts that nobody answers are given up, refused ones begun again; billing is called again.
    pub(super) fn work_on_deliveries(&mut self, lane: usize) {
        let (now_ms, at) = (self.now_ms, self.address(lane));
        let sink_ms = self.clocks(lane).sink_ms;
        let repeats = self.mutated(Mutation::RepeatDoubt);
        let patient = self.options.calm;
        let mut again = Vec::new();
        let mut calls = Vec::new();
        for (batch, delivery) in &mut self.lanes[lane].deliveries {
            for task in &mut delivery.tasks {
                let waited_ms = now_ms - task.since_ms;
                let in_time = sink_ms + RETRY_MS < task.insert.deadline_ms;
                let before = task.state;
                task.state = match before {
                    State::Waiting if waited_ms > INSERT_MS && repeats && in_time => State::Refused,
                    State::Waiting if waited_ms > INSERT_MS && !patient => State::Failed,
                    State::Refused if !in_time => State::Failed,
                    State::Refused if waited_ms > RETRY_MS => State::Waiting,
                    same => same,
                };
                if before == State::Refused && task.state == State::Waiting {
                    task.since_ms = now_ms;
                    again.push(Request::Insert(*batch, task.part, task.insert.clone()));
                }
            }
            if delivery.charges.is_some() && now_ms - delivery.called_ms > ASK_AGAIN_MS {
                calls.push(*batch);
            }
        }
        for request in again {
            self.ask(at, request);
        }
        for batch in calls {
            self.call_billing(lane, batch);
        }
        let open: Vec<BatchId> = self.lanes[lane].deliveries.keys().copied().collect();
        for batch in open {
            self.look_at_delivery(lane, batch);
        }
    }
}
