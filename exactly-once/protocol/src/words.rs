//! The words of the seam between the state machine and its hands.

use crate::promise::{Metadata, Promise, PromiseFault};

/// One partition of one source topic. `topic` is the index of the source in the pipeline file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition {
    /// Index of the source in the pipeline.
    pub topic: u16,
    /// Kafka's partition number.
    pub partition: i32,
}

/// Half-open offsets `[start, end)` of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The partition that the offsets belong to.
    pub partition: Partition,
    /// First offset of the range.
    pub start: i64,
    /// One past the last offset of the range.
    pub end: i64,
}

/// What the pipeline's owner asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Guarantee {
    /// What each sink holds is a function of the log and the rules.
    ExactlyOnce,
    /// Nothing is promised: after any doubt everything is delivered again from the committed offset on.
    AtLeastOnce,
}

/// What a pure transformation made of one range: enough to promise it, not the rows themselves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RangeOutput {
    /// The offsets.
    pub range: Range,
    /// Rows, alerts, charges and dead letters together.
    pub outputs: u32,
    /// Digest over all outputs in log order.
    pub digest: u128,
    /// Schema ids that the registry definitely does not know; they stay unknown when the range is rebuilt.
    pub unknown_schemas: Vec<u32>,
    /// Whether rows of it belong into a rollup.
    pub summed: bool,
}

impl RangeOutput {
    /// What an empty range delivers: it is promised only so that what lies before it can be fed to rollups.
    pub fn of_nothing(range: Range) -> Self {
        RangeOutput {
            range,
            outputs: 0,
            digest: 0,
            unknown_schemas: Vec::new(),
            summed: false,
        }
    }
}

/// Names a batch between the machine and the driver that holds its rows. Unique within a lane.
pub type BatchId = u64;

/// Numbers from here on are the machine's own, for batches that only feed rollups; a driver's are below.
pub const FEEDING: BatchId = 1 << 63;

/// Whether a batch is delivered for the first time or settles promises whose outcome was in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Offsets that no promise was ever made for.
    New,
    /// Ranges of earlier promises, rebuilt and read back. `missing` says whether rows have to be inserted at all.
    Recovery {
        /// True if the read-back found rows missing: then a new promise is needed before they are inserted.
        missing: bool,
    },
}

/// The two clocks that the machine needs, both in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since any fixed moment.
    pub monotonic_ms: u64,
    /// The sink's own clock (ClickHouse), Unix time; an estimate is enough, because the sink itself enforces deadlines.
    pub sink_ms: i64,
}

/// What the group coordinator holds of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The committed offset, or where the pipeline's `start` says to begin when there is none.
    pub offset: i64,
    /// Whether the group has one.
    pub committed: bool,
    /// The offset's metadata.
    pub metadata: Result<Metadata, PromiseFault>,
    /// What topic and sinks say, where that was asked for.
    pub witnesses: Option<Witnesses>,
}

impl Stored {
    /// No sink may have anything from this offset on: the end of what is promised, else the committed offset; without one,
    /// the beginning of the log.
    pub fn reach(&self) -> i64 {
        match &self.metadata {
            Ok(Metadata::Promised(promise)) => promise.end,
            _ if self.committed => self.offset,
            _ => 0,
        }
    }
}

/// Who knows, beside the committed offset, how far a partition has come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Witnesses {
    /// The topic's id now; `None` if the broker does not tell.
    pub topic: Option<u128>,
    /// An offset at [`Stored::reach`] or later of which ClickHouse holds a row.
    pub row_beyond: Option<i64>,
    /// What each gRPC sink has of the partition, by the ids of [`Settings::sinks`](crate::Settings::sinks).
    pub cursors: Vec<(u64, Cursor)>,
}

/// Up to where a gRPC sink has applied a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cursor {
    /// The service does not offer to tell.
    Untold,
    /// Nothing was ever applied.
    Nothing,
    /// Everything before this offset.
    At(i64),
}

/// A partition whose offset is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Wanted {
    /// The partition.
    pub partition: Partition,
    /// Whether topic and sinks have to be asked, too: once for each time that the group gives the partition.
    pub witnesses: bool,
}

/// Answer to [`Action::ReadOffsets`]; a partition that cannot be read yet is asked again by the hands, never left out.
pub type Offsets = Vec<(Partition, Stored)>;

