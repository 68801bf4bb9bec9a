//! What becomes of each part: outcome and rows to write, from what the store holds. Pure, and the same for every store.
//!
//! A store calls it inside a transaction that no other writer can interleave with, so that what it was told stays true until the
//! rows are written.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use proto::delivery::v1::Outcome;
use proto::delivery::v1::outcome::Kind;

use crate::check::{CheckedCharge, CheckedPart, MeterKey};
use crate::ledger::{NO_CURSOR, Source};

/// How many applied ranges are kept for each partition. A sender that obeys repeats only its newest one; a range that is too old
/// to be known is a conflict, not "already applied", because nothing shows that it held the same charges.
pub const RANGES_KEPT: i64 = 1_000;
/// Old ranges are removed so many at a time, so that most deliveries remove nothing.
pub const RANGES_REMOVED_AT_ONCE: i64 = 250;

/// What the store held before the parts.
#[derive(Clone, Debug, Default)]
pub struct Held {
    pub head: Head,
    pub sources: BTreeMap<Source, SourceRow>,
    /// The applied ranges that start where a part starts, by source id and start.
    pub ranges: HashMap<(i64, i64), RangeRow>,
    pub meters: HashMap<MeterKey, MeterRow>,
}

/// The one row that every writer locks: counters from which the next rows are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The cursor of the newest charge; 0 = none.
    pub cursor: i64,
    /// The newest id of a source or a meter; 0 = none.
    pub id: i64,
}

/// A partition with its cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceRow {
    pub id: i64,
    pub source: Source,
    pub cursor: i64,
    /// How many ranges were ever applied.
    pub ranges: i64,
}

/// A range that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRow {
    pub source_id: i64,
    /// Counts the ranges of a source from 1.
    pub number: i64,
    pub start: i64,
    pub end: i64,
    pub digest: [u8; 16],
    pub charges: i64,
}

/// A tenant's meter with its pinned unit and scale.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeterRow {
    pub id: i64,
    pub key: MeterKey,
    pub tenant: String,
    pub meter: String,
    pub unit: String,
    pub scale: u32,
}

/// A charge in its place in the ledger.
#[derive(Clone, Debug, PartialEq)]
pub struct ChargeRow {
    pub cursor: i64,
    pub source_id: i64,
    pub meter_id: i64,
    pub charge: Arc<CheckedCharge>,
}

/// The outcomes, and what has to be written for them in the same transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decided {
    pub outcomes: Vec<Outcome>,
    pub head: Head,
    /// Sources as they are afterwards; insert or replace by id.
    pub sources: Vec<SourceRow>,
    pub ranges: Vec<RangeRow>,
    pub meters: Vec<MeterRow>,
    pub charges: Vec<ChargeRow>,
    /// Ranges of this source id up to this number are to be removed.
    pub forget: Vec<(i64, i64)>,
}

/// Decides part after part; each sees what those before it did.
pub fn decide(mut held: Held, parts: Vec<CheckedPart>) -> Decided {
    let mut decided = Decided::default();
    let mut touched = BTreeMap::new();
    for part in parts {
        let outcome = match judge(&held, &part) {
            Ok(()) => {
                let source = apply(&mut held, &mut decided, part);
                let outcome = Outcome {
                    kind: Kind::Applied.into(),
                    cursor: source.cursor,
                    reason: String::new(),
                };
                touched.insert(source.id, source);
                outcome
            }
            Err((kind, reason)) => {
                let cursor = held.sources.get(&part.source).map_or(NO_CURSOR, |source| source.cursor);
                Outcome {
                    kind: kind.into(),
                    cursor,
                    reason,
                }
            }
        };
        decided.outcomes.push(outcome);
    }
    decided.head = held.head;
    decided.sources = touched.into_values().collect();
    decided
}

