//! Offsets, topics and ledgers that somebody else has changed: the partition stops and says why, and a command goes on.

use std::path::Path;
use std::time::Duration;

use end_to_end::shop::Rules;
use end_to_end::{Committed, run, until};

use crate::stops::left_pending;

/// For readable times.
const SECOND: Duration = Duration::from_secs(1);

/// Scenario: after a load the workers are stopped. An administrator sets one offset back; later the whole group is removed.
/// Guarantees: the partition stops (SLU-110), the others go on; without offsets every partition that sinks know stops
/// (SLU-109); no event is delivered twice; `sluice partitions start` refuses an offset that sinks contradict, and with the
/// right ones everything goes on as if nothing had happened.
#[test]
fn offsets_that_somebody_else_has_set_stop_their_partitions() {
    run("foreign", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 4 * SECOND, 1)).finished().await;
        scenario.verified(&[&first]).await;
        let begun = |all: Vec<Committed>| all.into_iter().find(|one| one.offset > 3).unwrap();
        let one = begun(scenario.committed());
        let (name, at) = (format!("{}/{}", one.topic, one.partition), one.offset.to_string());
        let busy = scenario.refused(&["partitions", "start", &name, "--at", &at]).await;
        assert!(busy.contains("has members"), "{busy}");
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;

        let one = begun(scenario.committed());
        let reset = Committed {
            offset: one.offset - 3,
            metadata: String::new(),
            ..one.clone()
        };
        scenario.commit(&reset);
        scenario.start_stopped_worker("worker-a", "SLU-110").await;
        let listed = scenario.refused(&["partitions", "list"]).await;
        assert_eq!(
            listed.matches("SLU-110").count(),
            2,
            "one line, which names code and page\n{listed}"
        );
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        let back = reset.offset.to_string();
        let said = scenario.sluice(&["verify", "--settle", "0"]).await;
        let not_compared = format!("what came of {name} from {back} on: its committed offset stands there");
        assert!(said.contains(&not_compared), "{said}");
        let refused = scenario.refused(&["partitions", "start", &name, "--at", &back]).await;
        assert!(
            refused.contains("SLU-109") && refused.contains("cursor of `billing`"),
            "{refused}"
        );
        scenario.sluice(&["partitions", "start", &name, "--at", &at]).await;
        scenario.start_worker("worker-a").await;
        let second = scenario.drive(scenario.load_of(500.0, 4 * SECOND, 2)).finished().await;
        scenario.verified(&[&first, &second]).await;
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;

        let right = scenario.committed();
        scenario.forget_group().await;
        scenario.start_stopped_worker("worker-a", "SLU-109").await;
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        for one in right.iter().filter(|one| one.offset > 0) {
            let (name, at) = (format!("{}/{}", one.topic, one.partition), one.offset.to_string());
            scenario.sluice(&["partitions", "start", &name, "--at", &at]).await;
        }
        scenario.start_worker("worker-a").await;
        let third = scenario.drive(scenario.load_of(500.0, 2 * SECOND, 3)).finished().await;
        scenario.verified(&[&first, &second, &third]).await;
    });
}

/// A promised range inside which something can be gone.
fn not_charged(one: &Committed) -> bool {
    let (start, end) = one.range();
    end - start > 1 && !one.topic.ends_with("order.created") && !one.topic.ends_with("payment.processed")
}

/// Scenario: a worker dies with a promise pending, and retention removes the first record of the promised range.
/// Guarantees: that partition stops (SLU-103), with its promise as it was, and the others go on; it is not started behind the
/// gap while a sink's cursor stands before it, and goes on there once an operator has moved that. What came of events that
/// are gone is no difference, and the verifier says that it has not compared it.
#[test]
fn a_promised_range_that_retention_has_passed_stops_its_partition() {
    run("retention", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        left_pending(scenario, not_charged).await;
        let mut ends = scenario.ends_now().await;
        let mut promised = scenario.promised();
        // Of events that are not charged: a cursor does not go back past charges.
        promised.retain(not_charged);
        let one = promised.swap_remove(0);
        let (name, oldest) = (format!("{}/{}", one.topic, one.partition), one.offset + 1);
        scenario.delete_records(&one.topic, one.partition, oldest).await;

        // Under load: where the others are read moves on while Kafka is asked for what is left.
        let load = scenario.drive(scenario.load_of(500.0, 6 * SECOND, 2));
        let said = scenario.start_stopped_worker("worker-a", "SLU-103").await;
        assert!(said.contains(&name), "{said}");
        load.finished().await;
        let code = [("code", "SLU-103")];
        // Each lane says what it has stopped twice a second, and the partition may have moved.
        until("this partition alone to be stopped", 60 * SECOND, async || {
            (scenario.metric("worker-a", "sluice_partitions_stopped", &code).await == 1.0).then_some(())
        })
        .await;
        ends.retain(|(topic, partition, _)| (topic, *partition) != (&one.topic, one.partition));
        scenario.committed_up_to(&ends).await;
        assert!(scenario.committed().contains(&one), "its promise is pending still");
        let listed = scenario.refused(&["partitions", "list"]).await;
        assert!(listed.contains("SLU-103") && listed.contains(&name), "{listed}");
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        let at = oldest.to_string();
        let start = ["partitions", "start", &name, "--at", &at];
        let refused = scenario.refused(&start).await;
        assert!(refused.contains("cursor of `billing`"), "{refused}");
        // The range is delivered from there on anew; what billing had of it, it would refuse.
        scenario
            .sluice(&["partitions", "delete-rows", &name, "--from", &at])
            .await;
        scenario
            .sluice(&["partitions", "move-cursor", &name, "--to", &at])
            .await;
        scenario.sluice(&start).await;
        scenario.start_worker("worker-a").await;
        scenario.flowed().await;
        scenario.sluice(&["partitions", "list"]).await;

        let paid = scenario.committed();
        let paid = paid
            .iter()
            .find(|one| one.topic.ends_with("payment.processed"))
            .unwrap();
        scenario.delete_records(&paid.topic, paid.partition, paid.offset).await;
        // What the lost promise had still to feed was named nowhere else.
        scenario.sluice(&["rollups", "repair"]).await;
        let said = scenario.sluice(&["verify"]).await;
        let left_out = "\nnot compared: billing's sums, which are over all events that ever were\n";
        assert!(
            said.contains(left_out) && said.contains("what came of events before those"),
            "{said}"
        );
    });
}

