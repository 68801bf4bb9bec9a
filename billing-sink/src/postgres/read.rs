//! The questions. Each is answered from one snapshot.

use proto::delivery::v1::{Charge, UsageEntry};
use tokio_postgres::{Error, Row};

use super::connect::Session;
use super::text::{escape, unescape};
use crate::check::{MeterKey, id};
use crate::ledger::{ChargesPage, Filter, Page, Source, Usage, Window};

/// What a charge is read from; the columns are taken by place in [`charge`].
const CHARGE: &str = "SELECT c.cursor, s.topic, s.partition, c.source_offset, c.n, m.tenant, m.meter, m.unit, m.scale, \
     c.quantity, c.event_time_ms, c.event_id, c.rule, c.rules_revision \
     FROM sluice_charges c JOIN sluice_sources s ON s.id = c.source_id JOIN sluice_meters m ON m.id = c.meter_id ";

pub async fn cursor(session: &mut Session, source: &Source) -> Result<Option<i64>, Error> {
    let transaction = session.snapshot().await?;
    let sql = "SELECT cursor FROM sluice_sources WHERE pipeline = $1 AND topic = $2 AND partition = $3";
    let row = transaction
        .query_opt(sql, &[&source.pipeline, &source.topic, &source.partition])
        .await?;
    transaction.commit().await?;
    row.map(|row| row.try_get(0)).transpose()
}

pub async fn usage(session: &mut Session, window: &Window) -> Result<Usage, Error> {
    let transaction = session.snapshot().await?;
    let key = MeterKey::of(&window.tenant, &window.meter).0;
    let sql = "SELECT id, unit, scale FROM sluice_meters WHERE key = $1";
    let Some(meter) = transaction.query_opt(sql, &[&key.as_slice()]).await? else {
        transaction.commit().await?;
        return Ok(Usage::default());
    };
    // sum(bigint) is a numeric, which this client can't read. The upper and the lower 32 bits apart (>> keeps the sign) fit a bigint
    // below 2^31 charges; above, the cast fails.
    let sql = "SELECT coalesce(sum(quantity >> 32), 0)::bigint, coalesce(sum(quantity & 4294967295), 0)::bigint, count(*) \
               FROM sluice_charges WHERE meter_id = $1 AND event_time_ms >= $2 AND event_time_ms < $3";
    let times = &window.event_time_ms;
    let row = transaction
        .query_one(sql, &[&meter.try_get::<_, i64>(0)?, &times.start, &times.end])
        .await?;
    transaction.commit().await?;
    let (upper, lower): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Usage {
        quantity: (i128::from(upper) << 32) + i128::from(lower),
        scale: unsigned(meter.try_get(2)?),
        unit: unescape(meter.try_get(1)?),
        charges: row.try_get::<_, i64>(2)?.cast_unsigned(),
    })
}

pub async fn entries(session: &mut Session, after: u64, filter: &Filter, entries_max: usize) -> Result<Page, Error> {
    let transaction = session.snapshot().await?;
    let newest: i64 = transaction
        .query_one("SELECT cursor FROM sluice_ledger", &[])
        .await?
        .try_get(0)?;
    let newest = newest.cast_unsigned();
    // Cursors have no gaps, so the page's end is known before it is read, and a filter that lets little through costs no more.
    let read_to = newest.min(after.saturating_add(entries_max as u64)).max(after);
    let sql = format!(
        "{CHARGE} WHERE c.cursor > $1 AND c.cursor <= $2 AND ($3 = '' OR m.tenant = $3) AND ($4 = '' OR m.meter = $4) \
         ORDER BY c.cursor"
    );
    // Past i64::MAX there is nothing; the service has refused such a cursor, since the newest can't be there.
    let bound = |cursor: u64| i64::try_from(cursor).unwrap_or(i64::MAX);
    let (tenant, meter) = (escape(&filter.tenant), escape(&filter.meter));
    let rows = transaction
        .query(&sql, &[&bound(after), &bound(read_to), &tenant, &meter])
        .await?;
    transaction.commit().await?;
    let entry = |row: &Row| {
        let cursor = row.try_get::<_, i64>(0)?.cast_unsigned();
        Ok(UsageEntry {
            cursor,
            charge: Some(charge(row)?),
        })
    };
    Ok(Page {
        entries: rows.iter().map(entry).collect::<Result<_, Error>>()?,
        read_to,
        newest,
    })
}

pub async fn charges(session: &mut Session, source: &Source, page: &ChargesPage) -> Result<Vec<Charge>, Error> {
    let transaction = session.snapshot().await?;
    let (offset, n) = page
        .after
        .map_or((page.offsets.start, -1), |(offset, n)| (offset, i64::from(n)));
    let sql = format!(
        "{CHARGE} WHERE s.pipeline = $1 AND s.topic = $2 AND s.partition = $3 \
         AND (c.source_offset, c.n) > ($4, $5) AND c.source_offset < $6 ORDER BY c.source_offset, c.n LIMIT $7"
    );
    let limit = i64::try_from(page.charges_max).unwrap_or(i64::MAX);
    let (
        Source {
            pipeline,
            topic,
            partition,
        },
        end,
    ) = (source, page.offsets.end);
    let rows = transaction
        .query(&sql, &[pipeline, topic, partition, &offset, &n, &end, &limit])
        .await?;
    transaction.commit().await?;
    rows.iter().map(charge).collect()
}

/// A `u32` that is kept in a bigint, because PostgreSQL has no unsigned types.
pub fn unsigned(held: i64) -> u32 {
    u32::try_from(held).unwrap_or(u32::MAX)
}

fn charge(row: &Row) -> Result<Charge, Error> {
    let source = Source {
        pipeline: String::new(),
        topic: row.try_get(1)?,
        partition: row.try_get(2)?,
    };
    let offset = row.try_get(3)?;
    Ok(Charge {
        id: id(&source, offset, unsigned(row.try_get(4)?)),
        tenant: unescape(row.try_get(5)?),
        meter: unescape(row.try_get(6)?),
        unit: unescape(row.try_get(7)?),
        scale: unsigned(row.try_get(8)?),
        quantity: row.try_get(9)?,
        event_time_ms: row.try_get(10)?,
        event_id: unescape(row.try_get(11)?),
        rule: unescape(row.try_get(12)?),
        rules_revision: row.try_get::<_, i64>(13)?.cast_unsigned(),
        offset,
    })
}
