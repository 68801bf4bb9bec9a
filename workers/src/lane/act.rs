//! Carries out the machine's actions, in their order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use clickhouse_sink::Feed;
use crash_points::unless_given_up;
use exactly_once_kafka::transactions::Work;
use exactly_once_kafka::{Group, Message, Pairs, Plainly, Transactor};
use exactly_once_protocol::{
    Action, BatchId, Delivered, Event, FEEDING, Guarantee, Kind, Partition, Range, StopCode, Transaction, TxnEnd,
};

use super::flow::{Flow, Mode};
use super::{Held, Inbox, LaneError, LaneLoop};
use crate::charges::Charges;
use crate::records::dead_letter;
use crate::sinks::{Delivery, Unfed};

/// Tells a lane something. A lane that has ended needs no telling.
pub(super) fn tell(sender: &SyncSender<Inbox>, message: Inbox) {
    if sender.send(message).is_err() {
        tracing::debug!("an answer came after its lane had ended");
    }
}

impl LaneLoop {
    /// Feeds waiting events to the machine until nothing is left to do.
    pub(super) fn carry_out(&mut self, group: &Group) -> Result<(), LaneError> {
        while let Some(event) = self.events.pop_front() {
            let actions = self.machine.step(self.now(), event);
            for action in actions {
                self.act(group, action)?;
            }
            self.take_assignment(group)?;
        }
        Ok(())
    }

    fn act(&mut self, group: &Group, action: Action) -> Result<(), LaneError> {
        match action {
            Action::ReadOffsets { epoch, partitions } => self.read_offsets(group, epoch, partitions),
            Action::Collect { partition, from } => {
                self.found.remove(&partition);
                self.flows.insert(
                    partition,
                    Flow {
                        mode: Mode::New,
                        start: from,
                        next: from,
                        wait: None,
                    },
                );
                self.position(group, partition, from)?;
            }
            Action::Settle { partition, promise } => {
                let (from, end) = (promise.start, promise.end);
                self.settle(partition, promise);
                self.position(group, partition, from)?;
                if from == end {
                    self.idle(group, &[partition])?;
                }
            }
            Action::Forget(partitions) => self.forget(group, &partitions)?,
            Action::Transact { epoch, transaction } => self.transact(group, epoch, transaction),
            Action::Deliver {
                batch,
                deadline_ms,
                token,
                feeds,
                begins,
            } => self.deliver(batch, (deadline_ms, token), &feeds, begins),
            Action::Done(batch) => self.done(batch),
            Action::Drop(batch) => {
                if let Some(task) = self.batches.remove(&batch).and_then(|held| held.task) {
                    task.abort();
                }
            }
            Action::NewProducer { epoch } => {
                self.given_up();
                self.new_producer(epoch);
            }
            Action::StopCollecting(partitions) => {
                if partitions.iter().any(|partition| self.collector.held(*partition) > 0) {
                    self.close(group)?;
                }
                self.idle(group, &partitions)?;
                self.events.push_back(Event::Quiet(partitions));
            }
            Action::HandBack(partitions) => self.hand_back(group, &partitions)?,
            Action::Stop(partition, code) => self.stop(group, partition, code)?,
            Action::Leave => self.left = true,
        }
        Ok(())
    }

    pub(super) fn new_producer(&mut self, epoch: u64) {
        // Dropping the old one gives its thread up, even if a call hangs in it.
        self.transactor = None;
        match Transactor::start(self.recipe.clone(), epoch) {
            Ok(transactor) => self.transactor = Some(transactor),
            Err(error) => tracing::error!(lane = self.settings.slot, %error, "no producer"),
        }
    }

    /// A transaction that has not ended when another producer is asked for: a call hangs, or partitions had to go.
    fn given_up(&mut self) {
        if let Some((epoch, since)) = self.transacting {
            tracing::warn!(
                lane = self.settings.slot,
                after = ?since.elapsed(),
                "a transaction was given up before it ended; another producer fences it, and the offsets tell what came of it"
            );
            self.transaction_ended(epoch, "given_up");
        }
    }

    /// Counts the transaction that is open; one that was given up, and answers after all, was counted.
    pub(super) fn transaction_ended(&mut self, epoch: u64, outcome: &str) {
        if let Some((_, since)) = self.transacting.take_if(|(open, _)| *open == epoch) {
            // One that was slow says little of the next.
            self.transaction_took = (3 * self.transaction_took + since.elapsed()) / 4;
            let labels = vec![("outcome", outcome.to_owned())];
            self.shared.metrics.transactions.get_or_create(&labels).inc();
        }
    }

