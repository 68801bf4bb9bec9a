//! Sluice beside Kafka Streams, in turn on the same broker and the same full topic: both decode every event, keep the payments, and write them
//! to a Kafka topic in transactions. Kafka Streams writes them as they came; Sluice, whose rule for it is an alert, as JSON.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use devstack::Part;
use load_tests::envelope;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::arguments::at_least_one;
use crate::cpu;
use crate::error::Error;
use crate::peers::{Run, grown, line, median, spent};
use crate::role::Role;
use crate::stand::{DIFFERENT, Stand};

const PEER: &str = include_str!("../peers/KafkaStreamsPeer.java");
const POM: &str = include_str!("../peers/pom.xml");
/// A peer that says nothing for as long has failed; it says how far it is every 100 ms.
const PATIENCE: Duration = Duration::from_secs(120);

/// How much of it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Events in the topic
    #[arg(long, default_value_t = 3_000_000, value_parser = at_least_one())]
    pub events: usize,
    /// Tenants, each with the same two rules
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    pub tenants: usize,
    /// Runs of each, in turn; the median counts
    #[arg(long, default_value_t = 3, value_parser = at_least_one())]
    pub runs: usize,
}

/// What all runs gave.
#[derive(Debug)]
pub struct Figures {
    streams: Vec<Run>,
    sluice: Vec<Run>,
}

impl Figures {
    /// How many times Sluice's CPU for an event Kafka Streams takes, brokers included; medians.
    pub fn cpu_ratio(&self) -> f64 {
        let of = |runs: &[Run]| median(runs.iter().map(Run::total_us).collect());
        of(&self.streams) / of(&self.sluice)
    }
}

async fn done(command: &mut Command, what: &str) -> Result<(), Error> {
    let done = command
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(Error::io(Path::new(what)))?;
    match done.status.success() {
        true => Ok(()),
        false => {
            let said = [done.stdout, done.stderr].concat();
            Err(Error::Failed(format!("{what}:\n{}", String::from_utf8_lossy(&said))))
        }
    }
}

/// The peer, compiled, and what it is run with. Kept in the cache.
async fn built() -> Result<PathBuf, Error> {
    let cache = devstack::cache_dir();
    let home = cache.join("bench").join("kafka-streams-4.3.1");
    std::fs::create_dir_all(&home).map_err(Error::io(&home))?;
    let (pom, source) = (home.join("pom.xml"), home.join("KafkaStreamsPeer.java"));
    std::fs::write(&pom, POM).map_err(Error::io(&pom))?;
    std::fs::write(&source, PEER).map_err(Error::io(&source))?;
    let option = |name: &str, path: PathBuf| format!("-D{name}={}", path.display());
    let mut maven = Command::new("mvn");
    maven
        .args(["-B", "-q", "-ntp", "-f"])
        .arg(&pom)
        .arg(option("maven.repo.local", home.join("m2")))
        .arg("org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(option("outputDirectory", home.join("lib")));
    done(&mut maven, "mvn").await?;
    let mut javac = Command::new("javac");
    let libraries = format!("{}/*", home.join("lib").display());
    javac
        .args(["-cp", &libraries, "-d"])
        .arg(home.join("classes"))
        .arg(&source);
    done(&mut javac, "javac (Kafka Streams needs a JDK)").await?;
    Ok(home)
}

fn broker(stand: &Stand) -> Result<BTreeMap<&'static str, Duration>, Error> {
    Ok(BTreeMap::from([("kafka", stand.cpu(Part::Kafka)?)]))
}

