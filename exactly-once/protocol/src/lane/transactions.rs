//! What is promised and committed, and when; and what follows from how a transaction ended.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    ABORT_WAIT_MAX_MS, ABORT_WAIT_MS, ABORTS_MAX, Batch, Lane, OpenTransaction, Owned, Phase, Producer, is_revoking,
};
use crate::promise::{Marks, Metadata, Promise};
use crate::words::{Action, BatchId, FEEDING, Kind, Now, Partition, Range, Transaction, TxnEnd};

/// How often the time that an attempt gets is doubled: eight times the pipeline's `deadline`, and no more, because whoever takes
/// the partition over waits until it is over.
const SPAN_DOUBLES_MAX: u16 = 3;

impl Lane {
    pub(super) fn transaction_ended(&mut self, now: Now, epoch: u64, end: TxnEnd, actions: &mut Vec<Action>) {
        if self.transaction.as_ref().is_none_or(|open| open.epoch != epoch) {
            return;
        }
        let Some(open) = self.transaction.take() else { return };
        match end {
            TxnEnd::Committed => {
                self.aborts = 0;
                for partition in &open.beginnings {
                    if let Some(owned) = self.owned.get_mut(partition) {
                        owned.beginning = None;
                    }
                }
                if open.commits
                    && let Some(done) = self.acknowledged.take().or_else(|| self.current.take())
                {
                    self.doubts = 0;
                    self.note_fed(&done);
                    self.note_begun(&done);
                    self.settle_recovered(&done, actions);
                    actions.push(Action::Done(done.id));
                }
                if let Some(batch) = open.promised {
                    self.deliver(batch, actions);
                }
            }
            TxnEnd::Aborted => {
                self.put_back(open.promised);
                self.aborted(now, actions);
            }
            TxnEnd::Doubt => {
                self.put_back(open.promised);
                self.abandon(true, actions);
            }
        }
    }

    /// An abort is a certain outcome: nothing of the transaction took place, and what was delivered stays delivered. The
    /// usual reason is a rebalance that the member has not heard of yet; the next attempt carries its new generation.
    /// A member that has lost its partitions is refused until it hears of that, too.
    pub(super) fn aborted(&mut self, now: Now, actions: &mut Vec<Action>) {
        self.aborts += 1;
        if self.aborts > ABORTS_MAX {
            return self.abandon(false, actions);
        }
        let wait = ABORT_WAIT_MS << (self.aborts - 1).min(16);
        self.begin_at_ms = now.monotonic_ms + wait.min(ABORT_WAIT_MAX_MS);
    }

    /// Every gRPC sink has got the batch's ranges.
    pub(super) fn note_begun(&mut self, done: &Batch) {
        for partition in done.delivers() {
            if let Some(owned) = self.owned.get_mut(&partition) {
                owned.marks.sinks.clone_from(&self.settings.sinks);
            }
        }
    }

    pub(super) fn put_back(&mut self, promised: Option<Batch>) {
        if let Some(mut batch) = promised {
            // What it feeds is chosen anew, and at once.
            if batch.forget_feeds() {
                self.fed_at_ms.clear();
            }
            if batch.id < FEEDING {
                self.prepared.push_front(batch);
            }
        }
    }

    /// A recovered range is committed: its partition flows again.
    pub(super) fn settle_recovered(&mut self, batch: &Batch, actions: &mut Vec<Action>) {
        if batch.kind == Kind::New {
            return;
        }
        for output in &batch.ranges {
            let partition = output.range.partition;
            let from = output.range.end;
            if let Some(owned) = self.owned.get_mut(&partition)
                && matches!(owned.phase, Phase::Doubtful(_))
            {
                owned.phase = Phase::Flowing { next: from, fed: from };
                if self.draining_since_ms.is_none() && !is_revoking(&self.revoking, partition) {
                    owned.quiet = false;
                    actions.push(Action::Collect { partition, from });
                }
            }
        }
    }

    pub(super) fn deliver(&mut self, batch: Batch, actions: &mut Vec<Action>) {
        let begins = batch.delivers().flat_map(|partition| {
            let has = self.owned.get(&partition).map(|owned| owned.marks.sinks.as_slice());
            let lacks = move |sink: &&u64| !has.unwrap_or_default().contains(sink);
            self.settings
                .sinks
                .iter()
                .filter(lacks)
                .map(move |sink| (partition, *sink))
        });
        actions.push(Action::Deliver {
            batch: batch.id,
            deadline_ms: batch.deadline_ms,
            token: batch.token,
            feeds: batch.feeds.clone(),
            begins: begins.collect(),
        });
        self.current = Some(batch);
    }

    pub(super) fn producer_ready(&mut self, epoch: u64, actions: &mut Vec<Action>) {
        if self.producer == Producer::Renewing(epoch) {
            self.producer = Producer::Ready;
            self.read(actions);
        }
    }

    /// The one place where the lane moves on.
    pub(super) fn advance(&mut self, now: Now, actions: &mut Vec<Action>) {
        let may_begin = now.monotonic_ms >= self.begin_at_ms;
        if !self.promises() {
            self.advance_at_least_once(now, may_begin, actions);
        } else if self.producer == Producer::Ready && self.transaction.is_none() && may_begin {
            if self.current.is_none() && self.prepared.is_empty() {
                self.feed_alone(now);
            }
            match &self.current {
                Some(batch) if batch.delivered => self.begin(now, true, actions),
                Some(_) => {}
                None => match self.prepared.front() {
                    Some(batch) if batch.needs_promise() => self.begin(now, false, actions),
                    Some(_) => {
                        if let Some(batch) = self.prepared.pop_front() {
                            self.deliver(batch, actions);
                        }
                    }
                    None if self.beginnings().next().is_some() => self.begin(now, false, actions),
                    None => {}
                },
            }
        }
        self.hand_back(actions);
        self.leave(actions);
    }

