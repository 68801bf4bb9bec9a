//! The comparison, sink by sink: whatever is wrong is counted once, under its name, with its place.

use std::collections::HashMap;

use proptest::prelude::*;
use proto::delivery::v1::Charge;
use serde_json::json;

use super::verified;
use crate::alerts::{self, Alert};
use crate::billing::ExpectedCharge;
use crate::dead_letters::{self, ExpectedLetter, Stage};
use crate::kafka::Record;
use crate::ledger::{Content, Kind, Ledger, Place};
use crate::rollups;

fn place(offset: i64) -> Place {
    Place {
        source: 0,
        partition: 0,
        offset,
        index: 0,
    }
}

/// (expected, found, lost, duplicated, altered, unexpected)
fn counts<C: Content>(ledger: Ledger<C>) -> [u64; 6] {
    let (r, examples) = ledger.finish();
    assert_eq!(examples.len() as u64, r.lost + r.duplicated + r.altered + r.unexpected);
    [r.expected, r.found, r.lost, r.duplicated, r.altered, r.unexpected]
}

/// Three outputs at offsets 10 to 12; `found` enters one: its offset, and whether it is altered.
fn one_of_each<C: Content>(expect: impl Fn(&mut Ledger<C>), found: impl Fn(&mut Ledger<C>, i64, bool)) {
    let run = |outputs: &[(i64, bool)]| {
        let mut ledger = Ledger::new("sink", 20);
        expect(&mut ledger);
        outputs
            .iter()
            .for_each(|(offset, altered)| found(&mut ledger, *offset, *altered));
        counts(ledger)
    };
    let (fine, bad) = (false, true);
    assert_eq!(
        run(&[(10, fine), (11, fine), (12, fine)]),
        [3, 3, 0, 0, 0, 0],
        "all there"
    );
    assert_eq!(
        run(&[(12, fine), (10, fine), (11, fine)]),
        [3, 3, 0, 0, 0, 0],
        "in another order"
    );
    assert_eq!(run(&[(10, fine), (12, fine)]), [3, 2, 1, 0, 0, 0], "one lost");
    assert_eq!(
        run(&[(10, fine), (11, fine), (11, fine), (12, fine)]),
        [3, 4, 0, 1, 0, 0],
        "one doubled"
    );
    assert_eq!(
        run(&[(10, fine), (11, bad), (12, fine)]),
        [3, 3, 0, 0, 1, 0],
        "one altered"
    );
    assert_eq!(
        run(&[(10, fine), (11, fine), (12, fine), (13, fine)]),
        [3, 4, 0, 0, 0, 1],
        "one unexpected"
    );
    assert_eq!(run(&[]), [3, 0, 3, 0, 0, 0], "all lost");
    assert_eq!(
        run(&[(13, fine), (11, bad), (11, fine), (10, fine)]),
        [3, 4, 1, 1, 1, 1],
        "one of each"
    );
}

#[test]
fn alerts_go_red() {
    let value = |offset: i64, altered: bool| json!({"id": format!("order.created/0/{offset}/0"), "tenant": "acme", "text": if altered { "b" } else { "a" }});
    one_of_each(
        |ledger| (10..13).for_each(|at| ledger.expect(place(at), Alert::new(b"key", &value(at, false)))),
        |ledger, offset, altered| {
            let value = Some(value(offset, altered).to_string().into_bytes());
            let record = Record {
                key: Some(b"key".to_vec()),
                value,
                ..Record::default()
            };
            alerts::found(&record, ledger, |id| verified().place_of_id(id));
        },
    );
}

