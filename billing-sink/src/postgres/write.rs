//! The one task that writes.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use proto::delivery::v1::Outcome;
use tokio::sync::mpsc;
use tokio_postgres::{Error, Transaction};

use super::Asked;
use super::connect::{Connector, Session, lost_a_race, verdict};
use super::text::{escape, unescape};
use crate::check::{CheckedPart, MeterKey};
use crate::decide::{ChargeRow, Decided, Head, Held, MeterRow, RangeRow, SourceRow, decide};
use crate::ledger::{LedgerError, Moved, Source};

/// Deliveries that share one transaction, and with it one sync of the database's disk.
const DELIVERIES_TOGETHER_MAX: usize = 32;
/// Another writer can only win against the lock on the ledger's row by an administrator's doing; it doesn't happen often.
const RACES_MAX: u32 = 5;
/// Above the session's statement timeout: only a connection that has gone silent takes longer.
const TRANSACTION_MAX: Duration = Duration::from_secs(40);

type Answer = Result<Vec<Outcome>, LedgerError>;

/// Answers until every sender is gone. Then the channel is empty: what was accepted has been answered.
pub async fn run(mut session: Option<Session>, connector: Connector, mut asked: mpsc::Receiver<Asked>) {
    let mut together = Vec::with_capacity(DELIVERIES_TOGETHER_MAX);
    while asked.recv_many(&mut together, DELIVERIES_TOGETHER_MAX).await > 0 {
        let deliveries: Vec<Vec<CheckedPart>> = together
            .iter_mut()
            .map(|asked| std::mem::take(&mut asked.parts))
            .collect();
        let answers = answer(&mut session, &connector, deliveries).await;
        for (asked, answer) in together.drain(..).zip(answers) {
            // A caller who has stopped waiting delivers again and is told "already applied".
            asked.answer.send(answer).ok();
        }
    }
}

async fn answer(
    session: &mut Option<Session>,
    connector: &Connector,
    deliveries: Vec<Vec<CheckedPart>>,
) -> Vec<Answer> {
    match transact(session, connector, &deliveries).await {
        Ok(outcomes) => return outcomes.into_iter().map(Ok).collect(),
        // The database is away: asking it once for each would only take the callers' time.
        Err(error @ LedgerError::Unavailable(_)) => return deliveries.iter().map(|_| Err(error.clone())).collect(),
        Err(error) if deliveries.len() == 1 => return vec![Err(error)],
        Err(_) => {}
    }
    // One of them is what the database refuses; each alone, so that it takes no other with it.
    let mut answers = Vec::with_capacity(deliveries.len());
    for delivery in &deliveries {
        let outcomes = transact(session, connector, std::slice::from_ref(delivery)).await;
        answers.push(outcomes.map(|outcomes| outcomes.into_iter().next().unwrap_or_default()));
    }
    answers
}

/// Applies the deliveries in one transaction. After an error the connection is closed, which rolls back what is open, and the next
/// call makes a new one: nothing is concluded from a connection that has failed in the middle.
async fn transact(
    kept: &mut Option<Session>,
    connector: &Connector,
    deliveries: &[Vec<CheckedPart>],
) -> Result<Vec<Vec<Outcome>>, LedgerError> {
    let parts: Vec<CheckedPart> = deliveries.iter().flatten().cloned().collect();
    let mut races = 0;
    let outcomes = loop {
        let mut session = match kept.take().filter(Session::is_open) {
            Some(session) => session,
            None => connector.session().await?,
        };
        let applied = tokio::time::timeout(TRANSACTION_MAX, apply(&mut session, parts.clone())).await;
        match applied {
            Ok(Ok(outcomes)) => {
                *kept = Some(session);
                break outcomes;
            }
            Ok(Err(error)) if lost_a_race(&error) && races < RACES_MAX => races += 1,
            Ok(Err(error)) => return Err(verdict(&error)),
            Err(_) => {
                return Err(LedgerError::Unavailable(format!(
                    "no answer within {TRANSACTION_MAX:?}"
                )));
            }
        }
    };
    let mut outcomes = outcomes.into_iter();
    Ok(deliveries
        .iter()
        .map(|parts| outcomes.by_ref().take(parts.len()).collect())
        .collect())
}

