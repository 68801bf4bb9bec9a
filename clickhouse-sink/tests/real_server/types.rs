//! Every kind of column there and back.

use std::sync::Arc;

use apache_avro::Schema;
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array,
    Int64Array, Int64Builder, ListArray, ListBuilder, MapBuilder, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Int32Type};
use clickhouse_sink::{Client, Identity, Inserted, encode, row_hashes, sort_order};
use pipeline::shape::{Kind, Shape};

use crate::server::{IDENTITY, ask, database, insert};

/// A table with a column for each of the batch's, of the types that the block says.
async fn table_like(client: &Client, structure: &str) {
    let columns = structure.split(", `_topic`").next().unwrap();
    let sql = format!("CREATE TABLE t ({columns}, {IDENTITY}) ENGINE = MergeTree ORDER BY tuple()");
    client.query_text(&sql).await.unwrap();
}

/// Inserts the batch in the order 2, 0, 1 and answers what comes back in the order of offsets,
/// which is that of the batch; columns named `raw…` hold what isn't text and are left out.
async fn round_trip(
    name: &str,
    columns: Vec<(&str, ArrayRef, bool)>,
    low_cardinality: &[&str],
) -> (Client, Vec<String>) {
    let client = database(name).await;
    let names: Vec<&str> = columns.iter().map(|(name, _, _)| *name).collect();
    let listed = names
        .into_iter()
        .filter(|name| !name.starts_with("raw"))
        .collect::<Vec<_>>()
        .join(", ");
    let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
    let hashes = row_hashes(&batch).unwrap();
    let identity = Identity {
        topic: "some.topic",
        partition: &[1, 1, 2],
        offset: &[10, 11, 12],
        index: &[0, 1, 65_535],
        row_hash: &hashes,
    };
    let block = encode(
        &batch,
        &identity,
        &[2, 0, 1],
        low_cardinality,
        pipeline::Compression::None,
    )
    .unwrap();
    table_like(&client, &block.structure).await;
    assert_eq!(insert(&client, "t", &block, "a").await, Inserted::Clean);
    let identities = ask(
        &client,
        "SELECT _topic, _partition, _offset, _index, _row_hash, _inserted_at > now() - 60 FROM t ORDER BY _offset",
    )
    .await;
    let expected = [(1, 10, 0), (1, 11, 1), (2, 12, 65_535)].iter().zip(&hashes);
    let expected: Vec<String> = expected
        .map(|((partition, offset, index), hash)| format!("some.topic\t{partition}\t{offset}\t{index}\t{hash}\t1"))
        .collect();
    assert_eq!(identities.lines().collect::<Vec<_>>(), expected);
    let rows = ask(&client, &format!("SELECT {listed} FROM t ORDER BY _offset FORMAT JSONCompactEachRow SETTINGS output_format_json_quote_64bit_integers=0")).await;
    (client, rows.lines().map(|row| row.replace(", ", ",")).collect())
}

fn column(name: &str, array: impl Array + 'static) -> (&str, ArrayRef, bool) {
    let nullable = array.null_count() > 0;
    (name, Arc::new(array), nullable)
}

