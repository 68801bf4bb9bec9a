//! Single decisions of the lane, each from the event that asks for it to the actions that answer.

#![allow(clippy::unwrap_used, clippy::panic)]

use exactly_once_protocol::{
    Action, BatchId, Cursor, Delivered, Event, FEEDING, Guarantee, Kind, Lane, Marks, Metadata, Now, Partition, Range,
    RangeOutput, Settings, StopCode, Stored, Transaction, TxnEnd, Wanted, Witnesses,
};

const P0: Partition = Partition { topic: 0, partition: 0 };
const BILLING: u64 = 77;
const P1: Partition = Partition { topic: 1, partition: 0 };

/// A lane and its clock.
struct Driver {
    lane: Lane,
    now_ms: u64,
}

impl Driver {
    /// A lane that owns [`P0`] from offset 0 on.
    fn flowing() -> Driver {
        Driver::owning(&[P0])
    }

    /// A lane that owns these from offset 0 on.
    fn owning(partitions: &[Partition]) -> Driver {
        Driver::with(partitions, Guarantee::ExactlyOnce, vec![BILLING])
    }

    fn with(partitions: &[Partition], guarantee: Guarantee, sinks: Vec<u64>) -> Driver {
        let (lane, first) = Lane::new(Settings {
            guarantee,
            deadline_span_ms: 5_000,
            hand_back_wait_ms: 60_000,
            transaction_watchdog_ms: 60_000,
            feed_every_ms: 1_000,
            feed_max: 100,
            sinks,
            pipeline: 1,
            token_seed: 1,
        });
        let mut driver = Driver { lane, now_ms: 1_000 };
        let [Action::NewProducer { epoch }] = first[..] else {
            panic!("{first:?}")
        };
        driver.step(Event::ProducerReady { epoch });
        let asked = driver.step(Event::Assigned(partitions.to_vec()));
        let [Action::ReadOffsets { epoch, .. }] = asked[..] else {
            panic!("{asked:?}")
        };
        let stored = |partition: &Partition| {
            let stored = Stored {
                offset: 0,
                committed: true,
                metadata: Ok(Metadata::Settled {
                    marks: Marks::default(),
                    fed: 0,
                }),
                witnesses: Some(Witnesses::default()),
            };
            (*partition, stored)
        };
        let offsets = partitions.iter().map(stored).collect();
        let collects: Vec<Action> = partitions
            .iter()
            .map(|partition| Action::Collect {
                partition: *partition,
                from: 0,
            })
            .collect();
        assert_eq!(driver.step(Event::OffsetsRead { epoch, offsets }), collects);
        driver
    }

    fn step(&mut self, event: Event) -> Vec<Action> {
        let now = Now {
            monotonic_ms: self.now_ms,
            sink_ms: self.now_ms as i64,
        };
        self.lane.step(now, event)
    }

    fn prepare(&mut self, batch: BatchId, start: i64, end: i64) -> Vec<Action> {
        self.prepare_of(batch, &[range(P0, start, end)], false)
    }

    /// `summed`: rows of it belong into rollups.
    fn prepare_of(&mut self, batch: BatchId, ranges: &[Range], summed: bool) -> Vec<Action> {
        self.prepare_each(batch, ranges, |_| summed)
    }

    /// Rows of [`P0`] belong into rollups, others don't.
    fn prepare_mixed(&mut self, batch: BatchId, ranges: &[Range]) -> Vec<Action> {
        self.prepare_each(batch, ranges, |range| range.partition == P0)
    }

    fn prepare_each(&mut self, batch: BatchId, ranges: &[Range], summed: impl Fn(&Range) -> bool) -> Vec<Action> {
        let output = |range: &Range| RangeOutput {
            range: *range,
            outputs: (range.end - range.start) as u32,
            digest: range.end as u128,
            unknown_schemas: Vec::new(),
            summed: summed(range),
        };
        self.step(Event::Prepared {
            batch,
            kind: Kind::New,
            ranges: ranges.iter().map(output).collect(),
            rules: (1, 1),
        })
    }

