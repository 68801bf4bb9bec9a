//! The tests inside a document: an event as it comes in, and what should become of it.

mod values;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use document::{Item, Reader};

use crate::applied::{Alert, Applied, Charge, Code, Severity};
use crate::catalog::{Catalog, EventShape};
use crate::expression::{Name, lookup, unknown_column};
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

#[derive(Debug, Default)]
struct Expected {
    dropped: Option<bool>,
    row: Vec<ExpectedValue>,
    tables: Option<Vec<String>>,
    alerts: Option<Vec<ExpectedAlert>>,
    charges: Option<Vec<ExpectedCharge>>,
    failure: Option<Code>,
}

/// A column's value, or that of a map's entry.
#[derive(Debug)]
struct ExpectedValue {
    written: String,
    column: usize,
    entry: Option<String>,
    /// One value.
    value: ArrayRef,
}

/// What isn't given isn't compared.
#[derive(Debug)]
struct ExpectedAlert {
    rule: Option<String>,
    severity: Option<Severity>,
    key: Option<Option<String>>,
    text: Option<String>,
}

/// What isn't given isn't compared.
#[derive(Debug)]
struct ExpectedCharge {
    rule: Option<String>,
    meter: Option<String>,
    quantity: Option<i64>,
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
        let expect = reader.required("expect");
        reader.finish();
        let (event, given) = given?;
        let expected = expected(expect?.map()?, &catalog.events[event]);
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

/// The event and its one row.
fn given(item: &Item<'_>, tenant: &str, catalog: &Catalog) -> Option<(usize, RecordBatch)> {
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
        .ok()?;
    complete.then_some((index, batch))
}

/// Calls `take` for every column that a mapping names, however it is nested.
fn fields<'a>(prefix: &str, item: &Item<'a>, event: &EventShape, take: &mut impl FnMut(&str, &Item<'a>)) {
    for (key, item) in item.entries().unwrap_or_default() {
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

fn expected(reader: Reader<'_>, event: &EventShape) -> Expected {
    let mut expected = Expected {
        dropped: reader.optional("dropped").and_then(|item| item.bool()),
        ..Expected::default()
    };
    if let Some(item) = reader.optional("row") {
        fields("", &item, event, &mut |path, item| {
            expected.row.extend(expected_values(path, item, event))
        });
    }
    expected.tables = reader.optional("tables").and_then(|item| {
        let mut tables = Vec::new();
        for item in item.list()? {
            let table = item.text()?;
            if event.table_index(table).is_none() {
                item.fault(unknown("table", table, event.tables.iter().map(String::as_str)));
            }
            tables.push(table.to_owned());
        }
        Some(tables)
    });
    expected.alerts = reader
        .optional("alerts")
        .and_then(|item| item.list()?.iter().map(expected_alert).collect());
    expected.charges = reader
        .optional("charges")
        .and_then(|item| item.list()?.iter().map(expected_charge).collect());
    let codes = Code::ALL.map(|code| (code.as_str(), code));
    expected.failure = reader.optional("failure").and_then(|item| item.choice(&codes));
    if ["dropped", "row", "tables", "alerts", "charges", "failure"]
        .iter()
        .all(|key| !reader.has(key))
    {
        reader.item().fault("expects nothing: it could not fail");
    }
    reader.finish();
    expected
}

fn expected_values(path: &str, item: &Item<'_>, event: &EventShape) -> Vec<ExpectedValue> {
    let (column, entry) = match (event.index(path), Name::new(path)) {
        (Some(column), _) => (Some(column), None),
        (None, Ok(name)) => (event.index(&name.column), name.entry),
        (None, Err(_)) => (None, None),
    };
    let Some(column) = column else {
        item.fault_at_key(unknown_column(path, event));
        return Vec::new();
    };
    let field = event.schema.field(column);
    let value = |written: String, entry: Option<String>, item: &Item<'_>| {
        let value = match &entry {
            Some(_) => values::read(item, &values::entry_field(field)?),
            None => values::read(item, &field.clone().with_nullable(true)),
        };
        Some(ExpectedValue {
            written,
            column,
            entry,
            value: value?,
        })
    };
    match (&entry, field.data_type(), item.is_null()) {
        // Of a map as of a row: what isn't given isn't compared.
        (None, DataType::Map(..), false) => {
            let entries = item.entries().unwrap_or_default();
            entries
                .iter()
                .filter_map(|(key, item)| value(format!("{path}['{key}']"), Some((*key).to_owned()), item))
                .collect()
        }
        _ => value(path.to_owned(), entry, item).into_iter().collect(),
    }
}

fn expected_alert(item: &Item<'_>) -> Option<ExpectedAlert> {
    let reader = item.map()?;
    let text = |key| reader.optional(key).and_then(|item| item.scalar()).map(str::to_owned);
    let has_null_key = item
        .node()
        .get("key")
        .is_some_and(|node| node.value == document::Value::Null);
    let alert = ExpectedAlert {
        rule: text("rule"),
        severity: reader
            .optional("severity")
            .and_then(|item| item.choice(&Severity::WORDS)),
        key: text("key").map(Some).or(has_null_key.then_some(None)),
        text: text("text"),
    };
    reader.finish();
    Some(alert)
}

fn expected_charge(item: &Item<'_>) -> Option<ExpectedCharge> {
    let reader = item.map()?;
    let text = |key| reader.optional(key).and_then(|item| item.scalar()).map(str::to_owned);
    let charge = ExpectedCharge {
        rule: text("rule"),
        meter: text("meter"),
        quantity: reader
            .optional("quantity")
            .and_then(|item| item.integer(i64::MIN..=i64::MAX)),
    };
    reader.finish();
    Some(charge)
}

impl Expected {
    fn differences(&self, applied: &Applied) -> Vec<String> {
        let mut differences = Vec::new();
        let failure = applied.failures.first();
        match (failure, self.failure) {
            (Some(failure), Some(expected)) if failure.code == expected => {}
            (Some(failure), expected) => {
                let is = format!(
                    "the rule `{}` failed with {}: {}",
                    failure.rule, failure.code, failure.reason
                );
                differences.push(expected.map_or_else(|| is.clone(), |code| format!("{is}; expected {code}")));
            }
            (None, Some(expected)) => differences.push(format!("nothing failed; expected {expected}")),
            (None, None) => {}
        }
        let dropped = !applied.dropped.is_empty();
        if self.dropped.unwrap_or(dropped) != dropped {
            let is = if dropped {
                "the event was dropped"
            } else {
                "the event was not dropped"
            };
            differences.push(is.to_owned());
        }
        let is_there = !dropped && failure.is_none();
        if !is_there && !self.row.is_empty() {
            differences.push("there is no row: the event was dropped or has failed".to_owned());
        }
        if is_there {
            differences.extend(
                self.row
                    .iter()
                    .filter_map(|expected| expected.difference(&applied.batch)),
            );
        }
        let tables: Vec<&str> = applied.routes.iter().map(|route| route.table.as_str()).collect();
        if let Some(expected) = &self.tables {
            let mut sorted = (tables.clone(), expected.iter().map(String::as_str).collect::<Vec<_>>());
            sorted.0.sort_unstable();
            sorted.1.sort_unstable();
            if sorted.0 != sorted.1 {
                differences.push(format!(
                    "tables are [{}]; expected [{}]",
                    tables.join(", "),
                    expected.join(", ")
                ));
            }
        }
        differences.extend(
            self.alerts
                .iter()
                .filter_map(|expected| list_difference("alert", &applied.alerts, expected, ExpectedAlert::fits)),
        );
        differences.extend(
            self.charges
                .iter()
                .filter_map(|expected| list_difference("charge", &applied.charges, expected, ExpectedCharge::fits)),
        );
        differences
    }
}

fn list_difference<A: std::fmt::Debug, E: std::fmt::Debug>(
    what: &str,
    actual: &[A],
    expected: &[E],
    fits: impl Fn(&E, &A) -> bool,
) -> Option<String> {
    if actual.len() != expected.len() {
        return Some(format!(
            "there are {} {what}s, expected {}: {actual:?}",
            actual.len(),
            expected.len()
        ));
    }
    let (index, (expected, actual)) = expected
        .iter()
        .zip(actual)
        .enumerate()
        .find(|(_, (expected, actual))| !fits(expected, actual))?;
    Some(format!("{what} {index} is {actual:?}; expected {expected:?}"))
}

impl ExpectedAlert {
    fn fits(&self, alert: &Alert) -> bool {
        self.rule.as_deref().is_none_or(|rule| *rule == *alert.rule)
            && self.severity.is_none_or(|severity| severity == alert.severity)
            && self.key.as_ref().is_none_or(|key| *key == alert.key)
            && self.text.as_deref().is_none_or(|text| text == alert.text)
    }
}

impl ExpectedCharge {
    fn fits(&self, charge: &Charge) -> bool {
        self.rule.as_deref().is_none_or(|rule| *rule == *charge.rule)
            && self.meter.as_deref().is_none_or(|meter| *meter == *charge.meter)
            && self.quantity.is_none_or(|quantity| quantity == charge.quantity)
    }
}

impl ExpectedValue {
    fn difference(&self, batch: &RecordBatch) -> Option<String> {
        let column = batch.column(self.column);
        let actual = match &self.entry {
            None => Some(column.slice(0, 1)),
            Some(key) => {
                let map = column.as_map();
                let entry = lookup(map, key).first().copied().flatten();
                entry.map(|entry| map.values().slice(usize::try_from(entry).unwrap_or(0), 1))
            }
        };
        let same = match &actual {
            Some(actual) => actual.as_ref() == self.value.as_ref(),
            None => self.value.is_null(0),
        };
        let shown = |value: &ArrayRef| values::shown(value);
        let is = actual.as_ref().map_or_else(|| "absent".to_owned(), shown);
        (!same).then(|| format!("{} is {is}; expected {}", self.written, shown(&self.value)))
    }
}
