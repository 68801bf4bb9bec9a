//! The exactly-once protocol as a state machine without I/O, clock or threads: an event and the time go in, actions
//! come out. `exactly-once-kafka` and the worker carry the actions out; the simulation and the property tests run this
//! very code.
//!
//! In the order in which a range passes through it: [`Promise`] is what is committed before anything leaves the
//! process (in the [`Metadata`] of an offset), [`disagreement`] says whether offset and sinks tell the same,
//! [`Lane`] is the machine, [`Event`] and [`Action`] are its seam.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod words;
mod promise;
mod witnesses;
mod lane;

pub use lane::{Lane, Settings, Standing};
pub use promise::{METADATA_CHARS_MAX, Marks, Metadata, Promise, PromiseFault, UNKNOWN_SCHEMAS_MAX, sink_id};
pub use witnesses::disagreement;
pub use words::{
    Action, BatchId, Cursor, Delivered, Event, FEEDING, Guarantee, Kind, Now, Offsets, Partition, Range, RangeOutput,
    StopCode, Stored, Transaction, TxnEnd, Wanted, Witnesses,
};
