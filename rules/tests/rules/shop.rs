//! The shop's five events, as columns: read from their Avro schemas by a walk of a few lines, so that these tests
//! need no other crate. Also used by `examples/cost.rs`.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, TimeUnit};
use rules::{Catalog, EventShape, FieldDef};
use serde_json::Value;

pub const PAGEVIEW: usize = 0;
pub const ORDER: usize = 1;
pub const PAYMENT: usize = 2;
pub const ERROR: usize = 4;

/// All five, and a sixth with the types that the shop has no use for.
pub fn catalog() -> Catalog {
    let events = [
        ("user.pageview.v2", "pageviews"),
        ("order.created.v2", "orders"),
        ("payment.processed.v1", "payments"),
        ("session.end.v1", "sessions"),
        ("error.captured.v1", "errors"),
    ];
    let mut events: Vec<EventShape> = events.into_iter().map(|(file, table)| event(file, table)).collect();
    events.push(odd());
    Catalog {
        events,
        alerts: true,
        charges: true,
    }
}

fn event(file: &str, table: &str) -> EventShape {
    let path = format!("{}/../proto/avro/{file}.avsc", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    let mut columns = Vec::new();
    flatten(&serde_json::from_str(&text).unwrap(), "", false, &mut columns);
    let mut tables = vec![table.to_owned()];
    if table == "orders" {
        tables.push("orders_vip".to_owned());
    }
    let (name, _version) = file.rsplit_once('.').unwrap();
    shape(name, columns, tables)
}

fn shape(name: &str, columns: Vec<(String, DataType, bool)>, tables: Vec<String>) -> EventShape {
    let field = |(path, data_type, nullable): &(String, DataType, bool)| {
        Field::new(path.replace('.', "_"), data_type.clone(), *nullable)
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let def = |(path, ..): &(String, DataType, bool)| FieldDef {
        column: path.replace('.', "_"),
        path: path.clone(),
    };
    EventShape {
        name: name.to_owned(),
        shape: columns.iter().map(def).collect(),
        schema: Arc::new(Schema::new(fields)),
        tenant: columns.iter().position(|(path, ..)| path == "tenant_id").unwrap(),
        table: tables[0].clone(),
        tables,
    }
}

fn odd() -> EventShape {
    let columns = [
        ("tenant_id", DataType::Utf8, false),
        ("small", DataType::Int32, true),
        ("large", DataType::Int64, true),
        ("ratio", DataType::Float64, true),
        ("price", DataType::Decimal128(10, 2), true),
        ("flag", DataType::Boolean, true),
        ("day", DataType::Date32, true),
        (
            "at",
            DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
            true,
        ),
        ("raw", DataType::Binary, true),
        ("text", DataType::Utf8, true),
        ("other", DataType::Utf8, true),
        ("must", DataType::Int64, false),
        ("tags", map_type(), false),
    ];
    shape(
        "odd",
        columns
            .map(|(path, kind, nullable)| (path.to_owned(), kind, nullable))
            .to_vec(),
        vec!["odd".to_owned()],
    )
}

fn map_type() -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", DataType::Utf8, false),
        Field::new("values", DataType::Utf8, false),
    ]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

fn flatten(schema: &Value, path: &str, nullable: bool, columns: &mut Vec<(String, DataType, bool)>) {
    if let Value::Array(union) = schema {
        let inner = union.iter().find(|branch| *branch != "null").unwrap();
        return flatten(inner, path, true, columns);
    }
    let kind = if schema.is_string() { schema } else { &schema["type"] };
    if let Some(fields) = schema["fields"].as_array() {
        for field in fields {
            let name = field["name"].as_str().unwrap();
            let inner = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            flatten(&field["type"], &inner, nullable, columns);
        }
        return;
    }
    let data_type = match (kind.as_str().unwrap(), schema["logicalType"].as_str()) {
        (_, Some("timestamp-millis")) => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
        ("string" | "enum", _) => DataType::Utf8,
        ("int", _) => DataType::Int32,
        ("long", _) => DataType::Int64,
        ("double", _) => DataType::Float64,
        ("boolean", _) => DataType::Boolean,
        ("map", _) => map_type(),
        ("array", _) => DataType::List(Arc::new(Field::new("item", DataType::Utf8, false))),
        other => panic!("{other:?} is not in the shop"),
    };
    columns.push((path.to_owned(), data_type, nullable));
}

/// Rows of an event: pairs of a path and a value as text; `properties.key` is an entry. What isn't given is NULL, or
/// zero or empty where NULL can't be.
pub fn batch(event: &EventShape, rows: &[Vec<(&str, String)>]) -> RecordBatch {
    for row in rows {
        for (path, _) in row {
            let column = path
                .split_once("tags.")
                .or(path.split_once("properties."))
                .map_or(*path, |_| "");
            assert!(
                column.is_empty() || event.index(column).is_some(),
                "{} has no {path}",
                event.name
            );
        }
    }
    let column = |index: usize| -> ArrayRef {
        let field = event.schema.field(index);
        let path = &event.shape[index].path;
        let empty = if field.is_nullable() {
            None
        } else {
            Some(zero(field.data_type()))
        };
        let value = |row: &Vec<(&str, String)>| {
            row.iter()
                .find(|(name, _)| name == path)
                .map(|(_, value)| value.clone())
                .or(empty.map(str::to_owned))
        };
        match field.data_type() {
            DataType::Map(..) => maps(rows, path),
            DataType::List(item) => {
                let offsets = arrow::buffer::OffsetBuffer::from_lengths(rows.iter().map(|_| 0));
                let nothing = new_null_array(&DataType::Utf8, 0);
                Arc::new(arrow::array::ListArray::new(Arc::clone(item), offsets, nothing, None))
            }
            data_type if path.ends_with("_at") || path == "at" => {
                let times: Int64Array = rows
                    .iter()
                    .map(|row| value(row).map(|text| text.parse().unwrap()))
                    .collect();
                cast(&times, data_type).unwrap()
            }
            data_type => {
                let texts: StringArray = rows.iter().map(value).collect();
                let column = cast(&texts, data_type).unwrap();
                assert_eq!(
                    column.null_count(),
                    texts.iter().filter(Option::is_none).count(),
                    "{path}: {texts:?}"
                );
                column
            }
        }
    };
    let columns = (0..event.shape.len()).map(column).collect();
    RecordBatch::try_new(Arc::clone(&event.schema), columns).unwrap()
}

fn zero(data_type: &DataType) -> &'static str {
    match data_type {
        DataType::Utf8 => "",
        DataType::Boolean => "false",
        _ => "0",
    }
}

fn maps(rows: &[Vec<(&str, String)>], path: &str) -> ArrayRef {
    let names = arrow::array::MapFieldNames {
        entry: "entries".to_owned(),
        key: "keys".to_owned(),
        value: "values".to_owned(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
        .with_values_field(Field::new("values", DataType::Utf8, false));
    for row in rows {
        for (name, value) in row {
            if let Some(key) = name.strip_prefix(path).and_then(|rest| rest.strip_prefix('.')) {
                builder.keys().append_value(key);
                builder.values().append_value(value);
            }
        }
        builder.append(true).unwrap();
    }
    Arc::new(builder.finish())
}

/// A row of text values.
pub fn row<const N: usize>(pairs: [(&'static str, &str); N]) -> Vec<(&'static str, String)> {
    pairs
        .into_iter()
        .map(|(path, value)| (path, value.to_owned()))
        .collect()
}
