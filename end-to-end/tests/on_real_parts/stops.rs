//! What stops a partition or a lane, how it is told, and what an operator does until everything flows again.

use std::time::Duration;

use devstack::Part;
use end_to_end::shop::{RULES, Rules};
use end_to_end::{Committed, Scenario, Worker, run, until};
use load_tests::event::EventType;

const SECOND: Duration = Duration::from_secs(1);

/// `topic/partition`, as commands take it.
fn name(one: &Committed) -> String {
    format!("{}/{}", one.topic, one.partition)
}

/// The pipeline file with one text in the place of another.
pub fn replaced(scenario: &Scenario<'_>, old: &str, new: &str) -> String {
    let text = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
    assert!(text.contains(old), "{old}");
    text.replace(old, new)
}

/// Drives a load under which ClickHouse dies and then the worker, once such a range is promised. What was promised before may
/// have rows already; what comes last has none.
pub async fn left_pending(scenario: &mut Scenario<'_>, such: impl Fn(&Committed) -> bool) {
    // All lanes have what is theirs: one that takes partitions while ClickHouse is gone reads nothing before it is back.
    scenario.drive(scenario.load_of(500.0, SECOND, 0)).finished().await;
    scenario.flowed().await;
    let mut dense = scenario.load_of(2_000.0, 6 * SECOND, 1);
    // One topic is left out, so that some partitions have no promise and go on.
    dense.targets.retain(|target| target.event != EventType::Error);
    let load = scenario.drive(dense);
    scenario
        .metric_reaches("worker-a", "sluice_records_committed_total", 1_500.0)
        .await;
    scenario.stack.kill(Part::ClickHouse).await.unwrap();
    // Whatever was on its way to it is refused soon, and what is promised next finds nobody.
    load.finished().await;
    until("the ranges to be promised", 60 * SECOND, async || {
        scenario.promised().iter().any(&such).then_some(())
    })
    .await;
    scenario.kill("worker-a").await;
    scenario.stack.start(Part::ClickHouse).await.unwrap();
    scenario.group_is_empty().await;
}

/// A promised range of a table without rollups: no feeding stands in its way.
fn of_payments(one: &Committed) -> bool {
    one.is_range() && one.topic.ends_with("payment.processed")
}

/// Everything flows again, and each sink has everything once; each range is compared by the rules that it was made with.
async fn right_again(scenario: &mut Scenario<'_>) {
    scenario.start_worker("worker-a").await;
    scenario.flowed().await;
    scenario.sluice(&["partitions", "list"]).await;
    let verified = scenario.sluice(&["verify"]).await;
    assert!(verified.contains("gap = overlap = 0"), "{verified}");
}

/// Applies rules that differ by a mark.
async fn mark(scenario: &mut Scenario<'_>, revision: &str) {
    let text = format!("{RULES}  - {{name: mark, set: {{source: \"'{revision}'\"}}}}\n");
    scenario.write_rules("default", &text);
    let rules = scenario.dir.join("rules").display().to_string();
    scenario.sluice(&["rules", "apply", &rules]).await;
}

/// Scenario: the pipeline file is changed while ranges are promised, so that payments cannot be read; then it is put back.
/// Guarantees: their partitions stop (SLU-102); with the file as it was everything is delivered once.
#[test]
fn another_pipeline_file_stops_what_was_promised_under_the_one_before() {
    run("refile", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        left_pending(scenario, of_payments).await;
        let right = replaced(scenario, "schema_id: header", "schema_id: header");
        let other = replaced(scenario, "schema_id: header", "schema_id: prefix");
        scenario.rewrite(&other);
        scenario.start_stopped_worker("worker-a", "SLU-102").await;
        scenario.stop("worker-a").await;
        scenario.rewrite(&right);
        right_again(scenario).await;
    });
}

/// Scenario: a worker that dies has promised a range under rules of which no copy is left: the service's store is from before them, and
/// the worker's disk is empty; then the copies are found.
/// Guarantees: the partition stops (SLU-107); with the rules back everything is delivered once.
#[test]
fn rules_that_nobody_has_any_more_stop_what_was_promised_with_them() {
    run("norules", Rules::Service, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_config().await;
        mark(scenario, "first").await;
        mark(scenario, "second").await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        left_pending(scenario, Committed::is_range).await;
        scenario.stop("config").await;
        let (state, aside) = (scenario.dir.join("state"), scenario.dir.join("aside"));
        std::fs::create_dir_all(&aside).unwrap();
        for entry in std::fs::read_dir(&state).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name().to_string_lossy().starts_with("rules") {
                std::fs::rename(entry.path(), aside.join(entry.file_name())).unwrap();
            }
        }
        scenario.start_config().await;
        // What partitions without such a promise commit in the meantime stays to be verified: the first revision is one again.
        mark(scenario, "first").await;
        scenario.start_stopped_worker("worker-a", "SLU-107").await;
        scenario.stop("worker-a").await;
        scenario.stop("config").await;
        for entry in std::fs::read_dir(&aside).unwrap() {
            let entry = entry.unwrap();
            let place = state.join(entry.file_name());
            if place.is_dir() {
                std::fs::remove_dir_all(&place).unwrap();
            }
            std::fs::rename(entry.path(), place).unwrap();
        }
        scenario.start_config().await;
        right_again(scenario).await;
    });
}

