//! What people change while everything runs: rules, schemas, tables, offsets and their metadata.

use std::time::{Duration, Instant};

use devstack::Part;
use end_to_end::{Committed, until};
use exactly_once_protocol::{Marks, Metadata, PromiseFault};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::trial::{RECOVERED_WITHIN, Trial, WORKERS};

const SECOND: Duration = Duration::from_secs(1);
/// For a group whose members were killed to be empty.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);
/// Longer than any of [`REGISTERED_AFTER`] by far, and shorter than `transaction.timeout.ms`, a minute, as librdkafka demands.
const LINGER_MS: &str = "30000";
/// For the client library to make a partition part of a transaction, one try after the other: a new producer first has to learn who
/// leads, and somebody may be busy.
const REGISTERED_AFTER: [Duration; 3] = [
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(8),
];
/// Kafka answers before it has written a marker.
const MARKER_WITHIN: Duration = Duration::from_secs(10);
const TAKEN_BACK: &[u8] = b"taken back";
/// A committed offset's metadata may have so many bytes (`offset.metadata.max.bytes`).
const METADATA_MAX: usize = 4_096;

/// A newer revision of the rules, a column more, and a worker that dies: what was promised is delivered as it was promised.
pub async fn revisions(trial: &mut Trial<'_, '_>) {
    let rules = std::fs::read_to_string(trial.scenario.dir.join("rules/default.yaml")).unwrap();
    for nth in 0..3 * trial.times {
        trial.fault("a newer revision of the rules while ranges are promised");
        trial.scenario.stack.pause(Part::ClickHouse).unwrap();
        until("a promised range", RECOVERED_WITHIN, async || {
            trial.scenario.promised().iter().any(Committed::is_range).then_some(())
        })
        .await;
        let mark = format!("  - {{name: mark, set: {{source: \"'revision {nth}'\"}}}}\n");
        trial.scenario.write_rules("default", &format!("{rules}{mark}"));
        let dir = trial.scenario.dir.join("rules").display().to_string();
        trial.scenario.sluice(&["rules", "apply", &dir]).await;
        trial.fault("SIGKILL of all workers");
        for worker in WORKERS {
            trial.scenario.kill(worker).await;
        }
        let pending = trial.scenario.promised().iter().any(Committed::is_range);
        assert!(pending, "nobody settles what is promised");
        trial.scenario.stack.resume(Part::ClickHouse).unwrap();
        trial.fault("a column is added");
        let name = format!("of_somebody_{nth}");
        for table in ["orders", "pageviews"] {
            let statement = format!("ALTER TABLE {table} ADD COLUMN {name} Nullable(String)");
            trial.scenario.sql(&statement).await;
        }
        for worker in WORKERS {
            trial.scenario.start_worker(worker).await;
        }
        trial.let_pass(0..4_000).await;
        trial.fault("SIGKILL of ClickHouse");
        trial.scenario.stack.kill(Part::ClickHouse).await.unwrap();
        trial.scenario.stack.start(Part::ClickHouse).await.unwrap();
        trial.recovered().await;
    }
}

/// Workers die; somebody writes other metadata to a committed offset. Its partition stops and says so, the others go on; with the
/// right metadata it does, too.
pub async fn metadata(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for worker in WORKERS {
            trial.scenario.kill(worker).await;
        }
        let committed: Vec<Committed> = trial.scenario.committed();
        let begun: Vec<&Committed> = committed.iter().filter(|one| !one.metadata.is_empty()).collect();
        let one = begun[trial.random.index(begun.len())].clone();
        let promise = one.metadata.clone();
        // Kafka keeps metadata as text, with U+FFFD in the place of what is no UTF-8.
        let bytes = [b"s3;".as_slice(), &[0xff, 0xfe, 0x00, 0x80]].concat();
        let foreign = [
            ("metadata of somebody else", b"written by a tool".to_vec()),
            ("truncated metadata", promise[..promise.len() / 2].into()),
            ("metadata with a wrong checksum", with_another_digit(&promise).into()),
            ("metadata of control characters", b"\x01\x7f;;;".to_vec()),
            ("metadata that is no text", bytes),
            ("metadata at the limit of size", b"s3;".repeat(METADATA_MAX / 3)),
        ];
        for (what, metadata) in trial.some(foreign.into()) {
            trial.fault(what);
            write_bytes(trial, &one, &metadata).await;
            let ends = trial.ends().await;
            let said = trial.scenario.start_waiting_worker("worker-a", "SLU-101").await;
            assert!(said.contains(&format!("{}/{}", one.topic, one.partition)), "{said}");
            trial.others_go_on((&one.topic, one.partition), &ends).await;
            let standing = trial.scenario.committed();
            let standing = standing
                .iter()
                .find(|now| (&now.topic, now.partition) == (&one.topic, one.partition));
            assert_eq!(
                standing.map(|now| now.offset),
                Some(one.offset),
                "{what}: it was to stand still"
            );
            trial.scenario.kill("worker-a").await;
        }
        write(trial, &one).await;
        for worker in WORKERS {
            trial.scenario.start_worker(worker).await;
        }
        trial.recovered().await;
    }
}

