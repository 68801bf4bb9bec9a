//! The tests inside a document: an event as it comes in, and what should become of it.

mod expected;
mod values;

use expected::Expected;

use arrow::array::ArrayRef;
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use document::Item;

use crate::catalog::{Catalog, EventShape};
use crate::expression::{Name, unknown_column};
use crate::program::unknown;
use crate::revision::TenantRules;
use crate::written::Written;

/// How one test of a document ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestOutcome {
    /// Its `name`, or its place in the document: `tests[0]`.
    pub name: String,
    /// Where it begins in the file, counted from 1.
    pub line: u32,
    /// Characters, counted from 1.
    pub column: u32,
    /// Whether everything came out as expected.
    pub passed: bool,
    /// What didn't: one sentence each, empty exactly when it passed.
    pub differences: Vec<String>,
}

/// A test that has been checked.
#[derive(Debug)]
pub struct Trial {
    name: String,
    position: (u32, u32),
    event: usize,
    /// One row.
    given: RecordBatch,
    expected: Expected,
}

/// Runs a document's tests. `catalog` is the one it was checked with.
pub fn run_tests(rules: &TenantRules, catalog: &Catalog) -> Vec<TestOutcome> {
    rules.trials().iter().map(|trial| run(trial, rules, catalog)).collect()
}

fn run(trial: &Trial, rules: &TenantRules, catalog: &Catalog) -> TestOutcome {
    let differences = match catalog.events.get(trial.event) {
        Some(event) if event.schema.fields() == trial.given.schema_ref().fields() => {
            let applied = event.run_alone(rules.program(), trial.event, &trial.given);
            trial.expected.differences(&applied)
        }
        _ => vec!["the rules were checked with another catalog".to_owned()],
    };
    TestOutcome {
        name: trial.name.clone(),
        line: trial.position.0,
        column: trial.position.1,
        passed: differences.is_empty(),
        differences,
    }
}

/// Checks a document's tests; what is wrong is recorded with the document's faults.
pub fn read(written: &Written<'_>, catalog: &Catalog) -> Vec<Trial> {
    let read = |test: &Item<'_>| {
        let reader = test.map()?;
        let name = reader
            .optional("name")
            .and_then(|item| item.scalar())
            .unwrap_or(test.path())
            .to_owned();
        let given = reader
            .required("given")
            .and_then(|item| given(&item, &written.tenant, catalog));
        let expect = reader.required("expect").and_then(|item| item.map());
        reader.finish();
        let (event, given) = given?;
        let expected = Expected::read(expect?, &catalog.events[event]);
        let given = given?;
        Some(Trial {
            name,
            position: test.position(),
            event,
            given,
            expected,
        })
    };
    written.tests.iter().filter_map(read).collect()
}

/// The event and, if all values are right, its one row.
fn given(item: &Item<'_>, tenant: &str, catalog: &Catalog) -> Option<(usize, Option<RecordBatch>)> {
    let reader = item.map()?;
    let kind = reader.required("type")?;
    let name = kind.text()?;
    let Some(index) = catalog.event(name) else {
        kind.fault(unknown(
            "event",
            name,
            catalog.events.iter().map(|event| event.name.as_str()),
        ));
        return None;
    };
    let event = &catalog.events[index];
    let mut columns: Vec<ArrayRef> = event
        .schema
        .fields()
        .iter()
        .map(|field| values::default_of(field))
        .collect();
    for (column, text) in [(Some(event.tenant), tenant), (event.index("type"), name)] {
        if let Some(column) = column.filter(|column| *event.schema.field(*column).data_type() == DataType::Utf8) {
            columns[column] = values::text(text);
        }
    }
    let mut complete = true;
    fields("", item, event, &mut |path, item| {
        let found = event.index(path).filter(|_| path != "type");
        match found.map(|column| (column, values::read(item, event.schema.field(column)))) {
            Some((column, Some(value))) => columns[column] = value,
            Some((_, None)) => complete = false,
            None => {}
        }
    });
    let batch = RecordBatch::try_new(std::sync::Arc::clone(&event.schema), columns);
    let batch = batch
        .map_err(|error| item.fault(format!("this event can't be made: {error}")))
        .ok();
    Some((index, batch.filter(|_| complete)))
}

/// Calls `take` for every column that a mapping names, however it is nested.
fn fields<'a>(prefix: &str, item: &Item<'a>, event: &EventShape, take: &mut impl FnMut(&str, &Item<'a>)) {
    let entries = item.entries().unwrap_or_default();
    for (key, item) in entries.into_iter().take_while(|_| !item.is_unheard()) {
        let path = if prefix.is_empty() {
            key.to_owned()
        } else {
            format!("{prefix}.{key}")
        };
        let inside = format!("{path}.");
        if event.index(&path).is_some() || path == "type" {
            take(&path, &item);
        } else if event.paths().any(|known| known.starts_with(&inside)) {
            fields(&path, &item, event, take);
        } else if let Some(name) = Name::new(&path).ok().filter(|name| name.entry.is_some()) {
            match event.index(&name.column) {
                Some(_) => take(&path, &item),
                None => item.fault_at_key(unknown_column(&name.column, event)),
            }
        } else {
            item.fault_at_key(unknown_column(&path, event));
        }
    }
}
