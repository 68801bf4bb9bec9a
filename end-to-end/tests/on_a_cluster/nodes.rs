//! The cluster itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use devstack::{Options, Part, Stack};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);
/// Of one record, over the death of a broker.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
const TOPIC: &str = "numbers";

fn client(stack: &Stack) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &stack.kafka);
    config.set("acks", "all");
    config.set("enable.idempotence", "true");
    config.set("delivery.timeout.ms", "60000");
    config
}

/// Counts what is acknowledged.
#[derive(Default)]
struct Acknowledged(AtomicU32);

impl ClientContext for Acknowledged {}

impl ProducerContext for Acknowledged {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            panic!("not acknowledged: {error}");
        }
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// Writes one number after another for so long, each acknowledged before the next; the longest that one took.
fn write(producer: &BaseProducer<Acknowledged>, span: Duration) -> Duration {
    let acknowledged = || producer.context().0.load(Ordering::Relaxed);
    let (until, mut longest) = (Instant::now() + span, Duration::ZERO);
    while Instant::now() < until {
        let (began, number) = (Instant::now(), acknowledged());
        let text = number.to_string();
        let record = BaseRecord::<str, str>::to(TOPIC).payload(&text);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        while acknowledged() == number {
            producer.poll(SECOND);
        }
        longest = longest.max(began.elapsed());
    }
    longest
}

fn numbers(stack: &Stack) -> Vec<u32> {
    let consumer: BaseConsumer = client(stack)
        .set("group.id", "reader")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(TOPIC, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(30 * SECOND).expect("an answer") {
            Ok(message) => found.push(String::from_utf8_lossy(message.payload().unwrap()).parse().unwrap()),
            Err(rdkafka::error::KafkaError::PartitionEOF(_)) => return found,
            Err(_) => {}
        }
    }
}

/// Scenario: one record after another is written while each node is killed in turn, and started again.
/// Guarantees: what is acknowledged is there, once and in order; writes go on within 30 s of a node's death.
#[tokio::test]
async fn any_one_node_may_die_and_writes_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::for_tests(dir.path()).with_cluster();
    options.parts = Part::KAFKAS.to_vec();
    let mut stack = devstack::up(options).await.unwrap();
    assert_eq!(stack.kafka.split(',').count(), 3);
    let admin: AdminClient<DefaultClientContext> = client(&stack).create().unwrap();
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Fixed(3));
    let within = AdminOptions::new().operation_timeout(Some(30 * SECOND));
    for made in admin.create_topics([&topic], &within).await.unwrap() {
        made.unwrap();
    }
    let producer: BaseProducer<Acknowledged> = client(&stack).create_with_context(Acknowledged::default()).unwrap();
    for node in Part::KAFKAS {
        write(&producer, SECOND);
        stack.kill(node).await.unwrap();
        let longest = write(&producer, 2 * SECOND);
        println!("{node} killed: the slowest write took {longest:?}");
        assert!(
            longest < WRITTEN_WITHIN,
            "writes stood still for {longest:?} after {node} died"
        );
        stack.start(node).await.unwrap();
    }
    let found = numbers(&stack);
    let once: BTreeSet<u32> = found.iter().copied().collect();
    assert_eq!(found, once.into_iter().collect::<Vec<_>>(), "in order, none twice");
    let acknowledged = producer.context().0.load(Ordering::Relaxed);
    assert_eq!(found.len(), acknowledged as usize, "all that was acknowledged");
    stack.down().await.unwrap();
}