/// `Ok` when the part continues its partition and fits its meters.
fn judge(held: &Held, part: &CheckedPart) -> Result<(), (Kind, String)> {
    let (start, end) = (part.start, part.end);
    let Some(source) = held.sources.get(&part.source) else {
        if part.first {
            return units(held, part);
        }
        return Err((
            Kind::Gap,
            format!(
                "nothing was ever applied of this partition, and [{start}, {end}) is not said to be its first range"
            ),
        ));
    };
    let cursor = source.cursor;
    if start == cursor {
        return units(held, part);
    }
    if start > cursor {
        return Err((Kind::Gap, format!("[{start}, {end}) starts after the cursor {cursor}")));
    }
    let Some(known) = held.ranges.get(&(source.id, start)) else {
        return Err((
            Kind::Conflict,
            format!(
                "[{start}, {end}) overlaps what was applied up to {cursor}, and is none of the {RANGES_KEPT} newest ranges"
            ),
        ));
    };
    if known.end != end {
        return Err((
            Kind::Conflict,
            format!("[{start}, {end}) was applied as [{start}, {})", known.end),
        ));
    }
    // The count is a second witness: a sender whose digest doesn't cover everything is caught at the coarsest lie.
    if known.digest != part.digest || known.charges != length(&part.charges) {
        return Err((
            Kind::Conflict,
            format!(
                "[{start}, {end}) was applied with {} charges and digest {}, and comes now with {} and {}",
                known.charges,
                hex(&known.digest),
                part.charges.len(),
                hex(&part.digest)
            ),
        ));
    }
    Err((Kind::AlreadyApplied, String::new()))
}

/// The first charge of a meter pins its unit and scale: a sum over two units would be a number without a meaning.
fn units(held: &Held, part: &CheckedPart) -> Result<(), (Kind, String)> {
    let mut pinned: HashMap<MeterKey, (&str, u32)> = HashMap::new();
    for CheckedCharge { key, charge, .. } in part.charges.iter().map(Arc::as_ref) {
        let (unit, scale) = *pinned.entry(*key).or_insert_with(|| match held.meters.get(key) {
            Some(meter) => (&meter.unit, meter.scale),
            None => (&charge.unit, charge.scale),
        });
        if (unit, scale) != (&charge.unit, charge.scale) {
            return Err((
                Kind::Conflict,
                format!(
                    "charge {} of tenant \"{}\" is in \"{}\" with scale {}, but meter \"{}\" counts in \"{unit}\" with scale {scale}",
                    charge.id, charge.tenant, charge.unit, charge.scale, charge.meter
                ),
            ));
        }
    }
    Ok(())
}

fn apply(held: &mut Held, decided: &mut Decided, part: CheckedPart) -> SourceRow {
    let Held {
        head,
        sources,
        ranges,
        meters,
    } = held;
    let CheckedPart {
        source,
        start,
        end,
        digest,
        charges,
        ..
    } = part;
    let row = sources.entry(source.clone()).or_insert_with(|| {
        head.id += 1;
        SourceRow {
            id: head.id,
            source,
            cursor: start,
            ranges: 0,
        }
    });
    row.cursor = end;
    row.ranges += 1;
    let source_id = row.id;
    let range = RangeRow {
        source_id,
        number: row.ranges,
        start,
        end,
        digest,
        charges: length(&charges),
    };
    ranges.insert((source_id, start), range.clone());
    decided.ranges.push(range);
    if row.ranges > RANGES_KEPT && row.ranges % RANGES_REMOVED_AT_ONCE == 0 {
        decided.forget.push((source_id, row.ranges - RANGES_KEPT));
    }
    for charge in charges {
        let meter = meters.entry(charge.key).or_insert_with(|| {
            head.id += 1;
            let CheckedCharge { key, charge, .. } = charge.as_ref();
            let (tenant, meter, unit) = (charge.tenant.clone(), charge.meter.clone(), charge.unit.clone());
            let row = MeterRow {
                id: head.id,
                key: *key,
                tenant,
                meter,
                unit,
                scale: charge.scale,
            };
            decided.meters.push(row.clone());
            row
        });
        head.cursor += 1;
        decided.charges.push(ChargeRow {
            cursor: head.cursor,
            source_id,
            meter_id: meter.id,
            charge,
        });
    }
    row.clone()
}

fn length(charges: &[Arc<CheckedCharge>]) -> i64 {
    i64::try_from(charges.len()).unwrap_or(i64::MAX)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[path = "decide_tests.rs"]
mod tests;
