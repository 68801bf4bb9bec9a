//! Who may depend on what, read from `cargo metadata`: a client library stays inside the one crate that owns it, the pure
//! crates stay pure, and the verifier shares no code with what it checks (ARCHITECTURE.md, the code map).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// A library and the crates of the workspace that may name it in their `[dependencies]`.
const OWNERS: [(&str, &[&str]); 5] = [
    (
        "rdkafka",
        &[
            "exactly-once-kafka",
            "cli",
            "verify",
            "load-tests",
            "end-to-end",
            "chaos",
        ],
    ),
    (
        "reqwest",
        &[
            "registry-cache",
            "clickhouse-sink",
            "cli",
            "verify",
            "load-tests",
            "bench",
            "end-to-end",
        ],
    ),
    ("rusqlite", &["billing-sink", "config-service"]),
    ("tokio-postgres", &["billing-sink", "end-to-end", "chaos"]),
    ("libloading", &["devstack"]),
];

/// Crates without I/O, clock or threads: neither they nor anything below them may bring a runtime or a client.
const PURE: [&str; 4] = ["document", "pipeline", "exactly-once-protocol", "simulation"];

/// `rules` is pure, too, but DataFusion brings tokio along without our using it: only what our crates name counts.
const PURE_BY_NAME: [&str; 5] = ["document", "pipeline", "exactly-once-protocol", "simulation", "rules"];

const IMPURE: [&str; 5] = ["tokio", "rdkafka", "reqwest", "tonic", "axum"];

/// All that `verify` has in common with what it checks; `verify/src/lib.rs` says of each why. Every other crate of the workspace
/// is checked by it, or uses what is.
const SHARED: [&str; 5] = ["document", "pipeline", "proto", "rules", "serve"];

/// Crates that `cli/src/verify.rs` may name: the program has all of them, but this command must not take a detour.
const NAMED_BY_THE_COMMAND: [&str; 1] = ["verify"];

/// Crates of the workspace that a file's text names, as the first word of a path.
fn named(text: &str, members: &BTreeSet<String>) -> BTreeSet<String> {
    let words = |path: &str| {
        path.rsplit(|letter: char| !letter.is_alphanumeric() && letter != '_')
            .next()
            .map(str::to_owned)
    };
    let heads: BTreeSet<String> = text.split("::").filter_map(words).collect();
    members
        .iter()
        .filter(|name| heads.contains(&name.replace('-', "_")))
        .cloned()
        .collect()
}

/// Package names and what each depends on, tests' own dependencies left out.
struct Graph {
    members: BTreeSet<String>,
    below: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn of_this_workspace() -> Graph {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
        // Of this platform alone: on a machine that has only built this, no other's crates are there.
        let told = Command::new(env!("CARGO")).arg("-vV").output().unwrap();
        let told = String::from_utf8(told.stdout).unwrap();
        let host = told.lines().find_map(|line| line.strip_prefix("host: "));
        let args = [
            "metadata",
            "--offline",
            "--filter-platform",
            host.expect("cargo tells its platform"),
            "--format-version",
            "1",
            "--manifest-path",
            manifest,
        ];
        let output = Command::new(env!("CARGO")).args(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let list = |value: &Value| value.as_array().unwrap().clone();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let names: BTreeMap<String, String> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let members = list(&metadata["workspace_members"])
            .iter()
            .map(|id| names[&text(id)].clone())
            .collect();
        let mut graph = Graph {
            members,
            below: BTreeMap::new(),
        };
        for node in list(&metadata["resolve"]["nodes"]) {
            let used = |dependency: &Value| list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev");
            let below = list(&node["deps"])
                .into_iter()
                .filter(used)
                .map(|dependency| names[&text(&dependency["pkg"])].clone());
            graph
                .below
                .entry(names[&text(&node["id"])].clone())
                .or_default()
                .extend(below);
        }
        graph
    }

    /// Everything below a crate, itself left out; only through crates of the workspace when `members_only`.
    fn all_below(&self, name: &str, members_only: bool) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut open = vec![name.to_owned()];
        while let Some(next) = open.pop() {
            for below in self.below.get(&next).into_iter().flatten() {
                if found.insert(below.clone()) && (!members_only || self.members.contains(below)) {
                    open.push(below.clone());
                }
            }
        }
        found
    }

