//! One wrong count of the audit, whichever, has to be found; and nothing may be said where nothing can be known.

use serde_json::{Value as Json, json};

use super::framed;
use super::judge::{NOW, at, event, judged, shop};
use crate::audit::Audit;
use crate::cell::Fingerprinter;
use crate::counts::{Counting, compare};
use crate::judge::Ledgers;
use crate::kafka::{Range, Record};

/// Offsets 10 to 14: a row; nothing; a dead letter of the rules; two rows, an alert and a charge; a dead letter of the frame.
fn log() -> Ledgers {
    let nonsense = Record {
        value: Some(vec![1, 2]),
        ..framed(14, &[])
    };
    judged(vec![
        framed(10, &event("acme", NOW, 50)),
        framed(11, &event("acme", NOW, 5)),
        framed(12, &event("acme", NOW, 13)),
        framed(13, &event("acme", NOW, 200)),
        nonsense,
    ])
}

/// What came of all of it.
fn right() -> Json {
    json!({"topic": "order.created", "partition": 0, "start": 10, "end": 15, "rules": 5, "rules_digest": "0",
        "outputs": 7, "digest": "00", "rows": {"orders": 2, "orders_vip": 1}, "charges": 1, "dead_letters": 2})
}

fn with(name: &str, value: Json) -> Json {
    let mut range = right();
    range[name] = value;
    range
}

fn without(names: &[&str]) -> Json {
    let mut range = right();
    for name in names {
        range.as_object_mut().unwrap().remove(*name);
    }
    range
}

fn commit(at_ms: i64, ranges: &[Json]) -> String {
    json!({"v": 1, "kind": "commit", "pipeline": "p", "at_ms": at_ms, "ranges": ranges}).to_string()
}

fn counted(audit: &Audit, (start, end): (i64, i64), ledgers: &Ledgers) -> Counting {
    let looked_at = Range {
        partition: 0,
        start,
        end,
    };
    compare(
        &shop(),
        audit,
        &[("order.created".to_owned(), vec![looked_at])],
        ledgers,
        20,
    )
}

/// Ranges compared, ranges miscounted, and the examples without what they begin with.
fn of(range: Json) -> (u64, u64, Vec<String>) {
    let counting = counted(&Audit::of(&[commit(1, &[range])]).unwrap(), (0, 15), &log());
    let begin = "audit: miscounted: order.created/0, offsets 10 to 15: ";
    let said = |example: &String| example.strip_prefix(begin).unwrap().to_owned();
    (
        counting.compared,
        counting.miscounted,
        counting.examples.iter().map(said).collect(),
    )
}

#[test]
fn a_record_that_counts_right_is_right() {
    assert_eq!(of(right()), (1, 0, vec![]));
}

#[test]
fn every_count_that_is_wrong_by_one_is_found() {
    for (range, said) in [
        (
            with("rows", json!({"orders": 1, "orders_vip": 1})),
            "says 1 rows of orders, must be 2",
        ),
        (
            with("rows", json!({"orders": 2, "orders_vip": 2})),
            "says 2 rows of orders_vip, must be 1",
        ),
        (
            with("rows", json!({"orders": 2})),
            "says 0 rows of orders_vip, must be 1",
        ),
        (
            with("rows", json!({"orders": 2, "orders_vip": 1, "refunds": 1})),
            "says 1 rows of refunds, must be 0",
        ),
        (with("charges", json!(0)), "says 0 charges, must be 1"),
        (with("dead_letters", json!(3)), "says 3 dead letters, must be 2"),
        // An alert less.
        (with("outputs", json!(6)), "says 6 outputs, must be 7"),
    ] {
        assert_eq!(of(range), (1, 1, vec![said.to_owned()]));
    }
}

#[test]
fn a_row_that_was_counted_as_a_charge_is_found_though_the_sum_is_right() {
    let mut range = with("rows", json!({"orders": 1, "orders_vip": 1}));
    range["charges"] = json!(2);
    let said = "says 1 rows of orders, must be 2, says 2 charges, must be 1";
    assert_eq!(of(range), (1, 1, vec![said.to_owned()]));
}

#[test]
fn a_count_that_a_record_does_not_have_is_no_difference_and_the_others_are_compared() {
    let all = ["outputs", "digest", "rows", "charges", "dead_letters"];
    assert_eq!(of(without(&all)), (0, 0, vec![]), "as of another writer");
    for name in all {
        assert_eq!(of(without(&[name])), (1, 0, vec![]), "without {name}");
        assert_eq!(of(with(name, Json::Null)), (1, 0, vec![]), "{name} is null");
    }
    let mut range = without(&["rows"]);
    range["charges"] = json!(2);
    assert_eq!(of(range).1, 1);
}

