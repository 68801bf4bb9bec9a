//! `sluice check`: the pipeline file, then its rules against the registry's schemas where both are at hand.

use crate::{Common, Failure, target};

pub async fn run(common: &Common) -> Result<(), Failure> {
    let pipeline = target::load(common).await?;
    if let pipeline::RulesFrom::Dir(dir) = &pipeline.connections.rules
        && !dir.is_dir()
    {
        return Err(Failure::Error(format!(
            "connections.rules.dir: there is no directory {}: a worker would not start",
            dir.display()
        )));
    }
    let summary = serde_json::json!({
        "pipeline": pipeline.name,
        "revision": format!("{:016x}", pipeline.revision),
        "sources": pipeline.sources.iter().map(|source| &source.topic).collect::<Vec<_>>(),
        "tables": pipeline.tables.iter().map(|table| &table.name).collect::<Vec<_>>(),
        "rollups": pipeline.rollups.iter().map(|rollup| &rollup.name).collect::<Vec<_>>(),
        "grpc_sinks": pipeline.sinks.grpc.iter().map(|sink| &sink.name).collect::<Vec<_>>(),
    });
    if common.json {
        println!("{summary}");
    } else {
        println!(
            "{}: pipeline `{}` is right: {}, {}, {}",
            common.pipeline.display(),
            pipeline.name,
            counted(pipeline.sources.len(), "source"),
            counted(pipeline.tables.len(), "table"),
            counted(pipeline.rollups.len(), "rollup")
        );
        for part in missing(&pipeline) {
            println!("  connections.{part} has no address: `sluice up` starts a development one");
        }
    }
    Ok(())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Connections for which neither the file nor a running stack has an address.
pub fn missing(pipeline: &pipeline::Pipeline) -> Vec<&'static str> {
    let connections = &pipeline.connections;
    let mut missing = Vec::new();
    if connections.kafka.is_none() {
        missing.push("kafka");
    }
    if connections.registry.url.is_none() {
        missing.push("registry");
    }
    if connections.clickhouse.url.is_none() {
        missing.push("clickhouse");
    }
    missing
}