    /// One line for each dependency that breaks a wall.
    fn broken_walls(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (library, owners) in OWNERS {
            let outside = self
                .members
                .iter()
                .filter(|name| !owners.contains(&name.as_str()) && self.below[*name].contains(library));
            broken.extend(
                outside.map(|name| format!("{name} depends on {library}, which belongs to {}", owners.join(", "))),
            );
        }
        let mut apart = |name: &str, below: &BTreeSet<String>, from: &[&str], why: &str| {
            let there = from.iter().filter(|other| below.contains(**other));
            broken.extend(there.map(|other| format!("{name} reaches {other}: {why}")));
        };
        for name in PURE {
            apart(name, &self.all_below(name, false), &IMPURE, "it is a pure crate");
        }
        for name in PURE_BY_NAME {
            apart(name, &self.all_below(name, true), &IMPURE, "it is a pure crate");
        }
        let checked: Vec<&str> = self.members.iter().map(String::as_str).collect();
        let checked: Vec<&str> = checked.into_iter().filter(|name| !SHARED.contains(name)).collect();
        apart(
            "verify",
            &self.all_below("verify", true),
            &checked,
            "it would check itself",
        );
        broken.sort();
        broken.dedup();
        broken
    }
}

#[test]
fn every_wall_between_the_crates_stands() {
    let graph = Graph::of_this_workspace();
    // A crate that was renamed would be behind no wall any more.
    let named = OWNERS
        .iter()
        .flat_map(|(_, owners)| owners.iter())
        .chain(&PURE_BY_NAME)
        .chain(&SHARED)
        .chain(&NAMED_BY_THE_COMMAND);
    let gone: BTreeSet<_> = named.filter(|name| !graph.members.contains(**name)).collect();
    assert_eq!(gone, BTreeSet::new(), "named here, but not in the workspace");
    assert_eq!(graph.broken_walls(), Vec::<String>::new());
}

#[test]
fn the_command_that_verifies_names_nothing_that_it_checks() {
    let members = Graph::of_this_workspace().members;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../cli/src/verify.rs");
    let found = named(&std::fs::read_to_string(file).unwrap(), &members);
    assert_eq!(found, NAMED_BY_THE_COMMAND.map(str::to_owned).into());
    let hole = "use std::fs;\nlet rules = workers::rulebook::directory(dir)?; let sink: exactly_once_kafka::Message;";
    let found = named(hole, &members);
    assert_eq!(found, ["workers", "exactly-once-kafka"].map(str::to_owned).into());
}

#[test]
fn a_hole_in_each_kind_of_wall_is_told() {
    let mut graph = Graph::of_this_workspace();
    let mut hole = |from: &str, to: &str| graph.below.get_mut(from).unwrap().insert(to.to_owned());
    hole("workers", "rdkafka");
    hole("crc32fast", "tokio"); // below exactly-once-protocol, not named by it
    hole("rules", "tonic");
    hole("rules", "workers"); // below verify
    hole("verify", "config-service");
    let broken = graph.broken_walls();
    for expected in [
        "exactly-once-protocol reaches tokio: it is a pure crate",
        "rules reaches tonic: it is a pure crate",
        "verify reaches workers: it would check itself",
        "verify reaches clickhouse-sink: it would check itself", // below workers
        "verify reaches exactly-once-kafka: it would check itself",
        "verify reaches exactly-once-protocol: it would check itself",
        "verify reaches config-service: it would check itself",
        "workers depends on rdkafka, which belongs to exactly-once-kafka, cli, verify, load-tests, end-to-end, chaos",
    ] {
        assert!(
            broken.iter().any(|line| line == expected),
            "{expected} is missing in {broken:#?}"
        );
    }
}