    /// What the commit of this transaction lets begin.
    fn commit(&mut self, epoch: u64) -> Vec<Action> {
        let end = TxnEnd::Committed;
        self.step(Event::TxnEnded { epoch, end })
    }

    /// What a clean delivery lets begin.
    fn delivered(&mut self, batch: BatchId) -> Vec<Action> {
        let outcome = Delivered::Clean;
        self.step(Event::Delivered { batch, outcome })
    }

    /// Promises, delivers and commits a batch; what the lane then does.
    fn through(&mut self, promises: &[Action], batch: BatchId) -> Vec<Action> {
        let (epoch, _) = transaction(promises);
        self.commit(epoch);
        let delivered = self.delivered(batch);
        let (epoch, _) = transaction(&delivered);
        self.commit(epoch)
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

fn range(partition: Partition, start: i64, end: i64) -> Range {
    Range { partition, start, end }
}

/// An offset behind which nothing is promised, of a partition that billing has.
fn settled(fed: i64) -> Metadata {
    let marks = Marks {
        topic: None,
        sinks: vec![BILLING],
    };
    Metadata::Settled { marks, fed }
}

/// What a delivery feeds, and its batch.
fn feeds(actions: &[Action]) -> (BatchId, Vec<Range>) {
    let feeds = |action: &Action| match action {
        Action::Deliver { batch, feeds, .. } => Some((*batch, feeds.clone())),
        _ => None,
    };
    actions.iter().find_map(feeds).unwrap_or_else(|| panic!("{actions:?}"))
}

fn fed_by_promise(transaction: &Transaction, partition: Partition) -> (i64, i64, i64) {
    let (_, _, metadata) = transaction.offsets.iter().find(|(of, ..)| *of == partition).unwrap();
    match metadata {
        Metadata::Promised(promise) => (promise.start, promise.end, promise.fed),
        other => panic!("{other:?}"),
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

/// Scenario: rows that belong into rollups, more of them later, then nothing.
/// Guarantees: what is committed is fed by the first batch that is promised when it is due, under that batch's promise, and
/// the commit says from where on nothing is fed; with nothing else to do, an empty range carries it.
#[test]
fn committed_rows_are_fed_by_a_later_promise_or_alone() {
    let mut driver = Driver::flowing();
    let promised = driver.prepare_of(1, &[range(P0, 0, 3)], true);
    assert_eq!(fed_by_promise(&transaction(&promised).1, P0), (0, 3, 0));
    let begun = driver.through(&promised, 1);
    // Never fed before: it is due at once, and nothing else is to be done.
    let (epoch, first) = transaction(&begun[1..]);
    let batch = first.promises.unwrap();
    assert!(batch >= FEEDING);
    assert_eq!(fed_by_promise(&first, P0), (3, 3, 0));
    let delivers = driver.commit(epoch);
    assert_eq!(feeds(&delivers), (batch, vec![range(P0, 0, 3)]));
    let (epoch, done) = transaction(&driver.delivered(batch));
    assert_eq!(done.offsets, [(P0, 3, settled(3))]);
    assert_eq!(driver.commit(epoch), [Action::Done(batch)]);

    let promised = driver.prepare_of(2, &[range(P0, 3, 5)], true);
    let (epoch, _) = transaction(&promised);
    assert_eq!(feeds(&driver.commit(epoch)), (2, Vec::new()));
    assert_eq!(
        driver.prepare_of(3, &[range(P0, 5, 6)], true),
        [],
        "waits for the second"
    );
    driver.now_ms += 1_000;
    let batch = 2;
    let (epoch, next) = transaction(&driver.delivered(batch));
    assert_eq!((next.commits, next.promises), (Some(2), Some(3)));
    assert_eq!(fed_by_promise(&next, P0), (5, 6, 3));
    assert_eq!(feeds(&driver.commit(epoch)), (3, vec![range(P0, 3, 5)]));
    let batch = 3;
    let (epoch, done) = transaction(&driver.delivered(batch));
    assert_eq!(done.offsets, [(P0, 6, settled(5))]);
    assert_eq!(driver.commit(epoch), [Action::Done(3)]);
}

/// Scenario: rows of two topics are due at the same time.
/// Guarantees: a batch feeds one topic, the next the other, so that none is held up by all rollups.
#[test]
fn one_topic_is_fed_at_a_time() {
    let mut driver = Driver::owning(&[P0, P1]);
    let promised = driver.prepare_of(1, &[range(P0, 0, 3), range(P1, 0, 2)], true);
    let begun = driver.through(&promised, 1);
    let (epoch, _) = transaction(&begun[1..]);
    let (one, fed) = feeds(&driver.commit(epoch));
    assert_eq!(fed, [range(P0, 0, 3)]);
    let (epoch, _) = transaction(&driver.delivered(one));
    let begun = driver.commit(epoch);
    let (epoch, _) = transaction(&begun[1..]);
    let (_, fed) = feeds(&driver.commit(epoch));
    assert_eq!(fed, [range(P1, 0, 2)]);
}

/// Guarantees: a lane that is told to stop feeds what is committed, of all topics at once, before it leaves.
#[test]
fn a_drain_feeds_before_it_leaves() {
    let mut driver = Driver::owning(&[P0, P1]);
    let warm = driver.prepare_of(1, &[range(P0, 0, 1), range(P1, 0, 1)], false);
    driver.through(&warm, 1);
    let promised = driver.prepare_of(2, &[range(P0, 1, 3), range(P1, 1, 2)], true);
    let (epoch, _) = transaction(&promised);
    driver.commit(epoch);
    let told = driver.step(Event::Drain);
    assert!(!told.contains(&Action::Leave), "{told:?}");
    driver.step(Event::Quiet(vec![P0, P1]));
    let (epoch, _) = transaction(&driver.delivered(2));
    let begun = driver.commit(epoch);
    let (epoch, _) = transaction(&begun[1..]);
    let (batch, fed) = feeds(&driver.commit(epoch));
    assert_eq!(fed, [range(P0, 1, 3), range(P1, 1, 2)]);
    let (epoch, _) = transaction(&driver.delivered(batch));
    assert_eq!(driver.commit(epoch), [Action::Done(batch), Action::Leave]);
}

/// Scenario: each batch has rows of a topic with rollups and of one without; then more rows than are fed at once.
/// Guarantees: the topic without rollups never takes the other's turn; what is left over is fed by the next promise.
#[test]
fn a_topic_without_rollups_takes_no_turn_and_a_long_range_several() {
    let mut driver = Driver::owning(&[P0, P1]);
    let both = |start, end| [range(P0, start, end), range(P1, start, end)];
    let (epoch, _) = transaction(&driver.prepare_mixed(1, &both(0, 10)));
    driver.commit(epoch);
    let mut fed = Vec::new();
    for batch in 2..=40 {
        driver.now_ms += 100;
        let start = batch as i64 * 10 - 10;
        assert_eq!(
            driver.prepare_mixed(batch, &both(start, start + 10)),
            [],
            "waits for the one before"
        );
        let (epoch, _) = transaction(&driver.delivered(batch - 1));
        let (_, feeds) = feeds(&driver.commit(epoch));
        fed.extend(feeds.iter().map(|feed| (batch, *feed)));
    }
    let at = |batch, start, end| (batch, range(P0, start, end));
    assert_eq!(fed, [at(2, 0, 10), at(12, 10, 110), at(22, 110, 210), at(32, 210, 310)]);

    let mut driver = Driver::flowing();
    let (epoch, _) = transaction(&driver.prepare_of(1, &[range(P0, 0, 250)], true));
    driver.commit(epoch);
    for (batch, of) in [
        (2, range(P0, 0, 100)),
        (3, range(P0, 100, 200)),
        (4, range(P0, 200, 260)),
    ] {
        let start = 250 + (batch as i64 - 2) * 5;
        driver.prepare_of(batch, &[range(P0, start, start + 5)], true);
        let (epoch, next) = transaction(&driver.delivered(batch - 1));
        assert_eq!(fed_by_promise(&next, P0).2, of.start);
        assert_eq!(feeds(&driver.commit(epoch)).1, [of]);
    }
}

/// Which gRPC sinks a delivery begins.
fn begins(actions: &[Action]) -> Vec<(Partition, u64)> {
    let begins = |action: &Action| match action {
        Action::Deliver { begins, .. } => Some(begins.clone()),
        _ => None,
    };
    actions.iter().find_map(begins).unwrap_or_else(|| panic!("{actions:?}"))
}

/// Scenario: a partition is read for the first time; two batches follow, the second promised by the commit of the first.
/// Guarantees: billing is told once that the partition begins; from the first commit on the offset says that it has.
#[test]
fn a_sink_begins_a_partition_once() {
    let mut driver = Driver::flowing();
    let promises = driver.prepare(1, 0, 3);
    let (epoch, transaction_1) = transaction(&promises);
    assert_eq!(transaction_1.offsets[0].2.marks(), Some(&Marks::default()));
    assert_eq!(begins(&driver.commit(epoch)), [(P0, BILLING)]);
    driver.prepare(2, 3, 5);
    let delivered = driver.delivered(1);
    let (epoch, transaction_2) = transaction(&delivered);
    let [(P0, 3, Metadata::Promised(promise))] = &transaction_2.offsets[..] else {
        panic!("{transaction_2:?}")
    };
    assert_eq!(promise.marks.sinks, [BILLING]);
    assert_eq!(begins(&driver.commit(epoch)), []);
}

/// Scenario: the group gives a partition; topic and sinks are asked. After a doubt in the same assignment the offset is read
/// again. Then the group takes the partition and gives it back.
/// Guarantees: witnesses are asked once for each assignment; what they say is believed before anything is collected.
#[test]
fn witnesses_are_asked_once_for_each_assignment_and_stop_what_they_contradict() {
    let mut driver = Driver::flowing();
    let promises = driver.prepare(1, 0, 3);
    let (epoch, _) = transaction(&promises);
    let end = TxnEnd::Doubt;
    driver.step(Event::TxnEnded { epoch, end });
    let asked = driver.step(Event::ProducerReady { epoch: epoch + 1 });
    let wanted = |actions: &[Action]| {
        let reads = actions.iter().find_map(|action| match action {
            Action::ReadOffsets { epoch, partitions } => Some((*epoch, partitions.clone())),
            _ => None,
        });
        reads.unwrap_or_else(|| panic!("{actions:?}"))
    };
    let of = |witnesses| {
        vec![Wanted {
            partition: P0,
            witnesses,
        }]
    };
    assert_eq!(wanted(&asked).1, of(false));
    driver.step(Event::Lost(vec![P0]));
    let asked = driver.step(Event::Assigned(vec![P0]));
    let (epoch, partitions) = wanted(&asked);
    assert_eq!(partitions, of(true));
    let stored = |offset, cursor| {
        let stored = Stored {
            offset,
            committed: true,
            metadata: Ok(settled(offset)),
            witnesses: Some(Witnesses {
                topic: None,
                row_beyond: None,
                cursors: vec![(BILLING, Cursor::At(cursor))],
            }),
        };
        vec![(P0, stored)]
    };
    // Billing is ahead of an offset that was read a moment earlier: perhaps only because others went on meanwhile.
    let offsets = stored(3, 5);
    let asked = driver.step(Event::OffsetsRead { epoch, offsets });
    let (epoch, partitions) = wanted(&asked);
    assert_eq!(partitions, of(true));
    // They did, and again.
    let offsets = stored(5, 7);
    let asked = driver.step(Event::OffsetsRead { epoch, offsets });
    let (epoch, _) = wanted(&asked);
    let offsets = stored(5, 7);
    let stopped = driver.step(Event::OffsetsRead { epoch, offsets });
    assert_eq!(stopped, [Action::Stop(P0, StopCode::OffsetBehind)]);
}

/// Scenario: a lane that has lost its partition and does not know it reads an offset; the new owner goes on before the sinks
/// are asked.
/// Guarantees: nothing is stopped, nobody is called for.
#[test]
fn an_offset_that_others_move_while_it_is_read_stops_nothing() {
    let mut driver = Driver::flowing();
    driver.step(Event::Lost(vec![P0]));
    let mut asked = driver.step(Event::Assigned(vec![P0]));
    for (cursor, ends) in [(5, false), (3, true)] {
        let Some(Action::ReadOffsets { epoch, .. }) = asked.last() else {
            panic!("{asked:?}")
        };
        let stored = Stored {
            offset: 3,
            committed: true,
            metadata: Ok(settled(3)),
            witnesses: Some(Witnesses {
                topic: None,
                row_beyond: None,
                cursors: vec![(BILLING, Cursor::At(cursor))],
            }),
        };
        let offsets = vec![(P0, stored)];
        asked = driver.step(Event::OffsetsRead { epoch: *epoch, offsets });
        assert_eq!(matches!(asked[0], Action::Collect { .. }), ends, "{asked:?}");
    }
}

/// Scenario: the group has no offset of two partitions; `start` says where they begin. Records of one come before anything is
/// committed.
/// Guarantees: both beginnings are committed at once, before anything is promised, so that a restart cannot begin elsewhere;
/// then nothing more is said of them.
#[test]
fn where_partitions_begin_is_committed_before_anything_else() {
    let mut driver = Driver::flowing();
    driver.step(Event::Lost(vec![P0]));
    let asked = driver.step(Event::Assigned(vec![P0, P1]));
    let Some(Action::ReadOffsets { epoch, .. }) = asked.last() else {
        panic!("{asked:?}")
    };
    let stored = |offset| Stored {
        offset,
        committed: false,
        metadata: Ok(Metadata::Nothing),
        witnesses: Some(Witnesses::default()),
    };
    let offsets = vec![(P0, stored(70)), (P1, stored(5))];
    let begun = driver.step(Event::OffsetsRead { epoch: *epoch, offsets });
    let (epoch, first) = transaction(&begun[2..]);
    let beginning = |fed| Metadata::Settled {
        marks: Marks::default(),
        fed,
    };
    assert_eq!(first.offsets, [(P0, 70, beginning(70)), (P1, 5, beginning(5))]);
    assert_eq!((first.commits, first.promises), (None, None));
    assert_eq!(driver.prepare(1, 70, 72), [], "a transaction is open");
    let promises = driver.commit(epoch);
    let (_, second) = transaction(&promises);
    let [(P0, 70, Metadata::Promised(_))] = &second.offsets[..] else {
        panic!("{second:?}")
    };
}

/// Scenario: a topic of which the lane owns two partitions is made again while a batch is in flight; then a partition's offset is
/// gone when it is read again.
/// Guarantees: every partition of the topic stops, also those that are being read again because the first one stopped; an offset
/// that vanishes is no first start.
#[test]
fn every_partition_of_a_topic_that_was_made_again_stops_and_an_offset_that_vanishes_does() {
    const OTHER: Partition = Partition { topic: 0, partition: 1 };
    let mut driver = Driver::owning(&[P0, OTHER, P1]);
    driver.prepare(1, 0, 3);
    let mut actions = driver.step(Event::Unsettled(P0, StopCode::TopicReplaced));
    actions.extend(driver.step(Event::Unsettled(OTHER, StopCode::TopicReplaced)));
    let stops: Vec<&Action> = actions
        .iter()
        .filter(|action| matches!(action, Action::Stop(..)))
        .collect();
    let stop = |partition| Action::Stop(partition, StopCode::TopicReplaced);
    assert_eq!(stops, [&stop(P0), &stop(OTHER)]);
    let epoch = actions.iter().find_map(|action| match action {
        Action::NewProducer { epoch } => Some(*epoch),
        _ => None,
    });
    let asked = driver.step(Event::ProducerReady { epoch: epoch.unwrap() });
    let [Action::ReadOffsets { epoch, partitions }] = &asked[..] else {
        panic!("{asked:?}")
    };
    let wanted = Wanted {
        partition: P1,
        witnesses: false,
    };
    assert_eq!(partitions[..], [wanted]);
    let vanished = Stored {
        offset: 0,
        committed: false,
        metadata: Ok(Metadata::Nothing),
        witnesses: None,
    };
    let offsets = vec![(P1, vanished)];
    let stopped = driver.step(Event::OffsetsRead { epoch: *epoch, offsets });
    assert_eq!(stopped, [Action::Stop(P1, StopCode::OffsetBehind)]);
}

// --- at least once -----------------------------------------------------------------------------------------------------

impl Driver {
    /// A lane that promises nothing, and owns [`P0`] from offset 0 on.
    fn at_least_once() -> Driver {
        Driver::with(&[P0], Guarantee::AtLeastOnce, Vec::new())
    }
}

fn ended(epoch: u64, end: TxnEnd) -> Event {
    Event::TxnEnded { epoch, end }
}

#[test]
fn without_promises_the_next_batch_is_delivered_while_the_one_before_is_committed() {
    // p0:  [0..3) delivered | C   [3..5) delivered meanwhile | C
    let mut driver = Driver::at_least_once();
    let delivers = driver.prepare(1, 0, 3);
    assert!(
        matches!(
            delivers[..],
            [Action::Deliver {
                batch: 1,
                deadline_ms: Some(6_000),
                ..
            }]
        ),
        "{delivers:?}"
    );
    assert!(driver.lane.standing().busy);
    assert_eq!(driver.prepare(2, 3, 5), [], "one delivery at a time");
    let delivered = driver.delivered(1);
    let [
        Action::Transact { epoch, transaction },
        Action::Deliver { batch: 2, .. },
    ] = &delivered[..]
    else {
        panic!("{delivered:?}")
    };
    assert_eq!((transaction.commits, transaction.promises), (Some(1), None));
    let settled = |fed| Metadata::Settled {
        marks: Marks::default(),
        fed,
    };
    assert_eq!(transaction.offsets, [(P0, 3, settled(3))]);
    assert_eq!(driver.delivered(2), [], "one commit at a time");
    let first_done = driver.commit(*epoch);
    let [Action::Done(1), Action::Transact { epoch, transaction }] = &first_done[..] else {
        panic!("{first_done:?}")
    };
    assert_eq!(transaction.offsets, [(P0, 5, settled(5))]);
    assert!(!driver.lane.standing().busy, "another batch may close beside a commit");
    assert_eq!(driver.commit(*epoch), [Action::Done(2)]);
}

#[test]
fn a_commit_that_was_surely_refused_is_tried_again_and_nothing_is_delivered_twice() {
    let mut driver = Driver::at_least_once();
    driver.prepare(1, 0, 3);
    let (mut epoch, first) = transaction(&driver.delivered(1));
    for _ in 0..3 {
        assert_eq!(driver.step(ended(epoch, TxnEnd::Aborted)), []);
        let again = transaction(&driver.wait(1_000));
        assert_eq!(again.1, first);
        epoch = again.0;
    }
    assert_eq!(driver.commit(epoch), [Action::Done(1)]);
}

#[test]
fn a_commit_in_doubt_drops_everything_and_reads_again_with_another_producer() {
    let mut driver = Driver::at_least_once();
    driver.prepare(1, 0, 3);
    driver.prepare(2, 3, 5);
    let delivered = driver.delivered(1);
    let [Action::Transact { epoch, .. }, Action::Deliver { batch: 2, .. }] = delivered[..] else {
        panic!("{delivered:?}")
    };
    let dropped = driver.step(ended(epoch, TxnEnd::Doubt));
    let [
        Action::Drop(1),
        Action::Drop(2),
        Action::Forget(_),
        Action::NewProducer { epoch },
    ] = dropped[..]
    else {
        panic!("{dropped:?}")
    };
    let reads = driver.step(Event::ProducerReady { epoch });
    assert!(matches!(reads[..], [Action::ReadOffsets { .. }]), "{reads:?}");
}

/// Scenario: a sink fails each time.
/// Guarantees: everything is read again at once, and delivered again after a wait that grows, and is over once something
/// was committed.
#[test]
fn a_delivery_in_doubt_is_repeated_ever_more_slowly() {
    let mut driver = Driver::at_least_once();
    let mut waits = Vec::new();
    let mut batch = 0;
    for doubt in [true, true, true, false, true] {
        batch += 1;
        let began_ms = driver.now_ms;
        let start = if batch > 4 { 3 } else { 0 };
        let mut delivers = driver.prepare(batch, start, start + 3);
        if delivers.is_empty() {
            delivers = driver.wait(10_000);
        }
        assert!(matches!(delivers[..], [Action::Deliver { .. }]), "{delivers:?}");
        waits.push(driver.now_ms - began_ms);
        if !doubt {
            let (epoch, _) = transaction(&driver.delivered(batch));
            driver.commit(epoch);
            continue;
        }
        let outcome = Delivered::Doubt;
        let reads = driver.step(Event::Delivered { batch, outcome });
        let [Action::Drop(_), Action::Forget(_), Action::ReadOffsets { epoch, .. }] = reads[..] else {
            panic!("{reads:?}")
        };
        let stored = Stored {
            offset: start,
            committed: true,
            metadata: Ok(Metadata::Settled {
                marks: Marks::default(),
                fed: start,
            }),
            witnesses: None,
        };
        let offsets = vec![(P0, stored)];
        let collects = driver.step(Event::OffsetsRead { epoch, offsets });
        assert_eq!(
            collects,
            [Action::Collect {
                partition: P0,
                from: start
            }]
        );
    }
    assert_eq!(waits, [0, 100, 200, 400, 0]);
}

/// Scenario: a partition without an offset. Rows that a crash leaves must not look like those of an offset that is gone,
/// and a restart must not begin elsewhere.
#[test]
fn where_a_partition_begins_is_committed_before_anything_of_it_is_delivered() {
    let (lane, first) = Lane::new(Settings {
        guarantee: Guarantee::AtLeastOnce,
        deadline_span_ms: 5_000,
        hand_back_wait_ms: 60_000,
        transaction_watchdog_ms: 60_000,
        feed_every_ms: 1_000,
        feed_max: 100,
        sinks: Vec::new(),
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
        offset: 40,
        committed: false,
        metadata: Ok(Metadata::Nothing),
        witnesses: Some(Witnesses::default()),
    };
    let begins = driver.step(Event::OffsetsRead {
        epoch,
        offsets: vec![(P0, stored)],
    });
    let [
        Action::Collect { from: 40, .. },
        Action::Transact { epoch, transaction },
    ] = &begins[..]
    else {
        panic!("{begins:?}")
    };
    assert_eq!(transaction.offsets.len(), 1);
    assert_eq!(driver.prepare(1, 40, 42), []);
    assert_eq!(driver.step(Event::RevokeAsked(vec![P0])).len(), 1, "it is waited for");
    let delivers = driver.commit(*epoch);
    assert!(
        matches!(delivers[..], [Action::Deliver { batch: 1, .. }]),
        "{delivers:?}"
    );
}

/// Scenario: the pipeline was exactly-once before, and its worker died under a promise.
/// Guarantees: it is settled as ever; what is missing is delivered at once, and nothing is promised.
#[test]
fn a_promise_that_is_found_is_settled_without_another_one() {
    let mut promising = Driver::with(&[P0], Guarantee::ExactlyOnce, Vec::new());
    let (_, promised) = transaction(&promising.prepare(1, 0, 3));
    let Some((_, 0, metadata @ Metadata::Promised(_))) = promised.offsets.first() else {
        panic!("{promised:?}")
    };
    let mut driver = Driver::at_least_once();
    let outcome = Delivered::Doubt;
    driver.prepare(1, 0, 3);
    let reads = driver.step(Event::Delivered { batch: 1, outcome });
    let [.., Action::ReadOffsets { epoch, .. }] = reads[..] else {
        panic!("{reads:?}")
    };
    let stored = Stored {
        offset: 0,
        committed: true,
        metadata: Ok(metadata.clone()),
        witnesses: None,
    };
    let settles = driver.step(Event::OffsetsRead {
        epoch,
        offsets: vec![(P0, stored)],
    });
    assert!(matches!(settles[..], [Action::Settle { .. }]), "{settles:?}");
    let output = RangeOutput {
        range: range(P0, 0, 3),
        outputs: 3,
        digest: 3,
        unknown_schemas: Vec::new(),
        summed: false,
    };
    driver.now_ms += 1_000;
    let delivers = driver.step(Event::Prepared {
        batch: 2,
        kind: Kind::Recovery { missing: true },
        ranges: vec![output],
        rules: (1, 1),
    });
    let again = |action: &Action| {
        matches!(
            action,
            Action::Deliver {
                batch: 2,
                deadline_ms: Some(_),
                ..
            }
        )
    };
    assert!(delivers.len() == 1 && again(&delivers[0]), "{delivers:?}");
    let (epoch, commit) = transaction(&driver.delivered(2));
    assert_eq!((commit.commits, commit.promises), (Some(2), None));
    assert!(matches!(
        commit.offsets[..],
        [(P0, 3, Metadata::Settled { fed: 3, .. })]
    ));
    let goes_on = driver.commit(epoch);
    let collects = Action::Collect { partition: P0, from: 3 };
    assert_eq!(goes_on, [collects, Action::Done(2)]);
}

#[test]
fn a_batch_feeds_what_the_one_before_has_delivered_and_none_of_it_twice() {
    let mut driver = Driver::at_least_once();
    let first = driver.prepare_of(1, &[range(P0, 0, 3)], true);
    assert_eq!(feeds(&first), (1, vec![]));
    driver.prepare_of(2, &[range(P0, 3, 5)], true);
    let (batch, ranges) = feeds(&driver.delivered(1));
    assert_eq!(
        (batch, ranges),
        (2, vec![range(P0, 0, 3)]),
        "not committed, but acknowledged"
    );
    driver.now_ms += 5_000;
    let idle = driver.prepare_of(3, &[range(P0, 5, 6)], true);
    assert_eq!(idle, []);
    // The commit of the first batch is still under way: what the second feeds is known of memory alone.
    assert_eq!(driver.delivered(2), []);
}

#[test]
fn a_partition_is_handed_back_only_when_its_last_delivery_is_committed() {
    let mut driver = Driver::at_least_once();
    driver.prepare(1, 0, 3);
    let (epoch, _) = transaction(&driver.delivered(1));
    driver.step(Event::RevokeAsked(vec![P0]));
    assert_eq!(driver.step(Event::Quiet(vec![P0])), []);
    let done = driver.commit(epoch);
    let back = [Action::Done(1), Action::Forget(vec![P0]), Action::HandBack(vec![P0])];
    assert_eq!(done, back);
}

#[test]
fn a_drain_commits_what_was_delivered_and_then_leaves() {
    let mut driver = Driver::at_least_once();
    driver.prepare(1, 0, 3);
    let (epoch, _) = transaction(&driver.delivered(1));
    driver.step(Event::Drain);
    assert_eq!(driver.step(Event::Quiet(vec![P0])), []);
    assert_eq!(driver.commit(epoch), [Action::Done(1), Action::Leave]);
}
