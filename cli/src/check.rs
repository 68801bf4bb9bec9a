//! `sluice check`: the pipeline file, and whether what it names is on this machine.

use std::path::Path;

use pipeline::{Machine, Secret};
use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;

use crate::{Common, Failure, target};

/// The machine that this runs on.
struct Here;

impl Machine for Here {
    fn file(&self, path: &Path) -> Result<(), String> {
        let read = std::fs::read(path);
        read.map(drop)
            .map_err(|error| format!("{} can't be read: {error}", path.display()))
    }

    fn secret(&self, secret: &Secret) -> Result<(), String> {
        secret.read().map(drop).map_err(|error| error.to_string())
    }

    fn rules(&self, dir: &Path) -> Result<(), String> {
        if dir.is_dir() {
            return Ok(());
        }
        Err(format!(
            "there is no directory {}: a worker would not start",
            dir.display()
        ))
    }

    fn kafka_property(&self, key: &str, value: &str) -> Result<(), String> {
        // Nobody connects before a client is made.
        match ClientConfig::new().set(key, value).create_native_config() {
            Ok(_) => Ok(()),
            Err(KafkaError::ClientConfig(_, reason, ..)) => {
                Err(format!("the Kafka client refuses it: {}", reason.trim_end()))
            }
            Err(error) => Err(format!("the Kafka client refuses it: {error}")),
        }
    }
}

pub async fn run(common: &Common) -> Result<(), Failure> {
    let checked = pipeline::load_on(&common.files.pipeline, &Here);
    let mut pipeline = checked.map_err(|faults| target::refused(&faults, common.json))?;
    target::fill(&mut pipeline, &common.files.stack).await;
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
            common.files.pipeline.display(),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_says_which_file_is_missing_and_which_property_nobody_has() {
        let gone = Path::new("/nowhere/at-all");
        let said = Here.file(gone).unwrap_err();
        assert!(
            said.starts_with("/nowhere/at-all can't be read: No such file"),
            "{said}"
        );
        let said = Here.secret(&Secret::in_file(gone)).unwrap_err();
        assert!(said.contains("/nowhere/at-all can't be read: No such file"), "{said}");
        let said = Here.rules(gone).unwrap_err();
        assert_eq!(said, "there is no directory /nowhere/at-all: a worker would not start");
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(Here.rules(here), Ok(()));
        assert_eq!(Here.file(&here.join("Cargo.toml")), Ok(()));

        assert_eq!(Here.kafka_property("fetch.min.bytes", "1"), Ok(()));
        for (key, value) in [("nosuch.prop", "1"), ("fetch.min.bytes", "many")] {
            let said = Here.kafka_property(key, value).unwrap_err();
            assert!(
                said.starts_with("the Kafka client refuses it: ") && said.contains(key),
                "{said}"
            );
        }
    }
}
