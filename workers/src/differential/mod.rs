//! The whole pure path, from a record's bytes to what every sink gets, beside the slow and obvious one: `apache-avro`'s values, one event after
//! the other. Schemas, events and rules are made at random.

mod document;
mod expression;
mod slow;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use exactly_once_protocol::Partition;
use pipeline::shape::Shape;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use prost::Message;
use proto::delivery::v1::Part;
use rules::Revision;

use crate::collect::{Collector, Position, Refusal, Stage};
use crate::decode::Plan;
use crate::decode::tests::encode;
use crate::decode::tests::generate::{self, Choices, Model as Type};
use crate::decode::tests::oracle::{self, Cell};
use crate::frame::frame;
use crate::model::Model;
use crate::transform::{Outputs, transform};
use document::Rule;
use expression::Known;

const NOW_MS: i64 = 1_795_228_766_362;
const DAY_MS: i64 = 86_400_000;
const SCHEMA_ID: u32 = 7;
const REVISION: u64 = 3;
const PARTITIONS: i32 = 3;
const PIPELINE: &str = r#"pipeline: shop
start: earliest
connections:
  kafka: {brokers: ["127.0.0.1:9092"]}
  registry: {url: "http://127.0.0.1:8081"}
  clickhouse: {url: "http://127.0.0.1:8123", database: shop}
  rules: {dir: ./rules}
event: {id: event_id, tenant: tenant_id, type: kind, time: happened, accept: {past: 400d, future: 24h}}
sources:
  - {topic: events, table: main, partitions: 3}
tables:
  second: {like: main}
sinks:
  alerts: {topic: shop.alerts}
  billing: {grpc: "http://127.0.0.1:9"}
"#;
const ENVELOPE: [&str; 4] = ["event_id", "tenant_id", "kind", "happened"];
/// Faults of which `apache-avro` knows nothing: limits.
const LIMITS: [&str; 3] = ["too_large", "too_deep", "decimal_out_of_range"];

/// What has to come of some event at least.
const EVERYTHING: [&str; 12] = [
    "decode",
    "event",
    "rows",
    "second",
    "dropped",
    "alerts",
    "charges",
    "overflow",
    "divide_by_zero",
    "null_value",
    "rules at when",
    "rules at quantity",
];

/// Everything that comes of one record.
#[derive(Debug, Default, PartialEq)]
struct Event {
    /// Stage, code and field.
    dead: Option<(&'static str, String, String)>,
    /// By the place of the table among the event's routes.
    rows: Vec<(String, Vec<Cell>)>,
    /// Key and JSON.
    alerts: Vec<(String, serde_json::Value)>,
    charges: Vec<Charged>,
}

impl Event {
    /// How many outputs a range counts for it.
    fn outputs(&self) -> usize {
        usize::from(self.dead.is_some()) + self.rows.len() + self.alerts.len() + self.charges.len()
    }
}

#[derive(Debug, PartialEq)]
struct Charged {
    id: String,
    tenant: String,
    event_id: String,
    rule: String,
    quantity: i64,
}

/// What is known of a record besides its columns.
struct Record<'a> {
    partition: i32,
    offset: i64,
    id: &'a String,
    tenant: &'a String,
    time: i64,
}

/// By partition and offset.
type Events = BTreeMap<(i32, i64), Event>;

struct World {
    schema: Schema,
    plan: Plan,
    model: Model,
    payloads: Vec<Vec<u8>>,
}

/// The envelope, something that rules can work with, and whatever else.
fn fields(choices: &mut Choices<'_>) -> Vec<(String, Type)> {
    let Type::Record(_, mut fields) = generate::event(choices) else {
        unreachable!("an event is a record");
    };
    let optional = |plain: Type| Type::Union(vec![Type::Scalar("null"), plain]);
    let texts = || Type::Map(Box::new(Type::Scalar("string")));
    let mut more = vec![
        ("n".to_owned(), Type::Scalar("long")),
        ("t".to_owned(), Type::Scalar("string")),
    ];
    let useful = [
        ("n2", optional(Type::Scalar("long"))),
        ("n3", Type::Scalar("int")),
        ("t2", optional(Type::Scalar("string"))),
        ("b", Type::Scalar("boolean")),
        ("b2", optional(Type::Scalar("boolean"))),
        ("m", texts()),
        ("m2", optional(texts())),
    ];
    for (name, kind) in useful {
        if choices.pick(2) == 1 {
            more.push((name.to_owned(), kind));
        }
    }
    more.push(("event_id".to_owned(), Type::Scalar("string")));
    more.push(("tenant_id".to_owned(), Type::Scalar("string")));
    more.push(("kind".to_owned(), Type::Scalar("string")));
    more.push(("happened".to_owned(), Type::Logical("long", "timestamp-millis")));
    for field in more {
        let at = choices.pick(fields.len() + 1);
        fields.insert(at, field);
    }
    fields
}

