use crate::Part;
use std::path::PathBuf;

/// What can go wrong with the parts on this machine. Every message names the part or file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A tool that the machine has to bring is missing.
    #[error("'{tool}' is not on the PATH: {part} needs it ({hint})")]
    Missing {
        /// The program that was looked for.
        tool: &'static str,
        /// Which part needs it.
        part: Part,
        /// How to get it.
        hint: &'static str,
    },
    /// The download failed or brought other bytes than were pinned; the script has told why on stderr.
    #[error("fetching {parts} failed (the lines starting with 'fetch:' say why); nothing was installed")]
    Fetch {
        /// The parts that were to be fetched.
        parts: String,
    },
    /// This directory's stack runs already.
    #[error(
        "the stack in {dir} is already up: use its addresses (`sluice devstack status`) or stop it (`sluice devstack down`)"
    )]
    AlreadyUp {
        /// The stack's directory.
        dir: PathBuf,
    },
    /// There is no stack in this directory.
    #[error("no stack in {dir}: start one with `sluice devstack up`")]
    NotUp {
        /// The directory that was asked for.
        dir: PathBuf,
    },
    /// The part was asked to do something that it only can while it runs.
    #[error("{part} is not running: start it first")]
    NotRunning {
        /// The part.
        part: Part,
    },
    /// The part was started while it runs.
    #[error("{part} is already running")]
    Running {
        /// The part.
        part: Part,
    },
    /// The part's process ended before it answered.
    #[error("{part} ended before it was ready; the end of {log}:\n{tail}")]
    Died {
        /// The part.
        part: Part,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The part's process runs, but does not answer.
    #[error("{part} was not ready within {seconds} s; the end of {log}:\n{tail}")]
    NotReady {
        /// The part.
        part: Part,
        /// How long it had.
        seconds: u64,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// The part could not be prepared (its data directory, its system user).
    #[error("{part} could not be prepared: {reason}")]
    Prepare {
        /// The part.
        part: Part,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The program that should supervise the parts did not behave as a supervisor.
    #[error("{launcher} could not supervise {part}: {reason}")]
    Launcher {
        /// The part.
        part: Part,
        /// The program that was started.
        launcher: PathBuf,
        /// What it answered.
        reason: String,
    },
    /// No port is free where one was looked for.
    #[error("no free port found between {from} and {to} on 127.0.0.1")]
    NoFreePort {
        /// First port tried.
        from: u16,
        /// Last port tried.
        to: u16,
    },
    /// The state file is not one that this version wrote.
    #[error("{path} is not readable as a devstack state: {reason}; stop what it names by hand and remove it")]
    State {
        /// The state file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A file or directory could not be read or written.
    #[error("{path}: {reason}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// The system's word on it.
        reason: std::io::Error,
    },
}

/// Names the file in a system error.
pub(crate) trait At<T> {
    fn at(self, path: &std::path::Path) -> Result<T, Error>;
}

impl<T> At<T> for std::io::Result<T> {
    fn at(self, path: &std::path::Path) -> Result<T, Error> {
        self.map_err(|reason| Error::File {
            path: path.to_owned(),
            reason,
        })
    }
}
