use std::time::Duration;

use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{Charge, DeliverRequest, Part};
use rusqlite::Connection;

use super::*;

fn parts(start: i64, end: i64, event_id: &str) -> Vec<CheckedPart> {
    let charges = (start..end).map(|offset| Charge {
        id: format!("t/0/{offset}/0"),
        event_id: event_id.to_owned(),
        offset,
        ..Charge::default()
    });
    let charges = charges.collect();
    let part = Part {
        topic: "t".to_owned(),
        start,
        end,
        digest: vec![1; 16],
        charges,
        first: true,
        ..Part::default()
    };
    crate::check(DeliverRequest {
        pipeline: "p".to_owned(),
        parts: vec![part],
    })
    .expect("obeys")
}

fn source() -> Source {
    crate::source("p".to_owned(), "t".to_owned(), 0).expect("a source")
}

fn kinds(answer: Result<Vec<Outcome>, LedgerError>) -> Vec<(Kind, i64)> {
    answer
        .expect("an answer")
        .iter()
        .map(|outcome| (outcome.kind(), outcome.cursor))
        .collect()
}

#[tokio::test]
async fn a_locked_store_is_unavailable_and_goes_on_after_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let ledger = Sqlite::open_with(OpenOptions {
        busy_wait: Duration::from_millis(20),
        ..OpenOptions::of(&path)
    })
    .expect("opens");
    let other = Connection::open(&path).expect("opens");
    other.execute_batch("BEGIN IMMEDIATE").expect("locks");
    let locked = |at: &str| Err(LedgerError::Unavailable(format!("{at}database is locked")));
    assert_eq!(ledger.deliver(parts(0, 5, "")).await, locked(""));
    // The second time it is found locked while it is opened again.
    assert_eq!(
        ledger.deliver(parts(0, 5, "")).await,
        locked(&format!("{}: ", path.display()))
    );
    assert_eq!(
        ledger.ping().await.map(|()| Vec::new()),
        locked(&format!("{}: ", path.display()))
    );
    // Readers don't wait for a writer.
    assert_eq!(ledger.cursor(source()).await, Ok(None));
    other.execute_batch("ROLLBACK").expect("unlocks");
    assert_eq!(kinds(ledger.deliver(parts(0, 5, "")).await), [(Kind::Applied, 5)]);
}

#[tokio::test]
async fn a_full_disk_is_unavailable_and_applies_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    let ledger = Sqlite::open_with(OpenOptions {
        pages_max: Some(60),
        ..OpenOptions::of(&path)
    })
    .expect("opens");
    assert_eq!(kinds(ledger.deliver(parts(0, 5, "small")).await), [(Kind::Applied, 5)]);
    let full = ledger.deliver(parts(5, 105, &"large".repeat(1_000))).await;
    assert_eq!(
        full,
        Err(LedgerError::Unavailable("database or disk is full".to_owned()))
    );
    assert_eq!(ledger.cursor(source()).await, Ok(Some(5)));
    assert_eq!(
        ledger
            .entries(0, Filter::default(), 1_000)
            .await
            .expect("an answer")
            .entries
            .len(),
        5
    );
    // What still fits is taken, and once there is room the same delivery, too.
    assert_eq!(kinds(ledger.deliver(parts(5, 6, "small")).await), [(Kind::Applied, 6)]);
    drop(ledger);
    let ledger = Sqlite::open(&path).expect("opens");
    assert_eq!(
        kinds(ledger.deliver(parts(6, 105, &"large".repeat(1_000))).await),
        [(Kind::Applied, 105)]
    );
}

#[tokio::test]
async fn a_file_of_something_else_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = folder.path().join("text");
    std::fs::write(&text, "not a database, but long enough to look into".repeat(100)).expect("writes");
    let error = Sqlite::open(&text).err().expect("an error").to_string();
    assert_eq!(
        error,
        format!(
            "this is not a ledger that this program can use: {}: file is not a database",
            text.display()
        )
    );

    let other = folder.path().join("other.db");
    Connection::open(&other)
        .expect("opens")
        .execute_batch("CREATE TABLE notes (text)")
        .expect("makes a table");
    let error = Sqlite::open(&other).err().expect("an error").to_string();
    let expected = "it is a SQLite database of something else; give another path";
    assert_eq!(
        error,
        format!(
            "this is not a ledger that this program can use: {}: {expected}",
            other.display()
        )
    );

    let newer = folder.path().join("newer.db");
    drop(Sqlite::open(&newer).expect("opens"));
    Connection::open(&newer)
        .expect("opens")
        .pragma_update(None, "user_version", 2)
        .expect("sets");
    let error = Sqlite::open(&newer).err().expect("an error").to_string();
    let expected = "it holds version 2 of the ledger's tables, and this program knows version 1";
    assert_eq!(
        error,
        format!(
            "this is not a ledger that this program can use: {}: {expected}",
            newer.display()
        )
    );
}

#[tokio::test]
async fn every_commit_is_synced_to_the_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let connection = OpenOptions::of(&folder.path().join("ledger.db"))
        .writer()
        .expect("opens");
    let number = |pragma: &str| {
        connection
            .pragma_query_value(None, pragma, |row| row.get::<_, i64>(0))
            .expect("a number")
    };
    assert_eq!((number("synchronous"), number("foreign_keys")), (2, 1));
    let mode: String = connection
        .pragma_query_value(None, "journal_mode", |row| row.get(0))
        .expect("a mode");
    assert_eq!(mode, "wal");
}
