//! What the tests of this crate share: deliveries in few words, and stores to open again.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod postgres;

use std::future::Future;

use billing_sink::{CheckedPart, Ledger, LedgerError, Postgres, Source, Sqlite, check};
use proto::delivery::v1::outcome::Kind;
use proto::delivery::v1::{Charge, DeliverRequest, Outcome, Part};

pub const PIPELINE: &str = "pipe";
pub const TOPIC: &str = "orders";

/// Where a ledger lives through a restart of the service.
pub trait Home: Send + Sync {
    type Ledger: Ledger;
    fn open(&self) -> impl Future<Output = Result<Self::Ledger, LedgerError>> + Send;
}

pub struct SqliteHome(pub tempfile::TempDir);

impl SqliteHome {
    pub async fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }
}

impl Home for SqliteHome {
    type Ledger = Sqlite;

    async fn open(&self) -> Result<Sqlite, LedgerError> {
        Sqlite::open(&self.0.path().join("deep/er/ledger.db"))
    }
}

pub struct PostgresHome(pub String);

impl PostgresHome {
    /// A new database on the server that the tests of this program share.
    pub async fn new() -> Self {
        Self(postgres::shared_database().await)
    }
}

impl Home for PostgresHome {
    type Ledger = Postgres;

    async fn open(&self) -> Result<Postgres, LedgerError> {
        Postgres::open(&self.0).await
    }
}

pub fn source(partition: i32) -> Source {
    Source {
        pipeline: PIPELINE.to_owned(),
        topic: TOPIC.to_owned(),
        partition,
    }
}

/// A charge of one EUR meter; `n` 0.
pub fn charge(partition: i32, offset: i64, quantity: i64) -> Charge {
    Charge {
        id: format!("{TOPIC}/{partition}/{offset}/0"),
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        unit: "EUR".to_owned(),
        quantity,
        scale: 2,
        event_time_ms: 1_000 + offset,
        event_id: format!("event-{offset}"),
        rule: "bill".to_owned(),
        rules_revision: 7,
        offset,
    }
}

/// A part with these charges; its digest is `digest` 16 times.
pub fn part(partition: i32, start: i64, end: i64, digest: u8, charges: Vec<Charge>) -> Part {
    Part {
        topic: TOPIC.to_owned(),
        partition,
        start,
        end,
        digest: vec![digest; 16],
        charges,
        first: start == 0,
    }
}

pub fn checked(parts: Vec<Part>) -> Vec<CheckedPart> {
    check(DeliverRequest {
        pipeline: PIPELINE.to_owned(),
        parts,
    })
    .expect("parts that obey the contract")
}

pub async fn deliver(ledger: &impl Ledger, parts: Vec<Part>) -> Vec<Outcome> {
    ledger.deliver(checked(parts)).await.expect("an answer")
}

/// Kinds and cursors, without the reasons.
pub fn kinds(outcomes: &[Outcome]) -> Vec<(Kind, i64)> {
    outcomes
        .iter()
        .map(|outcome| (outcome.kind(), outcome.cursor))
        .collect()
}

pub fn outcome(kind: Kind, cursor: i64, reason: &str) -> Outcome {
    Outcome {
        kind: kind.into(),
        cursor,
        reason: reason.to_owned(),
    }
}
