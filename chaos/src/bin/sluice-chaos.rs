//! `sluice-chaos`: faults of chosen families on the real parts, seed after seed, and a table of what came of it.
#![allow(clippy::print_stdout)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use chaos::failures::{FAILURES, Failure};
use chaos::families::{FAMILIES, Family};
use chaos::rig::Rig;
use chaos::table::{Recoveries, Table};
use chaos::trial::{Outcome, Settings};
use clap::Parser;

/// Strike a pipeline on real parts with faults, and compare every sink with the log.
#[derive(Debug, Parser)]
#[command(name = "sluice-chaos")]
struct Arguments {
    /// Families by number, separated by commas; all unless named
    #[arg(long, value_delimiter = ',', value_name = "NUMBERS")]
    faults: Vec<u8>,
    /// The failure table instead, or these of its rows: what fails in practice, and how soon events flow again
    #[arg(long, conflicts_with = "faults", num_args = 0.., value_delimiter = ',', value_name = "NAMES")]
    failures: Option<Vec<String>>,
    /// Decides which faults come when; each round adds one
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rounds over all chosen families
    #[arg(long, default_value_t = 1)]
    rounds: u64,
    /// Go on for so many minutes instead, round after round, the first one to its end
    #[arg(long)]
    minutes: Option<u64>,
    /// How often a trial repeats each of its faults, about
    #[arg(long, default_value_t = 1)]
    times: usize,
    /// Events a second
    #[arg(long, default_value_t = 500.0)]
    rate: f64,
    /// Write what came of it as JSON, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter("chaos=info,devstack=warn")
        .init();
    let chosen = |family: &&Family| arguments.faults.is_empty() || arguments.faults.contains(&family.number);
    let families: Vec<&Family> = FAMILIES.iter().filter(chosen).collect();
    let known = |number: &u8| FAMILIES.iter().any(|family| family.number == *number);
    if let Some(unknown) = arguments.faults.iter().find(|number| !known(number)) {
        let numbers: Vec<String> = FAMILIES.iter().map(|family| family.number.to_string()).collect();
        eprintln!(
            "error: no family has the number {unknown}; there are {}",
            numbers.join(", ")
        );
        return ExitCode::from(2);
    }
    let names = arguments.failures.as_deref().unwrap_or_default();
    let chosen = |failure: &&Failure| names.is_empty() || names.iter().any(|name| name == failure.name);
    let failures: Vec<&Failure> = FAILURES.iter().filter(chosen).collect();
    if !names.is_empty() && failures.len() < names.len() {
        let known: Vec<&str> = FAILURES.iter().map(|failure| failure.name).collect();
        eprintln!(
            "error: {names:?} are not all names of failures; there are {}",
            known.join(", ")
        );
        return ExitCode::from(2);
    }
    eprintln!("{arguments:?}");
    let rig = Rig::up();
    if arguments.failures.is_some() {
        let mut table = Recoveries::default();
        rounds(&arguments, &failures, |failure, settings| {
            let outcome = tried(failure.name, settings, || failure.run(&rig, settings));
            table.note(failure, settings.seed, outcome);
        });
        return told(&arguments, &table, table.green());
    }
    let mut table = Table::default();
    rounds(&arguments, &families, |family, settings| {
        let name = format!("{} {}", family.number, family.name);
        let outcome = tried(&name, settings, || family.run(&rig, settings));
        table.note(family, settings.seed, outcome);
    });
    // What has never run says nothing of itself.
    let missing: Vec<u8> = families
        .iter()
        .map(|family| family.number)
        .filter(|number| !table.has(*number))
        .collect();
    if !missing.is_empty() {
        eprintln!("error: no trial was made of {missing:?}");
    }
    told(&arguments, &table, table.green() && missing.is_empty())
}

/// Each of them, round after round. The first round is never broken off.
fn rounds<'a, T>(arguments: &Arguments, of: &[&'a T], mut run: impl FnMut(&'a T, &Settings)) {
    let (began, until) = (
        Instant::now(),
        arguments.minutes.map(|minutes| Duration::from_secs(minutes * 60)),
    );
    for round in 0.. {
        for one in of {
            if until.map_or(round >= arguments.rounds, |until| round > 0 && began.elapsed() >= until) {
                return;
            }
            let settings = Settings {
                seed: arguments.seed + round,
                rate: arguments.rate,
                times: arguments.times,
                brief: false,
            };
            run(one, &settings);
        }
    }
}

/// What came of a trial, or what was said when it went wrong.
fn tried(name: &str, settings: &Settings, trial: impl FnOnce() -> Outcome) -> Result<Outcome, String> {
    let began = Instant::now();
    let outcome = catch_unwind(AssertUnwindSafe(trial)).map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        said.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
            .unwrap_or_default()
    });
    let (seconds, seed) = (began.elapsed().as_secs(), settings.seed);
    match &outcome {
        Ok(outcome) => eprintln!("{name}, seed {seed}, {seconds} s: {outcome:?}"),
        Err(said) => eprintln!("{name}, seed {seed}, {seconds} s: RED: {said}"),
    }
    outcome
}

fn told(arguments: &Arguments, table: &(impl std::fmt::Display + serde::Serialize), green: bool) -> ExitCode {
    println!("{table}");
    if let Some(file) = &arguments.json {
        let written = serde_json::to_string_pretty(table).map(|text| std::fs::write(file, text));
        if !matches!(written, Ok(Ok(()))) {
            eprintln!("error: {} could not be written: {written:?}", file.display());
            return ExitCode::from(2);
        }
    }
    if green { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