async fn kafka_streams(stand: &Stand, home: &Path, options: Options, number: usize) -> Result<Run, Error> {
    let dir = stand.dir.path().join(format!("streams_{number}"));
    std::fs::create_dir_all(&dir).map_err(Error::io(&dir))?;
    let schema = dir.join("envelope.avsc");
    std::fs::write(&schema, envelope::SCHEMA).map_err(Error::io(&schema))?;
    let before = broker(stand)?;
    let path = format!("{0}/classes:{0}/lib/*", home.display());
    let mut child = Command::new("java")
        .args(["-Xms512m", "-Xmx512m", "-cp", &path, "KafkaStreamsPeer"])
        .args([&stand.stack.kafka, "events", &format!("filtered_{number}.alerts")])
        .arg(options.events.to_string())
        .args([&schema, &dir])
        .arg(format!("streams_{number}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::io(Path::new("java")))?;
    let pid = child.id().unwrap_or_default();
    let failed = |reason: &str| Error::Failed(format!("Kafka Streams {reason}"));
    let mut lines = BufReader::new(child.stdout.take().ok_or_else(|| failed("has no output"))?).lines();
    let mut seen = 0;
    let mut looks = Vec::new();
    let kept = loop {
        let line = tokio::time::timeout(PATIENCE, lines.next_line())
            .await
            .map_err(|_| failed("says nothing any more"))?;
        let line = line
            .map_err(Error::io(Path::new("java")))?
            .ok_or_else(|| failed("has ended"))?;
        match line.split_once(' ') {
            Some(("seen", number)) => {
                seen = number.parse::<u64>().unwrap_or(seen);
                looks.push((std::time::Instant::now(), seen));
            }
            Some(("kept", number)) => break number.parse::<usize>().unwrap_or(0),
            _ => {}
        }
    };
    let rate = rate(&looks, options.events);
    let mut after = broker(stand)?;
    after.insert("streams", cpu::of_process(pid)?);
    drop(child.stdin.take());
    if !child.wait().await.map_err(Error::io(Path::new("java")))?.success() || kept == 0 {
        return Err(failed("did not end well"));
    }
    Ok(Run {
        rate,
        cpu_us: spent(&before, &after, options.events),
        rows_an_insert: None,
    })
}

/// Events a second from the first tenth to the last look.
#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(looks: &[(std::time::Instant, u64)], events: usize) -> f64 {
    let first = looks.iter().find(|(_, seen)| *seen >= events as u64 / 10);
    match (first, looks.last()) {
        (Some((began, from)), Some((ended, to))) if to > from => {
            (to - from) as f64 / ended.duration_since(*began).as_secs_f64().max(0.001)
        }
        _ => 0.0,
    }
}

async fn sluice(stand: &Stand, options: Options, number: usize) -> Result<Run, Error> {
    let name = format!("filtered_{number}");
    let dir = stand.filter(&name, options.tenants).await?;
    let before = broker(stand)?;
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    let rate = grown(options.events, async || {
        worker.alive()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        Ok(worker.metric("sluice_records_committed_total").await as u64)
    })
    .await?;
    let kept = worker.metric("sluice_alerts_total").await;
    let mut after = broker(stand)?;
    after.insert("worker", worker.cpu()?);
    worker.stop().await?;
    if kept < 1.0 {
        return Err(Error::Failed("Sluice has kept no event".to_owned()));
    }
    Ok(Run {
        rate,
        cpu_us: spent(&before, &after, options.events),
        rows_an_insert: None,
    })
}

/// Runs each in turn.
///
/// # Errors
/// When the peer cannot be built, or a part, the peer or a role fails.
pub async fn measure(options: Options, mut told: impl FnMut(&str, &Run)) -> Result<Figures, Error> {
    let home = built().await?;
    let stand = Stand::up().await?;
    stand.fill(options.events, DIFFERENT, options.tenants).await?;
    let mut figures = Figures {
        streams: Vec::new(),
        sluice: Vec::new(),
    };
    for number in 0..options.runs.max(1) {
        // Makes the topic that both write to.
        stand.filter(&format!("filtered_{number}"), options.tenants).await?;
        let run = kafka_streams(&stand, &home, options, number).await?;
        told("Kafka Streams", &run);
        figures.streams.push(run);
        let run = sluice(&stand, options, number).await?;
        told("Sluice", &run);
        figures.sluice.push(run);
    }
    stand.down().await?;
    Ok(figures)
}

/// Measures and prints.
///
/// # Errors
/// Like [`measure`].
pub async fn run(options: Options) -> Result<(), Error> {
    let figures = measure(options, |name, run| println!("{}", line(name, run))).await?;
    println!(
        "medians of {}: Sluice takes 1/{:.2} of Kafka Streams' CPU for an event",
        options.runs,
        figures.cpu_ratio()
    );
    Ok(())
}
