use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::{Brake, Function, Kafka, Keep, Measure, PartitionBy, RulesFrom, SaslMechanism, SchemaIdFrom, Secret};

/// The least that makes a pipeline; tests put lines behind it.
const LEAST: &str = "\
pipeline: shop
start: latest
event: {id: event_id, tenant: tenant_id, time: occurred_at}
sources:
  - {topic: order.created, table: orders}
";

fn checked(text: &str) -> Pipeline {
    check("p.yaml", text, Path::new("/etc/shop")).unwrap_or_else(|faults| panic!("{}", printed(&faults)))
}

fn printed(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{fault}\n")).collect()
}

fn faults(text: &str) -> String {
    printed(&check("p.yaml", text, Path::new("/etc/shop")).unwrap_err())
}

/// The faults of [`LEAST`] with more lines behind it.
fn faults_with(more: &str) -> String {
    faults(&format!("{LEAST}{more}"))
}

/// The sample of the design, as it was handed to us.
const SAMPLE: &str = r#"
pipeline: shop             # names group, transactional ids, insert tokens: never rename a live one
start: latest              # where the group has no offset: earliest | latest | RFC 3339 time. Required.
connections:               # secrets by file only: password_file, ca_file, cert_file, key_file
  kafka:      {brokers: ["localhost:9092"]}      # tls: {...}, sasl: {mechanism: SCRAM-SHA-512, ...}
  registry:   {url: "http://localhost:8081", cache: {entries_max: 1000, ttl: 10m, snapshot_dir: ./state/schemas}}
  clickhouse: {url: "http://localhost:8123", database: shop}
  rules:      {url: "http://localhost:7300"}     # or {dir: ./rules}: no config service on one machine
event: {id: event_id, tenant: tenant_id, type: type, time: occurred_at, accept: {past: 400d, future: 24h}}
sources:                   # schema_id: auto (default) | prefix | header; `event` may be overridden here
  - {topic: order.created,     table: orders}
  - {topic: payment.processed, table: payments, schema_id: header}
tables:                    # columns come from the Avro schema (context_page_url, ...); `schema plan` shows the DDL
  default:    {partition_by: day, order_by: [tenant_id, type, occurred_at], keep: 13 months}
  orders_vip: {like: orders}
rollups:
  - {name: orders_minute, from: orders, every: 1m, by: [tenant_id, currency], measures: {events: uniq(event_id), revenue: sum(amount_minor)}}
sinks:
  alerts:  {topic: shop.alerts}
  billing: {grpc: "http://localhost:7400", message_bytes_max: 32MiB}   # any service that speaks sluice.delivery.v1
dead_letters: {topic: "{topic}.dlq", attempts: 3, brake: {share: 0.5, over_events: 1000}}
batch:  {linger: 40ms, age_max: 500ms, rows: 5000, rows_max: 131072, bytes_max: 48MiB}
limits: {event_bytes_max: 1MiB, in_flight_rows_max: 400000, in_flight_bytes_max: 256MiB, resume_below: 0.5}
serve:  {listen: "127.0.0.1:7301"}               # /metrics /healthz /readyz
"#;

