//! Collects records into columns until the batch closes. What cannot be decoded becomes a dead letter on the spot,
//! with its raw bytes; everything else keeps its raw bytes beside the columns until the rules have seen it.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;
use exactly_once_protocol::{Partition, Range};

use crate::decode::{Columns, renew};
use crate::model::Model;

/// Where a row came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The partition.
    pub partition: Partition,
    /// Offset of the record.
    pub offset: i64,
    /// Kafka's timestamp of the record, Unix milliseconds: the "now" of every rule about time.
    pub timestamp_ms: i64,
    /// Id of the writer's schema.
    pub schema_id: u32,
}

/// Headers in order; a name may appear twice, a value may be missing.
pub type Headers = Vec<(String, Option<Vec<u8>>)>;

/// Key, value and headers as they stood in the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Raw {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers.
    pub headers: Headers,
}

/// Which step refused an event. Stable names in `sluice-stage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// No schema id.
    Frame,
    /// The registry does not know the id, or the schema does not fit the table.
    Schema,
    /// Broken Avro.
    Decode,
    /// The event breaks a rule of the pipeline: no tenant, a time out of range, too large.
    Event,
    /// A tenant's rule failed on it.
    Rules,
}

impl Stage {
    /// Stable name for the dead letter's `sluice-stage`.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Frame => "frame",
            Stage::Schema => "schema",
            Stage::Decode => "decode",
            Stage::Event => "event",
            Stage::Rules => "rules",
        }
    }
}

/// Why an event became a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The step.
    pub stage: Stage,
    /// Stable, snake_case.
    pub code: String,
    /// One sentence for people.
    pub reason: String,
    /// Dotted Avro path, empty if no field is to blame.
    pub field: String,
    /// How often it was tried.
    pub attempts: u32,
    /// Schema id, where it was known.
    pub schema_id: Option<u32>,
    /// Tenant, where it was known.
    pub tenant: String,
}

/// An event that no retry can help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dead {
    /// The partition.
    pub partition: Partition,
    /// Offset of the record.
    pub offset: i64,
    /// Kafka's timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
    /// As it stood in the log.
    pub raw: Raw,
    /// Why.
    pub refusal: Refusal,
}

/// Key and value of many records in one buffer: one copy each, no allocation each.
#[derive(Debug, Default)]
struct Arena {
    bytes: Vec<u8>,
    /// End of key and end of value for each row; `None` marks a missing one.
    spans: Vec<(Option<u32>, Option<u32>)>,
    headers: BTreeMap<usize, Headers>,
}

impl Arena {
    fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: Headers) {
        let mut span = |part: Option<&[u8]>| {
            part.map(|part| {
                self.bytes.extend_from_slice(part);
                u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
            })
        };
        let span = (span(key), span(value));
        if !headers.is_empty() {
            self.headers.insert(self.spans.len(), headers);
        }
        self.spans.push(span);
    }

    /// Takes the records and leaves room for as many.
    fn renew(&mut self) -> Arena {
        Arena {
            bytes: renew(&mut self.bytes),
            spans: renew(&mut self.spans),
            headers: std::mem::take(&mut self.headers),
        }
    }

    fn get(&self, row: usize) -> Raw {
        let end = |row: usize| {
            self.spans[..row]
                .iter()
                .rev()
                .find_map(|(key, value)| value.or(*key))
                .unwrap_or(0) as usize
        };
        let start = end(row);
        let (key, value) = self.spans[row];
        let key_end = key.map_or(start, |end| end as usize);
        Raw {
            key: key.map(|end| self.bytes[start..end as usize].to_vec()),
            value: value.map(|end| self.bytes[key_end..end as usize].to_vec()),
            headers: self.headers.get(&row).cloned().unwrap_or_default(),
        }
    }
}

/// Rows of one source: columns, where each came from, and the raw records.
pub struct SourceRows {
    /// The decoded columns.
    pub batch: RecordBatch,
    /// One for each row.
    pub positions: Vec<Position>,
    raw: Arena,
}

impl SourceRows {
    /// The record behind a row.
    pub fn raw(&self, row: usize) -> Raw {
        self.raw.get(row)
    }
}

/// A closed batch before the rules: what the pure middle works on.
pub struct Collected {
    /// By source index.
    pub sources: Vec<(usize, SourceRows)>,
    /// What could not be decoded.
    pub dead: Vec<Dead>,
    /// Offsets that the batch covers, by partition.
    pub ranges: Vec<Range>,
    /// Schema ids held to be unknown, by partition, ascending.
    pub unknown_schemas: BTreeMap<Partition, BTreeSet<u32>>,
}

/// Rows of one source that grow. What was allocated for one batch is room for the next.
struct Filling {
    /// Of the model whose shape the columns have.
    version: u64,
    columns: Columns,
    positions: Vec<Position>,
    raw: Arena,
}

impl Filling {
    fn new(model: &Model, source: usize) -> Filling {
        Filling {
            version: model.version,
            columns: Columns::new(&model.shapes[source]),
            positions: Vec::new(),
            raw: Arena::default(),
        }
    }
}

/// What a batch covers of one partition.
#[derive(Clone, Copy)]
struct Covered {
    start: i64,
    end: i64,
    records: usize,
}

/// Collects one batch. Bounded by its owner, which looks at [`Collector::records`] and [`Collector::bytes`].
#[derive(Default)]
pub struct Collector {
    /// By source index; those that had rows.
    sources: Vec<Option<Filling>>,
    dead: Vec<Dead>,
    dead_bytes: usize,
    covered: BTreeMap<Partition, Covered>,
    unknown_schemas: BTreeMap<Partition, BTreeSet<u32>>,
    records: usize,
}

