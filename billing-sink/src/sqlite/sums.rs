//! What was charged by meter and minute: a few sums for each transaction, from which usage is answered, in place of an index of every
//! charge.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use rusqlite::{Transaction, params};

pub const MINUTE_MS: i64 = 60_000;
/// Charges of the ledger that share their sums: 2^20. It bounds what is read for a minute of which a window covers a part, for each
/// block in which the meter has charges of that minute: one or two, unless they come late.
const BLOCK_BITS: u32 = 20;

/// The sums of charges that are not in the table yet.
#[derive(Default)]
pub struct Sums(BTreeMap<Place, Sum>);

/// The key of a row: the table's order is this one's, so that rows are written from left to right.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    meter_id: i64,
    minute: i64,
    block: i64,
}

/// As the columns of `usage` are.
struct Sum {
    quantity_upper: i64,
    quantity_lower: i64,
    charges: i64,
    cursor_first: i64,
    cursor_last: i64,
}

impl Sums {
    /// Adds a charge; the cursors have to come in ascending order.
    pub fn add(&mut self, cursor: i64, meter_id: i64, quantity: i64, event_time_ms: i64) {
        let place = Place {
            meter_id,
            minute: minute(event_time_ms),
            block: block(cursor),
        };
        // >> keeps the sign, so that upper * 2^32 + lower is the quantity.
        let (upper, lower) = (quantity >> 32, quantity & i64::from(u32::MAX));
        match self.0.entry(place) {
            Entry::Vacant(entry) => {
                entry.insert(Sum {
                    quantity_upper: upper,
                    quantity_lower: lower,
                    charges: 1,
                    cursor_first: cursor,
                    cursor_last: cursor,
                });
            }
            Entry::Occupied(mut entry) => {
                let sum = entry.get_mut();
                sum.quantity_upper += upper;
                sum.quantity_lower += lower;
                sum.charges += 1;
                sum.cursor_last = cursor;
            }
        }
    }

    /// Adds the sums to the table, one row for each meter and minute.
    pub fn write(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let sql = "INSERT INTO usage (meter_id, minute, block, quantity_upper, quantity_lower, charges, cursor_first, cursor_last) \
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (meter_id, minute, block) DO UPDATE SET \
                   quantity_upper = quantity_upper + excluded.quantity_upper, \
                   quantity_lower = quantity_lower + excluded.quantity_lower, \
                   charges = charges + excluded.charges, cursor_last = excluded.cursor_last";
        let mut statement = transaction.prepare_cached(sql)?;
        for (place, sum) in &self.0 {
            statement.execute(params![
                place.meter_id,
                place.minute,
                place.block,
                sum.quantity_upper,
                sum.quantity_lower,
                sum.charges,
                sum.cursor_first,
                sum.cursor_last,
            ])?;
        }
        Ok(())
    }
}

/// Fills the empty table from the charges of a ledger that had none. One block is held in memory, not the ledger.
pub fn fill(transaction: &Transaction<'_>) -> rusqlite::Result<()> {
    let sql = "SELECT cursor, meter_id, quantity, event_time_ms FROM charges ORDER BY cursor";
    let mut statement = transaction.prepare(sql)?;
    let mut rows = statement.query([])?;
    let (mut sums, mut of_block) = (Sums::default(), 0);
    while let Some(row) = rows.next()? {
        let cursor = row.get(0)?;
        if block(cursor) != of_block {
            std::mem::take(&mut sums).write(transaction)?;
            of_block = block(cursor);
        }
        sums.add(cursor, row.get(1)?, row.get(2)?, row.get(3)?);
    }
    sums.write(transaction)
}

/// The minute of an event time; rounded down, before 1970 too.
pub fn minute(event_time_ms: i64) -> i64 {
    event_time_ms.div_euclid(MINUTE_MS)
}

fn block(cursor: i64) -> i64 {
    cursor >> BLOCK_BITS
}
