//! What must become of the records of one source: rows, alerts, charges, a dead letter, or nothing. A function of the
//! records, the schemas and the rules; it asks nobody.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use pipeline::shape::{Kind, Shape};
use pipeline::{Keep, Pipeline, SchemaIdFrom, Source};
use rules::{Catalog, EventShape, FieldDef, Revision};

use crate::alerts::Alert;
use crate::arrow_cells;
use crate::billing::ExpectedCharge;
use crate::cell::{Cell, Fingerprint, Fingerprinter};
use crate::dead_letters::{ExpectedLetter, Stage};
use crate::error::Error;
use crate::kafka::Record;
use crate::ledger::{Ledger, Place};
use crate::registry::Answer;
use crate::writer::Writer;

/// The differences to be found, sink by sink.
pub struct Ledgers {
    /// By table, in the order of the pipeline.
    pub tables: Vec<Ledger<Fingerprint>>,
    pub alerts: Ledger<Alert>,
    pub charges: Ledger<ExpectedCharge>,
    pub dead: Ledger<ExpectedLetter>,
    /// Sums of what is charged: quantity and number by tenant and meter.
    pub usage: std::collections::BTreeMap<(String, String), (i128, u64)>,
    pub produced: u64,
    pub dropped: u64,
}

impl Ledgers {
    pub fn new(pipeline: &Pipeline, examples_max: usize) -> Ledgers {
        let table = |table: &pipeline::Table| Ledger::new(format!("table {}", table.name), examples_max);
        Ledgers {
            tables: pipeline.tables.iter().map(table).collect(),
            alerts: Ledger::new("alerts", examples_max),
            charges: Ledger::new("billing", examples_max),
            dead: Ledger::new("dead letters", examples_max),
            usage: std::collections::BTreeMap::new(),
            produced: 0,
            dropped: 0,
        }
    }
}

/// What the envelope's fields are, by column.
#[derive(Debug, Clone, Copy)]
struct Envelope {
    id: usize,
    tenant: usize,
    time: usize,
}

/// Judges the records of one source.
pub struct Judge<'p> {
    pipeline: &'p Pipeline,
    index: usize,
    source: &'p Source,
    shape: &'p Shape,
    envelope: Envelope,
    now_ms: i64,
    writers: HashMap<u32, Result<Writer, Option<&'static str>>>,
}

/// What rules may name: one entry for each source.
pub fn catalog(pipeline: &Pipeline, shapes: &[Shape]) -> Result<Catalog, Error> {
    let event = |(index, (source, shape)): (usize, (&Source, &Shape))| {
        let name = |table: usize| {
            pipeline
                .tables
                .get(table)
                .map(|table| table.name.clone())
                .unwrap_or_default()
        };
        let field = |column: &pipeline::shape::Column| FieldDef {
            column: column.name.clone(),
            path: column.path.clone(),
        };
        let own = pipeline.tables.iter().filter(|table| table.source == index);
        Ok::<_, Error>(EventShape {
            name: source.name.clone(),
            shape: shape.columns.iter().map(field).collect(),
            schema: shape.arrow(),
            tenant: envelope(source, shape)?.tenant,
            table: name(source.table),
            tables: own.map(|table| table.name.clone()).collect(),
        })
    };
    Ok(Catalog {
        events: pipeline
            .sources
            .iter()
            .zip(shapes)
            .enumerate()
            .map(event)
            .collect::<Result<_, _>>()?,
        alerts: pipeline.sinks.alerts.is_some(),
        charges: !pipeline.sinks.grpc.is_empty(),
    })
}

fn envelope(source: &Source, shape: &Shape) -> Result<Envelope, Error> {
    let find = |path: &str| {
        shape.index(path).ok_or_else(|| Error::Shape {
            topic: source.topic.clone(),
            reason: format!("no version of the schema has the field `{path}` of the envelope"),
        })
    };
    Ok(Envelope {
        id: find(&source.event.id)?,
        tenant: find(&source.event.tenant)?,
        time: find(&source.event.time)?,
    })
}

/// A record that decoded, on its way to the rules.
struct Sound {
    place: Place,
    record: Record,
    cells: Vec<Cell>,
    tenant: String,
    event_id: String,
    time_ms: i64,
}

