//! Scenario: the process (SQLite) or the database server (PostgreSQL) is killed while ranges are delivered one after the other.
//! Guarantees: what was acknowledged is there; what was not is there whole or not at all; delivering on charges each range once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by a panic"
)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use billing_sink::{ChargesPage, Filter, Ledger, LedgerError, Postgres, Sqlite};
use proto::delivery::v1::outcome::Kind::{AlreadyApplied, Applied};
use proto::delivery::v1::{Charge, Part};

use support::postgres::Server;
use support::{charge, checked, deliver, kinds, part, source};

/// Offsets of a range: so many charges are applied together.
const STEP: i64 = 40;
const FOLDER: &str = "SLUICE_TEST_CRASH_FOLDER";

fn range(start: i64) -> Part {
    part(
        0,
        start,
        start + STEP,
        1,
        (start..start + STEP).map(|offset| charge(0, offset, 1)).collect(),
    )
}

/// Checks what a crash has left, delivers the next range as a sender does that knows only of `acknowledged`, and checks again.
async fn recover(ledger: &impl Ledger, acknowledged: i64) -> i64 {
    let cursor = ledger.cursor(source(0)).await.expect("an answer").unwrap_or(0);
    assert!(
        [acknowledged, acknowledged + STEP].contains(&cursor),
        "{acknowledged} acknowledged, cursor {cursor}"
    );
    let outcomes = kinds(&deliver(ledger, vec![range(acknowledged)]).await);
    let end = acknowledged + STEP;
    assert_eq!(outcomes, [(if cursor == end { AlreadyApplied } else { Applied }, end)]);

    let expected: Vec<Charge> = (0..end).map(|offset| charge(0, offset, 1)).collect();
    let page = ChargesPage {
        offsets: 0..i64::MAX,
        after: None,
        charges_max: usize::MAX,
    };
    assert!(
        ledger.charges(source(0), page).await.expect("an answer") == expected,
        "lost, doubled or altered charges"
    );
    let entries = ledger
        .entries(0, Filter::default(), usize::MAX)
        .await
        .expect("an answer")
        .entries;
    assert!(
        entries.iter().map(|entry| entry.cursor).eq(1..=expected.len() as u64),
        "cursors with gaps"
    );
    end
}

#[tokio::test]
async fn a_killed_process_loses_nothing_that_sqlite_has_acknowledged() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        deliver_until_killed(&std::path::PathBuf::from(folder)).await;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let mut acknowledged = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "a_killed_process_loses_nothing_that_sqlite_has_acknowledged",
                "--nocapture",
            ])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
        let ends = lines
            .by_ref()
            .filter_map(|line| line.expect("a line").strip_prefix("end ")?.parse::<i64>().ok());
        acknowledged = ends.take(3 + round * 5).last().expect("an acknowledged range");
        // The child is in the middle of some later range now.
        child.kill().expect("SIGKILL");
        child.wait().expect("it ends");
        // What it has said before it died counts, too.
        let rest = lines.filter_map(|line| line.ok()?.strip_prefix("end ")?.parse::<i64>().ok());
        acknowledged = rest.last().unwrap_or(acknowledged);
        let ledger = Sqlite::open(&folder.path().join("ledger.db")).expect("opens");
        acknowledged = recover(&ledger, acknowledged).await;
    }
    assert!(acknowledged > 6 * STEP);
}

async fn deliver_until_killed(folder: &std::path::Path) {
    let ledger = Sqlite::open(&folder.join("ledger.db")).expect("opens");
    let mut end = ledger.cursor(source(0)).await.expect("an answer").unwrap_or(0);
    loop {
        assert_eq!(
            kinds(&deliver(&ledger, vec![range(end)]).await),
            [(Applied, end + STEP)]
        );
        end += STEP;
        println!("end {end}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_postgres_loses_nothing_that_it_has_acknowledged_and_is_reconnected_to() {
    let mut server = Server::start();
    let ledger = Postgres::open(&server.url("postgres")).await.expect("opens");
    let mut acknowledged = 0;
    for round in 0..4 {
        let (sender, mut acknowledgements) = tokio::sync::watch::channel(acknowledged);
        let clone = ledger.clone();
        let driver = tokio::spawn(async move {
            loop {
                let end = *sender.borrow() + STEP;
                match clone.deliver(checked(vec![range(end - STEP)])).await {
                    Ok(outcomes) => assert_eq!(kinds(&outcomes), [(Applied, end)]),
                    Err(error) => return (end - STEP, error),
                }
                sender.send_replace(end);
            }
        });
        let enough = acknowledged + STEP * (2 + 7 * round);
        acknowledgements
            .wait_for(|end| *end >= enough)
            .await
            .expect("deliveries");
        server.kill();
        let (last, error) = driver.await.expect("the driver");
        assert!(matches!(error, LedgerError::Unavailable(_)), "{error}");
        // Down: neither writes nor reads invent an answer.
        assert!(matches!(ledger.ping().await, Err(LedgerError::Unavailable(_))));
        assert!(matches!(
            ledger.cursor(source(0)).await,
            Err(LedgerError::Unavailable(_))
        ));
        server.start_again();
        acknowledged = recover(&ledger, last).await;
    }
}

#[tokio::test]
async fn a_postgres_that_is_down_at_the_start_is_waited_for() {
    let mut server = Server::start();
    server.kill();
    let ledger = Postgres::open(&server.url("postgres"))
        .await
        .expect("opens all the same");
    assert!(matches!(
        ledger.deliver(checked(vec![range(0)])).await,
        Err(LedgerError::Unavailable(_))
    ));
    server.start_again();
    assert_eq!(kinds(&deliver(&ledger, vec![range(0)]).await), [(Applied, STEP)]);
}

#[tokio::test]
async fn a_lock_that_somebody_holds_makes_postgres_unavailable_for_that_time_only() {
    let server = Server::start();
    let url = server.url("postgres");
    let ledger = Postgres::open(&url).await.expect("opens");
    let (mut other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .expect("connects");
    tokio::spawn(connection);
    let lock = other.transaction().await.expect("begins");
    lock.execute("SELECT 1 FROM sluice_ledger FOR UPDATE", &[])
        .await
        .expect("locks");
    let answer = tokio::time::timeout(Duration::from_secs(30), ledger.deliver(checked(vec![range(0)]))).await;
    let reason = "db error: ERROR: canceling statement due to lock timeout".to_owned();
    assert_eq!(answer.expect("in time"), Err(LedgerError::Unavailable(reason)));
    assert_eq!(ledger.cursor(source(0)).await, Ok(None));
    lock.rollback().await.expect("unlocks");
    assert_eq!(kinds(&deliver(&ledger, vec![range(0)]).await), [(Applied, STEP)]);
}

#[tokio::test]
async fn a_postgres_url_that_cannot_be_used_is_refused_without_its_password() {
    for (url, reason) in [
        (
            "postgres://u:secret@h/db?sslmode=require",
            "sslmode=require: TLS to PostgreSQL is not built in; use a local proxy or a private network",
        ),
        (
            "postgres://u:secret@h:port/db",
            "the PostgreSQL URL cannot be read: invalid connection string: invalid value for option `port`",
        ),
    ] {
        let error = Postgres::open(url).await.err().expect("refused").to_string();
        assert_eq!(
            error,
            format!("this is not a ledger that this program can use: {reason}")
        );
    }
}
