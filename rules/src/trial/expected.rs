//! What a test expects, and how what came out differs from it.

use std::fmt::Display;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use document::{Item, Reader};

use super::{fields, values};
use crate::applied::{Alert, Applied, Charge, Code, Severity};
use crate::catalog::EventShape;
use crate::expression::{Name, lookup, unknown_column};
use crate::program::unknown;

/// What should become of an event. What isn't given isn't compared.
#[derive(Debug, Default)]
pub struct Expected {
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

impl Expected {
    /// Reads what a test expects; what is wrong is recorded with the document's faults.
    pub fn read(reader: Reader<'_>, event: &EventShape) -> Self {
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
    /// What came out otherwise, a sentence each.
    pub fn differences(&self, applied: &Applied) -> Vec<String> {
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
        differences.extend(self.alerts.iter().filter_map(|expected| {
            let shown = (alert_text, ExpectedAlert::text);
            list_difference("alert", (&applied.alerts, expected), ExpectedAlert::fits, shown)
        }));
        differences.extend(self.charges.iter().filter_map(|expected| {
            let shown = (charge_text, ExpectedCharge::text);
            list_difference("charge", (&applied.charges, expected), ExpectedCharge::fits, shown)
        }));
        differences
    }
}

/// Number and order count; of each only what is given.
fn list_difference<A, E>(
    what: &str,
    (actual, expected): (&[A], &[E]),
    fits: impl Fn(&E, &A) -> bool,
    shown: (impl Fn(&A) -> String, impl Fn(&E) -> String),
) -> Option<String> {
    let all = || actual.iter().map(&shown.0).collect::<Vec<_>>().join(", ");
    if actual.len() != expected.len() {
        return Some(format!(
            "{what}s: {} came, {} expected; came [{}]",
            actual.len(),
            expected.len(),
            all()
        ));
    }
    let differs = |(_, (expected, actual)): &(usize, (&E, &A))| !fits(expected, actual);
    let (index, (expected, actual)) = expected.iter().zip(actual).enumerate().find(differs)?;
    Some(format!(
        "{what} {index} is {}; expected {}",
        shown.0(actual),
        shown.1(expected)
    ))
}

/// `{rule: bill, quantity: 50}`
fn braced(parts: &[(&str, Option<&dyn Display>)]) -> String {
    let part = |(name, value): &(&str, Option<&dyn Display>)| value.map(|value| format!("{name}: {value}"));
    format!("{{{}}}", parts.iter().filter_map(part).collect::<Vec<_>>().join(", "))
}

fn shown<T: Display>(value: &T) -> Option<&dyn Display> {
    Some(value)
}

fn key_text(key: Option<&str>) -> String {
    key.map_or_else(|| "null".to_owned(), |key| format!("`{key}`"))
}

fn alert_text(alert: &Alert) -> String {
    let key = key_text(alert.key.as_deref());
    braced(&[
        ("rule", shown(&alert.rule)),
        ("severity", shown(&alert.severity)),
        ("key", shown(&key)),
        ("text", shown(&alert.text)),
    ])
}

fn charge_text(charge: &Charge) -> String {
    braced(&[
        ("rule", shown(&charge.rule)),
        ("meter", shown(&charge.meter)),
        ("quantity", shown(&charge.quantity)),
    ])
}

impl ExpectedAlert {
    fn text(&self) -> String {
        let key = self.key.as_ref().map(|key| key_text(key.as_deref()));
        braced(&[
            ("rule", self.rule.as_ref().and_then(shown)),
            ("severity", self.severity.as_ref().and_then(shown)),
            ("key", key.as_ref().and_then(shown)),
            ("text", self.text.as_ref().and_then(shown)),
        ])
    }

    fn fits(&self, alert: &Alert) -> bool {
        self.rule.as_deref().is_none_or(|rule| *rule == *alert.rule)
            && self.severity.is_none_or(|severity| severity == alert.severity)
            && self.key.as_ref().is_none_or(|key| *key == alert.key)
            && self.text.as_deref().is_none_or(|text| text == alert.text)
    }
}

impl ExpectedCharge {
    fn text(&self) -> String {
        braced(&[
            ("rule", self.rule.as_ref().and_then(shown)),
            ("meter", self.meter.as_ref().and_then(shown)),
            ("quantity", self.quantity.as_ref().and_then(shown)),
        ])
    }

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
                let entry = lookup(map, key, 0..map.len().min(1)).first().copied().flatten();
                entry.map(|entry| map.values().slice(usize::try_from(entry).unwrap_or(0), 1))
            }
        };
        let same = match &actual {
            Some(actual) => actual.as_ref() == self.value.as_ref(),
            None => self.value.is_null(0),
        };
        let is = actual.as_ref().map_or_else(|| "absent".to_owned(), values::shown);
        (!same).then(|| format!("{} is {is}; expected {}", self.written, values::shown(&self.value)))
    }
}
