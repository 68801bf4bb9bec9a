//! Rows that fail: each code, what stays of them, and what others notice (nothing).

use crate::applying::{failures, routes, world};
use crate::shop::{ORDER, row};

const ODD: usize = 5;

/// One rule on the odd event, applied to rows; the failures.
fn odd_failures(rule: &str, rows: &[Vec<(&str, String)>]) -> Vec<String> {
    failures(&world(&format!("- {{name: r, events: [odd], {rule}}}")).apply(ODD, rows))
}

#[test]
fn a_division_by_zero_fails_its_row_for_integers_decimals_and_floats() {
    let rows = [
        row([("large", "0"), ("price", "0"), ("ratio", "0")]),
        row([("large", "2"), ("price", "2"), ("ratio", "2")]),
    ];
    for quotient in ["10 / large", "10 % large"] {
        assert_eq!(
            odd_failures(&format!("set: {{large: {quotient}}}"), &rows),
            ["0 divide_by_zero r.large"],
            "{quotient}"
        );
    }
    assert_eq!(
        odd_failures("set: {ratio: 'ratio / ratio'}", &rows),
        ["0 divide_by_zero r.ratio"]
    );
    assert_eq!(
        odd_failures("set: {ratio: 'ratio % ratio'}", &rows),
        ["0 divide_by_zero r.ratio"]
    );
    assert_eq!(
        odd_failures("when: 10.5 / price > 1, drop: true", &rows),
        ["0 divide_by_zero r.when"]
    );
}

#[test]
fn integer_arithmetic_overflows_instead_of_wrapping() {
    let max = i64::MAX.to_string();
    let min = i64::MIN.to_string();
    let rows = [row([("large", &max)]), row([("large", &min)]), row([("large", "0")])];
    for (expression, failed) in [
        ("large + 1", vec!["0 overflow r.must"]),
        ("large - 1", vec!["1 overflow r.must"]),
        ("large * 2", vec!["0 overflow r.must", "1 overflow r.must"]),
        ("-large", vec!["1 overflow r.must"]),
        ("large / -1", vec!["1 overflow r.must"]),
        ("abs(large)", vec!["1 overflow r.must"]),
        (
            "9223372036854775807 + 1",
            vec!["0 overflow r.must", "1 overflow r.must", "2 overflow r.must"],
        ),
    ] {
        assert_eq!(
            odd_failures(&format!("set: {{must: '{expression}'}}"), &rows),
            failed,
            "{expression}"
        );
    }
}

#[test]
fn a_text_that_can_t_be_cast_fails_its_row_and_try_cast_gives_null() {
    let rows = [row([("text", "12")]), row([("text", "twelve")]), row([])];
    assert_eq!(
        odd_failures("set: {large: CAST(text AS BIGINT)}", &rows),
        ["1 bad_cast r.large"]
    );
    assert_eq!(
        odd_failures("set: {small: CAST(text AS INT)}", &[row([("text", "3000000000")])]),
        ["0 bad_cast r.small"]
    );
    assert_eq!(
        odd_failures("set: {large: TRY_CAST(text AS BIGINT)}", &rows),
        Vec::<String>::new()
    );
    assert_eq!(
        odd_failures("set: {small: CAST(large AS INT)}", &[row([("large", "3000000000")])]),
        ["0 bad_cast r.small"]
    );
    assert_eq!(
        odd_failures("set: {day: CAST(text AS DATE)}", &rows[1..2]),
        ["0 bad_cast r.day"]
    );
}

#[test]
fn null_fails_a_column_that_can_t_hold_it_and_a_quantity() {
    let rows = [row([("large", "1")]), row([])];
    assert_eq!(odd_failures("set: {must: large}", &rows), ["1 null_value r.must"]);
    assert_eq!(
        odd_failures("charge: {meter: calls, quantity: large}", &rows),
        ["1 null_value r.quantity"]
    );
}

#[test]
fn a_quantity_has_to_be_a_whole_number_that_fits() {
    let rows = [row([("price", "2.00")]), row([("price", "2.50")])];
    assert_eq!(
        odd_failures("charge: {meter: revenue, quantity: price}", &rows),
        ["1 inexact r.quantity"]
    );
    assert_eq!(
        odd_failures("charge: {meter: revenue, quantity: price * 100}", &rows),
        Vec::<String>::new()
    );
    let large = [row([("large", &i64::MAX.to_string())])];
    assert_eq!(
        odd_failures("charge: {meter: calls, quantity: large * 10.0}", &large),
        ["0 overflow r.quantity"]
    );
}

