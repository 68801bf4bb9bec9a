//! The one thread that writes.

use std::collections::{BTreeMap, HashMap};

use proto::delivery::v1::Outcome;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use tokio::sync::mpsc;

use super::Asked;
use super::open::{OpenOptions, verdict};
use super::sums::Sums;
use crate::check::{CheckedPart, MeterKey};
use crate::decide::{Decided, Head, Held, MeterRow, RangeRow, SourceRow, decide};
use crate::ledger::{LedgerError, Moved, Source};

/// Deliveries that share one transaction, and with it one sync of the disk.
const DELIVERIES_TOGETHER_MAX: usize = 32;

type Answer = Result<Vec<Outcome>, LedgerError>;

/// Answers until every sender is gone. Then the channel is empty: what was accepted has been answered.
pub fn run(connection: Connection, options: &OpenOptions, mut asked: mpsc::Receiver<Asked>) {
    let mut connection = Some(connection);
    let mut together = Vec::with_capacity(DELIVERIES_TOGETHER_MAX);
    while let Some(first) = asked.blocking_recv() {
        together.push(first);
        while together.len() < DELIVERIES_TOGETHER_MAX
            && let Ok(next) = asked.try_recv()
        {
            together.push(next);
        }
        let deliveries: Vec<Vec<CheckedPart>> = together
            .iter_mut()
            .map(|asked| std::mem::take(&mut asked.parts))
            .collect();
        let answers = answer(&mut connection, options, deliveries);
        for (asked, answer) in together.drain(..).zip(answers) {
            // A caller who has stopped waiting delivers again and is told "already applied".
            asked.answer.send(answer).ok();
        }
    }
}

fn answer(
    connection: &mut Option<Connection>,
    options: &OpenOptions,
    deliveries: Vec<Vec<CheckedPart>>,
) -> Vec<Answer> {
    match transact(connection, options, &deliveries) {
        Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
        // The store is locked or full: asking it once for each would only take the callers' time.
        Err(error @ LedgerError::Unavailable(_)) => return deliveries.iter().map(|_| Err(error.clone())).collect(),
        Err(error) if deliveries.len() == 1 => return vec![Err(error)],
        Err(_) => {}
    }
    // One of them is what the store refuses; each alone, so that it takes no other with it.
    let alone = |delivery| {
        let outcomes = transact(connection, options, std::slice::from_ref(&delivery))?;
        Ok(outcomes.into_iter().next().unwrap_or_default())
    };
    deliveries.into_iter().map(alone).collect()
}

/// Applies the deliveries in one transaction. After an error the connection is closed, and the next call opens the file again: the
/// file is the truth, not what a connection believes after a commit that failed half-way.
fn transact(
    kept: &mut Option<Connection>,
    options: &OpenOptions,
    deliveries: &[Vec<CheckedPart>],
) -> Result<Vec<Vec<Outcome>>, LedgerError> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => options.writer()?,
    };
    let outcomes = apply(&mut connection, deliveries).map_err(|error| verdict(&error))?;
    *kept = Some(connection);
    let mut outcomes = outcomes.into_iter();
    Ok(deliveries
        .iter()
        .map(|parts| outcomes.by_ref().take(parts.len()).collect())
        .collect())
}

fn apply(connection: &mut Connection, deliveries: &[Vec<CheckedPart>]) -> rusqlite::Result<Vec<Outcome>> {
    // IMMEDIATE takes the write lock before the first read, so what is read here stays true until the commit.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let parts: Vec<CheckedPart> = deliveries.iter().flatten().cloned().collect();
    let held = held(&transaction, &parts)?;
    let decided = decide(held, parts);
    write(&transaction, &decided)?;
    transaction.commit()?;
    Ok(decided.outcomes)
}

/// See [`crate::Ledger::move_cursor`].
pub fn move_cursor(connection: &mut Connection, place: &Source, to: i64) -> rusqlite::Result<Moved> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let was = source(&transaction, place)?;
    if let Some(SourceRow { id, .. }) = was {
        let sql = "SELECT count(*) FROM charges WHERE source_id = ?1 AND source_offset >= ?2";
        let charged: i64 = transaction.query_row(sql, params![id, to], |row| row.get(0))?;
        if charged > 0 {
            return Ok(Moved::Charged(charged.cast_unsigned()));
        }
        transaction.execute("UPDATE sources SET cursor = ?2 WHERE id = ?1", params![id, to])?;
        // Deliveries behind the cursor are new ones: nothing of what stood there is to be taken for a repetition.
        let sql = "DELETE FROM ranges WHERE source_id = ?1 AND range_end > ?2";
        transaction.execute(sql, params![id, to])?;
    } else {
        transaction.execute("UPDATE head SET id = id + 1", [])?;
        let sql = "INSERT INTO sources (id, pipeline, topic, partition, cursor, ranges) SELECT id, ?1, ?2, ?3, ?4, 0 FROM head";
        transaction.execute(sql, params![place.pipeline, place.topic, place.partition, to])?;
    }
    transaction.commit()?;
    Ok(Moved::From(was.map(|row| row.cursor)))
}

