//! A few bytes must not claim gigabytes, hours, or the stack.

use pipeline::shape::Shape;

use super::{long, ready, record, text};
use crate::decode::{Columns, DEPTH_MAX, Plan, TEXT_BYTES_MAX, ZERO_WIDTH_ITEMS_MAX};

/// What becomes of a payload, which is the same for a table with all columns and for one that has none of them yet.
fn code(fields: &str, payload: &[u8]) -> &'static str {
    let writer = record(fields);
    let (_, plan, mut columns) = ready(&writer);
    let code = outcome(&plan, &mut columns, payload);
    let lagging = Shape::of(&[record(r#"{"name":"never_written","type":["null","long"]}"#)]).unwrap();
    let plan = Plan::compile(&writer, &lagging).unwrap();
    assert_eq!(
        outcome(&plan, &mut Columns::new(&lagging), payload),
        code,
        "without columns"
    );
    code
}

fn outcome(plan: &Plan, columns: &mut Columns, payload: &[u8]) -> &'static str {
    match plan.decode(columns, payload) {
        Ok(()) => "fine",
        Err(error) => error.code,
    }
}

#[test]
fn items_that_take_no_bytes_are_counted() {
    let nulls = r#"{"name":"a","type":{"type":"array","items":"null"}}"#;
    let of = |count: i64| [long(count), long(0)].concat();
    assert_eq!(code(nulls, &of(i64::from(ZERO_WIDTH_ITEMS_MAX))), "fine");
    assert_eq!(code(nulls, &of(i64::from(ZERO_WIDTH_ITEMS_MAX) + 1)), "too_large");
    assert_eq!(code(nulls, &of(1 << 60)), "too_large");
    assert_eq!(code(nulls, &[long(i64::MIN), long(0), long(0)].concat()), "too_large");
    // Many small blocks are one large array.
    let blocks = [long(i64::from(ZERO_WIDTH_ITEMS_MAX)), long(1), long(0)].concat();
    assert_eq!(code(nulls, &blocks), "too_large");
    let fixed = r#"{"name":"a","type":{"type":"array","items":{"type":"fixed","name":"F","size":0}}}"#;
    assert_eq!(code(fixed, &of(1 << 60)), "too_large");
}

#[test]
fn items_that_take_bytes_are_bounded_by_the_bytes_that_are_left() {
    let longs = r#"{"name":"a","type":{"type":"array","items":"long"}}"#;
    assert_eq!(code(longs, &[long(i64::MAX), long(1)].concat()), "truncated");
    assert_eq!(code(longs, &[long(2), long(1), long(1), long(0)].concat()), "fine");
    let map = r#"{"name":"a","type":{"type":"map","values":"null"}}"#;
    assert_eq!(code(map, &[long(1 << 40), text("k")].concat()), "truncated");
}

#[test]
fn text_that_grows_out_of_few_bytes_is_bounded() {
    let long_name = "n".repeat(4000);
    let fields: String = format!(r#"{{"name":"{long_name}","type":"null"}},{{"name":"b","type":"boolean"}}"#);
    let records = format!(
        r#"{{"name":"a","type":{{"type":"array","items":{{"type":"record","name":"R","fields":[{fields}]}}}}}}"#
    );
    let of = |count: usize| [long(count as i64), vec![0; count], long(0)].concat();
    assert_eq!(code(&records, &of(TEXT_BYTES_MAX / 5000)), "fine");
    assert_eq!(code(&records, &of(TEXT_BYTES_MAX / 4000)), "too_large");
    let symbols = format!(
        r#"{{"name":"a","type":{{"type":"array","items":{{"type":"enum","name":"E","symbols":["{long_name}"]}}}}}}"#
    );
    assert_eq!(code(&symbols, &of(TEXT_BYTES_MAX / 5000)), "fine");
    assert_eq!(code(&symbols, &of(TEXT_BYTES_MAX / 3999)), "too_large");
}

#[test]
fn the_last_byte_of_text_that_an_event_may_have_does_not_depend_on_the_columns() {
    let symbol = "n".repeat(1000);
    let json = r#"{"type":"array","items":["long","string"]}"#;
    let fields = format!(
        r#"{{"name":"symbols","type":{{"type":"array","items":{{"type":"enum","name":"E","symbols":["{symbol}"]}}}}}},
           {{"name":"json","type":["null",{json}]}},
           {{"name":"inner","type":["null",{{"type":"record","name":"Inner","fields":[{{"name":"json","type":{json}}}]}}]}}"#
    );
    let of = |items: usize| {
        let symbols = TEXT_BYTES_MAX / symbol.len();
        let symbols = [long(symbols as i64), vec![0; symbols], long(0)].concat();
        let inner = [vec![2], long(items as i64), vec![0; 2 * items], long(0)].concat();
        [symbols, vec![0], inner].concat()
    };
    // The brackets, and a digit and a comma for each item.
    let items = (TEXT_BYTES_MAX % symbol.len() - 2) / 2;
    assert_eq!(code(&fields, &of(items)), "fine");
    assert_eq!(code(&fields, &of(items + 1)), "too_large");
}

#[test]
fn only_the_last_value_of_a_key_counts_as_text() {
    let symbol = "n".repeat(1000);
    let lists = format!(r#"{{"type":"array","items":["long",{{"type":"enum","name":"E","symbols":["{symbol}"]}}]}}"#);
    let fields = format!(r#"{{"name":"a","type":{{"type":"map","values":{lists}}}}}"#);
    let of = |key: &str| {
        let symbols = TEXT_BYTES_MAX / symbol.len() * 2 / 3;
        let value = [long(symbols as i64), [2, 0].repeat(symbols), long(0)].concat();
        [long(2), text("k"), value.clone(), text(key), value, long(0)].concat()
    };
    assert_eq!(code(&fields, &of("k")), "fine");
    assert_eq!(code(&fields, &of("l")), "too_large");
}

#[test]
fn recursive_values_end_at_the_depth_limit_whether_or_not_they_have_a_column() {
    let list = r#"{"name":"a","type":{"type":"record","name":"L","fields":[
        {"name":"head","type":"int"},{"name":"tail","type":["null","L"]}]}}"#;
    // The event is level 1, the record `a` level 2; its `tail` is the column of JSON and starts at level 3.
    let nested = |levels: usize| [[vec![2], vec![2]].concat().repeat(levels), vec![2, 0]].concat();
    let most = DEPTH_MAX as usize - 2;
    assert_eq!(code(list, &nested(most)), "fine");
    assert_eq!(code(list, &nested(most + 1)), "too_deep");
    assert_eq!(code(list, &nested(1_000_000)), "too_deep");
    let other = Shape::of(&[record(r#"{"name":"b","type":["null","long"]}"#)]).unwrap();
    let plan = Plan::compile(&record(list), &other).unwrap();
    let mut columns = Columns::new(&other);
    plan.decode(&mut columns, &nested(most)).unwrap();
    assert_eq!(
        plan.decode(&mut columns, &nested(most + 1)).unwrap_err().code,
        "too_deep"
    );
}

#[test]
fn records_of_nothing_that_double_at_every_level_are_stepped_over_at_once() {
    let mut nothing = r#"{"type":"record","name":"R0","fields":[]}"#.to_owned();
    for level in 1..30 {
        let inner = format!("R{}", level - 1);
        nothing = format!(
            r#"{{"type":"record","name":"R{level}","fields":[{{"name":"a","type":{nothing}}},{{"name":"b","type":"{inner}"}}]}}"#
        );
    }
    let writer = record(&format!(
        r#"{{"name":"id","type":"string"}},{{"name":"n","type":{nothing}}}"#
    ));
    let shape = Shape::of(&[record(r#"{"name":"id","type":"string"}"#)]).unwrap();
    let plan = Plan::compile(&writer, &shape).unwrap();
    plan.decode(&mut Columns::new(&shape), &text("x")).unwrap();
}