    /// Makes librdkafka fetch from here: by the assignment itself if the group still waits for it, else by a seek.
    fn position(&mut self, group: &Group, partition: Partition, from: i64) -> Result<(), LaneError> {
        if let Some(offset) = self.unassigned.as_mut().and_then(|waiting| waiting.get_mut(&partition)) {
            *offset = Some(from);
            return Ok(());
        }
        group.go_on(partition, from)?;
        Ok(())
    }

    /// Answers the group once every partition that it gave has its offset.
    fn take_assignment(&mut self, group: &Group) -> Result<(), LaneError> {
        if !self
            .unassigned
            .as_ref()
            .is_some_and(|waiting| waiting.values().all(Option::is_some))
        {
            return Ok(());
        }
        let taken: Vec<_> = self.unassigned.take().unwrap_or_default().into_iter().collect();
        tracing::info!(lane = self.settings.slot, partitions = taken.len(), "partitions taken");
        group.assign(&taken)?;
        let idle: Vec<Partition> = taken
            .iter()
            .map(|(partition, _)| *partition)
            .filter(|partition| self.flows.get(partition).is_none_or(|flow| flow.mode == Mode::Idle))
            .collect();
        for partition in &idle {
            self.flows.insert(*partition, Flow::IDLE);
        }
        if !idle.is_empty() {
            group.pause(&idle)?;
        }
        self.shared.health.part(&self.settings.slot).ready(true, "");
        Ok(())
    }

    fn idle(&mut self, group: &Group, partitions: &[Partition]) -> Result<(), LaneError> {
        let mut fetched = Vec::new();
        for partition in partitions {
            if let Some(flow) = self.flows.get_mut(partition) {
                flow.mode = Mode::Idle;
                flow.wait = None;
                fetched.push(*partition);
            }
        }
        fetched.retain(|partition| !self.is_unassigned(*partition));
        if !fetched.is_empty() {
            group.pause(&fetched)?;
        }
        Ok(())
    }

    fn forget(&mut self, group: &Group, partitions: &[Partition]) -> Result<(), LaneError> {
        if partitions.iter().any(|partition| self.collector.held(*partition) > 0) {
            // Columns mix partitions; the machine forgets all of them when one that flows is forgotten.
            self.collector = crate::collect::Collector::default();
            self.first_at = None;
            self.oldest_ms = i64::MAX;
        }
        for partition in partitions {
            self.settling.remove(partition);
        }
        self.idle(group, partitions)
    }

    fn hand_back(&mut self, group: &Group, partitions: &[Partition]) -> Result<(), LaneError> {
        tracing::info!(
            lane = self.settings.slot,
            partitions = partitions.len(),
            "partitions handed back"
        );
        for partition in partitions {
            self.flows.remove(partition);
            self.settling.remove(partition);
        }
        self.asked_back.clear();
        group.unassign(partitions)?;
        Ok(())
    }

    fn stop(&mut self, group: &Group, partition: Partition, code: StopCode) -> Result<(), LaneError> {
        let topic = self.topics.name(partition).to_string();
        let found = self.found.get(&partition).map(String::as_str).unwrap_or_default();
        tracing::error!(
            code = code.code(),
            topic,
            partition = partition.partition,
            found,
            "partition stopped: {}; see docs/errors/{}.md",
            code.explain(),
            code.code()
        );
        self.part_of(partition)
            .ready(false, &format!("{}: {}", code.code(), code.explain()));
        self.stopped.insert(partition);
        if let Some(offset) = self.unassigned.as_mut().and_then(|waiting| waiting.get_mut(&partition)) {
            *offset = Some(0);
        }
        self.idle(group, &[partition])
    }

    fn transact(&mut self, group: &Group, epoch: u64, transaction: Transaction) {
        let (alerts, messages) = transaction.commits.map(|batch| self.written(batch)).unwrap_or_default();
        let plainly = match self.recipe.guarantee {
            Guarantee::ExactlyOnce => None,
            Guarantee::AtLeastOnce => group.committer().map(|committer| Plainly {
                committer,
                batch: transaction.commits,
            }),
        };
        let is_member = plainly.is_some() || self.recipe.guarantee == Guarantee::ExactlyOnce;
        let ended = match (group.metadata().filter(|_| is_member), &self.transactor) {
            (Some(metadata), Some(transactor)) => {
                tracing::debug!(epoch, commits = ?transaction.commits, promises = ?transaction.promises, "transaction");
                let work = Work {
                    epoch,
                    group: metadata,
                    offsets: transaction.offsets,
                    alerts,
                    messages,
                    plainly,
                };
                // The thread has ended: a new producer is needed.
                if transactor.run(work) {
                    self.transacting = Some((epoch, Instant::now()));
                    None
                } else {
                    Some(TxnEnd::Doubt)
                }
            }
            (_, None) => Some(TxnEnd::Doubt),
            // Not a member now: nothing was begun, so nothing is in doubt.
            (None, Some(_)) => Some(TxnEnd::Aborted),
        };
        if let Some(end) = ended {
            self.events.push_back(Event::TxnEnded { epoch, end });
        }
    }

