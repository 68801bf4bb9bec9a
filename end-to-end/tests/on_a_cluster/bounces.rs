//! Kafka's own system test of transactions, with Sluice in the place of its copying client: 100,000 records, small
//! transactions, brokers and clients that are killed and restarted, and a reader of committed records beside them.

use std::collections::BTreeSet;
use std::time::Duration;

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::{Reader, run_on_cluster};

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
            // How long it is away is part of the fault.
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