type Refused = (Option<Stage>, Option<&'static str>);

impl<'p> Judge<'p> {
    /// `now_ms`: Unix time, to tell which rows retention may have deleted.
    pub fn new(pipeline: &'p Pipeline, index: usize, shape: &'p Shape, now_ms: i64) -> Result<Judge<'p>, Error> {
        let source = pipeline
            .sources
            .get(index)
            .ok_or_else(|| Error::Ended("no such source".to_owned()))?;
        let envelope = envelope(source, shape)?;
        Ok(Judge {
            pipeline,
            index,
            source,
            shape,
            envelope,
            now_ms,
            writers: HashMap::new(),
        })
    }

    /// The schema ids among these records that [`Judge::learn`] has not been told of.
    pub fn unknown(&self, records: &[Record]) -> Vec<u32> {
        let mut ids: Vec<u32> = records
            .iter()
            .filter_map(|record| Some(self.frame(record).ok()?.0))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|id| !self.writers.contains_key(id));
        ids
    }

    /// Takes what the registry says of an id.
    pub fn learn(&mut self, id: u32, answer: &Answer) {
        let writer = match answer {
            // As if nobody knew it: a version of the subject would have made the shape hold it.
            Answer::Schema(schema) if !self.shape.covers(schema) => Err(Some("unknown_schema_id")),
            Answer::Schema(schema) => self.writer(schema),
            Answer::Unknown => Err(Some("unknown_schema_id")),
            Answer::Unusable => Err(None),
        };
        self.writers.insert(id, writer);
    }

    fn writer(&self, schema: &Schema) -> Result<Writer, Option<&'static str>> {
        Writer::new(schema, self.shape).map_err(|_| None)
    }

    /// Enters into the ledgers what these records must become by a revision of the rules.
    pub fn judge(&self, records: Vec<Record>, revision: &Revision, ledgers: &mut Ledgers) -> Result<(), Error> {
        ledgers.produced += records.len() as u64;
        let mut readers = HashMap::new();
        for (id, writer) in &self.writers {
            if let Ok(writer) = writer {
                let reader = GenericDatumReader::builder(&writer.schema).build();
                readers.insert(*id, reader.map_err(|error| Error::Ended(error.to_string()))?);
            }
        }
        let mut sound = Vec::with_capacity(records.len());
        for record in records {
            let place = Place {
                source: u16::try_from(self.index).unwrap_or(u16::MAX),
                partition: record.partition,
                offset: record.offset,
                index: 0,
            };
            match self
                .decode(&readers, &record)
                .and_then(|cells| self.sound(&record, cells))
            {
                Ok((cells, tenant, event_id, time_ms)) => {
                    sound.push(Sound {
                        place,
                        record,
                        cells,
                        tenant,
                        event_id,
                        time_ms,
                    });
                }
                Err((stage, code)) => ledgers.dead.expect(place, ExpectedLetter::new(&record, stage, code)),
            }
        }
        self.apply(sound, revision, ledgers)
    }

    fn frame<'r>(&self, record: &'r Record) -> Result<(u32, &'r [u8]), Refused> {
        let refused = |code| (Some(Stage::Frame), Some(code));
        let value = record.value.as_deref().ok_or(refused("no_value"))?;
        let named = |(name, _): &&(String, Option<Vec<u8>>)| *name == self.source.schema_id_header;
        let header = record
            .headers
            .iter()
            .rev()
            .find(named)
            .and_then(|(_, value)| value.as_deref());
        let prefix = || match value {
            [0, id @ ..] if id.len() >= 4 => {
                let (id, body) = id.split_at(4);
                let id = id.iter().fold(0u32, |id, byte| id << 8 | u32::from(*byte));
                Ok((id, body))
            }
            [] | [0, ..] => Err(refused("truncated_prefix")),
            _ => Err(refused("no_schema_id")),
        };
        match (self.source.schema_id, header) {
            (SchemaIdFrom::Prefix, _) | (SchemaIdFrom::Auto, None) => prefix(),
            (SchemaIdFrom::Header, None) => Err(refused("no_schema_id")),
            (_, Some(header)) => Ok((header_id(header).ok_or(refused("bad_schema_header"))?, value)),
        }
    }

    fn decode(&self, readers: &HashMap<u32, GenericDatumReader<'_>>, record: &Record) -> Result<Vec<Cell>, Refused> {
        let bytes = [&record.key, &record.value].map(|part| part.as_ref().map_or(0, Vec::len));
        if bytes.iter().sum::<usize>() > self.pipeline.limits.event_bytes_max {
            return Err((None, Some("too_large")));
        }
        let (id, payload) = self.frame(record)?;
        let of_schema = |code| (Some(Stage::Schema), code);
        let writer = match self.writers.get(&id) {
            Some(Ok(writer)) => writer,
            Some(Err(code)) => return Err(of_schema(*code)),
            None => return Err(of_schema(None)),
        };
        let reader = readers.get(&id).ok_or(of_schema(None))?;
        let of_decode = |code| (Some(Stage::Decode), code);
        let value = crate::avro::decode(reader, payload).map_err(of_decode)?;
        writer.cells(self.shape, &value).map_err(|code| of_decode(Some(code)))
    }

    /// Id, tenant and time of a decoded event, if it may have them.
    fn sound(&self, record: &Record, cells: Vec<Cell>) -> Result<(Vec<Cell>, String, String, i64), Refused> {
        let refused = |code| (Some(Stage::Event), Some(code));
        let text = |column: usize| match cells.get(column) {
            Some(Cell::Bytes(bytes)) if !bytes.is_empty() => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        };
        let event_id = text(self.envelope.id).ok_or(refused("no_event_id"))?;
        let tenant = text(self.envelope.tenant).ok_or(refused("no_tenant"))?;
        let kind = self.shape.columns.get(self.envelope.time).map(|column| &column.kind);
        let time_ms = match (cells.get(self.envelope.time), kind) {
            (Some(Cell::Int(micros)), Some(Kind::TimestampMicros)) => micros.div_euclid(1000),
            (Some(Cell::Int(millis)), _) => *millis,
            _ => return Err(refused("time_out_of_range")),
        };
        let millis = |span: std::time::Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let earliest = record
            .timestamp_ms
            .saturating_sub(millis(self.source.event.accept_past));
        let latest = record
            .timestamp_ms
            .saturating_add(millis(self.source.event.accept_future));
        if time_ms < earliest || time_ms > latest {
            return Err(refused("time_out_of_range"));
        }
        Ok((cells, tenant, event_id, time_ms))
    }

    fn apply(&self, sound: Vec<Sound>, revision: &Revision, ledgers: &mut Ledgers) -> Result<(), Error> {
        if sound.is_empty() {
            return Ok(());
        }
        let rows: Vec<Vec<Cell>> = sound.iter().map(|event| event.cells.clone()).collect();
        let batch = arrow_cells::batch(self.shape, &rows)?;
        let applied = revision.apply(self.index, &batch);
        let event = |row: u32| {
            sound
                .get(row as usize)
                .ok_or_else(|| Error::Ended("the rules name no such row".to_owned()))
        };
        ledgers.dropped += applied.dropped.len() as u64;
        for failure in &applied.failures {
            let event = event(failure.row)?;
            let letter = ExpectedLetter::new(&event.record, Some(Stage::Rules), Some(failure.code.as_str()));
            ledgers.dead.expect(event.place, letter);
        }
        let mut ordinals = Ordinals::default();
        if self.pipeline.sinks.alerts.is_some() {
            for alert in &applied.alerts {
                let event = event(alert.row)?;
                let place = ordinals.next(event.place);
                ledgers
                    .alerts
                    .expect(place, self.alert(event, place, alert, revision.number));
            }
        }
        let mut ordinals = Ordinals::default();
        for charge in &applied.charges {
            let event = event(charge.row)?;
            let place = ordinals.next(event.place);
            let usage = ledgers
                .usage
                .entry((event.tenant.clone(), charge.meter.to_string()))
                .or_default();
            *usage = (usage.0 + i128::from(charge.quantity), usage.1 + 1);
            ledgers.charges.expect(
                place,
                ExpectedCharge::new(&self.charge(event, place, charge, revision.number)),
            );
        }
        let mut ordinals = Ordinals::default();
        for route in &applied.routes {
            let table = self.pipeline.tables.iter().position(|table| table.name == route.table);
            let Some(ledger) = table.and_then(|table| ledgers.tables.get_mut(table)) else {
                continue;
            };
            for row in &route.rows {
                let event = event(*row)?;
                let mut fingerprint = Fingerprinter::new(self.shape.columns.len());
                for (column, array) in self.shape.columns.iter().zip(applied.batch.columns()) {
                    let cell = arrow_cells::cell(array.as_ref(), *row as usize);
                    let cell = cell.ok_or_else(|| Error::Ended(format!("{} is {}", column.name, array.data_type())))?;
                    fingerprint.add(&as_stored(&column.kind, cell));
                }
                let place = ordinals.next(event.place);
                match event.time_ms < self.forgotten_before_ms(table) {
                    false => ledger.expect(place, fingerprint.finish()),
                    true => ledger.allow(place, fingerprint.finish()),
                }
            }
        }
        Ok(())
    }

    /// A table may have given up rows of an earlier event time.
    fn forgotten_before_ms(&self, table: Option<usize>) -> i64 {
        let table = table.and_then(|table| self.pipeline.tables.get(table));
        table.map_or(i64::MIN, |table| forgotten_before_ms(table, self.now_ms))
    }

    fn position(&self, place: Place) -> String {
        format!(
            "{}/{}/{}/{}",
            self.source.topic, place.partition, place.offset, place.index
        )
    }

    fn alert(&self, event: &Sound, place: Place, alert: &rules::Alert, rules_revision: u64) -> Alert {
        let value = serde_json::json!({
            "id": self.position(place),
            "tenant": event.tenant,
            "event": self.source.name,
            "event_id": event.event_id,
            "event_time": crate::alerts::rfc3339(event.time_ms),
            "rule": alert.rule.as_ref(),
            "severity": alert.severity.as_str(),
            "text": alert.text,
            "rules_revision": rules_revision,
        });
        Alert::new(alert.key.as_deref().unwrap_or(&event.tenant).as_bytes(), &value)
    }

    fn charge(
        &self,
        event: &Sound,
        place: Place,
        charge: &rules::Charge,
        rules_revision: u64,
    ) -> proto::delivery::v1::Charge {
        proto::delivery::v1::Charge {
            id: self.position(place),
            tenant: event.tenant.clone(),
            meter: charge.meter.to_string(),
            unit: charge.unit.to_string(),
            quantity: charge.quantity,
            scale: charge.scale,
            event_time_ms: event.time_ms,
            event_id: event.event_id.clone(),
            rule: charge.rule.to_string(),
            rules_revision,
            offset: place.offset,
        }
    }

    /// The event's id, for messages: as decoded, empty when it cannot be.
    pub fn event_id(&self, record: &Record) -> String {
        let Ok((id, payload)) = self.frame(record) else {
            return String::new();
        };
        let Some(Ok(writer)) = self.writers.get(&id) else {
            return String::new();
        };
        let Ok(reader) = GenericDatumReader::builder(&writer.schema).build() else {
            return String::new();
        };
        let Ok(value) = crate::avro::decode(&reader, payload) else {
            return String::new();
        };
        match writer
            .cells(self.shape, &value)
            .ok()
            .and_then(|mut cells| cells.drain(..).nth(self.envelope.id))
        {
            Some(Cell::Bytes(bytes)) => String::from_utf8_lossy(&bytes).into_owned(),
            _ => String::new(),
        }
    }
}

