//! Whole documents: those that ship as examples, and the tests inside of documents.

use rules::{Revision, TestOutcome, run_tests};

use crate::shop;

fn example(name: &str) -> String {
    let path = format!("{}/../examples/shop/rules/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

fn outcomes(text: &str) -> Vec<TestOutcome> {
    let catalog = shop::catalog();
    let rules = rules::check("rules.yaml", text, &catalog).unwrap_or_else(|faults| {
        panic!(
            "{}",
            faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        )
    });
    run_tests(&rules, &catalog)
}

#[test]
fn the_examples_pass_their_own_tests() {
    for (name, tests) in [("default.yaml", 6), ("acme.yaml", 6)] {
        let outcomes = outcomes(&example(name));
        let failed: Vec<&TestOutcome> = outcomes.iter().filter(|outcome| !outcome.passed).collect();
        assert!(failed.is_empty(), "{name}: {failed:#?}");
        assert_eq!(outcomes.len(), tests, "{name}");
    }
}

#[test]
fn the_examples_compile_together() {
    let documents = ["default.yaml", "acme.yaml"].map(|name| (name.to_owned(), example(name)));
    assert_eq!(
        Revision::compile(1, &documents, &shop::catalog()).unwrap().programs(),
        2
    );
}

#[test]
fn a_test_that_expects_something_else_says_what_differs() {
    let outcomes = outcomes(
        r#"tenant: acme
meters: {m: {unit: EUR}}
rules:
  - {name: bots, when: "source = 'bot'", drop: true}
  - {name: divide, events: [order.created], set: {amount_minor: 100 / amount_minor}}
  - {name: alert, events: [order.created], when: amount_minor > 10, alert: {severity: info, key: currency, text: amount_minor}}
  - {name: charge, events: [order.created], when: amount_minor > 10, charge: {meter: m, quantity: amount_minor}}
tests:
  - {name: dropped, given: {type: order.created, source: bot}, expect: {dropped: false, row: {currency: EUR}, tables: [orders]}}
  - {name: not dropped, given: {type: order.created, amount_minor: 1}, expect: {dropped: true}}
  - {name: row, given: {type: order.created, amount_minor: 1, properties: {a: x}}, expect: {row: {amount_minor: 99, properties: {a: y, b: z}, "properties['c']": w, coupon: X, occurred_at: "2026-11-21T12:00:00Z"}, tables: [orders_vip]}}
  - {name: failure, given: {type: order.created, amount_minor: 0}, expect: {row: {amount_minor: 1}}}
  - {name: other failure, given: {type: order.created, amount_minor: 0}, expect: {failure: overflow}}
  - {name: no failure, given: {type: order.created, amount_minor: 1}, expect: {failure: overflow}}
  - {name: alerts, given: {type: order.created, amount_minor: 2}, expect: {alerts: [], charges: []}}
  - {name: alert, given: {type: order.created, amount_minor: 2}, expect: {alerts: [{key: null}], charges: [{quantity: 51}]}}
  - {name: passes, given: {type: order.created, amount_minor: 2}, expect: {alerts: [{rule: alert, severity: info, key: "", text: 50}], charges: [{rule: charge, meter: m, quantity: 50}], dropped: false, tables: [orders]}}
  - {name: fails as expected, given: {type: order.created, amount_minor: 0}, expect: {failure: divide_by_zero, tables: [], alerts: []}}
"#,
    );
    let said = |outcome: &TestOutcome| {
        format!(
            "{}:{} {} {}\n  {}",
            outcome.line,
            outcome.column,
            outcome.name,
            outcome.passed,
            outcome.differences.join("\n  ")
        )
    };
    insta::assert_snapshot!(outcomes.iter().map(said).collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_test_s_event_has_all_types_and_its_tenant() {
    let outcomes = outcomes(
        r#"tenant: acme
rules: []
tests:
  - given:
      type: odd
      small: 1
      large: 9223372036854775807
      ratio: 0.5
      price: 12.5
      flag: true
      day: 2026-11-21
      at: 1763726400000
      raw: bytes
      text: 5
      must: -1
      tags: {a: b}
    expect:
      row: {tenant_id: acme, small: 1, large: 9223372036854775807, ratio: 0.5, price: 12.50, flag: true, day: 2026-11-21, at: "2025-11-21T12:00:00Z", raw: bytes, text: "5", must: -1, tags: {a: b, c: null}}
  - {given: {type: odd}, expect: {row: {small: null, must: 0, tags: {a: null}}}}
  - {given: {type: order.created, skus: [a, b], tenant_id: other}, expect: {row: {type: order.created, tenant_id: other, skus: [a, b]}}}
"#,
    );
    assert!(outcomes.iter().all(|outcome| outcome.passed), "{outcomes:#?}");
    assert_eq!(outcomes[1].name, "tests[1]");
}
