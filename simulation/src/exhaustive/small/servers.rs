//! Coordinators, ClickHouse and billing of the small world, and what must hold when something becomes visible in them.

use exactly_once_protocol::{BatchId, Cursor, Metadata, Partition, Promise, Range, Stored, TxnEnd, Wanted, Witnesses};

use super::{BILLING, Open, Small, TOPIC_ID, each};

impl Small {
    pub(super) fn stored(&self, wanted: Wanted) -> (Partition, Stored) {
        let partition = wanted.partition;
        let committed = self.committed.get(&partition);
        let mut stored = Stored {
            offset: committed.map_or(0, |(offset, _)| *offset),
            committed: committed.is_some(),
            metadata: Ok(committed.map_or(Metadata::Nothing, |(_, metadata)| metadata.clone())),
            witnesses: None,
        };
        let beyond = self
            .rows
            .iter()
            .find(|(of, at)| *of == partition && *at >= stored.reach());
        let cursor = self
            .cursors
            .get(&partition)
            .map_or(Cursor::Nothing, |at| Cursor::At(*at));
        stored.witnesses = wanted.witnesses.then(|| Witnesses {
            topic: Some(TOPIC_ID),
            row_beyond: beyond.map(|(_, at)| *at),
            cursors: vec![(BILLING, cursor)],
        });
        (partition, stored)
    }

    pub(super) fn offsets(&mut self, lane: usize) {
        let Some(txn) = &mut self.lanes[lane].txn else { return };
        if txn.producer != self.epochs[lane] {
            return self.ended(lane, TxnEnd::Doubt);
        }
        if txn.generation != self.generation && !self.bounds.no_fence {
            return self.ended(lane, TxnEnd::Aborted);
        }
        txn.sent = true;
        let (producer, transaction) = (txn.producer, txn.transaction.clone());
        let held = transaction
            .commits
            .and_then(|batch| self.lanes[lane].batches.get(&batch));
        let ranges = held.map(|held| held.ranges.clone()).unwrap_or_default();
        self.open[lane] = Some(Open {
            producer,
            transaction,
            ranges,
        });
    }

    /// False if the producer is fenced.
    pub(super) fn end(&mut self, lane: usize) -> bool {
        let mine = self.lanes[lane].producer == self.epochs[lane];
        if mine {
            self.commit(lane);
        }
        mine
    }

    pub(super) fn commit(&mut self, lane: usize) {
        let Some(open) = self.open[lane].take() else { return };
        for row in open.ranges.iter().flat_map(|range| each(*range)) {
            let new = self.alerts.insert(row);
            self.claim(new, || format!("alert {row:?} twice"));
        }
        for (partition, offset, metadata) in open.transaction.offsets {
            let before = self.committed.get(&partition).cloned();
            let from = before.as_ref().map_or(0, |(from, _)| *from);
            self.claim(offset >= from, || {
                format!("{partition:?} goes back from {from} to {offset}")
            });
            for at in from..offset {
                let promised = matches!(&before, Some((_, Metadata::Promised(promise))) if promise.end == offset);
                self.claim(promised, || {
                    format!("{partition:?} {offset} is committed without a promise")
                });
                let key = (partition, at);
                let there = self.rows.contains(&key) && self.alerts.contains(&key);
                let there = there && self.cursors.get(&partition).is_some_and(|cursor| *cursor > at);
                self.claim(there, || format!("{key:?} is committed and a sink lacks it"));
            }
            if let Metadata::Promised(promise) = &metadata {
                let end = *self.promised.entry((partition, promise.start)).or_insert(promise.end);
                let one = end == promise.end && promise.start == offset;
                self.claim(one, || {
                    format!("{partition:?} {offset} is promised to {end} and to {}", promise.end)
                });
            }
            self.committed.insert(partition, (offset, metadata));
        }
    }

    pub(super) fn pending(&self, partition: Partition) -> Option<&Promise> {
        match self.committed.get(&partition) {
            Some((_, Metadata::Promised(promise))) => Some(promise),
            _ => None,
        }
    }

    pub(super) fn land(&mut self, nth: usize) -> Option<(usize, u8, BatchId)> {
        let insert = self.inserts.remove(nth);
        for (partition, at) in insert.rows {
            let covers = |p: &Promise| p.token == insert.token && p.start <= at && at < p.end;
            let promised = self.pending(partition).is_some_and(covers);
            self.claim(promised, || format!("{partition:?} {at} lands without its promise"));
            let new = self.rows.insert((partition, at));
            self.claim(new, || format!("{partition:?} {at} is there twice"));
        }
        insert.asker
    }

    pub(super) fn charge(&mut self, range: Range, first: bool) {
        let Range { partition, start, end } = range;
        let same = |p: &Promise| (p.start, p.end) == (start, end);
        match self.cursors.get(&partition).copied() {
            Some(cursor) if cursor >= end => {}
            Some(cursor) if cursor != start => self.claim(false, || format!("billing: {range:?} at {cursor}")),
            None if !first => self.claim(false, || format!("billing has never heard of {range:?}")),
            _ => {
                let promised = self.pending(partition).is_some_and(same);
                self.claim(promised, || format!("{range:?} is charged without its promise"));
                self.cursors.insert(partition, end);
            }
        }
    }
}