async fn apply(session: &mut Session, parts: Vec<CheckedPart>) -> Result<Vec<Outcome>, Error> {
    let transaction = session.read_committed().await?;
    let held = held(&transaction, &parts).await?;
    let decided = decide(held, parts);
    write(&transaction, &decided).await?;
    transaction.commit().await?;
    Ok(decided.outcomes)
}

/// See [`crate::Ledger::move_cursor`].
pub async fn move_cursor(session: &mut Session, place: &Source, to: i64) -> Result<Moved, Error> {
    let transaction = session.read_committed().await?;
    // The lock comes before everything else: see the head of the module.
    let lock = "SELECT id FROM sluice_ledger FOR UPDATE";
    let newest: i64 = transaction.query_one(lock, &[]).await?.try_get(0)?;
    let Source {
        pipeline,
        topic,
        partition,
    } = place;
    let sql = "SELECT id, cursor FROM sluice_sources WHERE pipeline = $1 AND topic = $2 AND partition = $3";
    let was = match transaction.query_opt(sql, &[pipeline, topic, partition]).await? {
        Some(row) => {
            let (id, was): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
            let sql = "SELECT count(*) FROM sluice_charges WHERE source_id = $1 AND source_offset >= $2";
            let charged: i64 = transaction.query_one(sql, &[&id, &to]).await?.try_get(0)?;
            if charged > 0 {
                return Ok(Moved::Charged(charged.cast_unsigned()));
            }
            let sql = "UPDATE sluice_sources SET cursor = $2 WHERE id = $1";
            transaction.execute(sql, &[&id, &to]).await?;
            // Deliveries behind the cursor are new ones: nothing of what stood there is to be taken for a repetition.
            let sql = "DELETE FROM sluice_ranges WHERE source_id = $1 AND range_end > $2";
            transaction.execute(sql, &[&id, &to]).await?;
            Some(was)
        }
        None => {
            let id = newest + 1;
            transaction.execute("UPDATE sluice_ledger SET id = $1", &[&id]).await?;
            let sql = "INSERT INTO sluice_sources (id, pipeline, topic, partition, cursor, ranges) VALUES ($1, $2, $3, $4, $5, 0)";
            transaction
                .execute(sql, &[&id, pipeline, topic, partition, &to])
                .await?;
            None
        }
    };
    transaction.commit().await?;
    Ok(Moved::From(was))
}

async fn held(transaction: &Transaction<'_>, parts: &[CheckedPart]) -> Result<Held, Error> {
    // The lock comes before everything else: see the head of the module.
    let row = transaction
        .query_one("SELECT cursor, id FROM sluice_ledger FOR UPDATE", &[])
        .await?;
    let head = Head {
        cursor: row.try_get(0)?,
        id: row.try_get(1)?,
    };
    let sources = sources(transaction, parts).await?;
    let ranges = ranges(transaction, &sources, parts).await?;
    let meters = meters(transaction, parts).await?;
    Ok(Held {
        head,
        sources,
        ranges,
        meters,
    })
}

async fn sources(transaction: &Transaction<'_>, parts: &[CheckedPart]) -> Result<BTreeMap<Source, SourceRow>, Error> {
    let asked: BTreeSet<&Source> = parts.iter().map(|part| &part.source).collect();
    let pipelines: Vec<&str> = asked.iter().map(|source| source.pipeline.as_str()).collect();
    let topics: Vec<&str> = asked.iter().map(|source| source.topic.as_str()).collect();
    let partitions: Vec<i32> = asked.iter().map(|source| source.partition).collect();
    let sql = "SELECT id, pipeline, topic, partition, cursor, ranges FROM sluice_sources \
               JOIN unnest($1::text[], $2::text[], $3::int[]) AS asked (pipeline, topic, partition) \
               USING (pipeline, topic, partition)";
    let mut sources = BTreeMap::new();
    for row in transaction.query(sql, &[&pipelines, &topics, &partitions]).await? {
        let source = Source {
            pipeline: row.try_get(1)?,
            topic: row.try_get(2)?,
            partition: row.try_get(3)?,
        };
        let (id, cursor, ranges) = (row.try_get(0)?, row.try_get(4)?, row.try_get(5)?);
        sources.insert(
            source.clone(),
            SourceRow {
                id,
                source,
                cursor,
                ranges,
            },
        );
    }
    Ok(sources)
}

