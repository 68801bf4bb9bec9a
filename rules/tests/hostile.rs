//! No document and no expression whatever makes the checker or a compiled rule panic, overflow its stack, take more
//! memory than its limits say, or go on for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fuzz/bodies/counted.rs"]
mod counted;
#[path = "../../fuzz/bodies/faults.rs"]
mod faults;
#[path = "../../fuzz/bodies/rules.rs"]
mod hostile;
#[path = "rules/shop.rs"]
#[allow(dead_code)]
mod shop;
#[path = "../../fuzz/bodies/yaml.rs"]
mod yaml;

use std::sync::mpsc;
use std::time::Duration;

use proptest::prelude::*;

#[global_allocator]
static COUNTED: counted::Counted = counted::Counted;

/// A lane's stack, and a test's: what is refused may not need more.
const STACK_BYTES: usize = 2 << 20;
/// Far more than anything here takes, even when the machine is busy: what takes longer goes on for ever.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// What checking a small document and applying it to a few rows may take.
const CHECK_BYTES_MAX: usize = 256 << 20;

/// Runs something on a lane's stack; says how many bytes it took.
fn ends(what: &str, run: impl FnOnce() + Send + 'static) -> usize {
    let (done, ended) = mpsc::channel();
    // An overflow ends the process, and tells the thread's name.
    let name = what.chars().filter(|letter| *letter != '\0').collect();
    let thread = std::thread::Builder::new().name(name).stack_size(STACK_BYTES);
    let thread = thread.spawn(move || {
        let ((), bytes) = counted::peak(run);
        done.send(bytes).unwrap();
    });
    match ended.recv_timeout(ENDS_WITHIN) {
        Ok(bytes) => bytes,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("it does not end: {what}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let panicked = thread.unwrap().join().unwrap_err();
            let said = panicked.downcast_ref::<String>().map_or("", String::as_str);
            panic!("{what}: {said}")
        }
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(120).collect()
}

fn expression_ends(expression: String) {
    let bytes = ends(&shortened(&expression), {
        let expression = expression.clone();
        move || hostile::expression(expression.as_bytes())
    });
    assert!(bytes < CHECK_BYTES_MAX, "{bytes} bytes for {}", shortened(&expression));
}

/// What can be nested: what opens a level, what stands in the middle, what closes a level.
const NESTED: [(&str, &str, &str); 58] = [
    ("(", "1", ")"),
    ("(", "flag", " AND flag)"),
    ("NOT ", "flag", ""),
    ("- ", "large", ""),
    ("+ ", "large", ""),
    ("~ ", "large", ""),
    ("@ ", "large", ""),
    ("", "large", " + 1"),
    ("1 + ", "large", ""),
    ("", "text", " || 'x'"),
    ("", "flag", " AND flag"),
    ("", "flag", " IS TRUE"),
    ("", "flag", " = flag"),
    ("", "flag", " BETWEEN FALSE AND TRUE"),
    ("(", "flag", " BETWEEN FALSE AND flag)"),
    ("large BETWEEN ", "1", " AND 2"),
    ("coalesce(", "large", ", 1)"),
    ("coalesce(", "flag", ", flag, TRUE)"),
    ("nvl(", "large", ", 1)"),
    ("ifnull(", "text", ", 'x')"),
    ("nvl2(", "large", ", large, 1)"),
    ("nullif(", "large", ", 1)"),
    ("greatest(", "large", ", 1)"),
    ("CASE WHEN ", "flag", " THEN flag ELSE large > 1 END"),
    ("CASE WHEN flag THEN ", "flag", " ELSE flag END"),
    ("CASE WHEN flag THEN large ELSE ", "large", " END"),
    ("CASE ", "large", " WHEN 1 THEN 2 ELSE 3 END"),
    (
        "CASE WHEN ",
        "flag",
        " THEN TRUE WHEN flag THEN FALSE WHEN large > 2 THEN TRUE ELSE FALSE END",
    ),
    ("CAST(", "large", " AS BIGINT)"),
    ("CAST(CAST(", "text", " AS VARCHAR) ~ 'a|b|c|d' AS VARCHAR)"),
    ("", "large", "::bigint"),
    ("large::bigint", "", "[]"),
    ("CAST(large AS INT", "[]", ")"),
    ("upper(", "text", ")"),
    ("concat(text, ", "text", ")"),
    ("replace(", "text", ", 'a', 'bb')"),
    ("tags[", "'a'", "]"),
    ("tags", "", "['a']"),
    ("interval ", "'1 day'", ""),
    ("(SELECT ", "1", ")"),
    ("EXISTS (SELECT ", "1", ")"),
    ("(1, ", "1", ")"),
    ("ARRAY[", "1", "]"),
    ("", "large", " IN (1, 2, 3)"),
    ("", "text", " AT TIME ZONE 'UTC'"),
    ("large.", "large", ""),
    ("NOT (", "flag", ")"),
    ("and(", "flag", ")"),
    ("case(", "flag", ")"),
    ("cast(", "large", ")"),
    ("interval(", "large", ")"),
    ("point(", "large", ")"),
    ("array[", "large", "]"),
    ("array(", "large", ")"),
    ("text.upper(", "large", ")"),
    ("large IN (", "1", ")"),
    ("large IN ((", "1", "))"),
    ("large IN (values(", "1", "))"),
];

/// A nesting of some depth; where nothing is closed, or nothing opened, that side is repeated all the same.
fn nested((open, middle, close): (&str, &str, &str), depth: usize) -> String {
    format!("{}{middle}{}", open.repeat(depth), close.repeat(depth))
}

#[test]
fn an_expression_ends_however_deep_it_is_nested() {
    for pattern in NESTED {
        let level = (pattern.0.len() + pattern.2.len()).max(1);
        for depth in [5, 20, 62, 4000 / level] {
            expression_ends(nested(pattern, depth.min(4000 / level)));
        }
    }
}

#[test]
fn what_stands_in_parts_that_no_rule_may_have_overflows_no_stack() {
    let chain = "1+".repeat(1900);
    for (before, after) in [
        ("(SELECT ", "1)"),
        ("EXISTS (SELECT ", "1)"),
        ("large IN (SELECT ", "1)"),
        ("tags[", "1:2]"),
        ("tags[1:", "1]"),
        ("tags[", "1]"),
        ("tags['a'].upper(", "1)"),
        ("sum(large) FILTER (WHERE ", "1)"),
        ("sum(large) OVER (PARTITION BY ", "1)"),
        ("upper(text => ", "1)"),
        ("array_agg(large ORDER BY ", "1)"),
        ("CAST(large AS TABLE(a INT DEFAULT ", "1))"),
        ("ARRAY[", "1]"),
        ("(1, ", "1)"),
        ("CASE WHEN ", "1 THEN 1 END"),
        ("large BETWEEN ", "1 AND 2"),
        ("interval ", "1"),
        ("extract(day from ", "1)"),
        ("position(", "1 in text)"),
        ("substring(text from ", "1)"),
        ("trim(both ", "1 from text)"),
    ] {
        expression_ends(format!("{before}{chain}{after}"));
    }
    let types = ["[]", "[1]"].map(|brackets| format!("CAST(large AS INT{})", brackets.repeat(1000)));
    for expression in types {
        expression_ends(expression);
    }
    expression_ends(format!("{}'1 day'", "interval ".repeat(440)));
    expression_ends("CAST(large AS ARRAY<INT>)".to_owned());
    expression_ends(format!("CAST(large AS {}INT{})", "ARRAY<".repeat(500), ">".repeat(500)));
    expression_ends(format!("large::{}int", "setof ".repeat(600)));
    for query in [
        "SELECT 1 FROM",
        "WITH a AS",
        "TABLE",
        "DELETE FROM a USING",
        "UPDATE a SET b = 1 FROM",
    ] {
        for before in ["", "flag AND ", "large IN ", "EXISTS ", "array", "upper"] {
            expression_ends(format!("{before}({query} {}", "(".repeat(1000)));
        }
    }
    expression_ends(format!("(SELECT 1 {})", "UNION SELECT 1 ".repeat(250)));
}

#[test]
fn long_and_huge_values_end() {
    let nines = "9".repeat(3000);
    for expression in [
        nines.clone(),
        format!("-{nines}"),
        format!("0.{nines}"),
        format!("{nines}.{nines}")[..4000].to_owned(),
        "1e999999999".to_owned(),
        "1e-999999999".to_owned(),
        "1e99999999999999999999999".to_owned(),
        "price * 1e38 * 1e38".to_owned(),
        format!("text IN ({}'x')", "'y', ".repeat(700)),
        format!("large IN ({}1)", "1, ".repeat(1300)),
        format!("concat({}text)", "text, ".repeat(600)),
        format!("coalesce({}text)", "text, ".repeat(600)),
        format!("greatest({}large)", "large, ".repeat(500)),
        format!("CASE {} ELSE 1 END", "WHEN flag THEN 1 ".repeat(200)),
        format!("CASE {} ELSE flag END", "WHEN flag THEN TRUE ".repeat(180)),
        format!(
            "CASE {} ELSE FALSE END",
            "WHEN 1=1 AND flag THEN flag OR TRUE ".repeat(100)
        ),
        format!("text LIKE '{}'", "%a".repeat(1900)),
        format!("text ILIKE '{}'", "%a_".repeat(1200)),
        format!("text SIMILAR TO '{}'", "(a|b)*".repeat(600)),
        format!("text ~ '{}'", "(".repeat(3900)),
        format!("text ~ '{}a{}'", "(".repeat(1900), ")".repeat(1900)),
        format!("text ~ '{}'", "a{1000}".repeat(500)),
        "text ~ '((a{100}){100}){100}'".to_owned(),
        "text ~ '\\w{1000}'".to_owned(),
        format!("text ~ '{}'", "\\pL{9}".repeat(500)),
        format!("text ~ '{}'", "a|".repeat(1900)),
        "regexp_replace(text, '(a*)*b', '\\1\\1\\1', 'g')".to_owned(),
        "regexp_count(text, '', 9223372036854775807)".to_owned(),
        "left(text, -9223372036854775808)".to_owned(),
        "right(text, -9223372036854775808)".to_owned(),
        "left(text, large)".to_owned(),
        "right(text, large)".to_owned(),
        "substr(text, large, large)".to_owned(),
        "substring(text from -9223372036854775808 for 9223372036854775807)".to_owned(),
        "split_part(text, other, large)".to_owned(),
        "substr_index(text, other, large)".to_owned(),
        "overlay(text placing other from large for large)".to_owned(),
        "chr(large)".to_owned(),
        "factorial(large)".to_owned(),
        "gcd(large, large)".to_owned(),
        "lcm(large, large - 1)".to_owned(),
        "power(large, large)".to_owned(),
        "power(price, large)".to_owned(),
        "round(ratio, large)".to_owned(),
        "round(price, small)".to_owned(),
        "trunc(ratio, large)".to_owned(),
        "log(large, ratio)".to_owned(),
        "to_hex(large)".to_owned(),
        "make_date(small, small, small)".to_owned(),
        "make_date(2147483647, 12, 31)".to_owned(),
        "date_trunc('year', at)".to_owned(),
        "date_bin(interval '1 day', at)".to_owned(),
        "date_bin(interval '0 day', at)".to_owned(),
        "date_part('epoch', at)".to_owned(),
        "date_part('week', day)".to_owned(),
        "extract(year from at)".to_owned(),
        "at + interval '999999999 years'".to_owned(),
        "at - interval '2147483647 months'".to_owned(),
        "at + interval '9223372036854775807 days'".to_owned(),
        "at - at".to_owned(),
        "day + large".to_owned(),
        "day - interval '1 month' * small".to_owned(),
        "at AT TIME ZONE 'Europe/Berlin'".to_owned(),
        "to_char(at, '%Y%%%Q%-%')".to_owned(),
        "to_char(at, text)".to_owned(),
        "to_timestamp(large)".to_owned(),
        "to_timestamp(ratio)".to_owned(),
        "to_timestamp(text)".to_owned(),
        "to_timestamp_nanos(at)".to_owned(),
        "to_date(text, '%q')".to_owned(),
        "to_unixtime(text)".to_owned(),
        "from_unixtime(large)".to_owned(),
        "CAST(ratio AS BIGINT)".to_owned(),
        "CAST(large AS TIMESTAMP)".to_owned(),
        "CAST(text AS DECIMAL(38, 37))".to_owned(),
        "CAST(text AS DECIMAL(38, -100))".to_owned(),
        "CAST(text AS DECIMAL(99, 0))".to_owned(),
        "CAST('1e2147483647' AS DECIMAL(38, 10))".to_owned(),
        "CAST('1e-2147483647' AS DECIMAL(38, 10))".to_owned(),
        "CAST('1e99999' AS DECIMAL(10, 2))".to_owned(),
        "CAST(text AS DATE)".to_owned(),
        "CAST('99999999999-01-01' AS DATE)".to_owned(),
        "CAST('-262144-01-01' AS TIMESTAMP)".to_owned(),
        "CAST(text AS INTERVAL)".to_owned(),
        "encode(text, 'base64') || encode(raw, 'hex')".to_owned(),
        "decode(text, 'base64') = raw".to_owned(),
        "translate(text, other, text)".to_owned(),
        "ascii(text) / ascii(other)".to_owned(),
        "large % -1".to_owned(),
        "large / -1".to_owned(),
        "abs(large)".to_owned(),
        "price * price * price * price".to_owned(),
        "price / 0.0000000000000000000000000000000000001".to_owned(),
        "large << large".to_owned(),
        "large >> small".to_owned(),
        "large # large | large & large".to_owned(),
    ] {
        expression_ends(expression);
    }
}

/// What a document of rules consists of.
const WORDS: [&str; 64] = [
    "tenant: ",
    "meters: ",
    "rules: ",
    "tests: ",
    "name: ",
    "events: ",
    "when: ",
    "drop: ",
    "set: ",
    "mask: ",
    "rename: ",
    "route: ",
    "alert: ",
    "charge: ",
    "severity: ",
    "key: ",
    "text: ",
    "meter: ",
    "quantity: ",
    "unit: ",
    "scale: ",
    "given: ",
    "expect: ",
    "row: ",
    "tables: ",
    "alerts: ",
    "charges: ",
    "failure: ",
    "dropped: ",
    "type: ",
    "true",
    "sha256",
    "truncate(4)",
    "truncate(99999999999)",
    "null",
    "info",
    "critical",
    "order.created",
    "odd",
    "orders",
    "orders_vip",
    "amount_minor",
    "properties['email']",
    "tags: ",
    "price: ",
    "at: ",
    "day: ",
    "large: ",
    "1e99999",
    "-9223372036854775808",
    "2026-13-45",
    "99999999999-01-01T00:00:00Z",
    "{",
    "}",
    "[",
    "]",
    ", ",
    "- ",
    "\n",
    "\n  ",
    "\"",
    "'",
    "&a ",
    "*a",
];

const EXAMPLES: [&str; 2] = [
    include_str!("../../examples/shop/rules/acme.yaml"),
    include_str!("../../examples/shop/rules/default.yaml"),
];

/// Every type of column, given and expected.
const ODD_TEST: &str = r#"tenant: acme
meters: {m: {unit: x, scale: 18}}
rules:
  - {name: s, events: [odd], when: "large > 0 OR tags['a'] = 'b'", set: {large: large + 1, "tags['c']": text, price: 1.5}}
  - {name: c, events: [odd], charge: {meter: m, quantity: price * 100}}
tests:
  - given: {type: odd, small: 1, large: 5, ratio: 0.5, price: 12.5, flag: true, day: 2026-11-21, at: 1763726400000, raw: bytes, text: x, must: -1, tags: {a: b}}
    expect: {row: {small: 1, price: 1.50, day: 2026-11-21, at: "2025-11-21T12:00:00Z", tags: {a: b, c: null}}, tables: [odd], failure: overflow, charges: [{quantity: 1}]}
"#;

#[test]
fn a_document_that_wants_to_be_large_deep_or_slow_ends() {
    for key in ["rules"] {
        for (name, text) in yaml::bombs(key) {
            let text = format!("{text}\n");
            let length = text.len();
            let bytes = ends(&format!("{name} in {key}"), move || {
                hostile::rule_document(text.as_bytes())
            });
            assert!(
                bytes < CHECK_BYTES_MAX + 16 * length,
                "{bytes} bytes for {name} in {key} of {length}"
            );
        }
    }
}

#[test]
fn a_document_of_nothing_but_mistakes_ends() {
    // As many columns as the rules of a document may have.
    let rules = |action: &str, columns: &dyn Fn(usize) -> String| {
        let rule = |rule: usize| {
            let columns: String = (0..200).map(|at| columns(200 * rule + at)).collect();
            format!("  - name: r{rule}\n    {action}:\n{columns}")
        };
        format!("tenant: a\nrules:\n{}", (0..200).map(rule).collect::<String>())
    };
    let column = |at: usize| format!("      c{at}: \"x(\"\n");
    let entry = |at: usize| format!("      \"tags['{at}']\": \"upper(text\"\n");
    let names: String = (0..30_000).map(|at| format!("        nothing_{at}: 1\n")).collect();
    let test = |place: &str| {
        format!(
            "tenant: a\ntests:\n  - given:\n        type: order.created\n{}    expect:\n      row:\n{}",
            if place == "given" { &names } else { "" },
            if place == "expect" {
                &names
            } else {
                "        order_id: x\n"
            }
        )
    };
    for (name, text) in [
        ("set columns", rules("set", &column)),
        ("set entries", rules("set", &entry)),
        ("mask columns", rules("mask", &column)),
        ("rename columns", rules("rename", &column)),
        ("given", test("given")),
        ("expect", test("expect")),
    ] {
        let length = text.len();
        let bytes = ends(name, move || hostile::rule_document(text.as_bytes()));
        assert!(bytes < CHECK_BYTES_MAX + 16 * length, "{bytes} bytes for {name}");
    }
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(WORDS.to_vec()), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        hostile::rule_document(&bytes);
    }

    #[test]
    fn a_document_of_the_words_that_documents_have_never_panics(text in words()) {
        hostile::rule_document(text.as_bytes());
        hostile::rule_document(format!("tenant: a\nrules:\n  - {{{text}}}\ntests:\n  - {{{text}}}\n").as_bytes());
    }

    #[test]
    fn an_example_that_a_hand_has_slipped_on_never_panics(
        example in 0..3_usize,
        edits in prop::collection::vec(any::<u8>(), 0..24),
    ) {
        let text = EXAMPLES.get(example).copied().unwrap_or(ODD_TEST);
        hostile::rule_document(yaml::edited(text, &edits, &WORDS).as_bytes());
    }

    #[test]
    fn a_value_of_a_test_never_panics_whatever_its_column(
        column in prop::sample::select(vec![
            "small", "large", "ratio", "price", "flag", "day", "at", "raw", "text", "must", "tags",
        ]),
        value in prop_oneof![
            "[-+]?[0-9]{0,40}(\\.[0-9]{0,40})?([eE][-+]?[0-9]{1,12})?",
            "[-+]?[0-9]{1,12}-[0-9]{1,3}-[0-9]{1,3}([T ][0-9]{1,3}:[0-9]{1,3}(:[0-9]{1,3}(\\.[0-9]{0,12})?)?)?(Z|[-+][0-9]{1,4}(:[0-9]{1,2})?| [A-Z]{1,4})?",
            "\\PC{0,20}",
        ],
    ) {
        let value = serde_json::Value::from(value.as_str());
        let text = format!(
            "tenant: a\ntests:\n  - {{given: {{type: odd, {column}: {value}}}, expect: {{row: {{{column}: {value}}}}}}}\n"
        );
        hostile::rule_document(text.as_bytes());
    }

    #[test]
    fn an_expression_of_any_letters_never_panics(text in "\\PC{0,60}") {
        hostile::expression(text.as_bytes());
    }
}