/// The same with another digit behind the version, of which only the checksum tells.
fn with_another_digit(metadata: &str) -> String {
    let (version, rest) = metadata.split_once(';').unwrap();
    let digit = if rest.starts_with('7') { '8' } else { '7' };
    let changed = format!("{version};{digit}{}", &rest[1..]);
    assert_eq!(
        Metadata::decode(changed.as_bytes()),
        Err(PromiseFault::Checksum),
        "{metadata}"
    );
    changed
}

/// Workers die; somebody sets an offset back or ahead, with empty metadata or with such as a lane would have left there, or
/// removes them all. Partitions stop and say so; with the offsets as they were, promises and all, they go on.
pub async fn offsets(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        // What it would compare with is wrong meanwhile: it calls ranges above an offset an overlap, as it has to.
        trial.scenario.kill("verifier").await;
        let wrong = [
            ("an offset set back", -3, false, "SLU-110"),
            ("an offset set ahead", 3, false, "SLU-110"),
            (
                "an offset set back, its metadata as a lane leaves it",
                -3,
                true,
                "SLU-109",
            ),
            (
                "an offset set ahead, its metadata as a lane leaves it",
                3,
                true,
                "SLU-105",
            ),
        ];
        for (what, by, as_a_lane, code) in trial.some(wrong.into()) {
            let right = left_by_the_dead(trial).await;
            // With a cursor at a gRPC sink, and room to go back.
            let begun: Vec<(&Committed, Metadata)> = right
                .iter()
                .filter(|one| one.offset + by > 0)
                .map(|one| (one, Metadata::decode(one.metadata.as_bytes()).unwrap()))
                .filter(|(_, found)| marks(found).is_some_and(|marks| !marks.sinks.is_empty()))
                .collect();
            let (one, found) = &begun[trial.random.index(begun.len())];
            // What was promised may have been delivered: ahead of the sinks is only what lies beyond it, and behind them what
            // lies before it.
            let offset = match found {
                Metadata::Promised(promise) if by > 0 => promise.end + by,
                _ => one.offset + by,
            };
            let metadata = match as_a_lane {
                true => Metadata::Settled {
                    marks: marks(found).unwrap().clone(),
                    fed: offset,
                }
                .encode(),
                false => String::new(),
            };
            trial.fault(what);
            write(
                trial,
                &Committed {
                    offset,
                    metadata,
                    ..(*one).clone()
                },
            )
            .await;
            let said = trial.scenario.start_waiting_worker(WORKERS[0], code).await;
            assert!(said.contains(&format!("{}/{}", one.topic, one.partition)), "{said}");
            trial.scenario.kill(WORKERS[0]).await;
            write(trial, one).await;
            start_again(trial).await;
        }
        let right = left_by_the_dead(trial).await;
        trial.fault("all offsets removed");
        trial.scenario.forget_group().await;
        trial.scenario.start_waiting_worker(WORKERS[0], "SLU-109").await;
        trial.scenario.kill(WORKERS[0]).await;
        for one in &right {
            write(trial, one).await;
        }
        start_again(trial).await;
        trial.scenario.start_verifier().await;
    }
}

fn marks(metadata: &Metadata) -> Option<&Marks> {
    match metadata {
        Metadata::Nothing => None,
        Metadata::Settled { marks, .. } => Some(marks),
        Metadata::Promised(promise) => Some(&promise.marks),
    }
}

/// Kills the workers; what they had committed when the group has forgotten them.
async fn left_by_the_dead(trial: &mut Trial<'_, '_>) -> Vec<Committed> {
    for worker in WORKERS {
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
    }
    trial.scenario.group_is_empty().await;
    trial.scenario.committed()
}

async fn start_again(trial: &mut Trial<'_, '_>) {
    for worker in WORKERS {
        trial.scenario.start_worker(worker).await;
    }
    trial.recovered().await;
}

async fn write(trial: &Trial<'_, '_>, one: &Committed) {
    write_bytes(trial, one, one.metadata.as_bytes()).await;
}

/// An offset with other metadata than its own.
async fn write_bytes(trial: &Trial<'_, '_>, one: &Committed, metadata: &[u8]) {
    until("the group to be empty", EMPTY_WITHIN, async || {
        let written = trial.scenario.ask_to_commit_bytes(one, metadata).ok();
        tokio::time::sleep(SECOND / 4).await;
        written
    })
    .await;
}

