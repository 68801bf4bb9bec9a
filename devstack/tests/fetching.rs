//! The fetch script with package managers of its own making: no network.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A copy of the script beside a list that expects `expected` as ClickHouse's package, and an `npm` that brings `brought`.
struct Workshop {
    dir: tempfile::TempDir,
}

const PACKAGE: &str = "chdb-lib-linux-x64-gnu-26.7.3-stable.1.tgz";

impl Workshop {
    fn new(brought: &str) -> Workshop {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/parts/fetch.sh"), at("fetch.sh")).unwrap();
        std::fs::create_dir_all(at("package")).unwrap();
        std::fs::write(at("package/libchdb.so"), "the library").unwrap();
        run(Command::new("tar").args(["-czf", PACKAGE, "package"]).current_dir(&dir));
        let sums = run(Command::new("sha256sum").arg(PACKAGE).current_dir(&dir)).stdout;
        std::fs::write(at("clickhouse.sha256"), sums).unwrap();
        // Called as: npm pack --silent --pack-destination DIR NAME@VERSION
        let npm = format!(
            "#!/bin/sh\necho \"$5\" >>'{0}/calls'\ncd '{0}' && {brought}\n",
            dir.path().display()
        );
        std::fs::create_dir(at("bin")).unwrap();
        std::fs::write(at("bin/npm"), npm).unwrap();
        std::fs::set_permissions(at("bin/npm"), std::fs::Permissions::from_mode(0o755)).unwrap();
        Workshop { dir }
    }

    fn fetch(&self) -> Command {
        let path = format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap());
        let mut command = Command::new("bash");
        command
            .arg(self.path("fetch.sh"))
            .arg("clickhouse")
            .env("PATH", path)
            .env("SLUICE_CACHE", self.path("cache"));
        command
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn calls(&self) -> String {
        std::fs::read_to_string(self.path("calls")).unwrap_or_default()
    }
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

const CALL: &str = "@chdb/lib-linux-x64-gnu@26.7.3-stable.1\n";

#[test]
fn a_package_with_the_pinned_checksum_is_installed_once() {
    let workshop = Workshop::new(&format!("cp {PACKAGE} \"$4/\""));
    run(&mut workshop.fetch());
    run(&mut workshop.fetch());
    let library = std::fs::read_to_string(workshop.path("cache/parts/clickhouse-26.7.3/libchdb.so")).unwrap();
    assert_eq!(library, "the library");
    assert_eq!(workshop.calls(), CALL);
    assert_eq!(names_in(&workshop.path("cache/parts")), [".lock", "clickhouse-26.7.3"]);
}

#[test]
fn a_package_with_other_bytes_is_named_and_leaves_nothing_behind() {
    let workshop = Workshop::new(&format!("echo other > \"$4/{PACKAGE}\""));
    let output = workshop.fetch().output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told.contains(&format!("{PACKAGE}: FAILED")), "{told}");
    assert!(
        told.contains("fetch: clickhouse: the files above differ from clickhouse.sha256; nothing was installed"),
        "{told}"
    );
    assert_eq!(names_in(&workshop.path("cache/parts")), [".lock"]);
}

#[test]
fn a_file_that_nobody_pinned_is_refused() {
    let workshop = Workshop::new(&format!("cp {PACKAGE} \"$4/\" && touch \"$4/surprise.jar\""));
    let output = workshop.fetch().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).unwrap().contains("< surprise.jar"));
    assert_eq!(names_in(&workshop.path("cache/parts")), [".lock"]);
}

#[test]
fn of_four_fetches_at_once_one_downloads_and_the_others_wait_for_it() {
    let workshop = Workshop::new(&format!("cp {PACKAGE} \"$4/\""));
    let all: Vec<_> = (0..4)
        .map(|_| workshop.fetch().stderr(Stdio::null()).spawn().unwrap())
        .collect();
    for mut fetch in all {
        assert!(fetch.wait().unwrap().success());
    }
    assert_eq!(workshop.calls(), CALL);
}

#[test]
fn a_changed_list_of_checksums_replaces_what_was_installed_before() {
    let workshop = Workshop::new(&format!("cp {PACKAGE} \"$4/\""));
    let installed = workshop.path("cache/parts/clickhouse-26.7.3");
    std::fs::create_dir_all(&installed).unwrap();
    std::fs::write(installed.join("SHA256SUMS"), "an older list").unwrap();
    std::fs::write(installed.join("libchdb.so"), "an older library").unwrap();
    run(&mut workshop.fetch());
    assert_eq!(
        std::fs::read_to_string(installed.join("libchdb.so")).unwrap(),
        "the library"
    );
}
