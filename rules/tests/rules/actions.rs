//! Each action, with and without NULLs, and what one rule leaves to the next.

use crate::applying::{routes, world};
use crate::shop::{ERROR, ORDER, PAGEVIEW, PAYMENT, row};

#[test]
fn no_rules_change_nothing_and_every_row_goes_to_its_own_table() {
    let world = world("- {name: never, when: 'FALSE', drop: true}");
    let rows = [row([("tenant_id", "a")]), row([("tenant_id", "b")])];
    let batch = world.batch(ORDER, &rows);
    let applied = world.revision.apply(ORDER, &batch);
    assert_eq!(applied.batch, batch);
    assert_eq!(routes(&applied), "orders: 0 1");
    assert!(applied.alerts.is_empty() && applied.charges.is_empty() && applied.failures.is_empty());
    assert!(applied.dropped.is_empty());
    // The cheap path: the very same arrays.
    for (after, before) in applied.batch.columns().iter().zip(batch.columns()) {
        assert!(std::sync::Arc::ptr_eq(after, before));
    }
}

#[test]
fn drop_drops_where_the_condition_is_true_and_null_is_not() {
    let world = world("- {name: no-bots, when: \"context.user_agent ILIKE '%bot%'\", drop: true}");
    let rows = [
        row([("context.user_agent", "Mozilla")]),
        row([("context.user_agent", "GoogleBot/2")]),
        row([("tenant_id", "null agent")]),
        row([("context.user_agent", "robot")]),
    ];
    let applied = world.apply(PAGEVIEW, &rows);
    assert_eq!(applied.dropped, [1, 3]);
    assert_eq!(routes(&applied), "pageviews: 0 2");
}

#[test]
fn a_dropped_row_keeps_what_rules_above_raised_and_sees_none_below() {
    let world = world(
        "- {name: above, alert: {severity: info, text: \"'above'\"}}
         - {name: drop, drop: true}
         - {name: below, alert: {severity: info, text: \"'below'\"}}",
    );
    let applied = world.apply(PAGEVIEW, &[row([])]);
    assert_eq!(applied.dropped, [0]);
    assert_eq!(
        applied
            .alerts
            .iter()
            .map(|alert| alert.text.as_str())
            .collect::<Vec<_>>(),
        ["above"]
    );
}

#[test]
fn set_computes_all_values_before_it_assigns_the_first() {
    let world = world("- {name: swap, set: {currency: status, status: currency}, events: [payment.processed]}");
    let applied = world.apply(PAYMENT, &[row([("currency", "EUR"), ("status", "captured")])]);
    assert_eq!(world.column(PAYMENT, &applied.batch, "currency"), ["captured"]);
    assert_eq!(world.column(PAYMENT, &applied.batch, "status"), ["EUR"]);
}

#[test]
fn set_changes_only_the_rows_of_its_condition_and_later_rules_see_it() {
    let world = world(
        "- {name: up, when: amount_minor > 10, set: {currency: upper(currency)}, events: [order.created]}
         - {name: mark, when: \"currency = 'EUR'\", set: {coupon: \"'big'\"}, events: [order.created]}",
    );
    let rows = [
        row([("currency", "eur"), ("amount_minor", "5")]),
        row([("currency", "eur"), ("amount_minor", "50")]),
        row([("currency", "usd"), ("amount_minor", "50")]),
    ];
    let applied = world.apply(ORDER, &rows);
    assert_eq!(world.column(ORDER, &applied.batch, "currency"), ["eur", "EUR", "USD"]);
    assert_eq!(world.column(ORDER, &applied.batch, "coupon"), ["NULL", "big", "NULL"]);
}

#[test]
fn set_puts_replaces_and_removes_entries_of_a_map() {
    let world = world(
        "- {name: put, set: {\"properties['plan']\": \"upper(properties['plan'])\", \"properties['new']\": amount_minor}, events: [order.created]}",
    );
    let rows = [
        row([("properties.plan", "pro"), ("properties.z", "1"), ("amount_minor", "7")]),
        row([("properties.z", "2")]),
    ];
    let applied = world.apply(ORDER, &rows);
    assert_eq!(
        world.column(ORDER, &applied.batch, "properties.plan"),
        ["PRO", "absent"]
    );
    assert_eq!(world.column(ORDER, &applied.batch, "properties.new"), ["7", "0"]);
    assert_eq!(world.column(ORDER, &applied.batch, "properties.z"), ["1", "2"]);
}

#[test]
fn mask_hashes_cuts_and_nulls_columns_and_entries() {
    let world = world(
        "- {name: mask, mask: {\"properties['email']\": sha256, context.user_agent: sha256, anonymous_id: truncate(3), user_id: null, \"properties['gone']\": null}}",
    );
    let rows = [
        row([
            ("properties.email", "abc"),
            ("properties.gone", "x"),
            ("properties.kept", "y"),
            ("context.user_agent", "abc"),
            ("anonymous_id", "äöüß"),
            ("user_id", "u"),
        ]),
        row([]),
    ];
    let applied = world.apply(PAGEVIEW, &rows);
    // FIPS 180-2, appendix B.1.
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "properties.email"),
        [abc, "absent"]
    );
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "properties.gone"),
        ["absent", "absent"]
    );
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "properties.kept"),
        ["y", "absent"]
    );
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "context.user_agent"),
        [abc, "NULL"]
    );
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "anonymous_id"), ["äöü", ""]);
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "user_id"), ["NULL", "NULL"]);
}

