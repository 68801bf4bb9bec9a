//! The summaries.

use std::time::Duration;

use document::{Item, Reader};

use super::names;
use super::setting::at_least;
use super::tables::{column_name, columns, unresolved};
use crate::{Function, Measure, Rollup, Table};

const FUNCTIONS: [(&str, Function); 6] = [
    ("uniq", Function::Uniq),
    ("uniqCombined", Function::UniqCombined),
    ("sum", Function::Sum),
    ("count", Function::Count),
    ("min", Function::Min),
    ("max", Function::Max),
];
/// A bucket of a day is the widest that a summary for dashboards needs.
const EVERY_MAX: Duration = Duration::from_secs(86_400);

pub(super) fn rollups(top: &Reader<'_>, tables: &[Table]) -> Vec<Rollup> {
    let items = top.optional("rollups").and_then(|item| item.list()).unwrap_or_default();
    let mut rollups: Vec<Rollup> = Vec::new();
    for item in items {
        let Some(reader) = item.map() else { continue };
        let rollup = rollup(&reader, tables);
        if let Some(name) = reader.optional("name")
            && !rollup.name.is_empty()
        {
            if tables.iter().any(|table| table.name == rollup.name) {
                name.fault(format!("`{}` is a table already", rollup.name));
            }
            if rollups.iter().any(|other| other.name == rollup.name) {
                name.fault(format!("`{}` is a rollup already", rollup.name));
            }
        }
        reader.finish();
        rollups.push(rollup);
    }
    rollups
}

fn rollup(reader: &Reader<'_>, tables: &[Table]) -> Rollup {
    let text = |key| reader.required(key).and_then(|item| Some((item.text()?, item)));
    let name = text("name").and_then(|(name, item)| item.checked(names::identifier(name)).map(|()| name.to_owned()));
    let from = text("from").and_then(|(from, item)| {
        let found = tables.iter().position(|table| table.name == from);
        if found.is_none() {
            item.fault(unresolved(from, tables));
        }
        found
    });
    let every = reader.required("every").and_then(|item| every(&item));
    let by = reader
        .optional("by")
        .and_then(|item| columns(&item))
        .unwrap_or_default();
    let measures = reader
        .required("measures")
        .map(|item| measures(&item, &by))
        .unwrap_or_default();
    Rollup {
        name: name.unwrap_or_default(),
        from: from.unwrap_or_default(),
        every: every.unwrap_or(Duration::from_secs(60)),
        by,
        measures,
    }
}

/// Whole seconds that divide a day, so that buckets begin with the day and two summaries line up.
fn every(item: &Item<'_>) -> Option<Duration> {
    let every = at_least(item, Duration::from_secs(1))?;
    if every.subsec_nanos() != 0 || !EVERY_MAX.as_secs().is_multiple_of(every.as_secs()) {
        item.fault("should be whole seconds that divide a day: 1s, 10s, 1m, 5m, 1h, 1d");
        return None;
    }
    Some(every)
}

fn measures(item: &Item<'_>, by: &[String]) -> Vec<Measure> {
    let entries = item.entries().unwrap_or_default();
    if entries.is_empty() {
        item.fault("a rollup needs at least one measure, such as `events: count()`");
    }
    let read = |(name, item): (&str, Item<'_>)| {
        if let Err(reason) = names::identifier(name) {
            item.fault_at_key(reason);
        }
        if by.iter().any(|column| column == name) {
            item.fault_at_key(format!("`{name}` is a column of `by` already"));
        }
        let (function, column) = item.checked(call(item.text()?))?;
        Some(Measure {
            name: name.to_owned(),
            function,
            column,
        })
    };
    entries.into_iter().filter_map(read).collect()
}

/// `sum(amount_minor)`.
fn call(text: &str) -> Result<(Function, Option<String>), String> {
    let wrong = || {
        let names = FUNCTIONS.map(|(name, _)| name).join(", ");
        format!("should be a function of a column, such as sum(amount_minor); there are {names}")
    };
    let (name, rest) = text.trim().split_once('(').ok_or_else(wrong)?;
    let column = rest.strip_suffix(')').ok_or_else(wrong)?.trim();
    let known = FUNCTIONS.iter().find(|(known, _)| *known == name.trim());
    let (name, function) = known.ok_or_else(wrong)?;
    match (function, column) {
        (Function::Count, "") => Ok((Function::Count, None)),
        (Function::Count, _) => Err("`count()` counts rows and takes no column".to_owned()),
        (_, "") => Err(format!("`{name}` needs a column: {name}(amount_minor)")),
        (function, column) => {
            names::field_path(column).map_err(|reason| format!("`{column}` {reason}"))?;
            Ok((*function, Some(column_name(column))))
        }
    }
}