#[test]
fn a_text_that_would_be_too_large_fails_before_it_is_made() {
    let text = "a".repeat(600_000);
    let rows = [row([("text", &text)]), row([("text", "a")])];
    for large in [
        "text || text",
        "concat(text, text)",
        "replace(text, 'a', text)",
        "encode(text, 'hex')",
    ] {
        assert_eq!(
            odd_failures(&format!("set: {{other: \"{large}\"}}"), &rows),
            ["0 too_large r.other"],
            "{large}"
        );
    }
    let replaced = "regexp_replace(text, 'a', 'aaaaaaaaaaaaaaaa', 'g')";
    assert_eq!(
        odd_failures(&format!("set: {{other: \"{replaced}\"}}"), &rows),
        ["0 too_large r.other"]
    );
    // What only moves is as large as it was.
    assert_eq!(odd_failures("set: {other: text}", &rows), Vec::<String>::new());
}

#[test]
fn an_alert_s_text_and_key_have_64_kib() {
    let rows = [
        row([("text", &"a".repeat(65_536))]),
        row([("text", &"a".repeat(65_537))]),
    ];
    assert_eq!(
        odd_failures("alert: {severity: info, text: text}", &rows),
        ["1 too_large r.text"]
    );
    assert_eq!(
        odd_failures("alert: {severity: info, text: \"''\", key: text}", &rows),
        ["1 too_large r.key"]
    );
}

#[test]
fn a_failed_row_has_no_other_effect_and_the_others_don_t_notice() {
    let world = world(
        "- {name: alert, alert: {severity: info, text: order_id}, events: [order.created]}
         - {name: charge, charge: {meter: calls, quantity: 1}, events: [order.created]}
         - {name: route, route: [orders_vip], events: [order.created]}
         - {name: divide, set: {amount_minor: 100 / amount_minor, currency: \"'X'\"}, events: [order.created]}
         - {name: after, alert: {severity: info, text: amount_minor}, events: [order.created]}",
    );
    let rows =
        [("0", "2"), ("1", "0"), ("2", "5")].map(|(id, amount)| row([("order_id", id), ("amount_minor", amount)]));
    let applied = world.apply(ORDER, &rows);
    assert_eq!(failures(&applied), ["1 divide_by_zero divide.amount_minor"]);
    assert_eq!(routes(&applied), "orders_vip: 0 2");
    assert_eq!(
        applied
            .alerts
            .iter()
            .map(|alert| (alert.row, alert.text.as_str()))
            .collect::<Vec<_>>(),
        [(0, "0"), (0, "50"), (2, "2"), (2, "20")]
    );
    assert_eq!(
        applied.charges.iter().map(|charge| charge.row).collect::<Vec<_>>(),
        [0, 2]
    );
    assert!(applied.dropped.is_empty());
    let amounts = world.column(ORDER, &applied.batch, "amount_minor");
    assert_eq!((amounts[0].as_str(), amounts[2].as_str()), ("50", "20"));
}

#[test]
fn a_condition_protects_what_follows_it() {
    let rows = [row([("large", "0")]), row([("large", "5")]), row([])];
    assert_eq!(
        odd_failures("when: large <> 0, set: {large: 10 / large}", &rows),
        Vec::<String>::new()
    );
    assert_eq!(
        odd_failures("when: large <> 0 AND 10 / large > 1, drop: true", &rows),
        Vec::<String>::new()
    );
    assert_eq!(
        odd_failures("set: {large: CASE WHEN large = 0 THEN NULL ELSE 10 / large END}", &rows),
        Vec::<String>::new()
    );
}

#[test]
fn ten_thousand_bad_rows_are_found_among_good_ones() {
    let world = world("- {name: r, set: {large: 10 / large}, events: [odd]}");
    let rows: Vec<_> = (0..20_000)
        .map(|number| row([("large", if number % 2 == 0 { "0" } else { "5" })]))
        .collect();
    let applied = world.apply(ODD, &rows);
    assert_eq!(applied.failures.len(), 10_000);
    assert!(
        applied
            .failures
            .iter()
            .enumerate()
            .all(|(nth, failure)| failure.row as usize == 2 * nth)
    );
    assert_eq!(applied.routes[0].rows.len(), 10_000);
    assert!(
        world
            .column(ODD, &applied.batch, "large")
            .iter()
            .skip(1)
            .step_by(2)
            .all(|value| value == "2")
    );
}

#[test]
fn a_callers_slip_loses_nothing() {
    let world = world("- {name: r, drop: true}");
    let batch = world.batch(ORDER, &[row([])]);
    for event in [ODD, 99] {
        let applied = world.revision.apply(event, &batch);
        assert_eq!(failures(&applied), ["0 internal .-"], "{event}");
        assert!(applied.routes.is_empty());
    }
}