#[test]
fn an_alert_with_another_key_is_altered_and_one_with_its_members_in_another_order_is_not() {
    let mut ledger = Ledger::new("alerts", 20);
    for at in [10, 11] {
        ledger.expect(
            place(at),
            Alert::new(b"key", &json!({"id": format!("order.created/0/{at}/0"), "text": "a"})),
        );
    }
    for (offset, key) in [(10, "key"), (11, "other")] {
        let value = format!(r#"{{"text":"a","id":"order.created/0/{offset}/0"}}"#).into_bytes();
        let record = Record {
            key: Some(key.into()),
            value: Some(value),
            ..Record::default()
        };
        alerts::found(&record, &mut ledger, |id| verified().place_of_id(id));
    }
    assert_eq!(counts(ledger), [2, 2, 0, 0, 1, 0]);
}

#[test]
fn what_is_no_alert_or_of_no_source_is_unexpected_and_what_is_outside_of_the_range_is_not_looked_at() {
    let mut ledger = Ledger::<Alert>::new("alerts", 20);
    let values = [
        "",
        "no json",
        "{}",
        r#"{"id":"other.topic/0/10/0"}"#,
        r#"{"id":"order.created/9/10/0"}"#,
        r#"{"id":"order.created/0/9/0"}"#,
        r#"{"id":"order.created/0/20/0"}"#,
    ];
    for value in values {
        let record = Record {
            value: Some(value.into()),
            ..Record::default()
        };
        alerts::found(&record, &mut ledger, |id| verified().place_of_id(id));
    }
    assert_eq!(counts(ledger), [0, 5, 0, 0, 0, 5]);
}

fn original(offset: i64) -> Record {
    Record {
        partition: 0,
        offset,
        timestamp_ms: 5,
        key: None,
        value: Some(vec![1, 2, 3]),
        // A record that was a dead letter once before keeps what it had then.
        headers: vec![
            ("trace".to_owned(), None),
            ("sluice-code".to_owned(), Some(b"old".to_vec())),
        ],
    }
}

fn letter(offset: i64, change: impl Fn(&mut Record)) -> Record {
    let mut letter = original(offset);
    let headers = [
        ("sluice-stage", "decode".to_owned()),
        ("sluice-code", "truncated".to_owned()),
        ("sluice-reason", "because".to_owned()),
        ("sluice-attempts", "1".to_owned()),
        ("sluice-topic", "order.created".to_owned()),
        ("sluice-partition", "0".to_owned()),
        ("sluice-offset", offset.to_string()),
        ("sluice-timestamp", "5".to_owned()),
    ];
    letter
        .headers
        .extend(headers.map(|(name, value)| (name.to_owned(), Some(value.into_bytes()))));
    change(&mut letter);
    letter
}

fn expected_letter(offset: i64) -> ExpectedLetter {
    ExpectedLetter::new(&original(offset), Some(Stage::Decode), Some("truncated"))
}

#[test]
fn dead_letters_go_red() {
    one_of_each(
        |ledger| (10..13).for_each(|at| ledger.expect(place(at), expected_letter(at))),
        |ledger, offset, altered| {
            let letter = letter(offset, |letter| {
                if altered {
                    letter.value = Some(vec![1, 2])
                }
            });
            dead_letters::found(&letter, ledger, |topic, partition, at| {
                verified().place(topic, partition, at)
            });
        },
    );
}

#[test]
fn every_part_of_a_dead_letter_is_compared() {
    fn set(letter: &mut Record, name: &str, value: Option<&str>) {
        let header = letter.headers.iter_mut().rfind(|(header, _)| header == name).unwrap();
        header.1 = value.map(|value| value.as_bytes().to_vec());
    }
    let changes: [(&str, fn(&mut Record)); 9] = [
        ("key", |letter| letter.key = Some(Vec::new())),
        ("no value", |letter| letter.value = None),
        ("an original header", |letter| letter.headers[0].1 = Some(Vec::new())),
        ("the order of headers", |letter| letter.headers.swap(0, 1)),
        ("stage", |letter| set(letter, "sluice-stage", Some("frame"))),
        ("code", |letter| set(letter, "sluice-code", Some("invalid_utf8"))),
        ("reason", |letter| set(letter, "sluice-reason", Some(""))),
        ("timestamp", |letter| set(letter, "sluice-timestamp", Some("6"))),
        ("attempts", |letter| set(letter, "sluice-attempts", None)),
    ];
    for (what, change) in changes {
        assert!(expected_letter(10).difference(&letter(10, change)).is_some(), "{what}");
    }
    assert_eq!(expected_letter(10).difference(&letter(10, |_| ())), None);
    // What this crate cannot tell may be any code, but not none.
    let lenient = ExpectedLetter::new(&original(10), Some(Stage::Decode), None);
    assert_eq!(
        lenient.difference(&letter(10, |letter| set(letter, "sluice-code", Some("any")))),
        None
    );
    assert!(
        lenient
            .difference(&letter(10, |letter| set(letter, "sluice-code", Some(""))))
            .is_some()
    );
}

#[test]
fn a_dead_letter_that_does_not_tell_its_source_is_unexpected() {
    let mut ledger = Ledger::new("dead letters", 20);
    let found = |ledger: &mut Ledger<_>, record: &Record| {
        dead_letters::found(record, ledger, |topic, partition, at| {
            verified().place(topic, partition, at)
        });
    };
    found(&mut ledger, &original(10));
    found(
        &mut ledger,
        &letter(10, |letter| letter.headers.retain(|(name, _)| name != "sluice-offset")),
    );
    found(&mut ledger, &letter(9, |_| ()));
    assert_eq!(counts(ledger), [0, 2, 0, 0, 0, 2]);
}

fn charge(offset: i64, quantity: i64) -> Charge {
    Charge {
        id: format!("order.created/0/{offset}/0"),
        tenant: "acme".to_owned(),
        meter: "revenue".to_owned(),
        quantity,
        offset,
        ..Charge::default()
    }
}

#[test]
fn charges_go_red() {
    one_of_each(
        |ledger| (10..13).for_each(|at| ledger.expect(place(at), ExpectedCharge::new(&charge(at, 5)))),
        |ledger, offset, altered| {
            let charge = charge(offset, if altered { 6 } else { 5 });
            let place = verified().place_of_id(&charge.id).unwrap().unwrap();
            ledger.found(place, &charge);
        },
    );
}

#[test]
fn every_field_of_a_charge_is_compared() {
    let changes: [fn(&mut Charge); 10] = [
        |charge| charge.tenant.push('x'),
        |charge| charge.meter.push('x'),
        |charge| charge.unit.push('x'),
        |charge| charge.quantity += 1,
        |charge| charge.scale += 1,
        |charge| charge.event_time_ms += 1,
        |charge| charge.event_id.push('x'),
        |charge| charge.rule.push('x'),
        |charge| charge.rules_revision += 1,
        |charge| charge.offset += 1,
    ];
    for change in changes {
        let mut other = charge(10, 5);
        change(&mut other);
        assert!(
            ExpectedCharge::new(&charge(10, 5)).difference(&other).is_some(),
            "{other:?}"
        );
    }
}

#[test]
fn rollups_go_red_and_name_the_group() {
    let groups = |groups: &[(&str, &str)]| -> HashMap<String, String> {
        groups
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    };
    let raw = [("00:00 acme", "3"), ("00:01 acme", "4"), ("00:02 acme", "5")];
    let (fine, none) = rollups::groups("r", groups(&raw), groups(&raw), 20);
    assert_eq!((fine.expected, fine.found, none.len()), (3, 3, 0));
    let (red, examples) = rollups::groups(
        "r",
        groups(&raw),
        groups(&[raw[0], ("00:01 acme", "8"), ("00:09 x", "1")]),
        20,
    );
    assert_eq!((red.lost, red.duplicated, red.altered, red.unexpected), (1, 0, 1, 1));
    let detail = |kind| {
        examples
            .iter()
            .find(|example| example.kind == kind)
            .unwrap()
            .detail
            .as_str()
    };
    assert_eq!(detail(Kind::Altered), "group 00:01 acme is 8, must be 4");
    assert_eq!(detail(Kind::Lost).trim(), "group 00:02 acme");
    assert_eq!(detail(Kind::Unexpected), "group 00:09 x");
}

#[test]
fn what_retention_may_have_deleted_may_be_missing_but_not_come_twice_or_altered() {
    let run = |found: &[(i64, i64)]| {
        let mut ledger = Ledger::<ExpectedCharge>::new("sink", 20);
        ledger.allow(place(10), ExpectedCharge::new(&charge(10, 5)));
        ledger.expect(place(11), ExpectedCharge::new(&charge(11, 5)));
        for (offset, quantity) in found {
            ledger.found(place(*offset), &charge(*offset, *quantity));
        }
        counts(ledger)
    };
    assert_eq!(run(&[(11, 5)]), [1, 1, 0, 0, 0, 0]);
    assert_eq!(run(&[(10, 5), (11, 5)]), [2, 2, 0, 0, 0, 0]);
    assert_eq!(run(&[(10, 5), (10, 5)]), [2, 2, 1, 1, 0, 0]);
    assert_eq!(run(&[(10, 6), (11, 5)]), [2, 2, 0, 0, 1, 0]);
}

#[test]
fn all_differences_are_counted_and_only_some_are_told() {
    let mut ledger = Ledger::<ExpectedCharge>::new("billing", 3);
    for offset in 0..100 {
        ledger.expect(place(offset), ExpectedCharge::new(&charge(offset, 5)));
    }
    for offset in 0..10 {
        ledger.found(place(offset), &charge(offset, 6));
    }
    let (report, examples) = ledger.finish();
    assert_eq!((report.lost, report.altered), (90, 10));
    let places = |kind| {
        examples
            .iter()
            .filter(|e| e.kind == kind)
            .map(|e| e.place.unwrap().offset)
            .collect::<Vec<_>>()
    };
    assert_eq!(places(Kind::Altered), [0, 1, 2]);
    assert_eq!(places(Kind::Lost), [10, 11, 12]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    // Whatever is there and whatever must be: found = matched + altered + duplicated + unexpected, and every place that
    // must be and is not is lost.
    #[test]
    fn the_sums_are_those_of_multisets(
        expected in prop::collection::btree_set(0i64..30, 0..20),
        found in prop::collection::vec((0i64..30, any::<bool>()), 0..60),
    ) {
        let mut ledger = Ledger::new("sink", usize::MAX);
        expected.iter().for_each(|at| ledger.expect(place(*at), ExpectedCharge::new(&charge(*at, 5))));
        found.iter().for_each(|(at, altered)| ledger.found(place(*at), &charge(*at, if *altered { 6 } else { 5 })));
        let mut first: HashMap<i64, bool> = HashMap::new();
        let (mut duplicated, mut unexpected) = (0, 0);
        for (at, altered) in &found {
            match (expected.contains(at), first.contains_key(at)) {
                (false, _) => unexpected += 1,
                (true, true) => duplicated += 1,
                (true, false) => { first.insert(*at, *altered); }
            }
        }
        let altered = first.values().filter(|altered| **altered).count() as u64;
        let lost = (expected.len() - first.len()) as u64;
        let sums = [expected.len() as u64, found.len() as u64, lost, duplicated, altered, unexpected];
        prop_assert_eq!(counts(ledger), sums);
    }
}
