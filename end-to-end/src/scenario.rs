//! One scenario: a pipeline of its own on the shared parts.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use devstack::Stack;
use load_tests::drive::{Report, Settings};
use pipeline::{Pipeline, RulesFrom};
use tokio::process::Command;
use verify::{Options, RulesRevision, Until};

use crate::ask::{Http, until};
use crate::clock::Clock;
use crate::load::Load;
use crate::role::{Role, free_port, program};
use crate::shop::{self, Addresses, Rules};
use crate::world::{World, runtime};

mod roles;

pub use roles::{Metrics, Worker};

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
    pub(crate) roles: BTreeMap<String, Role>,
    config: u16,
    billing: u16,
    /// Where the billing service keeps its ledger; `None`: SQLite in its state directory.
    pub billing_store: Option<String>,
    /// What workers that start from now on do without (`crash_points::Mutation`): they are of the program that can.
    pub mutation: Option<&'static str>,
    /// The clock of workers that start from now on, where not the machine's.
    pub clock: Option<Arc<Clock>>,
    /// What workers read instead of `pipeline.yaml`: the same with other addresses.
    worker_file: Option<PathBuf>,
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

/// The same in a world of the caller's own.
///
/// # Panics
/// Like [`run`].
pub fn run_in(world: &Mutex<World>, name: &str, rules: Rules, test: impl AsyncFnOnce(&mut Scenario<'_>)) {
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
        // A role that was killed may still be writing.
        until(format!("{} to be removed", dir.display()), SETTLED_WITHIN, async || {
            std::fs::remove_dir_all(&dir).ok()
        })
        .await;
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
            billing_store: None,
            mutation: None,
            clock: None,
            worker_file: None,
        };
        scenario.write_rules("default", shop::RULES);
        scenario
    }

    /// Puts another pipeline file in the place of the shop's.
    pub fn rewrite(&mut self, text: &str) {
        self.pipeline = checked(&self.dir, text);
    }

    /// Gives workers a pipeline file of their own, with addresses that lead through something.
    pub fn rewrite_for_workers(&mut self, text: &str) {
        let file = self.dir.join("worker.yaml");
        std::fs::write(&file, text).unwrap();
        self.worker_file = Some(file);
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
        let done = Command::new(program("sluice"))
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
