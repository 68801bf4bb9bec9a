//! How a lane feeds rollups: when, and which committed rows. A batch that is promised anyway also promises to feed what
//! lies before its ranges; with nothing else to do, a batch of the machine's own does.

use std::collections::BTreeMap;

use super::{Batch, Lane, Phase, is_revoking};
use crate::words::{FEEDING, Kind, Now, Partition, Range, RangeOutput};

impl Batch {
    /// Up to where the partition of `output`, one of this batch's ranges, is in the rollups once the batch is committed.
    pub(super) fn fed_after(&self, output: &RangeOutput, fed: i64) -> i64 {
        let range = output.range;
        if self.kind != Kind::New {
            // Whoever settles feeds whatever a rollup lacks.
            return range.end;
        }
        let feeds = self.feeds.iter().any(|feed| feed.partition == range.partition);
        let fed = if feeds { range.start } else { fed };
        if fed == range.start && !output.summed {
            range.end
        } else {
            fed
        }
    }

    /// Takes back what `feed_with` added; false if that was nothing.
    pub(super) fn forget_feeds(&mut self) -> bool {
        let had = !self.feeds.is_empty();
        self.feeds.clear();
        let joined = |output: &RangeOutput| output.range.start == output.range.end && self.kind == Kind::New;
        let stay: Vec<bool> = self.ranges.iter().map(|output| !joined(output)).collect();
        let mut of_ranges = stay.iter().copied();
        self.ranges.retain(|_| of_ranges.next().unwrap_or(true));
        let mut of_attempts = stay.iter().copied();
        self.attempts.retain(|_| of_attempts.next().unwrap_or(true));
        had
    }
}

impl Lane {
    /// Nothing else is to be done: what is committed and in no rollup travels alone.
    pub(super) fn feed_alone(&mut self, now: Now) {
        if self.due(now, &BTreeMap::new()).is_empty() {
            return;
        }
        let id = FEEDING | self.count();
        self.prepared.push_back(Batch {
            id,
            kind: Kind::New,
            ranges: Vec::new(),
            rules: (0, 0),
            attempts: Vec::new(),
            token: self.token(id),
            deadline_ms: None,
            feeds: Vec::new(),
            delivered: false,
        });
    }

    /// The topics whose rollups are fed now: one at a time, so that no batch is held up for long, and all by a drain.
    fn due(&self, now: Now, fed: &BTreeMap<Partition, i64>) -> Vec<u16> {
        let mut topics: Vec<u16> = self.unfed(fed).map(|(partition, ..)| partition.topic).collect();
        topics.dedup();
        if self.draining_since_ms.is_some() {
            return topics;
        }
        let at = |topic: &u16| self.fed_at_ms.get(topic).copied();
        let waited =
            |topic: &u16| at(topic).is_none_or(|at| now.monotonic_ms.saturating_sub(at) >= self.settings.feed_every_ms);
        topics.retain(waited);
        topics.into_iter().min_by_key(|topic| at(topic)).into_iter().collect()
    }

    /// What is in no rollup of partitions that stay: partition, from where, and where its next range starts. `fed`: where
    /// the transaction that is about to begin says something newer than the lane's own state.
    pub(super) fn unfed<'a>(
        &'a self,
        fed: &'a BTreeMap<Partition, i64>,
    ) -> impl Iterator<Item = (Partition, i64, i64)> + 'a {
        self.owned.iter().filter_map(move |(partition, owned)| {
            let Phase::Flowing { next, fed: known } = owned.phase else {
                return None;
            };
            let from = fed.get(partition).copied().unwrap_or(known);
            (from < next && !is_revoking(&self.revoking, *partition)).then_some((*partition, from, next))
        })
    }

    /// Lets `batch`, which is about to be promised, feed what is committed and in no rollup: of its own partitions what
    /// lies before their ranges; of others, an empty range takes part.
    pub(super) fn feed_with(&mut self, now: Now, batch: &mut Batch, fed: &BTreeMap<Partition, i64>) {
        let topics = match batch.kind {
            Kind::New => self.due(now, fed),
            Kind::Recovery { .. } => return,
        };
        let mut feeds = Vec::new();
        let mut joining = Vec::new();
        for (partition, start, next) in self.unfed(fed).filter(|(of, ..)| topics.contains(&of.topic)) {
            let own = batch.ranges.iter().find(|output| output.range.partition == partition);
            let end = match own {
                Some(output) => output.range.start,
                // Its next range is prepared already, and what lies between is not committed.
                None if self.prepared.iter().any(|later| later.holds(partition)) => continue,
                None => {
                    joining.push(Range {
                        partition,
                        start: next,
                        end: next,
                    });
                    next
                }
            };
            if start < end {
                feeds.push(Range { partition, start, end });
            }
        }
        for range in joining {
            batch.attempts.push(0);
            batch.ranges.push(RangeOutput::of_nothing(range));
        }
        self.fed_at_ms
            .extend(feeds.iter().map(|feed| (feed.partition.topic, now.monotonic_ms)));
        batch.feeds = feeds;
    }

    pub(super) fn note_fed(&mut self, done: &Batch) {
        for output in &done.ranges {
            if let Some(Phase::Flowing { fed, .. }) = self.phase(output.range.partition) {
                *fed = done.fed_after(output, *fed);
            }
        }
    }
}
