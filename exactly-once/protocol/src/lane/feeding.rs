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
        let feed = self.feeds.iter().find(|feed| feed.partition == range.partition);
        let fed = feed.map_or(fed, |feed| feed.end);
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

/// A range that could be fed.
struct Candidate {
    feed: Range,
    /// Where the empty range lies that lets its partition take part, if the batch has no range of it.
    joins: Option<i64>,
    /// More of the partition is committed than is fed at once.
    rest: bool,
}

impl Lane {
    /// Nothing else is to be done: what is committed and in no rollup travels alone.
    pub(super) fn feed_alone(&mut self, now: Now) {
        let fed = BTreeMap::new();
        if self.due(now, &self.candidates(None, &fed)).is_empty() {
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

    /// The topics of these candidates whose rollups are fed now: one at a time, so that no batch is held up for long, and all
    /// by a drain.
    fn due(&self, now: Now, candidates: &[Candidate]) -> Vec<u16> {
        let mut topics: Vec<u16> = candidates.iter().map(|one| one.feed.partition.topic).collect();
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

    /// What could be fed under the promise of `batch`, or of one without ranges: of its own partitions what lies before
    /// their ranges, of others all that is committed.
    fn candidates(&self, batch: Option<&Batch>, fed: &BTreeMap<Partition, i64>) -> Vec<Candidate> {
        let candidate = |(partition, start, next): (Partition, i64, i64)| {
            let own = batch.and_then(|batch| batch.ranges.iter().find(|output| output.range.partition == partition));
            // Its next range is prepared already, and what lies between is not committed.
            if own.is_none() && self.prepared.iter().any(|later| later.holds(partition)) {
                return None;
            }
            let committed = own.map_or(next, |output| output.range.start);
            let end = committed.min(start.saturating_add(self.settings.feed_max));
            let feed = Range { partition, start, end };
            let joins = own.is_none().then_some(next);
            let rest = end < committed;
            (start < end).then_some(Candidate { feed, joins, rest })
        };
        self.unfed(fed).filter_map(candidate).collect()
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
        if batch.kind != Kind::New {
            return;
        }
        let mut candidates = self.candidates(Some(batch), fed);
        let topics = self.due(now, &candidates);
        candidates.retain(|one| topics.contains(&one.feed.partition.topic));
        for Candidate { feed, joins, rest } in candidates {
            let partition = feed.partition;
            if let Some(next) = joins {
                batch.attempts.push(0);
                batch.ranges.push(RangeOutput::of_nothing(Range {
                    partition,
                    start: next,
                    end: next,
                }));
            }
            // What is left over is due at once.
            let waited_ms = if rest { self.settings.feed_every_ms } else { 0 };
            let at_ms = now.monotonic_ms.saturating_sub(waited_ms);
            self.fed_at_ms.insert(partition.topic, at_ms);
            batch.feeds.push(feed);
        }
    }

    pub(super) fn note_fed(&mut self, done: &Batch) {
        for output in &done.ranges {
            if let Some(Phase::Flowing { fed, .. }) = self.phase(output.range.partition) {
                *fed = done.fed_after(output, *fed);
            }
        }
    }
}
