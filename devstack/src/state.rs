//! `devstack.json`: what another process needs to know to show or stop a stack.

use crate::error::{At, Error};
use crate::part::{Part, Ports};
use crate::process::{self, Process};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;

/// A running stack as its directory's state file tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    boot: String,
    /// The process with whose end the stack ends; none after `keep`.
    pub owner: Option<Process>,
    pub ports: Ports,
    pub parts: BTreeMap<Part, Running>,
}

/// The two processes of a part that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Running {
    pub supervisor: Process,
    pub process: Process,
}

impl State {
    pub fn new(ports: Ports) -> State {
        let owner = Process::of(std::process::id());
        State {
            format: FORMAT,
            boot: process::boot(),
            owner,
            ports,
            parts: BTreeMap::new(),
        }
    }

    /// Reads the state of a stack that may still run; none when there is none, or it is from before the last boot.
    pub fn load(dir: &Path) -> Result<Option<State>, Error> {
        let path = file(dir);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            read => read.at(&path)?,
        };
        let state: State = serde_json::from_str(&text).map_err(|error| Error::State {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        if state.format != FORMAT {
            let reason = format!("format {} where {FORMAT} is known", state.format);
            return Err(Error::State { path, reason });
        }
        Ok((state.boot == process::boot()).then_some(state))
    }

    /// Writes the state in one step: a reader sees the old or the new one.
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = file(dir);
        let text = serde_json::to_string_pretty(self).map_err(|error| Error::State {
            path: path.clone(),
            reason: error.to_string(),
        })?;
        let beside = path.with_extension("json.new");
        std::fs::write(&beside, text + "\n").at(&beside)?;
        std::fs::rename(&beside, &path).at(&path)
    }

    /// Forgets the stack.
    pub fn remove(dir: &Path) -> Result<(), Error> {
        let path = file(dir);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            done => done.at(&path),
        }
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join("devstack.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> State {
        let mut state = State::new(Ports::default());
        let running = Running {
            supervisor: Process { pid: 41, started: 7 },
            process: Process { pid: 42, started: 8 },
        };
        state.parts.insert(Part::ClickHouse, running);
        state
    }

    #[test]
    fn a_saved_state_is_loaded_as_it_was_and_can_be_forgotten_twice() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
        example().save(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), Some(example()));
        State::remove(dir.path()).unwrap();
        State::remove(dir.path()).unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_state_from_before_the_last_boot_names_no_process_of_this_one() {
        let dir = tempfile::tempdir().unwrap();
        State {
            boot: "another".into(),
            ..example()
        }
        .save(dir.path())
        .unwrap();
        assert_eq!(State::load(dir.path()).unwrap(), None);
    }

    #[test]
    fn a_state_that_is_cut_off_or_of_another_format_is_refused_with_its_path() {
        let dir = tempfile::tempdir().unwrap();
        let path = file(dir.path());
        std::fs::write(&path, "{\"format\": 1, \"boo").unwrap();
        let cut = State::load(dir.path()).unwrap_err().to_string();
        assert!(
            cut.starts_with(&format!("{} is not readable as a devstack state: EOF", path.display())),
            "{cut}"
        );

        State { format: 2, ..example() }.save(dir.path()).unwrap();
        let newer = State::load(dir.path()).unwrap_err().to_string();
        assert!(newer.contains("format 2 where 1 is known"), "{newer}");
    }
}
