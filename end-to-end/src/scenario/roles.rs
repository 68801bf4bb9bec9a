//! The roles of a scenario: started, killed, frozen, stopped, and asked.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::time::Duration;

use super::{SETTLED_WITHIN, Scenario};
use crate::ask::{Http, LOOK_EVERY, metric, until};
use crate::clock::Clock;
use crate::role::{Role, free_port, program};

/// The program with crash points: `cargo build --workspace --features cli/crash-points --bin sluice-crashing`.
const CRASHING: &str = "sluice-crashing";
/// How often a role is asked for its metrics before it counts as gone.
const ASKED: usize = 3;

/// What is special about a worker; by default nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Worker<'a> {
    /// Whose slot it takes, where not that of its own name.
    pub slot: Option<&'a str>,
    /// Where it dies, as in `SLUICE_CRASH`: `insert-sent:3`.
    pub crash: Option<&'a str>,
    /// Of how many deliveries it gives one up, as in `SLUICE_GIVE_UP`: `3`.
    pub give_up: Option<&'a str>,
}

/// Where a role tells its metrics.
#[derive(Debug, Clone)]
pub struct Metrics {
    http: Http,
    url: String,
}

impl Metrics {
    /// Like [`Scenario::metric`].
    pub async fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        for _ in 0..ASKED {
            if let Some(text) = self.http.get(&self.url).await {
                return metric(&text, name, labels);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        0.0
    }
}

impl Scenario<'_> {
    /// Starts `sluice billing` and waits until it is ready.
    pub async fn start_billing(&mut self) {
        let store = self.billing_store.clone();
        let mut words = vec!["billing"];
        words.extend(store.iter().flat_map(|store| ["--store", store.as_str()]));
        self.start("billing", &words, "--http").await;
    }

    /// Starts `sluice config` and waits until it is ready.
    pub async fn start_config(&mut self) {
        self.start("config", &["config"], "--http").await;
    }

    /// Starts `sluice verify --every 1` as `verifier` and waits until its first round is over.
    pub async fn start_verifier(&mut self) {
        self.start("verifier", &["verify", "--every", "1"], "--listen").await;
    }

    /// Starts a worker of this name and waits until it is ready. Names sort behind the other roles': `worker-a`, …
    pub async fn start_worker(&mut self, name: &str) {
        self.launch_worker(name, Worker::default());
        self.is_ready(name).await;
    }

    /// Starts a worker that is special, and does not wait for it.
    pub fn launch_worker(&mut self, name: &str, worker: Worker<'_>) {
        let slot = worker.slot.unwrap_or(name);
        let words = ["worker", "--name", slot];
        let file = self.worker_file.clone();
        let crash = worker.crash.map(|crash| ("SLUICE_CRASH", crash));
        let mutation = self.mutation.map(|mutation| ("SLUICE_MUTATION", mutation));
        let give_up = worker.give_up.map(|give_up| ("SLUICE_GIVE_UP", give_up));
        let file_of_clock = self.clock.clone();
        let clock = file_of_clock.as_deref().map(Clock::variable);
        let env: Vec<(&str, &str)> = [crash, mutation, give_up, clock].into_iter().flatten().collect();
        let program = program(if env.is_empty() { "sluice" } else { CRASHING });
        self.launch_as(name, (&words, "--listen"), (file, program, env));
    }

    /// Waits until a role has ended by a signal, and answers which. `None`: it has not within `patience`.
    pub async fn killed_itself(&mut self, name: &str, patience: Duration) -> Option<i32> {
        let role = self.roles.get_mut(name).unwrap();
        let ended = role.ended(patience).await?;
        self.roles.remove(name);
        ended.signal()
    }

    /// Waits until a role has stopped itself where it was told to (`SLUICE_CRASH=...:stop`). False: it has not within `patience`.
    pub async fn stands_still(&self, name: &str, patience: Duration) -> bool {
        let what = format!("{name} to stand still");
        let stopped = until(what, 2 * patience, async || self.roles[name].stopped().then_some(()));
        tokio::time::timeout(patience, stopped).await.is_ok()
    }

    /// SIGSTOP: the role keeps its connections, and does nothing.
    pub async fn freeze(&self, name: &str) {
        self.roles[name].signal("STOP").await;
    }

    /// SIGCONT.
    pub async fn thaw(&self, name: &str) {
        self.roles[name].signal("CONT").await;
    }

    /// Names of the roles that run.
    pub fn running(&self) -> Vec<String> {
        self.roles.keys().cloned().collect()
    }