#[test]
fn a_count_that_is_no_number_makes_a_record_that_cannot_be_read() {
    let wrong = commit(1, &[with("charges", json!("two"))]);
    assert!(matches!(Audit::of(&[wrong]), Err(crate::Error::Audit { .. })));
}

#[test]
fn nothing_is_said_of_a_range_that_is_not_looked_at_as_a_whole() {
    let audit = Audit::of(&[commit(1, &[with("outputs", json!(99))])]).unwrap();
    let compared = |window| {
        let counting = counted(&audit, window, &log());
        (counting.compared, counting.miscounted)
    };
    assert_eq!(compared((10, 15)), (1, 1));
    assert_eq!(
        compared((11, 15)),
        (0, 0),
        "its first records are gone, or were verified before"
    );
    assert_eq!(compared((10, 14)), (0, 0), "it was committed after the look");
    assert_eq!(compared((15, 20)), (0, 0));
}

#[test]
fn nothing_is_said_of_a_range_of_which_a_part_was_taken_away() {
    let range = with("outputs", json!(99));
    let mut audit = Audit::of(&[commit(1, std::slice::from_ref(&range))]).unwrap();
    audit.forget_below("order.created", 0, 12);
    assert_eq!(counted(&audit, (0, 15), &log()).compared, 0, "verified");

    let start = json!({"v": 1, "kind": "start", "pipeline": "p", "at_ms": 2, "topic": "order.created", "partition": 0, "at": 13});
    let mut again = without(&["rows", "charges", "dead_letters"]);
    (again["start"], again["outputs"]) = (json!(13), json!(5));
    let audit = Audit::of(&[commit(1, &[range]), start.to_string(), commit(3, &[again])]).unwrap();
    let counting = counted(&audit, (0, 15), &log());
    assert_eq!(
        (counting.compared, counting.miscounted),
        (1, 0),
        "an operator went back into it: only what came afterwards is whole"
    );
}

#[test]
fn ranges_that_share_offsets_are_an_overlap_and_not_miscounted_too() {
    let mut within = with("outputs", json!(0));
    (within["start"], within["end"]) = (json!(11), json!(12));
    let mut behind = without(&["rows", "charges", "dead_letters"]);
    (behind["start"], behind["end"], behind["outputs"]) = (json!(15), json!(16), json!(1));
    let audit = Audit::of(&[commit(1, &[with("outputs", json!(99)), within, behind])]).unwrap();
    let counting = counted(&audit, (0, 16), &log());
    assert_eq!(
        (counting.compared, counting.miscounted),
        (1, 1),
        "only the one behind is alone, and nothing came of it"
    );
}

#[test]
fn each_range_of_a_partition_has_its_own_outputs_also_those_that_retention_may_have_deleted() {
    let mut ledgers = log();
    ledgers.tables[0].allow(at(17, 0), Fingerprinter::new(0).finish());
    let range = |start: i64, end: i64, rows: Json, outputs: u64| {
        json!({"topic": "order.created", "partition": 0, "start": start, "end": end, "rules": 5, "rules_digest": "0",
            "rows": rows, "outputs": outputs})
    };
    let ranges = [
        range(17, 18, json!({"orders": 1}), 1),
        range(10, 13, json!({"orders": 1}), 2),
        range(15, 17, json!({}), 0),
        range(13, 15, json!({"orders": 1, "orders_vip": 1}), 5),
    ];
    let audit = Audit::of(&[commit(1, &ranges)]).unwrap();
    let counting = counted(&audit, (0, 18), &ledgers);
    assert_eq!((counting.compared, counting.miscounted), (4, 0), "{counting:?}");
}

#[test]
fn a_count_of_another_pipeline_file_says_so() {
    let record = |revision: &str| {
        json!({"v": 1, "kind": "commit", "pipeline": "p", "revision": revision, "ranges": [with("charges", json!(2))]})
            .to_string()
    };
    let said = |revision: &str| {
        let audit = Audit::of(&[record(revision)]).unwrap();
        counted(&audit, (0, 15), &log()).examples.remove(0)
    };
    let now = format!("{:016x}", shop().revision);
    assert!(said(&now).ends_with("says 2 charges, must be 1"));
    assert!(said("00ff").ends_with(&format!(
        "must be 1, by revision 00000000000000ff of the pipeline file, now {now}"
    )));
}
