//! Opening the file, and what its errors mean.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

use super::sums;
use crate::ledger::LedgerError;

/// Marks the file as a Sluice ledger (`PRAGMA application_id`): "slui".
const APPLICATION_ID: i32 = 0x736c_7569;
const VERSION: i32 = 2;
/// How long a writer waits while another process (a backup, a second service) holds the write lock.
const BUSY_WAIT: Duration = Duration::from_secs(2);
/// The writer's pages in memory, KiB. Charges go to the end of the ledger and into the newest place of an index for each partition,
/// sums into the newest minutes of each meter: with SQLite's own 2 MiB these are read from the file again for every delivery.
const CACHE_KIB: i32 = 64 * 1024;
/// Pages in the write-ahead log before they are copied into the file: a page that changes with every delivery is copied once for all
/// of them.
const CHECKPOINT_PAGES: i32 = 8 * 1024;

/// How the file is opened.
pub struct OpenOptions {
    pub path: PathBuf,
    pub busy_wait: Duration,
    /// At most so many pages of 4 KiB; `None` is SQLite's own limit. Tests fill a disk with it.
    pub pages_max: Option<u32>,
}

impl OpenOptions {
    pub fn of(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            busy_wait: BUSY_WAIT,
            pages_max: None,
        }
    }

    /// The connection that writes; makes the file and its tables when there are none.
    pub fn writer(&self) -> Result<Connection, LedgerError> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| LedgerError::Unavailable(format!("folder {}: {error}", folder.display())))?;
        }
        let named = |error| self.name(error);
        let mut connection = Connection::open(&self.path).map_err(named)?;
        self.prepare(&connection)
            .and_then(|()| tables(&mut connection))
            .map_err(named)?
            .map_err(|fault| LedgerError::Foreign(format!("{}: {fault}", self.path.display())))?;
        Ok(connection)
    }

    /// A connection that only reads.
    pub fn reader(&self) -> Result<Connection, LedgerError> {
        // Not SQLITE_OPEN_READ_ONLY: a reader of a write-ahead log has to write the log's index.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.path, flags).map_err(|error| self.name(error))?;
        connection
            .busy_timeout(self.busy_wait)
            .map_err(|error| self.name(error))?;
        connection
            .pragma_update(None, "query_only", true)
            .map_err(|error| self.name(error))?;
        Ok(connection)
    }

    fn prepare(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.busy_timeout(self.busy_wait)?;
        connection.pragma_update(None, "journal_mode", "wal")?;
        // FULL syncs the log at each commit; NORMAL, which many recommend with WAL, may lose the last ones in a power cut: the
        // sender would have its answer, and the ledger nothing.
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
        if let Some(pages) = self.pages_max {
            connection.pragma_update(None, "max_page_count", pages)?;
        }
        Ok(())
    }

    fn name(&self, error: rusqlite::Error) -> LedgerError {
        match verdict(&error) {
            LedgerError::Unavailable(reason) => LedgerError::Unavailable(format!("{}: {reason}", self.path.display())),
            LedgerError::Refused(reason) | LedgerError::Foreign(reason) => {
                LedgerError::Foreign(format!("{}: {reason}", self.path.display()))
            }
        }
    }
}

/// Makes the tables in an empty file, and those of this version from an older one's. The inner error says that the file is something
/// else.
fn tables(connection: &mut Connection) -> rusqlite::Result<Result<(), String>> {
    // IMMEDIATE: two services that start on an empty file must not both make the tables.
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
            Ok(Ok(()))
        }
        (APPLICATION_ID, VERSION, _) => Ok(Ok(())),
        (APPLICATION_ID, 1, _) => {
            transaction.execute_batch(include_str!("from_version_1.sql"))?;
            sums::fill(&transaction)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
            Ok(Ok(()))
        }
        (APPLICATION_ID, other, _) => Ok(Err(format!(
            "it holds version {other} of the ledger's tables, and this program knows version {VERSION}"
        ))),
        _ => Ok(Err(
            "it is a SQLite database of something else; give another path".to_owned()
        )),
    }
}

/// What the caller can do about an error of SQLite.
pub fn verdict(error: &rusqlite::Error) -> LedgerError {
    use ErrorCode::{ConstraintViolation, NotADatabase, ParameterOutOfRange, SchemaChanged, TooBig, TypeMismatch};
    let reason = error.to_string();
    match error.sqlite_error_code() {
        // These say that the program and its tables don't fit, whatever the disk does.
        Some(ConstraintViolation | TypeMismatch | NotADatabase | TooBig | ParameterOutOfRange | SchemaChanged)
        | None => LedgerError::Refused(reason),
        // Locked, full, input/output, memory, a damaged page, a file that is gone: an operator may mend it under the caller's wait.
        Some(_) => LedgerError::Unavailable(reason),
    }
}