    /// Starts a worker of this name that has reason to wait, and answers what `/readyz` says once it says `reason`.
    pub async fn start_waiting_worker(&mut self, name: &str, reason: &str) -> String {
        self.launch_worker(name, Worker::default());
        self.waits(name, reason).await
    }

    /// Starts a worker that finds partitions which an operator has to look after, and answers what it says of them.
    pub async fn start_stopped_worker(&mut self, name: &str, code: &str) -> String {
        self.launch_worker(name, Worker::default());
        self.is_stopped(name, code).await
    }

    /// What a worker's `/readyz` says once partitions are stopped with this code; its metrics say so, too.
    pub async fn is_stopped(&self, name: &str, code: &str) -> String {
        let said = self.waits(name, code).await;
        until(
            format!("partitions of {name} to be counted with {code}"),
            SETTLED_WITHIN,
            async || {
                let stopped = self.metric(name, "sluice_partitions_stopped", &[("code", code)]).await;
                (stopped > 0.0).then_some(())
            },
        )
        .await;
        said
    }

    /// What a role's `/readyz` says once it says `reason`.
    pub async fn waits(&self, name: &str, reason: &str) -> String {
        let url = format!("http://{}/readyz", self.roles[name].http);
        until(format!("{name} to say {reason:?}"), SETTLED_WITHIN, async || {
            self.http.body(&url).await.filter(|body| body.contains(reason))
        })
        .await
    }

    /// How many lines of a role's log say this.
    pub fn said(&self, name: &str, what: &str) -> usize {
        let text = std::fs::read_to_string(&self.roles[name].log).unwrap_or_default();
        text.lines().filter(|line| line.contains(what)).count()
    }

    /// Waits until a role is ready.
    pub async fn is_ready(&mut self, name: &str) {
        self.roles.get_mut(name).unwrap().ready(&self.http).await;
    }

    async fn start(&mut self, name: &str, words: &[&str], listen: &str) {
        self.launch(name, words, listen);
        self.is_ready(name).await;
    }

    fn launch(&mut self, name: &str, words: &[&str], listen: &str) {
        self.launch_as(name, (words, listen), (None, program("sluice"), Vec::new()));
    }

    fn launch_as(
        &mut self,
        name: &str,
        (words, listen): (&[&str], &str),
        (file, program, env): (Option<PathBuf>, PathBuf, Vec<(&str, &str)>),
    ) {
        let file = file
            .unwrap_or_else(|| self.dir.join("pipeline.yaml"))
            .display()
            .to_string();
        let http = format!("127.0.0.1:{}", free_port());
        let words = [words, &["--pipeline", file.as_str(), listen, http.as_str()]].concat();
        let role = Role::start(name, (&program, &words, &env), (&self.dir, http.clone()));
        assert!(
            self.roles.insert(name.to_owned(), role).is_none(),
            "{name} runs already"
        );
    }

    /// SIGKILL to a role.
    pub async fn kill(&mut self, name: &str) {
        self.roles.remove(name).unwrap().kill().await;
    }

    /// SIGTERM to a role.
    ///
    /// # Panics
    /// When it does not exit with 0, in time.
    pub async fn stop(&mut self, name: &str) {
        let status = self.roles.remove(name).unwrap().stop().await;
        assert_eq!(status.code(), Some(0), "{name} ended with {status}");
    }

    /// The sum of a role's metric (`sluice_...`) over the series that have these labels. 0 while it does not answer.
    pub async fn metric(&self, role: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.metrics(role).sum(name, labels).await
    }

    /// A role's metrics, to be asked for while something else happens to the scenario.
    pub fn metrics(&self, role: &str) -> Metrics {
        Metrics {
            http: self.http.clone(),
            url: format!("http://{}/metrics", self.roles[role].http),
        }
    }

    /// Whether a worker has known how each of its transactions ended: only then are its own counts of outputs exact.
    pub async fn knows_its_outcomes(&self, role: &str) -> bool {
        let mut unknown = 0.0;
        for outcome in ["doubt", "given_up"] {
            unknown += self
                .metric(role, "sluice_transactions_total", &[("outcome", outcome)])
                .await;
        }
        unknown == 0.0
    }

    /// Partitions of all sources.
    pub fn partitions(&self) -> u32 {
        self.pipeline.sources.iter().map(|source| source.partitions).sum()
    }

    /// Waits until a role's metric is at least this.
    pub async fn metric_reaches(&self, role: &str, name: &str, least: f64) {
        until(
            format!("{name} of {role} to reach {least}"),
            SETTLED_WITHIN,
            async || (self.metric(role, name, &[]).await >= least).then_some(()),
        )
        .await;
    }
}
