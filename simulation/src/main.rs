//! Runs seeds of the simulation on all cores, tells how far it is, and stops at the first seed that goes wrong.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use clap::Parser;
use exactly_once_protocol::Guarantee;
use simulation::exhaustive::{Bounds, ONE_FAULT, TWO_FAULTS, search};
use simulation::faults::{Counts, Fault};
use simulation::mutations::Mutation;
use simulation::{Check, Options, Outcome, report, run};

/// The exactly-once protocol against simulated Kafka, ClickHouse and billing, seed by seed.
#[derive(Parser)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This one alone, with its trace.
    #[arg(long)]
    seed: Option<u64>,
    /// What is checked: safety, liveness, or both.
    #[arg(long, default_value = "both")]
    check: String,
    /// What is taken away, to see that it is missed.
    #[arg(long, default_value = "none")]
    mutation: String,
    /// What the lanes are asked for: exactly_once or at_least_once.
    #[arg(long, default_value = "exactly_once")]
    guarantee: String,
    /// Threads; all cores if 0.
    #[arg(long, default_value_t = 0)]
    jobs: usize,
    /// Not seeds, but every order of events in a very small world; takes some minutes.
    #[arg(long)]
    exhaustive: bool,
}

/// Between two lines of progress.
const TELL_EVERY: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    match go(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("{why}");
            ExitCode::from(2)
        }
    }
}

fn go(arguments: &Arguments) -> Result<bool, String> {
    if arguments.exhaustive {
        return Ok(ONE_FAULT.into_iter().chain(TWO_FAULTS).all(all_orders));
    }
    let checks = match arguments.check.as_str() {
        "both" => vec![Check::Safety, Check::Liveness],
        "safety" => vec![Check::Safety],
        "liveness" => vec![Check::Liveness],
        other => return Err(format!("--check {other}: safety, liveness or both")),
    };
    let names: Vec<&str> = Mutation::ALL.iter().map(|(name, _)| *name).collect();
    let mutation = match arguments.mutation.as_str() {
        "none" => Mutation::None,
        name => Mutation::named(name).ok_or_else(|| format!("--mutation {name}: none, {}", names.join(", ")))?,
    };
    let guarantee = match arguments.guarantee.as_str() {
        "exactly_once" => Guarantee::ExactlyOnce,
        "at_least_once" => Guarantee::AtLeastOnce,
        other => return Err(format!("--guarantee {other}: exactly_once or at_least_once")),
    };
    let options = |seed: u64, check: Check| Options {
        mutation,
        guarantee,
        ..Options::new(seed, check)
    };
    if let Some(seed) = arguments.seed {
        return Ok(checks.into_iter().all(|check| alone(&options(seed, check))));
    }
    // A panic is reported as what it is, with its seed; where it came from is in the run with the trace.
    std::panic::set_hook(Box::new(|_| {}));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let jobs = if arguments.jobs == 0 { cores } else { arguments.jobs };
    let next = AtomicU64::new(arguments.from);
    let end = arguments.from.saturating_add(arguments.seeds);
    let (sender, outcomes) = channel::<(Options, Outcome)>();
    Ok(std::thread::scope(|scope| {
        for _ in 0..jobs {
            let (sender, next, checks, options) = (sender.clone(), &next, &checks, &options);
            scope.spawn(move || {
                work(&sender, next, end, |seed| {
                    checks.iter().map(|check| options(seed, *check)).collect()
                })
            });
        }
        drop(sender);
        let mut tally = Tally::new(arguments.seeds * checks.len() as u64);
        for (options, outcome) in outcomes {
            if outcome.wrong.is_some() {
                next.store(end, Ordering::Relaxed);
                tally.tell();
                drop(std::panic::take_hook());
                eprintln!("{}", report(&options));
                return false;
            }
            tally.add(&options, &outcome);
        }
        tally.tell_all(checks.contains(&Check::Liveness));
        true
    }))
}

/// One search.
fn all_orders((name, bounds): (&str, Bounds)) -> bool {
    let began = Instant::now();
    let found = search(bounds);
    let (states, moves, finished) = (found.states, found.moves, found.finished);
    let seconds = began.elapsed().as_secs_f64();
    println!("{name}: {states} states, {moves} moves, everything is committed in {finished} ({seconds:.0} s)");
    if let Some((wrong, way)) = &found.wrong {
        eprintln!("{}\n{wrong}", way.join("\n"));
    }
    found.wrong.is_none()
}

/// One seed, with its trace.
fn alone(options: &Options) -> bool {
    let outcome = run(&Options {
        told: true,
        ..options.clone()
    });
    let (check, (lines, hash)) = (options.check.name(), outcome.fingerprint);
    match outcome.wrong {
        Some(_) => eprintln!("{}", report(options)),
        None => println!(
            "seed {}, {check}: nothing wrong; trace of {lines} lines, hash {hash:016x}",
            options.seed
        ),
    }
    outcome.wrong.is_none()
}

fn work(sender: &Sender<(Options, Outcome)>, next: &AtomicU64, end: u64, runs_of: impl Fn(u64) -> Vec<Options>) {
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return;
        }
        for options in runs_of(seed) {
            let outcome = run(&options);
            if sender.send((options, outcome)).is_err() {
                return;
            }
        }
    }
}

struct Tally {
    began: Instant,
    told: Instant,
    runs: u64,
    of: u64,
    counts: Counts,
    committed: u64,
    slowest: BTreeMap<i64, u64>,
}

impl Tally {
    fn new(of: u64) -> Tally {
        Tally {
            began: Instant::now(),
            told: Instant::now(),
            runs: 0,
            of,
            counts: Counts::default(),
            committed: 0,
            slowest: BTreeMap::new(),
        }
    }

    fn add(&mut self, options: &Options, outcome: &Outcome) {
        self.runs += 1;
        self.counts.add(&outcome.counts);
        self.committed += outcome.committed;
        self.slowest.insert(outcome.settled_ms, options.seed);
        if self.slowest.len() > 1 {
            self.slowest.pop_first();
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            self.tell();
        }
    }

    fn tell(&self) {
        let seconds = self.began.elapsed().as_secs_f64().max(0.001);
        let each = self.runs as f64 / seconds;
        println!("{} of {} runs, {each:.0} runs/s", self.runs, self.of);
    }

    fn tell_all(&self, liveness: bool) {
        self.tell();
        println!("{} offsets committed; faults:", self.committed);
        for (fault, name) in Fault::ALL {
            println!("{:>12}  {name}", self.counts.of(fault));
        }
        if let Some((settled_ms, seed)) = self.slowest.first_key_value().filter(|_| liveness) {
            println!("all committed at most {settled_ms} simulated ms after the last fault (seed {seed})");
        }
        println!("nothing wrong");
    }
}
