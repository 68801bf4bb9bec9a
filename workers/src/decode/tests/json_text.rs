//! The exact text of JSON columns.

use super::{long, ready, record, text};

fn json(field_type: &str, payload: &[u8]) -> String {
    let (_, plan, mut columns) = ready(&record(&format!(r#"{{"name":"a","type":{field_type}}}"#)));
    plan.decode(&mut columns, payload).unwrap();
    let batch = columns.finish().unwrap();
    arrow::array::AsArray::as_string::<i32>(batch.column(0))
        .value(0)
        .to_owned()
}

#[test]
fn every_type_has_one_text() {
    let all = r#"{"type":"array","items":{"type":"record","name":"R","fields":[
        {"name":"n","type":"null"},{"name":"b","type":"boolean"},{"name":"i","type":"int"},{"name":"l","type":"long"},
        {"name":"f","type":"float"},{"name":"d","type":"double"},{"name":"y","type":"bytes"},{"name":"s","type":"string"},
        {"name":"x","type":{"type":"fixed","name":"F","size":2}},
        {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B"]}},
        {"name":"u","type":{"type":"string","logicalType":"uuid"}},
        {"name":"c","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
        {"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"m","type":{"type":"map","values":["null","long","string"]}}]}}"#;
    let one = [
        vec![1],
        long(-7),
        long(1 << 40),
        1.1f32.to_le_bytes().to_vec(),
        f64::NEG_INFINITY.to_le_bytes().to_vec(),
        [long(2), vec![0, 255]].concat(),
        text("a\"\n\u{1}é"),
        vec![1, 171],
        long(1),
        text("5E0F4A0E-3A44-4D6A-93F4-2BD0C6A8A5C1"),
        [long(1), vec![0xfb]].concat(),
        long(1_795_228_766_362),
        [long(2), text("k"), long(1), long(5), text("z"), long(0), long(0)].concat(),
    ]
    .concat();
    let expected = concat!(
        r#"[{"n":null,"b":true,"i":-7,"l":1099511627776,"f":1.1,"d":"-Infinity","y":"00ff","s":"a\"\n\u0001é","#,
        r#""x":"01ab","e":"B","u":"5e0f4a0e-3a44-4d6a-93f4-2bd0c6a8a5c1","c":"-0.05","t":1795228766362,"#,
        r#""m":{"k":5,"z":null}}]"#
    );
    assert_eq!(json(all, &[long(1), one, long(0)].concat()), expected);
}

#[test]
fn a_union_of_several_types_is_the_bare_value_of_its_branch_and_its_null_is_null() {
    let mixed = r#"["null","long",{"type":"array","items":"string"}]"#;
    assert_eq!(json(mixed, &[long(1), long(5)].concat()), "5");
    assert_eq!(
        json(mixed, &[long(2), long(2), text("a"), text("b"), long(0)].concat()),
        r#"["a","b"]"#
    );
    let (_, plan, mut columns) = ready(&record(&format!(r#"{{"name":"a","type":{mixed}}}"#)));
    plan.decode(&mut columns, &long(0)).unwrap();
    assert_eq!(columns.finish().unwrap().column(0).null_count(), 1);
}

#[test]
fn decimals_of_more_digits_than_a_column_can_have_are_the_hex_of_their_bytes() {
    let huge =
        r#"{"type":"array","items":["null","int",{"type":"bytes","logicalType":"decimal","precision":60,"scale":2}]}"#;
    assert_eq!(
        json(huge, &[long(1), long(2), long(3), vec![0, 1, 255], long(0)].concat()),
        r#"["0001ff"]"#
    );
}
