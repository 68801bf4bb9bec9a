//! `sluice`: one binary, a subcommand for each role and each tool.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod target;
mod check;
mod topics;
mod schema;
mod producer;
mod produce;
mod partitions;
mod rollups;
mod rules;
mod roles;
mod up;
mod stack;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

/// For what is written in Rust; C libraries keep the system's allocator (`docs/decisions/0015-the-allocator.md`).
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Read by jemalloc when it starts. By default it gives memory of 8 MiB and more back to the system as soon as it is freed; the columns
/// of a batch are larger than that, and every batch paid for its pages again. Few arenas: what one thread has freed, another can use.
#[allow(non_upper_case_globals)]
#[unsafe(no_mangle)]
pub static _rjem_malloc_conf: Option<&'static std::ffi::c_char> = Some(
    // SAFETY: a string with a zero byte at its end, of which the first byte is lent for ever.
    unsafe { &*c"oversize_threshold:0,narenas:2".as_ptr() },
);

/// Exactly-once stream processing from Kafka to ClickHouse, alert topics and gRPC services.
#[derive(Parser)]
#[command(name = "sluice", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Log lines as JSON (level: SLUICE_LOG, for example SLUICE_LOG=debug)
    #[arg(long, global = true)]
    log_json: bool,
}

/// Where the pipeline is that a command or a role works on.
#[derive(Args, Clone)]
pub struct Files {
    /// The pipeline file
    #[arg(long, short, value_name = "FILE", default_value = "pipeline.yaml")]
    pub pipeline: PathBuf,
    /// Directory of the development stack whose addresses take the place of those that the file leaves out
    #[arg(long, value_name = "DIR", default_value = ".sluice/devstack")]
    pub stack: PathBuf,
}

/// Options of every command that says something about a pipeline.
#[derive(Args, Clone)]
pub struct Common {
    #[command(flatten)]
    pub(crate) files: Files,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run everything on this machine: what the file leaves out as a development stack, then every role
    Up(up::UpArgs),
    /// Run a worker
    Worker(roles::WorkerArgs),
    /// Run the rules service
    Config(roles::ConfigArgs),
    /// Run the billing service
    Billing(roles::BillingArgs),
    /// Check a pipeline file and report all faults at once
    Check(Common),
    /// Check, apply or test rules
    #[command(subcommand)]
    Rules(rules::RulesCommand),
    /// Topics, tables and rollups from the pipeline file; Avro schemas into the registry
    #[command(subcommand)]
    Schema(schema::SchemaCommand),
    /// Produce events from JSON, one on a line, with the newest schema of the topic
    Produce(produce::ProduceArgs),
    /// Show where partitions stand, or let one go on elsewhere (start, delete-rows, move-cursor)
    #[command(subcommand)]
    Partitions(partitions::PartitionsCommand),
    /// Show what rollups lack of their tables, or feed it to them
    #[command(subcommand)]
    Rollups(rollups::RollupsCommand),
    /// Recompute from the log what every sink must hold, and compare
    Verify(verify::VerifyArgs),
    /// Start, stop or show a development stack: Kafka, schema registry, ClickHouse
    #[command(subcommand)]
    Devstack(stack::StackCommand),
}

/// How a command ended that did not do what was asked.
pub enum Failure {
    /// What was looked at is wrong; the report was printed already.
    Found,
    /// Something could not be done.
    Error(String),
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Error(error.to_string())
    }
}

fn main() -> ExitCode {
    if let Some(done) = devstack::hidden_main(std::env::args_os()) {
        return done;
    }
    quiet_when_nobody_reads();
    let cli = Cli::parse();
    serve::logs(cli.log_json);
    let reads_only = matches!(cli.command, Command::Verify(_));
    // A difference is not to be mistaken for a look that failed.
    let could_not = ExitCode::from(if reads_only { verify::COULD_NOT_LOOK } else { 1 });
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("sluice: cannot start: {error}");
            return could_not;
        }
    };
    let done = runtime.block_on(run(cli.command));
    if reads_only {
        // A thread that still reads must not hold up the end. Workers' threads have to be waited for: they leave the group.
        runtime.shutdown_background();
    } else {
        drop(runtime);
    }
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Found) => ExitCode::FAILURE,
        Err(Failure::Error(message)) => {
            eprintln!("sluice: {message}");
            could_not
        }
    }
}

/// `println!` panics when nobody reads any more (`sluice ... | head`). That is the reader's decision: as with a program that
/// takes SIGPIPE, the shell sees 141.
fn quiet_when_nobody_reads() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.payload().downcast_ref::<String>();
        if text.is_some_and(|text| text.starts_with("failed printing to stdout")) {
            std::process::exit(141);
        }
        usual(panic);
    }));
}

async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Up(args) => up::run(args).await,
        Command::Worker(args) => roles::worker(args).await,
        Command::Config(args) => roles::config(args).await,
        Command::Billing(args) => roles::billing(args).await,
        Command::Check(common) => check::run(&common).await,
        Command::Rules(command) => rules::run(command).await,
        Command::Schema(command) => schema::run(command).await,
        Command::Produce(args) => produce::run(args).await,
        Command::Partitions(command) => partitions::run(command).await,
        Command::Rollups(command) => rollups::run(command).await,
        Command::Verify(args) => verify::run(args).await,
        Command::Devstack(command) => stack::run(command).await,
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn refused(words: &[&str]) -> String {
        let parsed = Cli::try_parse_from([&["sluice"], words].concat());
        parsed.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn a_number_of_workers_that_makes_no_sense_is_refused() {
        assert_eq!(refused(&["up", "--workers", "2"]), "");
        let none = refused(&["up", "--workers", "0"]);
        assert!(
            none.contains("invalid value '0' for '--workers <N>': 0 is not in 1.."),
            "{none}"
        );
    }

    #[test]
    fn a_role_that_prints_nothing_has_no_json() {
        for role in ["worker", "config", "billing"] {
            assert_eq!(refused(&[role, "--pipeline", "p.yaml", "--log-json"]), "");
            let json = refused(&[role, "--json"]);
            assert!(json.contains("unexpected argument '--json'"), "{json}");
        }
        assert_eq!(refused(&["check", "--json"]), "");
    }

    #[test]
    fn the_help_of_verify_says_what_its_exit_codes_mean() {
        let mut cli = Cli::command();
        let verify = cli.find_subcommand_mut("verify").unwrap();
        let help = verify.render_help().to_string();
        let could_not = format!("{} = could not look", verify::COULD_NOT_LOOK);
        assert!(
            help.contains("0 = no difference; 1 = differences; ") && help.contains(&could_not),
            "{help}"
        );
    }
}
