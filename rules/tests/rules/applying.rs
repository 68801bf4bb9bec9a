//! Helpers: one document, one batch, and what to look at afterwards.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use rules::{Applied, Catalog, Revision};

use crate::shop;

pub struct World {
    pub catalog: Catalog,
    pub revision: Revision,
}

/// The rules of everybody, as the lines of `rules:`.
pub fn world(rules: &str) -> World {
    let indented: Vec<String> = rules.trim().lines().map(|line| format!("  {}", line.trim())).collect();
    let meters = "meters: {revenue: {unit: EUR, scale: 2}, calls: {unit: call}}";
    documents(&[(
        "all.yaml",
        &format!("tenant: \"*\"\n{meters}\nrules:\n{}\n", indented.join("\n")),
    )])
}

pub fn documents(documents: &[(&str, &str)]) -> World {
    let catalog = shop::catalog();
    let documents: Vec<(String, String)> = documents
        .iter()
        .map(|(file, text)| ((*file).to_owned(), (*text).to_owned()))
        .collect();
    let revision = Revision::compile(1, &documents, &catalog).unwrap_or_else(|faults| {
        panic!(
            "{}",
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        )
    });
    World { catalog, revision }
}

impl World {
    pub fn batch(&self, event: usize, rows: &[Vec<(&str, String)>]) -> RecordBatch {
        shop::batch(&self.catalog.events[event], rows)
    }

    pub fn apply(&self, event: usize, rows: &[Vec<(&str, String)>]) -> Applied {
        self.revision.apply(event, &self.batch(event, rows))
    }

    /// The texts of a column; `properties.email` is an entry.
    pub fn column(&self, event: usize, batch: &RecordBatch, path: &str) -> Vec<String> {
        let shape = &self.catalog.events[event];
        if let Some(column) = shape.index(path) {
            return shown(batch.column(column));
        }
        let (map, key) = path.split_once('.').unwrap();
        let map = batch.column(shape.index(map).unwrap()).as_map();
        (0..map.len())
            .map(|row| {
                let entries = map.value(row);
                let (keys, values) = (
                    entries.column(0).as_string::<i32>(),
                    entries.column(1).as_string::<i32>(),
                );
                let found: Vec<&str> = (0..keys.len())
                    .filter(|i| keys.value(*i) == key)
                    .map(|i| values.value(i))
                    .collect();
                if found.is_empty() {
                    "absent".to_owned()
                } else {
                    found.join("+")
                }
            })
            .collect()
    }
}

pub fn shown(column: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
    (0..column.len()).map(|row| formatter.value(row).to_string()).collect()
}

/// `orders: 0 2; orders_vip: 2`
pub fn routes(applied: &Applied) -> String {
    let route = |route: &rules::Route| {
        let rows: Vec<String> = route.rows.iter().map(ToString::to_string).collect();
        format!("{}: {}", route.table, rows.join(" "))
    };
    applied.routes.iter().map(route).collect::<Vec<_>>().join("; ")
}

/// `0 divide_by_zero set.field`
pub fn failures(applied: &Applied) -> Vec<String> {
    let failure = |failure: &rules::Failure| {
        format!(
            "{} {} {}.{}",
            failure.row,
            failure.code,
            failure.rule,
            failure.field.as_deref().unwrap_or("-")
        )
    };
    applied.failures.iter().map(failure).collect()
}
