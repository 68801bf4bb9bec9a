//! Blocks of arrays and maps, and keys that come twice.

use super::oracle::{self, Cell};
use super::{long, ready, record, text};

fn cell(fields: &str, payload: &[u8]) -> Cell {
    let (shape, plan, mut columns) = ready(&record(fields));
    // Rows before and after, so that offsets that are off by a row show.
    for _ in 0..3 {
        plan.decode(&mut columns, payload).unwrap();
    }
    let batch = columns.finish().unwrap();
    let cells: Vec<_> = (0..3).map(|row| oracle::batch_row(&shape, &batch, row)).collect();
    assert!(cells[0] == cells[1] && cells[1] == cells[2]);
    cells[0][0].clone()
}

#[test]
fn blocks_with_and_without_a_byte_size_make_one_array() {
    let longs = r#"{"name":"a","type":{"type":"array","items":"long"}}"#;
    let blocks = [
        long(2),
        long(1),
        long(2),
        long(-1),
        long(1),
        long(3),
        long(1),
        long(4),
        long(0),
    ]
    .concat();
    assert_eq!(cell(longs, &blocks), Cell::List((1..5).map(Cell::Int).collect()));
    assert_eq!(cell(longs, &long(0)), Cell::List(Vec::new()));
}

#[test]
fn a_key_that_comes_twice_has_its_last_value_as_a_reader_with_hash_maps_sees_it() {
    let map = r#"{"name":"a","type":{"type":"map","values":["null",{"type":"array","items":"string"}]}}"#;
    let list = r#"{"name":"a","type":{"type":"map","values":{"type":"array","items":"string"}}}"#;
    let items = |values: &[&str]| {
        [
            long(values.len() as i64),
            values.iter().flat_map(|v| text(v)).collect(),
            long(0),
        ]
        .concat()
    };
    let entry = |key: &str, values: &[&str]| [text(key), items(values)].concat();
    let twice = [
        long(2),
        entry("k", &["first", "of", "all"]),
        entry("other", &["o"]),
        long(2),
        entry("k", &["second"]),
        entry("k", &["last", "one"]),
        long(0),
    ]
    .concat();
    let words = |words: &[&str]| Cell::List(words.iter().map(|word| Cell::Text((*word).to_owned())).collect());
    let expected = [
        ("k".to_owned(), words(&["last", "one"])),
        ("other".to_owned(), words(&["o"])),
    ];
    assert_eq!(cell(list, &twice), Cell::Map(expected.into()));
    // The same as JSON: lists that may be missing have no kind of their own inside a map.
    let optional = |key: &str, value: &str| [text(key), long(1), items(&[value])].concat();
    let twice = [
        long(3),
        optional("k", "first"),
        optional("o", "x"),
        optional("k", "last"),
        long(0),
    ]
    .concat();
    assert_eq!(
        cell(map, &twice),
        Cell::Json(serde_json::json!({"k": ["last"], "o": ["x"]}))
    );
}

#[test]
fn keys_that_come_twice_are_found_in_large_maps_and_with_every_kind_of_value() {
    let cases = [
        (r#""boolean""#, vec![0], vec![1], Cell::Bool(true)),
        (r#""int""#, long(1), long(2), Cell::Int(2)),
        (r#"["null","long"]"#, long(0), [long(1), long(7)].concat(), Cell::Int(7)),
        (r#"["null","long"]"#, [long(1), long(7)].concat(), long(0), Cell::Null),
        (
            r#""double""#,
            1f64.to_le_bytes().to_vec(),
            2f64.to_le_bytes().to_vec(),
            Cell::Float(2f64.to_bits()),
        ),
        (r#""string""#, text("first"), text("l"), Cell::Text("l".to_owned())),
    ];
    for (values, first, last, expected) in cases {
        let fields = format!(r#"{{"name":"a","type":{{"type":"map","values":{values}}}}}"#);
        for others in [0, 40] {
            let mut payload = [long(others + 2), text("k"), first.clone()].concat();
            for other in 0..others {
                payload.extend([text(&format!("o{other}")), last.clone()].concat());
            }
            payload.extend([text("k"), last.clone(), long(0)].concat());
            let Cell::Map(map) = cell(&fields, &payload) else {
                panic!("no map")
            };
            assert_eq!(map.len() as i64, others + 1);
            assert_eq!(map["k"], expected);
        }
    }
}
