//! Places on the path of a batch at which a test lets the process die, as if by SIGKILL from outside. Without the feature
//! `armed` nothing of this is compiled into a program but empty functions; with it, the variable `SLUICE_CRASH` says where:
//! `insert-sent:3` dies when the third insert has been sent, `insert-sent:3:1500` 1,500 microseconds after that, and
//! `after-begin:3:stop` stands still there until it gets a SIGCONT; with `after-begin:3:hang` the thread that comes by hangs there, as in
//! a call that never ends (for the points of a transaction, which has a thread of its own). Beside them [`unless_given_up`], and what a test may take away
//! from the protocol ([`Mutation`]).
//!
//! ```
//! use crash_points::{Point, here};
//! here(Point::AfterPoll);
//! assert_eq!("after-poll".parse::<Point>().unwrap(), Point::AfterPoll);
//! ```

#[cfg(feature = "armed")]
mod armed;
mod mutations;

pub use mutations::{Mutation, mutated};

use strum::{Display, EnumString, IntoStaticStr, VariantArray};

/// A place at which a process can die, in the order in which a batch passes them; written as in `SLUICE_CRASH`, `insert-sent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Display, EnumString, IntoStaticStr, VariantArray)]
#[strum(serialize_all = "kebab-case")]
pub enum Point {
    /// A record was taken from Kafka.
    AfterPoll,
    /// A batch has been transformed; nothing of it has left the process.
    AfterTransform,
    /// A transaction has begun, for the client library; Kafka knows nothing of it.
    AfterBegin,
    /// Alerts, dead letters and the audit's record were handed to the producer.
    AlertsProduced,
    /// Kafka has acknowledged the offsets of the transaction.
    OffsetsSent,
    /// A promise is about to be committed.
    PromiseUnsent,
    /// The commit of a promise is on its way.
    PromiseSent,
    /// Kafka has acknowledged the commit of a promise.
    PromiseAnswered,
    /// An insert is about to be sent.
    InsertUnsent,
    /// An insert is on its way.
    InsertSent,
    /// An insert was acknowledged, others of its batch were not.
    BetweenTables,
    /// The last insert of a batch was acknowledged.
    InsertsAnswered,
    /// A gRPC sink is about to be called.
    CallUnsent,
    /// A call is on its way.
    CallSent,
    /// A gRPC sink has answered.
    CallAnswered,
    /// The end offsets of a batch are about to be committed.
    CommitUnsent,
    /// The commit of a batch is on its way.
    CommitSent,
    /// Kafka has acknowledged the commit of a batch; the lane does not know it yet.
    CommitAnswered,
}

/// Dies here, when it is this point's turn. A point that is followed by the call it is about ([`Point::InsertSent`]) dies a
/// given time later, while the call runs.
#[cfg(feature = "armed")]
pub fn here(point: Point) {
    armed::pass(point);
}

/// How far a process is to take the machine's clock to be ahead, in milliseconds: what the file says that `SLUICE_CLOCK` names, in
/// seconds. A library before the C library would do it for every clock of the process, and has librdkafka wait for hours: its
/// `cnd_timedwait` goes past such a library (tried with libfaketime 0.9.10).
#[cfg(feature = "armed")]
pub fn clock_ahead_ms() -> i64 {
    armed::clock_ahead_ms()
}

/// It is right.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn clock_ahead_ms() -> i64 {
    0
}

/// What comes of this work; `None` when it was given up on its way, as a future that is dropped at one of its awaits. With
/// `SLUICE_GIVE_UP=3` every third is, each at another await; a line on the standard error tells of each that had as many.
#[cfg(feature = "armed")]
pub async fn unless_given_up<T>(work: impl Future<Output = T>) -> Option<T> {
    armed::unless_given_up(work).await
}

/// What comes of this work.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub async fn unless_given_up<T>(work: impl Future<Output = T>) -> Option<T> {
    Some(work.await)
}

/// Nothing.
#[cfg(not(feature = "armed"))]
#[inline(always)]
pub fn here(_: Point) {}
