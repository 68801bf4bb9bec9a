//! Rows that an operator takes out.

use std::time::Duration;

use crate::client::Client;
use crate::read_back::{FRESH, within};
use crate::{Error, Range, sql};

/// Between two looks whether the rows are gone.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// "Mutation is not finished", of ClickHouse's `ErrorCodes`.
const UNFINISHED: i32 = 341;

impl Client {
    /// Takes all rows of `ranges` out of `table`, and answers how many there were once no query sees them any more. What rollups
    /// have of them stays there. Each part that has some of the rows is written anew, however long that takes; if this is
    /// given up, the server goes on with it. Nothing may insert such rows meanwhile.
    ///
    /// # Errors
    /// As [`Client::query_text`]; [`Error::Server`] with the reason for which the server cannot write a part.
    pub async fn remove(&self, table: &str, ranges: &[Range]) -> Result<u64, Error> {
        let Some(within) = within(ranges) else {
            return Ok(0);
        };
        let (name, database) = (self.table(table), sql::text(self.database()));
        let rows = format!("SELECT count() FROM {name} WHERE {within} FORMAT TSV");
        let there = self.number(&rows).await?;
        if there == 0 {
            return Ok(0);
        }
        let delete = format!("ALTER TABLE {name} DELETE WHERE {within} SETTINGS mutations_sync = 0");
        self.query(&delete, &[]).await?;
        let failed = format!(
            "SELECT latest_fail_reason FROM system.mutations WHERE database = {database} AND table = {} AND NOT is_done \
             AND latest_fail_reason != '' LIMIT 1 FORMAT TSVRaw",
            sql::text(table)
        );
        while self.number(&rows).await? > 0 {
            let reason = self.query(&failed, &[]).await?;
            if !reason.trim().is_empty() {
                return Err(Error::Server {
                    code: UNFINISHED,
                    reason: reason.trim().to_owned(),
                });
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(there)
    }

    async fn number(&self, sql: &str) -> Result<u64, Error> {
        let answer = self
            .query(sql, &FRESH.map(|(name, value)| (name, value.to_owned())))
            .await?;
        let number = answer.trim().parse();
        number.map_err(|_| Error::Answer(format!("a number is expected, not {answer:?}")))
    }
}
