//! The questions. Each is answered from one snapshot: a transaction where it takes more than one statement.

use std::ops::Range;

use proto::delivery::v1::{Charge, UsageEntry};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::sums::{self, MINUTE_MS};
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
    let mut usage = Usage {
        scale,
        unit,
        ..Usage::default()
    };
    for piece in pieces(&window.event_time_ms) {
        let (quantity, charges) = match piece {
            Piece::Minutes(minutes) => of_minutes(&transaction, meter_id, &minutes)?,
            Piece::Within(minute, times) => within_minute(&transaction, meter_id, minute, &times)?,
        };
        usage.quantity += quantity;
        usage.charges += charges;
    }
    Ok(usage)
}

/// What a window consists of.
#[derive(Debug, PartialEq)]
enum Piece {
    /// These minutes, whole: what the sums tell.
    Minutes(Range<i64>),
    /// These milliseconds of this minute: what only its charges tell.
    Within(i64, Range<i64>),
}

fn pieces(times: &Range<i64>) -> Vec<Piece> {
    if times.is_empty() {
        return Vec::new();
    }
    let (first, last) = (sums::minute(times.start), sums::minute(times.end));
    if first == last {
        return vec![Piece::Within(first, times.clone())];
    }
    // The first minute that i64 holds begins before it. Saturated, it begins with the first millisecond that there is.
    let begin = |minute: i64| minute.saturating_mul(MINUTE_MS);
    let mut pieces = Vec::with_capacity(3);
    let mut whole = first..last;
    if times.start > begin(first) {
        whole.start += 1;
        pieces.push(Piece::Within(first, times.start..begin(whole.start)));
    }
    pieces.push(Piece::Minutes(whole));
    if begin(last) < times.end {
        pieces.push(Piece::Within(last, begin(last)..times.end));
    }
    pieces
}

// SQLite's sum() fails as soon as a partial sum leaves 64 bits, even when the whole would fit, and depends on the order. So the upper
// and the lower 32 bits are summed apart (>> keeps the sign): neither overflows below 2^31 charges or rows of sums. A row's lower piece
// is a sum itself; what of it is above 32 bits goes to the upper one.

fn of_minutes(transaction: &Transaction<'_>, meter_id: i64, minutes: &Range<i64>) -> rusqlite::Result<(i128, u64)> {
    let sql = "SELECT coalesce(sum(quantity_upper + (quantity_lower >> 32)), 0), coalesce(sum(quantity_lower & 4294967295), 0), \
               coalesce(sum(charges), 0) FROM usage WHERE meter_id = ?1 AND minute >= ?2 AND minute < ?3";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.query_row(params![meter_id, minutes.start, minutes.end], sum)
}

fn within_minute(
    transaction: &Transaction<'_>,
    meter_id: i64,
    minute: i64,
    times: &Range<i64>,
) -> rusqlite::Result<(i128, u64)> {
    // CROSS JOIN is SQLite's word for: the rows of the left table first. There is no other way to a meter's charges than their cursors.
    let sql = "SELECT coalesce(sum(c.quantity >> 32), 0), coalesce(sum(c.quantity & 4294967295), 0), count(*) \
               FROM usage u CROSS JOIN charges c ON c.cursor BETWEEN u.cursor_first AND u.cursor_last \
               WHERE u.meter_id = ?1 AND u.minute = ?2 \
               AND c.meter_id = ?1 AND c.event_time_ms >= ?3 AND c.event_time_ms < ?4";
    let mut statement = transaction.prepare_cached(sql)?;
    statement.query_row(params![meter_id, minute, times.start, times.end], sum)
}

fn sum(row: &Row<'_>) -> rusqlite::Result<(i128, u64)> {
    let (upper, lower): (i64, i64) = (row.get(0)?, row.get(1)?);
    let quantity = (i128::from(upper) << 32) + i128::from(lower);
    Ok((quantity, row.get::<_, i64>(2)?.cast_unsigned()))
}

pub fn entries(connection: &mut Connection, after: u64, filter: &Filter, entries_max: usize) -> rusqlite::Result<Page> {
    let transaction = connection.transaction()?;
    let newest: i64 = transaction.query_row("SELECT cursor FROM head", [], |row| row.get(0))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_reads_charges_only_of_minutes_that_it_cuts() {
        use Piece::{Minutes, Within};
        let cases = [
            (0..0, vec![]),
            (0..60_000, vec![Minutes(0..1)]),
            (-120_000..180_000, vec![Minutes(-2..3)]),
            (1..2, vec![Within(0, 1..2)]),
            (0..59_999, vec![Within(0, 0..59_999)]),
            (
                -1..60_001,
                vec![Within(-1, -1..0), Minutes(0..1), Within(1, 60_000..60_001)],
            ),
            (
                i64::MIN..i64::MIN + 59_999,
                vec![
                    Minutes(-153_722_867_280_913..-153_722_867_280_912),
                    Within(-153_722_867_280_912, -9_223_372_036_854_720_000..i64::MIN + 59_999),
                ],
            ),
        ];
        for (times, expected) in cases {
            assert_eq!(pieces(&times), expected, "{times:?}");
        }
    }
}