fn said_of(expression: &str) -> String {
    let quoted = serde_json::Value::from(expression);
    let text = format!("tenant: a\nrules:\n  - {{name: r, events: [odd], when: {quoted}, drop: true}}\n");
    match rules::check("a.yaml", &text, hostile::catalog()) {
        Ok(_) => "fine".to_owned(),
        Err(faults) => faults[0].message.clone(),
    }
}

#[test]
fn what_would_double_with_every_level_is_refused_and_what_people_write_is_not() {
    let too_large = "the expression would become too large: BETWEEN, CASE, coalesce and patterns inside of each other \
                     repeat what is in them; split the rule";
    let too_deep = "the expression is nested too deep; split the rule";
    for (open, middle, close) in [
        ("(", "flag", " BETWEEN FALSE AND TRUE)"),
        ("coalesce(", "flag", ", TRUE)"),
        ("\"coalesce\"(", "flag", ", TRUE)"),
        ("CASE WHEN ", "flag", " THEN flag ELSE FALSE END"),
        ("(CAST(", "flag", " AS VARCHAR) ~ 'a|b|c|d')"),
    ] {
        assert_eq!(said_of(&nested((open, middle, close), 2)), "fine", "{open}");
        let refused = said_of(&nested((open, middle, close), 20));
        assert!(refused == too_large || refused == too_deep, "{open}: {refused}");
    }
    let else_if = nested(("CASE WHEN large = 1 THEN 2 ELSE ", "3", " END"), 12) + " = 2";
    let many = format!(
        "CASE {} ELSE FALSE END",
        "WHEN large BETWEEN 1 AND 2 THEN TRUE ".repeat(30)
    );
    let first_there = nested(("coalesce(text, ", "other", ")"), 12) + " = 'x'";
    for expression in [else_if, many, first_there] {
        assert_eq!(said_of(&expression), "fine", "{expression}");
    }
}

