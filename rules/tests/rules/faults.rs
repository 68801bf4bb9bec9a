//! What is said about a document with mistakes.

use crate::shop;

fn faults(text: &str) -> String {
    match rules::check("acme.yaml", text, &shop::catalog()) {
        Ok(_) => "no faults".to_owned(),
        Err(faults) => faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
    }
}

#[test]
fn a_document_with_many_mistakes_names_all_of_them() {
    insta::assert_snapshot!(faults(
        r#"tenant: acme
meters: {revenue: {unit: EUR, scale: 20}, calls: {unit: call, sale: 1}}
rules:
  - {name: one, when: "amount_minr > 5 AND contxt.user_agent = 'x'", events: [order.created], drop: true}
  - {name: one, events: [order.creatd], drop: true}
  - name: folded
    events: [order.created]
    when: >
      amount_minor > 5
      AND no_such_column = 1
    drop: true
  - {name: nothing}
  - {name: two, drop: true, route: [orders]}
  - {name: false-drop, drop: false}
  - {name: syntax, when: "amount_minor >", drop: true}
  - {name: trailing, when: "amount_minor > 5 6", drop: true}
  - {name: route, events: [order.created], route: [ordrs, orders_vip]}
  - {name: meter, events: [payment.processed], charge: {meter: revnue, quantity: amount_minor}}
  - {name: severity, alert: {severity: fatal, text: "'x'", colour: red}}
  - {name: mask, mask: {user_id: md5, "lower(user_id)": sha256}}
  - {name: tenant, set: {tenant_id: "'other'"}}
  - {name: nowhere, when: "nobody_has_this = 1", drop: true}
tests:
  - given: {type: order.creatd}
    expect: {dropped: true}
  - given: {type: order.created, amount_minr: 5, amount_minor: five, context: {page: {utl: x}}}
    expect: {}
"#
    ));
}

#[test]
fn types_that_don_t_fit_are_refused_at_their_place() {
    insta::assert_snapshot!(faults(
        r#"tenant: acme
meters: {m: {unit: x, scale: 2}}
rules:
  - {name: condition, events: [order.created], when: amount_minor, drop: true}
  - {name: plus, events: [order.created], when: "1 = 1 AND amount_minor + gift_text > 3", drop: true}
  - {name: add, events: [order.created], when: "1 = 1 AND amount_minor + skus > 3", drop: true}
  - {name: narrow, events: [order.created], set: {item_count: amount_minor}}
  - {name: fits, events: [order.created], set: {item_count: 5, "properties['n']": amount_minor, amount_minor: item_count}}
  - {name: too-big, events: [order.created], set: {item_count: 5000000000}}
  - {name: text, events: [order.created], set: {amount_minor: currency}}
  - {name: nil, events: [order.created], set: {amount_minor: null}}
  - {name: decimal, events: [order.created], set: {amount_minor: amount_minor * 1.21}}
  - {name: float, events: [user.pageview], charge: {meter: m, quantity: context.screen.density}}
  - {name: float-compare, events: [user.pageview], when: context.screen.density > 1.5, drop: true}
  - {name: charge-text, events: [order.created], charge: {meter: m, quantity: currency}}
  - {name: alert-list, events: [order.created], alert: {severity: info, text: skus}}
  - {name: set-list, events: [order.created], set: {currency: skus}}
  - {name: mask-null, mask: {session_id: null}}
  - {name: mask-int, events: [order.created], mask: {amount_minor: sha256}}
  - {name: no-map, set: {"session_id['x']": "'1'"}}
  - {name: twice, set: {context.user_agent: "'a'", context_user_agent: "'b'"}}
  - {name: rename-types, events: [order.created], rename: {coupon: amount_minor}}
  - {name: rename-mixed, rename: {user_id: "properties['u']"}}
  - {name: rename-int, events: [order.created], rename: {item_count: item_count}}
  - {name: key, events: [order.created], when: "properties[1] = 'x'", drop: true}
  - {name: some, when: "CAST(severity AS BIGINT) + severity > 1 OR severity", drop: true}
"#
    ));
}

