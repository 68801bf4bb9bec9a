//! `sluice check`: the pipeline file, then its rules against the registry's schemas where both are at hand.

use crate::{Common, Failure, target};

pub async fn run(common: &Common) -> Result<(), Failure> {
    let pipeline = target::load(common).await?;
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
            "{}: pipeline `{}` is right: {} sources, {} tables, {} rollups",
            common.pipeline.display(),
            pipeline.name,
            pipeline.sources.len(),
            pipeline.tables.len(),
            pipeline.rollups.len()
        );
        for part in missing(&pipeline) {
            println!("  connections.{part} has no address: `sluice up` starts a development one");
        }
    }
    Ok(())
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
