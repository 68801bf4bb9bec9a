//! One family of faults, for a while, on one pipeline: what is the same for all of them. Roles, driver and verifier are
//! processes of their own; the faults come from here.

mod waits;
mod oracle;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::time::{Duration, Instant};

use end_to_end::shop::Rules;
use end_to_end::{Reader, Scenario, run_in, until};
use load_tests::random::Random;
use pipeline::RulesFrom;

use crate::disks::Disks;
use crate::driver::Driver;
use crate::proxy::{Proxy, Wire};
use crate::rig::{Fronts, Rig, before};

/// After the last fault is healed, everything that was written until then is committed within this time.
pub const RECOVERED_WITHIN: Duration = Duration::from_secs(120);
/// For a mutation to be seen.
const RED_WITHIN: Duration = Duration::from_secs(600);
/// A trial begins when a partition of each topic has so many.
const LEAST_EVENTS: i64 = 5;
/// The workers of a trial.
pub const WORKERS: [&str; 2] = ["worker-a", "worker-b"];

/// How a trial runs.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Decides which faults come when.
    pub seed: u64,
    /// Events a second.
    pub rate: f64,
    /// How often each fault of the family is repeated, about.
    pub times: usize,
    /// A third of the faults of those families that take minutes, chosen by the seed.
    pub brief: bool,
}

/// What came of a trial that went well; one that did not has panicked.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Outcome {
    /// Events in the log.
    pub events: u64,
    /// Faults by kind.
    pub faults: BTreeMap<String, u64>,
    /// From healing until all that was there was committed, seconds: the longest.
    pub recovered_s_max: f64,
    /// From the first fault until a later event of each partition was committed, seconds, where that was looked for.
    pub flowing_s: Option<f64>,
    /// Outputs in all sinks, found by the verifier; none differs.
    pub outputs: u64,
    /// Committed ranges, by the audit.
    pub ranges: u64,
}

/// What a trial is of.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// A word for file names and topics.
    pub name: &'static str,
    /// Where the pipeline has its rules from.
    pub rules: Rules,
    /// What the driver is told on top.
    pub drive: &'static [&'static str],
}

/// Runs one trial on a pipeline of its own, and lets `strike` happen to it.
///
/// # Panics
/// When a sink does not hold exactly what it must, or the pipeline does not recover.
pub fn run(rig: &Rig, setup: &Setup, settings: &Settings, strike: impl AsyncFnOnce(&mut Trial<'_, '_>)) -> Outcome {
    run_prepared(rig, setup, settings, |_| {}, strike)
}

