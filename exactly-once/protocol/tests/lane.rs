//! Single decisions of the lane, each from the event that asks for it to the actions that answer.

#![allow(clippy::unwrap_used, clippy::panic)]

use exactly_once_protocol::{
    Action, Delivered, Event, Kind, Lane, Now, Partition, Range, RangeOutput, Settings, Stored, Transaction, TxnEnd,
};

const P0: Partition = Partition { topic: 0, partition: 0 };

/// A lane and its clock.
struct Driver {
    lane: Lane,
    now_ms: u64,
}

impl Driver {
    /// A lane that owns [`P0`] from offset 0 on.
    fn flowing() -> Driver {
        let (lane, first) = Lane::new(Settings {
            deadline_span_ms: 5_000,
            hand_back_wait_ms: 60_000,
            transaction_watchdog_ms: 60_000,
            pipeline: 1,
            token_seed: 1,
        });
        let mut driver = Driver { lane, now_ms: 1_000 };
        let [Action::NewProducer { epoch }] = first[..] else {
            panic!("{first:?}")
        };
        driver.step(Event::ProducerReady { epoch });
        let asked = driver.step(Event::Assigned(vec![P0]));
        let [Action::ReadOffsets { epoch, .. }] = asked[..] else {
            panic!("{asked:?}")
        };
        let stored = Stored {
            offset: 0,
            promise: Ok(None),
        };
        let offsets = vec![(P0, stored)];
        let collects = Action::Collect { partition: P0, from: 0 };
        assert_eq!(driver.step(Event::OffsetsRead { epoch, offsets }), [collects]);
        driver
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let now = Now {
            monotonic_ms: self.now_ms,
            sink_ms: self.now_ms as i64,
        };
        self.lane.step(now, event)
    }

    fn prepare(&mut self, batch: u64, start: i64, end: i64) -> Vec<Action> {
        let range = Range {
            partition: P0,
            start,
            end,
        };
        let output = RangeOutput {
            range,
            outputs: (end - start) as u32,
            digest: end as u128,
            unknown_schemas: Vec::new(),
        };
        self.step(Event::Prepared {
            batch,
            kind: Kind::New,
            ranges: vec![output],
            rules: (1, 1),
        })
    }

    /// Ticks until something is to be done, at most `within` milliseconds.
    fn wait(&mut self, within: u64) -> Vec<Action> {
        for _ in 0..within / 10 {
            self.now_ms += 10;
            let actions = self.step(Event::Tick);
            if !actions.is_empty() {
                return actions;
            }
        }
        Vec::new()
    }
}

fn transaction(actions: &[Action]) -> (u64, Transaction) {
    match actions {
        [Action::Transact { epoch, transaction }] => (*epoch, transaction.clone()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_aborted_commit_is_begun_again_and_what_was_delivered_stays() {
    let mut driver = Driver::flowing();
    let (promise, _) = transaction(&driver.prepare(1, 0, 3));
    let delivers = driver.step(Event::TxnEnded {
        epoch: promise,
        end: TxnEnd::Committed,
    });
    assert!(
        matches!(delivers[..], [Action::Deliver { batch: 1, .. }]),
        "{delivers:?}"
    );
    assert_eq!(driver.prepare(2, 3, 5), [], "waits for the first");
    let delivered = driver.step(Event::Delivered {
        batch: 1,
        outcome: Delivered::Clean,
    });
    let (mut epoch, first) = transaction(&delivered);
    assert_eq!((first.commits, first.promises), (Some(1), Some(2)));
    for _ in 0..3 {
        // The group began a new generation: the broker refused the offsets.
        assert_eq!(
            driver.step(Event::TxnEnded {
                epoch,
                end: TxnEnd::Aborted
            }),
            []
        );
        let (next, again) = transaction(&driver.wait(1_000));
        assert_ne!(next, epoch);
        assert_eq!((again.commits, again.promises), (Some(1), Some(2)));
        epoch = next;
    }
    let ended = driver.step(Event::TxnEnded {
        epoch,
        end: TxnEnd::Committed,
    });
    assert!(
        matches!(ended[..], [Action::Done(1), Action::Deliver { batch: 2, .. }]),
        "{ended:?}"
    );
}

#[test]
fn a_commit_that_is_aborted_for_ever_ends_with_reading_everything_again() {
    let mut driver = Driver::flowing();
    let (mut epoch, _) = transaction(&driver.prepare(1, 0, 3));
    for begun in 1.. {
        let end = TxnEnd::Aborted;
        let actions = driver.step(Event::TxnEnded { epoch, end });
        if actions.is_empty() {
            epoch = transaction(&driver.wait(1_000)).0;
            continue;
        }
        assert!(
            matches!(
                actions[..],
                [Action::Drop(1), Action::Forget(_), Action::ReadOffsets { .. }]
            ),
            "{actions:?}"
        );
        assert_eq!(begun, 11);
        break;
    }
}
