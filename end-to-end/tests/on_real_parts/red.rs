//! A verifier that cannot go red proves nothing.

use std::time::Duration;

use end_to_end::Scenario;
use end_to_end::run;
use end_to_end::shop::Rules;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Message as _, Offset, TopicPartitionList};
use serde_json::Value as Json;

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// What the verifier counts, in the order of its last line.
async fn counts(scenario: &Scenario<'_>) -> [u64; 6] {
    let said = scenario.refused(&["verify", "--json"]).await;
    let report: Json = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    ["lost", "duplicated", "altered", "unexpected", "gap", "overlap"].map(|name| report[name].as_u64().unwrap())
}

/// Where the first row of a table came from, as a condition.
async fn first_row(scenario: &Scenario<'_>, table: &str) -> String {
    let place = format!("SELECT _partition, _offset FROM {table} ORDER BY _partition, _offset LIMIT 1");
    let place = scenario.sql(&place).await.replace('\t', ", ");
    format!("(_partition, _offset) = ({place})")
}

fn client(scenario: &Scenario<'_>) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &scenario.stack.kafka);
    config.set("group.id", "somebody-else");
    config
}

fn produce(scenario: &Scenario<'_>, topic: &str, records: &[Json]) {
    let producer: BaseProducer = client(scenario).create().unwrap();
    for record in records.iter().map(Json::to_string) {
        let message = BaseRecord::<str, str>::to(topic).payload(&record);
        producer.send(message).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(20 * SECOND).unwrap();
}

/// Every record of the audit.
fn audit(scenario: &Scenario<'_>) -> Vec<Json> {
    let topic = &scenario.pipeline.audit.topic;
    let mut config = client(scenario);
    config.set("enable.partition.eof", "true");
    let consumer: BaseConsumer = config.create().unwrap();
    let found = consumer.fetch_metadata(Some(topic), 10 * SECOND).unwrap();
    let mut list = TopicPartitionList::new();
    let partitions = found.topics()[0].partitions();
    for partition in partitions {
        list.add_partition_offset(topic, partition.id(), Offset::Beginning)
            .unwrap();
    }
    consumer.assign(&list).unwrap();
    let (mut records, mut ended) = (Vec::new(), 0);
    while ended < partitions.len() {
        match consumer.poll(20 * SECOND).expect("a record of the audit, or its end") {
            Ok(message) => records.push(serde_json::from_slice(message.payload().unwrap()).unwrap()),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    records
}

/// Lets the pipeline file name another topic as the audit, which has these records.
async fn audited_by(scenario: &mut Scenario<'_>, (file, topic): (&str, &str), records: &[Json]) {
    let admin: AdminClient<DefaultClientContext> = client(scenario).create().unwrap();
    let topics = [NewTopic::new(topic, 1, TopicReplication::Fixed(1))];
    for made in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
        made.unwrap();
    }
    produce(scenario, topic, records);
    scenario.rewrite(&format!("{file}\naudit: {{topic: {topic}}}\n"));
}

/// Every range of these records.
fn ranges(records: &mut [Json]) -> impl Iterator<Item = &mut Json> {
    records
        .iter_mut()
        .flat_map(|record| record["ranges"].as_array_mut().unwrap())
}

/// Scenario: after a load that was verified, the audit is another topic: with the same records, of which one counts a row too
/// many; then with the same records without any counts, as another version might write them. Then the rules directory changes.
/// Guarantees: `sluice verify` counts one miscounted range, exits with 1, and says that the sinks are right; it takes no offence at
/// counts that are not there; it recomputes each range with the rules that a worker has kept.
#[test]
fn one_wrong_count_of_the_audit_is_found_and_nothing_is_said_of_sinks() {
    run("miscounted", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let driven = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        let right = scenario.verified(&[&driven]).await;
        assert_eq!(right.ranges_compared, right.ranges, "{right}");
        let file = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
        let records = audit(scenario);

        let mut tampered = records.clone();
        let mut rows = ranges(&mut tampered).flat_map(|range| range["rows"].as_object_mut().unwrap().values_mut());
        let some = rows.next().unwrap();
        *some = (some.as_u64().unwrap() + 1).into();
        drop(rows);
        audited_by(scenario, (&file, "miscounted.tampered"), &tampered).await;
        assert_eq!(counts(scenario).await, [0; 6]);
        let said = scenario.refused(&["verify"]).await;
        let figures = format!(
            "it miscounts what came of 1 of {} ranges\nexactly once: lost = ",
            right.ranges
        );
        assert!(said.contains(&figures), "{said}");
        assert!(said.contains("\naudit: miscounted: miscounted."), "{said}");

        let mut silent = records;
        for range in ranges(&mut silent) {
            for name in ["outputs", "digest", "rows", "charges", "dead_letters"] {
                range.as_object_mut().unwrap().remove(name).unwrap();
            }
        }
        audited_by(scenario, (&file, "miscounted.silent"), &silent).await;
        let said = scenario.sluice(&["verify"]).await;
        let figures = format!("over {} committed ranges, 0 with their counts", right.ranges);
        assert!(said.contains(&figures), "{said}");

        scenario.rewrite(&file);
        scenario.write_rules(
            "default",
            "tenant: \"*\"\nrules:\n  - {name: mark, set: {source: \"'other'\"}}\n",
        );
        let said = scenario.sluice(&["verify"]).await;
        let figures = format!("over {0} committed ranges, {0} with their counts", right.ranges);
        assert!(said.contains(&figures), "{said}");
    });
}

/// Scenario: after a load that was verified, one row is deleted, one is doubled and one is altered, each in a table without a
/// rollup; then a row is deleted that a rollup has summed; then the audit gets a second record of one offset.
/// Guarantees: `sluice verify` exits with 1 each time and counts exactly that.
#[test]
fn one_lost_one_doubled_one_altered_row_and_one_offset_committed_twice_are_found() {
    run("red", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let driven = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        scenario.verified(&[&driven]).await;

        let row = first_row(scenario, "sessions").await;
        let now = "SETTINGS mutations_sync = 2";
        scenario
            .sql(&format!("ALTER TABLE sessions DELETE WHERE {row} {now}"))
            .await;
        assert_eq!(counts(scenario).await, [1, 0, 0, 0, 0, 0], "one row lost");

        let row = first_row(scenario, "errors").await;
        let columns = "SELECT arrayStringConcat(groupArray('`' || name || '`'), ',') FROM system.columns \
             WHERE database = currentDatabase() AND table = 'errors' AND default_kind NOT IN ('MATERIALIZED', 'EPHEMERAL', 'ALIAS')";
        let columns = scenario.sql(columns).await;
        let twice = format!("INSERT INTO errors ({columns}) SELECT {columns} FROM errors WHERE {row}");
        scenario.sql(&twice).await;
        assert_eq!(counts(scenario).await, [1, 1, 0, 0, 0, 0], "and one doubled");

        let row = first_row(scenario, "payments").await;
        let altered = format!("ALTER TABLE payments UPDATE amount_minor = amount_minor + 1 WHERE {row} {now}");
        scenario.sql(&altered).await;
        assert_eq!(counts(scenario).await, [1, 1, 1, 0, 0, 0], "and one altered");

        let row = first_row(scenario, "orders").await;
        scenario
            .sql(&format!("ALTER TABLE orders DELETE WHERE {row} {now}"))
            .await;
        let [lost, duplicated, altered, unexpected, ..] = counts(scenario).await;
        assert_eq!((lost, duplicated), (2, 1), "and another one lost");
        assert_eq!(
            altered + unexpected,
            2,
            "its minute in the rollup has one order too many"
        );

        let source = &scenario.pipeline.sources[0];
        let record = serde_json::json!({"v": 1, "kind": "commit", "pipeline": scenario.pipeline.name, "ranges": [
            {"topic": source.topic, "partition": 0, "start": 0, "end": 1, "rules": 0, "rules_digest": "0"}]});
        produce(scenario, &scenario.pipeline.audit.topic, &[record]);
        let said = scenario.refused(&["verify", "--json"]).await;
        assert!(
            said.contains("\"overlap\": 1"),
            "and one offset committed twice: {said}"
        );
    });
}
