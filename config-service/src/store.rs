//! Revisions in one SQLite file.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use proto::config::v1::RevisionId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::meters::{Meters, Unit};

/// Marks the file as a store of rules (`PRAGMA application_id`): "slur".
const APPLICATION_ID: i32 = 0x736c_7572;
const VERSION: i32 = 1;
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// Why the store gives no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// Locked, full, or the disk fails: asking again later is right.
    #[error("the store of rules is not available: {0}")]
    Unavailable(String),
    /// The file holds something else, or a store of another version.
    #[error("this is not a store of rules that this program can use: {0}")]
    Foreign(String),
}

/// A tenant's document as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    pub file: String,
    pub text: String,
}

/// Documents by tenant.
pub type Documents = BTreeMap<String, Kept>;

/// A revision as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub id: RevisionId,
    pub created_at_ms: i64,
    pub documents: Documents,
}

/// Which change makes the next revision.
pub struct Next {
    pub id: RevisionId,
    pub created_at_ms: i64,
    /// `None` removes the tenant's document.
    pub changes: BTreeMap<String, Option<Kept>>,
    /// The meters of all revisions; those that are there already stay.
    pub meters: Meters,
}

/// The store. Clones share it. One connection: a put is rare, and a worker asks once for each revision.
#[derive(Clone)]
pub struct Store {
    connection: Arc<Mutex<Connection>>,
    empty: RevisionId,
}

impl Store {
    /// Opens the store in `path`, or makes it with the folders above it. `empty` is what stands for "no revision yet".
    pub fn open(path: &Path, empty: RevisionId) -> Result<Self, StoreError> {
        let at = |reason: String| format!("{}: {reason}", path.display());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|error| StoreError::Unavailable(at(error.to_string())))?;
        }
        let named = |error: rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase) => StoreError::Foreign(at(error.to_string())),
            _ => StoreError::Unavailable(at(error.to_string())),
        };
        let mut connection = Connection::open(path).map_err(named)?;
        let fault = prepare(&connection)
            .and_then(|()| tables(&mut connection))
            .map_err(named)?;
        match fault {
            Some(fault) => Err(StoreError::Foreign(at(fault))),
            None => Ok(Self {
                connection: Arc::new(Mutex::new(connection)),
                empty,
            }),
        }
    }

    /// The newest revision, without its documents.
    pub async fn newest(&self, pipeline: &str) -> Result<RevisionId, StoreError> {
        let (pipeline, empty) = (pipeline.to_owned(), self.empty);
        self.run(move |connection| newest(connection, &pipeline, empty)).await
    }

    /// A revision with its documents; the newest one without `number`. `None`: there is no such revision.
    pub async fn snapshot(&self, pipeline: &str, number: Option<u64>) -> Result<Option<Snapshot>, StoreError> {
        let (pipeline, empty) = (pipeline.to_owned(), self.empty);
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let number = match number {
                Some(number) => number,
                None => newest(&transaction, &pipeline, empty)?.number,
            };
            snapshot(&transaction, &pipeline, number, empty)
        })
        .await
    }

    /// The revisions after `number`, oldest first.
    pub async fn after(&self, pipeline: &str, number: u64) -> Result<Vec<RevisionId>, StoreError> {
        let pipeline = pipeline.to_owned();
        self.run(move |connection| {
            let sql = "SELECT number, digest FROM revisions WHERE pipeline = ?1 AND number > ?2 ORDER BY number";
            let mut statement = connection.prepare_cached(sql)?;
            statement
                .query_map(params![pipeline, i64::try_from(number).unwrap_or(i64::MAX)], id)?
                .collect()
        })
        .await
    }

    /// The meters of all revisions.
    pub async fn meters(&self, pipeline: &str) -> Result<Meters, StoreError> {
        let pipeline = pipeline.to_owned();
        self.run(move |connection| {
            let sql = "SELECT tenant, meter, unit, scale FROM meters WHERE pipeline = ?1";
            let mut statement = connection.prepare_cached(sql)?;
            let meter = |row: &rusqlite::Row<'_>| {
                Ok((
                    (row.get(0)?, row.get(1)?),
                    Unit {
                        unit: row.get(2)?,
                        scale: row.get(3)?,
                    },
                ))
            };
            statement.query_map([pipeline], meter)?.collect()
        })
        .await
    }

    /// Adds a revision after the one before it; `false` when another process has added that number in the meantime.
    pub async fn add(&self, pipeline: &str, next: Next) -> Result<bool, StoreError> {
        let (pipeline, empty) = (pipeline.to_owned(), self.empty);
        self.run(move |connection| {
            // IMMEDIATE takes the write lock before the first read, so the newest number stays the newest.
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if newest(&transaction, &pipeline, empty)?.number + 1 != next.id.number {
                return Ok(false);
            }
            add(&transaction, &pipeline, &next)?;
            transaction.commit()?;
            Ok(true)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let connection = Arc::clone(&self.connection);
        let working = tokio::task::spawn_blocking(move || {
            // A panic inside rolls its transaction back, so a poisoned lock guards a connection as good as before.
            work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner))
        });
        match working.await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(StoreError::Unavailable(error.to_string())),
            Err(error) => Err(StoreError::Unavailable(error.to_string())),
        }
    }
}

fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(BUSY_WAIT)?;
    connection.pragma_update(None, "journal_mode", "wal")?;
    // A number that was given out must never come to mean other rules: it has to survive a power cut.
    connection.pragma_update(None, "synchronous", "full")
}

/// Makes the tables in an empty file. `Some` says why the file is another one.
fn tables(connection: &mut Connection) -> rusqlite::Result<Option<String>> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let number = |pragma: &str| transaction.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match (application, version, tables) {
        (0, 0, 0) => {
            transaction.execute_batch(include_str!("schema.sql"))?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
            Ok(None)
        }
        (APPLICATION_ID, VERSION, _) => Ok(None),
        (APPLICATION_ID, other, _) => Ok(Some(format!(
            "it holds version {other} of the tables, and this program knows version {VERSION}"
        ))),
        _ => Ok(Some(
            "it is a SQLite database of something else; give another path".to_owned(),
        )),
    }
}

fn newest(connection: &Connection, pipeline: &str, empty: RevisionId) -> rusqlite::Result<RevisionId> {
    let sql = "SELECT number, digest FROM revisions WHERE pipeline = ?1 ORDER BY number DESC LIMIT 1";
    let newest = connection.prepare_cached(sql)?.query_row([pipeline], id).optional()?;
    Ok(newest.unwrap_or(empty))
}

fn snapshot(
    connection: &Connection,
    pipeline: &str,
    number: u64,
    empty: RevisionId,
) -> rusqlite::Result<Option<Snapshot>> {
    if number == 0 {
        return Ok(Some(Snapshot {
            id: empty,
            created_at_ms: 0,
            documents: Documents::new(),
        }));
    }
    let key = params![pipeline, i64::try_from(number).unwrap_or(i64::MAX)];
    let sql = "SELECT number, digest, created_at_ms FROM revisions WHERE pipeline = ?1 AND number = ?2";
    let mut statement = connection.prepare_cached(sql)?;
    let Some((id, created_at_ms)) = statement.query_row(key, |row| Ok((id(row)?, row.get(2)?))).optional()? else {
        return Ok(None);
    };
    let sql = "SELECT tenant, file, text FROM documents \
               WHERE pipeline = ?1 AND since <= ?2 AND (until IS NULL OR until > ?2)";
    let mut statement = connection.prepare_cached(sql)?;
    let documents = statement.query_map(key, |row| {
        Ok((
            row.get(0)?,
            Kept {
                file: row.get(1)?,
                text: row.get(2)?,
            },
        ))
    })?;
    Ok(Some(Snapshot {
        id,
        created_at_ms,
        documents: documents.collect::<rusqlite::Result<_>>()?,
    }))
}

fn add(transaction: &Transaction<'_>, pipeline: &str, next: &Next) -> rusqlite::Result<()> {
    let number = i64::try_from(next.id.number).unwrap_or(i64::MAX);
    let sql = "INSERT INTO revisions (pipeline, number, digest, created_at_ms) VALUES (?1, ?2, ?3, ?4)";
    transaction.execute(
        sql,
        params![pipeline, number, next.id.digest.cast_signed(), next.created_at_ms],
    )?;
    let until = "UPDATE documents SET until = ?1 WHERE pipeline = ?2 AND tenant = ?3 AND until IS NULL";
    let insert = "INSERT INTO documents (pipeline, tenant, since, file, text) VALUES (?1, ?2, ?3, ?4, ?5)";
    for (tenant, kept) in &next.changes {
        transaction
            .prepare_cached(until)?
            .execute(params![number, pipeline, tenant])?;
        if let Some(Kept { file, text }) = kept {
            transaction
                .prepare_cached(insert)?
                .execute(params![pipeline, tenant, number, file, text])?;
        }
    }
    let insert =
        "INSERT INTO meters (pipeline, tenant, meter, unit, scale) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    for ((tenant, meter), Unit { unit, scale }) in &next.meters {
        transaction
            .prepare_cached(insert)?
            .execute(params![pipeline, tenant, meter, unit, scale])?;
    }
    Ok(())
}

fn id(row: &rusqlite::Row<'_>) -> rusqlite::Result<RevisionId> {
    Ok(RevisionId {
        number: row.get::<_, i64>(0)?.cast_unsigned(),
        digest: row.get::<_, i64>(1)?.cast_unsigned(),
    })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
