//! The ledger in one SQLite file: the default, for one machine.
//!
//! One thread writes. It takes what waits and applies it in one transaction, so that the disk is synced once for many deliveries
//! (`synchronous=FULL`: an answer is only given for what survives a power cut). Readers have connections of their own and read
//! snapshots of the write-ahead log; they never wait for the writer, nor it for them.

mod open;
mod read;
mod sums;
mod write;

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use proto::delivery::v1::{Charge, Outcome};
use rusqlite::Connection;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::check::CheckedPart;
use crate::ledger::{ChargesPage, Filter, Ledger, LedgerError, Moved, Page, Source, Usage, Window};
use open::OpenOptions;

/// Questions that are answered at the same time; the rest waits.
const READERS: usize = 4;
/// Deliveries that wait for the writer; past this the callers wait, which is the back-pressure.
const DELIVERIES_WAITING_MAX: usize = 64;

/// A ledger in a SQLite file. Clones share it.
#[derive(Clone)]
pub struct Sqlite {
    writer: mpsc::Sender<Asked>,
    readers: Arc<Mutex<Vec<Connection>>>,
    free: Arc<Semaphore>,
    options: Arc<OpenOptions>,
}

/// What the writer thread is asked to do. `parts` empty: only to show that it could.
struct Asked {
    parts: Vec<CheckedPart>,
    answer: oneshot::Sender<Result<Vec<Outcome>, LedgerError>>,
}

impl Sqlite {
    /// Opens the ledger in `path`, or makes it with the folders above it.
    ///
    /// # Errors
    /// [`LedgerError::Foreign`] when the file is something else; [`LedgerError::Unavailable`] when it can't be read or made.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        Self::open_with(OpenOptions::of(path))
    }

    fn open_with(options: OpenOptions) -> Result<Self, LedgerError> {
        let connection = options.writer()?;
        let (writer, asked) = mpsc::channel(DELIVERIES_WAITING_MAX);
        let options = Arc::new(options);
        let of_writer = Arc::clone(&options);
        thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || write::run(connection, &of_writer, asked))
            .map_err(|error| LedgerError::Unavailable(format!("no thread for the writer: {error}")))?;
        Ok(Self {
            writer,
            readers: Arc::default(),
            free: Arc::new(Semaphore::new(READERS)),
            options,
        })
    }

    async fn ask_writer(&self, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, LedgerError> {
        let ended = || LedgerError::Unavailable("the writer has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.writer.send(Asked { parts, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, LedgerError> {
        let broken = |error: &dyn std::error::Error| LedgerError::Unavailable(format!("no reader: {error}"));
        let permit = Arc::clone(&self.free)
            .acquire_owned()
            .await
            .map_err(|error| broken(&error))?;
        let (readers, options) = (Arc::clone(&self.readers), Arc::clone(&self.options));
        let reading = tokio::task::spawn_blocking(move || {
            // The permit goes with the connection, so that a caller who stops waiting doesn't free it too early.
            let _permit = permit;
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => options.reader()?,
            };
            // A connection that failed is not used again: it may hold on to a file that is gone.
            let answer = question(&mut connection).map_err(|error| open::verdict(&error))?;
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(answer)
        });
        reading.await.map_err(|error| broken(&error))?
    }
}

impl Ledger for Sqlite {
    async fn deliver(&self, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, LedgerError> {
        self.ask_writer(parts).await
    }

    async fn cursor(&self, source: Source) -> Result<Option<i64>, LedgerError> {
        self.read(move |connection| read::cursor(connection, &source)).await
    }

    async fn usage(&self, window: Window) -> Result<Usage, LedgerError> {
        self.read(move |connection| read::usage(connection, &window)).await
    }

    async fn entries(&self, after: u64, filter: Filter, entries_max: usize) -> Result<Page, LedgerError> {
        self.read(move |connection| read::entries(connection, after, &filter, entries_max))
            .await
    }

    async fn charges(&self, source: Source, page: ChargesPage) -> Result<Vec<Charge>, LedgerError> {
        self.read(move |connection| read::charges(connection, &source, &page))
            .await
    }

    async fn move_cursor(&self, source: Source, to: i64) -> Result<Moved, LedgerError> {
        let options = Arc::clone(&self.options);
        // On a connection of its own: the writer's transactions and this one keep each other out by the file's lock.
        let moving = tokio::task::spawn_blocking(move || {
            let mut connection = options.writer()?;
            write::move_cursor(&mut connection, &source, to).map_err(|error| open::verdict(&error))
        });
        let broken = |error| LedgerError::Unavailable(format!("no writer: {error}"));
        moving.await.map_err(broken)?
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.ask_writer(Vec::new()).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests;
