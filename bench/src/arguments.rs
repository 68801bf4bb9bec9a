//! What options take, where a type does not say it.

use clap::builder::RangedU64ValueParser;

/// How many there are of something without which there is nothing to measure.
pub fn at_least_one() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}
