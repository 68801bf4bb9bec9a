//! Kafka's nodes die and stand still, its groups do not come to rest.

use std::time::{Duration, Instant};

use devstack::Part;
use end_to_end::until;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use tokio::task::{JoinSet, spawn_blocking};

use super::freezes;
use super::storage::AN_INSERT;
use crate::proxy::{Fault, Only, Strike};
use crate::trial::{RECOVERED_WITHIN, Trial, WORKERS};

/// Partitions of the group's and the transactions' internal topics in the development stack.
const INTERNAL_PARTITIONS: i32 = 4;
const SECOND: Duration = Duration::from_secs(1);
/// Between two new members of a storm.
const JOINS_EVERY: Duration = Duration::from_millis(200);
/// So many of them at once: each is a client with threads of its own, on the machine that everything else runs on.
const MEMBERS_MAX: usize = 4;
const STORM: Duration = Duration::from_secs(8);
/// So many members of a storm are given partitions at least: those that the end of it finds waiting.
const JOINED_LEAST: usize = MEMBERS_MAX;
/// For a group that does not come to rest to give a member partitions.
const GIVEN_WITHIN: Duration = Duration::from_secs(60);
const POLLS_EVERY: Duration = Duration::from_millis(50);
/// Shorter than the client waits for an answer, and long enough for a rebalance to begin.
const ANSWER_HELD: Duration = Duration::from_secs(3);
/// So many that each lane has one in flight; a lane sends two at a time.
const INSERTS_HELD: u64 = 8;
/// What a lane says when it gives back what the group has asked for.
const HANDED_BACK: &str = "partitions handed back";
const ROLES: [&str; 3] = ["group coordinator", "transaction coordinator", "partition leader"];
const SIGNALS: [&str; 3] = ["SIGKILL", "SIGTERM", "SIGSTOP"];

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
    let deadline = Instant::now() + RECOVERED_WITHIN;
    loop {
        // Another one may be about to lead.
        let metadata = consumer.fetch_metadata(Some(topic), 30 * SECOND).ok();
        let leader = metadata.and_then(|metadata| {
            let partitions = metadata.topics().first()?.partitions();
            let found = partitions.iter().find(|one| one.id() == partition)?;
            Part::KAFKAS.get(usize::try_from(found.leader() - 1).ok()?).copied()
        });
        if let Some(leader) = leader {
            return leader;
        }
        assert!(Instant::now() < deadline, "nobody leads {topic}/{partition}");
        std::thread::sleep(SECOND / 10);
    }
}

fn of_id(trial: &Trial<'_, '_>, topic: &str, id: &str) -> Part {
    leader(trial, topic, (java_hash(id) & i32::MAX) % INTERNAL_PARTITIONS)
}

/// Whoever has each role is killed, stopped properly, and frozen for longer than its session, in an order that the seed decides.
pub async fn die(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        let each = |role| SIGNALS.map(|signal| (role, signal));
        for (role, signal) in trial.some(ROLES.into_iter().flat_map(each).collect()) {
            let node = whose(trial, role);
            trial.fault(&format!("{signal} of the {role}'s broker"));
            match signal {
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

/// The node that has a role now.
fn whose(trial: &Trial<'_, '_>, role: &str) -> Part {
    let name = &trial.scenario.pipeline.name;
    match role {
        "group coordinator" => of_id(trial, "__consumer_offsets", name),
        "transaction coordinator" => of_id(trial, "__transaction_state", &format!("{name}-worker-a-0")),
        _ => leader(trial, &trial.scenario.pipeline.sources[0].topic, 0),
    }
}

/// Members join and leave while workers are killed; partitions are asked back, and lost, while inserts are in flight.
pub async fn storms(trial: &mut Trial<'_, '_>) {
    for _ in 0..trial.times {
        trial.fault("a storm of members");
        let storm = tokio::spawn(storm(Member::of(trial)));
        trial.let_pass(1_000..3_000).await;
        let worker = trial.worker();
        trial.fault("SIGKILL of a worker in a storm");
        trial.scenario.kill(worker).await;
        trial.scenario.start_worker(worker).await;
        let joined = storm.await.unwrap();
        tracing::info!(joined, "members of the storm that were given partitions");
        assert!(joined >= JOINED_LEAST, "a storm of {joined} members is none");
        trial.recovered().await;
        revoked_in_an_insert(trial).await;
        freezes::in_an_insert(trial, "partitions lost while an insert is in flight").await;
    }
}

/// A member joins while every insert is in flight for seconds: what it is given is asked back from lanes that wait for one.
async fn revoked_in_an_insert(trial: &mut Trial<'_, '_>) {
    trial.fault("partitions asked back while inserts are in flight");
    let handed_back = |trial: &Trial<'_, '_>| -> usize {
        let said = |worker: &&str| trial.scenario.said(worker, HANDED_BACK);
        WORKERS.iter().map(said).sum()
    };
    let before = handed_back(trial);
    let strike = Strike {
        only: Only::Text(AN_INSERT.to_owned()),
        ..Strike::new(Fault::DelayAnswer(ANSWER_HELD))
    };
    trial.fronts.clickhouse.inject(Some(strike)).unwrap();
    trial
        .struck(INSERTS_HELD, |trial| trial.fronts.clickhouse.struck())
        .await;
    let member = Member::of(trial);
    let given = spawn_blocking(move || member.joins(Instant::now() + GIVEN_WITHIN));
    assert!(
        given.await.unwrap(),
        "the member was given nothing within {GIVEN_WITHIN:?}"
    );
    until("partitions to be handed back", RECOVERED_WITHIN, async || {
        (handed_back(trial) > before).then_some(())
    })
    .await;
    trial.fronts.heal();
    trial.recovered().await;
}

/// A new member every [`JOINS_EVERY`], each of which leaves as soon as it has partitions; how many had any.
async fn storm(member: Member) -> usize {
    let (until, mut members, mut joined) = (Instant::now() + STORM, JoinSet::new(), 0);
    while Instant::now() < until {
        if members.len() < MEMBERS_MAX {
            let member = member.clone();
            members.spawn_blocking(move || member.joins(Instant::now() + GIVEN_WITHIN));
        }
        tokio::time::sleep(JOINS_EVERY).await;
        while let Some(left) = members.try_join_next() {
            joined += usize::from(left.unwrap());
        }
    }
    joined + members.join_all().await.into_iter().filter(|given| *given).count()
}

/// A member of the group that does nothing with its partitions.
#[derive(Debug, Clone)]
struct Member {
    brokers: String,
    group: String,
    topics: Vec<String>,
}

impl Member {
    fn of(trial: &Trial<'_, '_>) -> Member {
        let sources = trial.scenario.pipeline.sources.iter();
        Member {
            brokers: trial.scenario.stack.kafka.clone(),
            group: trial.scenario.pipeline.name.clone(),
            topics: sources.map(|source| source.topic.clone()).collect(),
        }
    }

    /// Joins the group, and leaves it when it was given partitions, or at `until`. Whether it was.
    fn joins(&self, until: Instant) -> bool {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "6000")
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let topics: Vec<&str> = self.topics.iter().map(String::as_str).collect();
        consumer.subscribe(&topics).unwrap();
        while Instant::now() < until {
            // What it gets is somebody else's to deliver.
            drop(consumer.poll(POLLS_EVERY));
            if consumer.assignment().unwrap().count() > 0 {
                return true;
            }
        }
        false
    }
}
