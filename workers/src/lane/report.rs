//! What a lane says of itself: gauges, and its parts of the worker's health.

use std::collections::{BTreeMap, BTreeSet};

use exactly_once_kafka::Group;
use exactly_once_protocol::{Partition, StopCode};

use super::LaneLoop;
use super::flow::Wait;

/// The code of a lane that the dead-letter brake has stopped, with all partitions that it reads.
pub(super) const BRAKED: &str = "SLU-201";

impl LaneLoop {
    /// The part of the worker's health that says that a partition is stopped.
    pub(super) fn part_of(&self, partition: Partition) -> serve::Health {
        let topic = self.topics.name(partition);
        self.shared.health.part(&format!("{topic}/{}", partition.partition))
    }

    /// A partition that was handed back or taken again is no longer stopped, here.
    fn report_stops(&mut self, stops: &[(Partition, StopCode)]) {
        let still = |partition: &Partition| stops.iter().any(|(stopped, _)| stopped == partition);
        let (stopped, over) = std::mem::take(&mut self.stopped).into_iter().partition(still);
        self.stopped = stopped;
        let over: BTreeSet<Partition> = over;
        for partition in over {
            self.part_of(partition).remove();
        }
        let braked = self
            .flows
            .values()
            .filter(|flow| flow.wait == Some(Wait::Brake))
            .count();
        let by_code = StopCode::ALL.map(|code| (code.code(), stops.iter().filter(|(_, of)| *of == code).count()));
        for (code, count) in by_code.into_iter().chain([(BRAKED, braked)]) {
            let labels = vec![("code", code.to_string()), ("lane", self.settings.slot.clone())];
            self.shared.metrics.stopped.get_or_create(&labels).set(count as i64);
        }
    }

    pub(super) fn report(&mut self, group: &Group) {
        let standing = self.machine.standing();
        self.report_stops(&standing.stopped);
        let metrics = &self.shared.metrics;
        let lane = vec![("lane", self.settings.slot.clone())];
        let held = self.collector.records() + self.batches.values().map(|held| held.records).sum::<usize>();
        metrics.owned.get_or_create(&lane).set(standing.owned as i64);
        metrics.doubtful.get_or_create(&lane).set(standing.doubtful as i64);
        metrics.in_flight.get_or_create(&lane).set(held as i64);
        let mut lag: BTreeMap<u16, i64> = BTreeMap::new();
        for (partition, flow) in &self.flows {
            let in_flight: usize = self
                .batches
                .values()
                .filter_map(|held| held.by_partition.get(partition))
                .sum();
            if let Some(high) = group.high_watermark(*partition) {
                *lag.entry(partition.topic).or_default() += (high - flow.start).max(0) + in_flight as i64;
            }
        }
        // Of every topic: one whose last partition has gone elsewhere has no lag here.
        for (topic, source) in (0_u16..).zip(&self.model.pipeline.sources) {
            let labels = vec![("topic", source.topic.clone()), ("lane", self.settings.slot.clone())];
            let lag = lag.get(&topic).copied().unwrap_or(0);
            metrics.lag.get_or_create(&labels).set(lag);
        }
    }
}
