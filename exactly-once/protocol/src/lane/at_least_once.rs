//! What a lane does that promises nothing ([`Guarantee::AtLeastOnce`](crate::Guarantee)): a batch is delivered as soon as it is
//! prepared, and committed once it was acknowledged, while the next one is delivered already.
//!
//! After doubt everything is read again from the committed offset and delivered again, whatever of it is there: nobody
//! reads back. So a row, an alert, a dead letter and a feeding may be there twice, and none is left out: an offset is
//! committed only past what was acknowledged. A commit that arrives late moves the offset to where everything before was
//! acknowledged, and so does no harm, forward or back.
//!
//! A promise that is found (the pipeline was exactly-once before) is settled as ever, but promised no second time.

use super::{Batch, Lane, Producer};
use crate::words::{Action, Now, Partition};

/// The wait before everything is delivered again after a first doubt, milliseconds; it doubles with each that follows.
const AGAIN_MS: u64 = 100;
const AGAIN_DOUBLES_MAX: u32 = 6;

impl Lane {
    /// The one place where such a lane moves on.
    pub(super) fn advance_at_least_once(&mut self, now: Now, may_begin: bool, actions: &mut Vec<Action>) {
        if self.acknowledged.is_none()
            && let Some(batch) = self.current.take_if(|batch| batch.delivered)
        {
            // What the next one feeds begins where this one has ended.
            self.note_fed(&batch);
            self.acknowledged = Some(batch);
        }
        if self.producer != Producer::Ready {
            return;
        }
        if self.transaction.is_none() && may_begin {
            if self.acknowledged.is_some() {
                self.begin(now, true, actions);
            } else if self.beginnings().next().is_some() {
                self.begin(now, false, actions);
            }
        }
        if self.current.is_some() || now.monotonic_ms < self.deliver_at_ms {
            return;
        }
        if self.prepared.is_empty() && self.acknowledged.is_none() && self.transaction.is_none() {
            self.feed_alone(now);
        }
        // A restart before the beginning is committed could begin elsewhere, and leave out what came in between.
        let begins = |batch: &Batch| self.beginnings().any(|(partition, _)| batch.holds(partition));
        if self.prepared.front().is_none_or(begins) {
            return;
        }
        if let Some(mut batch) = self.prepared.pop_front() {
            self.feed_with(now, &mut batch, &std::collections::BTreeMap::new());
            batch.deadline_ms = batch.needs_promise().then(|| self.deadline_ms(now, &batch));
            self.deliver(batch, actions);
        }
    }

    /// Whether the beginning of this partition has to be committed before the next batch is delivered, even if the lane is
    /// about to give it back.
    pub(super) fn is_awaited(&self, partition: Partition) -> bool {
        !self.promises() && self.prepared.front().is_some_and(|batch| batch.holds(partition))
    }

    /// A sink that fails each time would be given the same rows as fast as they can be read.
    pub(super) fn wait_after_doubt(&mut self, now: Now) {
        if !self.promises() {
            let wait_ms = AGAIN_MS << self.doubts.min(AGAIN_DOUBLES_MAX);
            self.doubts = self.doubts.saturating_add(1);
            self.deliver_at_ms = now.monotonic_ms + wait_ms;
        }
    }
}
