//! Events at a given rate, phase after phase: how long each takes from the moment when it was due until a SELECT sees it, how far the worker
//! falls behind, and how much memory it has. With a ClickHouse that stands still for a while, if that is wished.

use std::str::FromStr;
use std::time::{Duration, Instant};

use devstack::Part;
use load_tests::envelope::{Paced, Phase};
use load_tests::latency::{self, Latency, Sampler};

use crate::arguments::at_least_one;
use crate::error::Error;
use crate::guarantees::Guarantee;
use crate::role::{Role, free_address};
use crate::shop::PARTITIONS;
use crate::stand::{DIFFERENT, Stand, payloads};

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Until what was written is committed.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);
/// Caches fill, code is compiled, partitions are read for the first time: not sampled.
const WARM_UP: Duration = Duration::from_secs(5);
/// Until the worker has all partitions.
const OWNED_WITHIN: Duration = Duration::from_secs(60);
/// Until the last samples are seen.
const SEEN_WITHIN: Duration = Duration::from_secs(60);
/// A worker that is no further behind is back at its base.
const BASE_SECONDS: f64 = 1.0;

/// What is driven.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Events a second and seconds, phase after phase
    #[arg(long, value_name = "RATE:SECONDS,...", default_value = "10000:60")]
    pub phases: Phases,
    /// Tenants, each with five rules of its own
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    pub tenants: usize,
    /// ClickHouse stands still (SIGSTOP) after so many seconds, for so many
    #[arg(long, value_name = "AFTER:SECONDS")]
    pub pause_clickhouse: Option<Pause>,
    /// Without the gRPC sink, and with this guarantee
    #[arg(long)]
    pub guarantee: Option<Guarantee>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `RATE:SECONDS,...`
#[derive(Debug, Clone)]
pub struct Phases(pub Vec<Phase>);

impl FromStr for Phases {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let phase = |text: &str| {
            let (rate, seconds) = pair(text)?;
            Ok(Phase {
                rate,
                duration: Duration::from_secs_f64(seconds),
            })
        };
        text.split(',').map(phase).collect::<Result<_, String>>().map(Phases)
    }
}

/// `AFTER:SECONDS`
#[derive(Debug, Clone, Copy)]
pub struct Pause {
    after: Duration,
    long: Duration,
}

impl FromStr for Pause {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (after, long) = pair(text)?;
        Ok(Self {
            after: Duration::from_secs_f64(after),
            long: Duration::from_secs_f64(long),
        })
    }
}

fn pair(text: &str) -> Result<(f64, f64), String> {
    let wrong =
        || format!("`{text}` is not understood; write two numbers above 0 with a colon between, such as 10000:60");
    let (one, other) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| {
        text.parse::<f64>()
            .ok()
            .filter(|number| number.is_finite() && *number > 0.0)
    };
    Ok((number(one).ok_or_else(wrong)?, number(other).ok_or_else(wrong)?))
}

/// What one phase was like.
#[derive(Debug, Clone, serde::Serialize)]
pub struct PhaseFigures {
    /// Events a second.
    pub rate: f64,
    /// How many seconds of this rate the worker was behind at most.
    pub behind_s_max: f64,
    /// From the phase's begin until it was less than a second behind and stayed so; none if it did not get there.
    pub back_after_s: Option<f64>,
}

/// What a run was like.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Figures {
    /// From due to queryable, ms.
    pub latency_ms: Latency,
    /// What was written.
    pub written: Paced,
    /// Phase by phase.
    pub phases: Vec<PhaseFigures>,
    /// From the last event until all were committed.
    pub drained_s: f64,
    /// Memory of the worker at most, MiB.
    pub memory_mib_max: f64,
    /// While ClickHouse stood still: after a third of the time, and at its end.
    pub memory_mib_paused: Option<(f64, f64)>,
    /// Rows in the table.
    pub rows: u64,
}

/// A look at the worker: seconds since the begin, records behind, MiB.
type Look = (f64, f64, f64);

