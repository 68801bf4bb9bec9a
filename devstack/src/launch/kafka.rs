use super::{Place, with_class_archive};
use crate::error::{At, Error};
use crate::fetch;
use crate::part::Part;
use crate::supervise::Spec;
use std::collections::BTreeMap;
use std::path::Path;

pub(super) fn prepare(place: &Place) -> Result<Spec, Error> {
    let dir = place.of(Part::Kafka);
    let home = fetch::part_dir(&place.cache, Part::Kafka);
    let data = dir.join("data");
    if !data.exists() {
        let beside = dir.join("data.new");
        copy(&home.join("template"), &beside)?;
        std::fs::rename(&beside, &data).at(&data)?;
    }
    let properties = dir.join("server.properties");
    std::fs::write(&properties, server_properties(place, &data)).at(&properties)?;
    let heap = std::env::var("SLUICE_KAFKA_HEAP").unwrap_or_else(|_| "512m".into());
    let mut args = vec![
        format!("-Xms{heap}"),
        format!("-Xmx{heap}"),
        "-XX:+ExitOnOutOfMemoryError".into(),
    ];
    // The optimizing compiler takes a third of the broker's CPU in its first minute, which is as long as most stacks live.
    if std::env::var_os("SLUICE_KAFKA_JIT").is_none_or(|jit| jit != "full") {
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
        part: Part::Kafka,
        program: fetch::java(Part::Kafka)?,
        args,
        env: BTreeMap::new(),
        cwd: home,
        log: place.log(Part::Kafka),
        user: None,
    })
}

/// One node that is broker and controller. What differs from Kafka's defaults fits one machine (replication 1, few
/// internal partitions, no waiting for more members of a group), except: topics are not made by a typing error, a topic
/// takes more than Sluice's limit of 1 MiB for an event (so that a too large one reaches Sluice), and records are kept. After
/// a kill the controller refuses the broker until its former session is over: 3 s instead of 9.
fn server_properties(place: &Place, data: &Path) -> String {
    let (client, controller) = (place.ports.kafka, place.ports.kafka_controller);
    format!(
        "\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{client},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{client}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={data}
num.partitions=4
auto.create.topics.enable=false
message.max.bytes=4194304
replica.fetch.max.bytes=4194304
log.retention.hours=-1
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
default.replication.factor=1
min.insync.replicas=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=100
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=16777216
",
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
