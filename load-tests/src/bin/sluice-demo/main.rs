//! `sluice-demo`: the whole product on real parts, with one command. It starts a stack and every role as programs of
//! their own, drives a live load, shows what happens, drains, verifies every sink against the log, and exits with 0
//! only if nothing was lost, duplicated or altered.

mod roles;
mod show;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::Parser;
use load_tests::drive::{self, Progress};
use load_tests::latency::{self, Latency, Sampler};
use roles::Roles;
use serde::Serialize;
use show::Screen;

/// Run Sluice on real Kafka, registry, ClickHouse and billing, under load, and prove that every event arrived once.
#[derive(Debug, Parser, Clone)]
#[command(name = "sluice-demo")]
struct Arguments {
    /// How long to drive, for example 60s or 5m
    #[arg(long, default_value = "60s", value_parser = duration)]
    duration: Duration,
    /// Events a second
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Tenants
    #[arg(long, default_value_t = 50)]
    tenants: u32,
    /// Leave everything running afterwards
    #[arg(long)]
    keep: bool,
    /// End what an earlier run with --keep left running, and do nothing else
    #[arg(long)]
    stop: bool,
    /// Kill and restart workers on the way
    #[arg(long)]
    kill: bool,
    /// Where data, logs and the report go; what an earlier run left there is moved to DIR.earlier, and removed by a run ten minutes later
    #[arg(long, default_value = ".sluice/demo")]
    dir: PathBuf,
    /// The example whose pipeline and rules are used
    #[arg(long, default_value = "examples/shop")]
    example: PathBuf,
}

/// What `.sluice/demo/report.json` holds.
#[derive(Debug, Serialize)]
struct Report {
    produced: u64,
    clickhouse_rows: u64,
    alerts: u64,
    charges: u64,
    dead_letters: u64,
    lost: u64,
    duplicated: u64,
    altered: u64,
    unexpected: u64,
    gap: u64,
    overlap: u64,
    miscounted: u64,
    events_per_second: f64,
    latency_ms: Milliseconds,
    /// Events that were due earlier than this, in seconds, are not in `latency_ms`: broker and ClickHouse warm up.
    latency_from_s: f64,
    /// Workers killed and restarted on the way.
    kills: u64,
    /// What decides every event.
    seed: u64,
    examples: Vec<String>,
}

/// From publish to visible to a SELECT.
#[derive(Debug, Serialize)]
struct Milliseconds {
    p50: u64,
    p95: u64,
    p99: u64,
    max: u64,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

fn main() -> ExitCode {
    if let Some(done) = devstack::hidden_main(std::env::args_os()) {
        return done;
    }
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("demo: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len()));
    let number: f64 = number
        .parse()
        .map_err(|_| format!("`{text}` is not a duration such as 60s or 5m"))?;
    let seconds = match unit {
        "" | "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("`{unit}` is not a unit; use s, m or h")),
    };
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

async fn run(arguments: Arguments) -> Outcome<bool> {
    let ended = roles::end_kept(&arguments.dir).await?;
    if arguments.stop {
        println!("{}", if ended { "stopped" } else { "nothing was running" });
        return Ok(true);
    }
    let began = Instant::now();
    let earlier = Earlier::of(&arguments.dir);
    prepare(&arguments, &earlier)?;
    println!(
        "starting Kafka, the schema registry and ClickHouse in {}",
        arguments.dir.display()
    );
    let stack = devstack::up(devstack::Options::new(arguments.dir.join("stack"))).await?;
    let pipeline_file = arguments.dir.join("pipeline.yaml");
    let mut roles = Roles::new(&arguments.dir)?;
    let pipeline = roles::pipeline(&pipeline_file, &stack)?;
    let settings = drive_settings(&arguments, &pipeline)?;
    for target in &settings.targets {
        load_tests::register::register(&settings.registry, &target.subject, target.event, 1).await?;
    }
    roles.tool(&["schema", "apply"]).await?;
    roles.start("config").await?;
    roles
        .tool(&["rules", "apply", &arguments.dir.join("rules").display().to_string()])
        .await?;
    roles.start("billing").await?;
    roles.start("worker").await?;
    println!(
        "everything runs after {:.1} s; driving {} events/s for {:?}\n",
        began.elapsed().as_secs_f64(),
        arguments.rate,
        arguments.duration
    );

    let outcome = drive_and_verify(&arguments, &mut roles, settings, &pipeline).await;
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            roles.stop_all().await;
            stack.down().await?;
            earlier.remove_old();
            return Err(error);
        }
    };
    let path = arguments.dir.join("report.json");
    std::fs::write(&path, serde_json::to_string_pretty(&report)?)?;
    show::summary(&report, &path);
    if arguments.keep {
        show::what_next(&pipeline, &pipeline_file, &arguments.dir);
        roles.keep()?;
        stack.keep().await?;
    } else {
        roles.stop_all().await;
        stack.down().await?;
    }
    earlier.remove_old();
    Ok(report.right())
}

/// How long what an earlier demo left stays: longer than filesystems remember that a file was removed.
const EARLIER_STAYS: Duration = Duration::from_secs(600);

/// Where the directories of earlier demos wait to be removed, named after the second (Unix time) in which they were put there.
/// One demo leaves 25,000 files. Removed at once, they would make some machines slow for the next one:
/// `docs/decisions/0013-files-that-were-removed.md`.
struct Earlier(PathBuf);

impl Earlier {
    fn of(dir: &Path) -> Earlier {
        let mut name = dir.file_name().unwrap_or_default().to_owned();
        name.push(".earlier");
        Earlier(dir.with_file_name(name))
    }