    pub(super) fn token(&self, id: BatchId) -> u64 {
        xxhash_rust::xxh3::xxh3_64_with_seed(&id.to_le_bytes(), self.settings.token_seed)
    }

    /// One transaction: the end offsets of what is delivered, and the promise of what comes next.
    pub(super) fn begin(&mut self, now: Now, commits: bool, actions: &mut Vec<Action>) {
        let mut offsets: BTreeMap<Partition, (i64, Metadata)> = BTreeMap::new();
        let mut fed: BTreeMap<Partition, i64> = BTreeMap::new();
        let committed = self.acknowledged.as_ref().or(self.current.as_ref()).filter(|_| commits);
        for (batch, output) in committed
            .iter()
            .flat_map(|batch| batch.ranges.iter().map(move |o| (*batch, o)))
        {
            let Range { partition, end, .. } = output.range;
            let known = match self.owned.get(&partition).map(|owned| &owned.phase) {
                Some(Phase::Flowing { fed, .. }) => *fed,
                _ => end,
            };
            let from = batch.fed_after(output, known);
            fed.insert(partition, from);
            let marks = self.marks(partition, output.range.start < end);
            offsets.insert(partition, (end, Metadata::Settled { marks, fed: from }));
        }
        let delivered: BTreeSet<Partition> = committed.iter().flat_map(|batch| batch.delivers()).collect();
        let committed = committed.map(|batch| batch.id);
        let mut promised = None;
        if self.promises()
            && self.prepared.front().is_some_and(Batch::needs_promise)
            && let Some(mut batch) = self.prepared.pop_front()
        {
            self.feed_with(now, &mut batch, &fed);
            let deadline_ms = self.deadline_ms(now, &batch);
            batch.deadline_ms = Some(deadline_ms);
            for (output, attempt) in batch.ranges.iter().zip(&batch.attempts) {
                let Range { partition, start, end } = output.range;
                let fed = match self.owned.get(&partition).map(|owned| &owned.phase) {
                    Some(Phase::Flowing { fed: known, .. }) => fed.get(&partition).copied().unwrap_or(*known),
                    Some(Phase::Doubtful(promise)) => promise.fed,
                    _ => start,
                };
                let promise = Promise {
                    marks: self.marks(partition, delivered.contains(&partition)),
                    start,
                    end,
                    outputs: output.outputs,
                    digest: output.digest,
                    rules: batch.rules,
                    pipeline: self.settings.pipeline,
                    token: batch.token,
                    attempt: *attempt,
                    deadline_ms,
                    fed,
                    unknown_schemas: output.unknown_schemas.clone(),
                };
                offsets.insert(partition, (start, Metadata::Promised(promise)));
            }
            promised = Some(batch);
        }
        // With whatever is committed anyway; a promise of the partition says where it begins, too.
        for (partition, start) in self.beginnings() {
            let marks = self.marks(partition, false);
            let settled = Metadata::Settled { marks, fed: start };
            offsets.entry(partition).or_insert((start, settled));
        }
        let uncommitted =
            |partition: &Partition| self.owned.get(partition).is_some_and(|owned| owned.beginning.is_some());
        let beginnings = offsets.keys().copied().filter(uncommitted).collect();
        let epoch = self.count();
        let transaction = Transaction {
            commits: committed,
            promises: promised.as_ref().map(|batch| batch.id),
            offsets: offsets
                .into_iter()
                .map(|(partition, (offset, metadata))| (partition, offset, metadata))
                .collect(),
        };
        self.transaction = Some(OpenTransaction {
            epoch,
            since_ms: now.monotonic_ms,
            commits: committed.is_some(),
            promised,
            beginnings,
        });
        actions.push(Action::Transact { epoch, transaction });
    }

    /// Until when the sinks take this attempt, by their clock.
    pub(super) fn deadline_ms(&self, now: Now, batch: &Batch) -> i64 {
        // On a machine so busy that an attempt is not over by its deadline, the next one of the same span would not be, either.
        let attempt = batch.attempts.iter().copied().max().unwrap_or(0);
        let span_ms = self.settings.deadline_span_ms << attempt.min(SPAN_DOUBLES_MAX);
        now.sink_ms + span_ms
    }

    /// Partitions without a committed offset, and where they begin.
    pub(super) fn beginnings(&self) -> impl Iterator<Item = (Partition, i64)> + '_ {
        let stays =
            |partition: &Partition| self.draining_since_ms.is_none() && !is_revoking(&self.revoking, *partition);
        let stays = move |partition: &Partition| stays(partition) || self.is_awaited(*partition);
        let beginning = move |(partition, owned): (&Partition, &Owned)| {
            let start = owned
                .beginning
                .filter(|_| stays(partition) && matches!(owned.phase, Phase::Flowing { .. }));
            start.map(|start| (*partition, start))
        };
        self.owned.iter().filter_map(beginning)
    }

    /// What an offset of the partition is marked with. `begun`: the transaction that carries it commits a delivered range.
    pub(super) fn marks(&self, partition: Partition, begun: bool) -> Marks {
        let mut marks = self
            .owned
            .get(&partition)
            .map(|owned| owned.marks.clone())
            .unwrap_or_default();
        if begun {
            marks.sinks.clone_from(&self.settings.sinks);
        }
        marks
    }
}
