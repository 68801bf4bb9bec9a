//! The driver against a real Kafka and registry: what it says it produced is what is in the log. The sampler against a real
//! ClickHouse.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use apache_avro::types::Value;
use devstack::{Part, Stack};
use load_tests::Framing;
use load_tests::drive::{self, Burst, Report, Settings};
use load_tests::event::EventType;
use load_tests::latency::{self, Sample, Sampler};
use load_tests::poison::{Mix, Poison};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _, OwnedMessage};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

const PARTITIONS: i32 = 3;

async fn up(parts: &[Part]) -> (Stack, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = devstack::Options::for_tests(dir.path());
    options.parts = parts.to_vec();
    (devstack::up(options).await.unwrap(), dir)
}

async fn make_topics(kafka: &str, names: &[&str]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().unwrap();
    let topics: Vec<_> = names
        .iter()
        .map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)).set("max.message.bytes", "4000000"))
        .collect();
    for made in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
}

/// Every record of a topic, from its beginning to where it ends now.
fn read_all(kafka: &str, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", kafka)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .create()
        .unwrap();
    let mut ends = BTreeMap::new();
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        let (_, end) = consumer
            .fetch_watermarks(topic, partition, Duration::from_secs(10))
            .unwrap();
        ends.insert(partition, end);
        list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&list).unwrap();
    let wanted = usize::try_from(ends.values().sum::<i64>()).unwrap();
    let mut records = Vec::new();
    let until = Instant::now() + Duration::from_secs(30);
    while records.len() < wanted {
        assert!(
            Instant::now() < until,
            "{} of {wanted} records of {topic}",
            records.len()
        );
        if let Some(record) = consumer.poll(Duration::from_millis(100)) {
            records.push(record.unwrap().detach());
        }
    }
    records
}

/// The text of a field of an event that decodes, with the schema of this event type and version.
fn field(event: EventType, version: u32, mut avro: &[u8], name: &str) -> String {
    let schema = apache_avro::Schema::parse_str(event.schema(version).unwrap()).unwrap();
    let reader = apache_avro::reader::datum::GenericDatumReader::builder(&schema)
        .build()
        .unwrap();
    let Value::Record(fields) = reader.read_value(&mut avro).unwrap() else {
        panic!("not a record")
    };
    match fields.into_iter().find(|(field, _)| field == name).unwrap().1 {
        Value::String(text) => text,
        other => panic!("{name} is {other:?}"),
    }
}

fn schema_id(record: &OwnedMessage, framing: &Framing) -> (u32, Vec<u8>) {
    let value = record.payload().unwrap();
    match framing {
        Framing::Prefix => {
            assert_eq!(value[0], 0);
            (u32::from_be_bytes(value[1..5].try_into().unwrap()), value[5..].to_vec())
        }
        Framing::Header(name) => {
            let header = record
                .headers()
                .unwrap()
                .iter()
                .find(|header| header.key == name)
                .unwrap();
            (
                std::str::from_utf8(header.value.unwrap()).unwrap().parse().unwrap(),
                value.to_vec(),
            )
        }
    }
}

struct Line {
    partition: i32,
    offset: i64,
    id: String,
    version: u32,
    kind: String,
}

fn lines(record: &str, topic: &str) -> Vec<Line> {
    record
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>())
        .filter(|parts| parts[0] == topic)
        .map(|parts| Line {
            partition: parts[1].parse().unwrap(),
            offset: parts[2].parse().unwrap(),
            id: parts[3].to_owned(),
            version: parts[5].parse().unwrap(),
            kind: parts[6].to_owned(),
        })
        .collect()
}

