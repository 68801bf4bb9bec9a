//! A process between the owner of a stack and each part, so that no part outlives its owner, however the owner ends.
//!
//! The owner holds the write end of a pipe that is the supervisor's standard input. When the owner ends, by any signal,
//! the kernel closes it; the supervisor reads end-of-file and stops its part. (The parent-death signal alone would not
//! do for this: it follows the *thread* that forked, and a runtime's threads come and go.) The supervisor itself forks
//! from its main thread, which lives as long as the process, so there the parent-death signal is right: a supervisor
//! that is killed takes its part with it. One byte on the pipe, `k`, means "keep it running without me".

use crate::error::{At, Error};
use crate::launch;
use crate::part::Part;
use crate::process::Process;
use crate::state::Running;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin};

pub(crate) const MODE: &str = "__devstack-supervise";

/// How long a part whose owner is gone may take to stop by itself.
const ORPHAN_STOP: Duration = Duration::from_secs(5);
/// How long a supervisor waits for the one before it to be gone: longer than that one may take.
const PREDECESSOR: Duration = Duration::from_secs(10);

/// How to run a part; written to the part's directory, where people can look at it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Spec {
    pub part: Part,
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Where its standard output and error are appended.
    pub log: PathBuf,
    /// User and group to run as, where not the owner's.
    pub user: Option<(u32, u32)>,
}

/// The owner's handle of a running part. Dropping it kills the part.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    /// None once the part may run on alone.
    lease: Option<ChildStdin>,
    pub running: Running,
}

impl Supervised {
    /// Starts `spec` below a supervisor, which is another process of the program `launcher`.
    pub async fn start(launcher: &Path, dir: &Path, spec: &Spec) -> Result<Supervised, Error> {
        let file = dir.join("run.json");
        let wrong = |reason: String| Error::Launcher {
            part: spec.part,
            launcher: launcher.to_owned(),
            reason,
        };
        let text = serde_json::to_string_pretty(spec).map_err(|error| wrong(error.to_string()))?;
        std::fs::write(&file, text).at(&file)?;
        let mut command = tokio::process::Command::new(launcher);
        command.arg0("sluice-devstack").args([MODE.as_ref(), file.as_os_str()]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        // SAFETY: the closure allocates nothing and makes system calls only.
        unsafe { command.pre_exec(leave_the_owners_terminal_and_files) };
        let mut child = command.spawn().at(launcher)?;
        let pid = child.id().unwrap_or_default();
        let supervisor = Process::of(pid).ok_or_else(|| wrong("it ended at once".into()))?;
        let (Some(lease), Some(answer)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(wrong("it has no pipes".into()));
        };
        let mut line = String::new();
        BufReader::new(answer).read_line(&mut line).await.at(launcher)?;
        let process = match serde_json::from_str(&line) {
            Ok(Answer::Running(process)) => process,
            Ok(Answer::Failed(reason)) => return Err(wrong(reason)),
            Err(_) => {
                let hint = "a program that uses devstack calls devstack::hidden_main first, or gives Options.launcher";
                return Err(wrong(format!("it answered '{}'; {hint}", line.trim())));
            }
        };
        Ok(Supervised {
            child,
            lease: Some(lease),
            running: Running { supervisor, process },
        })
    }

    /// Lets the part run on without an owner.
    pub async fn keep(mut self) {
        // A supervisor that is gone has taken its part with it: there is nothing left to keep.
        if let Some(mut lease) = self.lease.take() {
            lease.write_all(b"k").await.ok();
        }
    }

    /// Waits for the supervisor to end and reaps it; it ends right after its part.
    pub async fn reap(&mut self) {
        // The only error is that it was reaped before.
        self.child.wait().await.ok();
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.running.process.signal_tree(libc::SIGKILL);
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Answer {
    Running(Process),
    Failed(String),
}

/// The supervisor's main: runs the part that the file describes until it ends or the owner does.
pub(crate) fn main(file: &Path) -> ExitCode {
    let started = run(file);
    let answer = match &started {
        Ok((child, ..)) => match Process::of(child.id()) {
            Some(process) => Answer::Running(process),
            None => Answer::Failed("the part ended at once".into()),
        },
        Err(error) => Answer::Failed(error.to_string()),
    };
    if let Ok(text) = serde_json::to_string(&answer) {
        // An owner that no longer listens is gone: the watch below stops the part.
        writeln!(std::io::stdout(), "{text}").ok();
    }
    let Ok((mut child, stop_signal, _lock)) = started else {
        return ExitCode::FAILURE;
    };
    if let Some(process) = Process::of(child.id()) {
        std::thread::spawn(move || watch_owner(process, stop_signal));
    }
    match child.wait() {
        Ok(status) if status.success() || status.signal() == Some(stop_signal) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(file: &Path) -> Result<(std::process::Child, i32, File), Error> {
    let text = std::fs::read_to_string(file).at(file)?;
    let spec: Spec = serde_json::from_str(&text).map_err(|error| Error::State {
        path: file.to_owned(),
        reason: error.to_string(),
    })?;
    let lock = lock_out_a_predecessor(&file.with_extension("lock"))?;
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&spec.log)
        .at(&spec.log)?;
    let mut command = Command::new(&spec.program);
    command
        .args(&spec.args)
        .envs(&spec.env)
        .current_dir(&spec.cwd)
        .stdin(Stdio::null());
    command.stdout(log.try_clone().at(&spec.log)?).stderr(log);
    if let Some((user, group)) = spec.user {
        command.uid(user).gid(group);
    }
    let supervisor = std::process::id();
    // SAFETY: between fork and exec only system calls are made, nothing is allocated. It runs after the change of user,
    // which would clear the parent-death signal.
    unsafe {
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            // A supervisor killed before the line above would never be noticed.
            if u32::try_from(libc::getppid()).is_ok_and(|parent| parent == supervisor) {
                Ok(())
            } else {
                Err(std::io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
    Ok((command.spawn().at(&spec.program)?, launch::stop_signal(spec.part), lock))
}

/// A part that is still stopping after its owner's crash has its data open: wait for its supervisor's lock.
fn lock_out_a_predecessor(path: &Path) -> Result<File, Error> {
    let lock = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .at(path)?;
    let deadline = Instant::now() + PREDECESSOR;
    while lock.try_lock().is_err() {
        if Instant::now() >= deadline {
            let reason = std::io::Error::other("another supervisor still runs this part");
            return Err(Error::File {
                path: path.to_owned(),
                reason,
            });
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(lock)
}

fn watch_owner(process: Process, stop_signal: i32) {
    let mut word = [0];
    loop {
        match std::io::stdin().read(&mut word) {
            Ok(1) if word == *b"k" => return,
            Ok(1) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            _ => break,
        }
    }
    process.signal(stop_signal);
    process.signal(libc::SIGCONT);
    let deadline = Instant::now() + ORPHAN_STOP;
    while process.alive() {
        if Instant::now() >= deadline {
            process.signal_tree(libc::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A supervisor must not hear the terminal's Ctrl-C (its owner decides what that means), nor hold files of its owner
/// open: a pipeline `sluice ... | tee` would wait for it. Runs between fork and exec, where only system calls are allowed.
fn leave_the_owners_terminal_and_files() -> std::io::Result<()> {
    const CLOSE_ON_EXEC: libc::c_uint = 4;
    // SAFETY: neither call takes a pointer.
    let done = unsafe {
        libc::setsid();
        libc::syscall(
            libc::SYS_close_range,
            3 as libc::c_uint,
            libc::c_uint::MAX,
            CLOSE_ON_EXEC,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}
