//! What holds for all documents, expressions and batches.

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use proptest::prelude::*;
use rules::{Applied, Catalog, Revision};

use crate::shop::{self, row};

const ODD: usize = 5;

fn words() -> impl Strategy<Value = String> {
    let words = [
        "large",
        "small",
        "ratio",
        "price",
        "flag",
        "day",
        "at",
        "text",
        "other",
        "raw",
        "must",
        "tags['a']",
        "tags",
        "0",
        "1",
        "-1",
        "9223372036854775807",
        "0.1",
        "1e30",
        "'x'",
        "'12'",
        "''",
        "NULL",
        "TRUE",
        "(",
        ")",
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "AND",
        "OR",
        "NOT",
        "=",
        "<>",
        "<",
        ">",
        "IS NULL",
        "LIKE",
        "ILIKE",
        "IN",
        "BETWEEN",
        "CASE",
        "WHEN",
        "THEN",
        "ELSE",
        "END",
        "CAST(",
        "AS BIGINT)",
        "AS INT)",
        "AS DATE)",
        "AS DECIMAL(5,2))",
        ",",
        "upper(",
        "coalesce(",
        "nullif(",
        "left(",
        "substr(",
        "regexp_replace(",
        "abs(",
        "round(",
        "date_trunc('day',",
        "sha256(",
        "power(",
        "split_part(",
        "[",
        "]",
        "\"",
        "'",
        ";",
        "--",
        "ä",
        "::",
        "interval '1 day'",
        "date_part('year',",
        "to_timestamp(",
        "chr(",
        "::timestamp",
        "~",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..14).prop_map(|words| words.join(" "))
}

/// Expressions that mostly compile.
fn integer(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop::sample::select(vec![
        "large",
        "must",
        "small",
        "0",
        "1",
        "-1",
        "2",
        "9223372036854775807",
        "CAST(text AS BIGINT)",
        "length(text)",
        "length(tags['a'])",
        "TRY_CAST(text AS BIGINT)",
        "CAST(large AS INT)",
    ])
    .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let (a, b, c) = (integer(depth - 1), integer(depth - 1), condition(depth - 1));
    prop_oneof![
        2 => leaf,
        4 => (a.clone(), prop::sample::select(vec!["+", "-", "*", "/", "%"]), b.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
        1 => (c, a.clone(), b.clone()).prop_map(|(c, a, b)| format!("CASE WHEN {c} THEN {a} ELSE {b} END")),
        1 => (a.clone(), b).prop_map(|(a, b)| format!("coalesce({a}, {b})")),
        1 => a.prop_map(|a| format!("abs(- {a})")),
    ]
    .boxed()
}

fn condition(depth: u32) -> BoxedStrategy<String> {
    let leaf = prop::sample::select(vec![
        "flag",
        "large > 0",
        "text LIKE '1%'",
        "tags['a'] = 'x'",
        "large IS NULL",
        "ratio / ratio > 0.5",
        "price > 1.5",
        "10 / large > 1",
        "text IN ('1', '2')",
        "TRUE",
        "NULL",
    ])
    .prop_map(str::to_owned);
    if depth == 0 {
        return leaf.boxed();
    }
    let (a, b, n) = (condition(depth - 1), condition(depth - 1), integer(depth - 1));
    prop_oneof![
        2 => leaf,
        2 => (a.clone(), b.clone()).prop_map(|(a, b)| format!("({a} AND {b})")),
        2 => (a.clone(), b).prop_map(|(a, b)| format!("({a} OR {b})")),
        1 => a.prop_map(|a| format!("(NOT {a})")),
        2 => (n.clone(), n).prop_map(|(a, b)| format!("({a} >= {b})")),
    ]
    .boxed()
}

fn action() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("drop: true".to_owned()),
        integer(2).prop_map(|value| format!("set: {{large: \"{value}\", other: \"text || {value}\"}}")),
        integer(1).prop_map(|value| format!("set: {{must: \"{value}\", \"tags['a']\": \"{value}\"}}")),
        Just("mask: {\"tags['a']\": sha256, text: truncate(1)}".to_owned()),
        Just("rename: {text: other, \"tags['a']\": \"tags['b']\"}".to_owned()),
        Just("route: [odd, second]".to_owned()),
        integer(1).prop_map(|value| format!("alert: {{severity: info, key: other, text: \"{value}\"}}")),
        integer(2).prop_map(|value| format!("charge: {{meter: m, quantity: \"{value}\"}}")),
        Just("charge: {meter: m, quantity: price * 10}".to_owned()),
    ]
}

fn document(tenant: &'static str) -> impl Strategy<Value = String> {
    let rule = (prop::option::of(condition(2)), action());
    prop::collection::vec(rule, 0..5).prop_map(move |rules| {
        let mut text = format!("tenant: \"{tenant}\"\nmeters: {{m: {{unit: x, scale: 1}}}}\nrules:\n");
        for (index, (when, action)) in rules.iter().enumerate() {
            let when = when
                .as_ref()
                .map(|when| format!("when: \"{when}\", "))
                .unwrap_or_default();
            text.push_str(&format!("  - {{name: r{index}, events: [odd], {when}{action}}}\n"));
        }
        if rules.is_empty() {
            text.replace("rules:\n", "")
        } else {
            text
        }
    })
}

fn catalog() -> Catalog {
    let mut catalog = shop::catalog();
    catalog.events[ODD].tables.push("second".to_owned());
    catalog
}

