//! The seam between the service and its store: what a ledger must do, in which words it answers.

use std::future::Future;
use std::ops::Range;

use proto::delivery::v1::{Charge, Outcome, UsageEntry};

use crate::check::CheckedPart;

/// The cursor before anything was applied, in an [`Outcome`].
pub const NO_CURSOR: i64 = -1;

/// One partition of one pipeline: what has a cursor.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The pipeline's name.
    pub pipeline: String,
    /// The Kafka topic.
    pub topic: String,
    /// The partition of the topic, from 0.
    pub partition: i32,
}

/// Which charges a sum is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The tenant, exactly.
    pub tenant: String,
    /// The meter, exactly.
    pub meter: String,
    /// Event time in Unix milliseconds, start inclusive and end exclusive.
    pub event_time_ms: Range<i64>,
}

/// What was charged in a [`Window`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The sum, of 10^-scale units. An `i128` holds the sum of as many `i64` as any store holds.
    pub quantity: i128,
    /// The meter's scale.
    pub scale: u32,
    /// The meter's unit; empty when the tenant was never charged on it.
    pub unit: String,
    /// How many charges the sum is of.
    pub charges: u64,
}

/// Which entries a reader of the ledger wants; an empty name is every name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// The tenant, exactly; empty for all.
    pub tenant: String,
    /// The meter, exactly; empty for all.
    pub meter: String,
}

/// A piece of the ledger, read from one snapshot.
#[derive(Clone, Debug, PartialEq)]
pub struct Page {
    /// The entries that the filter lets through, by ascending cursor.
    pub entries: Vec<UsageEntry>,
    /// Every entry up to here was looked at: where the next page begins.
    pub read_to: u64,
    /// The ledger's newest cursor when the page was read; 0 when it is empty.
    pub newest: u64,
}

/// Where a page of a partition's charges begins and ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargesPage {
    /// Which offsets.
    pub offsets: Range<i64>,
    /// The last charge of the page before: its offset and its number within the event.
    pub after: Option<(i64, u32)>,
    /// At most so many charges.
    pub charges_max: usize,
}

/// What became of a cursor that an operator moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It stands there now; it was here, or nothing had been applied.
    From(Option<i64>),
    /// Nothing was changed: so many charges stand at or behind that offset, and would be refused when they come again.
    Charged(u64),
}

/// Why a ledger gives no answer. Never a wrong one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    /// The store can't answer now: locked, full, down, or the answer to a commit was lost. Asking again is right, and safe.
    #[error("the ledger's store is not available: {0}")]
    Unavailable(String),
    /// The store refuses what no wait will change. Somebody has to look.
    #[error("the ledger's store refuses: {0}")]
    Refused(String),
    /// The store holds something else, or the ledger of another version.
    #[error("this is not a ledger that this program can use: {0}")]
    Foreign(String),
}

/// Keeps charges, cursors and applied ranges. Implementations differ in the store only; `tests/contract.rs` runs against each.
pub trait Ledger: Send + Sync + 'static {
    /// Applies parts in their order, all in one transaction, and says what became of each. With an error the outcome is open: all
    /// or none were applied, and the same parts delivered again tell. Dropping the future doesn't stop the delivery.
    fn deliver(&self, parts: Vec<CheckedPart>) -> impl Future<Output = Result<Vec<Outcome>, LedgerError>> + Send;

    /// The end of what was applied of a partition; `None` when nothing ever was.
    fn cursor(&self, source: Source) -> impl Future<Output = Result<Option<i64>, LedgerError>> + Send;

    /// What was charged in the window, from one snapshot.
    fn usage(&self, window: Window) -> impl Future<Output = Result<Usage, LedgerError>> + Send;

    /// Reads on after the entry `after`, through at most `entries_max` entries, which the filter makes fewer.
    ///
    /// Once a page has shown an entry, no entry before it can appear any more: cursors become visible in their order.
    fn entries(
        &self,
        after: u64,
        filter: Filter,
        entries_max: usize,
    ) -> impl Future<Output = Result<Page, LedgerError>> + Send;

    /// The charges of a partition by (offset, number within the event).
    fn charges(
        &self,
        source: Source,
        page: ChargesPage,
    ) -> impl Future<Output = Result<Vec<Charge>, LedgerError>> + Send;

    /// Says that all before offset `to` of a partition was applied, and nothing behind it, whatever was: for operators, when no
    /// delivery of that partition is under way.
    fn move_cursor(&self, source: Source, to: i64) -> impl Future<Output = Result<Moved, LedgerError>> + Send;

    /// Resolves when the store can be read and would take a write.
    fn ping(&self) -> impl Future<Output = Result<(), LedgerError>> + Send;
}
