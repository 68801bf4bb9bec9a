//! Whether the committed offset, the topic and the sinks tell the same story. They do as long as only lanes of this pipeline
//! write them: a sink has nothing past what is committed or promised, and a gRPC sink's cursor stands where the offset or
//! its promise does. Anything else was done by somebody else (offsets reset, expired or removed; a topic made again; a sink
//! emptied or restored), and whoever went on would lose events or deliver them twice.

use crate::promise::{Marks, Metadata};
use crate::words::{Cursor, Guarantee, StopCode, Stored};

/// `Err`: why the partition must not be touched before an operator has looked. With [`Guarantee::AtLeastOnce`] rows past a
/// committed offset are what a crash leaves; without any offset they are not, because a lane commits where it begins first.
pub fn disagreement(stored: &Stored, guarantee: Guarantee) -> Result<(), StopCode> {
    let metadata = match &stored.metadata {
        Ok(Metadata::Promised(promise)) if promise.start != stored.offset => Err(StopCode::PromiseUnreadable),
        Ok(Metadata::Settled { fed, .. }) if *fed > stored.offset => Err(StopCode::PromiseUnreadable),
        Ok(metadata) => Ok(metadata),
        Err(_) => Err(StopCode::PromiseUnreadable),
    }?;
    if stored.committed && *metadata == Metadata::Nothing {
        return Err(StopCode::OffsetForeign);
    }
    let Some(witnesses) = &stored.witnesses else {
        return Ok(());
    };
    let unmarked = Marks::default();
    let marks = metadata.marks().unwrap_or(&unmarked);
    if let (Some(then), Some(now)) = (marks.topic, witnesses.topic)
        && then != now
    {
        return Err(StopCode::TopicReplaced);
    }
    let repeats = guarantee == Guarantee::AtLeastOnce && stored.committed;
    if witnesses.row_beyond.is_some() && !repeats {
        return Err(StopCode::OffsetBehind);
    }
    let (offset, end) = (stored.offset, stored.reach());
    for (sink, cursor) in &witnesses.cursors {
        match *cursor {
            Cursor::Untold => {}
            Cursor::Nothing if marks.sinks.contains(sink) => return Err(StopCode::SinkGap),
            Cursor::Nothing => {}
            Cursor::At(_) if !stored.committed => return Err(StopCode::OffsetBehind),
            Cursor::At(cursor) if cursor > end => return Err(StopCode::OffsetBehind),
            Cursor::At(cursor) if cursor < offset => return Err(StopCode::SinkGap),
            Cursor::At(cursor) if cursor == offset || cursor == end => {}
            Cursor::At(_) => return Err(StopCode::SinkConflict),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promise::Promise;
    use crate::words::Witnesses;

    const BILLING: u64 = 7;

    fn marks(sinks: &[u64]) -> Marks {
        Marks {
            topic: Some(1),
            sinks: sinks.to_vec(),
        }
    }

    fn settled(offset: i64, sinks: &[u64]) -> Stored {
        let metadata = Metadata::Settled {
            marks: marks(sinks),
            fed: offset,
        };
        stored(offset, metadata)
    }

    fn promised(start: i64, end: i64) -> Stored {
        let promise = Promise {
            marks: marks(&[BILLING]),
            start,
            end,
            outputs: 1,
            digest: 1,
            rules: (1, 1),
            pipeline: 1,
            token: 1,
            attempt: 0,
            deadline_ms: 1,
            fed: start,
            unknown_schemas: Vec::new(),
        };
        stored(start, Metadata::Promised(promise))
    }

    fn stored(offset: i64, metadata: Metadata) -> Stored {
        let witnesses = Some(Witnesses {
            topic: Some(1),
            row_beyond: None,
            cursors: Vec::new(),
        });
        Stored {
            offset,
            committed: true,
            metadata: Ok(metadata),
            witnesses,
        }
    }

    fn with(mut stored: Stored, cursor: Cursor) -> Result<(), StopCode> {
        if let Some(witnesses) = &mut stored.witnesses {
            witnesses.cursors = vec![(BILLING, cursor)];
        }
        disagreement(&stored, Guarantee::ExactlyOnce)
    }

    fn absent() -> Stored {
        Stored {
            committed: false,
            ..stored(40, Metadata::Nothing)
        }
    }

    #[test]
    fn metadata_that_does_not_fit_its_offset_is_not_believed() {
        let unreadable = Err(StopCode::PromiseUnreadable);
        let mut moved = promised(10, 20);
        moved.offset = 11;
        assert_eq!(disagreement(&moved, Guarantee::ExactlyOnce), unreadable);
        let mut fed = settled(10, &[]);
        fed.offset = 9;
        assert_eq!(disagreement(&fed, Guarantee::ExactlyOnce), unreadable);
        let mut foreign = settled(10, &[]);
        foreign.metadata = Metadata::decode(b"hello");
        assert_eq!(disagreement(&foreign, Guarantee::ExactlyOnce), unreadable);
    }

    #[test]
    fn a_cursor_stands_where_the_offset_or_its_promise_does() {
        assert_eq!(with(settled(10, &[BILLING]), Cursor::At(10)), Ok(()));
        assert_eq!(with(promised(10, 20), Cursor::At(10)), Ok(()));
        assert_eq!(with(promised(10, 20), Cursor::At(20)), Ok(()));
        assert_eq!(with(promised(10, 20), Cursor::At(15)), Err(StopCode::SinkConflict));
        assert_eq!(with(promised(10, 20), Cursor::At(21)), Err(StopCode::OffsetBehind));
        assert_eq!(
            with(settled(10, &[BILLING]), Cursor::At(11)),
            Err(StopCode::OffsetBehind)
        );
        assert_eq!(with(settled(10, &[BILLING]), Cursor::At(9)), Err(StopCode::SinkGap));
        assert_eq!(with(settled(10, &[BILLING]), Cursor::Untold), Ok(()));
    }

    #[test]
    fn a_new_sink_begins_and_a_ledger_that_was_lost_does_not() {
        assert_eq!(with(settled(10, &[]), Cursor::Nothing), Ok(()));
        assert_eq!(with(settled(10, &[3]), Cursor::Nothing), Ok(()));
        assert_eq!(with(settled(10, &[BILLING]), Cursor::Nothing), Err(StopCode::SinkGap));
        assert_eq!(with(promised(10, 20), Cursor::Nothing), Err(StopCode::SinkGap));
    }

    #[test]
    fn an_offset_that_is_gone_is_no_first_start() {
        assert_eq!(with(absent(), Cursor::Nothing), Ok(()));
        assert_eq!(with(absent(), Cursor::At(0)), Err(StopCode::OffsetBehind));
        let mut rows = absent();
        rows.witnesses = Some(Witnesses {
            row_beyond: Some(0),
            ..Witnesses::default()
        });
        for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
            assert_eq!(disagreement(&rows, guarantee), Err(StopCode::OffsetBehind));
        }
        assert_eq!(
            (absent().reach(), settled(10, &[]).reach(), promised(10, 20).reach()),
            (0, 10, 20)
        );
    }

    #[test]
    fn an_offset_that_no_lane_wrote_is_not_believed_whatever_the_witnesses_say() {
        let mut reset = stored(5, Metadata::Nothing);
        for guarantee in [Guarantee::ExactlyOnce, Guarantee::AtLeastOnce] {
            assert_eq!(disagreement(&reset, guarantee), Err(StopCode::OffsetForeign));
        }
        reset.witnesses = None;
        assert_eq!(
            disagreement(&reset, Guarantee::ExactlyOnce),
            Err(StopCode::OffsetForeign)
        );
    }

    #[test]
    fn rows_past_the_offset_and_a_topic_made_again_are_noticed() {
        let beyond_of = |guarantee, topic, row_beyond| {
            let mut stored = settled(10, &[]);
            stored.witnesses = Some(Witnesses {
                topic,
                row_beyond,
                cursors: Vec::new(),
            });
            disagreement(&stored, guarantee)
        };
        let beyond = |topic, row_beyond| beyond_of(Guarantee::ExactlyOnce, topic, row_beyond);
        assert_eq!(beyond(Some(1), None), Ok(()));
        assert_eq!(beyond(None, None), Ok(()));
        assert_eq!(beyond(Some(2), None), Err(StopCode::TopicReplaced));
        assert_eq!(beyond(Some(1), Some(10)), Err(StopCode::OffsetBehind));
        let repeated = |topic, row_beyond| beyond_of(Guarantee::AtLeastOnce, topic, row_beyond);
        assert_eq!(repeated(Some(1), Some(10)), Ok(()));
        assert_eq!(repeated(Some(2), Some(10)), Err(StopCode::TopicReplaced));
    }
}
