//! Which tenant has which rules, what is shared, and what a revision's digest says.

use arrow::array::AsArray;
use rules::Revision;

use crate::applying::{documents, routes};
use crate::shop::{self, ORDER, row};

const DROP: &str = "rules: [{name: r, events: [order.created], when: amount_minor > 10, drop: true}]";
const UPPER: &str = "rules: [{name: r, events: [order.created], set: {currency: upper(currency)}}]";

fn compile(documents: &[(&str, String)]) -> Result<Revision, Vec<document::Fault>> {
    let documents: Vec<(String, String)> = documents
        .iter()
        .map(|(file, text)| ((*file).to_owned(), text.clone()))
        .collect();
    Revision::compile(7, &documents, &shop::catalog())
}

#[test]
fn each_tenant_has_its_own_rules_and_the_star_is_for_the_others() {
    let world = documents(&[
        ("a", &format!("tenant: a\n{DROP}")),
        ("b", "tenant: b\nrules: []"),
        ("star", &format!("tenant: \"*\"\n{UPPER}")),
    ]);
    let rows = ["a", "b", "c", "a", "c"]
        .map(|tenant| row([("tenant_id", tenant), ("amount_minor", "50"), ("currency", "eur")]));
    let applied = world.apply(ORDER, &rows);
    assert_eq!(applied.dropped, [0, 3]);
    assert_eq!(routes(&applied), "orders: 1 2 4");
    let currencies = world.column(ORDER, &applied.batch, "currency");
    assert_eq!(
        (currencies[1].as_str(), currencies[2].as_str(), currencies[4].as_str()),
        ("eur", "EUR", "EUR")
    );
}

#[test]
fn tenants_without_rules_are_delivered_unchanged_where_there_is_no_star() {
    let world = documents(&[("a", &format!("tenant: a\n{DROP}"))]);
    let rows = [
        row([("tenant_id", "a"), ("amount_minor", "50")]),
        row([("tenant_id", "b"), ("amount_minor", "50")]),
        row([]),
    ];
    let applied = world.apply(ORDER, &rows);
    assert_eq!(applied.dropped, [0]);
    assert_eq!(routes(&applied), "orders: 1 2");
}

#[test]
fn equal_texts_share_a_program_whatever_their_tenant_layout_and_tests() {
    let spread = "tenant: b   # another\n\nrules:\n  - name: r\n    events: [ order.created ]\n    when: 'amount_minor > 10'\n    drop: true\ntests: [{given: {type: order.created}, expect: {dropped: false}}]\n";
    let revision = compile(&[
        ("1", format!("tenant: a\n{DROP}")),
        ("2", spread.to_owned()),
        ("3", format!("tenant: c\n{UPPER}")),
        (
            "4",
            "tenant: d\nrules: [{name: r, events: [order.created], when: amount_minor > 11, drop: true}]".to_owned(),
        ),
    ])
    .unwrap();
    assert_eq!(revision.programs(), 3);
    assert_eq!(revision.number, 7);
}

#[test]
fn the_digest_knows_rules_and_tenants_and_nothing_else() {
    let digest = |documents: &[(&str, String)]| compile(documents).unwrap().digest;
    let (a, b) = (format!("tenant: a\n{DROP}"), format!("tenant: b\n{UPPER}"));
    let one = digest(&[("1", a.clone()), ("2", b.clone())]);
    assert_eq!(digest(&[("x", format!("# comment\n{b}")), ("y", a.clone())]), one);
    assert_ne!(digest(&[("1", a.clone())]), one);
    assert_ne!(
        digest(&[
            ("1", format!("tenant: a\n{UPPER}")),
            ("2", format!("tenant: b\n{DROP}"))
        ]),
        one
    );
    // The value that promises carry: it must not move with a release.
    assert_eq!(digest(&[("1", a)]), 6030259546466567737);
}

