//! What is measured: one source of the 203-byte event, one table, alerts, billing, and five rules for each tenant. And larger shops, of which
//! [`Size`] says what is larger.

use std::path::Path;

use load_tests::envelope::{AMOUNT_BELOW, tenant};

use crate::error::Error;

/// Of the source.
pub const PARTITIONS: usize = 8;

/// The source, where nothing else is said.
pub const TOPIC: &str = "events";

/// What a pipeline is called and where its parts are.
#[derive(Debug, Clone)]
pub struct Addresses<'a> {
    /// The pipeline, and its database.
    pub name: &'a str,
    /// The source of a pipeline that has one.
    pub topic: &'a str,
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
        topic: TOPIC,
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
        topic,
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
  - {{topic: {topic}, table: events, partitions: {PARTITIONS}}}
tables:
  default: {{partition_by: day, order_by: [tenant_id, type, timestamp]}}
sinks:
  alerts: {{topic: {name}.alerts}}
  billing: {{grpc: \"{billing}\"}}
"
    )
}

/// How large a shop is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Sources, with a topic and a table each.
    pub topics: usize,
    /// Of each topic.
    pub partitions: usize,
    /// Tenants, each with a document of five rules.
    pub tenants: usize,
    /// Different documents: tenants take turns, and those with the same differ by their name alone.
    pub texts: usize,
}

impl Size {
    /// Names of its topics, which are those of its tables, too.
    pub fn topics(&self, name: &str) -> Vec<String> {
        match self.topics {
            1 => vec![name.to_owned()],
            many => (0..many).map(|number| format!("{name}_{number}")).collect(),
        }
    }
}

/// The pipeline file of a shop of this size, whose topics are called so.
pub fn pipeline_of(at: &Addresses<'_>, topics: &str, size: Size) -> String {
    let source = |topic: String| {
        format!(
            "  - {{topic: {topic}, table: {topic}, partitions: {}}}\n",
            size.partitions
        )
    };
    let sources: String = size.topics(topics).into_iter().map(source).collect();
    let one = format!("  - {{topic: {}, table: events, partitions: {PARTITIONS}}}\n", at.topic);
    pipeline(at).replace(&one, &sources)
}

/// Five rules of a tenant, with the numbers of a text: one that drops (nothing), one that masks, one that sets, one that alerts (of one event
/// in about two hundred), one that charges (each payment, one event in five).
fn document(tenant_number: usize, number: usize) -> (String, String) {
    let tenant = tenant(tenant_number);
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

/// The rules of so many tenants, which take turns with so many texts: file name and text.
pub fn documents(tenants: usize, texts: usize) -> Vec<(String, String)> {
    let texts = texts.max(1);
    (0..tenants).map(|tenant| document(tenant, tenant % texts)).collect()
}

/// Without billing: what only filters, and what may not charge.
fn without_billing(at: &Addresses<'_>) -> String {
    let text = pipeline(at);
    let billing = format!("  billing: {{grpc: \"{}\"}}\n", at.billing);
    text.replace(&billing, "")
}

/// Rules of the pipeline that only filters: payments become alerts, and nothing goes further.
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
    write_files(dir, &pipeline(at), documents(tenants, tenants))
}

/// The same of a shop of this size, whose topics are called so.
///
/// # Errors
/// [`Error::Io`].
pub fn write_of(dir: &Path, at: &Addresses<'_>, topics: &str, size: Size) -> Result<(), Error> {
    write_files(dir, &pipeline_of(at, topics, size), documents(size.tenants, size.texts))
}

/// The same of the pipeline that only filters.
///
/// # Errors
/// [`Error::Io`].
pub fn write_filter(dir: &Path, at: &Addresses<'_>, tenants: usize) -> Result<(), Error> {
    write_files(dir, &without_billing(at), (0..tenants).map(filter_document).collect())
}

/// The whole pipeline without billing, and with a guarantee; four rules of each tenant, without the one that charges.
///
/// # Errors
/// [`Error::Io`].
pub fn write_guaranteed(dir: &Path, at: &Addresses<'_>, guarantee: &str, tenants: usize) -> Result<(), Error> {
    let text = format!("guarantee: {guarantee}\n{}", without_billing(at));
    let documents = documents(tenants, tenants).into_iter().map(|(name, text)| {
        let stays = |line: &&str| !line.contains("charge:") && !line.starts_with("meters:");
        let lines: Vec<&str> = text.lines().filter(stays).collect();
        (name, lines.join("\n"))
    });
    write_files(dir, &text, documents.collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_larger_shop_is_a_pipeline_whose_tenants_share_programs() {
        let size = Size {
            topics: 3,
            partitions: 2,
            tenants: 100,
            texts: 20,
        };
        let text = pipeline_of(&Addresses::NOBODY, "grown", size);
        let pipeline = pipeline::check("bench.yaml", &text, Path::new(".")).unwrap();
        let of = |source: &pipeline::Source| (source.topic.clone(), source.partitions);
        let sources: Vec<_> = pipeline.sources.iter().map(of).collect();
        assert_eq!(sources[2], ("grown_2".to_owned(), 2));
        assert_eq!((sources.len(), pipeline.tables.len()), (3, 3));
        let documents = documents(size.tenants, size.texts);
        let rules = |number: usize| documents[number].1.split_once('\n').unwrap().1.to_owned();
        assert_eq!(documents.len(), 100);
        assert_eq!((rules(0), rules(19)), (rules(20), rules(99)));
        assert_ne!(rules(0), rules(1));
    }
}