/// Levels: the whole, what is nested, and what is in the middle.
#[test]
fn what_is_as_deep_as_it_may_be_is_compiled_on_a_lanes_stack() {
    for (open, middle, close) in [
        ("upper(", "text", ")"),
        ("concat(text, ", "text", ")"),
        ("replace(", "text", ", 'a', 'bb')"),
        ("greatest(", "text", ", 'a')"),
        ("nullif(", "text", ", 'a')"),
        ("CASE WHEN large = 1 THEN 'a' ELSE ", "text", " END"),
        ("CAST(", "text", " AS VARCHAR)"),
        ("", "text", " || 'x'"),
    ] {
        let deep = |levels: usize| format!("{} = 'X'", nested((open, middle, close), levels));
        ends(open, move || {
            assert_eq!(said_of(&deep(61)), "fine", "{open}");
            // Where the parser meets the limit inside of a CASE it takes the word for a column and goes on.
            let refused = said_of(&deep(63));
            let too_deep = "the expression is nested too deep; split the rule";
            assert!(
                refused == too_deep || open.starts_with("CASE") && refused != "fine",
                "{open}: {refused}"
            );
        });
    }
}

#[test]
fn a_rule_names_two_hundred_columns_and_no_more() {
    let entries = |count: usize, value: &str| (0..count).map(|at| format!("\"tags['{at}']\": {value}, ")).collect();
    for (action, value) in [("set", "text"), ("mask", "sha256"), ("rename", "other")] {
        let said = |count: usize| {
            let columns: String = entries(count, value);
            let text = format!("tenant: a\nrules:\n  - {{name: r, events: [odd], {action}: {{{columns}}}}}\n");
            let faults = rules::check("a.yaml", &text, hostile::catalog())
                .err()
                .unwrap_or_default();
            faults.iter().map(|fault| fault.message.clone()).collect::<Vec<_>>()
        };
        let refused = "names 201 columns; a rule has at most 200";
        assert!(
            !said(200).iter().any(|message| message.starts_with("names ")),
            "{action}"
        );
        assert_eq!(said(201), [refused], "{action}");
    }
}
