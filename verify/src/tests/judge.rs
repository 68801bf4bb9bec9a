//! What must become of each record.

use apache_avro::Schema;
use apache_avro::types::Value;
use pipeline::Pipeline;
use pipeline::shape::Shape;
use rules::Revision;

use super::{encode, framed, record, text};
use crate::judge::{Judge, Ledgers, catalog};
use crate::kafka::Record;
use crate::ledger::{Content as _, Place};
use crate::registry::Answer;

const PIPELINE: &str = "\
pipeline: shop
start: earliest
event: {id: id, tenant: tenant, time: at, accept: {past: 1h, future: 1m}}
sources:
  - {topic: order.created, table: orders}
tables:
  orders_vip: {like: orders}
sinks:
  alerts: {topic: shop.alerts}
  billing: {grpc: \"http://127.0.0.1:1\"}
limits: {event_bytes_max: 1KiB}
";

const RULES: &str = "\
tenant: acme
meters: {revenue: {unit: EUR, scale: 2}}
rules:
  - {name: tiny, when: amount < 10, drop: true}
  - {name: odd, when: 100 / (amount - 13) = 12345, drop: true}
  - {name: vip, when: amount > 100, route: [orders, orders_vip]}
  - {name: big, when: amount > 100, alert: {severity: critical, text: \"'big'\"}}
  - {name: bill, when: amount > 100, charge: {meter: revenue, quantity: amount}}
";

pub(super) const NOW: i64 = 1_700_000_000_000;

fn schema() -> Schema {
    record(
        r#"{"name":"id","type":"string"},{"name":"tenant","type":"string"},
           {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"amount","type":"long"}"#,
    )
}

pub(super) fn event(tenant: &str, at: i64, amount: i64) -> Vec<u8> {
    let fields = [
        ("id", text("e")),
        ("tenant", text(tenant)),
        ("at", Value::TimestampMillis(at)),
        ("amount", Value::Long(amount)),
    ];
    encode(&schema(), &fields)
}

pub(super) fn shop() -> Pipeline {
    pipeline::check("p.yaml", PIPELINE, std::path::Path::new("/")).unwrap()
}

pub(super) fn judged(records: Vec<Record>) -> Ledgers {
    let pipeline = shop();
    let shapes = vec![Shape::of(&[schema()]).unwrap()];
    let documents = [("acme.yaml".to_owned(), RULES.to_owned())];
    let revision = Revision::compile(5, &documents, &catalog(&pipeline, &shapes).unwrap())
        .unwrap_or_else(|faults| panic!("{faults:?}"));
    let mut judge = Judge::new(&pipeline, 0, &shapes[0], NOW).unwrap();
    for id in judge.unknown(&records) {
        let answer = match id {
            7 => Answer::Schema(schema()),
            8 => Answer::Unusable,
            _ => Answer::Unknown,
        };
        judge.learn(id, &answer);
    }
    let mut ledgers = Ledgers::new(&pipeline, 20);
    judge.judge(records, &revision, &mut ledgers).unwrap();
    ledgers
}

pub(super) fn at(offset: i64, index: u32) -> Place {
    Place {
        source: 0,
        partition: 0,
        offset,
        index,
    }
}

/// Rows, rows of the VIP table, alerts, charges, dead letters.
fn expected(ledgers: Ledgers) -> [u64; 5] {
    let [orders, vip]: [_; 2] = ledgers.tables.try_into().unwrap_or_else(|_| panic!("two tables"));
    let expected = [
        orders.finish().0,
        vip.finish().0,
        ledgers.alerts.finish().0,
        ledgers.charges.finish().0,
    ];
    let [orders, vip, alerts, charges] = expected.map(|report| report.expected);
    [orders, vip, alerts, charges, ledgers.dead.finish().0.expected]
}

#[test]
fn rules_drop_route_raise_charge_and_fail_as_the_document_says() {
    let ledgers = judged(vec![
        framed(10, &event("acme", NOW, 50)),
        framed(11, &event("acme", NOW, 5)),
        framed(12, &event("acme", NOW, 13)),
        framed(13, &event("other", NOW, 13)),
    ]);
    assert_eq!((ledgers.produced, ledgers.dropped), (4, 1));
    assert!(ledgers.tables[0].expected(&at(10, 0)).is_some() && ledgers.tables[0].expected(&at(13, 0)).is_some());
    assert!(ledgers.dead.expected(&at(12, 0)).is_some());
    assert_eq!(expected(ledgers), [2, 0, 0, 0, 1]);
}

#[test]
fn a_row_of_two_tables_is_expected_in_both_with_the_place_of_its_table_as_its_index() {
    let ledgers = judged(vec![
        framed(10, &event("acme", NOW, 150)),
        framed(11, &event("acme", NOW, 250)),
    ]);
    for offset in [10, 11] {
        assert!(ledgers.tables[0].expected(&at(offset, 0)).is_some());
        assert!(ledgers.tables[1].expected(&at(offset, 1)).is_some());
    }
    assert_eq!(ledgers.usage[&("acme".to_owned(), "revenue".to_owned())], (400, 2));
    let value = serde_json::json!({
        "id": "order.created/0/10/0", "tenant": "acme", "event": "order.created", "event_id": "e",
        "event_time": "2023-11-14T22:13:20.000Z", "rule": "big", "severity": "critical", "text": "big",
        "rules_revision": 5,
    });
    assert_eq!(
        ledgers.alerts.expected(&at(10, 0)),
        Some(&crate::alerts::Alert::new(b"acme", &value))
    );
    let charge = proto::delivery::v1::Charge {
        id: "order.created/0/11/0".to_owned(),
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        unit: "EUR".to_owned(),
        quantity: 250,
        scale: 2,
        event_time_ms: NOW,
        event_id: "e".to_owned(),
        rule: "bill".to_owned(),
        rules_revision: 5,
        offset: 11,
    };
    assert_eq!(
        ledgers
            .charges
            .expected(&at(11, 0))
            .and_then(|expected| expected.difference(&charge)),
        None
    );
    assert_eq!(expected(ledgers), [2, 2, 2, 2, 0]);
}

#[test]
fn every_step_that_refuses_a_record_makes_a_dead_letter_of_its_stage_and_code() {
    let good = event("acme", NOW, 50);
    let bare = |value: Option<Vec<u8>>| Record {
        value,
        ..framed(10, &[])
    };
    let long_id = encode(
        &schema(),
        &[
            ("id", text(&"x".repeat(2000))),
            ("tenant", text("t")),
            ("at", Value::TimestampMillis(NOW)),
            ("amount", Value::Long(1)),
        ],
    );
    // Key and value count together.
    let with_a_long_key = Record {
        key: Some(vec![b'k'; 1024]),
        ..framed(10, &good)
    };
    let with_id = |id: u8| bare(Some([&[0, 0, 0, 0, id], &good[..]].concat()));
    let cases = [
        (bare(None), "frame", "no_value"),
        (bare(Some(Vec::new())), "frame", "truncated_prefix"),
        (bare(Some(vec![0, 0, 0])), "frame", "truncated_prefix"),
        (bare(Some(vec![9, 0, 0, 0, 7])), "frame", "no_schema_id"),
        (
            Record {
                headers: vec![("schema-id".to_owned(), Some(b"x".to_vec()))],
                ..framed(10, &good)
            },
            "frame",
            "bad_schema_header",
        ),
        (with_id(9), "schema", "unknown_schema_id"),
        (with_id(8), "schema", "anything"),
        (framed(10, &good[..good.len() - 1]), "decode", "anything"),
        (framed(10, &[&good[..], &[0]].concat()), "decode", "trailing_bytes"),
        (framed(10, &event("", NOW, 50)), "event", "no_tenant"),
        (
            framed(10, &event("acme", NOW - 3_600_001, 50)),
            "event",
            "time_out_of_range",
        ),
        (
            framed(10, &event("acme", NOW + 60_001, 50)),
            "event",
            "time_out_of_range",
        ),
        (framed(10, &long_id), "anything", "too_large"),
        (with_a_long_key, "anything", "too_large"),
        (framed(10, &event("acme", NOW, 13)), "rules", "divide_by_zero"),
    ];
    for (record, stage, code) in cases {
        let ledgers = judged(vec![record.clone()]);
        let mut letter = record.clone();
        let says = [
            ("stage", stage),
            ("code", code),
            ("reason", "r"),
            ("attempts", "1"),
            ("timestamp", "1700000000000"),
        ];
        for (name, value) in says {
            letter.headers.push((format!("sluice-{name}"), Some(value.into())));
        }
        let content = ledgers
            .dead
            .expected(&at(10, 0))
            .unwrap_or_else(|| panic!("{stage} {code}: no dead letter"));
        assert_eq!(content.difference(&letter), None, "{stage} {code}");
        assert_eq!(expected(ledgers), [0, 0, 0, 0, 1]);
    }
    for time in [NOW - 3_600_000, NOW + 60_000] {
        assert_eq!(
            expected(judged(vec![framed(10, &event("acme", time, 50))])),
            [1, 0, 0, 0, 0]
        );
    }
}

#[test]
fn a_header_tells_the_schema_id_in_digits_or_bytes_and_the_value_has_no_prefix_then() {
    let good = event("acme", NOW, 50);
    for header in [&b"7"[..], &[0, 0, 0, 7]] {
        let headers = vec![("schema-id".to_owned(), Some(header.to_vec()))];
        let record = Record {
            value: Some(good.clone()),
            headers,
            ..framed(10, &[])
        };
        assert_eq!(expected(judged(vec![record])), [1, 0, 0, 0, 0]);
    }
}

#[test]
fn a_row_that_its_table_may_have_forgotten_need_not_be_there() {
    let mut table = pipeline::check("p.yaml", PIPELINE, std::path::Path::new("/"))
        .unwrap()
        .tables
        .remove(0);
    let before = |table: &pipeline::Table| crate::judge::forgotten_before_ms(table, NOW);
    table.keep = Some(pipeline::Keep::Days(3));
    assert_eq!(before(&table), NOW - 2 * 86_400_000);
    table.keep = Some(pipeline::Keep::Months(2));
    assert_eq!(before(&table), NOW - 55 * 86_400_000);
    table.keep = None;
    assert_eq!(before(&table), i64::MIN);
}
