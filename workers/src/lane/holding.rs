//! The reasons for which a partition is not fetched: holding it back, going on with it, and back-pressure.

use exactly_once_kafka::Group;
use exactly_once_protocol::Partition;

use super::flow::{Flow, Mode, Wait};
use super::{LaneError, LaneLoop};

impl LaneLoop {
    pub(super) fn hold_back(&mut self, group: &Group, partition: Partition, wait: Wait) -> Result<(), LaneError> {
        if let Some(flow) = self.flows.get_mut(&partition) {
            flow.wait = Some(wait);
            self.count_pause(wait);
            group.pause(&[partition])?;
        }
        Ok(())
    }

    fn count_pause(&self, wait: Wait) {
        let labels = vec![("reason", wait.name().to_string())];
        self.shared.metrics.paused.get_or_create(&labels).inc();
    }

    /// Goes on with every partition that waits for this: pausing threw away what was prefetched, and the record that had to wait
    /// comes again.
    pub(super) fn release(&mut self, group: &Group, over: impl Fn(Wait) -> bool) -> Result<(), LaneError> {
        let waiting: Vec<Partition> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.wait.is_some_and(&over))
            .map(|(partition, _)| *partition)
            .collect();
        waiting
            .into_iter()
            .try_for_each(|partition| self.go_on(group, partition))
    }

    /// Goes on with a partition, whatever it waits for.
    pub(super) fn go_on(&mut self, group: &Group, partition: Partition) -> Result<(), LaneError> {
        if let Some(flow) = self.flows.get_mut(&partition) {
            flow.wait = None;
            if flow.mode != Mode::Idle {
                group.go_on(partition, flow.next)?;
            }
        }
        Ok(())
    }

    /// Librdkafka has paused a partition that is read, for an error in place of its next record.
    pub(super) fn interrupted(&mut self, group: &Group, partition: Partition, wait: Wait) -> Result<(), LaneError> {
        let read = |flow: &Flow| flow.mode != Mode::Idle && flow.wait.is_none();
        match self.flows.get(&partition).is_some_and(read) {
            true => self.hold_back(group, partition, wait),
            // It is paused already, and goes on for another reason.
            false => Ok(()),
        }
    }

    /// Back-pressure: a lane that holds as much as it may takes no records. Partitions are not paused for it, because that throws away
    /// what librdkafka has fetched of them. They are where one has to be rebuilt meanwhile, and one that holds more than twice its share is paused
    /// alone, so that a hot one cannot take the memory of the others; each goes on below its low mark.
    pub(super) fn pressure(&mut self, group: &Group) -> Result<(), LaneError> {
        let rebuilt = self.rebuilds();
        if self.brake.tripped() {
            self.sated = false;
            return self.hold_new(group, Wait::Brake, |_| true);
        }
        let (rows_max, bytes_max) = self.share();
        let rows = self.collector.records() + self.batches.values().map(|held| held.room.rows).sum::<usize>();
        let bytes = self.collector.bytes() + self.batches.values().map(|held| held.room.bytes).sum::<usize>();
        let stuck = self.full() && self.machine.standing().waiting > 0;
        let much = rows >= rows_max || bytes >= bytes_max || stuck;
        if much && !rebuilt && !self.sated {
            self.count_pause(Wait::Pressure);
        }
        self.sated = much && !rebuilt;
        if much {
            return if rebuilt {
                self.hold_new(group, Wait::Pressure, |_| true)
            } else {
                Ok(())
            };
        }
        let share = (2 * rows_max / self.flows.len().max(1)).max(self.model.pipeline.batch.rows);
        let over: Vec<Partition> = self
            .flows
            .keys()
            .copied()
            .filter(|one| self.held(*one) >= share)
            .collect();
        self.hold_new(group, Wait::Pressure, |partition| over.contains(&partition))?;
        if self.full() {
            return Ok(());
        }
        let low = share as f64 * self.model.pipeline.limits.resume_below;
        let waits = |flow: &Flow| flow.wait == Some(Wait::Pressure);
        let waiting = self.flows.iter().filter(|(_, flow)| waits(flow));
        let lower: Vec<Partition> = waiting
            .map(|(partition, _)| *partition)
            .filter(|one| (self.held(*one) as f64) < low)
            .collect();
        lower.into_iter().try_for_each(|partition| self.go_on(group, partition))
    }

    /// Whether records of a partition are wanted to rebuild a promised range.
    fn rebuilds(&self) -> bool {
        let wanted = |flow: &Flow| matches!(flow.mode, Mode::Settle { .. }) && flow.wait.is_none();
        self.flows
            .iter()
            .any(|(partition, flow)| wanted(flow) && !self.is_unassigned(*partition))
    }

    /// Nothing can be added to the open batch any more, and no record is wanted for anything else.
    pub(super) fn has_no_room(&self) -> bool {
        self.collector.records() >= self.records_max && !self.rebuilds()
    }

    /// Records that could be taken and were not yet, by what Kafka said of the logs' ends when it last handed records over.
    pub(super) fn waits_in_log(&self, group: &Group) -> usize {
        let goes_on = |flow: &Flow| flow.mode == Mode::New && flow.wait.is_none();
        let waiting = self
            .flows
            .iter()
            .filter(|(_, flow)| goes_on(flow))
            .filter_map(|(partition, flow)| {
                let high = group.high_watermark(*partition)?;
                usize::try_from(high - flow.next).ok()
            });
        waiting.sum()
    }

    /// What this lane may hold of the worker's rows and bytes.
    pub(super) fn share(&self) -> (usize, usize) {
        let (limits, lanes) = (&self.model.pipeline.limits, self.settings.lanes.max(1));
        let of_each = |limit: usize| (limit / lanes).max(1);
        (of_each(limits.in_flight_rows_max), of_each(limits.in_flight_bytes_max))
    }

    fn held(&self, partition: Partition) -> usize {
        let in_batches: usize = self
            .batches
            .values()
            .filter_map(|held| held.room.by_partition.get(&partition))
            .sum();
        self.collector.held(partition) + in_batches
    }

    fn hold_new(&mut self, group: &Group, wait: Wait, only: impl Fn(Partition) -> bool) -> Result<(), LaneError> {
        let flowing: Vec<Partition> = self
            .flows
            .iter()
            .filter(|(partition, flow)| flow.mode == Mode::New && flow.wait.is_none() && only(**partition))
            .map(|(partition, _)| *partition)
            .filter(|partition| !self.is_unassigned(*partition))
            .collect();
        for partition in flowing {
            self.hold_back(group, partition, wait)?;
        }
        Ok(())
    }

    /// Whether the group gave it and still waits for an answer about it: nothing is fetched of it.
    pub(super) fn is_unassigned(&self, partition: Partition) -> bool {
        self.unassigned.as_ref().is_some_and(|all| all.contains_key(&partition))
    }
}
