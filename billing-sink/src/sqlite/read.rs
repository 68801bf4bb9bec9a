//! The questions. Each is answered from one snapshot: a transaction where it takes more than one statement.

use proto::delivery::v1::{Charge, UsageEntry};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::check::{MeterKey, id};
use crate::ledger::{ChargesPage, Filter, Page, Source, Usage, Window};

/// What a charge is read from; the columns are taken by place in [`charge`].
const CHARGE: &str = "SELECT c.cursor, s.topic, s.partition, c.source_offset, c.n, m.tenant, m.meter, m.unit, m.scale, \
     c.quantity, c.event_time_ms, c.event_id, c.rule, c.rules_revision \
     FROM charges c JOIN sources s ON s.id = c.source_id JOIN meters m ON m.id = c.meter_id ";

pub fn cursor(connection: &Connection, source: &Source) -> rusqlite::Result<Option<i64>> {
    let sql = "SELECT cursor FROM sources WHERE pipeline = ?1 AND topic = ?2 AND partition = ?3";
    let mut statement = connection.prepare_cached(sql)?;
    statement
        .query_row(params![source.pipeline, source.topic, source.partition], |row| {
            row.get(0)
        })
        .optional()
}

pub fn usage(connection: &mut Connection, window: &Window) -> rusqlite::Result<Usage> {
    let transaction = connection.transaction()?;
    let key = MeterKey::of(&window.tenant, &window.meter).0;
    let mut statement = transaction.prepare_cached("SELECT id, unit, scale FROM meters WHERE key = ?1")?;
    let meter = statement
        .query_row(params![key], |row| {
            Ok((row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?))
        })
        .optional()?;
    let Some((meter_id, unit, scale)) = meter else {
        return Ok(Usage::default());
    };
    // SQLite's sum() fails as soon as a partial sum leaves 64 bits, even when the whole would fit, and depends on the order. The
    // upper and the lower 32 bits are summed apart (>> keeps the sign): neither overflows below 2^31 charges.
    let sql = "SELECT coalesce(sum(quantity >> 32), 0), coalesce(sum(quantity & 4294967295), 0), count(*) FROM charges \
               WHERE meter_id = ?1 AND event_time_ms >= ?2 AND event_time_ms < ?3";
    let mut statement = transaction.prepare_cached(sql)?;
    let times = &window.event_time_ms;
    statement.query_row(params![meter_id, times.start, times.end], |row| {
        let (upper, lower): (i64, i64) = (row.get(0)?, row.get(1)?);
        let quantity = (i128::from(upper) << 32) + i128::from(lower);
        Ok(Usage {
            quantity,
            scale,
            unit,
            charges: row.get::<_, i64>(2)?.cast_unsigned(),
        })
    })
}

pub fn entries(connection: &mut Connection, after: u64, filter: &Filter, entries_max: usize) -> rusqlite::Result<Page> {
    let transaction = connection.transaction()?;
    let newest: i64 = transaction.query_row("SELECT cursor FROM ledger", [], |row| row.get(0))?;
    let newest = newest.cast_unsigned();
    // Cursors have no gaps, so the page's end is known before it is read, and a filter that lets little through costs no more.
    let read_to = newest.min(after.saturating_add(entries_max as u64)).max(after);
    let sql = format!(
        "{CHARGE} WHERE c.cursor > ?1 AND c.cursor <= ?2 AND (?3 = '' OR m.tenant = ?3) AND (?4 = '' OR m.meter = ?4) \
         ORDER BY c.cursor"
    );
    let mut statement = transaction.prepare_cached(&sql)?;
    // Past i64::MAX there is nothing; the service has refused such a cursor, since the newest can't be there.
    let bound = |cursor: u64| i64::try_from(cursor).unwrap_or(i64::MAX);
    let rows = statement.query_map(
        params![bound(after), bound(read_to), filter.tenant, filter.meter],
        entry,
    )?;
    Ok(Page {
        entries: rows.collect::<rusqlite::Result<_>>()?,
        read_to,
        newest,
    })
}

pub fn charges(connection: &Connection, source: &Source, page: &ChargesPage) -> rusqlite::Result<Vec<Charge>> {
    let (offset, n) = page
        .after
        .map_or((page.offsets.start, -1), |(offset, n)| (offset, i64::from(n)));
    let sql = format!(
        "{CHARGE} WHERE s.pipeline = ?1 AND s.topic = ?2 AND s.partition = ?3 \
         AND (c.source_offset, c.n) > (?4, ?5) AND c.source_offset < ?6 ORDER BY c.source_offset, c.n LIMIT ?7"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let limit = i64::try_from(page.charges_max).unwrap_or(i64::MAX);
    let (
        Source {
            pipeline,
            topic,
            partition,
        },
        end,
    ) = (source, page.offsets.end);
    let rows = statement.query_map(params![pipeline, topic, partition, offset, n, end, limit], charge)?;
    rows.collect()
}

fn entry(row: &Row<'_>) -> rusqlite::Result<UsageEntry> {
    Ok(UsageEntry {
        cursor: row.get::<_, i64>(0)?.cast_unsigned(),
        charge: Some(charge(row)?),
    })
}

fn charge(row: &Row<'_>) -> rusqlite::Result<Charge> {
    let source = Source {
        pipeline: String::new(),
        topic: row.get(1)?,
        partition: row.get(2)?,
    };
    let offset = row.get(3)?;
    Ok(Charge {
        id: id(&source, offset, row.get(4)?),
        tenant: row.get(5)?,
        meter: row.get(6)?,
        unit: row.get(7)?,
        scale: row.get(8)?,
        quantity: row.get(9)?,
        event_time_ms: row.get(10)?,
        event_id: row.get(11)?,
        rule: row.get(12)?,
        rules_revision: row.get::<_, i64>(13)?.cast_unsigned(),
        offset,
    })
}
