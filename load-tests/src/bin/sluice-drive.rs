//! `sluice-drive`: drives the example events into Kafka and, if asked, measures how long they take to become visible.
//! Progress goes to standard error, the report as JSON to standard output.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use load_tests::Error;
use load_tests::drive::{self, Burst, Progress, Settings};
use load_tests::latency::{self, Latency, Sampler};
use load_tests::poison::Poison;

/// Drive the five example event types into Kafka, on a fixed schedule.
#[derive(Debug, Parser)]
#[command(name = "sluice-drive")]
struct Arguments {
    /// Take topics, framing and addresses from this pipeline file; without it, each type goes to the topic of its name
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
    /// Kafka brokers, host:port separated by commas; wins over the pipeline file
    #[arg(long)]
    brokers: Option<String>,
    /// Base URL of the registry's Confluent API; wins over the pipeline file
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
    /// Events a second
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
    /// Seconds to drive
    #[arg(long, default_value_t = 60.0)]
    seconds: f64,
    /// Tenants, tenant-00 onwards
    #[arg(long, default_value_t = 50)]
    tenants: u32,
    /// Decides every event; by default another one each time, because the same seed gives the same event ids
    #[arg(long)]
    seed: Option<u64>,
    /// Share of broken events, 0 to 1
    #[arg(long, default_value_t = 0.0)]
    poison: f64,
    /// Kinds of broken events, separated by commas; all kinds unless named
    #[arg(long, value_delimiter = ',', value_name = "KINDS")]
    poison_kinds: Vec<Poison>,
    /// KIND:COUNT:SECONDS, so many broken events in a row, so many seconds after the start
    #[arg(long, value_parser = burst)]
    burst: Option<Burst>,
    /// Write the second schema versions from so many seconds on
    #[arg(long, value_name = "SECONDS")]
    second_version_after: Option<f64>,
    /// Write one line for each acknowledged event to this file
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// ClickHouse's HTTP address: measure publish-to-visible latency; wins over the pipeline file
    #[arg(long, value_name = "URL")]
    clickhouse: Option<String>,
    /// Milliseconds that events wait for others of their partition; several brokers are busy with requests when it is short
    #[arg(long, value_name = "MS")]
    linger: Option<u64>,
    /// Do not measure latency, whatever the pipeline file says
    #[arg(long)]
    no_latency: bool,
    /// Its database; wins over the pipeline file
    #[arg(long)]
    database: Option<String>,
}

#[derive(Debug, serde::Serialize)]
struct Output {
    #[serde(flatten)]
    drive: drive::Report,
    latency_ms: Option<Latency>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// True when Kafka acknowledged everything.
async fn run(arguments: Arguments) -> Result<bool, Error> {
    let (mut settings, sampler) = prepare(&arguments)?;
    settings.samples = sampler.as_ref().map(Sampler::feed);
    let stop = settings.stop.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            stop.store(true, Ordering::Relaxed);
        }
    });
    let driving = tokio::task::spawn_blocking(move || drive::run(settings, &mut show));
    let report = driving.await.map_err(|error| Error::Settings(error.to_string()))??;
    let latency_ms = match sampler {
        Some(sampler) => Some(sampler.finish(Duration::from_secs(10)).await),
        None => None,
    };
    let complete = report.failed == 0;
    let output = serde_json::to_string_pretty(&Output {
        drive: report,
        latency_ms,
    });
    println!("{}", output.map_err(|error| Error::Settings(error.to_string()))?);
    Ok(complete)
}

fn prepare(arguments: &Arguments) -> Result<(Settings, Option<Sampler>), Error> {
    let file = arguments.pipeline.as_deref().map(load).transpose()?;
    let mut settings = match (file, &arguments.brokers, &arguments.registry) {
        (Some(mut pipeline), brokers, registry) => {
            fill_in(&mut pipeline, brokers.as_deref(), registry.as_deref());
            let settings = Settings::for_pipeline(&pipeline)?;
            let sampler = sampler(arguments, Some(&pipeline.connections.clickhouse), &settings)?;
            return Ok((with_arguments(settings, arguments), sampler));
        }
        (None, Some(brokers), Some(registry)) => Settings::new(brokers, registry),
        (None, _, _) => {
            return Err(Error::Settings(
                "give --pipeline FILE, or both --brokers and --registry".to_owned(),
            ));
        }
    };
    let sampler = sampler(arguments, None, &settings)?;
    settings = with_arguments(settings, arguments);
    Ok((settings, sampler))
}

