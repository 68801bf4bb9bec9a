//! A stack as another process sees and stops it, by its state file.

use crate::error::Error;
use crate::launch;
use crate::part::Part;
use crate::probe;
use crate::stack::{END, STOP};
use crate::state::State;
use std::path::{Path, PathBuf};
use tokio::time::Instant;

/// How a part is, seen from any process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// It answers.
    Ready,
    /// It runs, but does not answer (yet).
    NotReady,
    /// It is frozen by a signal.
    Paused,
    /// It does not run.
    Stopped,
}

/// One part of a stack, seen from any process.
#[derive(Clone, Debug, serde::Serialize)]
pub struct PartStatus {
    /// The part.
    pub part: Part,
    /// Where it listens, as it goes into a pipeline file.
    pub address: String,
    /// How it is.
    pub health: Health,
    /// Its process, while it runs.
    pub pid: Option<u32>,
    /// Its standard output and error.
    pub log: PathBuf,
}

/// The parts of the stack in `dir` that were started and not stopped. [`Error::NotUp`] when there is no stack.
pub async fn status(dir: &Path) -> Result<Vec<PartStatus>, Error> {
    let state = State::load(dir)?.ok_or_else(|| Error::NotUp { dir: dir.to_owned() })?;
    let mut parts = Vec::new();
    for (part, running) in &state.parts {
        let process = running.process;
        let health = match process.alive() {
            false => Health::Stopped,
            true if process.paused() => Health::Paused,
            true if probe::ready(*part, &state.ports).await => Health::Ready,
            true => Health::NotReady,
        };
        parts.push(PartStatus {
            part: *part,
            address: state.ports.address(*part),
            health,
            pid: (health != Health::Stopped).then_some(process.pid),
            log: dir.join(part.name()).join("log"),
        });
    }
    Ok(parts)
}

/// Stops the stack in `dir`, whichever process started it; returns when every process of it has ended. The data stays.
/// [`Error::NotUp`] when there is no stack.
pub async fn down(dir: &Path) -> Result<(), Error> {
    let state = State::load(dir)?.ok_or_else(|| Error::NotUp { dir: dir.to_owned() })?;
    let began = Instant::now();
    for (part, running) in &state.parts {
        running.process.signal(launch::stop_signal(*part));
        running.process.signal_tree(libc::SIGCONT);
    }
    for running in state.parts.values() {
        if !running.process.ended(STOP.saturating_sub(began.elapsed())).await {
            running.process.signal_tree(libc::SIGKILL);
        }
        running.supervisor.ended(END).await;
    }
    State::remove(dir)
}