#[test]
fn the_sample_of_the_design_says_what_it_seems_to_say() {
    let pipeline = checked(SAMPLE);
    assert_eq!(pipeline.name, "shop");
    assert_eq!(pipeline.start, Start::Latest);
    let Kafka {
        brokers,
        tls,
        sasl,
        properties,
    } = pipeline.connections.kafka.clone().unwrap();
    assert_eq!(
        (brokers, tls, sasl, properties.len()),
        (vec!["localhost:9092".to_owned()], None, None, 0)
    );
    let registry = &pipeline.connections.registry;
    assert_eq!(registry.url.as_deref(), Some("http://localhost:8081"));
    assert_eq!((registry.entries_max, registry.ttl), (1000, Duration::from_secs(600)));
    assert_eq!(registry.snapshot_dir, PathBuf::from("/etc/shop/state/schemas"));
    assert_eq!(pipeline.connections.clickhouse.database, "shop");
    let service = RulesFrom::Service {
        url: "http://localhost:7300".to_owned(),
        tls: None,
    };
    assert_eq!(pipeline.connections.rules, service);

    let [orders, payments] = &pipeline.sources[..] else {
        panic!("{:?}", pipeline.sources)
    };
    assert_eq!(
        (orders.topic.as_str(), orders.name.as_str(), orders.table),
        ("order.created", "order.created", 0)
    );
    assert_eq!(
        (orders.schema_id, payments.schema_id),
        (SchemaIdFrom::Auto, SchemaIdFrom::Header)
    );
    assert_eq!(payments.schema_id_header, "schema-id");
    assert_eq!(
        (payments.subject.as_str(), payments.partitions),
        ("payment.processed-value", 8)
    );
    assert_eq!(payments.dead_letter_topic, "payment.processed.dlq");
    assert_eq!(orders.event.event_type.as_deref(), Some("type"));
    assert_eq!(orders.event.accept_past, Duration::from_secs(400 * 86_400));
    assert_eq!(orders.event.accept_future, Duration::from_secs(86_400));

    let names: Vec<_> = pipeline
        .tables
        .iter()
        .map(|table| (table.name.as_str(), table.source))
        .collect();
    assert_eq!(names, [("orders", 0), ("payments", 1), ("orders_vip", 0)]);
    let vip = &pipeline.tables[2];
    assert_eq!(vip.like.as_deref(), Some("orders"));
    assert_eq!(vip.order_by, ["tenant_id", "type", "occurred_at"]);
    assert_eq!(vip.low_cardinality, ["tenant_id", "type"]);
    assert_eq!((vip.partition_by, vip.keep), (PartitionBy::Day, Some(Keep::Months(13))));
    assert_eq!(vip.dedup_window, 10_000);

    let [rollup] = &pipeline.rollups[..] else {
        panic!("{:?}", pipeline.rollups)
    };
    assert_eq!((rollup.from, rollup.every), (0, Duration::from_secs(60)));
    let measure = |name: &str, function, column: &str| Measure {
        name: name.to_owned(),
        function,
        column: Some(column.to_owned()),
    };
    let expected = [
        measure("events", Function::Uniq, "event_id"),
        measure("revenue", Function::Sum, "amount_minor"),
    ];
    assert_eq!(rollup.measures, expected);

    let alerts = pipeline.sinks.alerts.as_ref().unwrap();
    assert_eq!((alerts.topic.as_str(), alerts.partitions), ("shop.alerts", 1));
    let [billing] = &pipeline.sinks.grpc[..] else {
        panic!("{:?}", pipeline.sinks)
    };
    assert_eq!(
        (billing.name.as_str(), billing.message_bytes_max),
        ("billing", 32 << 20)
    );
    assert_eq!(
        pipeline.dead_letters.brake,
        Brake {
            share: 0.5,
            over_events: 1000
        }
    );
}

#[test]
fn what_the_sample_spells_out_is_the_default() {
    let least = checked(&SAMPLE.lines().take(19).collect::<Vec<_>>().join("\n"));
    let full = checked(SAMPLE);
    assert_eq!(
        (
            least.dead_letters,
            least.batch,
            least.limits,
            least.serve,
            least.workers
        ),
        (full.dead_letters, full.batch, full.limits, full.serve, full.workers)
    );
    assert_eq!(least.sources, full.sources);
    assert_eq!(least.tables, full.tables);
}

