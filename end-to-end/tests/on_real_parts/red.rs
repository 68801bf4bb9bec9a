//! A verifier that cannot go red proves nothing.

use std::time::Duration;

use end_to_end::Scenario;
use end_to_end::run;
use end_to_end::shop::Rules;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// What the verifier counts, in the order of its last line.
async fn counts(scenario: &Scenario<'_>) -> [u64; 6] {
    let said = scenario.refused(&["verify", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    ["lost", "duplicated", "altered", "unexpected", "gap", "overlap"].map(|name| report[name].as_u64().unwrap())
}

/// Where the first row of a table came from, as a condition.
async fn first_row(scenario: &Scenario<'_>, table: &str) -> String {
    let place = format!("SELECT _partition, _offset FROM {table} ORDER BY _partition, _offset LIMIT 1");
    let place = scenario.sql(&place).await.replace('\t', ", ");
    format!("(_partition, _offset) = ({place})")
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
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &scenario.stack.kafka);
        let producer: BaseProducer = config.create().unwrap();
        let record = record.to_string();
        let message = BaseRecord::<str, str>::to(&scenario.pipeline.audit.topic).payload(&record);
        producer.send(message).map_err(|(error, _)| error).unwrap();
        producer.flush(20 * SECOND).unwrap();
        let said = scenario.refused(&["verify", "--json"]).await;
        assert!(
            said.contains("\"overlap\": 1"),
            "and one offset committed twice: {said}"
        );
    });
}
