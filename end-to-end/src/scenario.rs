//! One scenario: a pipeline of its own on the shared parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use devstack::Stack;
use load_tests::drive::{Report, Settings};
use pipeline::{Pipeline, RulesFrom};
use tokio::process::Command;
use verify::{Options, RulesRevision, Until};

use crate::ask::{Http, metric, until};
use crate::load::Load;
use crate::role::{Role, free_port, program};
use crate::shop::{self, Addresses, Rules};
use crate::world::{World, runtime};

/// Until everything is committed on a machine that has other things to do, crashes and deadlines included.
const SETTLED_WITHIN: Duration = Duration::from_secs(120);
/// Lines of each log that a failed scenario shows.
const LOG_LINES: usize = 25;

/// See the module. Roles that are left when it ends are stopped, and must exit with 0.
#[derive(Debug)]
pub struct Scenario<'w> {
    /// The real parts: to be stopped, frozen and killed.
    pub stack: &'w mut Stack,
    /// For questions of the scenario's own.
    pub http: Http,
    /// Pipeline file, rules, state and logs.
    pub dir: PathBuf,
    /// The pipeline file, checked.
    pub pipeline: Pipeline,
    name: String,
    roles: BTreeMap<String, Role>,
    config: u16,
    billing: u16,
}

/// Runs a scenario when it is its turn. `name` names pipeline, database and topics, and is used once.
///
/// # Panics
/// When the scenario does, and when a role does not end properly.
pub fn run(name: &str, rules: Rules, test: impl AsyncFnOnce(&mut Scenario<'_>)) {
    run_in(&World::shared(false), name, rules, test);
}

/// The same on a Kafka cluster of three nodes. A test binary has either.
///
/// # Panics
/// Like [`run`].
pub fn run_on_cluster(name: &str, rules: Rules, test: impl AsyncFnOnce(&mut Scenario<'_>)) {
    run_in(&World::shared(true), name, rules, test);
}

fn run_in(world: &Mutex<World>, name: &str, rules: Rules, test: impl AsyncFnOnce(&mut Scenario<'_>)) {
    let mut world = world.lock().unwrap_or_else(PoisonError::into_inner);
    runtime().block_on(async {
        world.mend().await;
        let dir = world.dir.path().join(name);
        // Whoever sees a failure wants to read the logs; a scenario that ends well removes its directory below.
        world.dir.disable_cleanup(true);
        let mut scenario = Scenario::new(&mut world.stack, name, (dir.clone(), rules));
        test(&mut scenario).await;
        for name in scenario.roles.keys().rev().cloned().collect::<Vec<_>>() {
            scenario.stop(&name).await;
        }
        drop(scenario);
        std::fs::remove_dir_all(dir).unwrap();
        // Only the stack's own directory is left when every scenario so far went well.
        let left = std::fs::read_dir(world.dir.path()).unwrap().count();
        world.dir.disable_cleanup(left > 1);
    });
}

impl<'w> Scenario<'w> {
    fn new(stack: &'w mut Stack, name: &str, (dir, rules): (PathBuf, Rules)) -> Scenario<'w> {
        std::fs::create_dir_all(dir.join("rules")).unwrap();
        let (config, billing) = (free_port(), free_port());
        let text = shop::pipeline(
            name,
            &Addresses {
                stack,
                config,
                billing,
                rules,
            },
        );
        let mut scenario = Scenario {
            pipeline: checked(&dir, &text),
            stack,
            http: Http::default(),
            dir,
            name: name.to_owned(),
            roles: BTreeMap::new(),
            config,
            billing,
        };
        scenario.write_rules("default", shop::RULES);
        scenario
    }

    /// Puts another pipeline file in the place of the shop's.
    pub fn rewrite(&mut self, text: &str) {
        self.pipeline = checked(&self.dir, text);
    }

    /// Writes a file of the rules directory.
    pub fn write_rules(&mut self, name: &str, text: &str) {
        std::fs::write(self.dir.join("rules").join(format!("{name}.yaml")), text).unwrap();
    }

    /// Address of the rules service.
    pub fn config_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.config)
    }

    /// Address of the billing service.
    pub fn billing_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.billing)
    }

    /// Runs a command of `sluice` on the pipeline file to its end, and answers what it printed.
    ///
    /// # Panics
    /// When it does not exit with 0.
    pub async fn sluice(&self, words: &[&str]) -> String {
        let (success, out) = self.tried(words).await;
        assert!(success, "sluice {words:?}\n{out}");
        out
    }

    /// The same for a command that has reason to refuse, and what it said.
    ///
    /// # Panics
    /// When it exits with 0.
    pub async fn refused(&self, words: &[&str]) -> String {
        let (success, out) = self.tried(words).await;
        assert!(!success, "sluice {words:?}\n{out}");
        out
    }

    async fn tried(&self, words: &[&str]) -> (bool, String) {
        let file = self.dir.join("pipeline.yaml");
        let done = Command::new(program())
            .args(words)
            .arg("--pipeline")
            .arg(file)
            .output()
            .await
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // Warnings of the log are no part of what a command that succeeds answers.
        let said = if done.status.success() {
            text(&done.stdout)
        } else {
            text(&done.stdout) + &text(&done.stderr)
        };
        (done.status.success(), said)
    }

    /// Registers the first version of the shop's schemas, and makes topics and tables.
    pub async fn set_the_shop_up(&self) {
        self.register_schemas().await;
        self.sluice(&["schema", "apply"]).await;
    }

    /// The first versions of the shop's schemas, into the registry.
    pub async fn register_schemas(&self) {
        let settings = self.load_of(1.0, Duration::from_secs(1), 0);
        for target in &settings.targets {
            load_tests::register::register(&settings.registry, &target.subject, target.event, 1)
                .await
                .unwrap();
        }
    }

    /// Starts `sluice billing` and waits until it is ready.
    pub async fn start_billing(&mut self) {
        self.start("billing", &["billing"], "--http").await;
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
        self.start(name, &["worker", "--name", name], "--listen").await;
    }

    /// Starts a worker of this name that has reason to wait, and answers what `/readyz` says once it says `reason`.
    pub async fn start_waiting_worker(&mut self, name: &str, reason: &str) -> String {
        self.launch(name, &["worker", "--name", name], "--listen");
        self.waits(name, reason).await
    }

    /// What a role's `/readyz` says once it says `reason`.
    pub async fn waits(&self, name: &str, reason: &str) -> String {
        let url = format!("http://{}/readyz", self.roles[name].http);
        until(format!("{name} to say {reason:?}"), SETTLED_WITHIN, async || {
            self.http.body(&url).await.filter(|body| body.contains(reason))
        })
        .await
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
        let file = self.dir.join("pipeline.yaml").display().to_string();
        let http = format!("127.0.0.1:{}", free_port());
        let words = [words, &["--pipeline", file.as_str(), listen, http.as_str()]].concat();
        let role = Role::start(name, &words, (&self.dir, http.clone()));
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
        let url = format!("http://{}/metrics", self.roles[role].http);
        self.http
            .get(&url)
            .await
            .map_or(0.0, |text| metric(&text, name, labels))
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

    /// What ClickHouse answers; tables without a database are the scenario's.
    pub async fn sql(&self, query: &str) -> String {
        let url = format!("{}/?database={}", self.stack.clickhouse, self.name);
        self.http.sql(&url, query).await
    }

    /// What to drive into the shop's topics. Two runs need two seeds.
    pub fn load_of(&self, rate: f64, duration: Duration, seed: u64) -> Settings {
        let mut settings = Settings::for_pipeline(&self.pipeline).unwrap();
        (settings.rate, settings.duration, settings.seed) = (rate, duration, seed);
        settings.tenants = 8;
        settings
    }

    /// Begins to drive.
    pub fn drive(&self, settings: Settings) -> Load {
        Load::start(settings)
    }

    /// What the verifier is to look at: everything, once it is settled, with the rules of the directory.
    pub fn options(&self) -> Options {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.dir.join("rules"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let read = |file: &PathBuf| (file.display().to_string(), std::fs::read_to_string(file).unwrap());
        let mut options = Options::of(&self.pipeline);
        options.until = Until::Settled(SETTLED_WITHIN);
        if self.pipeline.connections.rules == RulesFrom::None {
            return options;
        }
        options.rules = RulesRevision {
            number: 0,
            documents: files.iter().map(read).collect(),
        };
        options
    }

    /// Every sink has exactly what was driven, by id and content; and the log has exactly what the driver says.
    ///
    /// # Panics
    /// When anything is lost, doubled, altered or unexpected; shows the whole report.
    pub async fn verified(&self, driven: &[&Report]) -> verify::Report {
        self.verified_by(self.options(), driven).await
    }

    /// The same, with options of the scenario's own.
    ///
    /// # Panics
    /// Like [`Scenario::verified`].
    pub async fn verified_by(&self, options: Options, driven: &[&Report]) -> verify::Report {
        let report = verify::run(&self.pipeline, options).await.unwrap();
        assert!(report.clean(), "{report}");
        let poison: u64 = driven.iter().flat_map(|driven| driven.poison.values()).sum();
        let good: u64 = driven.iter().map(|driven| driven.produced).sum();
        assert_eq!(report.produced, good + poison, "records in the log\n{report}");
        assert!(report.ranges > 0, "the audit has ranges\n{report}");
        report
    }

    /// The number that ClickHouse answers.
    pub async fn number(&self, query: &str) -> u64 {
        let text = self.sql(query).await;
        text.parse().unwrap_or_else(|_| panic!("{query} answered {text}"))
    }
}

impl Drop for Scenario<'_> {
    /// A scenario that fails shows the last lines of its roles.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        eprintln!(
            "scenario {} failed; its files stay in {}",
            self.name,
            self.dir.display()
        );
        for role in self.roles.values() {
            let text = std::fs::read_to_string(&role.log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}", role.log.display());
            lines[lines.len().saturating_sub(LOG_LINES)..]
                .iter()
                .for_each(|line| eprintln!("{line}"));
        }
    }
}

fn checked(dir: &std::path::Path, text: &str) -> Pipeline {
    let file = dir.join("pipeline.yaml");
    std::fs::write(&file, text).unwrap();
    let faults = |faults: Vec<_>| format!("{faults:#?}");
    pipeline::load(&file).map_err(faults).unwrap()
}