/// The ledger's file, with what SQLite keeps beside it.
fn move_ledger(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("billing.sqlite") {
            std::fs::rename(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Scenario: the billing service starts with an empty ledger, as after a lost disk; then with the right one again.
/// Guarantees: nothing begins anew (SLU-105), no charge is missing or doubled.
#[test]
fn a_lost_ledger_is_no_new_sink() {
    run("ledger", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        scenario.verified(&[&first]).await;
        scenario.stop("worker-a").await;
        scenario.stop("billing").await;
        let state = scenario.dir.join("state");
        let aside = scenario.dir.join("aside");
        move_ledger(&state, &aside);
        scenario.start_billing().await;
        scenario.start_stopped_worker("worker-a", "SLU-105").await;
        scenario.stop("worker-a").await;
        scenario.stop("billing").await;
        move_ledger(&state, &scenario.dir.join("empty"));
        move_ledger(&aside, &state);
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let second = scenario.drive(scenario.load_of(500.0, 2 * SECOND, 2)).finished().await;
        scenario.verified(&[&first, &second]).await;
    });
}

/// Scenario: a topic is deleted and made again, once while no worker runs, once while one runs.
/// Guarantees: its partitions stop and the others go on: a worker that runs notices the other id (SLU-108) or, like one that starts,
/// finds that Kafka has dropped the offsets with the topic, and that sinks know it (SLU-109). The commands of the pages let a topic
/// begin anew.
#[test]
fn a_topic_that_was_made_again_is_another_topic() {
    run("again", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let first = scenario.drive(scenario.load_of(500.0, 3 * SECOND, 1)).finished().await;
        scenario.verified(&[&first]).await;
        let (running, stopped) = (&scenario.pipeline.sources[0], &scenario.pipeline.sources[1]);
        let (running, stopped) = (running.topic.clone(), stopped.topic.clone());
        scenario.make_again(&running).await;
        let said = scenario.waits("worker-a", &format!("{running}/")).await;
        // A group that has looked while there was no such topic has lost its partitions, and gets them like one that starts.
        assert!(said.contains("SLU-108") || said.contains("SLU-109"), "{said}");
        assert!(!said.contains(&stopped), "{said}");
        scenario.stop("worker-a").await;
        scenario.make_again(&stopped).await;
        let said = scenario.start_waiting_worker("worker-a", &format!("{stopped}/")).await;
        assert!(said.contains("SLU-108") || said.contains("SLU-109"), "{said}");
        scenario.stop("worker-a").await;
        scenario.group_is_empty().await;
        // The new topic begins where sinks have nothing of the old one left.
        for partition in 0..scenario.pipeline.sources[0].partitions {
            let name = format!("{running}/{partition}");
            scenario
                .sluice(&["partitions", "delete-rows", &name, "--from", "0"])
                .await;
            scenario
                .sluice(&["partitions", "move-cursor", &name, "--to", "0"])
                .await;
            scenario.sluice(&["partitions", "start", &name, "--at", "0"]).await;
        }
        let said = scenario.start_waiting_worker("worker-a", &format!("{stopped}/")).await;
        assert!(!said.contains(&running), "{said}");
        scenario.drive(scenario.load_of(500.0, 3 * SECOND, 2)).finished().await;
        let mut ends = scenario.ends_now().await;
        ends.retain(|(topic, ..)| *topic == running);
        scenario.committed_up_to(&ends).await;
    });
}
