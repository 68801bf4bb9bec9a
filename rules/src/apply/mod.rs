//! A program applied to columns: [`run`] takes it through some rows of a batch, [`merge`] puts what came out back
//! into the order of the input.

mod chosen;
mod effects;
mod edit_map;
mod work;
mod run;
mod merge;

pub use merge::merge;
pub use run::run;
pub use work::Rows;
