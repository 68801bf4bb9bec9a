use super::{Place, with_class_archive};
use crate::error::{At, Error};
use crate::fetch;
use crate::part::Part;
use crate::supervise::Spec;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn prepare(place: &Place, part: Part) -> Result<Spec, Error> {
    let dir = place.of(part);
    let home = fetch::part_dir(&place.cache, part);
    let data = dir.join("data");
    if !data.exists() {
        let beside = dir.join("data.new");
        copy(&home.join("template"), &beside)?;
        name_node(&beside.join("meta.properties"), node_id(part))?;
        std::fs::rename(&beside, &data).at(&data)?;
    }
    let properties = dir.join("server.properties");
    std::fs::write(&properties, server_properties(place, part, &data)).at(&properties)?;
    let heap = std::env::var("SLUICE_KAFKA_HEAP").unwrap_or_else(|_| "512m".into());
    let mut args = vec![
        format!("-Xms{heap}"),
        format!("-Xmx{heap}"),
        "-XX:+ExitOnOutOfMemoryError".into(),
    ];
    if !place.kafka_optimizes {
        args.push("-XX:TieredStopAtLevel=1".into());
    }
    args.push(format!("-XX:ErrorFile={}", dir.join("crash.log").display()));
    args.extend(with_class_archive(&home));
    args.push("-Dlog4j2.configurationFile=log4j2.properties".into());
    // Relative, as when the class archive was made.
    args.extend([
        "-cp".into(),
        "lib/*".into(),
        "kafka.Kafka".into(),
        properties.display().to_string(),
    ]);
    Ok(Spec {
        part,
        program: fetch::java(part)?,
        args,
        env: BTreeMap::new(),
        cwd: home,
        log: place.log(part),
        user: None,
    })
}

fn node_id(part: Part) -> usize {
    Part::KAFKAS
        .iter()
        .position(|node| *node == part)
        .map_or(1, |at| at + 1)
}

/// The template is formatted for the first node; another one is the same cluster's with its own number. Kafka makes up a
/// directory id where there is none.
fn name_node(meta: &Path, node: usize) -> Result<(), Error> {
    let text = std::fs::read_to_string(meta).at(meta)?;
    let own = |line: &&str| node == 1 || !line.starts_with("directory.id=");
    let lines = text.lines().filter(own).map(|line| match line.starts_with("node.id=") {
        true => format!("node.id={node}\n"),
        false => format!("{line}\n"),
    });
    std::fs::write(meta, lines.collect::<String>()).at(meta)
}

/// One node that is broker and controller, alone or one of three. What differs from Kafka's defaults fits one machine (replication 1 of a
/// single node, few internal partitions, no waiting for more members of a group), except: topics are not made by a typing error, a topic
/// takes more than Sluice's limit of 1 MiB for an event (so that a too large one reaches Sluice), and records are kept. After
/// a kill the controller refuses the broker until its former session is over: 3 s instead of 9.
fn server_properties(place: &Place, part: Part, data: &Path) -> String {
    let (client, controller) = place.ports.kafka_of(part);
    let node = node_id(part);
    // A client stays on the listener that it came to, so that behind a proxy it reaches every node through one.
    let front = place.kafka_proxies.map(|proxies| {
        let (own, told) = (place.ports.kafka_front[node - 1], proxies[node - 1]);
        (
            format!(",FRONT://127.0.0.1:{own}"),
            format!(",FRONT://127.0.0.1:{told}"),
            ",FRONT:PLAINTEXT",
        )
    });
    let (front, told, plain) = front.unwrap_or_default();
    let (nodes, in_sync) = if place.cluster { (3, 2) } else { (1, 1) };
    let voter = |node: &Part| format!("{}@127.0.0.1:{}", node_id(*node), place.ports.kafka_of(*node).1);
    let voters: Vec<String> = Part::KAFKAS.iter().take(nodes).map(voter).collect();
    format!(
        "\
process.roles=broker,controller
node.id={node}
controller.quorum.voters={voters}
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}{front}
advertised.listeners=PLAINTEXT://127.0.0.1:{client}{told}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT{plain}
log.dirs={data}
num.partitions=4
auto.create.topics.enable=false
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
log.retention.hours=-1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
default.replication.factor={nodes}
min.insync.replicas={in_sync}
offsets.topic.replication.factor={nodes}
offsets.topic.num.partitions=4
transaction.state.log.replication.factor={nodes}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor={nodes}
share.coordinator.state.topic.min.isr={in_sync}
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
",
        voters = voters.join(","),
        data = data.display()
    )
}

fn copy(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(to).at(to)?;
    for entry in std::fs::read_dir(from).at(from)? {
        let entry = entry.at(from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target).at(&source)?;
        }
    }
    Ok(())
}