/// A value, mostly with an envelope that is accepted.
fn value(kind: &Type, number: usize, choices: &mut Choices<'_>) -> Value {
    let Value::Record(mut fields) = generate::value(kind, choices) else {
        unreachable!("an event is a record");
    };
    for (name, value) in &mut fields {
        match (name.as_str(), value) {
            ("event_id", Value::String(id)) => {
                *id = if choices.pick(12) == 11 {
                    String::new()
                } else {
                    format!("e{number}")
                }
            }
            ("tenant_id", Value::String(tenant)) => {
                *tenant = ["a", "b", "a", "c", "a", "b", ""][choices.pick(7)].to_owned()
            }
            ("happened", Value::TimestampMillis(time)) => {
                let days = [0, -1, 0, -399, 0, -401, 0, 2][choices.pick(8)];
                *time = NOW_MS + days * DAY_MS - i64::try_from(number).unwrap();
            }
            // Small enough for arithmetic that succeeds, now and then.
            ("n" | "n2", Value::Long(number)) if choices.pick(3) > 0 => *number %= 100,
            ("m", Value::Map(entries)) => {
                for key in expression::KEYS {
                    if choices.pick(2) == 1 {
                        entries.insert(
                            key.to_owned(),
                            Value::String(["a", "éa", "", "7"][choices.pick(4)].to_owned()),
                        );
                    }
                }
            }
            _ => {}
        }
    }
    Value::Record(fields)
}

fn world(types: &[u8], events: &[u8]) -> World {
    let mut types = Choices::new(types);
    let kind = Type::Record("Event".to_owned(), fields(&mut types));
    let schema = Schema::parse(&generate::schema(&kind)).unwrap();
    let shape = Shape::of(std::slice::from_ref(&schema)).unwrap();
    let plan = Plan::compile(&schema, &shape).unwrap();
    let pipeline = pipeline::check("pipeline.yaml", PIPELINE, Path::new(".")).unwrap();
    let model = Model::new(Arc::new(pipeline), vec![shape], 1).unwrap();
    let mut events = Choices::new(events);
    let payload = |number| {
        let mut payload = encode(&schema, &value(&kind, number, &mut events));
        match events.pick(16) {
            14 => payload.truncate(events.pick(payload.len() + 1)),
            15 => {
                let at = events.pick(payload.len());
                payload[at] ^= 1 << events.pick(8);
            }
            _ => {}
        }
        payload
    };
    World {
        payloads: (0..12).map(payload).collect(),
        schema,
        plan,
        model,
    }
}

fn place(number: usize) -> (i32, i64) {
    let number = i64::try_from(number).unwrap();
    let partition = number % i64::from(PARTITIONS);
    (i32::try_from(partition).unwrap(), 100 + number / i64::from(PARTITIONS))
}

fn partition(number: i32) -> Partition {
    Partition {
        topic: 0,
        partition: number,
    }
}

