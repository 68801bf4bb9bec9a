//! `sluice devstack up|down|status`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::Failure;

#[derive(Subcommand)]
pub enum StackCommand {
    /// Get and start Kafka, the schema registry and ClickHouse; they go on running
    Up {
        #[command(flatten)]
        args: StackArgs,
        /// Kafka as a cluster of three nodes, replication 3, of which any one may fail
        #[arg(long)]
        cluster: bool,
    },
    /// Stop them; the data stays
    Down(StackArgs),
    /// Show where they are and whether they answer
    Status(StackArgs),
}

#[derive(Args)]
pub struct StackArgs {
    /// Directory of data, logs and addresses
    #[arg(long, value_name = "DIR", default_value = ".sluice/devstack")]
    pub stack: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

pub async fn run(command: StackCommand) -> Result<(), Failure> {
    match command {
        StackCommand::Up { args, cluster } => {
            let options = devstack::Options::new(&args.stack);
            let options = if cluster { options.with_cluster() } else { options };
            let stack = devstack::up(options).await?;
            stack.keep().await?;
            status(&args).await
        }
        StackCommand::Down(args) => {
            devstack::down(&args.stack).await?;
            Ok(())
        }
        StackCommand::Status(args) => status(&args).await,
    }
}

async fn status(args: &StackArgs) -> Result<(), Failure> {
    let parts = devstack::status(&args.stack).await?;
    if args.json {
        println!("{}", serde_json::json!({ "parts": parts }));
        return Ok(());
    }
    for part in parts {
        println!(
            "{:<11} {:<44} {:?}  log: {}",
            part.part.name(),
            part.address,
            part.health,
            part.log.display()
        );
    }
    Ok(())
}
