//! Doubt, hand-back, drain: how a lane lets go of what it holds.

use std::collections::BTreeMap;

use super::{Lane, OpenTransaction, Phase, Producer};
use crate::words::{Action, Now, Partition};

impl Lane {
    /// Drops everything in memory and reads the only truth again: committed offsets and their promises.
    pub(super) fn abandon(&mut self, discard: bool, actions: &mut Vec<Action>) {
        let open = self.transaction.take();
        (self.aborts, self.begin_at_ms) = (0, 0);
        let discard = discard || open.is_some();
        let in_memory = self
            .acknowledged
            .take()
            .into_iter()
            .chain(self.current.take())
            .chain(open.and_then(|open| open.promised));
        for batch in in_memory.chain(std::mem::take(&mut self.prepared)) {
            actions.push(Action::Drop(batch.id));
        }
        let mut forget = Vec::new();
        for (partition, owned) in &mut self.owned {
            if !matches!(owned.phase, Phase::Stopped(_)) {
                owned.phase = Phase::Reading(None);
                owned.quiet = true;
                forget.push(*partition);
            }
        }
        actions.push(Action::Forget(forget));
        if discard && self.producer == Producer::Ready {
            let epoch = self.count();
            self.producer = Producer::Renewing(epoch);
            actions.push(Action::NewProducer { epoch });
        }
        self.read(actions);
    }

    pub(super) fn in_flight(&self, partition: Partition) -> bool {
        self.current
            .iter()
            .chain(&self.acknowledged)
            .chain(&self.prepared)
            .any(|batch| batch.holds(partition))
            || self.transaction.iter().any(|open| {
                open.promised.as_ref().is_some_and(|batch| batch.holds(partition))
                    || open.beginnings.contains(&partition)
            })
    }

    pub(super) fn hand_back(&mut self, actions: &mut Vec<Action>) {
        let Some(revoking) = &self.revoking else { return };
        let free = revoking
            .partitions
            .iter()
            .all(|partition| !self.in_flight(*partition) && self.owned.get(partition).is_none_or(|owned| owned.quiet));
        if free && let Some(revoking) = self.revoking.take() {
            for partition in &revoking.partitions {
                self.owned.remove(partition);
            }
            actions.push(Action::Forget(revoking.partitions.clone()));
            actions.push(Action::HandBack(revoking.partitions));
        }
    }

    pub(super) fn drain(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.draining_since_ms.is_none() {
            self.draining_since_ms = Some(now.monotonic_ms);
            actions.push(Action::StopCollecting(self.owned.keys().copied().collect()));
        }
    }

    pub(super) fn leave(&mut self, actions: &mut Vec<Action>) {
        let quiet = self.owned.values().all(|owned| owned.quiet);
        let idle = self.current.is_none() && self.transaction.is_none() && self.prepared.is_empty();
        let idle = idle && self.acknowledged.is_none() && self.unfed(&BTreeMap::new()).next().is_none();
        if self.draining_since_ms.is_some() && idle && quiet && !self.left {
            self.left = true;
            actions.push(Action::Leave);
        }
    }

    pub(super) fn tick(&mut self, now: Now, actions: &mut Vec<Action>) {
        let hangs = |open: &OpenTransaction| {
            now.monotonic_ms.saturating_sub(open.since_ms) > self.settings.transaction_watchdog_ms
        };
        if self.transaction.as_ref().is_some_and(hangs) {
            self.abandon(true, actions);
        }
        let waited = |since: u64| now.monotonic_ms.saturating_sub(since) > self.settings.hand_back_wait_ms;
        let too_long = self.revoking.as_ref().is_some_and(|revoking| waited(revoking.since_ms))
            || self.draining_since_ms.is_some_and(waited);
        let waiting_for_work = self.current.is_some()
            || self.acknowledged.is_some()
            || self.transaction.is_some()
            || !self.prepared.is_empty()
            || self.owned.values().any(|owned| !owned.quiet)
            || (self.draining_since_ms.is_some() && self.unfed(&BTreeMap::new()).next().is_some());
        if too_long && waiting_for_work {
            self.abandon(false, actions);
        }
    }
}