/// Before which event time a table's retention may have begun to delete; [`i64::MIN`] = it keeps everything.
pub fn forgotten_before_ms(table: &pipeline::Table, now_ms: i64) -> i64 {
    const DAY_MS: i64 = 86_400_000;
    let days = match table.keep {
        None => return i64::MIN,
        Some(Keep::Days(days)) => i64::from(days),
        // The shortest that so many months can be.
        Some(Keep::Months(months)) => i64::from(months) * 28,
    };
    // Clocks and the hour at which retention runs are not worth a false alarm.
    now_ms.saturating_sub((days - 1).max(0) * DAY_MS)
}

/// ClickHouse has no missing lists and maps: one that is null is stored empty.
pub fn as_stored(kind: &Kind, cell: Cell) -> Cell {
    match (kind, cell) {
        (Kind::List(_), Cell::Null) => Cell::List(Vec::new()),
        (Kind::Map(_), Cell::Null) => Cell::Map(Vec::new()),
        (_, cell) => cell,
    }
}

/// Decimal digits; else four bytes, big-endian.
fn header_id(header: &[u8]) -> Option<u32> {
    let digits = !header.is_empty() && header.iter().all(u8::is_ascii_digit);
    let decimal = std::str::from_utf8(header)
        .ok()
        .filter(|_| digits)
        .and_then(|text| text.parse().ok());
    decimal.or_else(|| Some(u32::from_be_bytes(header.try_into().ok()?)))
}

/// Counts the outputs of each event, whatever the order in which events come.
#[derive(Default)]
struct Ordinals {
    next: HashMap<Place, u32>,
}

impl Ordinals {
    fn next(&mut self, place: Place) -> Place {
        let next = self.next.entry(place).or_insert(0);
        let index = *next;
        *next += 1;
        Place { index, ..place }
    }
}
