//! A connection with what it needs set, and what its errors mean.

use std::error::Error as _;
use std::time::Duration;

use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, IsolationLevel, NoTls, Transaction};

use crate::ledger::LedgerError;

const VERSION: i32 = 1;
const CONNECT_WAIT: Duration = Duration::from_secs(3);
/// A host that is gone without a word holds the ledger's lock until its end is noticed; unsent data is given up after this.
const PEER_SILENT_MAX: Duration = Duration::from_secs(10);
/// The database ends statements and transactions that take longer, so that a stuck one doesn't hold the lock for ever.
const SESSION: &str =
    "SET lock_timeout = '5s'; SET statement_timeout = '30s'; SET idle_in_transaction_session_timeout = '10s'";

/// Opens sessions.
#[derive(Clone)]
pub struct Connector {
    config: Config,
}

/// One open connection.
pub struct Session {
    client: Client,
}

impl Connector {
    pub fn new(url: &str) -> Result<Self, LedgerError> {
        // The URL may hold a password: it is in no message.
        let mut config: Config = url
            .parse()
            .map_err(|error| LedgerError::Foreign(format!("the PostgreSQL URL cannot be read: {}", chain(&error))))?;
        if config.get_ssl_mode() == SslMode::Require {
            let reason = "sslmode=require: TLS to PostgreSQL is not built in; use a local proxy or a private network";
            return Err(LedgerError::Foreign(reason.to_owned()));
        }
        config
            .connect_timeout(CONNECT_WAIT)
            .tcp_user_timeout(PEER_SILENT_MAX)
            .keepalives_idle(PEER_SILENT_MAX);
        if config.get_application_name().is_none() {
            config.application_name("sluice-billing");
        }
        Ok(Self { config })
    }

    /// A new session, with the tables there.
    pub async fn session(&self) -> Result<Session, LedgerError> {
        let (client, connection) = self.config.connect(NoTls).await.map_err(|error| verdict(&error))?;
        // Ends with the client. What it has to say reaches the client's callers as errors of their own.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("a connection to PostgreSQL ended: {}", chain(&error));
            }
        });
        let mut session = Session { client };
        session.prepare().await.map_err(|error| verdict(&error))??;
        Ok(session)
    }
}

impl Session {
    pub fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// A transaction that sees each statement's newest committed rows, whatever the database's default is: after the lock on the
    /// ledger's row has been waited for, the next statement must see what its last holder has committed.
    pub async fn read_committed(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        self.client
            .build_transaction()
            .isolation_level(IsolationLevel::ReadCommitted)
            .start()
            .await
    }

    /// A transaction that sees one snapshot and writes nothing.
    pub async fn snapshot(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        self.client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await
    }

    async fn prepare(&mut self) -> Result<Result<(), LedgerError>, tokio_postgres::Error> {
        self.client.batch_execute(SESSION).await?;
        // A database or role may have it off: commits would be acknowledged and then lost by a crash. Stronger settings stay.
        let synchronous: String = self
            .client
            .query_one("SHOW synchronous_commit", &[])
            .await?
            .try_get(0)?;
        if synchronous == "off" {
            self.client.batch_execute("SET synchronous_commit = on").await?;
        }
        let transaction = self.read_committed().await?;
        // Two services that start on an empty database must not both make the tables. The key is "sluice" in ASCII.
        transaction
            .batch_execute("SELECT pg_advisory_xact_lock(126909663503205)")
            .await?;
        let there: bool = transaction
            .query_one("SELECT to_regclass('sluice_ledger') IS NOT NULL", &[])
            .await?
            .try_get(0)?;
        if !there {
            transaction.batch_execute(include_str!("schema.sql")).await?;
        }
        let version: i32 = transaction
            .query_one("SELECT version FROM sluice_ledger", &[])
            .await?
            .try_get(0)?;
        transaction.commit().await?;
        if version != VERSION {
            return Ok(Err(LedgerError::Foreign(format!(
                "the database holds version {version} of the ledger's tables, and this program knows version {VERSION}"
            ))));
        }
        Ok(Ok(()))
    }
}

/// Whether the transaction has lost against another one and would pass if it were run again at once.
pub fn lost_a_race(error: &tokio_postgres::Error) -> bool {
    error
        .code()
        .is_some_and(|code| [SqlState::T_R_SERIALIZATION_FAILURE, SqlState::T_R_DEADLOCK_DETECTED].contains(code))
}

/// What the caller can do about an error of PostgreSQL.
pub fn verdict(error: &tokio_postgres::Error) -> LedgerError {
    let reason = chain(error);
    match error.code().map(|code| code.code().get(..2).unwrap_or_default()) {
        // Data exceptions, broken constraints, wrong SQL: program and tables don't fit.
        Some("22" | "23" | "42") => LedgerError::Refused(reason),
        // No code: the connection. Others: resources, operator's intervention, failover, authentication: may be mended meanwhile.
        _ => LedgerError::Unavailable(reason),
    }
}

/// The error with its causes: tokio-postgres says only "db error" by itself.
fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
