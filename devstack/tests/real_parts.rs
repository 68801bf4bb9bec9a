//! Against the real servers: each part answers, survives what tests do to it, and ends with its owner.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use devstack::{Error, Health, Options, Part};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// One of each kind.
const PARTS: [Part; 4] = [Part::Kafka, Part::Registry, Part::ClickHouse, Part::Postgres];

/// A directory that PostgreSQL's system user can enter: `tempdir` makes one for its owner alone.
fn directory() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn options(dir: &Path, parts: &[Part]) -> Options {
    assert_eq!(devstack::launcher(), Some(env!("CARGO_BIN_EXE_sluice-devstack").into()));
    Options {
        parts: parts.to_vec(),
        ..Options::for_tests(dir)
    }
}

/// An HTTP request to a stack's URL; the body of the answer when it is 200.
fn http(method: &str, url: &str, path: &str, body: &str) -> Result<String, String> {
    let (host, base) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap_or((url.trim_start_matches("http://"), ""));
    let mut stream = TcpStream::connect(host).map_err(|error| error.to_string())?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let slash = if base.is_empty() { "" } else { "/" };
    let length = body.len();
    let request = format!(
        "{method} {slash}{base}{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    stream
        .write_all(request.as_bytes())
        .map_err(|error| error.to_string())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
    if head.split(' ').nth(1) == Some("200") {
        Ok(body.to_owned())
    } else {
        Err(answer)
    }
}

fn sql(url: &str, query: &str) -> Result<String, String> {
    http("POST", url, "/", query)
}

/// Kafka's ApiVersions in version 0: the number of kinds of request that the broker knows.
fn kafka_api_count(address: &str) -> i32 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 5, 255, 255])
        .unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..10], [0, 0, 0, 5, 0, 0], "correlation id 5, no error");
    i32::from_be_bytes(answer[10..14].try_into().unwrap())
}

fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn every_part_answers_survives_a_kill_with_its_data_and_stops_when_told() {
    let dir = directory();
    let began = Instant::now();
    let mut stack = devstack::up(options(dir.path(), &PARTS)).await.unwrap();
    eprintln!("four parts up after {:?}", began.elapsed());

    assert!(kafka_api_count(&stack.kafka) > 50);
    let compatibility = http("GET", &stack.registry, "/config", "").unwrap();
    assert_eq!(compatibility, r#"{"compatibilityLevel":"BACKWARD"}"#);
    assert_eq!(sql(&stack.clickhouse, "SELECT 1").unwrap(), "1\n");
    assert_eq!(sql(&stack.clickhouse, "SELECT timezone()").unwrap(), "UTC\n");

    // What a kill must not lose: a schema, rows, and (PostgreSQL) a start after its backends lost their master.
    let schema = r#"{"schema": "{\"type\":\"record\",\"name\":\"r\",\"fields\":[]}"}"#;
    let registered = http("POST", &stack.registry, "/subjects/a-value/versions", schema).unwrap();
    sql(
        &stack.clickhouse,
        "CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a",
    )
    .unwrap();
    sql(&stack.clickhouse, "INSERT INTO t SELECT number FROM numbers(1000)").unwrap();
    let before = stack.ports;
    for part in PARTS {
        let pid = stack.pid(part).unwrap();
        stack.kill(part).await.unwrap();
        assert_eq!(stack.pid(part), None);
        assert!(matches!(stack.stop(part).await, Err(Error::NotRunning { .. })));
        let began = Instant::now();
        stack.start(part).await.unwrap();
        eprintln!("{part} up again after {:?}", began.elapsed());
        assert_ne!(stack.pid(part), Some(pid));
        assert!(matches!(stack.start(part).await, Err(Error::Running { .. })));
    }
    assert_eq!(stack.ports, before);
    assert_eq!(
        http("POST", &stack.registry, "/subjects/a-value/versions", schema).unwrap(),
        registered
    );
    assert_eq!(
        sql(&stack.clickhouse, "SELECT count(), sum(a) FROM t").unwrap(),
        "1000\t499500\n"
    );

    stack.pause(Part::ClickHouse).unwrap();
    let health = |statuses: Vec<devstack::PartStatus>| {
        statuses
            .into_iter()
            .map(|status| (status.part, status.health))
            .collect::<BTreeMap<_, _>>()
    };
    let mut expected: BTreeMap<_, _> = PARTS.map(|part| (part, Health::Ready)).into();
    expected.insert(Part::ClickHouse, Health::Paused);
    // A part that has much to do may not answer at once.
    let began = Instant::now();
    loop {
        let found = health(devstack::status(dir.path()).await.unwrap());
        if found == expected {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{found:?}");
    }
    stack.resume(Part::ClickHouse).unwrap();
    assert_eq!(sql(&stack.clickhouse, "SELECT 2").unwrap(), "2\n");

    let address = stack.clickhouse.clone();
    let began = Instant::now();
    stack.down().await.unwrap();
    eprintln!("down after {:?}", began.elapsed());
    assert!(sql(&address, "SELECT 3").unwrap_err().contains("refused"));
    assert!(matches!(devstack::status(dir.path()).await, Err(Error::NotUp { .. })));
}

/// Starts a process that owns a stack, and returns when the stack is up.
fn owner(dir: &Path, parts: &[Part]) -> Child {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_sluice-devstack"))
        .arg(dir)
        .args(parts.iter().map(|part| part.name()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(owner.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "up\n");
    owner
}

/// The processes that name this directory on their command line: supervisors, Kafka, the registry, ClickHouse, PostgreSQL.
fn processes_of(dir: &Path) -> Vec<String> {
    let name = dir.display().to_string();
    let pids = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        entry.file_name().to_string_lossy().parse::<u32>().is_ok()
            && std::fs::read(entry.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&name))
    });
    pids.map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

#[tokio::test]
async fn when_the_owner_is_killed_every_process_ends_and_a_new_owner_finds_the_data() {
    let dir = directory();
    let mut owner = owner(dir.path(), &PARTS);
    let addresses: BTreeMap<_, _> = devstack::status(dir.path())
        .await
        .unwrap()
        .into_iter()
        .map(|status| (status.part, status.address))
        .collect();
    sql(
        &addresses[&Part::ClickHouse],
        "CREATE TABLE t ENGINE = MergeTree ORDER BY a AS SELECT 7 AS a",
    )
    .unwrap();
    // A child that has just been made has its parent's command line for a moment.
    eventually(
        "nine processes: the owner, four supervisors, four parts",
        Duration::from_secs(10),
        || processes_of(dir.path()).len() == 9,
    );

    owner.kill().unwrap(); // SIGKILL: nothing of its own runs any more
    owner.wait().unwrap();

    // At once, while the old parts are still stopping: each new supervisor waits for the one before it.
    let stack = devstack::up(options(dir.path(), &[Part::ClickHouse])).await.unwrap();
    assert_eq!(sql(&stack.clickhouse, "SELECT a FROM t").unwrap(), "7\n");
    stack.down().await.unwrap();
    eventually("no process is left", Duration::from_secs(15), || {
        processes_of(dir.path()).is_empty()
    });
}

#[tokio::test]
async fn when_a_supervisor_is_killed_its_part_ends_with_it() {
    let dir = directory();
    let stack = devstack::up(options(dir.path(), &[Part::ClickHouse])).await.unwrap();
    let part = stack.pid(Part::ClickHouse).unwrap();
    let stat = std::fs::read_to_string(format!("/proc/{part}/stat")).unwrap();
    let supervisor = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();

    let killed = Command::new("kill").args(["-KILL", supervisor]).status().unwrap();
    assert!(killed.success());

    let began = Instant::now();
    while devstack::status(dir.path()).await.unwrap()[0].health != Health::Stopped {
        assert!(began.elapsed() < Duration::from_secs(10), "the part still runs");
    }
    eventually("no process is left", Duration::from_secs(10), || {
        processes_of(dir.path()).is_empty()
    });
}

#[tokio::test]
async fn a_kept_stack_outlives_its_handle_and_is_stopped_by_another_process() {
    let dir = directory();
    let stack = devstack::up(options(dir.path(), &[Part::ClickHouse])).await.unwrap();
    let address = stack.clickhouse.clone();
    stack.keep().await.unwrap();

    assert_eq!(sql(&address, "SELECT 1").unwrap(), "1\n");
    let again = devstack::up(options(dir.path(), &[Part::ClickHouse])).await;
    assert!(matches!(again, Err(Error::AlreadyUp { .. })));

    devstack::down(dir.path()).await.unwrap();
    assert_eq!(processes_of(dir.path()), Vec::<String>::new());
    assert!(matches!(devstack::down(dir.path()).await, Err(Error::NotUp { .. })));
}

#[tokio::test]
async fn a_part_that_cannot_start_is_an_error_that_shows_its_log() {
    let dir = directory();
    let data = dir.path().join("kafka/data");
    std::fs::create_dir_all(&data).unwrap();
    std::fs::write(data.join("meta.properties"), "version=7\n").unwrap();

    let refused = devstack::up(options(dir.path(), &[Part::Kafka])).await.unwrap_err();

    let Error::Died {
        part: Part::Kafka,
        tail,
        ..
    } = refused
    else {
        panic!("{refused}")
    };
    assert!(tail.contains("meta.properties"), "{tail}");
    assert_eq!(processes_of(dir.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_program_that_is_no_supervisor_is_named_with_what_to_do() {
    let dir = directory();
    let options = Options {
        launcher: Some("/bin/echo".into()),
        ..options(dir.path(), &[Part::ClickHouse])
    };
    let refused = devstack::up(options).await.unwrap_err().to_string();
    assert!(
        refused.starts_with("/bin/echo could not supervise clickhouse: it answered '__devstack-supervise "),
        "{refused}"
    );
    assert!(
        refused.ends_with("calls devstack::hidden_main first, or gives Options.launcher"),
        "{refused}"
    );
}
