//! No pipeline file whatever makes the checker panic, overflow its stack, take more memory than a fixed amount and a
//! multiple of its own length, or go on for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fuzz/bodies/counted.rs"]
mod counted;
#[path = "../../fuzz/bodies/faults.rs"]
mod faults;
#[path = "../../fuzz/bodies/pipeline_file.rs"]
mod hostile;
#[path = "../../fuzz/bodies/yaml.rs"]
mod yaml;

use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

#[global_allocator]
static COUNTED: counted::Counted = counted::Counted;

/// Far more than anything here takes, even when the machine is busy: what takes longer goes on for ever.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// What checking a file may take: the tree of the most values that a document may have, and the faults.
const CHECK_BYTES_MAX: usize = 128 << 20;

const EXAMPLE: &str = include_str!("../../examples/shop/pipeline.yaml");

/// What a pipeline file consists of.
const WORDS: [&str; 72] = [
    "pipeline: ",
    "start: ",
    "connections: ",
    "kafka: ",
    "brokers: ",
    "registry: ",
    "clickhouse: ",
    "database: ",
    "url: ",
    "rules: ",
    "dir: ",
    "event: ",
    "id: ",
    "tenant: ",
    "type: ",
    "time: ",
    "accept: ",
    "past: ",
    "future: ",
    "sources: ",
    "topic: ",
    "table: ",
    "partitions: ",
    "schema_id: ",
    "tables: ",
    "default: ",
    "partition_by: ",
    "order_by: ",
    "keep: ",
    "like: ",
    "rollups: ",
    "name: ",
    "from: ",
    "every: ",
    "by: ",
    "measures: ",
    "sum(amount_minor)",
    "count()",
    "uniq(",
    "sinks: ",
    "alerts: ",
    "billing: ",
    "grpc: ",
    "message_bytes_max: ",
    "dead_letters: ",
    "\"{topic}.dlq\"",
    "attempts: ",
    "brake: ",
    "share: ",
    "over_events: ",
    "batch: ",
    "linger: ",
    "rows: ",
    "limits: ",
    "workers: ",
    "lanes: ",
    "serve: ",
    "99999999999999999999d",
    "18446744073709551615GiB",
    "1e999",
    "-1",
    "0ms",
    "4000000000 years",
    "2026-01-31T00:00:00Z",
    "{",
    "}",
    "[",
    "]",
    "- ",
    "\n",
    "\n  ",
    "&a ",
];

/// Runs a check on a stack of two megabytes.
fn check(what: &str, text: String) {
    let length = text.len();
    let (done, ended) = mpsc::channel();
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let thread = thread.spawn(move || {
        let ((), bytes) = counted::peak(|| hostile::pipeline_file(text.as_bytes()));
        done.send(bytes).unwrap();
    });
    match ended.recv_timeout(ENDS_WITHIN) {
        Ok(bytes) => assert!(
            bytes < CHECK_BYTES_MAX + 16 * length,
            "{bytes} bytes for {what} of {length}"
        ),
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panicked = thread.unwrap().join().unwrap_err();
            let said = panicked.downcast_ref::<String>().map_or("", String::as_str);
            panic!("{what}: {said}")
        }
    }
}

#[test]
fn a_file_that_wants_to_be_large_deep_or_slow_ends() {
    for key in ["sources", "tables"] {
        for (name, text) in yaml::bombs(key) {
            check(&format!("{name} in {key}"), text);
        }
    }
}

/// A name that isn't there is told together with those that are: a thousand times a megabyte.
#[test]
fn a_file_with_many_tables_and_many_mistakes_ends() {
    let long = "x".repeat(150);
    let sources: String = (0..8000)
        .map(|at| format!("  - {{topic: t{at}, table: {long}_{at}}}\n"))
        .collect();
    let rollups = "  - {name: r, from: nowhere, every: 1m, measures: {n: count()}}\n".repeat(2000);
    let tables: String = (0..2000)
        .map(|at| format!("  other_{at}: {{like: nowhere}}\n"))
        .collect();
    let event = "event: {id: a, tenant: b, type: c, time: d}\n";
    check(
        "tables and rollups",
        format!("pipeline: a\nstart: latest\n{event}sources:\n{sources}tables:\n{tables}rollups:\n{rollups}"),
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        hostile::pipeline_file(&bytes);
    }

    #[test]
    fn a_file_of_the_words_that_files_have_never_panics(
        words in prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..80),
    ) {
        hostile::pipeline_file(words.concat().as_bytes());
    }

    #[test]
    fn the_example_that_a_hand_has_slipped_on_never_panics(edits in prop::collection::vec(any::<u8>(), 0..32)) {
        hostile::pipeline_file(yaml::edited(EXAMPLE, &edits, &WORDS).as_bytes());
    }
}
