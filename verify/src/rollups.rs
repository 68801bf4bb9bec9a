//! Summaries against the raw rows: each is computed once more by ClickHouse from its raw table, and compared group by group.
//! (That the raw tables are right is shown by the log.)

use std::collections::HashMap;

use pipeline::shape::Shape;
use pipeline::{Function, Pipeline, Rollup};

use crate::clickhouse::{ClickHouse, name};
use crate::error::Error;
use crate::judge::forgotten_before_ms;
use crate::ledger::{Content, Example, Ledger, Place};
use crate::report::SinkReport;

/// The measures of one group.
struct Measures(String);

impl Content for Measures {
    type Found = String;

    fn difference(&self, found: &String) -> Option<String> {
        (self.0 != *found).then(|| format!("is {found}, must be {}", self.0))
    }
}

/// Compares one summary, from where the raw table's retention has deleted nothing. `shapes`: of the sources.
pub async fn compare(
    clickhouse: &ClickHouse,
    pipeline: &Pipeline,
    shapes: &[Shape],
    (rollup, now_ms, examples_max): (&Rollup, i64, usize),
) -> Result<(SinkReport, Vec<Example>), Error> {
    let doing = format!("reading rollup {}", rollup.name);
    let unknown = || Error::ClickHouse {
        doing: doing.clone(),
        reason: "the pipeline has no such raw table".to_owned(),
    };
    let table = pipeline.tables.get(rollup.from).ok_or_else(unknown)?;
    let source = pipeline.sources.get(table.source).ok_or_else(unknown)?;
    let shape = shapes.get(table.source).ok_or_else(unknown)?;
    let database = name(clickhouse.database());
    let raw = format!("{database}.{}", name(&table.name));
    let keys = rollup.by.len() + 1;
    let from = format!(
        "toDateTime({}, 'UTC')",
        forgotten_before_ms(table, now_ms).max(0) / 1000
    );
    let question = recomputed(rollup, shape, (&raw, &source.event.time), &from);
    let expected = clickhouse.groups(&doing, &question, keys).await?;
    let found = clickhouse
        .groups(&doing, &stored(rollup, shape, &database, &from), keys)
        .await?;
    Ok(groups(&rollup.name, expected, found, examples_max))
}

/// The column of a path or a name.
fn column(shape: &Shape, path_or_name: &str) -> String {
    let column = shape.index(path_or_name).and_then(|index| shape.columns.get(index));
    name(column.map_or(path_or_name, |column| &column.name))
}

/// The comparison, group by group.
pub fn groups(
    rollup: &str,
    expected: HashMap<String, String>,
    found: HashMap<String, String>,
    examples_max: usize,
) -> (SinkReport, Vec<Example>) {
    let mut ledger = Ledger::new(format!("rollup {rollup}"), examples_max);
    let mut places: HashMap<String, Place> = HashMap::new();
    // Groups have no place in the log; a number does as well.
    for (number, (group, measures)) in (0i64..).zip(expected) {
        let place = Place {
            source: u16::MAX,
            partition: 0,
            offset: number,
            index: 0,
        };
        places.insert(group, place);
        ledger.expect(place, Measures(measures));
    }
    for (group, measures) in found {
        match places.get(&group) {
            Some(place) => ledger.found(*place, &measures),
            None => ledger.stray(format!("group {group}")),
        }
    }
    let (report, mut examples) = ledger.finish();
    let names: HashMap<Place, String> = places.into_iter().map(|(group, place)| (place, group)).collect();
    for example in &mut examples {
        if let Some(group) = example.place.take().and_then(|place| names.get(&place)) {
            example.detail = format!("group {group} {}", example.detail);
        }
    }
    (report, examples)
}

fn list(parts: impl IntoIterator<Item = String>) -> String {
    parts.into_iter().collect::<Vec<_>>().join(", ")
}

fn stored(rollup: &Rollup, shape: &Shape, database: &str, from: &str) -> String {
    let by = rollup.by.iter().map(|by| column(shape, by));
    let measures = rollup.measures.iter().map(|measure| name(&measure.name));
    let columns = list(std::iter::once("bucket".to_owned()).chain(by).chain(measures));
    format!(
        "SELECT {columns} FROM {database}.{} WHERE bucket >= {from}",
        name(&rollup.name)
    )
}

fn recomputed(rollup: &Rollup, shape: &Shape, (raw, time): (&str, &str), from: &str) -> String {
    let seconds = rollup.every.as_secs();
    let bucket = format!(
        "toStartOfInterval(toDateTime(assumeNotNull({}), 'UTC'), toIntervalSecond({seconds}), 'UTC')",
        column(shape, time)
    );
    let by: Vec<String> = rollup
        .by
        .iter()
        .map(|by| format!("toNullable({})", column(shape, by)))
        .collect();
    let keys = list(std::iter::once(bucket.clone()).chain(by));
    let measures = rollup.measures.iter().map(|measure| {
        let function = match measure.function {
            Function::Uniq => "uniqExact",
            Function::UniqCombined => "uniqCombined64",
            Function::Sum => "sum",
            Function::Count => "count",
            Function::Min => "min",
            Function::Max => "max",
        };
        match &measure.column {
            // The summary's measures may be missing where a group has no value: so may these.
            Some(of) => format!("{function}(toNullable({}))", column(shape, of)),
            None => "count()".to_owned(),
        }
    });
    format!(
        "SELECT {keys}, {} FROM {raw} WHERE {bucket} >= {from} GROUP BY {keys}",
        list(measures)
    )
}