    fn take(&self, dir: &Path) -> Outcome<()> {
        if dir.exists() {
            std::fs::create_dir_all(&self.0)?;
            std::fs::rename(dir, self.0.join(unix_seconds()?.to_string()))?;
        }
        Ok(())
    }

    /// What could not be removed is told, and no fault of the demo's.
    fn remove_old(&self) {
        if self.0.exists()
            && let Err(error) = self.removed()
        {
            eprintln!(
                "demo: {} of earlier demos could not be removed: {error}",
                self.0.display()
            );
        }
    }

    fn removed(&self) -> Outcome<()> {
        let newest = unix_seconds()?.saturating_sub(EARLIER_STAYS.as_secs());
        for entry in std::fs::read_dir(&self.0)? {
            let entry = entry?;
            let since: Option<u64> = entry.file_name().to_str().and_then(|name| name.parse().ok());
            if since.is_some_and(|since| since <= newest) {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}

fn unix_seconds() -> Outcome<u64> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Ok(since.as_secs())
}

/// A directory with the example's files, complete with what the demo adds: the rules service, earliest start.
fn prepare(arguments: &Arguments, earlier: &Earlier) -> Outcome<()> {
    if !arguments.example.join("pipeline.yaml").exists() {
        return Err(format!(
            "{} has no pipeline.yaml; run the demo from the clone",
            arguments.example.display()
        )
        .into());
    }
    earlier.take(&arguments.dir)?;
    let rules = arguments.dir.join("rules");
    std::fs::create_dir_all(&rules)?;
    for entry in std::fs::read_dir(arguments.example.join("rules"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), rules.join(entry.file_name()))?;
    }
    let text = std::fs::read_to_string(arguments.example.join("pipeline.yaml"))?;
    let text = text.replace("{dir: ./rules}", "{url: \"http://127.0.0.1:7300\"}");
    std::fs::write(arguments.dir.join("pipeline.yaml"), text)?;
    Ok(())
}

fn drive_settings(arguments: &Arguments, pipeline: &pipeline::Pipeline) -> Outcome<drive::Settings> {
    let mut settings = drive::Settings::for_pipeline(pipeline)?;
    settings.rate = arguments.rate;
    settings.duration = arguments.duration;
    settings.tenants = arguments.tenants;
    settings.seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)?
        .as_nanos() as u64;
    // A few broken records, so that there are dead letters to see.
    settings.poison = load_tests::poison::Mix {
        share: 0.001,
        ..load_tests::poison::Mix::default()
    };
    Ok(settings)
}

async fn drive_and_verify(
    arguments: &Arguments,
    roles: &mut Roles,
    mut settings: drive::Settings,
    pipeline: &pipeline::Pipeline,
) -> Outcome<Report> {
    let clickhouse = pipeline.connections.clickhouse.url.clone().unwrap_or_default();
    let mut looking = latency::Settings::new(clickhouse, &pipeline.connections.clickhouse.database);
    looking.tables = settings.tables();
    let sampler = Sampler::start(looking)?;
    settings.samples = Some(sampler.feed());
    settings.samples_per_second = 20.0;
    settings.samples_after = warm_up(arguments.duration);
    let seed = settings.seed;
    let progress: Arc<Mutex<Option<Progress>>> = Arc::default();
    let latest = Arc::clone(&progress);
    let driving = tokio::task::spawn_blocking(move || {
        drive::run(settings, &mut |now| {
            *latest.lock().unwrap_or_else(PoisonError::into_inner) = Some(now)
        })
    });

    let mut screen = Screen::new(pipeline);
    let mut kills = 0;
    let mut next_kill = Instant::now() + arguments.duration / 4;
    while !driving.is_finished() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let at = progress.lock().unwrap_or_else(PoisonError::into_inner).clone();
        screen.line(at.as_ref(), &sampler.so_far()).await;
        roles.check()?;
        let over = at.is_some_and(|at| at.elapsed + Duration::from_secs(5) > arguments.duration);
        if arguments.kill && Instant::now() >= next_kill && !over {
            kills += 1;
            next_kill = Instant::now() + arguments.duration / 4;
            println!("-- SIGKILL to the worker, then a new one");
            roles.kill("worker").await;
            screen.worker_began_anew();
            roles.start("worker").await?;
        }
    }
    let driven = driving.await??;
    if driven.failed > 0 {
        return Err(format!("Kafka refused {} events: {:?}", driven.failed, driven.last_failure).into());
    }
    println!(
        "\n{} events acknowledged by Kafka; draining and verifying",
        acknowledged(&driven)
    );
    let latency = sampler.finish(Duration::from_secs(60)).await;
    let verified = verify(pipeline).await?;
    Ok(report(&driven, &latency, verified, (kills, seed, arguments.duration)))
}