#[tokio::test]
async fn numbers_times_and_decimals_come_back_as_they_were() {
    let decimal = |values: Vec<i128>, precision, scale| {
        Decimal128Array::from(values)
            .with_precision_and_scale(precision, scale)
            .unwrap()
    };
    let widest = 10_i128.pow(38) - 1;
    let (_, rows) = round_trip(
        "numbers",
        vec![
            column("yes", BooleanArray::from(vec![true, false, true])),
            column("i32", Int32Array::from(vec![i32::MIN, 0, i32::MAX])),
            column("i64", Int64Array::from(vec![i64::MIN, -1, i64::MAX])),
            column("f32", Float32Array::from(vec![0.5, -0.0, f32::MAX])),
            column("f64", Float64Array::from(vec![1e-300, 0.1, -2.5])),
            column("day", Date32Array::from(vec![-25_567, 0, 20_412])),
            column(
                "ms",
                TimestampMillisecondArray::from(vec![0, -1, 1_767_225_600_123]).with_timezone("UTC"),
            ),
            column(
                "us",
                TimestampMicrosecondArray::from(vec![0, -1, 1_767_225_600_123_456]).with_timezone("UTC"),
            ),
            column("d9", decimal(vec![-999_999_999, 0, 125], 9, 2)),
            column("d18", decimal(vec![999_999_999_999_999_999, -1, 0], 18, 18)),
            column("d38", decimal(vec![widest, -widest, 7], 38, 0)),
        ],
        &[],
    )
    .await;
    assert_eq!(rows, [
        format!(r#"[true,-2147483648,-9223372036854775808,0.5,1e-300,"1900-01-01","1970-01-01 00:00:00.000","1970-01-01 00:00:00.000000",-9999999.99,0.999999999999999999,{widest}]"#),
        format!(r#"[false,0,-1,-0,0.1,"1970-01-01","1969-12-31 23:59:59.999","1969-12-31 23:59:59.999999",0,-0.000000000000000001,-{widest}]"#),
        r#"[true,2147483647,9223372036854775807,3.4028235e38,-2.5,"2025-11-20","2026-01-01 00:00:00.123","2026-01-01 00:00:00.123456",1.25,0,7]"#.to_owned(),
    ]);
}

#[tokio::test]
async fn nulls_come_back_as_nulls_in_every_kind_that_can_have_them() {
    let decimal = Decimal128Array::from(vec![None, Some(1), None])
        .with_precision_and_scale(20, 1)
        .unwrap();
    let (_, rows) = round_trip(
        "nulls",
        vec![
            column("yes", BooleanArray::from(vec![None, Some(true), None])),
            column("i64", Int64Array::from(vec![Some(1), None, None])),
            column("f64", Float64Array::from(vec![None, None, Some(0.5)])),
            column("text", StringArray::from(vec![Some(""), None, Some("null")])),
            column("low", StringArray::from(vec![None, Some(""), Some("a")])),
            column("bytes", BinaryArray::from(vec![None, Some(&b"b"[..]), None])),
            column(
                "ms",
                TimestampMillisecondArray::from(vec![None, Some(0), None]).with_timezone("UTC"),
            ),
            column("day", Date32Array::from(vec![None, Some(0), None])),
            column("decimal", decimal),
            ("all", Arc::new(StringArray::from(vec![None::<&str>; 3])), true),
            ("none", Arc::new(StringArray::from(vec!["x"; 3])), true),
        ],
        &["low"],
    )
    .await;
    assert_eq!(
        rows,
        [
            r#"[null,1,null,"",null,null,null,null,null,null,"x"]"#,
            r#"[true,null,null,null,"","b","1970-01-01 00:00:00.000","1970-01-01",0.1,null,"x"]"#,
            r#"[null,null,0.5,"null","a",null,null,null,null,null,"x"]"#,
        ]
    );
}

#[tokio::test]
async fn texts_and_bytes_keep_every_character_and_every_byte() {
    let long = "l\u{f6}ng ".repeat(50_000);
    let (client, rows) = round_trip(
        "texts",
        vec![
            column(
                "text",
                StringArray::from(vec!["", "tab\tline\nquote'\"\\ \0", "\u{1F980}"]),
            ),
            column("long", StringArray::from(vec![long.as_str(), "", "b"])),
            column("raw", BinaryArray::from(vec![&b"\xFF\x00\xFE"[..], b"", b"\n"])),
        ],
        &[],
    )
    .await;
    let text = |row: &str| serde_json::from_str::<Vec<serde_json::Value>>(row).unwrap()[0].clone();
    assert_eq!(
        rows.iter().map(|row| text(row)).collect::<Vec<_>>(),
        ["", "tab\tline\nquote'\"\\ \0", "\u{1F980}"]
    );
    let rest = ask(
        &client,
        "SELECT length(long), hex(MD5(long)) = hex(MD5(repeat('l\u{f6}ng ', 50000))), hex(raw) FROM t ORDER BY _offset",
    )
    .await;
    assert_eq!(rest, "300000\t1\tFF00FE\n0\t0\t\n1\t0\t0A");
}

#[tokio::test]
async fn lists_and_maps_come_back_and_a_null_one_is_empty() {
    let list = |rows: Vec<Option<Vec<Option<i32>>>>| ListArray::from_iter_primitive::<Int32Type, _, _>(rows);
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    for row in [
        &[("a", Some("1")), ("b", None)][..],
        &[],
        &[("b", Some("")), ("a", Some("2")), ("\u{e9}", Some("3"))],
    ] {
        for (key, value) in row {
            maps.keys().append_value(key);
            maps.values().append_option(*value);
        }
        maps.append(true).unwrap();
    }
    let mut nested = ListBuilder::new(ListBuilder::new(Int64Builder::new()));
    for row in [&[&[1, 2][..], &[]][..], &[], &[&[3]]] {
        for inner in row {
            nested.values().values().append_slice(inner);
            nested.values().append(true);
        }
        nested.append(true);
    }
    let mut null_maps = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    (0..3).for_each(|_| null_maps.append(false).unwrap());
    let (_, rows) = round_trip(
        "nested",
        vec![
            column("list", list(vec![Some(vec![Some(1), None]), None, Some(vec![])])),
            column("map", maps.finish()),
            column("nested", nested.finish()),
            column("null_map", null_maps.finish()),
        ],
        &[],
    )
    .await;
    assert_eq!(
        rows,
        [
            r#"[[1,null],{"a":"1","b":null},[[1,2],[]],{}]"#,
            r#"[[],{},[],{}]"#,
            r#"[[],{"b":"","a":"2","é":"3"},[[3]],{}]"#,
        ]
    );
}

#[tokio::test]
async fn a_column_of_low_cardinality_holds_a_hundred_thousand_texts_as_well() {
    let client = database("dictionary").await;
    let rows = 100_000_usize;
    let texts: Vec<Option<String>> = (0..rows)
        .map(|row| (row % 10 != 0).then(|| format!("text {}", row % 70_001)))
        .collect();
    let batch = RecordBatch::try_from_iter_with_nullable([(
        "low",
        Arc::new(StringArray::from(texts.clone())) as ArrayRef,
        true,
    )])
    .unwrap();
    let hashes = row_hashes(&batch).unwrap();
    let offsets: Vec<i64> = (0..rows as i64).collect();
    let identity = Identity {
        topic: "t",
        partition: &vec![0; rows],
        offset: &offsets,
        index: &vec![0; rows],
        row_hash: &hashes,
    };
    let order = sort_order(&batch, &["low"]).unwrap();
    let block = encode(&batch, &identity, &order, &["low"], pipeline::Compression::Lz4).unwrap();
    table_like(&client, &block.structure).await;
    assert_eq!(insert(&client, "t", &block, "a").await, Inserted::Clean);
    let wrong = "SELECT count(), countIf(low IS DISTINCT FROM if(_offset % 10 = 0, NULL, concat('text ', toString(_offset % 70001)))) FROM t";
    assert_eq!(ask(&client, wrong).await, "100000\t0");
    let first = ask(
        &client,
        "SELECT type FROM system.columns WHERE database = currentDatabase() AND table = 't' AND name = 'low'",
    )
    .await;
    assert_eq!(first, "LowCardinality(Nullable(String))");
}

/// The types of the table and those of the block are the same text, whatever the kind: nothing is converted on the way.
#[tokio::test]
async fn the_server_spells_every_kind_as_the_block_does() {
    let avro = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":"boolean"},{"name":"b","type":["null","int"]},{"name":"c","type":"long"},{"name":"d","type":"float"},
        {"name":"e","type":"double"},{"name":"f","type":"string"},{"name":"g","type":["null","bytes"]},
        {"name":"h","type":{"type":"int","logicalType":"date"}},{"name":"i","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"j","type":["null",{"type":"long","logicalType":"timestamp-micros"}]},
        {"name":"k","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":3}},
        {"name":"l","type":{"type":"string","logicalType":"uuid"}},{"name":"m","type":{"type":"enum","name":"e1","symbols":["x","y"]}},
        {"name":"n","type":{"type":"array","items":["null","long"]}},{"name":"o","type":["null",{"type":"map","values":"string"}]}]}"#;
    let shape = Shape::of(&[Schema::parse_str(avro).unwrap()]).unwrap();
    assert!(shape.columns.iter().any(|column| matches!(
        column.kind,
        Kind::Decimal {
            precision: 12,
            scale: 3
        }
    )));
    let empty = RecordBatch::new_empty(shape.arrow());
    let identity = Identity {
        topic: "t",
        partition: &[],
        offset: &[],
        index: &[],
        row_hash: &[],
    };
    let block = encode(&empty, &identity, &[], &["f", "m"], pipeline::Compression::Lz4).unwrap();
    assert_eq!(block.rows, 0);
    let client = database("spelling").await;
    table_like(&client, &block.structure).await;
    let spelled = ask(&client, "SELECT arrayStringConcat(groupArray('`' || name || '` ' || type), ', ') FROM (SELECT * FROM system.columns WHERE database = currentDatabase() AND table = 't' AND name NOT IN ('_deadline', '_inserted_at') ORDER BY position) FORMAT TSVRaw").await;
    assert_eq!(spelled, block.structure);
    assert_eq!(DataType::Utf8, shape.columns[11].kind.arrow());
}
