//! Processes named by pid *and* start time: a pid alone may belong to somebody else by the time it is signalled.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A process of this boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub pid: u32,
    /// Clock ticks after boot (field 22 of proc_pid_stat(5)).
    pub started: u64,
}

impl Process {
    /// The process that has this pid now.
    pub fn of(pid: u32) -> Option<Process> {
        stat(pid).map(|stat| Process {
            pid,
            started: stat.started,
        })
    }

    /// True until the process has ended (one that waits to be reaped has).
    pub fn alive(self) -> bool {
        self.state().is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// True while it is held by SIGSTOP.
    pub fn paused(self) -> bool {
        self.state() == Some('T')
    }

    /// Sends a signal to the process if it is still this one.
    pub fn signal(self, signal: i32) {
        let Ok(pid) = i32::try_from(self.pid) else { return };
        if self.alive() {
            // SAFETY: kill(2) takes no pointers. It can only fail because the process has just ended, which is no fault.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Sends a signal to the process and all that descend from it (PostgreSQL has a process for each connection).
    pub fn signal_tree(self, signal: i32) {
        if !self.alive() {
            return;
        }
        let below = descendants(self.pid);
        self.signal(signal);
        for process in below {
            process.signal(signal);
        }
    }

    /// Waits until the process has ended; false when it hasn't by then.
    pub async fn ended(self, within: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + within;
        // Looked at again and again: it is no child of this process, so that nobody tells.
        while self.alive() {
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        true
    }

    fn state(self) -> Option<char> {
        stat(self.pid)
            .filter(|stat| stat.started == self.started)
            .map(|stat| stat.state)
    }
}

/// Names this boot: pids and start times mean nothing after the next one.
pub(crate) fn boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .map(|id| id.trim().to_owned())
        .unwrap_or_default()
}

struct Stat {
    state: char,
    parent: u32,
    started: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses and may itself hold spaces and parentheses.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some(Stat { state, parent, started })
}

fn descendants(root: u32) -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(Process, u32)> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| {
            stat(pid).map(|stat| {
                (
                    Process {
                        pid,
                        started: stat.started,
                    },
                    stat.parent,
                )
            })
        })
        .collect();
    let mut found = Vec::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == parent) {
            found.push(*process);
            parents.push(process.pid);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_recycled_pid_is_neither_alive_nor_signalled() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let now = Process::of(child.id()).unwrap();
        let before = Process {
            started: now.started - 1,
            ..now
        };
        assert!(now.alive());
        assert!(!before.alive());

        before.signal(libc::SIGKILL);
        before.signal_tree(libc::SIGKILL);

        drop(child.stdin.take());
        assert!(child.wait().unwrap().success(), "cat ended by itself, not by a signal");
    }

    #[tokio::test]
    async fn killing_a_tree_ends_the_grandchildren_too() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 600 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let grandchild = Process::of(line.trim().parse().unwrap()).unwrap();

        Process::of(child.id()).unwrap().signal_tree(libc::SIGKILL);

        assert!(grandchild.ended(Duration::from_secs(10)).await);
        child.wait().unwrap();
    }
}