#[test]
fn a_pipeline_is_exactly_once_unless_it_says_otherwise() {
    let with = |line: &str| format!("{LEAST}{line}\n");
    assert_eq!(checked(LEAST).guarantee, Guarantee::ExactlyOnce);
    let exactly = checked(&with("guarantee: exactly_once"));
    assert_eq!(exactly, checked(LEAST));
    let at_least = checked(&with("guarantee: at_least_once"));
    assert_eq!(at_least.guarantee, Guarantee::AtLeastOnce);
    assert_eq!(at_least.revision, exactly.revision, "the same rows come out");
    insta::assert_snapshot!(faults_with("guarantee: exacly_once\n"), @"p.yaml:6:12: guarantee: should be exactly_once or at_least_once, is `exacly_once`");
}

#[test]
fn a_sink_that_charges_is_refused_where_an_event_may_come_twice() {
    let text = "guarantee: at_least_once\nsinks: {alerts: {topic: a}, billing: {grpc: \"http://localhost:7400\"}}\n";
    insta::assert_snapshot!(faults_with(text), @"p.yaml:7:29: sinks.billing: a charge is never applied twice: gRPC sinks need `guarantee: exactly_once`");
}

#[test]
fn the_alert_topic_gets_as_many_partitions_as_the_file_says() {
    let pipeline = checked(&format!("{LEAST}sinks: {{alerts: {{topic: a, partitions: 4}}}}\n"));
    assert_eq!(pipeline.sinks.alerts.unwrap().partitions, 4);
    insta::assert_snapshot!(faults_with("sinks: {alerts: {topic: a, partitions: 0}}\n"), @"p.yaml:6:40: sinks.alerts.partitions: should be a whole number from 1 to 10000, is 0");
}

#[test]
fn the_least_pipeline_leaves_addresses_to_the_local_stack() {
    let pipeline = checked(LEAST);
    assert_eq!(pipeline.connections.kafka, None);
    assert_eq!(pipeline.connections.registry.url, None);
    assert_eq!(
        pipeline.connections.registry.snapshot_dir,
        PathBuf::from("/etc/shop/state/schemas")
    );
    let clickhouse = &pipeline.connections.clickhouse;
    assert_eq!(
        (
            clickhouse.url.as_deref(),
            clickhouse.database.as_str(),
            clickhouse.user.as_str(),
            clickhouse.compression
        ),
        (None, "shop", "default", None)
    );
    assert_eq!(pipeline.connections.rules, RulesFrom::None);
    assert_eq!(pipeline.tables[0].order_by, ["tenant_id", "occurred_at"]);
    assert_eq!(
        pipeline.workers,
        Workers {
            lanes: None,
            state_dir: PathBuf::from("/etc/shop/state")
        }
    );
    assert_eq!(
        checked(&LEAST.replace("shop", "my-shop.2"))
            .connections
            .clickhouse
            .database,
        "my_shop_2"
    );
    assert_eq!(
        checked(&LEAST.replace("shop", "2shop")).connections.clickhouse.database,
        "sluice_2shop"
    );
}

