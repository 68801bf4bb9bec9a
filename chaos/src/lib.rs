//! Faults for a pipeline that runs on the real parts, and what has to be true afterwards. In the order of a run: the
//! [`proxy`] that breaks connections and answers, the [`rig`] of real parts behind proxies, one [`trial`] on it, the
//! [`families`] of faults that a trial can be of, the [`failures`] of every day with their recovery times, the
//! [`mutations`] that have to make a trial red, and the [`table`] of what came of them.
//!
//! **Invariant:** whatever was struck, a trial ends with everything healed, a lag of 0, and a verifier of its own process that
//! finds nothing lost, doubled, altered or unexpected in any sink.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A program of tests: a failure is a panic that says why.

pub mod proxy;
pub mod disks;
pub mod rig;
pub mod driver;
pub mod trial;
pub mod families;
pub mod failures;
pub mod mutations;
pub mod table;