/// What happened to a transaction. Doubt is one of the outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TxnEnd {
    /// The broker confirmed the commit.
    Committed,
    /// The transaction was aborted and the broker confirmed that; the producer goes on.
    Aborted,
    /// Fenced, fatal, timed out or unknown: the producer must not be used again.
    Doubt,
}

/// What came of delivering a batch to all sinks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivered {
    /// Every sink acknowledged a first attempt cleanly.
    Clean,
    /// At least one outcome is unknown, or the deadline passed: settle by reading back, or deliver again.
    Doubt,
    /// A sink says that it can never take these ranges (billing conflict or gap).
    Impossible(Vec<(Partition, StopCode)>),
}

/// Why a partition stopped. Each has a page in `docs/errors/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StopCode {
    /// SLU-101: the metadata of the committed offset is not a promise that this version can read.
    PromiseUnreadable,
    /// SLU-102: rebuilding a promised range gave other bytes than were promised.
    DigestDiffers,
    /// SLU-103: offsets of a promised or committed range are no longer in the topic.
    OffsetsGone,
    /// SLU-104: a gRPC sink holds another content for the range, or overlaps it.
    SinkConflict,
    /// SLU-105: a gRPC sink's cursor stands before the range.
    SinkGap,
    /// SLU-106: ClickHouse holds rows of the range that were never promised.
    RowsAltered,
    /// SLU-107: a rules revision that a promise names cannot be had any more.
    RevisionGone,
    /// SLU-108: the topic was deleted and made again since the offset was committed.
    TopicReplaced,
    /// SLU-109: the committed offset is gone, or stands before what a sink already has.
    OffsetBehind,
    /// SLU-110: somebody else has set the committed offset.
    OffsetForeign,
}

impl StopCode {
    /// All of them.
    pub const ALL: [StopCode; 10] = [
        StopCode::PromiseUnreadable,
        StopCode::DigestDiffers,
        StopCode::OffsetsGone,
        StopCode::SinkConflict,
        StopCode::SinkGap,
        StopCode::RowsAltered,
        StopCode::RevisionGone,
        StopCode::TopicReplaced,
        StopCode::OffsetBehind,
        StopCode::OffsetForeign,
    ];

    /// The stable code that operators search for.
    pub fn code(self) -> &'static str {
        match self {
            StopCode::PromiseUnreadable => "SLU-101",
            StopCode::DigestDiffers => "SLU-102",
            StopCode::OffsetsGone => "SLU-103",
            StopCode::SinkConflict => "SLU-104",
            StopCode::SinkGap => "SLU-105",
            StopCode::RowsAltered => "SLU-106",
            StopCode::RevisionGone => "SLU-107",
            StopCode::TopicReplaced => "SLU-108",
            StopCode::OffsetBehind => "SLU-109",
            StopCode::OffsetForeign => "SLU-110",
        }
    }

    /// One line for the log: what is wrong and where to read on.
    pub fn explain(self) -> &'static str {
        match self {
            StopCode::PromiseUnreadable => "the committed offset's metadata is not a promise this version can read",
            StopCode::DigestDiffers => "rebuilding a promised range gave other bytes than were promised",
            StopCode::OffsetsGone => "offsets that must be read are no longer in the topic",
            StopCode::SinkConflict => "a gRPC sink holds other content for this range",
            StopCode::SinkGap => "a gRPC sink's cursor stands before this range",
            StopCode::RowsAltered => "ClickHouse holds rows of this range that were never promised",
            StopCode::RevisionGone => "the rules revision of a pending promise cannot be had any more",
            StopCode::TopicReplaced => "the topic was deleted and made again since the offset was committed",
            StopCode::OffsetBehind => "the committed offset is gone or stands before what a sink already has",
            StopCode::OffsetForeign => "the committed offset was not written by a lane of this pipeline",
        }
    }
}