/// Scenario: somebody inserts a row under an offset of a promised range.
/// Guarantees: the partition stops (SLU-106) and the row is not taken for one of Sluice's; once the command has taken it out,
/// everything is delivered once.
#[test]
fn a_foreign_row_in_a_promised_range_stops_its_partition() {
    run("stray", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        left_pending(scenario, of_payments).await;
        let one = scenario.promised().into_iter().find(of_payments);
        let one = one.unwrap();
        let (start, end) = one.range();
        let stray = format!(
            "INSERT INTO payments SELECT * REPLACE({start} AS _offset, {} AS _partition, 7 AS _row_hash) FROM payments \
             WHERE _topic = '{}' LIMIT 1",
            one.partition, one.topic
        );
        scenario.sql(&stray).await;
        // Beside the stray one those of its own that were inserted before ClickHouse was gone, if they were.
        let there = format!(
            "SELECT count() FROM payments WHERE _topic = '{}' AND _partition = {} AND _offset >= {start} AND _offset < {end}",
            one.topic, one.partition
        );
        let there = scenario.number(&there).await;
        let said = scenario.start_stopped_worker("worker-a", "SLU-106").await;
        assert!(said.contains(&name(&one)), "{said}");
        let (name, start, end) = (name(&one), start.to_string(), end.to_string());
        let words = ["partitions", "delete-rows", &name, "--from", &start];
        let refused = scenario.refused(&words).await;
        assert!(refused.contains("has members"), "{refused}");
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        let words = [&words[..], &["--to", &end]].concat();
        let deleted = scenario.sluice(&words).await;
        assert!(
            deleted.contains(&format!(" {there} rows deleted from payments")),
            "{deleted}"
        );
        right_again(scenario).await;
    });
}

/// Scenario: rules charge a meter that billing knows under another scale; then a meter of another name.
/// Guarantees: partitions with such charges stop (SLU-104), the others go on; after the page's steps everything is delivered once.
#[test]
fn a_charge_that_billing_refuses_stops_its_partition() {
    run("rescaled", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        scenario.verified(&[&first]).await;
        let rescaled = RULES.replace("revenue: {unit: EUR, scale: 2}", "revenue: {unit: EUR, scale: 3}");
        let renamed = RULES
            .replace("revenue: {unit: EUR, scale: 2}", "turnover: {unit: EUR, scale: 3}")
            .replace("charge: {meter: revenue", "charge: {meter: turnover");
        scenario.stop("worker-a").await;
        scenario.write_rules("default", &rescaled);
        scenario.launch_worker("worker-a", Worker::default());
        scenario.drive(scenario.load_of(500.0, 3 * SECOND, 2)).finished().await;
        scenario.is_stopped("worker-a", "SLU-104").await;
        scenario.kill("worker-a").await;
        scenario.group_is_empty().await;
        let stopped: Vec<Committed> = scenario
            .promised()
            .into_iter()
            .filter(|one| one.topic.ends_with("payment.processed"))
            .collect();
        assert!(!stopped.is_empty());
        scenario.write_rules("default", &renamed);
        for one in &stopped {
            let (name, at) = (name(one), one.range().0.to_string());
            scenario
                .sluice(&["partitions", "delete-rows", &name, "--from", &at])
                .await;
            scenario.sluice(&["partitions", "start", &name, "--at", &at]).await;
        }
        scenario.start_worker("worker-a").await;
        scenario.flowed().await;
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        // What the stopped range's promise had still to feed was named nowhere else.
        scenario.sluice(&["rollups", "repair"]).await;
        right_again(scenario).await;
    });
}

/// Rules that fail on every event, though they are rules.
const BAD: &str =
    "tenant: \"*\"\nrules:\n  - {name: bad, set: {source: \"CAST(CAST(event_id AS BIGINT) AS VARCHAR)\"}}\n";

