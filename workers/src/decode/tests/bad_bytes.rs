//! One test for each way in which bytes can be wrong: the code, the field, and no trace in the columns.

use proptest::prelude::*;

use super::oracle;
use super::{Columns, PEER, encode, long, peer_event, ready, record, schema, text};
use crate::decode::{DecodeError, Plan};

fn refusal(fields: &str, payload: &[u8]) -> (String, &'static str) {
    let (_, plan, mut columns) = ready(&record(fields));
    let DecodeError { field, code, reason } = plan.decode(&mut columns, payload).unwrap_err();
    assert!(reason.contains(&format!("of {}", payload.len())), "{reason}");
    assert!(columns.is_empty() && columns.columns.iter().all(|column| column.len() == 0));
    (field, code)
}

#[test]
fn every_kind_of_bad_value_is_refused_with_its_own_code_and_the_path_of_its_field() {
    let string = r#"{"name":"id","type":"string"},{"name":"s","type":"string"}"#;
    let good = text("x");
    let after = |bytes: &[u8]| [good.clone(), bytes.to_vec()].concat();
    let named = |code| ("s".to_owned(), code);
    assert_eq!(refusal(string, &after(&[4, 0xff, 0xfe])), named("invalid_utf8"));
    assert_eq!(refusal(string, &after(&[8, b'a'])), named("truncated"));
    assert_eq!(refusal(string, &after(&long(-3))), named("negative_length"));
    assert_eq!(refusal(string, &after(&[0xff; 10])), named("bad_varint"));
    assert_eq!(refusal(string, &after(&long(i64::MAX))), named("truncated"));
    let trailing = [text("x"), text("y"), vec![0]].concat();
    assert_eq!(refusal(string, &trailing), (String::new(), "trailing_bytes"));
    assert_eq!(refusal(r#"{"name":"s","type":"boolean"}"#, &[2]), named("bad_boolean"));
    assert_eq!(
        refusal(r#"{"name":"s","type":"int"}"#, &long(1 << 31)),
        named("int_out_of_range")
    );
    assert_eq!(
        refusal(r#"{"name":"s","type":["null","int"]}"#, &long(2)),
        named("bad_union_index")
    );
    assert_eq!(
        refusal(r#"{"name":"s","type":["null","int"]}"#, &long(-1)),
        named("bad_union_index")
    );
    assert_eq!(
        refusal(r#"{"name":"s","type":["int","null"]}"#, &long(i64::MIN)),
        named("bad_union_index")
    );
    let symbols = r#"{"name":"s","type":{"type":"enum","name":"E","symbols":["A"]}}"#;
    assert_eq!(refusal(symbols, &long(1)), named("bad_enum_index"));
    assert_eq!(refusal(symbols, &long(-1)), named("bad_enum_index"));
    let uuid = r#"{"name":"s","type":{"type":"string","logicalType":"uuid"}}"#;
    assert_eq!(refusal(uuid, &text("not a uuid")), named("bad_uuid"));
    let decimal = r#"{"name":"s","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":2}}"#;
    assert_eq!(refusal(decimal, &[4, 0x27, 0x10]), named("decimal_out_of_range"));
}

#[test]
fn a_field_of_a_nested_record_is_named_by_its_whole_path() {
    let nested = r#"{"name":"id","type":"string"},{"name":"page","type":["null",{"type":"record","name":"P","fields":[
        {"name":"url","type":"string"},{"name":"tags","type":{"type":"array","items":"string"}}]}]}"#;
    let bad = [text("x"), long(1), text("u"), long(1), vec![2, 0xff]].concat();
    assert_eq!(refusal(nested, &bad), ("page.tags".to_owned(), "invalid_utf8"));
}

#[test]
fn poison_between_good_records_leaves_only_the_good_ones() {
    let schema = schema(PEER);
    let (shape, plan, mut columns) = ready(&schema);
    let mut expected = Vec::new();
    for number in 0..50 {
        let event = peer_event(number);
        let good = encode(&schema, &event);
        plan.decode(&mut columns, &good).unwrap();
        expected.push(oracle::row(&shape, &event));
        // Ten thousand in all, cut at every place in turn, and one with another byte wrong.
        for poison in 0..200 {
            plan.decode(&mut columns, &good[..poison % good.len()]).unwrap_err();
        }
        plan.decode(&mut columns, &[&good[..], &[0]].concat()).unwrap_err();
    }
    let batch = columns.finish().unwrap();
    let rows: Vec<_> = (0..batch.num_rows())
        .map(|row| oracle::batch_row(&shape, &batch, row))
        .collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_columns_of_another_shape_are_refused_and_untouched() {
    let (_, plan, _) = ready(&record(r#"{"name":"a","type":"long"}"#));
    let (_, _, mut others) = ready(&record(r#"{"name":"a","type":"string"}"#));
    assert_eq!(plan.decode(&mut others, &[2]).unwrap_err().code, "wrong_columns");
    assert!(others.is_empty());
}

#[test]
fn finishing_empties_the_columns_and_they_can_be_filled_again() {
    let schema = schema(PEER);
    let (shape, plan, mut columns) = ready(&schema);
    let empty = columns.bytes();
    for round in 0..3 {
        let event = peer_event(round);
        plan.decode(&mut columns, &encode(&schema, &event)).unwrap();
        assert!(columns.bytes() > empty);
        let batch = columns.finish().unwrap();
        assert_eq!(batch.schema(), shape.arrow());
        assert_eq!(oracle::batch_row(&shape, &batch, 0), oracle::row(&shape, &event));
        assert_eq!((columns.len(), columns.bytes()), (0, empty));
    }
    assert_eq!(columns.finish().unwrap().num_rows(), 0);
}

#[test]
fn rows_can_be_given_up_again_from_the_end() {
    let schema = schema(PEER);
    let (_, plan, mut columns) = ready(&schema);
    let mut untouched = Columns::new(&pipeline::shape::Shape::of(std::slice::from_ref(&schema)).unwrap());
    for number in 0..9 {
        plan.decode(&mut columns, &encode(&schema, &peer_event(number)))
            .unwrap();
        if number < 4 {
            plan.decode(&mut untouched, &encode(&schema, &peer_event(number)))
                .unwrap();
        }
    }
    columns.truncate(4);
    columns.truncate(7);
    assert_eq!(columns.len(), 4);
    assert!(columns.columns == untouched.columns);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        let (_, plan, mut columns) = ready(&schema(PEER));
        let decoded = plan.decode(&mut columns, &payload).is_ok();
        prop_assert_eq!(columns.len(), usize::from(decoded));
        prop_assert_eq!(columns.finish().unwrap().num_rows(), usize::from(decoded));
    }

    #[test]
    fn arbitrary_schemas_never_panic(text in r#"[\[\]{}":,a-z0-9 ]{0,200}"#) {
        if let Ok(writer) = apache_avro::Schema::parse_str(&text) {
            let shape = pipeline::shape::Shape::of(&[record(r#"{"name":"a","type":["null","long"]}"#)]).unwrap();
            prop_assert!(Plan::compile(&writer, &shape).is_err());
        }
    }
}
