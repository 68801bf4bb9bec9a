//! `sluice rollups check|repair`.

use clap::Subcommand;
use workers::rollups::{RollupPart, Rollups};

use crate::{Common, Failure, schema, target};

#[derive(Subcommand)]
pub enum RollupsCommand {
    /// Count the rows that each rollup lacks of its table: of before it was made, or given up after five
    /// refusals in a row
    Check(Common),
    /// Feed rollups the rows that they lack; workers may run
    Repair(Common),
}

pub async fn run(command: RollupsCommand) -> Result<(), Failure> {
    let (common, repair) = match &command {
        RollupsCommand::Check(common) => (common, false),
        RollupsCommand::Repair(common) => (common, true),
    };
    let pipeline = target::load(common).await?;
    let shapes = schema::shapes(&pipeline).await?;
    let rollups = Rollups::of(pipeline, &shapes)?;
    let parts = if repair {
        rollups.repair().await?
    } else {
        rollups.check().await?
    };
    if common.json {
        println!("{}", serde_json::to_string_pretty(&parts)?);
    } else {
        print(&parts, if repair { "fed" } else { "lacking" });
    }
    let rows: u64 = parts.iter().map(|part| part.rows).sum();
    if repair || rows == 0 {
        Ok(())
    } else {
        Err(Failure::Found)
    }
}

fn print(parts: &[RollupPart], what: &str) {
    let partition = |part: &RollupPart| format!("{}/{}", part.topic, part.partition);
    let width = parts.iter().map(|part| part.rollup.len()).max().unwrap_or(0).max(6);
    let wide = parts.iter().map(|part| partition(part).len()).max().unwrap_or(0).max(9);
    println!(
        "{:width$}  {:wide$}  {:>12}  {what:>10}",
        "rollup", "partition", "below offset"
    );
    for part in parts {
        println!(
            "{:width$}  {:wide$}  {:>12}  {:>10}",
            part.rollup,
            partition(part),
            part.below,
            part.rows
        );
    }
}
