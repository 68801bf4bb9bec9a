//! `sluice rules check|apply|test`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use pipeline::{Pipeline, RulesFrom};
use proto::config::v1::{Document, PutRulesRequest};
use rules::Catalog;
use workers::endpoint::certificates;

use crate::{Common, Failure, target};

#[derive(Subcommand)]
pub enum RulesCommand {
    /// Check rule files against the pipeline's schemas; all faults at once
    Check(RulesArgs),
    /// Check, then publish to the rules service as one new revision; tenants that the files don't name keep what they have
    Apply(RulesArgs),
    /// Run the tests inside rule files
    Test(RulesArgs),
}

#[derive(Args)]
pub struct RulesArgs {
    /// Rule files or directories; default: the pipeline's rules directory
    files: Vec<PathBuf>,
    #[command(flatten)]
    common: Common,
}

pub async fn run(command: RulesCommand) -> Result<(), Failure> {
    match command {
        RulesCommand::Check(args) => check(&args).await,
        RulesCommand::Test(args) => test(&args).await,
        RulesCommand::Apply(args) => apply(&args).await,
    }
}

/// What rules may name, from the registry's schemas.
pub async fn catalog(pipeline: &Pipeline) -> Result<Catalog, Failure> {
    let shapes = workers::worker::shapes(pipeline).await?;
    let model = workers::model::Model::new(std::sync::Arc::new(pipeline.clone()), shapes, 1)
        .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((*model.catalog).clone())
}

fn documents(args: &RulesArgs, pipeline: &Pipeline) -> Result<Vec<(String, String)>, Failure> {
    let mut files = args.files.clone();
    if files.is_empty() {
        match &pipeline.connections.rules {
            RulesFrom::Dir(dir) => files.push(dir.clone()),
            _ => {
                return Err(Failure::Error(
                    "name the rule files: the pipeline has no rules directory".into(),
                ));
            }
        }
    }
    let searched: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let searched = searched.join(", ");
    let mut documents = Vec::new();
    for file in files {
        if file.is_dir() {
            documents.extend(workers::rulebook::directory(&file)?);
        } else {
            let text = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
            documents.push((file.display().to_string(), text));
        }
    }
    if documents.is_empty() {
        // For a worker that is right: no rules. Whoever asks a command probably meant another directory.
        eprintln!("warning: there is no rule document (.yaml, .yml) in {searched}");
    }
    Ok(documents)
}

async fn check(args: &RulesArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await?;
    let documents = documents(args, &pipeline)?;
    let catalog = catalog(&pipeline).await?;
    let revision = rules::Revision::compile(0, &documents, &catalog).map_err(|faults| {
        target::print_faults(&faults, args.common.json);
        Failure::Found
    })?;
    if args.common.json {
        println!(
            "{}",
            serde_json::json!({"documents": documents.len(), "digest": format!("{:016x}", revision.digest)})
        );
    } else {
        println!(
            "{} right (digest {:016x})",
            match documents.len() {
                1 => "1 document is".to_owned(),
                many => format!("{many} documents are"),
            },
            revision.digest
        );
    }
    Ok(())
}

async fn test(args: &RulesArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await?;
    let documents = documents(args, &pipeline)?;
    let catalog = catalog(&pipeline).await?;
    let (mut passed, mut failed) = (0, 0);
    let mut results = Vec::new();
    for (file, text) in &documents {
        let rules = rules::check(file, text, &catalog).map_err(|faults| {
            target::print_faults(&faults, args.common.json);
            Failure::Found
        })?;
        for outcome in rules::run_tests(&rules, &catalog) {
            *(if outcome.passed { &mut passed } else { &mut failed }) += 1;
            if args.common.json {
                results.push(
                    serde_json::json!({"file": file, "name": outcome.name, "line": outcome.line,
                    "passed": outcome.passed, "differences": outcome.differences}),
                );
            } else if !outcome.passed {
                eprintln!("{file}:{}:{}: {} failed", outcome.line, outcome.column, outcome.name);
                outcome
                    .differences
                    .iter()
                    .for_each(|difference| eprintln!("  {difference}"));
            }
        }
    }
    if args.common.json {
        println!(
            "{}",
            serde_json::json!({"passed": passed, "failed": failed, "tests": results})
        );
    } else {
        println!("{passed} passed, {failed} failed");
    }
    if failed == 0 { Ok(()) } else { Err(Failure::Found) }
}

async fn apply(args: &RulesArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await?;
    let RulesFrom::Service { url, tls } = &pipeline.connections.rules else {
        return Err(Failure::Error(
            "`connections.rules` is no service: workers read the directory themselves, there is nothing to apply"
                .into(),
        ));
    };
    let documents = documents(args, &pipeline)?;
    if documents.is_empty() {
        return Err(Failure::Error("there is nothing to apply".into()));
    }
    let tls = tls
        .as_ref()
        .map(certificates)
        .transpose()
        .map_err(|error| error.to_string())?;
    let client = config_service::client::Client::new(url, tls)?;
    let request = PutRulesRequest {
        pipeline: pipeline.name.clone(),
        documents: documents
            .into_iter()
            .map(|(file, text)| Document {
                tenant: String::new(),
                text,
                file,
            })
            .collect(),
        base: None,
        check_only: false,
    };
    let before = client.get(&pipeline.name, None).await;
    let before = before
        .map_err(|error| format!("{url}: {error}"))?
        .id
        .map_or(0, |id| id.number);
    let put = client.put(request).await;
    match put.map_err(|error| format!("{url}: {error}"))? {
        config_service::client::Put::Accepted(revision) => {
            let changed = revision.number != before;
            if args.common.json {
                println!(
                    "{}",
                    serde_json::json!({"revision": revision.number, "changed": changed})
                );
            } else {
                let said = if changed { "" } else { ": nothing changed" };
                println!("rules@{}{said}", revision.number);
            }
            Ok(())
        }
        config_service::client::Put::Refused(faults) => {
            target::print_faults(&faults, args.common.json);
            Err(Failure::Found)
        }
    }
}
