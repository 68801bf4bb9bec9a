//! What the hands of the small world do. Actions are carried out at once; what they ask for happens later, as a move.

use std::collections::VecDeque;

use exactly_once_protocol::{Action, BatchId, Delivered, Event, Kind, Now, Partition, Range, TxnEnd};

use super::{BILLING, Held, Insert, News, Small, Txn, each, output};

impl Small {
    pub(super) fn hear_news(&mut self, lane: usize) {
        let hands = &mut self.lanes[lane];
        match hands.news.pop_front() {
            Some(News::Assigned(partitions, generation)) => {
                hands.generation = hands.generation.max(generation);
                self.feed(lane, Event::Assigned(partitions));
            }
            Some(News::RevokeAsked(partition)) => self.feed(lane, Event::RevokeAsked(vec![partition])),
            Some(News::Lost(partitions, generation)) => {
                // It joins again, and hears which generation there is now.
                hands.generation = generation.max(self.generation);
                partitions.iter().for_each(|partition| {
                    hands.flows.remove(partition);
                    hands.settling.remove(partition);
                });
                self.feed(lane, Event::Lost(partitions));
            }
            None => {}
        }
    }

    pub(super) fn ended(&mut self, lane: usize, end: TxnEnd) {
        if let Some(txn) = self.lanes[lane].txn.take() {
            let epoch = txn.epoch;
            self.feed(lane, Event::TxnEnded { epoch, end });
        }
    }

    pub(super) fn answer(&mut self, asker: Option<(usize, u8, BatchId)>, outcome: Delivered) {
        if let Some((lane, incarnation, batch)) = asker
            && self.lanes[lane].incarnation == incarnation
        {
            self.feed(lane, Event::Delivered { batch, outcome });
        }
    }

    pub(super) fn prepare(&mut self, lane: usize, kind: Kind, held: Held) {
        let hands = &mut self.lanes[lane];
        hands.next_batch += 1;
        let batch = hands.next_batch;
        let ranges = held.ranges.iter().map(|range| output(*range)).collect();
        hands.batches.insert(batch, held);
        let rules = (1, 1);
        self.feed(
            lane,
            Event::Prepared {
                batch,
                kind,
                ranges,
                rules,
            },
        );
    }

    pub(super) fn close(&mut self, lane: usize, bits: u8) {
        let mut ranges = Vec::new();
        for (partition, next) in &mut self.lanes[lane].flows {
            if bits & (1 << partition.partition) != 0 {
                let (partition, start, end) = (*partition, *next, *next + 1);
                *next = end;
                ranges.push(Range { partition, start, end });
            }
        }
        let rows = ranges.iter().flat_map(|range| each(*range)).collect();
        self.prepare(lane, Kind::New, Held { ranges, rows });
    }

    pub(super) fn settle(&mut self, lane: usize, partition: Partition) {
        let Some(promise) = self.lanes[lane].settling.remove(&partition) else {
            return;
        };
        let (start, end) = (promise.start, promise.end);
        let range = Range { partition, start, end };
        let rows: Vec<_> = each(range).filter(|row| !self.rows.contains(row)).collect();
        let missing = !rows.is_empty();
        let ranges = vec![range];
        self.prepare(lane, Kind::Recovery { missing }, Held { ranges, rows });
    }

    pub(super) fn feed(&mut self, lane: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let now = Now {
                monotonic_ms: self.now_ms.unsigned_abs(),
                sink_ms: self.now_ms,
            };
            for action in self.lanes[lane].machine.step(now, event) {
                self.act(lane, action, &mut events);
            }
        }
    }

    pub(super) fn act(&mut self, lane: usize, action: Action, events: &mut VecDeque<Event>) {
        let hands = &mut self.lanes[lane];
        match action {
            // An answer to an earlier read would be ignored.
            Action::ReadOffsets { epoch, partitions } => hands.read = Some((epoch, partitions)),
            Action::Collect { partition, from } => {
                hands.flows.insert(partition, from);
            }
            Action::Settle { partition, promise } => {
                hands.settling.insert(partition, promise);
            }
            Action::Forget(partitions) => partitions.iter().for_each(|partition| {
                hands.flows.remove(partition);
                hands.settling.remove(partition);
            }),
            Action::Transact { epoch, transaction } => {
                hands.txn = Some(Txn {
                    epoch,
                    transaction,
                    generation: hands.generation,
                    producer: hands.producer,
                    sent: false,
                });
            }
            Action::Deliver {
                batch,
                deadline_ms,
                token,
                begins,
                ..
            } => {
                let held = hands.batches.get(&batch).cloned();
                let Held { ranges, rows } = held.unwrap_or(Held {
                    ranges: Vec::new(),
                    rows: Vec::new(),
                });
                let incarnation = hands.incarnation;
                for range in ranges {
                    self.charge(range, begins.contains(&(range.partition, BILLING)));
                }
                match deadline_ms {
                    Some(deadline_ms) => self.inserts.push(Insert {
                        token,
                        deadline_ms,
                        rows,
                        started: false,
                        asker: Some((lane, incarnation, batch)),
                    }),
                    None => events.push_back(Event::Delivered {
                        batch,
                        outcome: Delivered::Clean,
                    }),
                }
            }
            Action::Done(batch) | Action::Drop(batch) => {
                hands.batches.remove(&batch);
            }
            Action::NewProducer { epoch } => {
                hands.txn = None;
                hands.init = Some(epoch);
            }
            Action::StopCollecting(partitions) => {
                partitions.iter().for_each(|partition| {
                    hands.flows.remove(partition);
                });
                events.push_back(Event::Quiet(partitions));
            }
            Action::HandBack(partitions) => {
                if let Some((partition, _, to)) = self
                    .moving
                    .take_if(|(partition, from, _)| *from == lane && partitions.contains(partition))
                {
                    self.rebalance(None);
                    self.give(&[partition], to);
                }
            }
            Action::Stop(partition, code) => {
                self.claim(false, || format!("lane {lane} stops {partition:?}: {}", code.explain()));
            }
            Action::Leave => {}
        }
    }
}