#[test]
fn faults_of_all_documents_come_at_once_and_a_tenant_has_one_document() {
    let faults = compile(&[
        (
            "one.yaml",
            "tenant: a\nrules: [{name: r, when: nothing > 1, drop: true}]".to_owned(),
        ),
        ("two.yaml", "tenant: a\nrules: []".to_owned()),
        ("three.yaml", "tenant: [".to_owned()),
    ])
    .unwrap_err();
    let said: Vec<String> = faults
        .iter()
        .map(|fault| format!("{}:{}:{}", fault.file, fault.line, fault.column))
        .collect();
    assert_eq!(said, ["one.yaml:2:25", "two.yaml:1:9", "three.yaml:1:9"]);
}

#[test]
fn a_successor_does_what_a_fresh_compilation_does() {
    let (a, b) = (
        ("1".to_owned(), format!("tenant: a\n{DROP}")),
        ("2".to_owned(), format!("tenant: b\n{UPPER}")),
    );
    let catalog = shop::catalog();
    let first = Revision::compile(1, std::slice::from_ref(&a), &catalog).unwrap();
    let second = first.successor(2, &[a.clone(), b.clone()], &catalog).unwrap();
    let fresh = Revision::compile(2, &[a, b], &catalog).unwrap();
    assert_eq!((second.number, second.digest, second.programs()), (2, fresh.digest, 2));
    let rows = ["a", "b"].map(|tenant| row([("tenant_id", tenant), ("amount_minor", "50"), ("currency", "eur")]));
    let batch = shop::batch(&catalog.events[ORDER], &rows);
    assert_eq!(second.apply(ORDER, &batch), fresh.apply(ORDER, &batch));
    assert!(
        first
            .successor(3, &[("3".to_owned(), "tenant: c\nrules: [5]".to_owned())], &catalog)
            .is_err()
    );
}

#[test]
fn the_order_of_documents_and_of_tenants_in_a_batch_does_not_matter() {
    let texts = [
        ("a", format!("tenant: a\n{DROP}")),
        ("b", format!("tenant: b\n{UPPER}")),
        ("c", format!("tenant: c\n{DROP}")),
    ];
    let forward = compile(&texts).unwrap();
    let backward = compile(&[texts[2].clone(), texts[1].clone(), texts[0].clone()]).unwrap();
    let rows: Vec<_> = (0..30)
        .map(|n: i32| {
            row([
                ("tenant_id", ["a", "b", "c"][(n % 3) as usize]),
                ("amount_minor", &n.to_string()),
                ("currency", "eur"),
            ])
        })
        .collect();
    let catalog = shop::catalog();
    let batch = shop::batch(&catalog.events[ORDER], &rows);
    assert_eq!(forward.apply(ORDER, &batch), backward.apply(ORDER, &batch));
    let mut turned = rows.clone();
    turned.reverse();
    let there = forward.apply(ORDER, &batch);
    let back = forward.apply(ORDER, &shop::batch(&catalog.events[ORDER], &turned));
    let mut dropped: Vec<u32> = back.dropped.iter().map(|row| 29 - row).collect();
    dropped.reverse();
    assert_eq!(there.dropped, dropped);
    let column = catalog.events[ORDER].index("currency").unwrap();
    let texts = |applied: &rules::Applied| {
        applied
            .batch
            .column(column)
            .as_string::<i32>()
            .iter()
            .map(|text| text.map(str::to_owned))
            .collect::<Vec<_>>()
    };
    let mut reversed = texts(&back);
    reversed.reverse();
    let alive = |row: &usize| !there.dropped.contains(&u32::try_from(*row).unwrap());
    let (there, reversed) = (texts(&there), reversed);
    assert!((0..30).filter(alive).all(|row| there[row] == reversed[row]));
}

#[test]
fn an_empty_batch_comes_out_empty() {
    let world = documents(&[
        ("a", &format!("tenant: a\n{DROP}")),
        ("star", &format!("tenant: \"*\"\n{UPPER}")),
    ]);
    let applied = world.apply(ORDER, &[]);
    assert_eq!(applied.batch.num_rows(), 0);
    assert!(applied.routes.is_empty());
}
