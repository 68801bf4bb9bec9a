//! What cannot be delivered as it is: records that nobody can decode, alerts that are too large, dead letters without a topic.

use std::time::Duration;

use end_to_end::shop::RULES;
use end_to_end::{End, Scenario, until};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, TopicPartitionList};

use super::crashes::at_random;
use crate::driver::Driver;
use crate::trial::{RECOVERED_WITHIN, Trial, WORKERS};

/// Dead letters of a mebibyte, as [`POISONED`] has them, of one batch have to be with three brokers within the transaction's timeout,
/// which is 5 s in the trials' pipeline, on a machine that may compile beside it: two to a batch, not sixteen.
const BATCH: (&str, &str) = ("batch:  {", "batch:  {bytes_max: 2MiB, ");
/// Beside the driver's other events: some of each kind that cannot be decoded, or that rules refuse.
const POISONED: [&str; 4] = ["--rate", "100", "--poison", "0.04"];
/// So many broken records for a topic of dead letters that is not there.
const BROKEN: usize = 8;
/// Less than any schema id's prefix.
const NO_PREFIX: &[u8] = &[0, 0, 0];
const SECOND: Duration = Duration::from_secs(1);
/// For a worker to have tried to write a dead letter, in vain.
const IN_VAIN_WITHIN: Duration = Duration::from_secs(60);
/// What a worker says then.
const IN_VAIN: &str = "have no topic, and it waits";

/// Smaller batches, and rules that make large alerts.
pub fn with_large_outputs(scenario: &mut Scenario<'_>) {
    let file = scenario.dir.join("pipeline.yaml");
    let text = std::fs::read_to_string(file).unwrap();
    assert!(text.contains(BATCH.0), "{text}");
    scenario.rewrite(&text.replace(BATCH.0, BATCH.1));
    scenario.write_rules("default", &(RULES.to_owned() + &large_alerts()));
}

/// A topic of dead letters goes away under load, and is made again; then broken records of all kinds come, while workers die.
pub async fn comes(trial: &mut Trial<'_, '_>) {
    for nth in 0..trial.times {
        if nth == 0 {
            // Later it has dead letters, which a topic that is deleted takes with it.
            no_dead_letter_topic(trial).await;
        }
        trial.fault("broken records of all kinds");
        let seed = (trial.random.number() >> 1).to_string();
        let words = POISONED.into_iter().chain(["--seed", &seed]).map(str::to_owned);
        let words: Vec<String> = words.collect();
        let driver = Driver::start(&trial.scenario.dir, &format!("poison-{nth}"), &words);
        until(
            "dead letters of alerts that are too large",
            IN_VAIN_WITHIN,
            async || (too_large(trial).await > 0.0).then_some(()),
        )
        .await;
        trial.let_pass(3_000..6_000).await;
        at_random(trial).await;
        trial.let_pass(3_000..6_000).await;
        trial.more_records += driver.finish().await.records();
        trial.recovered().await;
    }
}

/// Alerts as large as they may be (an order's id and what is behind it: 18 + 697 * 94 = 65,536 bytes), and by a byte larger, which
/// makes the event a dead letter.
fn large_alerts() -> String {
    let padding = format!("replace('{}', 'x', '{}')", "x".repeat(697), "y".repeat(94));
    let rule = |name: &str, nth: u8, text: &str| {
        format!(
            "  - name: {name}
    events: [order.created]
    when: amount_minor % 50 = {nth}
    alert: {{severity: info, key: session_id, text: \"{text} || {padding}\"}}
"
        )
    };
    rule("large", 1, "order_id") + &rule("too-large", 2, "order_id || '!'")
}

async fn too_large(trial: &Trial<'_, '_>) -> f64 {
    let labels = [("stage", "rules"), ("code", "too_large")];
    let mut sum = 0.0;
    for worker in WORKERS {
        sum += trial
            .scenario
            .metric(worker, "sluice_dead_letters_total", &labels)
            .await;
    }
    sum
}

/// The topic that dead letters of one source go to is deleted, and made again when workers have missed it.
async fn no_dead_letter_topic(trial: &mut Trial<'_, '_>) {
    let source = trial.scenario.pipeline.sources.last().unwrap();
    let (topic, dead) = (source.topic.clone(), source.dead_letter_topic.clone());
    trial.fault("a dead-letter topic is deleted");
    trial.scenario.delete_topic(&dead).await;
    let in_vain = |trial: &Trial<'_, '_>| -> usize {
        let said = |worker: &&str| trial.scenario.said(worker, IN_VAIN);
        WORKERS.iter().map(said).sum()
    };
    let (before, broken) = (in_vain(trial), topic.clone());
    let brokers = trial.scenario.stack.kafka.clone();
    let produced = tokio::task::spawn_blocking(move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
        for _ in 0..BROKEN {
            let record: BaseRecord<'_, (), [u8]> = BaseRecord::to(&topic).payload(NO_PREFIX);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(30 * SECOND).unwrap();
    });
    produced.await.unwrap();
    let mut ends = trial.ends().await;
    ends.retain(|(of, ..)| *of == broken);
    trial.more_records += BROKEN as u64;
    until("workers to miss the dead-letter topic", IN_VAIN_WITHIN, async || {
        (in_vain(trial) > before).then_some(())
    })
    .await;
    trial.let_pass(1_000..4_000).await;
    let behind = until("the committed offsets", RECOVERED_WITHIN, async || {
        let offsets: Option<Vec<i64>> = ends.iter().map(|end| committed(trial, end)).collect();
        let behind = |(end, committed): (&End, i64)| committed < end.2;
        Some(ends.iter().zip(offsets?).any(behind))
    })
    .await;
    assert!(behind, "records are committed whose dead letters are nowhere");
    trial.scenario.sluice(&["schema", "apply"]).await;
    trial.recovered().await;
}

/// The committed offset of a partition, whether a transaction is open on it or not: one is, again and again, while a dead letter has
/// nowhere to go. `None` = the group's coordinator does not answer, or moves.
fn committed(trial: &Trial<'_, '_>, (topic, partition, _): &End) -> Option<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &trial.scenario.stack.kafka)
        .set("group.id", &trial.scenario.pipeline.name)
        .set("isolation.level", "read_uncommitted")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, *partition);
    let found = consumer.committed_offsets(list, 30 * SECOND).ok()?;
    found.elements()[0].error().ok()?;
    found.elements()[0].offset().to_raw()
}
