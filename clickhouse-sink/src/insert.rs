//! One insert of one block under one token: begun before its deadline, or refused by the server itself.

use std::time::Duration;

use pipeline::Compression;

use crate::block::{Dated, ROWS_MAX};
use crate::client::{ANSWER_IN_MEMORY, Client, Request, Unanswered};
use crate::sql;
use crate::verdict::verdict;

/// Comes with every block and is not stored: the tables' guard compares it, see `schema/table.rs`.
pub(crate) const DEADLINE_COLUMN: (&str, &str) = ("_deadline", "DateTime('UTC')");
/// What the server says when the guard fires; nothing else on a server says this.
pub(crate) const DEADLINE_PASSED: &str = "sluice: insert deadline passed";

/// From the end of `running_max` to giving up on the answer: the time for the bytes to travel.
pub(crate) const ANSWER_GRACE: Duration = Duration::from_secs(2);

/// What to insert, as what, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Insert<'a> {
    /// The table, in the client's database.
    pub table: &'a str,
    /// The rows, each with the second (Unix time, by the server's clock) from which on the server refuses to begin to write.
    pub block: &'a Dated,
    /// What the server remembers the block by (`insert_deduplication_token`). Says nothing about content.
    pub token: &'a str,
    /// Begins with what [`Client::running`] will be asked for; never that of an insert that may still run.
    pub query_id: &'a str,
    /// How long the server may take (`max_execution_time`, whole seconds, at least 1). The answer is waited for 2 s longer.
    pub running_max: Duration,
}

/// What became of an insert.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an insert that wasn't clean has to be settled"]
pub enum Inserted {
    /// Acknowledged. Proof only if no attempt with this token came before it: see the design, 5.6.
    Clean,
    /// Proven: no row was written and none will be. May be sent again at once, before the deadline.
    Refused(String),
    /// Rows may have been written, or may yet be. Not to be repeated: wait for the deadline, read back.
    Doubt {
        /// The exception's number, if the server has answered with one.
        code: Option<i32>,
        /// What is known.
        reason: String,
    },
    /// The server will say the same until an operator acts. Settle it as doubt, too: in the end only the read-back
    /// proves what is there.
    Rejected {
        /// The exception's number.
        code: i32,
        /// What is wrong, and the server's words.
        reason: String,
    },
}

impl Client {
    /// Inserts one block. Dropping the future before it ends is doubt. A block without rows is clean without being sent.
    pub async fn insert(&self, insert: Insert<'_>) -> Inserted {
        if insert.block.rows == 0 {
            return Inserted::Clean;
        }
        let seconds = insert.running_max.as_secs_f64().ceil().max(1.0) as u64;
        let mut parameters = pinned_settings(seconds);
        if insert.block.compression == Compression::Lz4 {
            parameters.push(("decompress", "1".to_owned()));
        }
        parameters.push(("query", self.statement(&insert)));
        parameters.push(("query_id", insert.query_id.to_owned()));
        parameters.push(("insert_deduplication_token", insert.token.to_owned()));
        let timeout = Duration::from_secs(seconds) + ANSWER_GRACE;
        let request = Request {
            parameters,
            body: insert.block.bytes.clone(),
            timeout,
        };
        match self.send(request).await {
            Ok(answer) => verdict(&answer, insert.query_id),
            Err(Unanswered::NothingSent(reason)) => Inserted::Refused(reason),
            Err(Unanswered::MaybeSent(reason)) => Inserted::Doubt { code: None, reason },
        }
    }

    /// The guard refuses with `>=`, so that nothing begins within the deadline's own second: whoever then finds no such
    /// query running at the deadline knows that none will come.
    fn statement(&self, insert: &Insert<'_>) -> String {
        let columns = insert.block.columns.iter().map(String::as_str);
        format!(
            "INSERT INTO {table} ({columns}) FORMAT Native",
            table = self.table(insert.table),
            columns = sql::names(columns.chain([DEADLINE_COLUMN.0])),
        )
    }
}

/// Whatever the server's defaults or the user's profile say: these decide whether an insert happens once.
pub(crate) fn pinned_settings(seconds: u64) -> Vec<(&'static str, String)> {
    let rows = (ROWS_MAX + 1).to_string();
    vec![
        // The answer comes when all is written; it is kept in memory until then.
        ("wait_end_of_query", "1".to_owned()),
        ("buffer_size", ANSWER_IN_MEMORY.to_string()),
        // On by default since 26.3: would acknowledge a block that has been merged with others.
        ("async_insert", "0".to_owned()),
        // Remember and honour the token, in the table and in its views, also for INSERT SELECT, whose default
        // (`enable_when_possible`) gives deduplication up silently when it finds the query unstable.
        ("insert_deduplicate", "1".to_owned()),
        ("deduplicate_insert", "enable".to_owned()),
        ("deduplicate_insert_select", "enable_even_for_bad_queries".to_owned()),
        ("deduplicate_blocks_in_dependent_materialized_views", "1".to_owned()),
        (
            "update_insert_deduplication_token_in_dependent_materialized_views",
            "0".to_owned(),
        ),
        // One token is one block: nothing may split it or glue two together.
        ("max_insert_threads", "1".to_owned()),
        ("max_threads", "1".to_owned()),
        ("max_block_size", rows.clone()),
        ("max_insert_block_size", rows.clone()),
        ("max_insert_block_size_bytes", "0".to_owned()),
        ("min_insert_block_size_rows", rows),
        ("min_insert_block_size_bytes", (256 * 1024 * 1024).to_string()),
        ("min_insert_block_size_rows_for_materialized_views", "0".to_owned()),
        ("min_insert_block_size_bytes_for_materialized_views", "0".to_owned()),
        ("use_strict_insert_block_limits", "0".to_owned()),
        ("input_format_parallel_parsing", "0".to_owned()),
        ("input_format_max_block_wait_ms", "0".to_owned()),
        ("parallel_view_processing", "0".to_owned()),
        // Rows of many days arrive together after an outage; the default of 100 would refuse them for ever.
        ("max_partitions_per_insert_block", "0".to_owned()),
        // A NULL for a column that has none is an error, not silently another value.
        ("insert_null_as_default", "0".to_owned()),
        ("input_format_null_as_default", "0".to_owned()),
        // A view that fails fails the insert.
        ("materialized_views_ignore_errors", "0".to_owned()),
        ("ignore_materialized_views_with_dropped_target_table", "0".to_owned()),
        ("max_execution_time", seconds.to_string()),
        ("timeout_overflow_mode", "throw".to_owned()),
        ("session_timezone", "UTC".to_owned()),
    ]
}
