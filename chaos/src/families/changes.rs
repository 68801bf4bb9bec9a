//! What people change while everything runs: rules, schemas, tables, offsets and their metadata.

use std::time::Duration;

use devstack::Part;
use end_to_end::{Committed, until};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{Message as _, Offset, TopicPartitionList};

use crate::trial::{Trial, WORKERS};

const SECOND: Duration = Duration::from_secs(1);
/// For a group whose members were killed to be empty.
const EMPTY_WITHIN: Duration = Duration::from_secs(60);
/// A committed offset's metadata may have so many bytes (`offset.metadata.max.bytes`).
const METADATA_MAX: usize = 4_096;

/// A newer revision of the rules, a column more, and a worker that dies: what was promised is delivered as it was promised.
pub async fn revisions(trial: &mut Trial<'_, '_>) {
    let rules = std::fs::read_to_string(trial.scenario.dir.join("rules/default.yaml")).unwrap();
    for nth in 0..3 * trial.times {
        trial.fault("a newer revision of the rules");
        let mark = format!("  - {{name: mark, set: {{source: \"'revision {nth}'\"}}}}\n");
        trial.scenario.write_rules("default", &format!("{rules}{mark}"));
        let dir = trial.scenario.dir.join("rules").display().to_string();
        trial.scenario.sluice(&["rules", "apply", &dir]).await;
        trial.let_pass(0..400).await;
        trial.fault("a column is added");
        let name = format!("of_somebody_{nth}");
        for table in ["orders", "pageviews"] {
            let statement = format!("ALTER TABLE {table} ADD COLUMN {name} Nullable(String)");
            trial.scenario.sql(&statement).await;
        }
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        trial.let_pass(500..2_000).await;
        trial.fault("SIGKILL of ClickHouse");
        trial.scenario.stack.kill(Part::ClickHouse).await.unwrap();
        trial.scenario.stack.start(Part::ClickHouse).await.unwrap();
        trial.recovered().await;
    }
}

/// Workers die; somebody writes other metadata to committed offsets. Their partitions stop and say so; with the right metadata
/// they go on.
pub async fn metadata(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for worker in WORKERS {
            trial.scenario.kill(worker).await;
        }
        let committed: Vec<Committed> = trial.scenario.committed();
        let begun: Vec<&Committed> = committed.iter().filter(|one| !one.metadata.is_empty()).collect();
        let one = begun[trial.random.index(begun.len())].clone();
        let promise = one.metadata.clone();
        let changed = promise.replacen(|digit: char| digit.is_ascii_digit(), "7", 4);
        let foreign = [
            ("metadata of somebody else", "written by a tool".to_owned()),
            ("truncated metadata", promise[..promise.len() / 2].to_owned()),
            ("metadata with a wrong checksum", format!("{changed}0")),
            ("metadata that is no text of ours", "\u{1}\u{7f}\u{fffd};;;".to_owned()),
            ("metadata at the limit of size", "s3;".repeat(METADATA_MAX / 3)),
        ];
        for (what, metadata) in foreign {
            trial.fault(what);
            write(
                trial,
                &Committed {
                    metadata,
                    ..one.clone()
                },
            )
            .await;
            let said = trial.scenario.start_waiting_worker("worker-a", "SLU-101").await;
            assert!(said.contains(&format!("{}/{}", one.topic, one.partition)), "{said}");
            trial.scenario.kill("worker-a").await;
        }
        write(trial, &one).await;
        for worker in WORKERS {
            trial.scenario.start_worker(worker).await;
        }
        trial.recovered().await;
    }
}

/// Workers die; somebody sets an offset back or ahead, or removes them all. Partitions stop and say so; with the offsets as they
/// were, promises and all, they go on.
pub async fn offsets(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        // What it would compare with is wrong meanwhile: it calls ranges above an offset an overlap, as it has to.
        trial.scenario.kill("verifier").await;
        for (what, by) in [("an offset set back", -3), ("an offset set ahead", 3)] {
            let right = left_by_the_dead(trial).await;
            let begun: Vec<&Committed> = right.iter().filter(|one| one.offset + by > 0).collect();
            let one = begun[trial.random.index(begun.len())].clone();
            trial.fault(what);
            let set = Committed {
                offset: one.offset + by,
                metadata: String::new(),
                ..one.clone()
            };
            write(trial, &set).await;
            let said = trial.scenario.start_waiting_worker(WORKERS[0], "SLU-110").await;
            assert!(said.contains(&format!("{}/{}", one.topic, one.partition)), "{said}");
            trial.scenario.kill(WORKERS[0]).await;
            write(trial, &one).await;
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
    until("the group to be empty", EMPTY_WITHIN, async || {
        let written = trial.scenario.ask_to_commit(one).ok();
        tokio::time::sleep(SECOND / 4).await;
        written
    })
    .await;
}

/// Records come in transactions: some aborted, some empty, with markers wherever a range ends; workers die meanwhile.
pub async fn transactional_input(trial: &mut Trial<'_, '_>) {
    for nth in 0..trial.times {
        trial.fault("transactional input, some of it aborted");
        let seeds: Vec<u64> = (0..60).map(|_| trial.random.number()).collect();
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

/// Writes records of the topic once more, in transactions of 0 to 39; how many were committed.
fn produce(brokers: &str, topic: &str, id: &str, seeds: &[u64]) -> u64 {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    let some = read(&config, topic);
    let producer: BaseProducer = config.set("transactional.id", id).create().unwrap();
    producer.init_transactions(30 * SECOND).unwrap();
    let mut committed = 0;
    for seed in seeds {
        producer.begin_transaction().unwrap();
        let (count, aborts) = (seed % 40, (seed / 64) % 5 < 2);
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