/// As a lane does it. Says which events broke a limit, too.
fn fast(world: &World, revision: &Revision) -> (Outputs, Vec<bool>) {
    let source = &world.model.pipeline.sources[0];
    let mut collector = Collector::default();
    let mut limited = Vec::new();
    for (number, payload) in world.payloads.iter().enumerate() {
        let (of, offset) = place(number);
        let framed = [&[0][..], &SCHEMA_ID.to_be_bytes(), payload].concat();
        let (schema_id, body) = frame(source, Some(&framed), None).unwrap();
        let record = crate::collect::Record {
            position: Position {
                partition: partition(of),
                offset,
                timestamp_ms: NOW_MS,
                schema_id,
            },
            key: None,
            value: Some(&framed),
            headers: Vec::new(),
        };
        collector.cover(partition(of), offset, offset);
        let decoded = world.plan.decode(collector.columns(&world.model, 0), body);
        limited.push(matches!(&decoded, Err(error) if LIMITS.contains(&error.code)));
        match decoded {
            Ok(()) => collector.row(&world.model, 0, record),
            Err(error) => collector.dead(
                record,
                Refusal {
                    stage: Stage::Decode,
                    code: error.code.to_owned(),
                    reason: error.to_string(),
                    field: String::new(),
                    attempts: 1,
                    schema_id: Some(schema_id),
                    tenant: String::new(),
                },
            ),
        }
    }
    let outputs = transform(&world.model, revision, collector.close().unwrap()).unwrap();
    (outputs, limited)
}

/// Event by event.
fn sorted(world: &World, outputs: &Outputs) -> Events {
    let mut events: Events = (0..world.payloads.len())
        .map(|number| (place(number), Event::default()))
        .collect();
    for letter in &outputs.dead {
        let event = events.get_mut(&(letter.partition.partition, letter.offset)).unwrap();
        let refusal = &letter.refusal;
        // What does not decode has many names.
        let code = match refusal.stage {
            Stage::Decode => String::new(),
            _ => refusal.code.clone(),
        };
        let why = (refusal.stage.name(), code, refusal.field.clone());
        assert_eq!(event.dead.replace(why), None, "two dead letters of one event");
    }
    let mut rows: BTreeMap<((i32, i64), u16), (String, Vec<Cell>)> = BTreeMap::new();
    for table in &outputs.tables {
        let name = &world.model.pipeline.tables[table.table].name;
        for row in table.rows.iter().map(|row| *row as usize) {
            let at = (table.positions.partition[row], table.positions.offset[row]);
            let cells = oracle::batch_row(&world.model.shapes[0], &table.batch, row);
            let there = rows.insert((at, table.index[row]), (name.clone(), cells));
            assert!(there.is_none(), "two rows of one place: {there:?}");
        }
    }
    for ((at, index), row) in rows {
        let event = events.get_mut(&at).unwrap();
        assert_eq!(usize::from(index), event.rows.len());
        event.rows.push(row);
    }
    for alert in outputs.alerts.iter() {
        let json: serde_json::Value = serde_json::from_slice(&alert.value).unwrap();
        let id: Vec<&str> = json["id"].as_str().unwrap().split('/').collect();
        let event = events
            .get_mut(&(id[1].parse().unwrap(), id[2].parse().unwrap()))
            .unwrap();
        let key = String::from_utf8(alert.key.clone()).unwrap();
        event.alerts.push((key, json));
    }
    for (partition, charges) in &outputs.charges {
        for charge in Part::decode(charges.written()).unwrap().charges {
            let event = events.get_mut(&(partition.partition, charge.offset)).unwrap();
            assert_eq!(
                (charge.meter.as_str(), charge.unit.as_str(), charge.scale),
                ("m", "x", 1)
            );
            event.charges.push(Charged {
                id: charge.id,
                tenant: charge.tenant,
                event_id: charge.event_id,
                rule: charge.rule,
                quantity: charge.quantity,
            });
        }
    }
    events
}

