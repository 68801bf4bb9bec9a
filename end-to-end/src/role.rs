//! A role of Sluice as a process of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::ask::{Http, until};

/// To be ready on a machine that has other things to do; a verifier looks at everything first.
const READY_WITHIN: Duration = Duration::from_secs(180);
/// To finish what is in flight.
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

/// A running role. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Role {
    name: String,
    child: Child,
    /// Address of `/metrics`, `/healthz`, `/readyz`.
    pub http: String,
    pub log: PathBuf,
}

/// A program of the workspace: beside the running one, or in the directory above that of a test.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let running = std::env::current_exe().unwrap();
    let near = running.ancestors().skip(1).take(2).map(|dir| dir.join(name));
    let found = near.into_iter().find(|file| file.exists());
    found.unwrap_or_else(|| panic!("{name} is missing: scripts/programs.sh builds it"))
}

/// So many, from 10000 on: the proxies of `chaos/` are above.
const ROLE_PORTS: u16 = 3_000;

/// A port of this machine that nobody listens on: below the range of outgoing connections, so that it stays free while
/// the role that has it is down.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % u32::from(ROLE_PORTS)).unwrap();
    for _ in 0..ROLE_PORTS {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % ROLE_PORTS;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 10000 and 13000");
}

impl Role {
    /// Starts a program with these words and variables; its output is appended to `log`.
    pub fn start(
        name: &str,
        (program, words, env): (&Path, &[&str], &[(&str, &str)]),
        (dir, http): (&Path, String),
    ) -> Role {
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(program)
            .args(words)
            .envs(env.iter().copied())
            .arg("--with-parent")
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Role {
            name: name.to_owned(),
            child,
            http,
            log,
        }
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&mut self, client: &Http) {
        let url = format!("http://{}/readyz", self.http);
        let (name, child) = (self.name.clone(), &mut self.child);
        until(format!("{name} to be ready"), READY_WITHIN, async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{name} has ended: {status}");
            }
            client.get(&url).await
        })
        .await;
    }

    /// SIGKILL: nothing of it gets a chance to finish.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
        let status = self.child.wait().await.unwrap();
        assert_eq!(
            status.signal(),
            Some(9),
            "{} was to be killed, but had ended before: {status}",
            self.name
        );
    }

    /// Sends a signal, by its name without `SIG`.
    pub async fn signal(&self, signal: &str) {
        let pid = self
            .child
            .id()
            .unwrap_or_else(|| panic!("{} has ended by itself", self.name));
        let sent = Command::new("kill")
            .args([format!("-{signal}"), pid.to_string()])
            .status()
            .await
            .unwrap();
        assert!(sent.success(), "{} has ended by itself", self.name);
    }

    /// Whether a SIGSTOP holds it.
    pub fn stopped(&self) -> bool {
        let pid = self
            .child
            .id()
            .unwrap_or_else(|| panic!("{} has ended by itself", self.name));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // proc_pid_stat(5): the state comes behind the program's name in brackets.
        stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
    }

    /// How it has ended by itself; `None` when it goes on after `patience`.
    pub async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        let ended = tokio::time::timeout(patience, self.child.wait()).await.ok()?;
        Some(ended.unwrap())
    }

    /// SIGTERM, and its exit.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("TERM").await;
        let exit = tokio::time::timeout(DRAINED_WITHIN, self.child.wait()).await;
        exit.unwrap_or_else(|_| panic!("{} did not drain within {DRAINED_WITHIN:?}", self.name))
            .unwrap()
    }
}
