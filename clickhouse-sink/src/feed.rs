//! Rollups that a dying server left short, made whole again.
//!
//! A server that is killed between a table and the view that sums it up has the rows and not their sums. So a rollup's
//! states remember which rows are in them (`_rows`), and whoever settles a promise asks whether all rows of its range are
//! there, and feeds those that are not. A row's identity says in which group it is, and what one insert feeds to one group
//! is one row of states: so it is in the sums exactly if it is in `_rows`.
//!
//! Feeding is an insert like any other: it happens under a promise, begins before its deadline, and is waited for by the
//! next one who settles. If the process or the server dies before it, the rows are still missing; during it, each month's
//! part is there or not, and what is not is still missing; after it, nothing is.

use std::time::Duration;

use crate::client::{Client, Request, Unanswered};
use crate::insert::{ANSWER_GRACE, DEADLINE_PASSED, Inserted, pinned_settings};
use crate::read_back::{FRESH, Range, within};
use crate::verdict::verdict;
use crate::{Error, sql};

/// How one rollup's states are made of the rows of its table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// The rollup's name.
    pub rollup: String,
    /// The name of the table whose rows it sums up.
    pub from: String,
    pub(crate) state: String,
    /// Of the states, in the order of `values`.
    pub(crate) columns: String,
    /// Computed from rows `src`.
    pub(crate) values: String,
    /// The same with the columns' names: what tells this definition from another.
    pub(crate) named_values: String,
    /// The states' sorting key, so that only the groups of the asked rows are read.
    pub(crate) keys: String,
    /// The same, computed from rows `src`.
    pub(crate) group_by: String,
    /// A row's identity.
    pub(crate) row: &'static str,
    pub(crate) rows_column: &'static str,
}

/// One feeding: which rows, as what, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Feeding<'a> {
    /// Which rows.
    pub ranges: &'a [Range],
    /// How many of them the rollup lacks.
    pub lack: Lack,
    /// As of [`crate::Insert`]; never that of another insert.
    pub token: &'a str,
    /// As of [`crate::Insert`].
    pub query_id: &'a str,
    /// As of [`crate::Insert`].
    pub deadline_unix_s: i64,
    /// As of [`crate::Insert`].
    pub running_max: Duration,
}

/// What is known of the rows that a rollup is to be fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lack {
    /// It has none of them.
    All,
    /// It may have some: only the others are fed.
    Some,
}

/// A group may have no value for a column, and then it is that group all the same.
const NULLS_ARE_EQUAL: (&str, &str) = ("transform_null_in", "1");

fn settings() -> impl Iterator<Item = (&'static str, String)> {
    let all = FRESH.into_iter().chain([NULLS_ARE_EQUAL]);
    all.map(|(name, value)| (name, value.to_owned()))
}

impl Client {
    /// How many rows of these ranges the table has and the rollup lacks. Only true once nothing that could write them runs
    /// any more: see [`Client::running`].
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn unfed(&self, feed: &Feed, ranges: &[Range]) -> Result<u64, Error> {
        Ok(self.lacking(feed, ranges).await?.0)
    }

    /// As [`Client::unfed`], with a digest over the identities of the rows: equal for the same rows, in whatever order.
    ///
    /// # Errors
    /// As [`Client::query_text`].
    pub async fn lacking(&self, feed: &Feed, ranges: &[Range]) -> Result<(u64, u64), Error> {
        let Some(missing) = self.missing(feed, ranges) else {
            return Ok((0, 0));
        };
        let (table, row) = (self.table(&feed.from), feed.row);
        let sql = format!("SELECT count(), groupBitXor({row}) FROM {table} AS src WHERE {missing} FORMAT TSV");
        let text = self.query(&sql, &settings().collect::<Vec<_>>()).await?;
        let numbers = text.trim().split_once('\t');
        numbers
            .and_then(|(rows, digest)| Some((rows.parse().ok()?, digest.parse().ok()?)))
            .ok_or_else(|| Error::Answer(format!("two numbers are expected, not {text:?}")))
    }

    /// Feeds the rows of these ranges that the table has and the rollup lacks. Dropping the future before it ends is doubt.
    pub async fn feed(&self, feed: &Feed, feeding: Feeding<'_>) -> Inserted {
        let missing = match feeding.lack {
            Lack::All => within(feeding.ranges).map(|within| format!("({within})")),
            Lack::Some => self.missing(feed, feeding.ranges),
        };
        let Some(missing) = missing else {
            return Inserted::Clean;
        };
        let sql = format!(
            "INSERT INTO {state} ({columns}) SELECT {values} FROM {table} AS src WHERE {missing} \
             AND NOT throwIf(nowInBlock('UTC') >= toDateTime({deadline}, 'UTC'), {message}) GROUP BY {group_by}",
            state = self.table(&feed.state),
            columns = feed.columns,
            values = feed.values,
            table = self.table(&feed.from),
            deadline = feeding.deadline_unix_s,
            message = sql::text(DEADLINE_PASSED),
            group_by = feed.group_by,
        );
        let seconds = feeding.running_max.as_secs_f64().ceil().max(1.0) as u64;
        let mut parameters = pinned_settings(seconds);
        parameters.extend(settings());
        parameters.push(("query_id", feeding.query_id.to_owned()));
        parameters.push(("insert_deduplication_token", feeding.token.to_owned()));
        let request = Request {
            parameters,
            body: sql.into(),
            timeout: Duration::from_secs(seconds) + ANSWER_GRACE,
        };
        match self.send(request).await {
            Ok(answer) => verdict(&answer, feeding.query_id),
            Err(Unanswered::NothingSent(reason)) => Inserted::Refused(reason),
            Err(Unanswered::MaybeSent(reason)) => Inserted::Doubt { code: None, reason },
        }
    }

    /// The condition on `src` for rows of the ranges that no state of their buckets has.
    fn missing(&self, feed: &Feed, ranges: &[Range]) -> Option<String> {
        let within = within(ranges)?;
        Some(format!(
            "({within}) AND {row} NOT IN (SELECT arrayJoin(finalizeAggregation({rows})) FROM {state} \
             WHERE ({keys}) IN (SELECT {group_by} FROM {table} AS src WHERE {within}))",
            row = feed.row,
            rows = feed.rows_column,
            state = self.table(&feed.state),
            keys = feed.keys,
            group_by = feed.group_by,
            table = self.table(&feed.from),
        ))
    }
}
