//! A clock that workers are given in the place of the machine's, and that can jump.

use std::path::{Path, PathBuf};

/// For workers that are told of it when they start. Dropping it puts it right.
#[derive(Debug)]
pub struct Clock(PathBuf);

impl Clock {
    /// One that is right; `file` says how far it is ahead.
    pub fn new(file: &Path) -> Clock {
        let clock = Clock(file.to_owned());
        clock.ahead(0);
        clock
    }

    /// From now on it is so many seconds ahead of the machine's. The clock that measures spans goes on as it was, as it does when
    /// a machine's time is set.
    pub fn ahead(&self, seconds: i64) {
        // Never half of it: it is read at any time.
        let next = self.0.with_extension("next");
        std::fs::write(&next, format!("{seconds:+}\n")).unwrap();
        std::fs::rename(&next, &self.0).unwrap();
    }

    /// The variable that tells a worker with crash points.
    pub(crate) fn variable(&self) -> (&'static str, &str) {
        ("SLUICE_CLOCK", self.0.to_str().unwrap())
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.ahead(0);
    }
}
