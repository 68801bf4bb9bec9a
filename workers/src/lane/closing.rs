//! Closing a batch: when, and what becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crash_points::{Point, here};
use exactly_once_kafka::Group;
use exactly_once_protocol::{BatchId, Event, Guarantee, Kind, Partition, UNKNOWN_SCHEMAS_MAX};
use pipeline::Batch;

use super::flow::{Mode, Wait};
use super::report::BRAKED;
use super::{Held, LaneError, LaneLoop, Room};
use crate::sinks::Shipment;
use crate::transform::{Outputs, transform};

/// How many times `age_max` a lane that is behind gathers at most.
const BEHIND_AGES: u32 = 2;

/// `linger` is over, or enough rows are there. A lane that is behind gathers for longer: what it delivers is late already, and a row costs
/// ClickHouse less the more come with it.
fn ripe(batch: &Batch, records: usize, waited: Duration, behind: bool) -> bool {
    match behind {
        true => waited >= BEHIND_AGES * batch.age_max,
        false => records >= batch.rows || waited >= batch.linger,
    }
}

/// How long before `linger` is over a batch closes: a transaction promises it before it is delivered, in the commit of the last one or
/// by itself. It is at most half of `linger`, however long transactions take.
fn ahead(guarantee: Guarantee, transaction_took: Duration, linger: Duration) -> Duration {
    match guarantee {
        Guarantee::ExactlyOnce => transaction_took.min(linger / 2),
        Guarantee::AtLeastOnce => Duration::ZERO,
    }
}

impl LaneLoop {
    /// True once the collecting batch may close.
    fn ripe(&self) -> bool {
        let batch = &self.model.pipeline.batch;
        let ahead = ahead(self.recipe.guarantee, self.transaction_took, batch.linger);
        let waited = self.first_at.map(|first| first.elapsed() + ahead);
        waited.is_some_and(|waited| ripe(batch, self.collector.records(), waited, self.behind))
    }

    /// True if the collecting batch should close before the one that was just delivered is committed, so that its promise rides in that commit.
    pub(super) fn may_ride(&self) -> bool {
        self.machine.standing().waiting == 0 && self.ripe()
    }

    pub(super) fn full(&self) -> bool {
        let batch = &self.model.pipeline.batch;
        let (rows_share, bytes_share) = self.share();
        // Of many lanes each has a small share: with half of it a batch is full, so that the next can be gathered beside it.
        let rows_max = batch.rows_max.min(self.records_max).min(rows_share / 2);
        self.collector.records() >= rows_max.max(1)
            || self.collector.bytes() >= batch.bytes_max.min(bytes_share / 2)
            || self
                .collector
                .unknown_counts()
                .any(|count| count >= UNKNOWN_SCHEMAS_MAX)
    }

    /// While a batch is in flight the next one grows; only one closed batch waits, so that inserts are large.
    pub(super) fn should_close(&self) -> bool {
        let standing = self.machine.standing();
        let hurried = self.next_model.is_some() && self.collector.records() > 0;
        standing.waiting == 0 && ((!standing.busy && (self.ripe() || hurried)) || self.full())
    }

