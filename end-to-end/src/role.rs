//! A role of Sluice as a process of its own.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::ask::{Http, until};

/// To be ready on a machine that has other things to do.
const READY_WITHIN: Duration = Duration::from_secs(60);
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

/// `sluice`, two directories above this test.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.ancestors().nth(2).unwrap().join("sluice");
    assert!(
        program.exists(),
        "{} is missing: cargo build --workspace --bins",
        program.display()
    );
    program
}

/// A port of this machine that nobody listens on: below the range of outgoing connections, so that it stays free while
/// the role that has it is down.
pub(crate) fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU16, Ordering};
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = u16::try_from(std::process::id() % 8_000).unwrap();
    for _ in 0..8_000 {
        let port = 10_000 + (begin + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 10000 and 18000");
}

impl Role {
    /// Starts `sluice` with these words; its output is appended to `log`.
    pub fn start(name: &str, words: &[&str], (dir, http): (&Path, String)) -> Role {
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = Command::new(program())
            .args(words)
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

    /// SIGTERM, and its exit.
    pub async fn stop(mut self) -> ExitStatus {
        let pid = self
            .child
            .id()
            .unwrap_or_else(|| panic!("{} has ended by itself", self.name));
        let sent = Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status()
            .await
            .unwrap();
        assert!(sent.success(), "{} has ended by itself", self.name);
        let exit = tokio::time::timeout(DRAINED_WITHIN, self.child.wait()).await;
        exit.unwrap_or_else(|_| panic!("{} did not drain within {DRAINED_WITHIN:?}", self.name))
            .unwrap()
    }
}