async fn ranges(
    transaction: &Transaction<'_>,
    sources: &BTreeMap<Source, SourceRow>,
    parts: &[CheckedPart],
) -> Result<HashMap<(i64, i64), RangeRow>, Error> {
    let earlier = parts.iter().filter_map(|part| {
        let source = sources.get(&part.source)?;
        (part.start < source.cursor).then_some((source.id, part.start))
    });
    let (ids, starts): (Vec<i64>, Vec<i64>) = earlier.collect::<BTreeSet<_>>().into_iter().unzip();
    if ids.is_empty() {
        return Ok(HashMap::new());
    }
    let sql = "SELECT source_id, range_start, range_end, number, digest, charges FROM sluice_ranges \
               JOIN unnest($1::bigint[], $2::bigint[]) AS asked (source_id, range_start) USING (source_id, range_start)";
    let mut ranges = HashMap::new();
    for row in transaction.query(sql, &[&ids, &starts]).await? {
        let (source_id, start, end, number) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get(3)?);
        // The table's CHECK admits no other length.
        let digest = row.try_get::<_, &[u8]>(4)?.try_into().unwrap_or_default();
        ranges.insert(
            (source_id, start),
            RangeRow {
                source_id,
                number,
                start,
                end,
                digest,
                charges: row.try_get(5)?,
            },
        );
    }
    Ok(ranges)
}

async fn meters(transaction: &Transaction<'_>, parts: &[CheckedPart]) -> Result<HashMap<MeterKey, MeterRow>, Error> {
    let asked: BTreeSet<MeterKey> = parts
        .iter()
        .flat_map(|part| &part.charges)
        .map(|charge| charge.key)
        .collect();
    if asked.is_empty() {
        return Ok(HashMap::new());
    }
    let by_bytes: HashMap<&[u8], MeterKey> = asked.iter().map(|key| (key.0.as_slice(), *key)).collect();
    let keys: Vec<&[u8]> = asked.iter().map(|key| key.0.as_slice()).collect();
    let sql = "SELECT key, id, tenant, meter, unit, scale FROM sluice_meters WHERE key = ANY($1)";
    let mut meters = HashMap::new();
    for row in transaction.query(sql, &[&keys]).await? {
        let Some(key) = by_bytes.get(row.try_get::<_, &[u8]>(0)?).copied() else {
            continue;
        };
        let (id, tenant, meter) = (row.try_get(1)?, unescape(row.try_get(2)?), unescape(row.try_get(3)?));
        let (unit, scale) = (unescape(row.try_get(4)?), super::read::unsigned(row.try_get(5)?));
        meters.insert(
            key,
            MeterRow {
                id,
                key,
                tenant,
                meter,
                unit,
                scale,
            },
        );
    }
    Ok(meters)
}

