//! What happened, in words, and a hash over all of it. Words cost more than the run itself, so a run writes them only
//! when it is told to: a seed that fails is run again with them.

use std::collections::VecDeque;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// So many lines are kept.
const KEPT: usize = 160;

/// The trace of one run.
#[derive(Debug, Default)]
pub struct Trace {
    told: bool,
    lines: VecDeque<String>,
    hash: u64,
    length: u64,
}

impl Trace {
    /// `told`: whether lines are made at all.
    pub fn new(told: bool) -> Trace {
        Trace {
            told,
            ..Trace::default()
        }
    }

    /// One line.
    pub fn note(&mut self, at_ms: i64, line: impl FnOnce() -> String) {
        if !self.told {
            return;
        }
        let line = format!("{at_ms:>6} {}", line());
        self.hash = xxh3_64_with_seed(line.as_bytes(), self.hash);
        self.length += 1;
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// How many lines there were, and a hash over all of them.
    pub fn fingerprint(&self) -> (u64, u64) {
        (self.length, self.hash)
    }

    /// The last lines.
    pub fn tail(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}
