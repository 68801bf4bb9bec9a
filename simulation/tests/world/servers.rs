//! The outside: ClickHouse, Kafka's coordinators, and what they answer.

use exactly_once_protocol::{Cursor, Delivered, Event, Metadata, Partition, Stored, TxnEnd, Wanted, Witnesses};

use crate::{BILLING, Feeding, Insert, LANES, Mail, Mutation, OpenTxn, TOPIC_ID, World, summed};

impl World {
    pub(crate) fn advance_insert(&mut self) {
        if self.inserts.is_empty() {
            return;
        }
        let at = self.dice.roll(self.inserts.len() as u64) as usize;
        if !self.inserts[at].started {
            if self.mutation != Mutation::NoDeadline && self.clock_ms > self.inserts[at].deadline_ms {
                let insert = self.inserts.remove(at);
                self.answer(insert.answer, Delivered::Doubt);
                return;
            }
            self.inserts[at].started = true;
            return;
        }
        let insert = self.inserts.remove(at);
        for row in &insert.rows {
            *self.rows.entry(*row).or_insert(0) += 1;
        }
        self.note(format!("insert {:x} done: {:?}", insert.token, insert.rows));
        match (insert.feeding, insert.rows.is_empty()) {
            (Some(feeding), true) => {
                let whole = self.sum_up(&feeding);
                self.answer(insert.answer, if whole { Delivered::Clean } else { Delivered::Doubt });
            }
            (Some(feeding), false) => self.inserts.push(Insert {
                rows: Vec::new(),
                feeding: Some(feeding),
                started: false,
                ..insert
            }),
            (None, _) => self.answer(insert.answer, Delivered::Clean),
        }
    }

    /// The server may die between two months: then the first of them are in the rollups, and nobody knows.
    pub(crate) fn sum_up(&mut self, feeding: &Feeding) -> bool {
        let all: Vec<(Partition, i64)> = feeding
            .ranges
            .iter()
            .flat_map(|range| (range.start..range.end).map(|o| (range.partition, o)))
            .filter(|row| summed(row.1))
            .filter(|row| !feeding.lacking || self.mutation == Mutation::BlindFeeding || !self.fed.contains_key(row))
            .collect();
        let lacks: Vec<_> = all.iter().filter(|row| !self.rows.contains_key(row)).collect();
        assert!(lacks.is_empty(), "rollups are fed before the rows are there: {lacks:?}");
        let dies = self.faults && self.dice.one_in(6);
        let there = if dies { all.len() / 2 } else { all.len() };
        for row in &all[..there] {
            *self.fed.entry(*row).or_insert(0) += 1;
        }
        self.note(format!("rollups have {:?}", &all[..there]));
        !dies
    }

    pub(crate) fn answer(&mut self, whom: Option<(usize, u64, u64)>, outcome: Delivered) {
        if let Some((lane, incarnation, batch)) = whom {
            self.mail.push(Mail {
                lane,
                incarnation,
                event: Event::Delivered { batch, outcome },
            });
        }
    }

    /// A transaction of a lane: TxnOffsetCommit (checked for the generation), then EndTxn (checked for the epoch alone).
    pub(crate) fn advance_txn(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        if self.faults && self.clock_ms < self.txn_paused_until[lane] {
            return;
        }
        let Some((epoch, transaction, stage, begun_as)) = self.members[lane].txn.take() else {
            return;
        };
        let incarnation = self.members[lane].incarnation;
        let end = |end| Mail {
            lane,
            incarnation,
            event: Event::TxnEnded { epoch, end },
        };
        if stage == 0 {
            let member = begun_as == (self.memberships[lane], self.generation);
            if !member && self.mutation != Mutation::NoFence {
                self.mail.push(end(TxnEnd::Aborted));
                return;
            }
            if self.faults && self.dice.one_in(12) {
                self.mail.push(end(TxnEnd::Aborted));
                return;
            }
            let alerts = transaction
                .commits
                .map(|batch| {
                    let ranges = &self.members[lane].batches[&batch].ranges;
                    ranges
                        .iter()
                        .flat_map(|r| (r.start..r.end).map(|o| (r.partition, o)))
                        .collect()
                })
                .unwrap_or_default();
            let offsets = transaction.offsets.clone();
            self.open.insert(
                lane,
                OpenTxn {
                    epoch: self.members[lane].producer_epoch,
                    offsets,
                    alerts,
                },
            );
            self.members[lane].txn = Some((epoch, transaction, 1, begun_as));
            return;
        }
        let Some(open) = self.open.get(&lane).filter(|open| open.epoch == self.epochs[lane]) else {
            self.mail.push(end(TxnEnd::Doubt));
            return;
        };
        let (offsets, alerts) = (open.offsets.clone(), open.alerts.clone());
        let fate = if self.faults { self.dice.roll(10) } else { 9 };
        if fate == 0 {
            // The request is lost: the transaction stays open until it is fenced or times out.
            self.mail.push(end(TxnEnd::Doubt));
            return;
        }
        self.open.remove(&lane);
        for (partition, offset, metadata) in offsets {
            self.committed.insert(partition, (offset, metadata));
        }
        for alert in alerts {
            *self.alerts.entry(alert).or_insert(0) += 1;
        }
        // Or the answer is lost: it took place all the same.
        self.mail
            .push(end(if fate == 1 { TxnEnd::Doubt } else { TxnEnd::Committed }));
    }

    pub(crate) fn advance_read(&mut self) {
        let lane = self.dice.roll(LANES as u64) as usize;
        if self.members[lane].reads.is_empty() {
            return;
        }
        let mut read = self.members[lane].reads.remove(0);
        let Some(mut offsets) = read.offsets.take() else {
            let busy = |wanted: &Wanted| {
                self.open
                    .values()
                    .any(|open| open.offsets.iter().any(|(written, _, _)| *written == wanted.partition))
            };
            if self.mutation == Mutation::UnstableReads || !read.wanted.iter().any(busy) {
                read.offsets = Some(read.wanted.iter().map(|wanted| self.stored(wanted.partition)).collect());
            }
            self.members[lane].reads.push(read);
            return;
        };
        for ((partition, stored), wanted) in offsets.iter_mut().zip(&read.wanted) {
            stored.witnesses = wanted.witnesses.then(|| self.witnesses(*partition, stored.reach()));
        }
        let incarnation = self.members[lane].incarnation;
        let epoch = read.epoch;
        self.mail.push(Mail {
            lane,
            incarnation,
            event: Event::OffsetsRead { epoch, offsets },
        });
    }

    pub(crate) fn stored(&self, partition: Partition) -> (Partition, Stored) {
        let (offset, metadata) = self.committed[&partition].clone();
        let stored = Stored {
            offset,
            committed: metadata != Metadata::Nothing,
            // As the broker keeps it: text.
            metadata: Metadata::decode(metadata.encode().as_bytes()),
            witnesses: None,
        };
        (partition, stored)
    }

    pub(crate) fn witnesses(&self, partition: Partition, reach: i64) -> Witnesses {
        let cursor = self
            .cursor
            .get(&partition)
            .map_or(Cursor::Nothing, |cursor| Cursor::At(*cursor));
        let mut beyond = self
            .rows
            .range((partition, reach)..)
            .map(|((of, offset), _)| (*of, *offset));
        Witnesses {
            topic: Some(TOPIC_ID),
            row_beyond: beyond.find(|(of, _)| *of == partition).map(|(_, offset)| offset),
            cursors: vec![(BILLING, cursor)],
        }
    }
}