#[test]
fn three_mistakes_are_reported_at_once_with_their_places() {
    let text = "\
pipeline: shop
start: lastest
event: {id: event_id, tenant: tenant_id, type: type, time: occurred_at}
sources:
  - {topic: order.created, table: orders, schemaid: header}
limits:
  session_timeout: 6s
";
    insta::assert_snapshot!(faults(text), @r"
    p.yaml:2:8: start: should be earliest, latest, or a time such as 2026-01-31T00:00:00Z
    p.yaml:5:43: sources[0].schemaid: the key `schemaid` is not known; did you mean `schema_id`?
    p.yaml:7:20: limits.session_timeout: `transaction_timeout` (8s) has to be shorter than `session_timeout` (6s)
    ");
}

#[test]
fn an_empty_file_says_what_a_pipeline_needs() {
    assert_eq!(
        faults(""),
        "p.yaml:1:1: should be a mapping of keys to values, is empty\n"
    );
    insta::assert_snapshot!(faults("serve: {listen: 7301}\n"), @r"
    p.yaml:1:1: `pipeline` is missing
    p.yaml:1:1: `start` is missing
    p.yaml:1:1: `sources` is missing
    p.yaml:1:17: serve.listen: should be text, is a number; put it into quotes
    ");
}

#[test]
fn settings_that_contradict_each_other_are_refused() {
    insta::assert_snapshot!(faults_with("\
batch: {linger: 600ms, rows: 140000, bytes_max: 512KiB, deadline: 90s, grace: 2s, rollup_every: 2m}
limits: {in_flight_rows_max: 60000, transaction_timeout: 20s, session_timeout: 20s, poll_interval_max: 15s, resume_below: 1}
"), @r#"
    p.yaml:6:17: batch.linger: `linger` (600ms) can't be longer than `age_max` (500ms)
    p.yaml:6:30: batch.rows: `rows` (140000) can't be more than `rows_max` (131072)
    p.yaml:6:49: batch.bytes_max: `event_bytes_max` (1MiB) can't be larger than `bytes_max` (512KiB)
    p.yaml:6:67: batch.deadline: `deadline` (90s) has to be shorter than `poll_interval_max` (15s)
    p.yaml:6:97: batch.rollup_every: should be at most 1m: what gathers is fed at once
    p.yaml:7:30: limits.in_flight_rows_max: `rows_max` (131072) can't be more than `in_flight_rows_max` (60000)
    p.yaml:7:58: limits.transaction_timeout: `transaction_timeout` (20s) has to be shorter than `session_timeout` (20s)
    p.yaml:7:80: limits.session_timeout: `session_timeout` (20s) has to be shorter than `poll_interval_max` (15s)
    p.yaml:7:123: limits.resume_below: should be above 0 and below 1
    "#);
}

#[test]
fn a_value_that_was_not_understood_is_not_compared() {
    insta::assert_snapshot!(faults_with("limits: {transaction_timeout: fast, session_timeout: 3s}\n"), @"p.yaml:6:31: limits.transaction_timeout: `fast` is not understood; a duration is a whole number with a unit: ms, s, m, h or d, such as 40ms");
}

#[test]
fn topics_tables_and_rollups_that_get_into_each_others_way_are_refused() {
    let text = "\
pipeline: shop
start: latest
event: {id: event_id, tenant: tenant_id, time: occurred_at}
sources:
  - {topic: a, table: orders}
  - {topic: a, table: orders}
  - {topic: a.dlq, table: default}
  - {topic: c, name: a, table: c}
tables:
  order: {keep: 1 year}
  vip: {like: ordres}
  viper: {like: vip}
  9to5: {like: c}
  orders: {like: orders, order_by: []}
rollups:
  - {name: orders, from: order, every: 7s, measures: {}}
  - {name: m, from: vip, every: 1m, by: [a, a], measures: {x: avg(b), y: sum(), a: count(), z: count(b), w: sum(b c)}}
  - {name: m, from: orders, every: 1500ms, measures: {n: count()}}
sinks:
  alerts: {topic: a}
  alert: {topic: b}
  billing: {grpc: localhost:7400}
";
    insta::assert_snapshot!(faults(text), @r#"
    p.yaml:6:13: sources[1].topic: the topic `a` has a source already
    p.yaml:6:23: sources[1].table: the table `orders` is filled from `a` already; a table has the columns of one source
    p.yaml:7:13: sources[2].topic: `a.dlq` is where the dead letters of `a` go
    p.yaml:7:27: sources[2].table: `default` is what all tables have in common; name the table otherwise
    p.yaml:8:22: sources[3].name: another source is called `a` already; rules could not tell them apart
    p.yaml:10:3: tables.order: no source fills this table; did you mean `orders`?
    p.yaml:11:15: tables.vip.like: there is no table `ordres`; did you mean `orders`?
    p.yaml:12:17: tables.viper.like: there is no table `vip`; there are orders, c
    p.yaml:13:3: tables.9to5: should begin with a letter and have only a-z, A-Z, 0-9 and `_`, at most 127 of them
    p.yaml:14:12: tables.orders.like: a source fills this table; `like` is for tables to which only rules route rows
    p.yaml:14:36: tables.orders.order_by: a table needs at least one column to be ordered by
    p.yaml:16:12: rollups[0].name: `orders` is a table already
    p.yaml:16:40: rollups[0].every: should be whole seconds that divide a day: 1s, 10s, 1m, 5m, 1h, 1d
    p.yaml:16:54: rollups[0].measures: a rollup needs at least one measure, such as `events: count()`
    p.yaml:17:45: rollups[1].by[1]: `a` is in this list already
    p.yaml:17:63: rollups[1].measures.x: should be a function of a column, such as sum(amount_minor); there are uniq, uniqCombined, sum, count, min, max
    p.yaml:17:74: rollups[1].measures.y: `sum` needs a column: sum(amount_minor)
    p.yaml:17:81: rollups[1].measures.a: `a` is a column of `by` already
    p.yaml:17:96: rollups[1].measures.z: `count()` counts rows and takes no column
    p.yaml:17:109: rollups[1].measures.w: `b c` should be a field, or a path of fields such as context.page.url
    p.yaml:18:12: rollups[2].name: `m` is a rollup already
    p.yaml:18:36: rollups[2].every: should be whole seconds that divide a day: 1s, 10s, 1m, 5m, 1h, 1d
    p.yaml:20:19: sinks.alerts.topic: `a` is a source of this pipeline; alerts need a topic of their own
    p.yaml:21:3: sinks.alert: the sink `alert` has no `grpc` address; did you mean `alerts`?
    p.yaml:22:19: sinks.billing.grpc: should be an address that begins with http:// or https://
    "#);
}

#[test]
fn each_source_needs_to_know_which_fields_mean_what() {
    let text = "\
pipeline: shop
start: 2026-01-31T12:00:00.5+01:00
event: {tenant: tenant_id, time: 9}
sources:
  - {topic: a, table: a}
  - {topic: b, table: b, event: {id: meta.uid, time: meta.at, type: kind, accept: {past: 1h}}}
";
    insta::assert_snapshot!(faults(text), @r#"
    p.yaml:3:34: event.time: should be text, is a number; put it into quotes
    p.yaml:5:5: sources[0]: which field is the event's id? name it as `event: {id: ...}`, here or for the whole pipeline
    "#);
    let pipeline = checked(&text.replace("{tenant: tenant_id, time: 9}", "{id: id, tenant: tenant_id, time: at}"));
    assert_eq!(pipeline.start, Start::At(1_769_857_200_500));
    let [a, b] = &pipeline.sources[..] else { panic!() };
    assert_eq!(
        (
            a.event.id.as_str(),
            a.event.time.as_str(),
            a.event.event_type.as_deref()
        ),
        ("id", "at", None)
    );
    assert_eq!(
        (b.event.id.as_str(), b.event.time.as_str(), b.event.tenant.as_str()),
        ("meta.uid", "meta.at", "tenant_id")
    );
    assert_eq!(
        (b.event.accept_past, b.event.accept_future),
        (Duration::from_secs(3600), Duration::from_secs(86_400))
    );
    assert_eq!(pipeline.tables[1].order_by, ["tenant_id", "kind", "meta_at"]);
}

#[test]
fn secrets_and_certificates_are_named_by_file() {
    let pipeline = checked(&format!(
        "{LEAST}{}",
        "\
connections:
  kafka:
    brokers: [a:1, '[::1]:9092']
    tls: {ca_file: ca.pem, cert_file: /c.pem, key_file: ./k.pem}
    sasl: {mechanism: SCRAM-SHA-512, user: u, password_file: secrets/kafka}
    properties: {fetch.min.bytes: 1, client.rack: eu}
  registry: {url: 'https://r/', user: u, password_file: p, tls: {}}
  clickhouse: {url: 'https://c', user: w, password_file: p}
  rules: {dir: rules}
workers: {lanes: 3, state_dir: /var/lib/sluice}
"
    ));
    let kafka = pipeline.connections.kafka.unwrap();
    let tls = kafka.tls.unwrap();
    assert_eq!(tls.ca_file, Some(PathBuf::from("/etc/shop/ca.pem")));
    assert_eq!(
        (tls.cert_file, tls.key_file),
        (Some(PathBuf::from("/c.pem")), Some(PathBuf::from("/etc/shop/k.pem")))
    );
    let sasl = kafka.sasl.unwrap();
    assert_eq!((sasl.mechanism, sasl.user.as_str()), (SaslMechanism::ScramSha512, "u"));
    assert_eq!(sasl.password, Secret::in_file("/etc/shop/secrets/kafka"));
    let properties: Vec<_> = kafka
        .properties
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    assert_eq!(properties, [("client.rack", "eu"), ("fetch.min.bytes", "1")]);
    assert_eq!(pipeline.connections.registry.url.as_deref(), Some("https://r"));
    assert_eq!(
        pipeline.connections.registry.snapshot_dir,
        PathBuf::from("/var/lib/sluice/schemas")
    );
    assert_eq!(
        pipeline.connections.rules,
        RulesFrom::Dir(PathBuf::from("/etc/shop/rules"))
    );
    assert_eq!(pipeline.workers.lanes, Some(3));

    insta::assert_snapshot!(faults_with("\
connections:
  kafka:
    brokers: []
    tls: {cert_file: c.pem}
    sasl: {mechanism: GSSAPI, user: u, password: geheim}
    properties: {group.id: x, ssl.ca.location: y, a: [1]}
  registry: {url: 'http://u:p@r', user: u}
  clickhouse: {url: 'http://c', tls: {}, database: a b}
  rules: {dir: rules, url: 'http://r'}
"), @r#"
    p.yaml:8:14: connections.kafka.brokers: at least one broker is needed
    p.yaml:9:10: connections.kafka.tls: `cert_file` and `key_file` belong together
    p.yaml:10:23: connections.kafka.sasl.mechanism: should be SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, is `GSSAPI`
    p.yaml:10:40: connections.kafka.sasl.password: a secret doesn't belong into this file; put it into one of its own and name that as `password_file`
    p.yaml:11:18: connections.kafka.properties["group.id"]: `group.id` is set by Sluice: it is the pipeline's name
    p.yaml:11:31: connections.kafka.properties["ssl.ca.location"]: `ssl.ca.location` is set by Sluice: use `tls`
    p.yaml:11:54: connections.kafka.properties.a: should be text or a number, is a list
    p.yaml:12:19: connections.registry.url: an address has no user or password in it; use `user` and `password_file`
    p.yaml:12:41: connections.registry.user: a user needs a `password_file` beside it
    p.yaml:13:33: connections.clickhouse.tls: certificates need an address that begins with https://
    p.yaml:13:52: connections.clickhouse.database: should begin with a letter and have only a-z, A-Z, 0-9 and `_`, at most 127 of them
    p.yaml:14:23: connections.rules.url: rules come from a service (`url`) or from a directory (`dir`), not from both
    "#);
    let audit = checked(SAMPLE).audit;
    assert_eq!(
        (audit.topic.as_str(), audit.keep.as_secs() / 86_400),
        ("shop.audit", 430)
    );
    insta::assert_snapshot!(
        faults_with("audit: {topic: order.created, keep: 1h}\n"),
        @r"
    p.yaml:6:16: audit.topic: is a source's topic, its dead letters' or that of alerts
    p.yaml:6:37: audit.keep: should be at least 86400s
    "
    );
    insta::assert_snapshot!(
        faults_with("connections: {kafka: {brokers: a:1}}\n"),
        @"p.yaml:6:32: connections.kafka.brokers: should be a list, is text"
    );
}

/// A machine that has nothing of what a file names.
struct Bare;

impl Machine for Bare {
    fn file(&self, path: &Path) -> Result<(), String> {
        Err(format!("no file {}", path.display()))
    }
    fn secret(&self, secret: &Secret) -> Result<(), String> {
        Err(format!("no secret {}", secret.file().display()))
    }
    fn rules(&self, dir: &Path) -> Result<(), String> {
        Err(format!("no directory {}", dir.display()))
    }
    fn kafka_property(&self, key: &str, value: &str) -> Result<(), String> {
        Err(format!("no property {key} = {value}"))
    }
}

#[test]
fn what_a_machine_lacks_is_a_fault_beside_those_of_the_text() {
    let text = format!(
        "{LEAST}{}",
        "\
connections:
  kafka:
    brokers: [a:1]
    tls: {ca_file: ca.pem, cert_file: /c.pem, key_file: ./k.pem}
    sasl: {mechanism: PLAIN, user: u, password_file: secrets/kafka}
    properties: {client.rack: eu, client.id: me}
  registry: {url: 'https://r', user: u, password_file: p, tls: {ca_file: r.pem}}
  clickhouse: {url: 'https://c', password_file: c, tls: {ca_file: c.pem}}
  rules: {dir: rules}
sinks:
  billing: {grpc: 'https://b', tls: {ca_file: b.pem}}
batch: {lingre: 40ms}
"
    );
    let base_dir = Path::new("/etc/shop");
    let place = Place {
        base_dir,
        machine: &Bare,
    };
    let found = from_node("p.yaml", &parse("p.yaml", &text).unwrap(), place).unwrap_err();
    insta::assert_snapshot!(printed(&found), @r#"
    p.yaml:9:20: connections.kafka.tls.ca_file: no file /etc/shop/ca.pem
    p.yaml:9:39: connections.kafka.tls.cert_file: no file /c.pem
    p.yaml:9:57: connections.kafka.tls.key_file: no file /etc/shop/k.pem
    p.yaml:10:54: connections.kafka.sasl.password_file: no secret /etc/shop/secrets/kafka
    p.yaml:11:18: connections.kafka.properties["client.rack"]: no property client.rack = eu
    p.yaml:11:35: connections.kafka.properties["client.id"]: `client.id` is set by Sluice: it names the pipeline and the worker
    p.yaml:12:56: connections.registry.password_file: no secret /etc/shop/p
    p.yaml:12:74: connections.registry.tls.ca_file: no file /etc/shop/r.pem
    p.yaml:13:49: connections.clickhouse.password_file: no secret /etc/shop/c
    p.yaml:13:67: connections.clickhouse.tls.ca_file: no file /etc/shop/c.pem
    p.yaml:14:16: connections.rules.dir: no directory /etc/shop/rules
    p.yaml:16:47: sinks.billing.tls.ca_file: no file /etc/shop/b.pem
    p.yaml:17:9: batch.lingre: the key `lingre` is not known; did you mean `linger`?
    "#);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    std::fs::write(&file, text.replace("lingre", "linger").replace(", client.id: me", "")).unwrap();
    load(&file).unwrap_or_else(|faults| panic!("{}", printed(&faults)));
    assert_eq!(load_on(&file, &Bare).unwrap_err().len(), 11);
}

#[test]
fn a_secret_is_read_without_the_line_end_that_editors_add() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "hush hush \r\n").unwrap();
    assert_eq!(Secret::in_file(&file).read().unwrap(), "hush hush ");
    std::fs::write(&file, "\n").unwrap();
    let empty = Secret::in_file(&file).read().unwrap_err().to_string();
    assert_eq!(
        empty,
        format!("the file {} should hold a secret and is empty", file.display())
    );
    let missing = Secret::in_file(dir.path().join("none")).read().unwrap_err();
    assert!(matches!(missing, crate::SecretError::Unreadable { .. }), "{missing}");
}

#[test]
fn the_revision_changes_with_the_outputs_and_with_nothing_else() {
    let revision = |text: &str| checked(text).revision;
    let sample = revision(SAMPLE);
    assert_eq!(
        sample, 14_656_922_443_779_861_224,
        "a new number stops every pipeline that has a promise pending"
    );
    for (from, to) in [
        ("localhost:9092", "elsewhere:9092"),
        ("start: latest", "start: earliest"),
        ("start: latest", "guarantee: exactly_once\nstart: latest"),
        ("linger: 40ms", "linger: 10ms"),
        ("keep: 13 months", "keep: 2 years"),
        ("listen: \"127.0.0.1:7301\"", "listen: \"0.0.0.0:1\""),
        ("grpc: \"http://localhost:7400\"", "grpc: \"http://localhost:7500\""),
        ("every: 1m", "every: 1h"),
    ] {
        assert_ne!(SAMPLE, SAMPLE.replace(from, to));
        assert_eq!(revision(&SAMPLE.replace(from, to)), sample, "{to}");
    }
    for (from, to) in [
        ("pipeline: shop", "pipeline: shop2"),
        ("time: occurred_at", "time: sent_at"),
        ("past: 400d", "past: 40d"),
        ("schema_id: header", "schema_id: prefix"),
        ("orders_vip: {like: orders}", "orders_vip: {like: payments}"),
        ("shop.alerts", "shop.alarms"),
        ("billing: {", "invoices: {"),
        ("{topic}.dlq", "{topic}.dead"),
        ("event_bytes_max: 1MiB", "event_bytes_max: 2MiB"),
    ] {
        assert_ne!(SAMPLE, SAMPLE.replace(from, to));
        assert_ne!(revision(&SAMPLE.replace(from, to)), sample, "{to}");
    }
}

#[test]
fn the_example_that_people_start_from_is_right() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/shop/pipeline.yaml");
    let pipeline = load(&file).unwrap_or_else(|faults| panic!("{}", printed(&faults)));
    let sources: Vec<_> = pipeline.sources.iter().map(|source| source.topic.as_str()).collect();
    assert_eq!(
        sources,
        [
            "user.pageview",
            "order.created",
            "payment.processed",
            "session.end",
            "error.captured"
        ]
    );
    let tables: Vec<_> = pipeline.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(
        tables,
        ["pageviews", "orders", "payments", "sessions", "errors", "orders_vip"]
    );
    assert_eq!(pipeline.connections.kafka, None);
    assert_eq!(pipeline.tables[4].keep, Some(Keep::Days(90)));
    assert_eq!(pipeline.rollups[0].by, ["tenant_id", "context_device_type"]);
}

#[test]
fn a_file_that_is_missing_or_no_text_is_one_fault() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.yaml");
    let missing = load(&file).unwrap_err();
    assert!(
        missing[0].message.starts_with("the file can't be read: "),
        "{missing:?}"
    );
    std::fs::write(&file, b"a: \xff").unwrap();
    assert_eq!(
        load(&file).unwrap_err()[0].message,
        "the file is not UTF-8 text from here on"
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    /// Whatever a slip of the hand does to a good file: faults with places, or a pipeline; never a panic.
    #[test]
    fn a_file_with_a_piece_cut_out_or_replaced_never_panics(start in 0_usize..2400, length in 0_usize..60, piece in "[ -~\n]{0,6}") {
        let start = start.min(SAMPLE.len());
        let end = (start + length).min(SAMPLE.len());
        let text = format!("{}{piece}{}", &SAMPLE[..start], &SAMPLE[end..]);
        if let Err(faults) = check("p.yaml", &text, Path::new(".")) {
            proptest::prop_assert!(!faults.is_empty());
            proptest::prop_assert!(faults.iter().all(|fault| fault.line > 0 && fault.column > 0 && !fault.message.is_empty()));
        }
    }
}
