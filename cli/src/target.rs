//! The pipeline that a command works on: the checked file, with a running development stack in the place of the
//! addresses that the file leaves out.

use std::path::Path;

use devstack::Part;
use pipeline::{Kafka, Pipeline};

use crate::{Common, Failure, Files};

/// Loads and checks the file; prints all faults if there are any.
pub async fn load(common: &Common) -> Result<Pipeline, Failure> {
    let mut pipeline = checked(common)?;
    fill(&mut pipeline, &common.files.stack).await;
    Ok(pipeline)
}

/// The same for a role, which prints nothing.
pub async fn load_for_role(files: &Files) -> Result<Pipeline, Failure> {
    let files = files.clone();
    load(&Common { files, json: false }).await
}

/// The file alone.
pub fn checked(common: &Common) -> Result<Pipeline, Failure> {
    pipeline::load(&common.files.pipeline).map_err(|faults| refused(&faults, common.json))
}

/// Prints all faults.
pub fn refused(faults: &[document::Fault], json: bool) -> Failure {
    print_faults(faults, json);
    Failure::Found
}

/// Every fault on a line of its own, or all as JSON.
pub fn print_faults(faults: &[document::Fault], json: bool) {
    if json {
        let all: Vec<_> = faults
            .iter()
            .map(|fault| {
                serde_json::json!({"file": fault.file, "line": fault.line, "column": fault.column,
                    "path": fault.path, "message": fault.message})
            })
            .collect();
        println!("{}", serde_json::json!({ "faults": all }));
        return;
    }
    for fault in faults {
        eprintln!("{fault}");
    }
    let count = faults.len();
    eprintln!("{count} fault{}", if count == 1 { "" } else { "s" });
}

/// Puts the addresses of a running stack where the file has none.
pub async fn fill(pipeline: &mut Pipeline, stack: &Path) {
    let connections = &pipeline.connections;
    let complete =
        connections.kafka.is_some() && connections.registry.url.is_some() && connections.clickhouse.url.is_some();
    if complete {
        return;
    }
    let Ok(parts) = devstack::status(stack).await else {
        return;
    };
    let address = |part: Part| parts.iter().find(|one| one.part == part).map(|one| one.address.clone());
    let connections = &mut pipeline.connections;
    let brokers: Vec<String> = Part::KAFKAS.into_iter().filter_map(address).collect();
    if connections.kafka.is_none() && !brokers.is_empty() {
        connections.kafka = Some(local_kafka(brokers));
    }
    if connections.registry.url.is_none() {
        connections.registry.url = address(Part::Registry);
    }
    if connections.clickhouse.url.is_none() {
        connections.clickhouse.url = address(Part::ClickHouse);
    }
}

fn local_kafka(brokers: Vec<String>) -> Kafka {
    Kafka {
        brokers,
        tls: None,
        sasl: None,
        properties: std::collections::BTreeMap::new(),
    }
}
