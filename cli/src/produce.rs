//! `sluice produce`: events as JSON, one on a line, into a source's topic. For a first event, a test, a repair; services produce
//! with a Kafka client of their own.

use std::io::{BufRead as _, BufReader, Read};
use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, UnionSchema};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use clap::Args;
use pipeline::{SchemaIdFrom, Source};
use rdkafka::message::{Header, OwnedHeaders};

use crate::producer::Producer;
use crate::{Common, Failure, target};

#[derive(Args)]
pub struct ProduceArgs {
    /// The source's topic
    topic: String,
    /// JSON, one event on a line; default: standard input
    file: Option<PathBuf>,
    /// The field whose text becomes the record's key: events of one key stay in order
    #[arg(long, value_name = "FIELD")]
    key: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// How an event becomes a record.
struct Recipe<'a> {
    schema: &'a registry_cache::Schema,
    key: Option<&'a str>,
}

struct Record {
    key: Option<String>,
    payload: Vec<u8>,
}

pub async fn run(args: ProduceArgs) -> Result<(), Failure> {
    let pipeline = target::load(&args.common).await?;
    let Some(source) = pipeline.sources.iter().find(|source| source.topic == args.topic) else {
        let known: Vec<&str> = pipeline.sources.iter().map(|source| source.topic.as_str()).collect();
        let (topic, known) = (&args.topic, known.join(", "));
        return Err(Failure::Error(format!(
            "{topic} is no source of this pipeline; there are: {known}"
        )));
    };
    let versions = workers::worker::registry(&pipeline)?.versions(&source.subject).await?;
    let Some(schema) = versions.last() else {
        let subject = &source.subject;
        return Err(Failure::Error(format!(
            "the registry has no schema `{subject}`: run `sluice schema register {subject} FILE.avsc`"
        )));
    };
    let recipe = Recipe {
        schema,
        key: args.key.as_deref(),
    };
    let input: Box<dyn Read> = match &args.file {
        Some(file) => Box::new(std::fs::File::open(file).map_err(|error| format!("{}: {error}", file.display()))?),
        None => Box::new(std::io::stdin()),
    };
    let producer = Producer::of(&pipeline)?;
    let mut faults = 0_u64;
    let mut failed = None;
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let line = match line {
            Ok(line) => line,
            Err(error) => {
                failed = Some(Failure::from(error));
                break;
            }
        };
        if line.trim().is_empty() {
            continue;
        }
        match recipe.record(&line) {
            Ok(record) => {
                if let Err(error) = send(&producer, source, schema.id, &record) {
                    failed = Some(error);
                    break;
                }
            }
            Err(fault) => {
                faults += 1;
                eprintln!("line {}: {fault}", number + 1);
            }
        }
    }
    let (produced, refused) = producer.finish();
    failed = failed.or(refused);
    if args.common.json {
        let done =
            serde_json::json!({"topic": source.topic, "schema_id": schema.id, "produced": produced, "faults": faults});
        println!("{done}");
    } else {
        println!(
            "{}: events produced: {produced}, with schema id {}",
            source.topic, schema.id
        );
    }
    match failed {
        Some(failure) => Err(failure),
        None if faults > 0 => Err(Failure::Found),
        None => Ok(()),
    }
}

fn send(producer: &Producer, source: &Source, id: u32, record: &Record) -> Result<(), Failure> {
    let header = (source.schema_id == SchemaIdFrom::Header).then(|| id.to_string());
    let mut payload = Vec::new();
    let mut headers = OwnedHeaders::new();
    match &header {
        Some(id) => {
            headers = headers.insert(Header {
                key: &source.schema_id_header,
                value: Some(id),
            });
        }
        None => {
            payload.push(0);
            payload.extend(id.to_be_bytes());
        }
    }
    payload.extend(&record.payload);
    producer.send(&source.topic, record.key.as_deref(), &payload, headers)
}

impl Recipe<'_> {
    fn record(&self, line: &str) -> Result<Record, String> {
        let json: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        if let Some(name) = unknown(&self.schema.avro, &json, "") {
            return Err(format!("the schema has no field `{name}`"));
        }
        let key = match self.key {
            None => None,
            Some(field) => match json.pointer(&format!("/{}", field.replace('.', "/"))) {
                Some(serde_json::Value::String(text)) => Some(text.clone()),
                Some(other) => Some(other.to_string()),
                None => return Err(format!("there is no field `{field}` for the key")),
            },
        };
        let misfit = misfit(&self.schema.avro, &json, "");
        let value = Value::try_from(json).and_then(|value| value.resolve(&self.schema.avro));
        let value = value.map_err(|error| misfit.unwrap_or_else(|| error.to_string()))?;
        let writer = GenericDatumWriter::builder(&self.schema.avro).build();
        let payload = writer.and_then(|writer| writer.write_value_to_vec(value));
        Ok(Record {
            key,
            payload: payload.map_err(|error| error.to_string())?,
        })
    }
}

