//! The ledger in PostgreSQL, for more than one machine.
//!
//! **Why cursors can't be skipped.** A `bigserial` hands out numbers when a row is inserted, and rows become visible when their
//! transaction commits, in another order: a reader that has seen 7 may find 6 only later, and never look back. Here every writer
//! first locks the one row of `sluice_ledger`, takes the next cursors from it and writes it back. PostgreSQL makes a commit visible
//! *before* it releases its row locks, so whoever takes cursor n+1 starts after n is visible, and every snapshot that shows n+1
//! shows n. A rollback gives the numbers back, so there is no gap either.
//!
//! The lock also makes the decision sound under READ COMMITTED: all that is read after it is read by the only writer there is.
//! That costs concurrency between services on one ledger and nothing within one, which writes on one connection anyway, and takes
//! all that waits into one transaction.

mod connect;
mod read;
mod text;
mod write;

use std::sync::Arc;

use proto::delivery::v1::{Charge, Outcome};
use tokio::sync::{Mutex, mpsc, oneshot};

use crate::check::CheckedPart;
use crate::ledger::{ChargesPage, Filter, Ledger, LedgerError, Moved, Page, Source, Usage, Window};
use connect::{Connector, Session};

/// Connections for questions; each answers one at a time.
const READERS: usize = 4;
/// Deliveries that wait for the writer; past this the callers wait, which is the back-pressure.
const DELIVERIES_WAITING_MAX: usize = 64;

/// A ledger in a PostgreSQL database. Clones share it.
#[derive(Clone)]
pub struct Postgres {
    writer: mpsc::Sender<Asked>,
    readers: Arc<Readers>,
}

/// What the writer is asked to do. `parts` empty: only to show that it could.
struct Asked {
    parts: Vec<CheckedPart>,
    answer: oneshot::Sender<Result<Vec<Outcome>, LedgerError>>,
}

struct Readers {
    connector: Connector,
    idle: Mutex<Vec<Session>>,
    free: tokio::sync::Semaphore,
}

impl Postgres {
    /// Connects to `url` (`postgres://user:password@host:port/database`), and makes the tables when there are none. A database that
    /// doesn't answer is no error here: until it does, every question is answered with [`LedgerError::Unavailable`].
    ///
    /// # Errors
    /// [`LedgerError::Foreign`] when the URL is none or the tables are of another version.
    pub async fn open(url: &str) -> Result<Self, LedgerError> {
        let connector = Connector::new(url)?;
        let session = match connector.session().await {
            Ok(session) => Some(session),
            Err(LedgerError::Unavailable(reason)) => {
                tracing::warn!("the ledger's database does not answer yet: {reason}");
                None
            }
            Err(error) => return Err(error),
        };
        let (writer, asked) = mpsc::channel(DELIVERIES_WAITING_MAX);
        tokio::spawn(write::run(session, connector.clone(), asked));
        let free = tokio::sync::Semaphore::new(READERS);
        Ok(Self {
            writer,
            readers: Arc::new(Readers {
                connector,
                idle: Mutex::default(),
                free,
            }),
        })
    }

    async fn ask_writer(&self, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, LedgerError> {
        let ended = || LedgerError::Unavailable("the writer has ended".to_owned());
        let (answer, answered) = oneshot::channel();
        self.writer.send(Asked { parts, answer }).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?
    }

    /// Answers a question on a connection of its own. A connection that has failed, or whose caller has gone, is closed.
    async fn read<T>(
        &self,
        question: impl AsyncFnOnce(&mut Session) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, LedgerError> {
        let Readers { connector, idle, free } = &*self.readers;
        let no_reader = |error| LedgerError::Unavailable(format!("no reader: {error}"));
        let _permit = free.acquire().await.map_err(no_reader)?;
        let session = loop {
            match idle.lock().await.pop() {
                Some(session) if session.is_open() => break Some(session),
                Some(_closed) => {}
                None => break None,
            }
        };
        let mut session = match session {
            Some(session) => session,
            None => connector.session().await?,
        };
        let answer = question(&mut session).await.map_err(|error| connect::verdict(&error))?;
        idle.lock().await.push(session);
        Ok(answer)
    }
}

impl Ledger for Postgres {
    async fn deliver(&self, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, LedgerError> {
        self.ask_writer(parts).await
    }

    async fn cursor(&self, source: Source) -> Result<Option<i64>, LedgerError> {
        self.read(async move |session| read::cursor(session, &source).await)
            .await
    }

    async fn usage(&self, window: Window) -> Result<Usage, LedgerError> {
        self.read(async move |session| read::usage(session, &window).await)
            .await
    }

    async fn entries(&self, after: u64, filter: Filter, entries_max: usize) -> Result<Page, LedgerError> {
        self.read(async move |session| read::entries(session, after, &filter, entries_max).await)
            .await
    }

    async fn charges(&self, source: Source, page: ChargesPage) -> Result<Vec<Charge>, LedgerError> {
        self.read(async move |session| read::charges(session, &source, &page).await)
            .await
    }

    async fn move_cursor(&self, source: Source, to: i64) -> Result<Moved, LedgerError> {
        let mut session = self.readers.connector.session().await?;
        let moved = write::move_cursor(&mut session, &source, to).await;
        moved.map_err(|error| connect::verdict(&error))
    }

    async fn ping(&self) -> Result<(), LedgerError> {
        self.ask_writer(Vec::new()).await.map(|_| ())
    }
}
