//! Versions of a schema that share one shape.

use apache_avro::Schema;
use pipeline::shape::Shape;

use super::oracle::{self, Cell};
use super::{long, record, text};
use crate::decode::{Columns, Plan, PlanError};

/// Rows of payloads, each of its own version, all in one batch.
fn rows(versions: &[Schema], payloads: &[(usize, Vec<u8>)]) -> (Shape, Vec<Vec<Cell>>) {
    let shape = Shape::of(versions).unwrap();
    let plans: Vec<_> = versions
        .iter()
        .map(|version| Plan::compile(version, &shape).unwrap())
        .collect();
    let mut columns = Columns::new(&shape);
    for (version, payload) in payloads {
        plans[*version].decode(&mut columns, payload).unwrap();
    }
    let batch = columns.finish().unwrap();
    assert_eq!(batch.schema(), shape.arrow());
    let rows = (0..batch.num_rows())
        .map(|row| oracle::batch_row(&shape, &batch, row))
        .collect();
    (shape, rows)
}

fn word(text: &str) -> Cell {
    Cell::Text(text.to_owned())
}

#[test]
fn fields_that_one_version_lacks_are_null_whatever_the_default_and_dropped_ones_stay() {
    let v1 = record(r#"{"name":"id","type":"string"},{"name":"gift","type":"boolean"}"#);
    let v2 = record(
        r#"{"name":"id","type":"string"},
           {"name":"shipping","type":["null","long"],"default":null},
           {"name":"channel","type":"string","default":"web"},
           {"name":"tags","type":{"type":"array","items":"string"},"default":["a","b"]},
           {"name":"props","type":{"type":"map","values":"long"},"default":{"k":1}}"#,
    );
    let new = [text("b"), long(1), long(9), text("app"), long(0), long(0)].concat();
    let (shape, rows) = rows(&[v1, v2], &[(0, [text("a"), vec![1]].concat()), (1, new)]);
    let names: Vec<_> = shape.columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["id", "shipping", "channel", "tags", "props", "gift"]);
    let null = || Cell::Null;
    assert_eq!(rows[0], [word("a"), null(), null(), null(), null(), Cell::Bool(true)]);
    let (none, empty) = (Cell::List(vec![]), Cell::Map([].into()));
    assert_eq!(rows[1], [word("b"), Cell::Int(9), word("app"), none, empty, Cell::Null]);
}

