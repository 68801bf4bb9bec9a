//! Verification that goes on while the pipeline runs.

use std::time::Duration;

use end_to_end::Scenario;
use end_to_end::run;
use end_to_end::shop::Rules;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::OwnedMessage;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use verify::Position;

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

fn client(scenario: &Scenario<'_>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &scenario.stack.kafka);
    config.set("group.id", "somebody-else");
    config
}

/// Some alert of those that are there now.
fn an_alert(scenario: &Scenario<'_>) -> OwnedMessage {
    let topic = &scenario.pipeline.sinks.alerts.as_ref().unwrap().topic;
    let config = client(scenario);
    let consumer: BaseConsumer = config.create().unwrap();
    let found = consumer.fetch_metadata(Some(topic), 10 * SECOND).unwrap();
    let mut list = TopicPartitionList::new();
    for partition in found.topics()[0].partitions() {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    consumer.poll(20 * SECOND).expect("an alert").unwrap().detach()
}

/// Produces an alert once more.
fn repeat(scenario: &Scenario<'_>, alert: &OwnedMessage) {
    let producer: BaseProducer = client(scenario).create().unwrap();
    let again = BaseRecord::to(alert.topic())
        .key(alert.key().unwrap())
        .payload(alert.payload().unwrap());
    producer.send(again).map_err(|(error, _)| error).unwrap();
    producer.flush(20 * SECOND).unwrap();
}

/// Scenario: `sluice verify --every 1` runs beside the pipeline, through a load, a killed worker and a second load. Then rounds of
/// our own: one after the second load, in which a row was deleted, and an alert that had been verified was produced again.
/// Guarantees: the role counts every event once and no difference; a round looks at what was committed since the last one, finds
/// that lost row and that second alert, and nothing else; the next has nothing to look at.
#[test]
fn rounds_verify_what_is_new_and_nothing_twice() {
    run("watched", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        scenario.start_verifier().await;
        let first = scenario.drive(scenario.load_of(500.0, 4 * SECOND, 1)).finished().await;
        let before = scenario.verified(&[&first]).await;
        let (report, position) = verify::round(&scenario.pipeline, scenario.options(), Position::default())
            .await
            .unwrap();
        assert!(report.clean() && report.produced == before.produced, "{report}");
        let alert = an_alert(scenario);

        let load = scenario.drive(scenario.load_of(500.0, 4 * SECOND, 2));
        load.has_run_for(SECOND).await;
        scenario.kill("worker-a").await;
        scenario.start_worker("worker-b").await;
        let second = load.finished().await;
        let all = scenario.verified(&[&first, &second]).await;
        let events = "sluice_verify_events_total";
        scenario.metric_reaches("verifier", events, all.produced as f64).await;
        assert_eq!(scenario.metric("verifier", events, &[]).await, all.produced as f64);
        let differences = "sluice_verify_differences_total";
        assert_eq!(scenario.metric("verifier", differences, &[]).await, 0.0);
        scenario.stop("verifier").await;

        let newest = "SELECT _partition, _offset FROM sessions ORDER BY _inserted_at DESC LIMIT 1";
        let place = scenario.sql(newest).await.replace('\t', ", ");
        let deletion = format!("ALTER TABLE sessions DELETE WHERE (_partition, _offset) = ({place})");
        scenario.sql(&format!("{deletion} SETTINGS mutations_sync = 2")).await;
        repeat(scenario, &alert);
        let (report, position) = verify::round(&scenario.pipeline, scenario.options(), position)
            .await
            .unwrap();
        assert_eq!(report.produced, all.produced - before.produced, "{report}");
        let found = [report.lost, report.duplicated, report.altered, report.unexpected];
        assert_eq!(found, [1, 0, 0, 1], "{report}");
        assert_eq!((report.gap, report.overlap, report.unread), (0, 0, 0), "{report}");

        let (report, _) = verify::round(&scenario.pipeline, scenario.options(), position)
            .await
            .unwrap();
        assert!(report.clean() && report.produced == 0, "{report}");
    });
}