fn held(transaction: &Transaction<'_>, parts: &[CheckedPart]) -> rusqlite::Result<Held> {
    let head = transaction.query_row("SELECT cursor, id FROM head", [], |row| {
        Ok(Head {
            cursor: row.get(0)?,
            id: row.get(1)?,
        })
    })?;
    let mut sources = BTreeMap::new();
    let mut ranges = HashMap::new();
    let mut meters = HashMap::new();
    for part in parts {
        if !sources.contains_key(&part.source)
            && let Some(row) = source(transaction, &part.source)?
        {
            sources.insert(part.source.clone(), row);
        }
        if let Some(SourceRow { id, cursor, .. }) = sources.get(&part.source)
            && part.start < *cursor
            && let Some(row) = range(transaction, *id, part.start)?
        {
            ranges.insert((*id, part.start), row);
        }
        for charge in &part.charges {
            if !meters.contains_key(&charge.key)
                && let Some(row) = meter(transaction, charge.key)?
            {
                meters.insert(charge.key, row);
            }
        }
    }
    Ok(Held {
        head,
        sources,
        ranges,
        meters,
    })
}

fn source(transaction: &Transaction<'_>, source: &Source) -> rusqlite::Result<Option<SourceRow>> {
    let sql = "SELECT id, cursor, ranges FROM sources WHERE pipeline = ?1 AND topic = ?2 AND partition = ?3";
    let mut statement = transaction.prepare_cached(sql)?;
    let row = statement.query_row(params![source.pipeline, source.topic, source.partition], |row| {
        Ok(SourceRow {
            id: row.get(0)?,
            source: source.clone(),
            cursor: row.get(1)?,
            ranges: row.get(2)?,
        })
    });
    row.optional()
}

fn range(transaction: &Transaction<'_>, source_id: i64, start: i64) -> rusqlite::Result<Option<RangeRow>> {
    let sql = "SELECT range_end, number, digest, charges FROM ranges WHERE source_id = ?1 AND range_start = ?2";
    let mut statement = transaction.prepare_cached(sql)?;
    let row = statement.query_row(params![source_id, start], |row| {
        let (end, number) = (row.get(0)?, row.get(1)?);
        Ok(RangeRow {
            source_id,
            number,
            start,
            end,
            digest: row.get(2)?,
            charges: row.get(3)?,
        })
    });
    row.optional()
}

fn meter(transaction: &Transaction<'_>, key: MeterKey) -> rusqlite::Result<Option<MeterRow>> {
    let mut statement =
        transaction.prepare_cached("SELECT id, tenant, meter, unit, scale FROM meters WHERE key = ?1")?;
    let row = statement.query_row(params![key.0], |row| {
        let (tenant, meter) = (row.get(1)?, row.get(2)?);
        Ok(MeterRow {
            id: row.get(0)?,
            key,
            tenant,
            meter,
            unit: row.get(3)?,
            scale: row.get(4)?,
        })
    });
    row.optional()
}

fn write(transaction: &Transaction<'_>, decided: &Decided) -> rusqlite::Result<()> {
    if decided.ranges.is_empty() {
        // Nothing was applied. The commit of a transaction that wrote nothing syncs nothing.
        return Ok(());
    }
    transaction.execute(
        "UPDATE head SET cursor = ?1, id = ?2",
        params![decided.head.cursor, decided.head.id],
    )?;
    let sql = "INSERT INTO sources (id, pipeline, topic, partition, cursor, ranges) VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
               ON CONFLICT (id) DO UPDATE SET cursor = excluded.cursor, ranges = excluded.ranges";
    let mut statement = transaction.prepare_cached(sql)?;
    for SourceRow {
        id,
        source,
        cursor,
        ranges,
    } in &decided.sources
    {
        statement.execute(params![
            id,
            source.pipeline,
            source.topic,
            source.partition,
            cursor,
            ranges
        ])?;
    }
    let sql = "INSERT INTO ranges (source_id, range_start, range_end, number, digest, charges) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut statement = transaction.prepare_cached(sql)?;
    for RangeRow {
        source_id,
        number,
        start,
        end,
        digest,
        charges,
    } in &decided.ranges
    {
        statement.execute(params![source_id, start, end, number, digest, charges])?;
    }
    let mut statement = transaction.prepare_cached("DELETE FROM ranges WHERE source_id = ?1 AND number <= ?2")?;
    for (source_id, number) in &decided.forget {
        statement.execute(params![source_id, number])?;
    }
    let sql = "INSERT INTO meters (id, key, tenant, meter, unit, scale) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut statement = transaction.prepare_cached(sql)?;
    for MeterRow {
        id,
        key,
        tenant,
        meter,
        unit,
        scale,
    } in &decided.meters
    {
        statement.execute(params![id, key.0, tenant, meter, unit, scale])?;
    }
    charges(transaction, decided)
}

fn charges(transaction: &Transaction<'_>, decided: &Decided) -> rusqlite::Result<()> {
    let sql = "INSERT INTO charges (cursor, source_id, source_offset, n, meter_id, quantity, event_time_ms, event_id, rule, \
               rules_revision) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let mut statement = transaction.prepare_cached(sql)?;
    let mut sums = Sums::default();
    for row in &decided.charges {
        let charge = &row.charge.charge;
        statement.execute(params![
            row.cursor,
            row.source_id,
            charge.offset,
            row.charge.n,
            row.meter_id,
            charge.quantity,
            charge.event_time_ms,
            charge.event_id,
            charge.rule,
            charge.rules_revision.cast_signed(),
        ])?;
        sums.add(row.cursor, row.meter_id, charge.quantity, charge.event_time_ms);
    }
    sums.write(transaction)
}