/// Scenario: two topics, one framed by prefix and one by header; poison among the good events and a burst of it; the second
/// schema version half-way.
/// Guarantees: the log holds exactly what the report and the record say, at the positions that the record says.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_exactly_what_the_driver_reports() {
    let (stack, dir) = up(&[Part::Kafka, Part::Registry]).await;
    make_topics(&stack.kafka, &["order.created", "payment.processed"]).await;
    let record = dir.path().join("record.tsv");
    let mut settings = Settings {
        rate: 600.0,
        duration: Duration::from_secs(4),
        seed: 11,
        poison: Mix {
            share: 0.05,
            ..Mix::default()
        },
        burst: Some(Burst {
            at: Duration::from_secs(1),
            kind: Poison::Broken,
            count: 300,
        }),
        second_version_after: Some(Duration::from_secs(2)),
        record: Some(record.clone()),
        ..Settings::new(&stack.kafka, &stack.registry)
    };
    settings
        .targets
        .retain(|target| matches!(target.event, EventType::Order | EventType::Payment));
    settings.targets[1].framing = Framing::Header("schema-id".to_owned());
    let targets = settings.targets.clone();
    let report: Report = tokio::task::spawn_blocking(move || drive::run(settings, &mut |_| {}))
        .await
        .unwrap()
        .unwrap();

    assert_eq!((report.failed, &report.last_failure), (0, &None));
    assert_eq!(report.produced + report.poison.values().sum::<u64>(), 2_400 + 300);
    let kinds: BTreeSet<&str> = report.poison.keys().map(String::as_str).collect();
    assert_eq!(kinds, Poison::ALL.iter().map(|kind| kind.name()).collect());
    let record = std::fs::read_to_string(record).unwrap();
    assert_eq!(record.lines().count(), 2_700);
    for (target, said) in targets.iter().zip(&report.topics) {
        let mut log: BTreeMap<(i32, i64), OwnedMessage> = read_all(&stack.kafka, &target.topic)
            .into_iter()
            .map(|m| ((m.partition(), m.offset()), m))
            .collect();
        let (mut xor, mut sum, mut good, mut second) = (0_u128, 0_u128, 0, 0);
        let mut ids_of_version = BTreeMap::new();
        for line in lines(&record, &target.topic) {
            let message = log
                .remove(&(line.partition, line.offset))
                .expect("each line is of another record");
            if line.kind != "-" {
                continue;
            }
            let (schema_id, avro) = schema_id(&message, &target.framing);
            assert_eq!(field(target.event, line.version, &avro, "event_id"), line.id);
            let id = line.id.parse::<uuid::Uuid>().unwrap().as_u128();
            (xor, sum, good) = (xor ^ id, sum.wrapping_add(id), good + 1);
            second += u64::from(line.version == 2);
            ids_of_version
                .entry(line.version)
                .or_insert_with(BTreeSet::new)
                .insert(schema_id);
        }
        assert!(log.is_empty(), "{} records that the driver did not report", log.len());
        assert_eq!((said.produced, said.second_version), (good, second));
        assert_eq!(
            (&said.id_xor, &said.id_sum),
            (&format!("{xor:032x}"), &format!("{sum:032x}"))
        );
        let versions: Vec<u32> = ids_of_version.keys().copied().collect();
        let all: Vec<u32> = (1..=target.event.versions()).collect();
        assert_eq!(versions, all, "every version was sent");
        assert!(
            ids_of_version.values().all(|ids| ids.len() == 1),
            "one schema id a version: {ids_of_version:?}"
        );
    }
    stack.down().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_topic_is_named_before_anything_is_sent() {
    let (stack, _dir) = up(&[Part::Kafka, Part::Registry]).await;
    let settings = Settings::new(&stack.kafka, &stack.registry);
    let error = tokio::task::spawn_blocking(move || drive::run(settings, &mut |_| {}))
        .await
        .unwrap()
        .unwrap_err();
    let expected = "there is no topic user.pageview; make it first (sluice schema apply)";
    assert_eq!(error.to_string(), format!("kafka {}: {expected}", stack.kafka));
    stack.down().await.unwrap();
}

fn unix_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

async fn query(url: &str, sql: &str) {
    let request = load_tests::register::client(url)
        .unwrap()
        .post(url)
        .body(sql.to_owned());
    let response = request.send().await.unwrap();
    assert!(response.status().is_success(), "{}", response.text().await.unwrap());
}

/// Scenario: three events of two topics are published; one is visible at once, in a part that was merged, one after a while,
/// one never.
/// Guarantees: a latency is what it was, although looks are seldom, because ClickHouse's log of parts tells, of merged ones by what they
/// were merged from; what never came is counted and not measured.
#[tokio::test(flavor = "multi_thread")]
async fn the_sampler_measures_until_a_row_is_visible() {
    let (stack, _dir) = up(&[Part::ClickHouse]).await;
    for table in ["orders", "it's"] {
        let columns = "_topic LowCardinality(String), _partition Int32, _offset Int64";
        query(
            &stack.clickhouse,
            &format!("CREATE TABLE `{table}` ({columns}) ENGINE = MergeTree ORDER BY ()"),
        )
        .await;
    }
    let mut settings = latency::Settings::new(&stack.clickhouse, "default");
    settings.tables = [("order.created", "orders"), ("o'clock", "it's")]
        .map(|(t, n)| (t.to_owned(), n.to_owned()))
        .into();
    // Looks alone would be seconds too late.
    settings.poll = Duration::from_secs(3);
    let sampler = Sampler::start(settings).unwrap();
    let sample = |topic: &str, offset| Sample {
        topic: Arc::from(topic),
        partition: 1,
        offset,
        at_ms: unix_ms(),
    };
    for offset in [7, 9] {
        let insert = format!("INSERT INTO orders VALUES ('order.created', 1, {offset})");
        query(&stack.clickhouse, &insert).await;
    }
    query(&stack.clickhouse, "OPTIMIZE TABLE orders FINAL").await;
    sampler.feed().published(sample("order.created", 7));
    let late = sample("o'clock", 8);
    let late_ms = late.at_ms;
    sampler.feed().published(late);
    sampler.feed().published(sample("order.created", 8));
    sampler.feed().published(sample("of.no.table", 1));
    // Looked for and not found.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let not_before_ms = u64::try_from(unix_ms() - late_ms).unwrap();
    query(&stack.clickhouse, "INSERT INTO `it's` VALUES ('o\\'clock', 1, 8)").await;
    let not_after_ms = u64::try_from(unix_ms() - late_ms).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while sampler.so_far().samples < 2 {
        assert!(
            Instant::now() < until,
            "{:?} {:?}",
            sampler.so_far(),
            sampler.last_fault()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let latency = sampler.finish(Duration::from_millis(100)).await;
    assert_eq!((latency.samples, latency.unseen, latency.dropped), (2, 1, 0));
    // The histogram keeps three digits, rounded up.
    let bounds = not_before_ms..=not_after_ms + 1 + not_after_ms / 500;
    assert!(bounds.contains(&latency.max), "{latency:?} {bounds:?}");
    assert!(latency.p50 <= latency.p95 && latency.p95 <= latency.p99 && latency.p99 <= latency.max);
    stack.down().await.unwrap();
}