    /// What a commit writes.
    fn written(&self, batch: BatchId) -> (Vec<Pairs>, Vec<Message>) {
        let Some(held) = self.batches.get(&batch) else {
            return Default::default();
        };
        let pipeline = &self.model.pipeline;
        let (mut alerts, mut messages) = (Vec::new(), Vec::new());
        for outputs in &held.outputs {
            if let Some(sink) = &pipeline.sinks.alerts {
                alerts.push(Pairs {
                    topic: sink.topic.clone(),
                    records: Arc::clone(&outputs.alerts),
                });
            }
            messages.extend(outputs.dead.iter().map(|letter| {
                let source = &pipeline.sources[usize::from(letter.partition.topic)];
                dead_letter(source, letter, outputs.rules.0)
            }));
        }
        let writer = crate::audit::Writer {
            pipeline,
            slot: &self.settings.slot,
            topic_ids: &self.topic_ids,
            at_ms: crate::sinks::unix_ms(),
        };
        messages.extend(writer.record(held.outputs.iter().map(|outputs| &**outputs)));
        (alerts, messages)
    }

    fn deliver(
        &mut self,
        batch: BatchId,
        (deadline_ms, token): (Option<i64>, u64),
        feeds: &[Range],
        begins: Vec<(Partition, u64)>,
    ) {
        if batch >= FEEDING {
            self.batches.insert(batch, Held::of(Vec::new(), Kind::New));
        }
        let feeds = self.feeds(feeds);
        let Some(held) = self.batches.get_mut(&batch) else {
            return;
        };
        let delivery = Delivery {
            token,
            deadline_ms,
            shipments: std::mem::take(&mut held.shipments),
            feeds,
            begins,
        };
        let (sinks, sender) = (Arc::clone(&self.shared.sinks), self.sender.clone());
        let task = self.shared.runtime.spawn(async move {
            let began = std::time::Instant::now();
            let outcome = unless_given_up(sinks.deliver(delivery)).await;
            let outcome = outcome.unwrap_or(Delivered::Doubt);
            let took = began.elapsed();
            tracing::debug!(batch, ?outcome, ?took, "delivered");
            tell(&sender, Inbox::Delivered { batch, outcome });
        });
        held.task = Some(task.abort_handle());
    }

    /// Which rollup gets rows of which of these ranges.
    fn feeds(&self, ranges: &[Range]) -> Vec<Unfed> {
        let model = &self.model;
        let of = |feed: &Feed| {
            let reaches = |range: &&Range| {
                let tables = &model.catalog.events[usize::from(range.partition.topic)].tables;
                tables.contains(&feed.from)
            };
            let ranges: Vec<_> = ranges
                .iter()
                .filter(reaches)
                .map(|range| model.stored(*range))
                .collect();
            (!ranges.is_empty()).then(|| Unfed {
                feeds: vec![feed.clone()],
                ranges,
                refused: Arc::default(),
            })
        };
        model.feeds.iter().filter_map(of).collect()
    }

    fn done(&mut self, batch: BatchId) {
        let Some(held) = self.batches.remove(&batch) else {
            return;
        };
        let metrics = &self.shared.metrics;
        let mut dead: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for outputs in &held.outputs {
            metrics.committed.inc_by(outputs.records);
            metrics.alerts.inc_by(outputs.alerts.len() as u64);
            metrics
                .charges
                .inc_by(outputs.charges.values().map(Charges::len).sum::<usize>() as u64);
            metrics.dropped.inc_by(outputs.dropped);
            for letter in &outputs.dead {
                *dead
                    .entry((letter.refusal.stage.name(), &letter.refusal.code))
                    .or_default() += 1;
            }
        }
        for ((stage, code), count) in dead {
            let labels = vec![("stage", stage.to_string()), ("code", code.to_string())];
            metrics.dead.get_or_create(&labels).inc_by(count);
        }
        if held.oldest_ms != i64::MAX {
            let age = crate::sinks::unix_ms() - held.oldest_ms;
            metrics.age.observe(age.max(0) as f64 / 1000.0);
        }
        tracing::debug!(lane = self.settings.slot, records = held.records, kind = ?held.kind, "batch committed");
    }
}