async fn verify(pipeline: &pipeline::Pipeline) -> Outcome<verify::Report> {
    let mut options = verify::Options::of(pipeline);
    options.until = verify::Until::Settled(Duration::from_secs(120));
    options.rules = roles::newest_rules(pipeline).await?;
    Ok(verify::run(pipeline, options).await?)
}

/// How long a system that has just started warms up: its latency is measured afterwards.
fn warm_up(duration: Duration) -> Duration {
    (duration / 4).min(Duration::from_secs(10))
}

impl Report {
    /// Every event is in every sink exactly once, and the audit says so.
    fn right(&self) -> bool {
        self.lost + self.duplicated + self.altered + self.unexpected + self.gap + self.overlap + self.miscounted == 0
    }
}

/// Everything that Kafka acknowledged: records that are broken on purpose are produced, too.
fn acknowledged(driven: &drive::Report) -> u64 {
    driven.produced + driven.poison.values().sum::<u64>()
}

fn report(
    driven: &drive::Report,
    latency: &Latency,
    verified: verify::Report,
    (kills, seed, duration): (u64, u64, Duration),
) -> Report {
    // What the verifier never saw in the log although Kafka had acknowledged it is lost, too.
    let produced = acknowledged(driven);
    let vanished = produced.saturating_sub(verified.produced);
    Report {
        produced,
        clickhouse_rows: verified.clickhouse_rows,
        alerts: verified.alerts,
        charges: verified.charges,
        dead_letters: verified.dead_letters,
        lost: verified.lost + vanished + latency.unseen,
        duplicated: verified.duplicated,
        altered: verified.altered,
        unexpected: verified.unexpected,
        gap: verified.gap,
        overlap: verified.overlap,
        miscounted: verified.miscounted,
        events_per_second: driven.events_per_second,
        latency_ms: Milliseconds {
            p50: latency.p50,
            p95: latency.p95,
            p99: latency.p99,
            max: latency.max,
        },
        latency_from_s: warm_up(duration).as_secs_f64(),
        kills,
        seed,
        examples: verified.examples,
    }
}

/// The directory that a path stands in, as text for the screen.
fn shown(path: &Path) -> String {
    path.display().to_string()
}