/// What the hands report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The group gave these partitions to the lane.
    Assigned(Vec<Partition>),
    /// The group wants these partitions back; the lane may finish first.
    RevokeAsked(Vec<Partition>),
    /// These partitions belong to somebody else already: no wait, no commit.
    Lost(Vec<Partition>),
    /// Answer to [`Action::ReadOffsets`] of the same `epoch`.
    OffsetsRead {
        /// The epoch that the action carried.
        epoch: u64,
        /// One entry for each partition asked for.
        offsets: Offsets,
    },
    /// A batch was collected and transformed; its ranges may now be promised.
    Prepared {
        /// Its name.
        batch: BatchId,
        /// First delivery or recovery.
        kind: Kind,
        /// Its ranges, each with the digest of what will be delivered.
        ranges: Vec<RangeOutput>,
        /// Rules revision number and digest that it was made with.
        rules: (u64, u64),
    },
    /// After [`Action::StopCollecting`]: every collected record of these partitions is in a prepared batch.
    Quiet(Vec<Partition>),
    /// A pending promise cannot be settled, a range that has to be read is gone, or its topic is another one now.
    Unsettled(Partition, StopCode),
    /// Answer to [`Action::Transact`].
    TxnEnded {
        /// The epoch that the action carried.
        epoch: u64,
        /// The outcome.
        end: TxnEnd,
    },
    /// Answer to [`Action::Deliver`].
    Delivered {
        /// The batch.
        batch: BatchId,
        /// All sinks together.
        outcome: Delivered,
    },
    /// A new producer has fenced the old one ([`Action::NewProducer`] of the same `epoch` is done).
    ProducerReady {
        /// The epoch that the action carried.
        epoch: u64,
    },
    /// Finish what is in flight, then leave the group.
    Drain,
    /// Time passed.
    Tick,
}

/// One Kafka transaction: what it commits and what it promises. Alerts and dead letters of `commits` go with it. With
/// [`Guarantee::AtLeastOnce`] it is a plain commit of offsets after these were written, and promises nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// The batch whose end offsets are committed, if any.
    pub commits: Option<BatchId>,
    /// The batch that is promised, if any.
    pub promises: Option<BatchId>,
    /// Every offset to write, with its metadata.
    pub offsets: Vec<(Partition, i64, Metadata)>,
}

/// What the hands have to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Read committed offsets and metadata, waiting while a transaction is open on them. Answered by `OffsetsRead`.
    ReadOffsets {
        /// To be given back.
        epoch: u64,
        /// What to read.
        partitions: Vec<Wanted>,
    },
    /// Start (or go on) handing records of a partition to the collector from `from`; new ranges start here.
    Collect {
        /// The partition.
        partition: Partition,
        /// The next offset that has no promise.
        from: i64,
    },
    /// Settle a promise: wait until no old insert can land, rebuild the range with the pinned revisions, read back.
    /// Answered by `Prepared` with [`Kind::Recovery`], or by `Unsettled`.
    Settle {
        /// The partition.
        partition: Partition,
        /// What was promised.
        promise: Promise,
    },
    /// Forget what is being collected or settled for these partitions; prepared batches end by `Done` or `Drop` alone.
    Forget(Vec<Partition>),
    /// Run one transaction. Answered by `TxnEnded`.
    Transact {
        /// To be given back.
        epoch: u64,
        /// Its content.
        transaction: Transaction,
    },
    /// Deliver a batch to every sink. Answered by `Delivered`.
    Deliver {
        /// The batch. Its number is [`FEEDING`] or more if nothing was prepared for it and rollups are fed alone.
        batch: BatchId,
        /// Sink clock, Unix milliseconds: no insert may start after it. `None`: nothing is missing in ClickHouse.
        deadline_ms: Option<i64>,
        /// Names the attempt in insert tokens and query ids.
        token: u64,
        /// Ranges that are committed and not yet in any rollup: to be fed now, each row exactly once.
        feeds: Vec<Range>,
        /// gRPC sinks that have never got anything of a partition of the batch: its range is the first that they get.
        begins: Vec<(Partition, u64)>,
    },
    /// The batch is committed everywhere: its memory may be freed and counted.
    Done(BatchId),
    /// The batch will never be delivered under this name: free it.
    Drop(BatchId),
    /// Throw the producer away, even if a call hangs in it; make a new one with the same transactional id.
    NewProducer {
        /// To be given back.
        epoch: u64,
    },
    /// Stop reading these partitions: they are about to be handed back.
    StopCollecting(Vec<Partition>),
    /// Give the partitions back to the group.
    HandBack(Vec<Partition>),
    /// This partition goes no further until an operator acts.
    Stop(Partition, StopCode),
    /// Everything is finished after `Drain`.
    Leave,
}
