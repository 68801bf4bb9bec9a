//! `sluice-bench`: the figures of `docs/performance.md`, a subcommand for each.
//!
//! - [`shop`]: what is measured;
//! - [`stages`]: one core without I/O, [`instructions`]: the same in instructions;
//! - [`stand`]: the real parts with a full topic, [`files`]: where they have their files, [`role`]: Sluice's processes, [`cpu`]: what a process has taken;
//! - [`peers`]: Sluice beside others;
//! - [`streams`]: Sluice beside Kafka Streams;
//! - [`growth`]: what tenants, partitions, tables and a backlog do to an event's cost;
//! - [`guarantees`]: exactly-once beside at-least-once;
//! - [`flow`]: latency, lag and memory at given rates;
//! - [`table`]: all of them beside their targets;
//! - [`arguments`]: what options take.

mod arguments;
mod cpu;
mod error;
mod files;
mod flow;
mod growth;
mod guarantees;
mod instructions;
mod peers;
mod role;
mod shop;
mod stages;
mod stand;
mod streams;
mod table;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use error::Error;
use tokio::signal::unix::{SignalKind, signal};

/// CPUs that others keep busy before a figure is a figure of them, too.
const BUSY: f64 = 0.2;

const EXIT_CODES: &str = "Exits with 0 once the figures are there, whether they reach their targets or not; with 1 and a reason when there are none; \
    with 2 when it does not understand what is wanted; with 130 or 143 when SIGINT or SIGTERM has ended it.";

#[derive(Debug, Parser)]
#[command(name = "sluice-bench", about = "Measures what an event costs", after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    figure: Figure,
}

#[derive(Debug, Subcommand)]
enum Figure {
    /// One core, without I/O: decode, rules, route, encode
    Stages(stages::Options),
    /// The same in instructions (callgrind), beside those that were recorded
    Instructions(instructions::Options),
    /// Kafka to ClickHouse: Sluice and ClickHouse's Kafka engine in turn
    Peers(peers::Options),
    /// Kafka to Kafka: Sluice and Kafka Streams in turn
    Streams(streams::Options),
    /// What an event costs with more tenants, partitions, tables, backlog
    Growth(growth::Options),
    /// Latency, lag and memory at given rates
    Flow(flow::Options),
    /// Exactly-once and at-least-once, in turn
    Guarantees(guarantees::Options),
    /// Every row, beside what it has to reach
    Table(table::Options),
}

fn main() -> ExitCode {
    // The parts are supervised by this program, started once more.
    if let Some(done) = devstack::hidden_main(std::env::args_os()) {
        return done;
    }
    match measure(Arguments::parse().figure) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sluice-bench: {error}");
            match error {
                Error::Interrupted("SIGINT") => ExitCode::from(130),
                Error::Interrupted(_) => ExitCode::from(143),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn measure(figure: Figure) -> Result<(), Error> {
    // Nothing is to be ended or removed.
    if let Figure::Stages(options) = figure {
        return stages::run(options);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(Error::io(Path::new("the runtime")))?;
    let done = runtime.block_on(until_ended(figure));
    // A topic may be being filled on a thread of its own.
    runtime.shutdown_background();
    done
}

/// A figure that is given up drops its parts, which ends them.
async fn until_ended(figure: Figure) -> Result<(), Error> {
    let heard = |kind| signal(kind).map_err(Error::io(Path::new("signals")));
    let (mut interrupt, mut terminate) = (heard(SignalKind::interrupt())?, heard(SignalKind::terminate())?);
    tokio::select! {
        biased;
        _ = interrupt.recv() => Err(Error::Interrupted("SIGINT")),
        _ = terminate.recv() => Err(Error::Interrupted("SIGTERM")),
        done = run(figure) => done,
    }
}

async fn run(figure: Figure) -> Result<(), Error> {
    if let Some(busy) = cpu::busy().await.filter(|busy| *busy > BUSY) {
        eprintln!(
            "sluice-bench: other programs keep {busy:.1} CPUs of this machine busy: rates and latencies will be worse than they are"
        );
    }
    match figure {
        Figure::Stages(options) => stages::run(options),
        Figure::Instructions(options) => instructions::run(options).await,
        Figure::Peers(options) => peers::run(options).await,
        Figure::Streams(options) => streams::run(options).await,
        Figure::Growth(options) => growth::run(options).await,
        Figure::Flow(options) => flow::run(options).await,
        Figure::Guarantees(options) => guarantees::run(options).await,
        Figure::Table(options) => table::run(options).await,
    }
}
