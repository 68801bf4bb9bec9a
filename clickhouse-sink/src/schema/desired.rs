//! What the pipeline file and the schemas of its topics want.

use std::collections::BTreeSet;

use pipeline::shape::{Column, Kind, Shape};
use pipeline::{Pipeline, Table};

use super::plan::Refusal;
use super::rollup::WantedRollup;
use super::table::WantedTable;
use crate::feed::Feed;
use crate::native::Layout;

/// All tables and rollups of a pipeline, each as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desired {
    pub(super) tables: Vec<WantedTable>,
    pub(super) rollups: Vec<WantedRollup>,
}

/// What `pipeline` wants, with the shapes of its sources at the same indices as [`Pipeline::sources`].
///
/// # Errors
/// All that can't be: names of columns that no schema has, keys of a kind that has no order, and so on.
pub fn desired(pipeline: &Pipeline, shapes: &[Shape]) -> Result<Desired, Vec<Refusal>> {
    let mut refusals = Vec::new();
    let mut desired = Desired {
        tables: Vec::new(),
        rollups: Vec::new(),
    };
    for (index, table) in pipeline.tables.iter().enumerate() {
        match shapes.get(table.source) {
            Some(shape) => match WantedTable::new(pipeline, index, shape) {
                Ok(wanted) => desired.tables.push(wanted),
                Err(faults) => refusals.extend(faults),
            },
            None => refusals.push(without_shape(table)),
        }
    }
    for rollup in &pipeline.rollups {
        let Some(table) = pipeline.tables.get(rollup.from) else {
            continue;
        };
        match shapes.get(table.source) {
            Some(shape) => match WantedRollup::new(pipeline, rollup, shape) {
                Ok(wanted) => desired.rollups.push(wanted),
                Err(faults) => refusals.extend(faults),
            },
            None => refusals.push(without_shape(table)),
        }
    }
    refusals.extend(doubled_names(&desired));
    if refusals.is_empty() {
        Ok(desired)
    } else {
        Err(refusals)
    }
}

/// How each rollup of a pipeline is fed from the rows of its table; those that the schemas don't allow are left out, for
/// [`desired`] refuses them.
pub fn feeds(pipeline: &Pipeline, shapes: &[Shape]) -> Vec<Feed> {
    let feed = |rollup: &pipeline::Rollup| {
        let table = pipeline.tables.get(rollup.from)?;
        let wanted = WantedRollup::new(pipeline, rollup, shapes.get(table.source)?);
        wanted.ok().map(|wanted| wanted.feed)
    };
    pipeline.rollups.iter().filter_map(feed).collect()
}

fn without_shape(table: &Table) -> Refusal {
    Refusal {
        what: format!("table {}", table.name),
        reason: "its topic has no schema in the registry, so its columns are unknown".to_owned(),
        remedy: "register a schema for the topic".to_owned(),
    }
}

/// A rollup makes two tables; two of a name would fill each other.
fn doubled_names(desired: &Desired) -> Vec<Refusal> {
    let mut seen = BTreeSet::new();
    let tables = desired.tables.iter().map(|table| table.name.clone());
    let rollups = desired
        .rollups
        .iter()
        .flat_map(|rollup| rollup.parts.iter().map(|part| part.name.clone()));
    tables
        .chain(rollups)
        .filter(|name| !seen.insert(name.clone()))
        .map(|name| Refusal {
            what: format!("table {name}"),
            reason: "two things of this pipeline would have this name (a rollup also takes `<name>_state`)".to_owned(),
            remedy: "rename one of them in the pipeline file".to_owned(),
        })
        .collect()
}

/// The columns that the table at `table` (an index into [`Pipeline::tables`]) stores as `LowCardinality(String)`: the
/// tenant, the event's type, every Avro enum, and those that the file lists. What [`crate::encode`] takes.
pub fn low_cardinality(pipeline: &Pipeline, table: usize, shape: &Shape) -> Vec<String> {
    let Some(table) = pipeline.tables.get(table) else {
        return Vec::new();
    };
    let event = pipeline.sources.get(table.source).map(|source| &source.event);
    let is_low = |column: &&Column| {
        let named = |name: &str| column.name == name || column.path == name;
        let of_event =
            event.is_some_and(|event| named(&event.tenant) || event.event_type.as_deref().is_some_and(named));
        match column.kind {
            Kind::Enum => true,
            Kind::String | Kind::Uuid => of_event || table.low_cardinality.iter().any(|name| named(name)),
            _ => false,
        }
    };
    shape
        .columns
        .iter()
        .filter(is_low)
        .map(|column| column.name.clone())
        .collect()
}

/// The ClickHouse type of a column. Identical to what [`crate::encode`] writes, because both ask [`Layout`].
///
/// A UUID stays text: rules may set any text, an invalid one would fail every insert of its batch for ever, and
/// ClickHouse's UUID would give `6F…` back as `6f…`.
pub(super) fn type_of(column: &Column, low_cardinality: &[String]) -> Result<String, String> {
    let low = low_cardinality.contains(&column.name);
    Layout::of(&column.kind.arrow(), column.nullable, low).map(|layout| layout.type_name())
}

/// The column that holds the event's time, if rows can be parted and summed up by it.
pub(super) fn event_time<'a>(pipeline: &Pipeline, source: usize, shape: &'a Shape) -> Result<&'a Column, Refusal> {
    let path = pipeline
        .sources
        .get(source)
        .map(|source| source.event.time.clone())
        .unwrap_or_default();
    let refusal = |reason: String| Refusal {
        what: format!("event time {path}"),
        reason,
        remedy: "give the field the logical type timestamp-millis or timestamp-micros, or name another in `event`"
            .to_owned(),
    };
    let column = shape
        .index(&path)
        .and_then(|index| shape.columns.get(index))
        .ok_or_else(|| refusal("no schema version has this field".to_owned()))?;
    match column.kind {
        Kind::TimestampMillis | Kind::TimestampMicros | Kind::Date => Ok(column),
        _ => Err(refusal("it is no point in time".to_owned())),
    }
}
