//! A pipeline that promises nothing.

use std::time::Duration;

use end_to_end::run;
use end_to_end::shop::{RULES, Rules};

const SECOND: Duration = Duration::from_secs(1);

/// Scenario: `guarantee: at_least_once`, and a worker gets SIGKILL in mid-load, twice.
/// Guarantees: the next one goes on from the committed offset without waiting for anything, no partition stops, and every sink has
/// everything, at least once; nothing is promised.
// out: … | delivered, C? ✗ | delivered again, C | …
#[test]
fn a_killed_worker_loses_nothing_where_it_may_double() {
    run("atleast", Rules::Directory, async |scenario| {
        let file = scenario.dir.join("pipeline.yaml");
        let text = std::fs::read_to_string(file).unwrap();
        let charges = |line: &&str| !line.contains("grpc:");
        let text: Vec<&str> = text.lines().filter(charges).collect();
        scenario.rewrite(&format!("guarantee: at_least_once\n{}\n", text.join("\n")));
        let charged = "charge: {meter: revenue, quantity: amount_minor}";
        let rules = RULES.replace(charged, "alert: {severity: info, key: session_id, text: currency}");
        let charges = |line: &&str| !line.contains("charge:") && !line.starts_with("meters:");
        let rules: Vec<&str> = rules.lines().filter(charges).collect();
        scenario.write_rules("default", &rules.join("\n"));
        scenario.set_the_shop_up().await;
        scenario.start_worker("worker-a").await;
        let load = scenario.drive(scenario.load_of(1_000.0, 10 * SECOND, 1));
        load.has_run_for(3 * SECOND).await;
        for next in ["worker-a", "worker-b"] {
            scenario
                .metric_reaches("worker-a", "sluice_records_committed_total", 1.0)
                .await;
            scenario.kill("worker-a").await;
            scenario.start_worker(next).await;
        }
        let driven = load.finished().await;
        let ends = scenario.ends_now().await;
        scenario.committed_up_to(&ends).await;
        let report = verify::run(&scenario.pipeline, scenario.options()).await.unwrap();
        assert_eq!((report.lost, report.gap), (0, 0), "{report}");
        assert_eq!(report.produced, driven.produced, "{report}");
        assert!(report.alerts > 0 && report.dropped > 0, "{report}");
        assert_eq!(scenario.promised().len(), 0);
        let said = scenario.refused(&["verify"]).await;
        assert!(said.contains("guarantee: at_least_once"), "{said}");
    });
}