type Row = Vec<(&'static str, String)>;

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let value = |values: &'static [&'static str]| prop::option::of(prop::sample::select(values.to_vec()));
    let one = (
        prop::sample::select(vec!["a", "b", "c"]),
        value(&["0", "1", "-1", "5", "9223372036854775807", "-9223372036854775808"]),
        value(&["0", "3", "2147483647"]),
        value(&["0", "0.5", "-2"]),
        value(&["0.00", "1.50", "99999999.99", "1.25"]),
        value(&["true", "false"]),
        value(&["", "1", "12", "x", "ä", "9999999999999999999"]),
        value(&["x", "y", ""]),
    );
    let row = one.prop_map(|(tenant, large, small, ratio, price, flag, text, tag)| {
        let mut pairs = row([("tenant_id", tenant)]);
        let given = [
            ("large", large),
            ("small", small),
            ("ratio", ratio),
            ("price", price),
            ("flag", flag),
            ("text", text),
            ("tags.a", tag),
        ];
        pairs.extend(
            given
                .into_iter()
                .filter_map(|(path, value)| Some((path, value?.to_owned()))),
        );
        pairs
    });
    prop::collection::vec(row, 0..40)
}

/// As one batch would have given it: rows of the second are counted on, and dead rows, which hold no meaning, blanked.
fn joined(first: Applied, second: Applied) -> Applied {
    let shift = u32::try_from(first.batch.num_rows()).unwrap();
    let mut all = first;
    all.batch = concat_batches(&all.batch.schema(), [&all.batch, &second.batch]).unwrap();
    for route in second.routes {
        let rows = route.rows.iter().map(|row| row + shift);
        match all.routes.iter_mut().find(|known| known.table == route.table) {
            Some(known) => known.rows.extend(rows),
            None => all.routes.push(rules::Route {
                table: route.table,
                rows: rows.collect(),
            }),
        }
    }
    all.routes.sort_by(|a, b| a.table.cmp(&b.table));
    all.alerts.extend(second.alerts.into_iter().map(|alert| rules::Alert {
        row: alert.row + shift,
        ..alert
    }));
    all.charges
        .extend(second.charges.into_iter().map(|charge| rules::Charge {
            row: charge.row + shift,
            ..charge
        }));
    all.failures
        .extend(second.failures.into_iter().map(|failure| rules::Failure {
            row: failure.row + shift,
            ..failure
        }));
    all.dropped.extend(second.dropped.into_iter().map(|row| row + shift));
    all
}

fn alive(applied: &Applied) -> RecordBatch {
    let dead = |row: &u32| applied.dropped.contains(row) || applied.failures.iter().any(|failure| failure.row == *row);
    let rows: Vec<u32> = (0..u32::try_from(applied.batch.num_rows()).unwrap())
        .filter(|row| !dead(row))
        .collect();
    arrow::compute::take_record_batch(&applied.batch, &arrow::array::UInt32Array::from(rows)).unwrap()
}

/// `PROPTEST_CASES=50000` looks longer.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_expression_panics_whatever_it_says(expression in words(), rows in rows()) {
        let quoted = expression.replace('\'', "''");
        let text = format!("tenant: \"*\"\nrules:\n  - {{name: a, events: [odd], when: '{quoted}', drop: true}}\n  - {{name: b, events: [odd], alert: {{severity: info, text: '{quoted}'}}}}\n  - {{name: c, events: [odd], set: {{large: '{quoted}'}}}}\n");
        for line in 2..5 {
            let one: Vec<&str> = text.lines().enumerate().filter(|(index, _)| *index < 2 || *index == line).map(|(_, line)| line).collect();
            let document = ("x.yaml".to_owned(), one.join("\n"));
            let catalog = catalog();
            if let Ok(revision) = Revision::compile(1, &[document], &catalog) {
                let batch = shop::batch(&catalog.events[ODD], &rows);
                let applied = revision.apply(ODD, &batch);
                prop_assert_eq!(applied.batch.num_rows(), rows.len());
                prop_assert!(applied.failures.iter().all(|failure| failure.code != rules::Code::Internal), "{:?}", applied.failures);
            }
        }
    }

    #[test]
    fn no_document_panics_whatever_its_bytes(text in "\\PC{0,200}") {
        let outcome = rules::check("x.yaml", &text, &catalog());
        prop_assert!(outcome.is_err() || text.contains("tenant"));
    }

    #[test]
    fn a_batch_cut_in_two_gives_what_the_whole_gives(
        (own, star) in (document("a"), document("*")),
        rows in rows(),
        cut in 0.0..1.0_f64,
    ) {
        let catalog = catalog();
        let documents = [("a.yaml".to_owned(), own), ("star.yaml".to_owned(), star)];
        let revision = Revision::compile(1, &documents, &catalog)
            .map_err(|faults| TestCaseError::fail(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))?;
        let whole = shop::batch(&catalog.events[ODD], &rows);
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
        let at = (cut * rows.len() as f64) as usize;
        let mut applied = revision.apply(ODD, &whole);
        let parts = joined(
            revision.apply(ODD, &whole.slice(0, at)),
            revision.apply(ODD, &whole.slice(at, rows.len() - at)),
        );
        prop_assert_eq!(alive(&applied), alive(&parts));
        applied.routes.sort_by(|a, b| a.table.cmp(&b.table));
        applied.batch = parts.batch.clone();
        prop_assert_eq!(&applied, &parts);
        // Every row is somewhere exactly once: in a table, dropped, or failed.
        for row in 0..u32::try_from(rows.len()).unwrap() {
            let routed = applied.routes.iter().any(|route| route.rows.contains(&row));
            let failed = applied.failures.iter().filter(|failure| failure.row == row).count();
            let dropped = applied.dropped.iter().filter(|dropped| **dropped == row).count();
            prop_assert_eq!(usize::from(routed) + failed + dropped, 1, "row {}", row);
        }
    }
}
