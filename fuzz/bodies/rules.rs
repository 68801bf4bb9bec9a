//! What holds for any document of rules and any expression. The crate that takes this in has the tests' `shop` and
//! `faults` at its root.

use std::sync::LazyLock;

use rules::{Catalog, Revision};

use crate::faults::sound;
use crate::shop;

/// The event with a column of each type.
pub const ODD: usize = 5;

/// The shop's events, and an odd one.
pub fn catalog() -> &'static Catalog {
    static CATALOG: LazyLock<Catalog> = LazyLock::new(shop::catalog);
    &CATALOG
}

/// Checks the bytes as a document, runs its tests, and applies its rules to rows of every event.
pub fn rule_document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match rules::check("rules.yaml", text, catalog()) {
        Ok(rules) => {
            rules::run_tests(&rules, catalog());
            let documents = [("rules.yaml".to_owned(), text.to_owned())];
            let revision = Revision::compile(1, &documents, catalog()).unwrap();
            for event in 0..catalog().events.len() {
                apply(&revision, event);
            }
        }
        Err(faults) => sound(&faults),
    }
}

/// Uses the bytes as an expression, in each place that takes one.
pub fn expression(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    for place in places(text) {
        let document = format!(
            "tenant: \"*\"\nmeters: {{m: {{unit: x, scale: 1}}}}\nrules:\n  - {{name: a, events: [odd], {place}}}\n"
        );
        let documents = [("rules.yaml".to_owned(), document)];
        match Revision::compile(1, &documents, catalog()) {
            Ok(revision) => apply(&revision, ODD),
            Err(faults) => sound(&faults),
        }
    }
}

/// A rule's action for each kind of value that an expression can be.
fn places(expression: &str) -> [String; 4] {
    // A text in JSON is one in YAML.
    let quoted = serde_json::Value::from(expression).to_string();
    [
        format!("when: {quoted}, drop: true"),
        format!("set: {{large: {quoted}}}"),
        format!("alert: {{severity: info, text: {quoted}}}"),
        format!("charge: {{meter: m, quantity: {quoted}}}"),
    ]
}

/// Every row is somewhere exactly once: in a table, dropped, or failed.
fn apply(revision: &Revision, event: usize) {
    let shape = &catalog().events[event];
    let rows = if event == ODD { odd_rows() } else { vec![Vec::new(); 2] };
    let batch = shop::batch(shape, &rows);
    let applied = revision.apply(event, &batch);
    assert_eq!(applied.batch.num_rows(), rows.len());
    for row in 0..u32::try_from(rows.len()).unwrap() {
        let routed = applied.routes.iter().any(|route| route.rows.contains(&row));
        let failed = applied.failures.iter().filter(|failure| failure.row == row).count();
        let dropped = applied.dropped.iter().filter(|dropped| **dropped == row).count();
        assert_eq!(usize::from(routed) + failed + dropped, 1, "row {row} of {}", shape.name);
    }
}

/// The ends of all types.
fn odd_rows() -> Vec<Vec<(&'static str, String)>> {
    let row = |values: [&str; 10]| {
        let paths = [
            "large", "small", "ratio", "price", "flag", "text", "other", "at", "must", "tags.a",
        ];
        let pairs = paths.into_iter().zip(values);
        pairs
            .filter(|(_, value)| *value != "-")
            .map(|(path, value)| (path, value.to_owned()))
            .collect()
    };
    let max = "9223372036854775807";
    let min = "-9223372036854775808";
    vec![
        row(["-"; 10]),
        row(["0", "0", "0", "0.00", "true", "", "x", "0", "0", ""]),
        row([
            max,
            "2147483647",
            "1e308",
            "99999999.99",
            "false",
            max,
            "ä",
            max,
            max,
            "1e9",
        ]),
        row([
            min,
            "-2147483648",
            "-1e308",
            "-99999999.99",
            "true",
            min,
            "€😀",
            min,
            min,
            "2026-13-45",
        ]),
        row([
            "-1",
            "-1",
            "NaN",
            "-0.01",
            "true",
            "%_\\(",
            "[",
            "1763726400000",
            "-1",
            "NaN",
        ]),
    ]
}