#[test]
fn numbers_and_texts_are_promoted() {
    let fields = |a: &str, b: &str, c: &str, d: &str| {
        record(&format!(
            r#"{{"name":"a","type":{a}}},{{"name":"b","type":{b}}},{{"name":"c","type":{c}}},{{"name":"d","type":{d}}}"#
        ))
    };
    let v1 = fields(r#""int""#, r#""float""#, r#""bytes""#, r#""long""#);
    let v2 = fields(r#""long""#, r#""double""#, r#""string""#, r#""double""#);
    let old = [long(-5), 1.5f32.to_le_bytes().to_vec(), text("é"), long(1 << 60)].concat();
    let (_, rows) = rows(&[v1, v2], &[(0, old)]);
    let double = |value: f64| Cell::Float(value.to_bits());
    assert_eq!(
        rows[0],
        [Cell::Int(-5), double(1.5), word("é"), double((1u64 << 60) as f64)]
    );
}

#[test]
fn bytes_that_became_text_and_are_none_are_refused() {
    let versions = [
        record(r#"{"name":"c","type":"bytes"}"#),
        record(r#"{"name":"c","type":"string"}"#),
    ];
    let shape = Shape::of(&versions).unwrap();
    let plan = Plan::compile(&versions[0], &shape).unwrap();
    let error = plan.decode(&mut Columns::new(&shape), &[2, 0xff]).unwrap_err();
    assert_eq!((error.field.as_str(), error.code), ("c", "invalid_utf8"));
}

#[test]
fn a_renamed_field_fills_the_column_of_its_alias_even_inside_a_renamed_record() {
    let v1 = record(r#"{"name":"p","type":{"type":"record","name":"P","fields":[{"name":"u","type":"string"}]}}"#);
    let v2 = record(
        r#"{"name":"page","aliases":["p"],"type":{"type":"record","name":"P","fields":[
           {"name":"url","aliases":["u"],"type":"string"},{"name":"title","type":"string","default":"?"}]}}"#,
    );
    let (_, rows) = rows(&[v1, v2], &[(0, text("old")), (1, [text("new"), text("t")].concat())]);
    assert_eq!(rows, [vec![word("old"), Cell::Null], vec![word("new"), word("t")]]);
}

#[test]
fn what_an_optional_record_lacks_is_null_with_and_without_the_record() {
    let campaign = |fields: &str| {
        record(&format!(
            r#"{{"name":"id","type":"string"}},
               {{"name":"c","type":["null",{{"type":"record","name":"C","fields":[{fields}]}}],"default":null}}"#
        ))
    };
    let v1 = campaign(r#"{"name":"source","type":"string"}"#);
    let v2 = campaign(r#"{"name":"source","type":"string"},{"name":"medium","type":"string","default":"web"}"#);
    let absent = [text("a"), long(0)].concat();
    let present = [text("b"), long(1), text("mail")].concat();
    let (_, rows) = rows(&[v1, v2], &[(0, absent), (0, present)]);
    assert_eq!(rows[0], [word("a"), Cell::Null, Cell::Null]);
    assert_eq!(rows[1], [word("b"), word("mail"), Cell::Null]);
}

#[test]
fn a_whole_record_that_is_new_is_null_in_older_events() {
    let v1 = record(r#"{"name":"id","type":"string"}"#);
    let v2 = record(
        r#"{"name":"id","type":"string"},{"name":"s","type":{"type":"record","name":"S","fields":[
           {"name":"w","type":"int"},{"name":"h","type":["null","int"],"default":null}]},"default":{"w":7}}"#,
    );
    let (_, rows) = rows(&[v1, v2], &[(0, text("a"))]);
    assert_eq!(rows[0], [word("a"), Cell::Null, Cell::Null]);
}

#[test]
fn fields_without_a_column_are_stepped_over_but_must_still_be_right() {
    let shape = Shape::of(&[record(r#"{"name":"id","type":"string"}"#)]).unwrap();
    let newer = record(
        r#"{"name":"extra","type":["null",{"type":"record","name":"X","fields":[
           {"name":"t","type":"string"},{"name":"m","type":{"type":"map","values":"double"}}]}]},
           {"name":"id","type":"string"}"#,
    );
    let plan = Plan::compile(&newer, &shape).unwrap();
    let mut columns = Columns::new(&shape);
    let map = [long(1), text("k"), 1f64.to_le_bytes().to_vec(), long(0)].concat();
    plan.decode(&mut columns, &[long(1), text("t"), map, text("a")].concat())
        .unwrap();
    plan.decode(&mut columns, &[long(0), text("b")].concat()).unwrap();
    let error = plan
        .decode(&mut columns, &[long(1), vec![2, 0xff], long(0), text("c")].concat())
        .unwrap_err();
    assert_eq!((error.field.as_str(), error.code), ("extra.t", "invalid_utf8"));
    let batch = columns.finish().unwrap();
    assert_eq!(oracle::batch_row(&shape, &batch, 0), [word("a")]);
    assert_eq!(oracle::batch_row(&shape, &batch, 1), [word("b")]);
}

#[test]
fn a_writer_that_the_shape_does_not_cover_has_no_plan() {
    let shape = Shape::of(&[record(r#"{"name":"a","type":"long"}"#)]).unwrap();
    let compile = |fields: &str| Plan::compile(&record(fields), &shape).map(|_| ());
    let lacking = compile(r#"{"name":"b","type":"long"}"#).unwrap_err();
    assert!(
        matches!(&lacking, PlanError::NotCovered { column, .. } if column == "a"),
        "{lacking}"
    );
    let nullable = compile(r#"{"name":"a","type":["null","long"]}"#).unwrap_err();
    assert!(
        matches!(&nullable, PlanError::NotCovered { column, .. } if column == "a"),
        "{nullable}"
    );
    let other = compile(r#"{"name":"a","type":"string"}"#).unwrap_err();
    assert!(
        matches!(&other, PlanError::Incompatible { field, .. } if field == "a"),
        "{other}"
    );
    let no_record = Plan::compile(&Schema::String, &shape).unwrap_err();
    assert_eq!(
        no_record,
        PlanError::NotARecord {
            found: "string".to_owned()
        }
    );
}

#[test]
fn the_order_of_null_in_a_union_does_not_matter() {
    for (union, null, one) in [(r#"["null","long"]"#, 0, 1), (r#"["long","null"]"#, 1, 0)] {
        let version = record(&format!(r#"{{"name":"a","type":{union}}}"#));
        let payloads = [(0, long(null)), (0, [long(one), long(5)].concat())];
        let (_, rows) = rows(&[version], &payloads);
        assert_eq!(rows, [[Cell::Null], [Cell::Int(5)]]);
    }
}