/// A field that the schema does not have: with a default in its place a slip of the pen would go unnoticed.
fn unknown(schema: &Schema, json: &serde_json::Value, path: &str) -> Option<String> {
    match (schema, json) {
        (Schema::Record(RecordSchema { fields, .. }), serde_json::Value::Object(values)) => {
            values
                .iter()
                .find_map(|(name, value)| match fields.iter().find(|field| field.name == *name) {
                    Some(field) => unknown(&field.schema, value, &below(path, name)),
                    None => Some(below(path, name)),
                })
        }
        (Schema::Union(union), json) => only_record(union).and_then(|record| unknown(record, json, path)),
        (Schema::Array(array), serde_json::Value::Array(items)) => {
            items.iter().find_map(|item| unknown(&array.items, item, path))
        }
        _ => None,
    }
}

/// The first field that is missing or whose value is of another type, and why: the library's own errors name no field.
fn misfit(schema: &Schema, json: &serde_json::Value, path: &str) -> Option<String> {
    match (schema, json) {
        (Schema::Record(RecordSchema { fields, .. }), serde_json::Value::Object(values)) => {
            fields.iter().find_map(|field| {
                let path = below(path, &field.name);
                match values.get(&field.name) {
                    Some(value) => misfit(&field.schema, value, &path),
                    None => field
                        .default
                        .is_none()
                        .then(|| format!("the field `{path}` is missing")),
                }
            })
        }
        (Schema::Union(union), serde_json::Value::Object(_)) if only_record(union).is_some() => {
            only_record(union).and_then(|record| misfit(record, json, path))
        }
        // A named type that is defined elsewhere cannot be resolved by itself.
        (Schema::Ref { .. }, _) => None,
        (schema, json) => {
            let value = Value::try_from(json.clone()).and_then(|value| value.resolve(schema));
            value.err().map(|error| format!("the field `{path}`: {error}"))
        }
    }
}

fn below(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The one record that a union offers.
fn only_record(union: &UnionSchema) -> Option<&Schema> {
    let mut records = union
        .variants()
        .iter()
        .filter(|variant| matches!(variant, Schema::Record(_)));
    records.next().filter(|_| records.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READING: &str = r#"{"type": "record", "name": "Reading", "fields": [
        {"name": "reading_id", "type": "string"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "sensor", "type": {"type": "record", "name": "Sensor", "fields": [
            {"name": "kind", "type": "string"},
            {"name": "celsius", "type": ["null", "double"], "default": null}]}}]}"#;

    fn unknown_of(text: &str) -> Option<String> {
        let schema = Schema::parse_str(READING).unwrap();
        unknown(&schema, &serde_json::from_str(text).unwrap(), "")
    }

    #[test]
    fn a_field_that_is_missing_or_of_another_type_is_named() {
        let schema = Schema::parse_str(READING).unwrap();
        let misfit = |text: &str| misfit(&schema, &serde_json::from_str(text).unwrap(), "");
        let right = r#"{"reading_id": "a", "at": 1, "sensor": {"kind": "x", "celsius": 1.5}}"#;
        assert_eq!(misfit(right), None);
        let missing = r#"{"reading_id": "a", "at": 1, "sensor": {}}"#;
        assert_eq!(misfit(missing), Some("the field `sensor.kind` is missing".to_owned()));
        let wrong = misfit(r#"{"reading_id": 5, "at": 1, "sensor": {"kind": "x"}}"#).unwrap();
        assert!(wrong.starts_with("the field `reading_id`: "), "{wrong}");
    }

    #[test]
    fn a_field_that_the_schema_lacks_is_named() {
        assert_eq!(
            unknown_of(r#"{"reading_id": "a", "sensor": {"kind": "x", "celsius": 1.5}}"#),
            None
        );
        assert_eq!(
            unknown_of(r#"{"sensor": {"kind": "x", "celcius": 1.5}}"#),
            Some("sensor.celcius".to_owned())
        );
        assert_eq!(unknown_of(r#"{"id": "a"}"#), Some("id".to_owned()));
    }
}
