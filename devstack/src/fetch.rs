//! The cache of downloaded parts. The downloading itself is `parts/fetch.sh`, which the Makefile runs beside the build;
//! the same script is carried in here for when a part is missing at run time.

use crate::error::{At, Error};
use crate::part::Part;
use std::path::{Path, PathBuf};
use std::process::Stdio;

const SCRIPT: [(&str, &str); 6] = [
    ("fetch.sh", include_str!("../parts/fetch.sh")),
    ("kafka-pom.xml", include_str!("../parts/kafka-pom.xml")),
    ("log4j2.properties", include_str!("../parts/log4j2.properties")),
    ("kafka.sha256", include_str!("../parts/kafka.sha256")),
    ("registry.sha256", include_str!("../parts/registry.sha256")),
    ("clickhouse.sha256", include_str!("../parts/clickhouse.sha256")),
];

/// Where downloads and class archives are kept: `$SLUICE_CACHE`, else `$XDG_CACHE_HOME/sluice`, else `~/.cache/sluice`.
pub fn cache_dir() -> PathBuf {
    let set = |name: &str| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("SLUICE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("sluice")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/sluice")))
        .unwrap_or_else(|| std::env::temp_dir().join("sluice"))
}

/// Puts the given parts into the cache where they are missing (400 MB, half a minute, progress on standard error).
/// Another process that fetches at the same time is waited for. PostgreSQL is the system's and never fetched; neither is
/// ClickHouse when `clickhouse` is on the PATH.
pub async fn fetch(parts: &[Part]) -> Result<(), Error> {
    fetch_into(&cache_dir(), parts).await
}

pub(crate) async fn fetch_into(cache: &Path, parts: &[Part]) -> Result<(), Error> {
    let mut missing: Vec<&str> = parts
        .iter()
        .filter(|part| missing(cache, **part))
        .map(|part| {
            if Part::KAFKAS.contains(part) {
                Part::Kafka
            } else {
                *part
            }
        })
        .map(Part::name)
        .collect();
    missing.dedup();
    if missing.is_empty() {
        return Ok(());
    }
    let script = cache.join(format!("fetch-{}", std::process::id()));
    std::fs::create_dir_all(&script).at(&script)?;
    for (name, text) in SCRIPT {
        let path = script.join(name);
        std::fs::write(&path, text).at(&path)?;
    }
    let done = tokio::process::Command::new("bash")
        .arg(script.join("fetch.sh"))
        .args(&missing)
        .env("SLUICE_CACHE", cache)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .await;
    std::fs::remove_dir_all(&script).at(&script)?;
    if done.at(Path::new("bash"))?.success() {
        Ok(())
    } else {
        Err(Error::Fetch {
            parts: missing.join(", "),
        })
    }
}

/// The directory of a fetched part. Its name carries the version, so that two versions of Sluice can share a cache.
pub(crate) fn part_dir(cache: &Path, part: Part) -> PathBuf {
    let name = match part {
        Part::Kafka | Part::Kafka2 | Part::Kafka3 => "kafka-4.3.1",
        Part::Registry => "registry-3.0.9",
        Part::ClickHouse => "clickhouse-26.7.3",
        Part::Postgres => "postgres",
    };
    cache.join("parts").join(name)
}

/// A part is there when its directory holds the very list of checksums that it would be checked against today: the
/// script checks every byte, then lets the directory appear in one step.
fn missing(cache: &Path, part: Part) -> bool {
    let pinned = match part {
        Part::Kafka | Part::Kafka2 | Part::Kafka3 => include_str!("../parts/kafka.sha256"),
        Part::Registry => include_str!("../parts/registry.sha256"),
        Part::ClickHouse if on_path("clickhouse").is_some() => return false,
        Part::ClickHouse => include_str!("../parts/clickhouse.sha256"),
        Part::Postgres => return false,
    };
    !std::fs::read_to_string(part_dir(cache, part).join("SHA256SUMS")).is_ok_and(|found| found == pinned)
}

/// The program of that name on the PATH.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|file| executable(file))
}

/// Java as the script chooses it: `$JAVA_HOME`'s, else the one on the PATH.
pub(crate) fn java(part: Part) -> Result<PathBuf, Error> {
    let home = std::env::var_os("JAVA_HOME").map(|home| PathBuf::from(home).join("bin/java"));
    let missing = Error::Missing {
        tool: "java",
        part,
        hint: "Java 17 or newer, package 'openjdk-17-jre-headless'",
    };
    home.filter(|file| executable(file))
        .or_else(|| on_path("java"))
        .ok_or(missing)
}

pub(crate) fn executable(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata()
        .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