async fn write(transaction: &Transaction<'_>, decided: &Decided) -> Result<(), Error> {
    if decided.ranges.is_empty() {
        // Nothing was applied. The commit of a transaction that wrote nothing syncs nothing.
        return Ok(());
    }
    let Head { cursor, id } = decided.head;
    transaction
        .execute("UPDATE sluice_ledger SET cursor = $1, id = $2", &[&cursor, &id])
        .await?;
    let rows = &decided.sources;
    let sql = "INSERT INTO sluice_sources (id, pipeline, topic, partition, cursor, ranges) \
               SELECT * FROM unnest($1::bigint[], $2::text[], $3::text[], $4::int[], $5::bigint[], $6::bigint[]) \
               ON CONFLICT (id) DO UPDATE SET cursor = excluded.cursor, ranges = excluded.ranges";
    let pipelines = column(rows, |row| row.source.pipeline.as_str());
    let topics = column(rows, |row| row.source.topic.as_str());
    let (ids, partitions) = (column(rows, |row| row.id), column(rows, |row| row.source.partition));
    let (cursors, counts) = (column(rows, |row| row.cursor), column(rows, |row| row.ranges));
    transaction
        .execute(sql, &[&ids, &pipelines, &topics, &partitions, &cursors, &counts])
        .await?;

    let rows = &decided.ranges;
    let sql = "INSERT INTO sluice_ranges (source_id, range_start, range_end, number, digest, charges) \
               SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[])";
    let (ids, numbers) = (column(rows, |row| row.source_id), column(rows, |row| row.number));
    let (starts, ends) = (column(rows, |row| row.start), column(rows, |row| row.end));
    let (digests, counts) = (
        column(rows, |row| row.digest.as_slice()),
        column(rows, |row| row.charges),
    );
    transaction
        .execute(sql, &[&ids, &starts, &ends, &numbers, &digests, &counts])
        .await?;

    for (source_id, number) in &decided.forget {
        let sql = "DELETE FROM sluice_ranges WHERE source_id = $1 AND number <= $2";
        transaction.execute(sql, &[source_id, number]).await?;
    }
    write_meters(transaction, &decided.meters).await?;
    write_charges(transaction, &decided.charges).await
}

async fn write_meters(transaction: &Transaction<'_>, rows: &[MeterRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO sluice_meters (id, key, tenant, meter, unit, scale) \
               SELECT * FROM unnest($1::bigint[], $2::bytea[], $3::text[], $4::text[], $5::text[], $6::bigint[])";
    let (ids, keys) = (column(rows, |row| row.id), column(rows, |row| row.key.0.as_slice()));
    let (tenants, meters) = (
        column(rows, |row| escape(&row.tenant)),
        column(rows, |row| escape(&row.meter)),
    );
    let (units, scales) = (
        column(rows, |row| escape(&row.unit)),
        column(rows, |row| i64::from(row.scale)),
    );
    transaction
        .execute(sql, &[&ids, &keys, &tenants, &meters, &units, &scales])
        .await?;
    Ok(())
}

async fn write_charges(transaction: &Transaction<'_>, rows: &[ChargeRow]) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let sql = "INSERT INTO sluice_charges (cursor, source_id, source_offset, n, meter_id, quantity, event_time_ms, event_id, rule, \
               rules_revision) SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], \
               $6::bigint[], $7::bigint[], $8::text[], $9::text[], $10::bigint[])";
    let (cursors, sources) = (column(rows, |row| row.cursor), column(rows, |row| row.source_id));
    let offsets = column(rows, |row| row.charge.charge.offset);
    let numbers = column(rows, |row| i64::from(row.charge.n));
    let meters = column(rows, |row| row.meter_id);
    let quantities = column(rows, |row| row.charge.charge.quantity);
    let times = column(rows, |row| row.charge.charge.event_time_ms);
    let event_ids: Vec<Cow<'_, str>> = column(rows, |row| escape(&row.charge.charge.event_id));
    let rules = column(rows, |row| escape(&row.charge.charge.rule));
    let revisions = column(rows, |row| row.charge.charge.rules_revision.cast_signed());
    transaction
        .execute(
            sql,
            &[
                &cursors,
                &sources,
                &offsets,
                &numbers,
                &meters,
                &quantities,
                &times,
                &event_ids,
                &rules,
                &revisions,
            ],
        )
        .await?;
    Ok(())
}

fn column<'a, R, V>(rows: &'a [R], of: impl Fn(&'a R) -> V) -> Vec<V> {
    rows.iter().map(of).collect()
}
