//! Bytes to cells, by way of a schema that hides nothing.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use pipeline::shape::Shape;

use super::{encode, record, text};
use crate::alerts::rfc3339;
use crate::cell::Cell;
use crate::writer::Writer;

fn cells(fields: &str, payload: &[u8]) -> Result<Vec<Cell>, Option<&'static str>> {
    let schema = record(fields);
    let shape = Shape::of(std::slice::from_ref(&schema)).unwrap();
    let writer = Writer::new(&schema, &shape).unwrap();
    let reader = GenericDatumReader::builder(&writer.schema).build().unwrap();
    let value = crate::avro::decode(&reader, payload)?;
    writer.cells(&shape, &value).map_err(Some)
}

fn json(fields: &str, payload: &[u8]) -> String {
    match cells(fields, payload).unwrap().remove(0) {
        Cell::Bytes(bytes) => String::from_utf8(bytes).unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_payload_that_ends_anywhere_before_its_end_is_refused_although_the_library_reads_nulls() {
    let fields = r#"{"name":"s","type":"string"},{"name":"b","type":"boolean"},{"name":"o","type":["null","string"]}"#;
    let some = Value::Union(1, Box::new(text("abc")));
    let whole = encode(
        &record(fields),
        &[("s", text("abc")), ("b", Value::Boolean(true)), ("o", some)],
    );
    assert!(cells(fields, &whole).is_ok());
    for cut in 0..whole.len() {
        assert_eq!(cells(fields, &whole[..cut]), Err(None), "cut at {cut}");
    }
    assert_eq!(cells(fields, &[&whole[..], &[0]].concat()), Err(Some("trailing_bytes")));
}

#[test]
fn maps_keep_their_order_and_the_last_value_of_a_key() {
    let map = r#"{"name":"m","type":{"type":"map","values":"long"}}"#;
    let entries = [
        &[8u8][..],
        &[2, b'z', 2],
        &[2, b'a', 4],
        &[2, b'z', 6],
        &[2, b'b', 8],
        &[0],
    ]
    .concat();
    let expected = [("z", 3), ("a", 2), ("b", 4)].map(|(key, value)| (key.as_bytes().to_vec(), Cell::Int(value)));
    assert_eq!(cells(map, &entries), Ok(vec![Cell::Map(expected.to_vec())]));
    let mixed = r#"{"name":"m","type":{"type":"map","values":["long","null"]}}"#;
    let entries = [&[4u8][..], &[2, b'z', 0, 2], &[2, b'a', 2], &[0]].concat();
    assert_eq!(cells(mixed, &entries).unwrap().len(), 1);
    let unions = r#"{"name":"m","type":["null",{"type":"map","values":"long"},{"type":"array","items":"string"}]}"#;
    assert_eq!(
        json(unions, &[&[2u8, 4][..], &[2, b'z', 2], &[2, b'a', 4], &[0]].concat()),
        r#"{"z":1,"a":2}"#
    );
    assert_eq!(json(unions, &[4, 2, 2, b'x', 0]), r#"["x"]"#);
}

#[test]
fn decimals_have_their_scale_wherever_they_are() {
    let named = r#"{"name":"a","type":{"type":"array","items":{"type":"record","name":"R","fields":[
        {"name":"f","type":{"type":"fixed","name":"Money","size":2,"logicalType":"decimal","precision":4,"scale":2}},
        {"name":"again","type":"Money"},
        {"name":"b","type":{"type":"bytes","logicalType":"decimal","precision":4,"scale":0}}]}}},
        {"name":"c","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":3}}"#;
    let payload = [&[2u8][..], &[0, 5], &[0xff, 0xfb], &[2, 7], &[0], &[2, 0xfe]].concat();
    assert_eq!(json(named, &payload), r#"[{"f":"0.05","again":"-0.05","b":"7"}]"#);
    assert_eq!(cells(named, &payload).unwrap()[1], Cell::Decimal(-2));
    let too_many = [&[2u8][..], &[0x27, 0x10], &[0, 0], &[2, 7], &[0], &[2, 0]].concat();
    assert_eq!(cells(named, &too_many), Err(Some("decimal_out_of_range")));
}

#[test]
fn the_workers_limits_are_told_here_again() {
    let nulls = r#"{"name":"a","type":{"type":"array","items":"null"}}"#;
    let count = |count: i64| {
        let mut zigzag = (count << 1) as u64;
        let mut bytes = Vec::new();
        while zigzag > 0x7f {
            bytes.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        [bytes, vec![zigzag as u8, 0]].concat()
    };
    assert!(cells(nulls, &count(65_536)).is_ok());
    assert_eq!(cells(nulls, &count(65_537)), Err(Some("too_large")));
    assert_eq!(cells(nulls, &count(1 << 60)), Err(None));
    let list = r#"{"name":"a","type":{"type":"record","name":"L","fields":[
        {"name":"head","type":"int"},{"name":"tail","type":["null","L"]}]}}"#;
    let nested = |levels: usize| [[2u8, 2].repeat(levels), vec![2, 0]].concat();
    assert!(cells(list, &nested(62)).is_ok());
    assert_eq!(cells(list, &nested(63)), Err(Some("too_deep")));
    assert!(cells(list, &nested(500_000)).is_err());
}

#[test]
fn what_a_version_lacks_is_null() {
    let v1 = record(r#"{"name":"id","type":"string"},{"name":"old","type":"int"}"#);
    let v2 = record(
        r#"{"name":"id","type":"string"},{"name":"new","aliases":["old"],"type":"long"},
           {"name":"channel","type":"string","default":"web"},{"name":"note","type":["null","string"],"default":null}"#,
    );
    let shape = Shape::of(&[v1.clone(), v2]).unwrap();
    let writer = Writer::new(&v1, &shape).unwrap();
    let payload = encode(&v1, &[("id", text("a")), ("old", Value::Int(-3))]);
    let reader = GenericDatumReader::builder(&writer.schema).build().unwrap();
    let row = writer
        .cells(&shape, &crate::avro::decode(&reader, &payload).unwrap())
        .unwrap();
    assert_eq!(row, [Cell::text("a"), Cell::Int(-3), Cell::Null, Cell::Null]);
}

#[test]
fn times_are_written_as_a_calendar_has_them() {
    assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
    assert_eq!(rfc3339(1_795_228_766_362), "2026-11-21T02:39:26.362Z");
    assert_eq!(rfc3339(951_782_399_999), "2000-02-28T23:59:59.999Z");
    assert_eq!(rfc3339(951_868_800_000), "2000-03-01T00:00:00.000Z");
    assert_eq!(rfc3339(-1), "1969-12-31T23:59:59.999Z");
    assert_eq!(rfc3339(i64::MAX), i64::MAX.to_string());
}
