//! What is measured: one source of the 203-byte event, one table, alerts, billing, and five rules for each tenant.

use std::path::Path;

use load_tests::envelope::{AMOUNT_BELOW, tenant};

use crate::error::Error;

/// Of the source.
pub const PARTITIONS: usize = 8;

/// What a pipeline is called and where its parts are.
#[derive(Debug, Clone)]
pub struct Addresses<'a> {
    /// The pipeline, and its database.
    pub name: &'a str,
    /// Bootstrap servers.
    pub kafka: &'a str,
    /// The registry's Confluent API.
    pub registry: &'a str,
    /// ClickHouse over HTTP.
    pub clickhouse: &'a str,
    /// The billing service.
    pub billing: &'a str,
}

impl Addresses<'static> {
    /// Of a pipeline whose parts nobody asks.
    pub const NOBODY: Addresses<'static> = Addresses {
        name: "bench",
        kafka: "127.0.0.1:9092",
        registry: "http://127.0.0.1:8081",
        clickhouse: "http://127.0.0.1:8123",
        billing: "http://127.0.0.1:7400",
    };
}

/// The pipeline file.
pub fn pipeline(at: &Addresses<'_>) -> String {
    let Addresses {
        name,
        kafka,
        registry,
        clickhouse,
        billing,
    } = at;
    format!(
        "pipeline: {name}
start: earliest
connections:
  kafka: {{brokers: [\"{kafka}\"]}}
  registry: {{url: \"{registry}\"}}
  clickhouse: {{url: \"{clickhouse}\", database: {name}}}
  rules: {{dir: ./rules}}
event: {{id: event_id, tenant: tenant_id, type: type, time: timestamp, accept: {{past: 400d, future: 24h}}}}
sources:
  - {{topic: events, table: events, partitions: {PARTITIONS}}}
tables:
  default: {{partition_by: day, order_by: [tenant_id, type, timestamp]}}
sinks:
  alerts: {{topic: {name}.alerts}}
  billing: {{grpc: \"{billing}\"}}
"
    )
}

/// Five rules of a tenant, with numbers of its own: one that drops (nothing), one that masks, one that sets, one that alerts (of one event
/// in about two hundred), one that charges (each payment, one event in five).
fn document(number: usize) -> (String, String) {
    let tenant = tenant(number);
    let big = AMOUNT_BELOW / 100 * 99 + i64::try_from(number).unwrap_or(0) % 500;
    let text = format!(
        "tenant: {tenant}
meters: {{revenue: {{unit: EUR, scale: 2}}}}
rules:
  - {{name: no-tests, when: \"properties['plan'] = 'test-{number}'\", drop: true}}
  - {{name: no-mail, mask: {{\"properties['email']\": sha256}}}}
  - {{name: currency, set: {{currency: upper(currency)}}}}
  - {{name: big, when: amount_cents > {big}, alert: {{severity: info, key: session_id, text: \"'paid ' || amount_cents || ' ' || currency\"}}}}
  - {{name: revenue, when: \"type = 'payment.processed' AND currency = 'EUR'\", charge: {{meter: revenue, quantity: amount_cents}}}}
"
    );
    (format!("{tenant}.yaml"), text)
}

/// The rules of so many tenants: file name and text.
pub fn documents(tenants: usize) -> Vec<(String, String)> {
    (0..tenants).map(document).collect()
}

/// The pipeline that only filters: no billing, and no event stays for a table.
fn filter(at: &Addresses<'_>) -> String {
    let text = pipeline(at);
    let billing = format!("  billing: {{grpc: \"{}\"}}\n", at.billing);
    text.replace(&billing, "")
}

/// Its rules: payments become alerts, and nothing goes further.
fn filter_document(number: usize) -> (String, String) {
    let tenant = tenant(number);
    let text = format!(
        "tenant: {tenant}
rules:
  - {{name: payments, when: \"type = 'payment.processed'\", alert: {{severity: info, key: session_id, text: \"type\"}}}}
  - {{name: rest, drop: true}}
"
    );
    (format!("{tenant}.yaml"), text)
}

/// Writes the pipeline file and the rules of so many tenants into a directory.
///
/// # Errors
/// [`Error::Io`].
pub fn write(dir: &Path, at: &Addresses<'_>, tenants: usize) -> Result<(), Error> {
    write_files(dir, &pipeline(at), documents(tenants))
}

/// The same of the pipeline that only filters.
///
/// # Errors
/// [`Error::Io`].
pub fn write_filter(dir: &Path, at: &Addresses<'_>, tenants: usize) -> Result<(), Error> {
    write_files(dir, &filter(at), (0..tenants).map(filter_document).collect())
}

fn write_files(dir: &Path, pipeline: &str, documents: Vec<(String, String)>) -> Result<(), Error> {
    let rules = dir.join("rules");
    std::fs::create_dir_all(&rules).map_err(Error::io(&rules))?;
    let file = dir.join("pipeline.yaml");
    std::fs::write(&file, pipeline).map_err(Error::io(&file))?;
    for (name, text) in documents {
        let file = rules.join(name);
        std::fs::write(&file, text).map_err(Error::io(&file))?;
    }
    Ok(())
}
