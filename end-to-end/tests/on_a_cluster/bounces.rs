//! Kafka's own system test of transactions, with Sluice in the place of its copying client: 100,000 records, small
//! transactions, brokers and clients that are killed and restarted, and a reader of committed records beside them.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use devstack::Part;
use end_to_end::shop::Rules;
use end_to_end::{Reader, run_on_cluster, until};

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

/// One bounce after another: who, and whether it is killed (or stopped properly).
type Bounces = [(Bounced, bool); 6];

#[derive(Debug, Clone, Copy)]
enum Bounced {
    Node(Part),
    Worker(&'static str),
}

const WORKERS: [&str; 2] = ["worker-a", "worker-b"];
/// Whoever was struck is away: a broker's partitions have other leaders, a worker's another owner.
const WITHOUT_IT: Duration = Duration::from_secs(120);
/// A source's partitions in `make test`.
const PARTITIONS: u32 = 3;

/// Scenario: at least 100,000 events through two workers in batches of at most 750, while nodes of the cluster and workers are killed and
/// stopped in turn, and started again.
/// Guarantees: every sink has every event once; the reader has seen each alert once, whatever was aborted meanwhile.
#[test]
fn brokers_and_workers_bounce_and_every_record_is_copied_once() {
    let nodes = Part::KAFKAS.map(Bounced::Node);
    let bounces = [
        (nodes[0], true),
        (Bounced::Worker(WORKERS[0]), true),
        (nodes[1], false),
        (Bounced::Worker(WORKERS[1]), false),
        (nodes[2], true),
        (Bounced::Worker(WORKERS[0]), true),
    ];
    copied_once("bounces", PARTITIONS, bounces);
}

/// Scenario: the same for each cell of Kafka's own matrix: nodes or workers, killed or stopped, sources of two or of three partitions.
/// Guarantees: the same. `make bounces` runs it, and shows what each took.
#[test]
#[ignore = "takes a quarter of an hour: make bounces"]
fn the_whole_matrix() {
    println!("| bounced | how | partitions | events | went on within | took |");
    println!("|---|---|--:|--:|--:|--:|");
    for partitions in [2, 3] {
        for hard in [true, false] {
            for nodes in [true, false] {
                let (who, how) = (
                    if nodes { "brokers" } else { "workers" },
                    if hard { "killed" } else { "stopped" },
                );
                let bounces = std::array::from_fn(|nth| {
                    let bounced = match nodes {
                        true => Bounced::Node(Part::KAFKAS[nth % Part::KAFKAS.len()]),
                        false => Bounced::Worker(WORKERS[nth % WORKERS.len()]),
                    };
                    (bounced, hard)
                });
                let began = Instant::now();
                let (events, longest) = copied_once(&format!("{who}_{how}_{partitions}"), partitions, bounces);
                let (longest, took) = (longest.as_secs_f64(), began.elapsed().as_secs());
                println!("| {who} | {how} | {partitions} | {events} | {longest:.1} s | {took} s |");
            }
        }
    }
}

/// One run; how many events it had, and the longest time from a bounce until events that were written after it were committed,
/// with whoever was struck still away.
fn copied_once(name: &str, partitions: u32, bounces: Bounces) -> (u64, Duration) {
    let (mut events, mut longest) = (0, Duration::ZERO);
    run_on_cluster(name, Rules::Directory, async |scenario| {
        let file = std::fs::read_to_string(scenario.dir.join("pipeline.yaml")).unwrap();
        let file = file.replace("batch:  {", "batch:  {rows: 750, rows_max: 750, ");
        let counted = format!("partitions: {partitions}");
        scenario.rewrite(
            &file
                .replace("partitions: 2", &counted)
                .replace("partitions: 4", &counted),
        );
        scenario.write_rules("default", COPY);
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        for worker in WORKERS {
            scenario.start_worker(worker).await;
        }
        let reader = Reader::start(scenario);
        let span = Duration::from_secs_f64(RECORDS / RATE);
        let (mut load, mut driven) = (scenario.drive(scenario.load_of(RATE, span, 1)), Vec::new());
        load.has_run_for(2 * SECOND).await;
        for (nth, (bounced, hard)) in (2..).zip(bounces) {
            // Every bounce happens under load, however long those before it took.
            if load.has_ended() {
                driven.push(load.finished().await);
                load = scenario.drive(scenario.load_of(RATE, span, nth));
                load.has_run_for(SECOND).await;
            }
            match (bounced, hard) {
                (Bounced::Node(node), true) => scenario.stack.kill(node).await.unwrap(),
                (Bounced::Node(node), false) => scenario.stack.stop(node).await.unwrap(),
                (Bounced::Worker(worker), true) => scenario.kill(worker).await,
                (Bounced::Worker(worker), false) => scenario.stop(worker).await,
            }
            let struck = Instant::now();
            // How long it is away is part of the fault, and what comes meanwhile has to be committed without it.
            tokio::time::sleep(2 * SECOND).await;
            let ends = until("the ends of all partitions", WITHOUT_IT, async || scenario.ends().ok()).await;
            until("what came after a bounce to be committed", WITHOUT_IT, async || {
                (scenario.behind(&ends).ok()? == 0).then_some(())
            })
            .await;
            println!(
                "{bounced:?}, {}: went on within {:?}",
                if hard { "killed" } else { "stopped" },
                struck.elapsed()
            );
            longest = longest.max(struck.elapsed());
            match bounced {
                Bounced::Node(node) => scenario.stack.start(node).await.unwrap(),
                Bounced::Worker(worker) => scenario.start_worker(worker).await,
            }
        }
        driven.push(load.finished().await);
        let report = scenario.verified(&driven.iter().collect::<Vec<_>>()).await;
        events = driven.iter().map(|driven| driven.produced).sum();
        assert!(events as f64 >= RECORDS, "{events} events");
        assert_eq!(report.alerts, events, "{report}");
        let read = reader.finished();
        let once: BTreeSet<&String> = read.iter().collect();
        assert_eq!(once.len(), read.len(), "no alert twice");
        assert_eq!(read.len() as u64, report.alerts, "every alert");
    });
    (events, longest)
}