#[test]
fn what_is_not_offered_says_why() {
    insta::assert_snapshot!(faults(
        r#"tenant: acme
rules:
  - {name: now, when: "occurred_at < now()", drop: true}
  - {name: today, when: "occurred_at < current_date", drop: true}
  - {name: random, when: "random() < 0.5", drop: true}
  - {name: uuid, set: {session_id: uuid()}}
  - {name: repeat, set: {session_id: "repeat(session_id, 1000000)"}}
  - {name: pad, set: {session_id: "lpad(session_id, 1000000, 'x')"}}
  - {name: sum, when: "sum(schema_version) > 5", drop: true}
  - {name: window, when: "upper(source) OVER () = 'A'", drop: true}
  - {name: query, when: "source IN (SELECT 'x')", drop: true}
  - {name: exists, when: "EXISTS (SELECT 1)", drop: true}
  - {name: slip, when: "uper(source) = 'A'", drop: true}
  - {name: parameter, when: "source = $1", drop: true}
  - {name: pattern, when: "regexp_like(source, session_id)", drop: true}
  - {name: operator, when: "source ~ session_id", drop: true}
  - {name: replacement, set: {source: "regexp_replace(source, 'a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa')"}}
  - {name: list, when: "CAST(source AS INT[1000000000]) IS NULL", drop: true}
  - {name: bomb, set: {source: "arrow_cast(source, 'FixedSizeBinary(1000000000)')"}}
"#
    ));
}

#[test]
fn what_would_fail_for_every_event_is_refused() {
    insta::assert_snapshot!(faults(
        r#"tenant: acme
rules:
  - {name: like, when: "regexp_like(source, '(')", drop: true}
  - {name: operator, when: "source ~ '('", drop: true}
  - {name: replace, set: {source: "regexp_replace(source, '(', 'x')"}}
  - {name: count, when: "regexp_count(source, '(') > 1", drop: true}
  - {name: instr, when: "regexp_instr(source, '(') > 1", drop: true}
  - {name: huge, when: "source ~ '((a{1000}){1000}){1000}'", drop: true}
  - {name: truncate, when: "date_trunc('fortnight', occurred_at) > occurred_at", drop: true}
  - {name: part, when: "date_part('fortnight', occurred_at) > 1", drop: true}
  - {name: encoding, set: {source: "encode(source, 'rot13')"}}
  - {name: digest, set: {source: "encode(digest(source, 'crc'), 'hex')"}}
  - {name: literal, when: "CAST('x' AS INT) > 1", drop: true}
"#
    ));
}

#[test]
fn what_isn_t_a_document_is_refused() {
    insta::assert_snapshot!(
        [
            "",
            "[]",
            "tenant:",
            "rules: []",
            "tenant: a\nrules: {}",
            "tenant: a\nrules: [5]",
            "tenant: a\nrulse: []",
            "{",
            "tenant: \"a\u{0}\""
        ]
        .map(faults)
        .join("\n---\n")
    );
}

#[test]
fn limits_are_said_and_deep_expressions_don_t_exhaust_the_stack() {
    let nested = format!(
        "tenant: a\nrules: [{{name: r, drop: true, when: \"{}1{} = 1\"}}]",
        "(".repeat(500),
        ")".repeat(500)
    );
    let long = format!(
        "tenant: a\nrules: [{{name: r, drop: true, when: \"1{} = 1\"}}]",
        "+1".repeat(1000)
    );
    let longer = format!(
        "tenant: a\nrules: [{{name: r, drop: true, when: \"'{}' = ''\"}}]",
        "x".repeat(5000)
    );
    let many = format!(
        "tenant: a\nrules:\n{}",
        (0..201)
            .map(|n| format!("- {{name: r{n}, drop: true}}\n"))
            .collect::<String>()
    );
    // A lane's thread has two megabytes.
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let said = small
        .spawn(move || [nested, long, longer, many].map(|text| faults(&text)).join("\n---\n"))
        .unwrap()
        .join();
    insta::assert_snapshot!(said.unwrap());
}

#[test]
fn an_expression_at_the_depth_limit_compiles_on_a_small_stack() {
    let small = std::thread::Builder::new().stack_size(2 << 20);
    let text = format!(
        "tenant: a\nrules: [{{name: r, events: [order.created], set: {{amount_minor: \"amount_minor{}\"}}}}]",
        "+1".repeat(60)
    );
    assert_eq!(small.spawn(move || faults(&text)).unwrap().join().unwrap(), "no faults");
}

#[test]
fn what_would_go_nowhere_is_refused() {
    let mut catalog = shop::catalog();
    (catalog.alerts, catalog.charges) = (false, false);
    let text = r#"tenant: acme
meters: {revenue: {unit: EUR, scale: 2}}
rules:
  - {name: told, events: [order.created], alert: {severity: warning, text: "'x'"}}
  - {name: paid, events: [order.created], charge: {meter: revenue, quantity: amount_minor}}
"#;
    let faults = rules::check("acme.yaml", text, &catalog).unwrap_err();
    insta::assert_snapshot!(faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"), @r#"
    acme.yaml:4:76: rules[0].alert.text: the pipeline has no alert topic: give it one with `sinks.alerts.topic`
    acme.yaml:5:59: rules[1].charge.meter: the pipeline has no service that takes charges: name one under `sinks`, such as `billing`
    "#);
}