/// Records come in transactions: some aborted, some empty, with markers wherever a range ends; workers die meanwhile.
pub async fn transactional_input(trial: &mut Trial<'_, '_>) {
    for nth in 0..trial.times {
        trial.fault("transactional input, some of it aborted");
        let mut seeds: Vec<u64> = (0..60).map(|_| trial.random.number()).collect();
        // Some of no records, whatever the seed.
        seeds
            .iter_mut()
            .skip(7)
            .step_by(15)
            .for_each(|seed| *seed -= *seed % 40);
        let (brokers, topic) = (
            trial.scenario.stack.kafka.clone(),
            trial.scenario.pipeline.sources[0].topic.clone(),
        );
        let id = format!("{}-input-{nth}", trial.scenario.pipeline.name);
        let producing = tokio::task::spawn_blocking(move || produce(&brokers, &topic, &id, &seeds));
        trial.let_pass(500..1_500).await;
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        trial.more_records += producing.await.unwrap();
        trial.recovered().await;
    }
}

/// Writes records of the topic once more, in transactions of 0 to 39; how many were committed. The client library ends a
/// transaction that nothing was sent in without a word to Kafka: each of no records is followed by one that leaves its marker.
fn produce(brokers: &str, topic: &str, id: &str, seeds: &[u64]) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let some = read(&config, topic);
    let producer: BaseProducer = config.clone().set("transactional.id", id).create().unwrap();
    producer.init_transactions(30 * SECOND).unwrap();
    let mut committed = 0;
    for seed in seeds {
        producer.begin_transaction().unwrap();
        let (count, aborts) = (seed % 40, (seed / 64) % 5 < 2);
        if count == 0 {
            producer.commit_transaction(30 * SECOND).unwrap();
            marker_alone(&config, topic, &format!("{id}-alone"));
            continue;
        }
        for nth in 0..count {
            let record = &some[usize::try_from((seed.rotate_left(9) ^ nth) % some.len() as u64).unwrap()];
            let mut again = BaseRecord::to(topic).payload(record.payload().unwrap());
            again.key = record.key();
            producer.send(again).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(30 * SECOND).unwrap();
        if aborts {
            producer.abort_transaction(30 * SECOND).unwrap();
        } else {
            producer.commit_transaction(30 * SECOND).unwrap();
            committed += count;
        }
    }
    committed
}

/// A transaction of no records that leaves a marker in partition 0: a record waits for others until its partition is of the
/// transaction (`rd_kafka_txn_schedule_register_partitions` of librdkafka 2.12 takes some milliseconds), and is taken back. The
/// producer ends with that: its next record would have a number too many.
fn marker_alone(config: &ClientConfig, topic: &str, id: &str) {
    let reader: BaseConsumer = config
        .clone()
        .set("group.id", "a-copier")
        .set("isolation.level", "read_uncommitted")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let (_, before) = reader.fetch_watermarks(topic, 0, 30 * SECOND).unwrap();
    for patience in REGISTERED_AFTER {
        take_back(config, topic, id, patience);
        let deadline = Instant::now() + MARKER_WITHIN;
        while Instant::now() < deadline {
            // Nobody else has transactions here.
            if offsets_of_no_record(&reader, topic, before) >= 1 {
                return;
            }
        }
    }
    panic!("no marker from offset {before} on");
}

fn take_back(config: &ClientConfig, topic: &str, id: &str, patience: Duration) {
    let producer: BaseProducer = config
        .clone()
        .set("transactional.id", id)
        .set("linger.ms", LINGER_MS)
        .create()
        .unwrap();
    producer.init_transactions(30 * SECOND).unwrap();
    producer.begin_transaction().unwrap();
    let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(topic).partition(0).payload(TAKEN_BACK);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    std::thread::sleep(patience);
    producer.purge(PurgeConfig::default().queue());
    while producer.in_flight_count() > 0 {
        producer.poll(SECOND / 10);
    }
    producer.abort_transaction(30 * SECOND).unwrap();
}

/// How many offsets of partition 0, from this one to its end, have nothing to be read: those of markers.
fn offsets_of_no_record(reader: &BaseConsumer, topic: &str, from: i64) -> i64 {
    let (_, end) = reader.fetch_watermarks(topic, 0, 30 * SECOND).unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(from)).unwrap();
    reader.assign(&list).unwrap();
    let (mut records, deadline) = (0, Instant::now() + 30 * SECOND);
    loop {
        assert!(Instant::now() < deadline, "the end of {topic}/0 is not reached");
        match reader.poll(SECOND) {
            Some(Ok(record)) if record.offset() < end => {
                assert_ne!(record.payload(), Some(TAKEN_BACK), "it was sent already");
                records += 1;
            }
            Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return end - from - records,
            Some(Err(error)) => panic!("{error}"),
            None => {}
        }
    }
}

/// Records that are there.
fn read(config: &ClientConfig, topic: &str) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = config.clone().set("group.id", "a-copier").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    (0..200)
        .map(|_| consumer.poll(30 * SECOND).expect("records").unwrap().detach())
        .collect()
}