/// The same on a pipeline that was changed before anything of it has started.
///
/// # Panics
/// Like [`run`].
pub fn run_prepared(
    rig: &Rig,
    setup: &Setup,
    settings: &Settings,
    prepare: impl FnOnce(&mut Scenario<'_>),
    strike: impl AsyncFnOnce(&mut Trial<'_, '_>),
) -> Outcome {
    let (name, mut outcome) = (format!("{}_{}", setup.name, settings.seed), None);
    run_in(&rig.world, &name, setup.rules, async |scenario| {
        prepare(scenario);
        let (mut trial, driver, reader) = begun(scenario, rig, setup, settings).await;
        strike(&mut trial).await;
        outcome = Some(trial.end(driver, reader).await);
    });
    outcome.unwrap()
}

/// The same with workers that do without something, struck again and again until the verifier that runs along has counted
/// differences of this `kind` (`overlap`), and how many. What else the pipeline does then, and whether it recovers, does not matter.
///
/// # Panics
/// When the verifier counts none.
pub fn run_red(
    rig: &Rig,
    setup: &Setup,
    settings: &Settings,
    (mutation, kind): (Option<&'static str>, &str),
    strike: impl AsyncFn(&mut Trial<'_, '_>),
) -> f64 {
    let (name, mut counted) = (format!("{}_red_{}", setup.name, settings.seed), 0.0);
    run_in(&rig.world, &name, setup.rules, async |scenario| {
        scenario.mutation = mutation;
        let (mut trial, driver, reader) = begun(scenario, rig, setup, settings).await;
        trial.has_to_recover = false;
        let verifier = trial.scenario.metrics("verifier");
        let red = until(format!("the verifier to count {kind}"), RED_WITHIN, async || {
            let counted = verifier.sum("sluice_verify_differences_total", &[("kind", kind)]).await;
            (counted > 0.0).then_some(counted)
        });
        counted = tokio::select! {
            counted = red => counted,
            never = again_and_again(&strike, &mut trial) => match never {},
        };
        drop((driver, reader));
        trial.fronts.heal();
        let roles = trial.scenario.running();
        for role in roles {
            trial.scenario.kill(&role).await;
        }
    });
    counted
}

async fn again_and_again(strike: &impl AsyncFn(&mut Trial<'_, '_>), trial: &mut Trial<'_, '_>) -> Infallible {
    loop {
        strike(trial).await;
    }
}

async fn begun<'a, 'w>(
    scenario: &'a mut Scenario<'w>,
    rig: &'a Rig,
    setup: &Setup,
    settings: &Settings,
) -> (Trial<'a, 'w>, Driver, Reader) {
    let mut trial = Trial::start(scenario, rig, settings).await;
    let reader = Reader::start(trial.scenario);
    let words = ["--rate", "--seed"]
        .into_iter()
        .zip([settings.rate.to_string(), settings.seed.to_string()]);
    let mut words: Vec<String> = words.flat_map(|(word, value)| [word.to_owned(), value]).collect();
    words.extend(setup.drive.iter().map(ToString::to_string));
    let driver = Driver::start(&trial.scenario.dir, "drive", &words);
    until("events in every topic", RECOVERED_WITHIN, async || {
        let ends = trial.scenario.ends().ok()?;
        let begun = |topic: &str| ends.iter().any(|(of, _, end)| of == topic && *end > LEAST_EVENTS);
        let mut sources = trial.scenario.pipeline.sources.iter();
        sources.all(|source| begun(&source.topic)).then_some(())
    })
    .await;
    trial.recovered().await;
    trial.recovered_max = Duration::ZERO;
    (trial, driver, reader)
}

/// A database for the trial's ledger: usage is summed over all pipelines of one.
async fn ledger(postgres: &str, name: &str) -> String {
    let (client, connection) = tokio_postgres::connect(postgres, tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.unwrap();
    drop(client);
    connection.await.unwrap().unwrap();
    let server = postgres.rsplit_once('/').unwrap().0;
    format!("{server}/{name}")
}

/// A pipeline that runs, with faults to come.
#[derive(Debug)]
pub struct Trial<'a, 'w> {
    /// The pipeline with its roles and the real parts.
    pub scenario: &'a mut Scenario<'w>,
    /// The proxies that all trials share.
    pub fronts: &'a Fronts,
    /// The file systems that can be full.
    pub disks: &'a Disks,
    /// The proxy before this pipeline's billing service.
    pub billing: Proxy,
    /// Of this trial's seed.
    pub random: Random,
    /// See [`Settings::times`].
    pub times: usize,
    brief: bool,
    /// Records that somebody else than the driver has written.
    pub more_records: u64,
    /// Not where something is missing that it needs for that.
    pub has_to_recover: bool,
    faults: BTreeMap<String, u64>,
    recovered_max: Duration,
    flowing: Option<Duration>,
    began: Instant,
}

impl<'a, 'w> Trial<'a, 'w> {
    /// Starts the roles; workers reach everything through proxies.
    ///
    /// # Panics
    /// When a role does not start.
    pub async fn start(scenario: &'a mut Scenario<'w>, rig: &'a Rig, settings: &Settings) -> Trial<'a, 'w> {
        // Whatever a trial that has failed has left.
        rig.fronts.heal();
        rig.fronts.all().for_each(Proxy::forget_trouble);
        let port = scenario.billing_url().rsplit(':').next().unwrap().parse().unwrap();
        let billing = before(port, Wire::Bytes).await;
        let text = rig.fronts.pipeline(scenario, &billing);
        scenario.rewrite_for_workers(&text);
        scenario.billing_store = Some(ledger(&scenario.stack.postgres, &scenario.pipeline.name).await);
        scenario.set_the_shop_up().await;
        if matches!(scenario.pipeline.connections.rules, RulesFrom::Service { .. }) {
            scenario.start_config().await;
            let rules = scenario.dir.join("rules").display().to_string();
            scenario.sluice(&["rules", "apply", &rules]).await;
        }
        scenario.start_billing().await;
        for worker in WORKERS {
            scenario.start_worker(worker).await;
        }
        scenario.start_verifier().await;
        Trial {
            scenario,
            fronts: &rig.fronts,
            disks: &rig.disks,
            billing,
            random: Random::new(settings.seed),
            times: settings.times,
            brief: settings.brief,
            more_records: 0,
            has_to_recover: true,
            faults: BTreeMap::new(),
            recovered_max: Duration::ZERO,
            flowing: None,
            began: Instant::now(),
        }
    }

    /// All of these in an order that the seed decides, or, in brief, the first third of that.
    pub fn some<T>(&mut self, mut all: Vec<T>) -> Vec<T> {
        let least = match self.brief {
            true => all.len().div_ceil(3),
            false => all.len(),
        };
        let some = (0..least).map(|_| all.swap_remove(self.random.index(all.len())));
        some.collect()
    }

    /// Notes a fault, as it begins.
    pub fn fault(&mut self, kind: &str) {
        tracing::info!(after_s = self.began.elapsed().as_secs_f64(), "{kind}");
        *self.faults.entry(kind.to_owned()).or_default() += 1;
    }

    /// One of them.
    pub fn worker(&mut self) -> &'static str {
        self.random.pick(&WORKERS)
    }

    /// Lets some time pass in which things go wrong, or right: how long is part of the fault, and nothing is concluded from it.
    pub async fn let_pass(&mut self, millis: std::ops::Range<i64>) {
        let millis = self.random.between(millis.start, millis.end);
        tokio::time::sleep(Duration::from_millis(millis.unsigned_abs())).await;
    }

    /// `ALTER TABLE ...` for every table of the pipeline.
    pub async fn alter_tables(&self, change: &str) {
        for table in &self.scenario.pipeline.tables {
            self.scenario.sql(&format!("ALTER TABLE {} {change}", table.name)).await;
        }
    }
}