/// One record as it comes from the log, borrowed.
pub struct Record<'a> {
    /// Where it stood.
    pub position: Position,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value with the schema prefix.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers,
}

impl Collector {
    /// Says that the batch covers `offset` of `partition`; `start` is where its range begins if this is the first.
    pub fn cover(&mut self, partition: Partition, start: i64, offset: i64) {
        let covered = self.covered.entry(partition).or_insert(Covered {
            start,
            end: offset,
            records: 0,
        });
        covered.end = offset + 1;
        covered.records += 1;
        self.records += 1;
    }

    /// The columns of a source: decode into them, then call [`Collector::row`] if that succeeded.
    pub fn columns(&mut self, model: &Model, source: usize) -> &mut Columns {
        &mut self.filling(model, source).columns
    }

    /// The record whose bytes were just decoded.
    pub fn row(&mut self, model: &Model, source: usize, record: Record<'_>) {
        let filling = self.filling(model, source);
        filling.positions.push(record.position);
        filling.raw.push(record.key, record.value, record.headers);
    }

    fn filling(&mut self, model: &Model, source: usize) -> &mut Filling {
        if source >= self.sources.len() {
            self.sources.resize_with(source + 1, || None);
        }
        let filling = self.sources[source].get_or_insert_with(|| Filling::new(model, source));
        if filling.version != model.version && filling.positions.is_empty() {
            *filling = Filling::new(model, source);
        }
        filling
    }

    /// A record that could not be decoded.
    pub fn dead(&mut self, record: Record<'_>, refusal: Refusal) {
        let raw = Raw {
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record.headers,
        };
        self.dead_bytes += raw.key.as_ref().map_or(0, Vec::len) + raw.value.as_ref().map_or(0, Vec::len) + 256;
        let Position {
            partition,
            offset,
            timestamp_ms,
            ..
        } = record.position;
        self.dead.push(Dead {
            partition,
            offset,
            timestamp_ms,
            raw,
            refusal,
        });
    }

    /// Notes that the registry does not know this id, so that the promise can pin it.
    pub fn unknown_schema(&mut self, partition: Partition, id: u32) {
        self.unknown_schemas.entry(partition).or_default().insert(id);
    }

    /// Whether that was noted of this id in the batch.
    pub fn is_unknown(&self, partition: Partition, id: u32) -> bool {
        self.unknown_schemas
            .get(&partition)
            .is_some_and(|ids| ids.contains(&id))
    }

    /// How many ids of the batch the registry does not know, for each partition that has some.
    pub fn unknown_counts(&self) -> impl Iterator<Item = usize> {
        self.unknown_schemas.values().map(BTreeSet::len)
    }

    /// The same of one partition.
    pub fn unknown_count(&self, partition: Partition) -> usize {
        self.unknown_schemas.get(&partition).map_or(0, BTreeSet::len)
    }

    /// Records in the batch, dead letters included.
    pub fn records(&self) -> usize {
        self.records
    }

    /// Records of one partition in the batch.
    pub fn held(&self, partition: Partition) -> usize {
        self.covered.get(&partition).map_or(0, |covered| covered.records)
    }

    /// Memory that the batch holds, about.
    pub fn bytes(&self) -> usize {
        let rows: usize = self
            .sources
            .iter()
            .flatten()
            .map(|f| f.columns.bytes() + f.raw.bytes.len() + f.positions.len() * 48)
            .sum();
        rows + self.dead_bytes
    }

    /// Offsets covered so far, by partition.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.covered.iter().map(|(partition, covered)| Range {
            partition: *partition,
            start: covered.start,
            end: covered.end,
        })
    }

    /// Ends the batch and leaves an empty collector behind, with room for another of its size.
    pub fn close(&mut self) -> Result<Collected, arrow::error::ArrowError> {
        let ranges = self.ranges().collect();
        let mut sources = Vec::with_capacity(self.sources.len());
        for (source, slot) in self.sources.iter_mut().enumerate() {
            let Some(filling) = slot.as_mut().filter(|filling| !filling.positions.is_empty()) else {
                // A source that has gone quiet does not keep what it had.
                *slot = None;
                continue;
            };
            let batch = filling.columns.finish()?;
            let (positions, raw) = (renew(&mut filling.positions), filling.raw.renew());
            sources.push((source, SourceRows { batch, positions, raw }));
        }
        let left = Collector {
            sources: std::mem::take(&mut self.sources),
            ..Collector::default()
        };
        let taken = std::mem::replace(self, left);
        Ok(Collected {
            sources,
            dead: taken.dead,
            ranges,
            unknown_schemas: taken.unknown_schemas,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arena_gives_back_every_record_as_it_was() {
        let records: [(Option<&[u8]>, Option<&[u8]>); 6] = [
            (Some(b"k1"), Some(b"value")),
            (None, Some(b"v")),
            (Some(b"only key"), None),
            (None, None),
            (Some(b""), Some(b"")),
            (Some(b"k"), Some(b"last")),
        ];
        let mut arena = Arena::default();
        for (row, (key, value)) in records.iter().enumerate() {
            let headers = if row == 3 {
                vec![("h".to_string(), Some(vec![1u8]))]
            } else {
                Vec::new()
            };
            arena.push(*key, *value, headers);
        }
        for (row, (key, value)) in records.iter().enumerate() {
            let raw = arena.get(row);
            assert_eq!((raw.key.as_deref(), raw.value.as_deref()), (*key, *value), "row {row}");
            assert_eq!(raw.headers.len(), usize::from(row == 3));
        }
    }
}
