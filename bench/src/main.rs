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
//! - [`table`]: all of them beside their targets.

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

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use error::Error;

#[derive(Debug, Parser)]
#[command(name = "sluice-bench", about = "Measures what an event costs")]
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
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn measure(figure: Figure) -> Result<(), Error> {
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
