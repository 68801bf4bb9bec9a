//! `sluice schema plan|apply|register`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Subcommand;
use clickhouse_sink::schema as tables;
use pipeline::Pipeline;
use pipeline::shape::Shape;

use crate::{Common, Failure, target, topics};

#[derive(Subcommand)]
pub enum SchemaCommand {
    /// Show what `apply` would change
    Plan(Common),
    /// Make topics, tables and rollups, and evolve them
    Apply(Common),
    /// Register an Avro schema file as the newest version of a subject
    Register {
        /// Subject, usually `<topic>-value`
        subject: String,
        /// The .avsc file
        file: PathBuf,
        #[command(flatten)]
        common: Common,
    },
}

pub async fn run(command: SchemaCommand) -> Result<(), Failure> {
    match command {
        SchemaCommand::Plan(common) => {
            let pipeline = target::load(&common).await?;
            let (missing, desired, client) = wanted(&pipeline).await?;
            let plan = tables::plan(&client, &desired).await?;
            print(&missing, &plan, common.json, "would");
            if plan.refusals.is_empty() {
                Ok(())
            } else {
                Err(Failure::Found)
            }
        }
        SchemaCommand::Apply(common) => {
            let pipeline = target::load(&common).await?;
            apply(&pipeline, common.json).await
        }
        SchemaCommand::Register { subject, file, common } => {
            let pipeline = target::load(&common).await?;
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            let registry = workers::worker::registry(&pipeline)?;
            let id = registry.register(&subject, &text).await?;
            if common.json {
                println!("{}", serde_json::json!({"subject": subject, "id": id}));
            } else {
                println!("{subject}: schema id {id}");
            }
            Ok(())
        }
    }
}

/// Topics first, because they are harmless; then tables and rollups.
pub async fn apply(pipeline: &Pipeline, json: bool) -> Result<(), Failure> {
    let (missing, desired, client) = wanted(pipeline).await?;
    let plan = tables::plan(&client, &desired).await?;
    if !plan.refusals.is_empty() {
        print(&missing, &plan, json, "would");
        return Err(Failure::Found);
    }
    topics::create(pipeline, &missing).await?;
    let done = tables::apply(&client, &desired).await?;
    print(&missing, &done, json, "did");
    Ok(())
}

async fn wanted(
    pipeline: &Pipeline,
) -> Result<(Vec<topics::Wanted>, tables::Desired, clickhouse_sink::Client), Failure> {
    let missing = topics::missing(pipeline)?;
    let shapes = shapes(pipeline).await?;
    if let Err(faults) = workers::model::Model::new(Arc::new(pipeline.clone()), shapes.clone(), 1) {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        return Err(Failure::Error(faults.join("\n")));
    }
    let desired = tables::desired(pipeline, &shapes).map_err(|refusals| lines(&refusals).join("\n"))?;
    Ok((missing, desired, workers::worker::clickhouse(pipeline)?))
}

/// The shapes of all sources, from the registry.
pub async fn shapes(pipeline: &Pipeline) -> Result<Vec<Shape>, Failure> {
    Ok(workers::worker::shapes(pipeline).await?)
}

/// Tables of one source share its faults: each is told once.
fn lines(refusals: &[tables::Refusal]) -> Vec<String> {
    let mut lines: Vec<String> = refusals.iter().map(refusal).collect();
    let mut told = std::collections::BTreeSet::new();
    lines.retain(|line| told.insert(line.clone()));
    lines
}

fn refusal(refusal: &tables::Refusal) -> String {
    format!("{}: refused: {}; {}", refusal.what, refusal.reason, refusal.remedy)
}

fn print(missing: &[topics::Wanted], plan: &tables::Plan, json: bool, tense: &str) {
    if json {
        let topics: Vec<_> = missing
            .iter()
            .map(|topic| serde_json::json!({"topic": topic.name, "partitions": topic.partitions, "why": topic.why}))
            .collect();
        println!("{}", serde_json::json!({"topics": topics, "clickhouse": plan}));
        return;
    }
    for topic in missing {
        println!(
            "{tense} create topic {} with {} partitions ({})",
            topic.name, topic.partitions, topic.why
        );
    }
    for change in &plan.changes {
        println!("{tense} change {}: {}\n{}\n", change.what, change.why, change.sql);
    }
    for note in &plan.notes {
        println!("note: {note}");
    }
    for line in lines(&plan.refusals) {
        eprintln!("{line}");
    }
    if missing.is_empty() && plan.changes.is_empty() && plan.refusals.is_empty() {
        println!("nothing to change");
    }
}