async fn owned(worker: &mut Role) -> Result<(), Error> {
    let began = Instant::now();
    while worker.metric("sluice_partitions_owned").await < count(PARTITIONS as u64) {
        worker.alive()?;
        if began.elapsed() > OWNED_WITHIN {
            return Err(Error::Failed(format!(
                "the worker has not got all partitions within {OWNED_WITHIN:?}"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

/// Watches until told to stop.
async fn watch(worker: &mut Role, began: Instant, looks: &mut Vec<Look>) -> Result<(), Error> {
    loop {
        worker.alive()?;
        let (now, _) = worker.memory_mib()?;
        if let Some(lag) = worker.told("sluice_lag_records").await {
            looks.push((began.elapsed().as_secs_f64(), lag, now));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn pause(stand: &Stand, pause: Option<Pause>) -> Result<(), Error> {
    if let Some(pause) = pause {
        tokio::time::sleep(pause.after).await;
        stand.stack.pause(Part::ClickHouse)?;
        tokio::time::sleep(pause.long).await;
        stand.stack.resume(Part::ClickHouse)?;
    }
    Ok(())
}

/// Phase by phase, from looks.
fn by_phase(phases: &[Phase], looks: &[Look]) -> Vec<PhaseFigures> {
    let mut begin = 0.0;
    let figures = phases.iter().map(|phase| {
        let end = begin + phase.duration.as_secs_f64();
        let within: Vec<&Look> = looks.iter().filter(|look| (begin..end).contains(&look.0)).collect();
        let behind = |look: &&Look| look.1 / phase.rate;
        let last_behind = within.iter().rposition(|look| behind(look) >= BASE_SECONDS);
        // Nothing is known of a phase in which the worker told nothing: that is no good figure.
        let most = match within.is_empty() {
            true => f64::INFINITY,
            false => within.iter().map(behind).fold(0.0, f64::max),
        };
        let back = match last_behind {
            None if within.is_empty() => None,
            None => Some(0.0),
            Some(at) => within.get(at + 1).map(|look| look.0 - begin),
        };
        begin = end;
        PhaseFigures {
            rate: phase.rate,
            behind_s_max: most,
            back_after_s: back,
        }
    });
    figures.collect()
}

/// ClickHouse has to go on before the last event: what comes after is in no figure.
fn fits(options: &Options) -> Result<(), Error> {
    let all: Duration = options.phases.0.iter().map(|phase| phase.duration).sum();
    match options.pause_clickhouse {
        Some(Pause { after, long }) if after + long > all => Err(Error::Failed(format!(
            "--pause-clickhouse {}:{} ends after --phases, which are over in {} s",
            after.as_secs_f64(),
            long.as_secs_f64(),
            all.as_secs_f64()
        ))),
        _ => Ok(()),
    }
}

/// Drives and watches, on parts of its own.
///
/// # Errors
/// When a part or a role fails, an event is missing in the table, or ClickHouse would stand still for longer than there are events.
pub async fn measure(options: &Options) -> Result<Figures, Error> {
    fits(options)?;
    let stand = Stand::up().await?;
    let figures = measure_on(&stand, "flow", options).await?;
    stand.down().await?;
    Ok(figures)
}

/// The same on parts that run: a pipeline of this name, with a topic of its own.
///
/// # Errors
/// Like [`measure`].
pub async fn measure_on(stand: &Stand, name: &str, options: &Options) -> Result<Figures, Error> {
    let source = format!("{name}_events");
    let topic = stand.topic(&source).await?;
    let billing = free_address()?;
    let (dir, billing) = match options.guarantee {
        None => {
            let dir = stand
                .pipeline((name, &source), &format!("http://{billing}"), options.tenants)
                .await?;
            let billing = Role::start(&dir, "billing", "--http").await?;
            (dir, Some(billing))
        }
        Some(guarantee) => (
            stand.guaranteed((name, &source), guarantee, options.tenants).await?,
            None,
        ),
    };
    let mut worker = Role::start(&dir, "worker", "--listen").await?;
    owned(&mut worker).await?;
    let mut sampling = latency::Settings::new(stand.stack.clickhouse.clone(), name);
    sampling.tables.insert(source, "events".to_owned());
    sampling.give_up = DRAINED_WITHIN;
    sampling.poll = Duration::from_millis(50);
    let sampler = Sampler::start(sampling)?;
    let (phases, feed) = (options.phases.0.clone(), sampler.feed());
    let payloads = payloads(DIFFERENT, options.tenants);
    let began = Instant::now();
    let mut looks = Vec::new();
    let driven = topic.with(move |filling| filling.pace(&payloads, &phases, WARM_UP, Some(feed)));
    let written = tokio::select! {
        written = async { tokio::try_join!(driven, pause(stand, options.pause_clickhouse)) } => written?.0,
        failed = watch(&mut worker, began, &mut looks) => return Err(failed.err().unwrap_or_else(|| Error::Failed("the watch has ended".to_owned()))),
    };
    let all = Instant::now();
    while worker.metric("sluice_records_committed_total").await < count(written.acknowledged) {
        worker.alive()?;
        if all.elapsed() > DRAINED_WITHIN {
            return Err(Error::Failed(format!(
                "not all of {} events within {DRAINED_WITHIN:?}",
                written.acknowledged
            )));
        }
        tokio::time::sleep(LOOK_EVERY / 5).await;
    }
    let drained_s = all.elapsed().as_secs_f64();
    let latency_ms = sampler.finish(SEEN_WITHIN).await;
    let rows = stand.number(&format!("SELECT count() FROM {name}.events")).await?;
    let (_, memory_mib_max) = worker.memory_mib()?;
    worker.stop().await?;
    if let Some(billing) = billing {
        billing.stop().await?;
    }
    if rows != written.acknowledged {
        return Err(Error::Failed(format!("{rows} rows of {} events", written.acknowledged)));
    }
    let memory_mib_paused = options.pause_clickhouse.map(|pause| {
        let at = |share: f64| {
            let moment = pause.after.as_secs_f64() + pause.long.as_secs_f64() * share;
            let look = looks.iter().take_while(|look| look.0 <= moment).last();
            look.map_or(0.0, |look| look.2)
        };
        (at(0.33), at(1.0))
    });
    Ok(Figures {
        latency_ms,
        written,
        phases: by_phase(&options.phases.0, &looks),
        drained_s,
        memory_mib_max,
        memory_mib_paused,
        rows,
    })
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

/// Measures and prints.
///
/// # Errors
/// Like [`measure`].
pub async fn run(options: Options) -> Result<(), Error> {
    let figures = measure(&options).await?;
    if options.json {
        println!("{}", serde_json::json!(figures));
        return Ok(());
    }
    let Latency {
        p50,
        p95,
        p99,
        max,
        samples,
        unseen,
        dropped,
    } = figures.latency_ms;
    println!(
        "from due to queryable: p50 {p50} ms, p95 {p95} ms, p99 {p99} ms, at most {max} ms; {samples} samples, {unseen} unseen, {dropped} dropped"
    );
    println!(
        "{} events written, {} refused, the sender at most {} ms late; {} rows; {:.1} s from the last event until all were committed",
        figures.written.acknowledged,
        figures.written.failed,
        figures.written.late_ms_max,
        figures.rows,
        figures.drained_s
    );
    for phase in &figures.phases {
        let back = match phase.back_after_s {
            Some(after) => format!("less than a second behind after {after:.1} s"),
            None => "not back within it".to_owned(),
        };
        println!(
            "{:>7.0} events/s: at most {:.1} s behind, {back}",
            phase.rate, phase.behind_s_max
        );
    }
    println!("the worker had at most {:.0} MiB", figures.memory_mib_max);
    if let Some((third, end)) = figures.memory_mib_paused {
        println!("while ClickHouse stood still: {third:.0} MiB after a third of the time, {end:.0} MiB at its end");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phases_are_read_and_mistakes_are_told() {
        let Phases(phases) = "15000:60,90000:1.5".parse().unwrap();
        assert_eq!(
            phases[1],
            Phase {
                rate: 90_000.0,
                duration: Duration::from_millis(1500)
            }
        );
        let fault = "15000:60,fast".parse::<Phases>().unwrap_err();
        assert!(fault.starts_with("`fast` is not understood"), "{fault}");
        assert!("0:5".parse::<Phases>().is_err());
    }

    #[test]
    fn a_phase_is_over_its_lag_once_it_stays_below_a_second() {
        let Phases(phases) = "100:10,200:10".parse().unwrap();
        let looks = [
            (1.0, 50.0, 1.0),
            (5.0, 150.0, 1.0),
            (9.0, 20.0, 1.0),
            (11.0, 900.0, 1.0),
            (15.0, 100.0, 1.0),
            (19.0, 300.0, 1.0),
        ];
        let figures = by_phase(&phases, &looks);
        assert_eq!((figures[0].behind_s_max, figures[0].back_after_s), (1.5, Some(9.0)));
        assert_eq!((figures[1].behind_s_max, figures[1].back_after_s), (4.5, None));
        let untold = by_phase(&phases, &looks[..3]);
        assert_eq!((untold[1].behind_s_max, untold[1].back_after_s), (f64::INFINITY, None));
    }
}
