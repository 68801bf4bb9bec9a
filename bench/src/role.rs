//! Roles of Sluice as processes of their own, so that the operating system counts the CPU time of each.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use crate::cpu;
use crate::error::Error;

const READY_WITHIN: Duration = Duration::from_secs(60);
const DRAINED_WITHIN: Duration = Duration::from_secs(60);

/// A running role. Dropping it kills it.
#[derive(Debug)]
pub struct Role {
    name: String,
    child: Child,
    http: String,
    log: PathBuf,
}

/// An address of this machine at which nobody listens.
///
/// # Errors
/// [`Error::Failed`] when there is none.
pub fn free_address() -> Result<String, Error> {
    let taken = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    taken
        .map(|address| address.to_string())
        .map_err(|error| Error::Failed(format!("no free port: {error}")))
}

fn sluice() -> Result<PathBuf, Error> {
    let running = std::env::current_exe().map_err(Error::io(Path::new("this program")))?;
    let program = running.with_file_name("sluice");
    if program.exists() {
        return Ok(program);
    }
    Err(Error::Failed(format!(
        "{} is missing: `make bench` builds it",
        program.display()
    )))
}

/// Runs a command of `sluice` on the directory's pipeline file to its end, and answers what it printed.
///
/// # Errors
/// [`Error::Failed`] with what it said, unless it exits with 0.
pub async fn run(dir: &Path, words: &[&str]) -> Result<String, Error> {
    let program = sluice()?;
    let done = Command::new(&program)
        .args(words)
        .current_dir(dir)
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::io(&program))?;
    let said = String::from_utf8_lossy(&done.stdout).into_owned();
    if done.status.success() {
        return Ok(said);
    }
    let cause = String::from_utf8_lossy(&done.stderr).into_owned();
    Err(Error::Failed(format!("sluice {}:\n{said}{cause}", words.join(" "))))
}

impl Role {
    /// Starts a role (`worker`, `billing`) in the directory of its pipeline file, and waits until it says that it is ready.
    /// `http_flag`: the option by which it is told where to answer.
    ///
    /// # Errors
    /// [`Error::Failed`] with the end of its log when it ends or is not ready within a minute.
    pub async fn start(dir: &Path, name: &str, http_flag: &str) -> Result<Self, Error> {
        let program = sluice()?;
        let http = free_address()?;
        let log = dir.join(format!("{name}.log"));
        let output = std::fs::File::create(&log).map_err(Error::io(&log))?;
        let also = output.try_clone().map_err(Error::io(&log))?;
        let child = Command::new(&program)
            .args([name, http_flag, &http, "--with-parent"])
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(also)
            .kill_on_drop(true)
            .spawn()
            .map_err(Error::io(&program))?;
        let mut role = Self {
            name: name.to_owned(),
            child,
            http,
            log,
        };
        let deadline = Instant::now() + READY_WITHIN;
        while role.get("readyz").await.is_none() {
            role.alive()?;
            if Instant::now() > deadline {
                return Err(role.failed("is not ready"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(role)
    }

    /// An error when it has ended by itself.
    ///
    /// # Errors
    /// [`Error::Failed`] with the end of its log.
    pub fn alive(&mut self) -> Result<(), Error> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            _ => Err(self.failed("has ended")),
        }
    }

    fn failed(&self, what: &str) -> Error {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let mut end: Vec<&str> = log.lines().rev().take(20).collect();
        end.reverse();
        Error::Failed(format!("{} {what}; the end of its log:\n{}", self.name, end.join("\n")))
    }

    /// CPU time that it has taken so far.
    ///
    /// # Errors
    /// [`Error::Failed`] when it has ended.
    pub fn cpu(&self) -> Result<Duration, Error> {
        cpu::of_process(self.pid())
    }

    /// Memory that it has now and had at most, MiB.
    ///
    /// # Errors
    /// [`Error::Failed`] when it has ended.
    pub fn memory_mib(&self) -> Result<(f64, f64), Error> {
        cpu::memory_mib(self.pid())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    async fn get(&self, path: &str) -> Option<String> {
        let url = format!("http://{}/{path}", self.http);
        let client = load_tests::register::client(&url).ok()?;
        let answer = client.get(url).send().await.ok()?.error_for_status().ok()?;
        answer.text().await.ok()
    }

    /// A metric, summed over its labels; 0 while it is not told.
    pub async fn metric(&self, name: &str) -> f64 {
        self.told(name).await.unwrap_or(0.0)
    }

    /// The same; none while it is not told.
    pub async fn told(&self, name: &str) -> Option<f64> {
        let text = self.get("metrics").await?;
        let of_it = |line: &&str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{']));
        let values = text.lines().filter(of_it).filter_map(|line| line.rsplit(' ').next());
        let values = values.filter_map(|value| value.parse::<f64>().ok());
        values.reduce(|sum, value| sum + value)
    }

    /// SIGTERM, and its end.
    ///
    /// # Errors
    /// [`Error::Failed`] when it does not end with 0 within a minute.
    pub async fn stop(mut self) -> Result<(), Error> {
        let pid = i32::try_from(self.pid()).unwrap_or_default();
        // SAFETY: kill(2) takes no pointers; the child is not waited for yet, so the pid is its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        match tokio::time::timeout(DRAINED_WITHIN, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            _ => Err(self.failed("did not drain")),
        }
    }
}
