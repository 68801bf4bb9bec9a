//! Documents that name code are right about it: the paths, commands, make targets and error pages exist.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use end_to_end::{Commands, program};

/// What people read first. The reference is every page below `docs`.
const DOCUMENTS: [&str; 4] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"];

/// A name in backticks with one of these ends is a file of the repository, even without a folder before it.
const FILE_ENDS: [&str; 8] = [".rs", ".md", ".toml", ".proto", ".sh", ".sql", ".avsc", ".yaml"];

/// Files that the reader makes, not the repository.
const READERS_OWN: [&str; 2] = ["pipeline.yaml", "reading.avsc"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

fn read(path: &str) -> String {
    let full = root().join(path);
    fs::read_to_string(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()))
}

/// The documents and every page of the reference, of errors and of decisions.
fn documents() -> Vec<(String, String)> {
    let mut paths: Vec<String> = DOCUMENTS.map(str::to_owned).to_vec();
    for folder in ["docs", "docs/errors", "docs/decisions"] {
        for entry in fs::read_dir(root().join(folder)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                paths.push(format!("{folder}/{name}"));
            }
        }
    }
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

/// The text without its fenced blocks, which are programs and files of the reader's.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What stands in backticks.
fn quoted(text: &str) -> Vec<String> {
    let text = prose(text);
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Targets of links, without those to other sites and without anchors.
fn linked(text: &str) -> Vec<String> {
    let text = prose(text);
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    local
        .map(|target| target.split('#').next().unwrap().to_owned())
        .collect()
}

/// Names at the repository's top that belong to it; what git ignores is not listed.
fn top_level() -> BTreeSet<String> {
    let listed = fs::read_dir(root()).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter(|name| !["target", ".git", ".sluice"].contains(&name.as_str()))
        .collect()
}

/// Whether a quoted text claims to be a path of this repository.
fn is_path(text: &str, top: &BTreeSet<String>) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/".contains(letter);
    if text.is_empty() || !text.chars().all(plain) || READERS_OWN.contains(&text) || text.starts_with(['.', '/']) {
        return false;
    }
    let first = text.split('/').next().unwrap();
    let in_a_folder = text.contains('/') && (top.contains(first) || FILE_ENDS.iter().any(|end| text.ends_with(end)));
    in_a_folder || FILE_ENDS.iter().any(|end| text.ends_with(end))
}

fn missing_paths(path: &str, text: &str, top: &BTreeSet<String>) -> Vec<String> {
    let named = quoted(text).into_iter().filter(|quoted| is_path(quoted, top));
    let mut missing: Vec<String> = named.filter(|named| !root().join(named).exists()).collect();
    let folder = root().join(path).parent().unwrap().to_path_buf();
    missing.extend(linked(text).into_iter().filter(|target| !folder.join(target).exists()));
    missing
}

#[test]
fn every_path_that_a_document_names_exists() {
    let top = top_level();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for (path, text) in documents() {
        seen += quoted(&text).iter().filter(|quoted| is_path(quoted, &top)).count();
        wrong.extend(
            missing_paths(&path, &text, &top)
                .into_iter()
                .map(|missing| format!("{path}: {missing}")),
        );
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        seen > 100,
        "only {seen} paths were recognised: the reading of documents is broken"
    );
}

#[test]
fn a_path_that_does_not_exist_is_found() {
    let top = top_level();
    let text =
        "See `rules/src/nowhere.rs`, `rules/src/lib.rs`, `nowhere.md`, `1/2`, [a](nowhere/x.md) and [b](README.md#x).";
    assert_eq!(
        missing_paths("README.md", text, &top),
        ["rules/src/nowhere.rs", "nowhere.md", "nowhere/x.md"]
    );
}

/// What follows `sluice` in backticks, and in fenced blocks on a line that begins with it, or with a path that ends so.
fn commands(text: &str) -> BTreeSet<String> {
    let written = quoted(text).into_iter().chain(fenced(text));
    let after = |line: String| {
        let (before, rest) = line.trim().split_once("sluice ")?;
        let runs = before.is_empty() || ["$ ", "| ", "/"].iter().any(|end| before.ends_with(end));
        // What follows a comment's or a shell's sign is another matter.
        let rest = rest.split(['#', ';', '&', '>']).next()?.split(" | ").next()?;
        runs.then(|| rest.trim().to_owned())
    };
    written.filter_map(after).collect()
}

