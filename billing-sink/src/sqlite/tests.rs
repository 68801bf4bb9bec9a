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
        .pragma_update(None, "user_version", 3)
        .expect("sets");
    let error = Sqlite::open(&newer).err().expect("an error").to_string();
    let expected = "it holds version 3 of the ledger's tables, and this program knows version 2";
    assert_eq!(
        error,
        format!(
            "this is not a ledger that this program can use: {}: {expected}",
            newer.display()
        )
    );
}

/// Delivers charges of several meters and minutes, late ones among them, on both sides of a bound of blocks.
async fn fill(path: &Path) {
    let ledger = Sqlite::open(path).expect("opens");
    Connection::open(path)
        .expect("opens")
        .execute("UPDATE head SET cursor = (1 << 20) - 40", [])
        .expect("moves");
    for start in [0, 30, 60] {
        let mut parts = parts(start, start + 30, "event");
        for (i, charge) in (start..).zip(&mut parts[0].charges) {
            let charge = Arc::make_mut(charge);
            charge.charge.tenant = format!("tenant {}", i % 3);
            charge.key = crate::check::MeterKey::of(&charge.charge.tenant, "");
            charge.charge.quantity = [i64::MIN, i64::MAX, i, -i][usize::try_from(i % 4).expect("small")];
            charge.charge.event_time_ms = [i64::MIN, -1, i * 7_000, 300_000 - i * 7_000, i64::MAX][(i % 5) as usize];
        }
        assert_eq!(kinds(ledger.deliver(parts).await), [(Kind::Applied, start + 30)]);
    }
}

/// A file of version 1 with what the ledger in `of` holds.
fn version_1(path: &Path, of: &Path) {
    let connection = Connection::open(path).expect("opens");
    connection
        .execute_batch(include_str!("version_1.sql"))
        .expect("makes the tables");
    for (pragma, value) in [("application_id", 0x736c_7569), ("user_version", 1)] {
        connection.pragma_update(None, pragma, value).expect("sets");
    }
    connection.pragma_update(None, "journal_mode", "wal").expect("sets");
    connection
        .execute("ATTACH ?1 AS newer", [of.to_str().expect("UTF-8")])
        .expect("attaches");
    connection
        .execute_batch(
            "DELETE FROM ledger; INSERT INTO ledger SELECT * FROM newer.head; \
             INSERT INTO sources SELECT * FROM newer.sources; INSERT INTO ranges SELECT * FROM newer.ranges; \
             INSERT INTO meters SELECT * FROM newer.meters; INSERT INTO charges SELECT * FROM newer.charges;",
        )
        .expect("copies");
}

/// All rows of a question, as text.
fn rows(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).expect("a statement");
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row<'_>| {
        let values = (0..columns).map(|i| format!("{:?}", row.get_ref(i).expect("a value")));
        Ok(values.collect::<Vec<_>>().join(" "))
    };
    let rows = statement.query_map([], row).expect("an answer");
    rows.collect::<rusqlite::Result<_>>().expect("rows")
}

const SCHEMA: &str = "SELECT name, sql FROM sqlite_schema ORDER BY name";
const SUMS: &str = "SELECT * FROM usage ORDER BY meter_id, minute, block";

#[tokio::test]
async fn a_ledger_of_version_1_becomes_one_of_this_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let (new, old) = (folder.path().join("new.db"), folder.path().join("old.db"));
    fill(&new).await;
    version_1(&old, &new);
    let mut service_of_version_1 = Connection::open(&old).expect("opens");
    let reading = service_of_version_1.transaction().expect("begins");
    let before = rows(&reading, SCHEMA);

    let ledger = Sqlite::open(&old).expect("opens");
    // Who reads all the while sees nothing of it.
    assert_eq!(rows(&reading, SCHEMA), before);
    reading.finish().expect("ends");
    let (new, old) = (
        Connection::open(&new).expect("opens"),
        Connection::open(&old).expect("opens"),
    );
    for sql in [SCHEMA, SUMS, "SELECT * FROM head", "PRAGMA user_version"] {
        assert_eq!(rows(&old, sql), rows(&new, sql), "{sql}");
    }
    // Cursors count from 1, so the bound of the blocks takes 39 before it.
    assert_eq!(
        rows(&old, "SELECT block, sum(charges) FROM usage GROUP BY block"),
        ["Integer(0) Integer(39)", "Integer(1) Integer(51)"]
    );
    assert_eq!(kinds(ledger.deliver(parts(90, 95, "")).await), [(Kind::Applied, 95)]);
    // It would charge past the sums.
    let error = service_of_version_1
        .query_row("SELECT cursor, id FROM ledger", [], |_| Ok(()))
        .expect_err("no table");
    assert!(error.to_string().starts_with("no such table: ledger"), "{error}");
}

#[tokio::test]
async fn what_fails_half_way_leaves_a_ledger_of_version_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let (new, old) = (folder.path().join("new.db"), folder.path().join("old.db"));
    fill(&new).await;
    version_1(&old, &new);
    let looking = Connection::open(&old).expect("opens");
    let before = rows(&looking, SCHEMA);
    // No page more than it has.
    let full = OpenOptions {
        pages_max: Some(1),
        ..OpenOptions::of(&old)
    };
    assert_eq!(
        full.writer().err(),
        Some(LedgerError::Unavailable(format!(
            "{}: database or disk is full",
            old.display()
        )))
    );
    assert_eq!(rows(&looking, SCHEMA), before);
    assert_eq!(rows(&looking, "PRAGMA user_version"), ["Integer(1)"]);
    drop(Sqlite::open(&old).expect("opens"));
    assert_eq!(
        rows(&looking, SUMS),
        rows(&Connection::open(&new).expect("opens"), SUMS)
    );
}

#[tokio::test]
async fn a_minute_in_two_blocks_is_summed_over_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("ledger.db");
    fill(&path).await;
    let ledger = Sqlite::open(&path).expect("opens");
    let charges: Vec<Charge> = ledger
        .charges(
            source(),
            ChargesPage {
                offsets: 0..90,
                after: None,
                charges_max: 90,
            },
        )
        .await
        .expect("an answer");
    for (start, end) in [
        (-60_000, 60_000),
        (-2, 59_999),
        (-1, 0),
        (1, 299_999),
        (i64::MIN, i64::MAX),
    ] {
        let within = |charge: &&Charge| charge.tenant == "tenant 1" && (start..end).contains(&charge.event_time_ms);
        let quantities = charges.iter().filter(within).map(|charge| charge.quantity);
        let expected = (quantities.clone().map(i128::from).sum(), quantities.count() as u64);
        let window = Window {
            tenant: "tenant 1".to_owned(),
            meter: String::new(),
            event_time_ms: start..end,
        };
        let usage = ledger.usage(window).await.expect("an answer");
        assert_eq!((usage.quantity, usage.charges), expected, "[{start}, {end})");
    }
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
