//! A reader of committed records that goes on while everything else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};

use crate::Scenario;

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// Reads the alert topic with `read_committed` from its beginning on, while everything else goes on.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Vec<String>>,
}

impl Reader {
    /// Begins to read.
    pub fn start(scenario: &Scenario<'_>) -> Reader {
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
    pub fn finished(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.join().unwrap()
    }
}