/// The lines of fenced blocks.
fn fenced(text: &str) -> Vec<String> {
    let mut inside = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if inside {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Options that stand alone in backticks, without the command that has them.
fn lone_options(text: &str) -> BTreeSet<String> {
    let quoted = quoted(text).into_iter().filter(|quoted| quoted.starts_with("--"));
    let first = |quoted: String| quoted.split([' ', '=']).next().map(str::to_owned);
    let options = quoted.filter_map(first);
    options.filter(|option| !OF_OTHERS.contains(&option.as_str())).collect()
}

/// Of cargo and of Kafka's tools.
const OF_OTHERS: [&str; 2] = ["--workspace", "--time"];

fn unknown_commands(known: &Commands, text: &str) -> Vec<String> {
    let mut wrong: Vec<String> = commands(text).iter().flat_map(|line| known.faults(line)).collect();
    wrong.extend(
        lone_options(text)
            .into_iter()
            .filter(|option| !known.has_option(option)),
    );
    wrong
}

#[test]
fn every_command_and_option_that_a_document_names_exists() {
    let known = Commands::of(&program("sluice"));
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (path, text) in documents() {
        seen += commands(&text).len() + lone_options(&text).len();
        let unknown = unknown_commands(&known, &text).into_iter();
        wrong.extend(unknown.map(|unknown| format!("{path}: sluice {unknown}")));
    }
    assert_eq!(wrong, Vec::<String>::new());
    assert!(
        seen > 50,
        "only {seen} commands were recognised: the reading of documents is broken"
    );
}

#[test]
fn a_command_or_an_option_that_does_not_exist_is_found() {
    let known = Commands::of(&program("sluice"));
    let text = "`sluice fly`, `sluice schema plan`, `sluice schema burn --json`, `sluice verify --settle 0`, `sluice partitions drop-rows`, \
                `sluice partitions delete-rows T/P --from 0 [--until 1]`, `--listen`, `--nowhere 1`, `--workspace`\n\
                ```\nsluice worker: ── a picture\n$ sluice check --jsn # --comment\nExecStart=/bin/sluice worker --nme x\n```\n";
    assert_eq!(
        unknown_commands(&known, text),
        [
            "check --jsn",
            "fly",
            "partitions delete-rows --until",
            "partitions drop-rows",
            "schema burn",
            "worker --nme",
            "--nowhere"
        ]
    );
}

#[test]
fn the_readme_names_every_command() {
    let readme = read("README.md");
    let lines = commands(&readme);
    let first = |line: &String| line.split_whitespace().next().map(str::to_owned);
    let named: BTreeSet<String> = lines.iter().filter_map(first).collect();
    let top = Commands::of(&program("sluice")).top();
    let left_out: Vec<&String> = top.difference(&named).collect();
    assert_eq!(left_out, Vec::<&String>::new());
}

#[test]
fn every_make_target_that_a_document_names_exists() {
    let makefile = read("Makefile");
    let targets: BTreeSet<&str> = makefile
        .lines()
        .filter(|line| line.starts_with(|letter: char| letter.is_ascii_lowercase()))
        .filter_map(|line| line.split_once(':').map(|(name, _)| name))
        .collect();
    let mut seen = 0;
    for (path, text) in documents() {
        for quoted in quoted(&text) {
            let Some(target) = quoted
                .strip_prefix("make ")
                .and_then(|rest| rest.split_whitespace().next())
            else {
                continue;
            };
            seen += 1;
            assert!(
                targets.contains(target),
                "{path}: the Makefile has no target `{target}`"
            );
        }
    }
    assert!(
        seen > 5,
        "only {seen} targets were recognised: the reading of documents is broken"
    );
}

/// The Rust files below a folder, from the root.
fn sources(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().into_string().unwrap());
        if entry.path().is_dir() {
            found.extend(sources(&path));
        } else if path.ends_with(".rs") {
            found.push(path);
        }
    }
    found
}

/// Codes such as SLU-101 in quotes in a source file.
fn codes(file: &str) -> BTreeSet<String> {
    let text = read(file);
    let starts = text.match_indices("\"SLU-").map(|(at, _)| &text[at + 1..]);
    starts
        .map(|rest| rest.chars().take("SLU-000".len()).collect())
        .collect()
}

#[test]
fn every_code_that_an_operator_meets_has_a_page_and_every_page_a_code() {
    let mut meant = codes("exactly-once/protocol/src/words.rs");
    assert_eq!(
        meant.len(),
        read("exactly-once/protocol/src/words.rs").matches("=> \"SLU-").count()
    );
    for file in sources("workers/src") {
        meant.extend(codes(&file));
    }
    assert!(meant.contains("SLU-101") && meant.contains("SLU-201"), "{meant:?}");
    let pages: BTreeSet<String> = fs::read_dir(root().join("docs/errors"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("SLU-"))
        .map(|name| name.trim_end_matches(".md").to_owned())
        .collect();
    assert_eq!(pages, meant);
    let overview = read("docs/errors/README.md");
    for code in meant {
        assert!(
            overview.contains(&format!("({code}.md)")),
            "docs/errors/README.md doesn't list {code}"
        );
        let page = read(&format!("docs/errors/{code}.md"));
        assert!(
            page.starts_with(&format!("# {code}: ")),
            "docs/errors/{code}.md doesn't begin with its code"
        );
    }
}