    /// Ends the collecting batch: transform, brake, and hand its ranges to the machine.
    pub(super) fn close(&mut self, group: &Group) -> Result<(), LaneError> {
        if self.collector.records() == 0 {
            return Ok(());
        }
        let (records, bytes) = (self.collector.records(), self.collector.bytes());
        let collected = self.collector.close()?;
        let oldest_ms = std::mem::replace(&mut self.oldest_ms, i64::MAX);
        let waited = self.first_at.take().map_or(Duration::ZERO, |first| first.elapsed());
        if waited > self.model.pipeline.batch.age_max && !self.behind {
            // A sink is slow, or the one before was large: what is promised of the age holds while sinks keep up.
            self.shared.metrics.late.inc();
        }
        let began = Instant::now();
        let mut outputs = transform(&self.model, &self.revision, collected)?;
        here(Point::AfterTransform);
        tracing::debug!(lane = self.settings.slot, records, took = ?began.elapsed(), "batch transformed");
        // One record's charges go on whatever they are: the sink's health tells of them, and nothing could be cut off.
        let sinks = Arc::clone(&self.shared.sinks);
        if records > 1
            && let Some((sink, partition)) = sinks.too_large(&outputs)
        {
            self.records_max = records / 2;
            let (lane, topic, records_max) = (&self.settings.slot, self.topics.name(partition), self.records_max);
            tracing::info!(
                lane,
                sink,
                topic,
                records,
                records_max,
                "a range's charges are too many for one message"
            );
            return self.take_back(group, &outputs, Wait::Pressure);
        }
        // Once it is promised it can't be cut any more.
        if records > 1
            && let Some(table) = sinks.block_too_large(&outputs)
        {
            self.records_max = records / 2;
            let (lane, records_max) = (&self.settings.slot, self.records_max);
            tracing::info!(
                lane,
                table,
                records,
                records_max,
                "a batch's rows are too many bytes for one block"
            );
            return self.take_back(group, &outputs, Wait::Pressure);
        }
        if let Some(why) = self.brake.take(&outputs) {
            self.braked(&why);
            return self.take_back(group, &outputs, Wait::Brake);
        }
        self.records_max = self.records_max.saturating_add(self.records_max / 4 + 1);
        for output in &outputs.ranges {
            if let Some(flow) = self.flows.get_mut(&output.range.partition) {
                flow.start = output.range.end;
            }
        }
        let ranges = outputs.ranges.clone();
        let rules = outputs.rules;
        let by_partition: BTreeMap<Partition, usize> = ranges
            .iter()
            .map(|output| {
                (
                    output.range.partition,
                    usize::try_from(output.range.end - output.range.start).unwrap_or(0),
                )
            })
            .collect();
        let rows = sinks.write(&self.shared.runtime, &mut outputs, None);
        let shipment = Shipment {
            outputs: Arc::new(outputs),
            rows,
            unfed: None,
        };
        let held = Held {
            records,
            room: Room {
                rows: records,
                bytes,
                by_partition: by_partition.clone(),
            },
            by_partition,
            oldest_ms,
            ..Held::of(vec![shipment], Kind::New)
        };
        let batch = self.hold(held);
        self.events.push_back(Event::Prepared {
            batch,
            kind: Kind::New,
            ranges,
            rules,
        });
        Ok(())
    }

    pub(super) fn hold(&mut self, held: Held) -> BatchId {
        self.tickets += 1;
        self.batches.insert(self.tickets, held);
        self.tickets
    }

    /// Most of the batch would become dead letters: nothing of it is promised, and the lane waits for an operator.
    fn braked(&self, why: &str) {
        tracing::error!(
            lane = self.settings.slot,
            code = BRAKED,
            why,
            "the dead-letter brake has stopped this lane"
        );
        self.shared
            .health
            .part(&self.settings.slot)
            .ready(false, &format!("{BRAKED}: {why}"));
    }

    /// Nothing of a closed batch is promised: its records will come again. Until they do, their partitions wait, whatever else
    /// happens in this turn: a record behind them would begin a range that leaves them out.
    fn take_back(&mut self, group: &Group, outputs: &Outputs, wait: Wait) -> Result<(), LaneError> {
        for output in &outputs.ranges {
            let partition = output.range.partition;
            if let Some(flow) = self.flows.get_mut(&partition) {
                flow.start = output.range.start;
                flow.next = output.range.start;
                if flow.mode == Mode::New && flow.wait.is_none() {
                    self.hold_back(group, partition, wait)?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_that_is_behind_gathers_for_longer_and_not_for_ever() {
        let ms = Duration::from_millis;
        let batch = Batch {
            linger: ms(40),
            age_max: ms(500),
            rows: 1_000,
            rows_max: 100_000,
            bytes_max: 1 << 20,
            deadline: ms(10_000),
            rollup_every: ms(1_000),
            grace: ms(1_000),
        };
        assert!(!ripe(&batch, 10, ms(39), false));
        assert!(ripe(&batch, 10, ms(40), false));
        assert!(ripe(&batch, 1_000, ms(1), false));
        assert!(!ripe(&batch, 1_000, ms(999), true));
        assert!(ripe(&batch, 1_000, ms(1_000), true));
    }

    #[test]
    fn a_batch_closes_as_early_as_its_promise_takes_long() {
        let ms = Duration::from_millis;
        let ahead_of = |guarantee, took| ahead(guarantee, took, ms(40));
        assert_eq!(ahead_of(Guarantee::ExactlyOnce, ms(9)), ms(9));
        assert_eq!(ahead_of(Guarantee::ExactlyOnce, ms(5_000)), ms(20));
        assert_eq!(ahead_of(Guarantee::AtLeastOnce, ms(9)), Duration::ZERO);
    }
}
