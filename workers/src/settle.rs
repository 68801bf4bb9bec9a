//! Settles a pending promise: waits until no old insert can land, then reads back what is there, in tables and in their
//! rollups, and compares it with what was promised.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clickhouse_sink::{Client, Feed, Range as StoredRange, RowId};
use exactly_once_protocol::{Guarantee, Promise, Range, StopCode};

use crate::guard::Requests;
use crate::model::Model;
use crate::sinks::{Sinks, query_prefix};
use crate::transform::Outputs;

/// Between two questions to a server that is away or still busy.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// For a server that is there to say what time it is.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// UNKNOWN_TABLE, UNKNOWN_IDENTIFIER, NO_SUCH_COLUMN_IN_TABLE, UNKNOWN_DATABASE.
pub(crate) const NO_SUCH_ROLLUP: [i32; 4] = [60, 47, 16, 81];

/// Between two lines of the log about the same outage.
const TELL_AGAIN: Duration = Duration::from_secs(30);

/// What ClickHouse has of a range.
#[derive(Debug, Default)]
pub struct Present {
    /// Rows, by table index.
    pub rows: BTreeMap<usize, Vec<RowId>>,
    /// Rollups of these tables.
    pub rollups: Vec<Feed>,
    /// Those of them that lack rows of `unfed_range`.
    pub unfed: Vec<Feed>,
    /// What rollups may lack, as ClickHouse knows it: it begins before the promised range.
    pub unfed_range: Option<StoredRange>,
}

/// Waits until the server's own clock is past the deadline and the grace, and no insert of the promise runs any more,
/// then reads every table that the source may write to. Waits as long as the server is away.
pub async fn read_back(sinks: &Sinks, model: &Model, promise: &Promise, range: Range) -> Present {
    let client = &sinks.clickhouse;
    let grace_ms = i64::try_from(model.pipeline.batch.grace.as_millis()).unwrap_or(i64::MAX);
    let after_ms = promise.deadline_ms.saturating_add(grace_ms);
    let prefix = query_prefix(&model.pipeline.name, promise.token);
    let mut told: Option<Instant> = None;
    loop {
        // Never without time left: whoever reads back has nothing else to do.
        let Some(turn) = sinks.guard.turn(Requests::Reads, || Duration::MAX).await else {
            continue;
        };
        if turn.is_probe() && !answers_soon(client).await {
            turn.tell(true);
            continue;
        }
        let asked = match safe(client, after_ms, &prefix).await {
            Ok(None) => tables(client, model, range, promise.fed).await,
            Ok(Some(wait)) => {
                // A small question says nothing of large ones: it is as if it had not been asked.
                drop(turn);
                tokio::time::sleep(wait).await;
                continue;
            }
            Err(error) => Err(error),
        };
        turn.tell(asked.as_ref().is_err_and(clickhouse_sink::Error::is_overload));
        match asked {
            Ok(present) => return present,
            Err(error) if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) => {
                told = Some(Instant::now());
                let (partition, start, end) = (range.partition.partition, range.start, range.end);
                tracing::warn!(%error, partition, start, end, "cannot read back yet, asking again until ClickHouse answers");
            }
            Err(error) => tracing::debug!(%error, "cannot read back yet"),
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

/// Whether the server answers at all, before everybody waits for what may take a minute.
async fn answers_soon(client: &Client) -> bool {
    matches!(tokio::time::timeout(ANSWERS_WITHIN, client.now_ms()).await, Ok(Ok(_)))
}

/// `None` if nothing of the old promise can still land; otherwise how long to wait before asking again.
pub(crate) async fn safe(
    client: &Client,
    after_ms: i64,
    prefix: &str,
) -> Result<Option<Duration>, clickhouse_sink::Error> {
    let now_ms = client.now_ms().await?;
    if now_ms <= after_ms {
        let wait = u64::try_from(after_ms - now_ms + 1).unwrap_or(0);
        return Ok(Some(Duration::from_millis(wait.min(1000))));
    }
    Ok(if client.running(prefix).await? {
        Some(ASK_AGAIN)
    } else {
        None
    })
}

async fn tables(client: &Client, model: &Model, range: Range, fed: i64) -> Result<Present, clickhouse_sink::Error> {
    let source = usize::from(range.partition.topic);
    let asked = model.stored(range);
    let unfed = model.stored(Range { start: fed, ..range });
    let mut present = Present::default();
    for name in &model.catalog.events[source].tables {
        let Some(table) = model.table(name) else { continue };
        let rows = client.read_back(name, std::slice::from_ref(&asked)).await?;
        for feed in model.feeds.iter().filter(|feed| feed.from == *name) {
            match client.unfed(feed, std::slice::from_ref(&unfed)).await {
                Ok(0) => present.rollups.push(feed.clone()),
                Ok(_) => {
                    present.rollups.push(feed.clone());
                    present.unfed.push(feed.clone());
                }
                // A rollup that is not there, or is older than `_rows`, must not hold up its table. Any other answer
                // says nothing about the rows: it is asked again.
                Err(error @ clickhouse_sink::Error::Server { code, .. }) if NO_SUCH_ROLLUP.contains(&code) => {
                    tracing::error!(rollup = feed.rollup, %error, "it cannot be told whether the rollup lacks rows");
                }
                Err(error) => return Err(error),
            }
        }
        present.rows.insert(table, rows);
    }
    present.unfed_range = Some(unfed);
    Ok(present)
}

/// Which rows of each entry of `outputs.tables` are missing. Rows that were never promised, or that are there twice,
/// stop the partition: they were not put there by this protocol. With `guarantee: at_least_once` the same row may be there
/// twice.
pub fn missing(outputs: &Outputs, present: &Present, guarantee: Guarantee) -> Result<Vec<Vec<usize>>, StopCode> {
    let mut found: BTreeMap<(usize, i64, u16), u64> = BTreeMap::new();
    for (table, rows) in &present.rows {
        for row in rows {
            let before = found.insert((*table, row.offset, row.index), row.row_hash);
            let same = guarantee == Guarantee::AtLeastOnce && before == Some(row.row_hash);
            if before.is_some() && !same {
                return Err(StopCode::RowsAltered);
            }
        }
    }
    let mut missing = Vec::with_capacity(outputs.tables.len());
    for rows in &outputs.tables {
        let mut of_table = Vec::new();
        for row in rows.rows.iter().map(|row| *row as usize) {
            match found.remove(&(rows.table, rows.positions.offset[row], rows.index[row])) {
                Some(hash) if hash == rows.row_hash[row] => {}
                Some(_) => return Err(StopCode::RowsAltered),
                None => of_table.push(row),
            }
        }
        missing.push(of_table);
    }
    if found.is_empty() {
        Ok(missing)
    } else {
        Err(StopCode::RowsAltered)
    }
}
