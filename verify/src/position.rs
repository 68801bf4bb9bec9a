//! Where a verification goes on that was interrupted on purpose: the end of one round is the beginning of the next.

use std::collections::BTreeMap;

use crate::audit::Audit;
use crate::kafka::Range;

type Part = (String, i32);

/// What earlier rounds have verified. The default: nothing, so that a round looks at everything.
#[derive(Debug, Clone, Default)]
pub struct Position {
    /// Of the source topics: the offset up to which everything is verified.
    verified: BTreeMap<Part, i64>,
    /// Of the topics that are sinks.
    outputs: BTreeMap<Part, Seen>,
    /// Up to where the audit's topic has been read.
    audited: BTreeMap<Part, i64>,
    /// Ranges that were committed after the offsets had been read.
    pub audit: Audit,
}

/// How far an alert or dead-letter topic has been looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// What later ranges put there lies at or behind this offset: the end before the group's offsets were read.
    pub later_from: i64,
    /// The end of what has been read.
    pub read_to: i64,
}

impl Position {
    /// True before the first round.
    pub fn is_beginning(&self) -> bool {
        self.verified.is_empty()
    }

    /// Up to where a partition is verified.
    pub fn verified(&self, topic: &str, partition: i32) -> Option<i64> {
        self.verified.get(&(topic.to_owned(), partition)).copied()
    }

    /// How far a topic that is a sink has been looked at.
    pub fn seen(&self, topic: &str, partition: i32) -> Option<Seen> {
        self.outputs.get(&(topic.to_owned(), partition)).copied()
    }

    /// What a round has to read of such a topic.
    pub fn unseen(&self, topic: &str, whole: Vec<Range>) -> Vec<Range> {
        let seen = |partition| self.seen(topic, partition).map(|seen| seen.later_from);
        rest(whole, seen)
    }

    /// What a round has to read of the audit's topic.
    pub fn unaudited(&self, topic: &str, whole: Vec<Range>) -> Vec<Range> {
        rest(whole, |partition| {
            self.audited.get(&(topic.to_owned(), partition)).copied()
        })
    }

    /// Notes that a partition is verified up to `offset`. Where an operator has let it go on earlier, that is lower than before.
    pub fn note_verified(&mut self, topic: &str, partition: i32, offset: i64) {
        self.audit.forget_below(topic, partition, offset);
        self.verified.insert((topic.to_owned(), partition), offset);
    }

    /// Notes what has been read of a topic that is a sink. `before`: its ends before the group's offsets were read.
    pub fn note_outputs(&mut self, topic: &str, before: &[Range], read: &[Range]) {
        for range in read {
            let earlier = before.iter().find(|earlier| earlier.partition == range.partition);
            let seen = Seen {
                later_from: earlier.map_or(range.start, |earlier| earlier.end),
                read_to: range.end,
            };
            self.outputs.insert((topic.to_owned(), range.partition), seen);
        }
    }

    /// Notes what has been read of the audit's topic.
    pub fn note_audited(&mut self, topic: &str, read: &[Range]) {
        for range in read {
            self.audited.insert((topic.to_owned(), range.partition), range.end);
        }
    }
}

fn rest(whole: Vec<Range>, seen: impl Fn(i32) -> Option<i64>) -> Vec<Range> {
    let rest = |range: Range| Range {
        start: seen(range.partition).map_or(range.start, |seen| seen.clamp(range.start, range.end)),
        ..range
    };
    whole.into_iter().map(rest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: i64, end: i64) -> Range {
        Range {
            partition: 0,
            start,
            end,
        }
    }

    #[test]
    fn outputs_of_later_ranges_are_read_again_and_nothing_is_left_out() {
        let mut position = Position::default();
        assert_eq!(position.unseen("alerts", vec![range(3, 9)]), [range(3, 9)]);
        // 7 was the end before the offsets were read, 9 afterwards: what is between may be of ranges not verified yet.
        position.note_outputs("alerts", &[range(3, 7)], &[range(3, 9)]);
        assert_eq!(position.unseen("alerts", vec![range(3, 12)]), [range(7, 12)]);
        // Retention has passed.
        assert_eq!(position.unseen("alerts", vec![range(8, 12)]), [range(8, 12)]);
        // A partition that was not there before: everything of it is later.
        position.note_outputs("new", &[], &[range(0, 4)]);
        assert_eq!(position.unseen("new", vec![range(0, 4)]), [range(0, 4)]);
    }

    #[test]
    fn an_operator_who_goes_back_is_followed() {
        let mut position = Position::default();
        assert!(position.is_beginning());
        position.note_verified("t", 0, 100);
        position.note_verified("t", 0, 50);
        assert_eq!(position.verified("t", 0), Some(50));
        assert!(!position.is_beginning());
    }
}
