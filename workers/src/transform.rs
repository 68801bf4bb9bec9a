//! The pure middle: a collected batch and a rules revision go in; rows, alerts, charges and dead letters come out, with
//! one digest for each range. No clock, no Kafka, no `await`: the same input gives the same bytes for ever.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType};
use arrow::error::ArrowError;
use crash_points::{Mutation, mutated};
use exactly_once_kafka::Pair;
use exactly_once_protocol::{Partition, RangeOutput};
use proto::delivery::v1::Charge;
use rules::Revision;
use thiserror::Error;

use crate::charges::Charges;
use crate::collect::{Collected, Dead, Position, Refusal, SourceRows, Stage};
use crate::digest::{Digests, Output};
use crate::model::Model;
use crate::records;

/// The same batch twice would fail twice: these are faults of the program or the machine, never of an event.
#[derive(Debug, Error)]
pub enum TransformError {
    /// An Arrow kernel refused columns that fit each other.
    #[error("columns: {0}")]
    Columns(#[from] ArrowError),
    /// Rows could not be hashed or ordered.
    #[error("rows: {0}")]
    Rows(#[from] clickhouse_sink::Error),
}

/// Where each row of a batch came from.
#[derive(Debug, Default)]
pub struct Positions {
    /// Kafka's partition.
    pub partition: Vec<i32>,
    /// Kafka's offset.
    pub offset: Vec<i64>,
}

/// Rows of one source for one table.
#[derive(Debug, Clone)]
pub struct TableRows {
    /// Index of the table in the pipeline.
    pub table: usize,
    /// Index of the source.
    pub source: usize,
    /// Columns of these rows and, where most rows go to the table, of the others of the source, too.
    pub batch: RecordBatch,
    /// Which rows of the batch the table gets, ascending; what is said of the others has no meaning.
    pub rows: Vec<u32>,
    /// Columns that the table stores as `LowCardinality`.
    pub low_cardinality: Arc<Vec<String>>,
    /// Where each row of the batch came from.
    pub positions: Arc<Positions>,
    /// Position of the table among the event's routes, for each row of the batch.
    pub index: Vec<u16>,
    /// Content hash of each row of the batch.
    pub row_hash: Arc<Vec<u64>>,
}

/// Everything that a batch delivers.
#[derive(Debug, Default)]
pub struct Outputs {
    /// By table and source; empty once they are on their way into blocks.
    pub tables: Vec<TableRows>,
    /// How many rows of a partition go to a table, by its index.
    pub rows: BTreeMap<(Partition, usize), u64>,
    /// For the alert topic.
    pub alerts: Arc<Vec<Pair>>,
    /// For gRPC sinks, in log order.
    pub charges: BTreeMap<Partition, Charges>,
    /// For dead-letter topics.
    pub dead: Vec<Dead>,
    /// Events that a rule dropped.
    pub dropped: u64,
    /// Ranges with their digests.
    pub ranges: Vec<RangeOutput>,
    /// Records read.
    pub records: u64,
    /// Rules revision number and digest.
    pub rules: (u64, u64),
}

impl Outputs {
    /// Bytes of what is left when the rows are gone: alerts, charges, dead letters.
    pub(crate) fn kept(&self) -> usize {
        let alerts = self.alerts.iter().map(|alert| alert.key.len() + alert.value.len());
        let charges = self.charges.values().map(|charges| charges.written().len());
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let dead = self
            .dead
            .iter()
            .map(|letter| length(&letter.raw.key) + length(&letter.raw.value));
        alerts.chain(charges).chain(dead).sum()
    }
}

/// Decode was done while collecting; what is left, in order: envelope, rules, route, digest.
pub fn transform(model: &Model, revision: &Revision, collected: Collected) -> Result<Outputs, TransformError> {
    let Collected {
        sources,
        dead,
        ranges,
        unknown_schemas,
    } = collected;
    let records = dead.len() + sources.iter().map(|(_, rows)| rows.positions.len()).sum::<usize>();
    let mut outputs = Outputs {
        dead,
        records: records as u64,
        rules: (revision.number, revision.digest),
        ..Outputs::default()
    };
    let mut digests = Digests::default();
    for (source, rows) in sources {
        let sound = envelope(model, source, rows, &mut outputs.dead)?;
        apply(model, revision, source, &sound, &mut outputs, &mut digests)?;
    }
    for letter in &mut outputs.dead {
        digests.push(
            letter.partition,
            letter.offset,
            Output::Dead,
            0,
            records::dead_hash(letter),
        );
    }
    let digested = digests.by_range(&ranges);
    let summed = summed(model, &outputs);
    outputs.ranges = ranges
        .into_iter()
        .zip(digested)
        .map(|(range, (digest, count))| RangeOutput {
            range,
            outputs: count,
            digest: digest ^ impurity(),
            unknown_schemas: unknown_schemas
                .get(&range.partition)
                .map(|ids| ids.iter().copied().collect())
                .unwrap_or_default(),
            summed: summed.contains(&range.partition),
        })
        .collect();
    Ok(outputs)
}

/// Partitions with rows that belong into a rollup.
fn summed(model: &Model, outputs: &Outputs) -> BTreeSet<Partition> {
    let feeds = |table: usize| {
        let name = &model.pipeline.tables[table].name;
        model.feeds.iter().any(|feed| feed.from == *name)
    };
    let fed = outputs.rows.keys().filter(|(_, table)| feeds(*table));
    fed.map(|(partition, _)| *partition).collect()
}

struct Sound {
    batch: RecordBatch,
    /// Rows of `rows` that the batch still holds, in order.
    kept: Vec<usize>,
    rows: SourceRows,
}

impl Sound {
    fn position(&self, row: usize) -> Position {
        self.rows.positions[self.kept[row]]
    }
}

/// Refuses events without an id or a tenant, and times outside the accepted span around the record's own timestamp.
fn envelope(model: &Model, source: usize, rows: SourceRows, dead: &mut Vec<Dead>) -> Result<Sound, TransformError> {
    let fields = model.envelopes[source];
    let event = &model.pipeline.sources[source].event;
    let past = i64::try_from(event.accept_past.as_millis()).unwrap_or(i64::MAX);
    let future = i64::try_from(event.accept_future.as_millis()).unwrap_or(i64::MAX);
    let ids = rows.batch.column(fields.id).as_string::<i32>().clone();
    let tenants = rows.batch.column(fields.tenant).as_string::<i32>().clone();
    let times = times_ms(rows.batch.column(fields.time));
    let mut kept = Vec::with_capacity(rows.positions.len());
    for (row, position) in rows.positions.iter().enumerate() {
        let tenant = if tenants.is_null(row) { "" } else { tenants.value(row) };
        let fault = if ids.is_null(row) || ids.value(row).is_empty() {
            Some(("no_event_id", event.id.as_str(), "the event has no id".to_string()))
        } else if tenant.is_empty() {
            Some((
                "no_tenant",
                event.tenant.as_str(),
                "the event has no tenant".to_string(),
            ))
        } else {
            time_fault(times[row], position.timestamp_ms, past, future)
                .map(|reason| ("time_out_of_range", event.time.as_str(), reason))
        };
        match fault {
            None => kept.push(row),
            Some((code, field, reason)) => {
                let refusal = Refusal {
                    stage: Stage::Event,
                    code: code.into(),
                    reason,
                    field: field.into(),
                    attempts: 1,
                    schema_id: Some(position.schema_id),
                    tenant: tenant.into(),
                };
                dead.push(letter(&rows, row, refusal));
            }
        }
    }
    let batch = if kept.len() == rows.positions.len() {
        rows.batch.clone()
    } else {
        let mut mask = vec![false; rows.positions.len()];
        kept.iter().for_each(|row| mask[*row] = true);
        filter_record_batch(&rows.batch, &BooleanArray::from(mask))?
    };
    Ok(Sound { batch, kept, rows })
}

fn time_fault(time: Option<i64>, record: i64, past: i64, future: i64) -> Option<String> {
    let Some(time) = time else {
        return Some("the event has no time".into());
    };
    if time < record.saturating_sub(past) || time > record.saturating_add(future) {
        let at = records::rfc3339(time);
        return Some(format!(
            "{at} is outside the accepted span around the record's time {}",
            records::rfc3339(record)
        ));
    }
    None
}

/// Event times in Unix milliseconds; a plain long is taken as milliseconds.
fn times_ms(column: &dyn Array) -> Vec<Option<i64>> {
    match column.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            column.as_primitive::<TimestampMillisecondType>().iter().collect()
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => column
            .as_primitive::<TimestampMicrosecondType>()
            .iter()
            .map(|time| time.map(|time| time.div_euclid(1000)))
            .collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().iter().collect(),
        _ => vec![None; column.len()],
    }
}

fn letter(rows: &SourceRows, row: usize, refusal: Refusal) -> Dead {
    let Position {
        partition,
        offset,
        timestamp_ms,
        ..
    } = rows.positions[row];
    Dead {
        partition,
        offset,
        timestamp_ms,
        raw: rows.raw(row),
        refusal,
    }
}

fn apply(
    model: &Model,
    revision: &Revision,
    source: usize,
    sound: &Sound,
    outputs: &mut Outputs,
    digests: &mut Digests,
) -> Result<(), TransformError> {
    if sound.kept.is_empty() {
        return Ok(());
    }
    let applied = revision.apply(source, &sound.batch);
    outputs.dropped += applied.dropped.len() as u64;
    let fields = model.envelopes[source];
    let tenants = sound.batch.column(fields.tenant).as_string::<i32>();
    for failure in &applied.failures {
        let row = failure.row as usize;
        let refusal = Refusal {
            stage: Stage::Rules,
            code: failure.code.as_str().into(),
            reason: format!("rule `{}`: {}", failure.rule, failure.reason),
            field: failure.field.clone().unwrap_or_default(),
            attempts: 1,
            schema_id: Some(sound.position(row).schema_id),
            tenant: tenants.value(row).into(),
        };
        outputs.dead.push(letter(&sound.rows, sound.kept[row], refusal));
    }
    let context = records::Context {
        source: &model.pipeline.sources[source],
        ids: sound.batch.column(fields.id).as_string::<i32>(),
        tenants,
        times: times_ms(sound.batch.column(fields.time)),
        revision: revision.number,
    };
    if model.pipeline.sinks.alerts.is_some() {
        let mut ordinal = Ordinal::default();
        // Nobody else has them yet.
        let alerts = Arc::make_mut(&mut outputs.alerts);
        alerts.reserve(applied.alerts.len());
        for alert in &applied.alerts {
            let position = sound.position(alert.row as usize);
            let n = ordinal.next(alert.row);
            let record = context.alert(position, n, alert);
            digests.push(
                position.partition,
                position.offset,
                Output::Alert,
                n,
                records::alert_hash(&record),
            );
            alerts.push(record);
        }
    }
    let mut ordinal = Ordinal::default();
    let mut made = Charge::default();
    for charge in &applied.charges {
        let position = sound.position(charge.row as usize);
        let n = ordinal.next(charge.row);
        context.charge(position, n, charge, &mut made);
        let hash = outputs.charges.entry(position.partition).or_default().push(&made);
        digests.push(position.partition, position.offset, Output::Charge, n, hash);
    }
    route(model, source, sound, &applied, outputs, digests)
}

/// Counts outputs of the same row; rows come in ascending order.
#[derive(Default)]
struct Ordinal {
    last: Option<(u32, u16)>,
}

impl Ordinal {
    fn next(&mut self, row: u32) -> u16 {
        let n = match self.last {
            Some((last, n)) if last == row => n.saturating_add(1),
            _ => 0,
        };
        self.last = Some((row, n));
        n
    }
}

/// Nothing, but in a worker that a test has told that its rules are not pure.
fn impurity() -> u128 {
    match mutated(Mutation::ImpureRules) {
        true => u128::from(std::process::id()),
        false => 0,
    }
}

fn route(
    model: &Model,
    source: usize,
    sound: &Sound,
    applied: &rules::Applied,
    outputs: &mut Outputs,
    digests: &mut Digests,
) -> Result<(), TransformError> {
    let routes: Vec<_> = applied
        .routes
        .iter()
        .filter(|route| !route.rows.is_empty())
        .filter_map(|route| Some((model.table(&route.table)?, &route.rows)))
        .collect();
    // A table that gets most of the rows names them; for one that gets a few, they are copied.
    let named = |own: &[u32]| own.len() * 2 >= sound.kept.len();
    // Of all rows once, or, where most of them go nowhere, of each table's own.
    let written: usize = routes.iter().map(|(_, rows)| rows.len()).sum();
    let hashes_of_all = match written >= sound.kept.len() || routes.iter().any(|(_, own)| named(own)) {
        true => Some(Arc::new(clickhouse_sink::row_hashes(&applied.batch)?)),
        false => None,
    };
    let positions_of = |rows: &mut dyn Iterator<Item = usize>| {
        let mut positions = Positions::default();
        for position in rows.map(|row| sound.position(row)) {
            positions.partition.push(position.partition.partition);
            positions.offset.push(position.offset);
        }
        Arc::new(positions)
    };
    let mut positions_of_all = None;
    // How many tables a row went to already: its `_index` in the next one.
    let mut routed = vec![0u16; sound.kept.len()];
    for (table, own) in routes {
        let rows = match &hashes_of_all {
            Some(hashes) if named(own) => {
                let all = &mut (0..sound.kept.len());
                TableRows {
                    table,
                    source,
                    batch: applied.batch.clone(),
                    rows: own.clone(),
                    low_cardinality: Arc::clone(&model.low_cardinality[table]),
                    positions: Arc::clone(positions_of_all.get_or_insert_with(|| positions_of(all))),
                    index: routed.clone(),
                    row_hash: Arc::clone(hashes),
                }
            }
            _ => {
                let batch = take_record_batch(&applied.batch, &UInt32Array::from(own.clone()))?;
                let hashes = match &hashes_of_all {
                    Some(all) => own.iter().map(|row| all[*row as usize]).collect(),
                    None => clickhouse_sink::row_hashes(&batch)?,
                };
                TableRows {
                    table,
                    source,
                    batch,
                    rows: (0..).take(own.len()).collect(),
                    low_cardinality: Arc::clone(&model.low_cardinality[table]),
                    positions: positions_of(&mut own.iter().map(|row| *row as usize)),
                    index: own.iter().map(|row| routed[*row as usize]).collect(),
                    row_hash: Arc::new(hashes),
                }
            }
        };
        let salt = (table as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        // Rows of a partition come one after the other, mostly: counted in runs.
        let mut run: Option<(Partition, u64)> = None;
        for (row, at) in own.iter().zip(&rows.rows) {
            let position = sound.position(*row as usize);
            let index = &mut routed[*row as usize];
            let content = rows.row_hash[*at as usize] ^ salt;
            digests.push(position.partition, position.offset, Output::Row, *index, content);
            *index = index.saturating_add(1);
            match &mut run {
                Some((of, count)) if *of == position.partition => *count += 1,
                _ => {
                    if let Some((of, count)) = run.replace((position.partition, 1)) {
                        *outputs.rows.entry((of, table)).or_default() += count;
                    }
                }
            }
        }
        if let Some((of, count)) = run {
            *outputs.rows.entry((of, table)).or_default() += count;
        }
        outputs.tables.push(rows);
    }
    Ok(())
}
