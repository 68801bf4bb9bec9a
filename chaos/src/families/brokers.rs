//! Kafka's nodes die and stand still, its groups do not come to rest.

use std::time::{Duration, Instant};

use devstack::Part;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::trial::Trial;

/// Partitions of the group's and the transactions' internal topics in the development stack.
const INTERNAL_PARTITIONS: i32 = 4;
const SECOND: Duration = Duration::from_secs(1);
/// How long a member stays.
const MEMBER_STAYS: Duration = Duration::from_millis(200);
const STORM: Duration = Duration::from_secs(8);

/// Java's hash of a text, by which Kafka places groups and transactional ids.
fn java_hash(text: &str) -> i32 {
    text.bytes()
        .fold(0_i32, |hash, byte| hash.wrapping_mul(31).wrapping_add(i32::from(byte)))
}

/// The node that leads a partition.
pub(crate) fn leader(trial: &Trial<'_, '_>, topic: &str, partition: i32) -> Part {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &trial.scenario.stack.kafka);
    let consumer: BaseConsumer = config.create().unwrap();
    let metadata = consumer.fetch_metadata(Some(topic), 30 * SECOND).unwrap();
    let partitions = metadata.topics()[0].partitions();
    let found = partitions.iter().find(|one| one.id() == partition).unwrap();
    Part::KAFKAS[usize::try_from(found.leader() - 1).unwrap()]
}

fn of_id(trial: &Trial<'_, '_>, topic: &str, id: &str) -> Part {
    leader(trial, topic, (java_hash(id) & i32::MAX) % INTERNAL_PARTITIONS)
}

/// Whoever has each role is killed, stopped properly, or frozen for longer than its session.
pub async fn die(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        for role in ["group coordinator", "transaction coordinator", "partition leader"] {
            let name = trial.scenario.pipeline.name.clone();
            let node = match role {
                "group coordinator" => of_id(trial, "__consumer_offsets", &name),
                "transaction coordinator" => of_id(trial, "__transaction_state", &format!("{name}-worker-a-0")),
                _ => leader(trial, &trial.scenario.pipeline.sources[0].topic, 0),
            };
            let how = trial.random.pick(&["SIGKILL", "SIGTERM", "SIGSTOP"]);
            trial.fault(&format!("{how} of the {role}'s broker"));
            match how {
                "SIGKILL" => trial.scenario.stack.kill(node).await.unwrap(),
                "SIGTERM" => trial.scenario.stack.stop(node).await.unwrap(),
                _ => trial.scenario.stack.pause(node).unwrap(),
            }
            trial.let_pass(4_000..8_000).await;
            trial.scenario.stack.mend(&[node]).await.unwrap();
            trial.recovered().await;
        }
    }
}

/// Members join and leave; meanwhile workers are killed.
pub async fn storms(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        trial.fault("a storm of members");
        let (brokers, group) = (trial.scenario.stack.kafka.clone(), trial.scenario.pipeline.name.clone());
        let sources = trial.scenario.pipeline.sources.iter();
        let topics: Vec<String> = sources.map(|source| source.topic.clone()).collect();
        let storm = tokio::task::spawn_blocking(move || storm(&brokers, &group, &topics));
        trial.let_pass(1_000..3_000).await;
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker in a storm");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        let joined = storm.await.unwrap();
        assert!(joined > 3, "a storm of {joined} members is none");
        trial.recovered().await;
    }
}

/// One member after another. A member that is given partitions does nothing with them.
fn storm(brokers: &str, group: &str, topics: &[String]) -> u32 {
    let topics: Vec<&str> = topics.iter().map(String::as_str).collect();
    let (until, mut members) = (Instant::now() + STORM, 0);
    while Instant::now() < until {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        consumer.subscribe(&topics).unwrap();
        let leaves = Instant::now() + MEMBER_STAYS;
        while Instant::now() < leaves {
            // What it gets is somebody else's to deliver.
            drop(consumer.poll(MEMBER_STAYS / 4));
        }
        members += 1;
    }
    members
}
