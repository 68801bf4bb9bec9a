//! What tests against librdkafka's own broker share.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use exactly_once_protocol::Partition;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{BaseProducer, DefaultProducerContext, Producer as _};
use rdkafka::{ClientConfig, bindings};

use crate::group::{Group, Moved, Polled, Topics};
use crate::settings::Connection;

/// What librdkafka does at once takes no longer on the busiest machine.
pub const WITHIN: Duration = Duration::from_secs(60);

/// A broker of librdkafka's own.
pub type Cluster = MockCluster<'static, DefaultProducerContext>;

/// One with these topics, which gives a member its partitions as soon as it has joined. By itself it waits for three seconds, and when
/// the machine stands still for one more the member's connection is closed as an idle one; it joins again, and the broker, which has
/// not answered yet, ends the process (`rd_kafka_mock_cgrp_classic_member_add`).
pub fn cluster(topics: &[(&str, i32)]) -> Cluster {
    let mut config = ClientConfig::new();
    config.set("test.mock.num.brokers", "1");
    let host: BaseProducer = config.create().expect("a client that has a broker in it");
    // It lives as long as the tests.
    let host = Box::leak(Box::new(host));
    // SAFETY: both calls are made of a client that lives.
    unsafe {
        let broker = bindings::rd_kafka_handle_mock_cluster(host.client().native_ptr());
        bindings::rd_kafka_mock_group_initial_rebalance_delay_ms(broker, 1);
    }
    let cluster = host.client().mock_cluster().expect("librdkafka's own broker");
    for (topic, partitions) in topics {
        cluster.create_topic(topic, *partitions, 1).expect("a topic");
    }
    cluster
}

/// How a worker reaches it.
pub fn connection(cluster: &MockCluster<'_, DefaultProducerContext>) -> Connection {
    Connection {
        brokers: vec![cluster.bootstrap_servers()],
        properties: BTreeMap::new(),
        group: "shop".to_owned(),
        client: "test".to_owned(),
        session_timeout: Duration::from_secs(6),
        transaction_timeout: Duration::from_secs(5),
        poll_interval_max: Duration::from_secs(30),
    }
}

/// The only member of its group, and the partitions that it was given and has not taken yet.
pub fn joined(connection: &Connection, topics: &Topics) -> (Group, Vec<Partition>) {
    let group = Group::join(connection, topics).expect("a member");
    let until = Instant::now() + WITHIN;
    loop {
        assert!(Instant::now() < until, "nothing was assigned");
        if let Polled::Nothing = group.poll().expect("no fatal error") {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some(Moved::Assigned(partitions)) = group.moved() {
            return (group, partitions);
        }
    }
}

/// Writes a batch of two records that says that it is packed by LZ4, and is not. The broker looks into none.
pub fn write_broken(connection: &Connection, topic: &str) {
    let mut batch = Vec::new();
    batch.extend(3_i16.to_be_bytes()); // attributes: LZ4
    batch.extend(1_i32.to_be_bytes()); // offset of the last record, from the first
    batch.extend([0; 16]); // timestamps of the first and of the newest record
    batch.extend([0xff; 14]); // producer, its epoch and sequence: none
    batch.extend(2_i32.to_be_bytes()); // records
    batch.extend(b"what no codec gives");
    let mut records = vec![0; 8]; // offset of the first record
    records.extend(i32::try_from(batch.len() + 9).expect("short").to_be_bytes());
    records.extend([0; 4]); // epoch of the leader
    records.push(2); // format
    records.extend([0; 4]); // checksum, which librdkafka looks at only if it is told to
    records.extend(batch);
    let text = |request: &mut Vec<u8>, text: &str| {
        request.extend(i16::try_from(text.len()).expect("short").to_be_bytes());
        request.extend(text.as_bytes());
    };
    let mut request = Vec::new();
    request.extend([0, 0, 0, 3, 0, 0, 0, 1]); // Produce, version 3, its number
    text(&mut request, "test");
    request.extend((-1_i16).to_be_bytes()); // in no transaction
    request.extend(1_i16.to_be_bytes()); // answered by the leader
    request.extend(10_000_i32.to_be_bytes()); // within so many milliseconds
    request.extend(1_i32.to_be_bytes()); // topics
    text(&mut request, topic);
    request.extend(1_i32.to_be_bytes()); // partitions
    request.extend(0_i32.to_be_bytes());
    request.extend(i32::try_from(records.len()).expect("short").to_be_bytes());
    request.extend(records);
    let mut stream = TcpStream::connect(&connection.brokers[0]).expect("the broker");
    stream
        .write_all(&u32::try_from(request.len()).expect("short").to_be_bytes())
        .expect("sent");
    stream.write_all(&request).expect("sent");
    let mut length = [0; 4];
    stream.read_exact(&mut length).expect("an answer");
}
