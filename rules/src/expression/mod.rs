//! SQL expressions over an event's columns: parsed, resolved, typed, planned, and evaluated so that one bad row
//! fails alone.

mod functions;
mod dialect;
mod parsed;
mod names;
mod tree;
mod plan;
mod lossless;
mod checked;
mod guarded;
mod join_text;
pub mod map_entry;
mod evaluate;

pub use evaluate::{Evaluated, panicked, shortened};
pub use map_entry::lookup;
pub use names::unknown_column;
pub use parsed::{Name, Parsed};
pub use plan::{Expression, Input, Wanted};

use crate::position::Place;

/// What is wrong inside an expression, and where in its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    pub place: Place,
    pub message: String,
}

impl Mistake {
    pub fn new(place: Place, message: impl Into<String>) -> Self {
        Self {
            place,
            message: message.into(),
        }
    }
}
