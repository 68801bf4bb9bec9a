//! The roles as programs of their own, so that one can be killed without the others noticing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use proto::config::v1::GetRevisionRequest;
use proto::config::v1::config_client::ConfigClient;
use tokio::process::{Child, Command};

use super::Outcome;

/// Where each role tells that it is ready.
const READY: [(&str, &str); 3] = [
    ("worker", "http://127.0.0.1:7301/readyz"),
    ("config", "http://127.0.0.1:7302/readyz"),
    ("billing", "http://127.0.0.1:7401/readyz"),
];

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Running roles by name.
pub struct Roles {
    program: PathBuf,
    dir: PathBuf,
    running: BTreeMap<String, Child>,
}

impl Roles {
    /// Roles of the `sluice` that lies beside this program.
    pub fn new(dir: &Path) -> Outcome<Roles> {
        let program = std::env::current_exe()?.with_file_name("sluice");
        if !program.exists() {
            return Err(format!("{} is missing; `make demo` builds it", program.display()).into());
        }
        std::fs::create_dir_all(dir.join("logs"))?;
        Ok(Roles {
            program,
            dir: dir.to_path_buf(),
            running: BTreeMap::new(),
        })
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(words)
            .arg("--pipeline")
            .arg(self.dir.join("pipeline.yaml"))
            .arg("--stack")
            .arg(self.dir.join("stack"))
            .stdin(Stdio::null());
        command
    }

    /// Runs a tool to its end; its output goes to a log, and into the error if it fails.
    pub async fn tool(&self, words: &[&str]) -> Outcome<()> {
        let done = self.command(words).output().await?;
        let said = [done.stdout, done.stderr].concat();
        std::fs::write(
            self.dir.join("logs").join(format!("{}.log", words[..2].join("-"))),
            &said,
        )?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("sluice {} failed:\n{}", words.join(" "), String::from_utf8_lossy(&said)).into())
    }

    /// Starts a role and waits until it is ready.
    pub async fn start(&mut self, role: &str) -> Outcome<()> {
        let log = self.dir.join("logs").join(format!("{role}.log"));
        let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = self
            .command(&[role])
            .arg("--with-parent")
            .arg("--unless")
            .arg(kept(&self.dir))
            .process_group(0)
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        self.running.insert(role.to_string(), child);
        let deadline = Instant::now() + READY_WITHIN;
        let url = READY.iter().find(|(name, _)| *name == role).map_or("", |(_, url)| url);
        loop {
            self.check()?;
            if super::show::get(url).await.is_some() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{role} was not ready within {READY_WITHIN:?}; see {}", self.logs()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// An error if a role has ended by itself.
    pub fn check(&mut self) -> Outcome<()> {
        for (role, child) in &mut self.running {
            if let Some(status) = child.try_wait()? {
                return Err(format!(
                    "{role} has ended ({status}); see {}",
                    super::shown(&self.dir.join("logs"))
                )
                .into());
            }
        }
        Ok(())
    }

    fn logs(&self) -> String {
        super::shown(&self.dir.join("logs"))
    }

    /// SIGKILL: nothing of it gets a chance to finish.
    pub async fn kill(&mut self, role: &str) {
        if let Some(mut child) = self.running.remove(role)
            && let Err(error) = child.kill().await
        {
            eprintln!("{role} could not be killed: {error}");
        }
    }

    /// SIGTERM to the worker first, so that what it delivers still finds its services.
    pub async fn stop_all(&mut self) {
        for role in ["worker", "billing", "config"] {
            let Some(mut child) = self.running.remove(role) else {
                continue;
            };
            if let Some(pid) = child.id() {
                let signalled = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await;
                if signalled.is_err() {
                    continue;
                }
            }
            match tokio::time::timeout(Duration::from_secs(30), child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => eprintln!("{role} ended with {status}"),
                Ok(Err(error)) => eprintln!("{role}: {error}"),
                Err(_) => {
                    eprintln!("{role} did not drain within 30 s");
                    if let Err(error) = child.kill().await {
                        eprintln!("{role}: {error}");
                    }
                }
            }
        }
    }

    /// Lets the roles go on after this program, until [`end_kept`].
    pub fn keep(&mut self) -> Outcome<()> {
        std::fs::write(
            kept(&self.dir),
            "the demo's roles run as long as this file is there: `make stop`\n",
        )?;
        self.running.clear();
        Ok(())
    }
}

fn kept(dir: &Path) -> PathBuf {
    dir.join("kept")
}

/// Ends what an earlier demo left running in `dir`: the roles drain, then the stack goes. False if nothing was.
pub async fn end_kept(dir: &Path) -> Outcome<bool> {
    let was_kept = kept(dir).exists();
    if was_kept {
        std::fs::remove_file(kept(dir))?;
        let deadline = Instant::now() + Duration::from_secs(60);
        for (role, url) in READY.iter().rev() {
            while super::show::get(&url.replace("readyz", "healthz")).await.is_some() {
                if Instant::now() > deadline {
                    return Err(format!("{role} of the demo before does not end").into());
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
    match devstack::down(&dir.join("stack")).await {
        Ok(()) => Ok(true),
        Err(devstack::Error::NotUp { .. }) => Ok(was_kept),
        Err(error) => Err(error.into()),
    }
}

/// The demo's pipeline with the addresses of its stack, absolute so that every role finds its state.
pub fn pipeline(file: &Path, stack: &devstack::Stack) -> Outcome<pipeline::Pipeline> {
    let mut pipeline =
        pipeline::load(file).map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    pipeline.connections.kafka = Some(pipeline::Kafka {
        brokers: vec![stack.kafka.clone()],
        tls: None,
        sasl: None,
        properties: BTreeMap::new(),
    });
    pipeline.connections.registry.url = Some(stack.registry.clone());
    pipeline.connections.clickhouse.url = Some(stack.clickhouse.clone());
    Ok(pipeline)
}

/// The rules in force, asked from the service like anybody would.
pub async fn newest_rules(pipeline: &pipeline::Pipeline) -> Outcome<verify::RulesRevision> {
    let pipeline::RulesFrom::Service { url, .. } = &pipeline.connections.rules else {
        return Ok(verify::RulesRevision::default());
    };
    let mut client = ConfigClient::connect(url.clone()).await?;
    let request = GetRevisionRequest {
        pipeline: pipeline.name.clone(),
        number: None,
    };
    let revision = client.get_revision(request).await?.into_inner();
    Ok(verify::RulesRevision {
        number: revision.id.map_or(0, |id| id.number),
        documents: revision.documents.into_iter().map(|one| (one.file, one.text)).collect(),
    })
}