/// What has to come of them.
fn expected(world: &World, known: &Known<'_>, rules: &BTreeMap<&str, Vec<Rule>>, limited: &[bool]) -> Events {
    let index = |name: &str| known.shape.index(name).unwrap();
    let [id, tenant, _, time] = ENVELOPE.map(index);
    let one = |(number, payload): (usize, &Vec<u8>)| {
        let (partition, offset) = place(number);
        let refused = |stage, code: &str, field: &str| Event {
            dead: Some((stage, code.to_owned(), field.to_owned())),
            ..Event::default()
        };
        let decoded = oracle::decode(&world.schema, payload).filter(|_| !limited[number]);
        let Some(value) = decoded else {
            return ((partition, offset), refused("decode", "", ""));
        };
        let cells = oracle::row(known.shape, &value);
        let (Cell::Text(id), Cell::Text(tenant), Cell::Int(time)) = (&cells[id], &cells[tenant], &cells[time]) else {
            panic!("no envelope: {cells:?}");
        };
        let time = i64::try_from(*time).unwrap();
        let (id, tenant) = (id.clone(), tenant.clone());
        let event = if id.is_empty() {
            refused("event", "no_event_id", "event_id")
        } else if tenant.is_empty() {
            refused("event", "no_tenant", "tenant_id")
        } else if !(NOW_MS - 400 * DAY_MS..=NOW_MS + DAY_MS).contains(&time) {
            refused("event", "time_out_of_range", "happened")
        } else {
            let of_tenant = rules.get(tenant.as_str()).or_else(|| rules.get("*"));
            let record = Record {
                partition,
                offset,
                id: &id,
                tenant: &tenant,
                time,
            };
            slow::event(known, of_tenant.map_or(&[], Vec::as_slice), cells, &record)
        };
        ((partition, offset), event)
    };
    world.payloads.iter().enumerate().map(one).collect()
}

type Bytes = Vec<u8>;

/// How often something came of an event.
#[derive(Debug, Default)]
struct Seen(BTreeMap<String, usize>);

impl Seen {
    fn count(&mut self, event: &Event) {
        let mut seen = |what: &str, times: usize| *self.0.entry(what.to_owned()).or_default() += times;
        match &event.dead {
            Some((stage @ ("decode" | "event"), _, _)) => seen(stage, 1),
            Some((_, code, field)) => {
                seen(code, 1);
                seen(&format!("rules at {field}"), 1);
            }
            None if event.rows.is_empty() => seen("dropped", 1),
            None => seen("rows", event.rows.len()),
        }
        seen(
            "second",
            event.rows.iter().filter(|(table, _)| table == "second").count(),
        );
        seen("alerts", event.alerts.len());
        seen("charges", event.charges.len());
    }
}

fn check((types, documents, events): &(Bytes, Bytes, Bytes), seen: &RefCell<Seen>) -> Result<(), TestCaseError> {
    let world = world(types, events);
    let known = Known::new(&world.model.shapes[0], &ENVELOPE);
    let mut documents = Choices::new(documents);
    let everybody = if documents.pick(4) == 3 { "*" } else { "b" };
    let rules: BTreeMap<&str, Vec<Rule>> = ["a", everybody]
        .map(|tenant| (tenant, document::rules(&mut documents, &known)))
        .into();
    let texts: Vec<(String, String)> = rules
        .iter()
        .map(|(tenant, rules)| (format!("{tenant}.yaml"), document::yaml(tenant, rules, &known)))
        .collect();
    let revision = Revision::compile(REVISION, &texts, &world.model.catalog).map_err(|faults| {
        let faults: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        TestCaseError::fail(faults + &texts[0].1 + &texts[1].1)
    })?;
    let (outputs, limited) = fast(&world, &revision);
    let (found, expected) = (sorted(&world, &outputs), expected(&world, &known, &rules, &limited));
    prop_assert_eq!(&found, &expected, "{}{}", &texts[0].1, &texts[1].1);
    for range in &outputs.ranges {
        let of = range.range.partition.partition;
        let count: usize = expected
            .iter()
            .filter(|((at, _), _)| *at == of)
            .map(|(_, event)| event.outputs())
            .sum();
        prop_assert_eq!(usize::try_from(range.outputs).unwrap(), count, "partition {}", of);
    }
    expected.values().for_each(|event| seen.borrow_mut().count(event));
    Ok(())
}

/// `PROPTEST_CASES=50000` looks longer.
fn cases() -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(1000)
}

#[test]
fn every_sink_gets_what_the_slow_way_gives() {
    let config = ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
    let seen = RefCell::default();
    TestRunner::new(config)
        .run(&(bytes(150), bytes(400), bytes(1200)), |input| check(&input, &seen))
        .unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner().0;
    println!("{seen:#?}");
    // Two ways that agree because nothing happens would say nothing.
    for what in EVERYTHING {
        assert!(
            seen.get(what).is_some_and(|times| *times > 0),
            "nothing of {what} in {seen:#?}"
        );
    }
}