fn load(path: &std::path::Path) -> Result<pipeline::Pipeline, Error> {
    pipeline::load(path).map_err(|faults| {
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Error::Settings(lines.join("\n"))
    })
}

fn fill_in(pipeline: &mut pipeline::Pipeline, brokers: Option<&str>, registry: Option<&str>) {
    if let Some(brokers) = brokers {
        let brokers = brokers.split(',').map(str::to_owned).collect();
        match &mut pipeline.connections.kafka {
            Some(kafka) => kafka.brokers = brokers,
            none => {
                let properties = std::collections::BTreeMap::new();
                *none = Some(pipeline::Kafka {
                    brokers,
                    tls: None,
                    sasl: None,
                    properties,
                });
            }
        }
    }
    if let Some(registry) = registry {
        pipeline.connections.registry.url = Some(registry.to_owned());
    }
}

fn with_arguments(mut settings: Settings, arguments: &Arguments) -> Settings {
    settings.rate = arguments.rate;
    settings.duration = Duration::from_secs_f64(arguments.seconds.max(0.0));
    settings.tenants = arguments.tenants;
    settings.seed = arguments.seed.unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_micros()).unwrap_or(0)
    });
    settings.poison.share = arguments.poison;
    if !arguments.poison_kinds.is_empty() {
        settings.poison.kinds.clone_from(&arguments.poison_kinds);
    }
    settings.burst.clone_from(&arguments.burst);
    settings.second_version_after = arguments
        .second_version_after
        .map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
    settings.record.clone_from(&arguments.record);
    if let Some(linger) = arguments.linger {
        settings.kafka.insert("linger.ms".to_owned(), linger.to_string());
    }
    settings
}

fn sampler(
    arguments: &Arguments,
    clickhouse: Option<&pipeline::ClickHouse>,
    settings: &Settings,
) -> Result<Option<Sampler>, Error> {
    let url = arguments
        .clickhouse
        .clone()
        .or_else(|| clickhouse.and_then(|clickhouse| clickhouse.url.clone()));
    let Some(url) = url.filter(|_| !arguments.no_latency) else {
        return Ok(None);
    };
    let database = arguments
        .database
        .clone()
        .or_else(|| clickhouse.map(|clickhouse| clickhouse.database.clone()));
    let mut sampling = latency::Settings::new(url, database.unwrap_or_else(|| "default".to_owned()));
    if let Some(clickhouse) = clickhouse {
        sampling.user.clone_from(&clickhouse.user);
        if let Some(password) = &clickhouse.password {
            sampling.password = password.read().map_err(|error| Error::Settings(error.to_string()))?;
        }
    }
    sampling.tables = settings.tables();
    Sampler::start(sampling).map(Some)
}

fn show(progress: Progress) {
    eprintln!(
        "{:>4}s  acknowledged {:>9}  poison {:>6}  in flight {:>6}  failed {}  late at most {} ms",
        progress.elapsed.as_secs(),
        progress.acknowledged,
        progress.poison,
        progress.in_flight,
        progress.failed,
        progress.late_ms_max,
    );
}

fn burst(text: &str) -> Result<Burst, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [kind, count, seconds] = parts[..] else {
        return Err("write KIND:COUNT:SECONDS, for example broken:10000:5".to_owned());
    };
    let count = count.parse().map_err(|_| format!("{count} is no count of events"))?;
    let seconds = seconds
        .parse()
        .map_err(|_| format!("{seconds} is no number of seconds"))?;
    Ok(Burst {
        at: Duration::from_secs(seconds),
        kind: kind.parse()?,
        count,
    })
}