#[test]
fn a_key_that_a_producer_wrote_twice_is_masked_in_all_its_entries() {
    let world = world("- {name: mask, mask: {\"properties['email']\": sha256}}");
    let rows = [row([
        ("properties.email", "first"),
        ("properties.a", "1"),
        ("properties.email", "abc"),
    ])];
    let applied = world.apply(PAGEVIEW, &rows);
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "properties.email"), [abc]);
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "properties.a"), ["1"]);
}

#[test]
fn rename_moves_entries_and_columns_and_null_has_nothing_to_move() {
    let world = world(
        "- {name: entry, rename: {\"properties['ref']\": \"properties['referrer']\"}}
         - {name: column, rename: {user_id: context.ip, source: session_id}}",
    );
    let rows = [
        row([
            ("properties.ref", "new"),
            ("properties.referrer", "old"),
            ("user_id", "u"),
            ("source", "web"),
        ]),
        row([
            ("properties.referrer", "kept"),
            ("context.ip", "192.0.2.1"),
            ("source", "app"),
            ("session_id", "s"),
        ]),
    ];
    let applied = world.apply(PAGEVIEW, &rows);
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "properties.ref"),
        ["absent", "absent"]
    );
    assert_eq!(
        world.column(PAGEVIEW, &applied.batch, "properties.referrer"),
        ["new", "kept"]
    );
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "user_id"), ["NULL", "NULL"]);
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "context.ip"), ["u", "192.0.2.1"]);
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "source"), ["", ""]);
    assert_eq!(world.column(PAGEVIEW, &applied.batch, "session_id"), ["web", "app"]);
}

#[test]
fn route_replaces_the_tables_and_the_last_one_wins() {
    let world = world(
        "- {name: vip, when: amount_minor > 10, route: [orders_vip, orders], events: [order.created]}
         - {name: only, when: amount_minor > 100, route: [orders_vip], events: [order.created]}
         - {name: none, when: amount_minor > 1000, drop: true, events: [order.created]}",
    );
    let rows = ["5", "50", "500", "5000"].map(|amount| row([("amount_minor", amount)]));
    let applied = world.apply(ORDER, &rows);
    assert_eq!(routes(&applied), "orders: 0 1; orders_vip: 1 2");
    assert_eq!(applied.dropped, [3]);
}

#[test]
fn alert_has_severity_key_and_text_and_null_is_no_key_and_an_empty_text() {
    let world = world(
        "- {name: big, when: amount_minor > 0, alert: {severity: critical, key: user_id, text: \"coupon || ' of ' || amount_minor\"}, events: [order.created]}
         - {name: all, alert: {severity: info, text: amount_minor}, events: [order.created]}",
    );
    let rows = [
        row([("amount_minor", "7"), ("user_id", "u"), ("coupon", "X")]),
        row([("amount_minor", "-1")]),
        row([("amount_minor", "8")]),
    ];
    let applied = world.apply(ORDER, &rows);
    let alerts: Vec<String> = applied
        .alerts
        .iter()
        .map(|alert| {
            format!(
                "{} {} {} {:?} {}",
                alert.row, alert.rule, alert.severity, alert.key, alert.text
            )
        })
        .collect();
    assert_eq!(
        alerts,
        [
            "0 big critical Some(\"u\") X of 7",
            "0 all info None 7",
            "1 all info None -1",
            "2 big critical None ",
            "2 all info None 8",
        ]
    );
}

#[test]
fn charge_counts_the_meters_smallest_part_whether_integer_or_decimal() {
    let world = world(
        "- {name: bill, when: \"status = 'captured'\", charge: {meter: revenue, quantity: amount_minor}, events: [payment.processed]}
         - {name: call, charge: {meter: calls, quantity: 1}}
         - {name: tax, when: \"status = 'captured'\", charge: {meter: revenue, quantity: round(amount_minor * 0.19)}, events: [payment.processed]}",
    );
    let rows = [
        row([("status", "captured"), ("amount_minor", "1250")]),
        row([("status", "failed"), ("amount_minor", "9")]),
    ];
    let applied = world.apply(PAYMENT, &rows);
    let charges: Vec<String> = applied
        .charges
        .iter()
        .map(|charge| {
            format!(
                "{} {} {} {} {} {}",
                charge.row, charge.rule, charge.meter, charge.unit, charge.scale, charge.quantity
            )
        })
        .collect();
    assert_eq!(
        charges,
        [
            "0 bill revenue EUR 2 1250",
            "0 call calls call 0 1",
            "0 tax revenue EUR 2 238",
            "1 call calls call 0 1"
        ]
    );
}

#[test]
fn a_rule_without_events_is_for_all_events_that_have_what_it_names() {
    let world = world("- {name: amount, when: amount_minor > 0, alert: {severity: info, text: currency}}");
    let with = |event| {
        world
            .apply(event, &[row([("amount_minor", "1"), ("currency", "EUR")])])
            .alerts
            .len()
    };
    assert_eq!((with(ORDER), with(PAYMENT)), (1, 1));
    assert_eq!(world.apply(PAGEVIEW, &[row([])]).alerts.len(), 0);
    assert_eq!(world.apply(ERROR, &[row([])]).alerts.len(), 0);
}

#[test]
fn columns_are_named_by_path_or_flattened_and_map_entries_by_brackets() {
    let world = world(
        "- {name: one, when: \"context.page.path = '/a' AND context_page_path = '/a' AND properties['k'] = 'v' AND properties['none'] IS NULL\", drop: true}",
    );
    let rows = [
        row([("context.page.path", "/a"), ("properties.k", "v")]),
        row([("context.page.path", "/a"), ("properties.k", "w")]),
        row([("context.page.path", "/a")]),
    ];
    assert_eq!(world.apply(PAGEVIEW, &rows).dropped, [0]);
}
