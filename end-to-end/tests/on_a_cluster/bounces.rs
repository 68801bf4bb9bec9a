//! Kafka's own system test of transactions, with Sluice in the place of its copying client: 100,000 records, small
//! transactions, brokers and clients that are killed and restarted, and a reader of committed records beside them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::{Scenario, run_on_cluster};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);
const RECORDS: f64 = 100_000.0;
const RATE: f64 = 2_500.0;

/// Every event leaves by the alert topic, too: in the transaction that commits it.
const COPY: &str = r#"
tenant: "*"
rules:
  - {name: copy, alert: {severity: info, key: session_id, text: event_id}}
"#;

/// Reads the alert topic with `read_committed` from its beginning on, while everything else goes on.
struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Reader {
    fn start(scenario: &Scenario<'_>) -> Reader {
        let topic = scenario.pipeline.sinks.alerts.as_ref().unwrap().topic.clone();
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &scenario.stack.kafka);
        config.set("group.id", "a-reader");
        config.set("isolation.level", "read_committed");
        let consumer: BaseConsumer = config.create().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let task = std::thread::spawn(move || {
            let found = consumer.fetch_metadata(Some(&topic), 30 * SECOND).unwrap();
            let mut list = TopicPartitionList::new();
            for partition in found.topics()[0].partitions() {
                list.add_partition_offset(&topic, partition.id(), Offset::Beginning)
                    .unwrap();
            }
            consumer.assign(&list).unwrap();
            let (mut ids, mut quiet_since) = (Vec::new(), Instant::now());
            while !(stopped.load(Ordering::Relaxed) && quiet_since.elapsed() > 5 * SECOND) {
                // Errors pass: a node is down, or is not the leader any more.
                let Some(Ok(message)) = consumer.poll(SECOND) else {
                    continue;
                };
                let alert: serde_json::Value = serde_json::from_slice(message.payload().unwrap()).unwrap();
                ids.push(alert["id"].as_str().unwrap().to_owned());
                quiet_since = Instant::now();
            }
            ids
        });
        Reader { stop, task }
    }

    /// What it has read, once nothing came for some seconds.
    fn finished(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().unwrap()
    }
}

/// Scenario: 100,000 events through two workers in batches of at most 750, while nodes of the cluster and workers are killed and
/// stopped in turn, and started again.
/// Guarantees: every sink has every event once; the reader has seen each alert once, whatever was aborted meanwhile.
#[test]
fn brokers_and_workers_bounce_and_every_record_is_copied_once() {
    run_on_cluster("bounces", Rules::Directory, async |scenario| {
        let file = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
        scenario.rewrite(&file.replace("batch:  {", "batch:  {rows: 750, rows_max: 750, "));
        scenario.write_rules("default", COPY);
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        scenario.start_worker("worker-b").await;
        let reader = Reader::start(scenario);
        let span = Duration::from_secs_f64(RECORDS / RATE);
        let load = scenario.drive(scenario.load_of(RATE, span, 1));
        load.has_run_for(2 * SECOND).await;
        for (nth, node) in Part::KAFKAS.into_iter().enumerate() {
            let hard = nth != 1;
            if hard {
                scenario.stack.kill(node).await.unwrap();
            } else {
                scenario.stack.stop(node).await.unwrap();
            }
            tokio::time::sleep(2 * SECOND).await;
            scenario.stack.start(node).await.unwrap();
            let worker = ["worker-a", "worker-b", "worker-a"][nth];
            if hard {
                scenario.kill(worker).await;
            } else {
                scenario.stop(worker).await;
            }
            scenario.start_worker(worker).await;
        }
        let driven = load.finished().await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(report.alerts, driven.produced, "{report}");
        let read = reader.finished();
        let once: BTreeSet<&String> = read.iter().collect();
        assert_eq!(once.len(), read.len(), "no alert twice");
        assert_eq!(read.len() as u64, report.alerts, "every alert");
    });
}