/// Scenario: rules in the directory turn most events into dead letters; later the operator puts right ones there.
/// Guarantees: the lanes stop (SLU-201) and go on by themselves with the right rules; everything is delivered once.
#[test]
fn the_brake_is_released_by_rules_that_come_to_the_directory() {
    run("braked", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.write_rules("default", BAD);
        scenario.start_worker("worker-a").await;
        scenario
            .drive(scenario.load_of(1_000.0, 4 * SECOND, 1))
            .finished()
            .await;
        scenario.is_stopped("worker-a", "SLU-201").await;
        scenario.write_rules("default", RULES);
        scenario.flowed().await;
        let verified = scenario.sluice(&["verify"]).await;
        assert!(verified.contains("gap = overlap = 0"), "{verified}");
    });
}

/// Scenario: most events become dead letters by a mistake in the rules; the mended rules come while the batch that trips the brake
/// is being collected.
/// Guarantees: the brake trips (SLU-201) and nothing of the batch is committed; then each of its events arrives.
#[test]
fn rules_that_are_mended_while_the_brake_trips_leave_nothing_out() {
    run("mended", Rules::Service, async |scenario| {
        // Long batches: this one ends when the newer rules are there.
        let slow = replaced(scenario, "batch:  {", "batch:  {linger: 9s, age_max: 12s, ")
            .replace("deadline: 4s", "deadline: 15s");
        scenario.rewrite(&slow);
        scenario.set_the_shop_up().await;
        scenario.start_config().await;
        let rules = scenario.dir.join("rules").display().to_string();
        scenario.write_rules("default", BAD);
        scenario.sluice(&["rules", "apply", &rules]).await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        scenario
            .drive(scenario.load_of(1_000.0, 3 * SECOND, 1))
            .finished()
            .await;
        scenario
            .metric_reaches("worker-a", "sluice_records_total", 2_500.0)
            .await;
        scenario.write_rules("default", RULES);
        scenario.sluice(&["rules", "apply", &rules]).await;
        scenario.flowed().await;
        assert!(scenario.said("worker-a", "SLU-201") > 0, "the brake has tripped");
        let verified = scenario.sluice(&["verify"]).await;
        assert!(verified.contains("gap = overlap = 0"), "{verified}");
    });
}

/// Scenario: rules charge so much for each event that the charges of a range do not fit into one message to billing.
/// Guarantees: batches are cut until they do, and everything is delivered once.
#[test]
fn charges_that_do_not_fit_one_message_are_cut_into_smaller_ranges() {
    run("charges", Rules::Directory, async |scenario| {
        let billing = scenario.billing_url();
        let small = replaced(
            scenario,
            &format!("{{grpc: \"{billing}\"}}"),
            &format!("{{grpc: \"{billing}\", message_bytes_max: 64KiB}}"),
        );
        scenario.rewrite(&small);
        let meters: Vec<String> = (0..6).map(|nth| format!("seen_{nth}: {{unit: event}}")).collect();
        let charges: Vec<String> = (0..6)
            .map(|nth| format!("  - {{name: seen-{nth}, charge: {{meter: seen_{nth}, quantity: 1}}}}\n"))
            .collect();
        let rules = RULES.replace("meters: {", &format!("meters: {{{}, ", meters.join(", "))) + &charges.concat();
        scenario.write_rules("default", &rules);
        scenario.set_the_shop_up().await;
        let driven = scenario
            .drive(scenario.load_of(2_000.0, 4 * SECOND, 1))
            .finished()
            .await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        scenario.verified(&[&driven]).await;
        assert!(
            scenario.said("worker-a", "too many for one message") > 0,
            "a batch was cut"
        );
    });
}

/// Scenario: a transactional call never ends: once with the offsets on their way, once with the commit done and not told.
/// Guarantees: the lane gives the thread up, says so, and another producer goes on; everything is delivered once.
#[test]
fn a_transactional_call_that_hangs_is_given_up() {
    run("hangs", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        for (nth, crash) in ["offsets-sent:5:hang", "commit-answered:2:hang"]
            .into_iter()
            .enumerate()
        {
            let worker = Worker {
                crash: Some(crash),
                ..Worker::default()
            };
            scenario.launch_worker("worker-a", worker);
            scenario
                .metric_reaches("worker-a", "sluice_partitions_owned", f64::from(scenario.partitions()))
                .await;
            scenario
                .drive(scenario.load_of(500.0, 3 * SECOND, nth as u64))
                .finished()
                .await;
            // What hangs may be a lane's last commit, with which everything is committed.
            until(format!("the watchdog to find {crash}"), 60 * SECOND, async || {
                let given_up = [("outcome", "given_up")];
                let counted = scenario
                    .metric("worker-a", "sluice_transactions_total", &given_up)
                    .await;
                (counted >= 1.0).then_some(())
            })
            .await;
            scenario.flowed().await;
            assert!(scenario.said("worker-a", "given up before it ended") > 0, "{crash}");
            scenario.kill("worker-a").await;
            scenario.group_is_empty().await;
        }
        right_again(scenario).await;
    });
}
