use super::*;

fn schema(text: &str) -> Schema {
    Schema::parse_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A record of these fields.
fn record(fields: &str) -> Schema {
    schema(&format!(
        r#"{{"type":"record","name":"E","namespace":"t","fields":[{fields}]}}"#
    ))
}

fn shape(versions: &[&str]) -> Shape {
    let versions: Vec<Schema> = versions.iter().map(|fields| record(fields)).collect();
    Shape::of(&versions).unwrap_or_else(|error| panic!("{error}"))
}

fn refusal(versions: &[&str]) -> String {
    let versions: Vec<Schema> = versions.iter().map(|fields| record(fields)).collect();
    Shape::of(&versions).unwrap_err().to_string()
}

/// `path: kind`, with `?` for nullable.
fn shown(shape: &Shape) -> String {
    let mut text = String::new();
    for column in &shape.columns {
        let nullable = if column.nullable { "?" } else { "" };
        text.push_str(&format!("{}: {}{nullable}\n", column.path, column.kind));
    }
    text
}

fn avro(file: &str) -> Schema {
    let path = format!("{}/../proto/avro/{file}", env!("CARGO_MANIFEST_DIR"));
    schema(&std::fs::read_to_string(path).unwrap())
}

#[test]
fn an_order_has_these_columns_in_both_of_its_versions() {
    let versions = [avro("order.created.v1.avsc"), avro("order.created.v2.avsc")];
    insta::assert_snapshot!(shown(&Shape::of(&versions).unwrap()), @r#"
    event_id: string
    tenant_id: string
    type: string
    schema_version: int
    source: string
    user_id: string?
    anonymous_id: string
    session_id: string
    occurred_at: timestamp-millis
    sent_at: timestamp-millis?
    received_at: timestamp-millis?
    context.app.name: string
    context.app.version: string
    context.app.build: string
    context.browser.name: string
    context.browser.version: string
    context.device.type: enum
    context.device.model: string
    context.device.manufacturer: string
    context.os.name: string
    context.os.version: string
    context.locale: string
    context.timezone: string
    context.screen.width: int
    context.screen.height: int
    context.screen.density: double
    context.page.url: string
    context.page.path: string
    context.page.title: string
    context.page.referrer: string?
    context.page.search: string?
    context.campaign.source: string?
    context.campaign.medium: string?
    context.campaign.name: string?
    context.campaign.term: string?
    context.campaign.content: string?
    context.ip: string?
    context.user_agent: string?
    properties: map of string
    order_id: string
    amount_minor: long
    currency: string
    item_count: int
    skus: list of string
    coupon: string?
    shipping_minor: long?
    channel: string?
    gift: boolean?
    "#);
}

#[test]
fn both_versions_of_an_order_fit_their_common_shape_and_the_second_not_the_first_ones() {
    let (v1, v2) = (avro("order.created.v1.avsc"), avro("order.created.v2.avsc"));
    let first = Shape::of(std::slice::from_ref(&v1)).unwrap();
    let both = Shape::of(&[v1.clone(), v2.clone()]).unwrap();
    assert!(first.covers(&v1) && !first.covers(&v2));
    assert!(both.covers(&v1) && both.covers(&v2));
}

#[test]
fn every_type_of_avro_has_its_kind() {
    let shape = shape(&[r#"
        {"name":"a","type":"boolean"}, {"name":"b","type":"int"}, {"name":"c","type":"long"},
        {"name":"d","type":"float"}, {"name":"e","type":"double"}, {"name":"f","type":"string"},
        {"name":"g","type":"bytes"}, {"name":"h","type":{"type":"fixed","name":"F","size":4}},
        {"name":"i","type":{"type":"int","logicalType":"date"}},
        {"name":"j","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"k","type":{"type":"long","logicalType":"timestamp-micros"}},
        {"name":"l","type":{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}},
        {"name":"m","type":{"type":"string","logicalType":"uuid"}},
        {"name":"n","type":{"type":"enum","name":"N","symbols":["A","B"]}},
        {"name":"o","type":{"type":"array","items":["null","long"]}},
        {"name":"p","type":{"type":"map","values":{"type":"array","items":"string"}}},
        {"name":"q","type":["null","F"]}, {"name":"r","type":["string","null"]}, {"name":"s","type":["N"]},
        {"name":"t","type":["null","string","long"]}, {"name":"u","type":["string","long"]},
        {"name":"v","type":{"type":"array","items":{"type":"record","name":"R","fields":[{"name":"x","type":"int"}]}}},
        {"name":"w","type":{"type":"map","values":["null",{"type":"array","items":"int"}]}},
        {"name":"x","type":"null"},
        {"name":"y","type":["null","R"]},
        {"name":"z","type":{"type":"long","logicalType":"timestamp-nanos"}}"#]);
    insta::assert_snapshot!(shown(&shape), @r#"
    a: boolean
    b: int
    c: long
    d: float
    e: double
    f: string
    g: bytes
    h: bytes
    i: date
    j: timestamp-millis
    k: timestamp-micros
    l: decimal(12,2)
    m: uuid
    n: enum
    o: list of long or null
    p: map of list of string
    q: bytes?
    r: string?
    s: enum
    t: json?
    u: json
    v: json
    w: json
    y.x: int?
    z: long
    "#);
    let arrow = shape.arrow();
    let types: Vec<String> = arrow
        .fields()
        .iter()
        .map(|field| format!("{} {}", field.name(), field.data_type()))
        .collect();
    insta::assert_snapshot!(types.join("\n"), @r#"
    a Boolean
    b Int32
    c Int64
    d Float32
    e Float64
    f Utf8
    g Binary
    h Binary
    i Date32
    j Timestamp(ms, "UTC")
    k Timestamp(µs, "UTC")
    l Decimal128(12, 2)
    m Utf8
    n Utf8
    o List(Int64)
    p Map("entries": non-null Struct("keys": non-null Utf8, "values": non-null List(non-null Utf8)), unsorted)
    q Binary
    r Utf8
    s Utf8
    t Utf8
    u Utf8
    v Utf8
    w Utf8
    y_x Int32
    z Int64
    "#);
}

#[test]
fn a_record_that_contains_itself_is_cut_off_as_json_and_the_same_type_twice_is_not() {
    let shape = shape(&[r#"
        {"name":"node","type":{"type":"record","name":"Node","fields":[
            {"name":"value","type":"int"}, {"name":"next","type":["null","Node"]}, {"name":"whole","type":["null","E"]}]}},
        {"name":"again","type":"Node"}"#]);
    insta::assert_snapshot!(shown(&shape), @r#"
    node.value: int
    node.next: json?
    node.whole: json?
    again.value: int
    again.next: json?
    again.whole: json?
    "#);
}

#[test]
fn a_column_is_found_by_its_path_and_by_its_name() {
    let shape =
        shape(&[r#"{"name":"context","type":{"type":"record","name":"C","fields":[{"name":"url","type":"string"}]}}"#]);
    assert_eq!(shape.columns[0].name, "context_url");
    assert_eq!(
        (
            shape.index("context.url"),
            shape.index("context_url"),
            shape.index("context")
        ),
        (Some(0), Some(0), None)
    );
}

#[test]
fn kinds_widen_as_avro_allows_and_never_narrow() {
    let field = |kind: &str| format!(r#"{{"name":"a","type":{kind}}}"#);
    let decimal = |digits: u32, scale: u32| {
        format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":{scale}}}"#)
    };
    let quoted = |name: &str| format!("\"{name}\"");
    for (older, newer, merged) in [
        (quoted("int"), quoted("long"), Kind::Int64),
        (quoted("long"), quoted("int"), Kind::Int64),
        (quoted("float"), quoted("double"), Kind::Float64),
        (quoted("long"), quoted("float"), Kind::Float64),
        (quoted("string"), quoted("bytes"), Kind::Bytes),
        (quoted("bytes"), quoted("string"), Kind::String),
        (
            decimal(10, 2),
            decimal(12, 2),
            Kind::Decimal {
                precision: 12,
                scale: 2,
            },
        ),
    ] {
        assert_eq!(
            shape(&[&field(&older), &field(&newer)]).columns[0].kind,
            merged,
            "{older} -> {newer}"
        );
    }
    for (older, newer) in [
        (quoted("double"), quoted("long")),
        (quoted("int"), quoted("string")),
        (quoted("boolean"), quoted("int")),
        (decimal(10, 2), decimal(10, 3)),
        (quoted("string"), r#"["string","long"]"#.to_owned()),
        (
            quoted("long"),
            r#"{"type":"long","logicalType":"timestamp-millis"}"#.to_owned(),
        ),
    ] {
        assert!(
            refusal(&[&field(&older), &field(&newer)]).contains("one column can't hold both"),
            "{older} -> {newer}"
        );
    }
}

#[test]
fn what_has_no_common_shape_is_refused_with_both_sides() {
    let nested = r#"{"name":"a","type":{"type":"record","name":"A","fields":[{"name":"b","type":"int"}]}}"#;
    let deep_decimal = r#"{"name":"a","type":{"type":"bytes","logicalType":"decimal","precision":39,"scale":2}}"#;
    let messages = [
        refusal(&[nested, r#"{"name":"a","type":"int"}"#]),
        refusal(&[
            r#"{"name":"a","type":"int"}"#,
            r#"{"name":"b","type":"int"}"#,
            r#"{"name":"a","type":"string"}"#,
        ]),
        refusal(&[&format!(r#"{nested},{{"name":"a_b","type":"int"}}"#)]),
        refusal(&[r#"{"name":"_a","type":"int"}"#]),
        refusal(&[deep_decimal]),
        refusal(&[r#"{"name":"a","type":"null"}"#]),
        Shape::of(&[]).unwrap_err().to_string(),
        Shape::of(&[schema(r#""string""#)]).unwrap_err().to_string(),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    `a` is int in version 2 of the schema and a record in version 1; one column can't hold both: give the new field another name
    `a` is string in version 3 of the schema and int in version 1; one column can't hold both: give the new field another name
    `a.b` and `a_b` both become the column `a_b`; rename one of them
    the column of `_a` would begin with `_`, as only Sluice's own columns do; rename the field
    `a` is a decimal of 39 digits with scale 2; at most 38 digits are possible
    no version of the schema has a field that could become a column
    there is no schema version yet; register the topic's schema first
    version 1 of the schema is a single value, not a record; put it into a record with an id and a time
    "#);
}

#[test]
fn a_renamed_field_stays_one_column() {
    let shape = shape(&[
        r#"{"name":"first","type":"int"}, {"name":"old","type":{"type":"record","name":"C","fields":[{"name":"x","type":"int"}]}}"#,
        r#"{"name":"new","aliases":["old"],"type":{"type":"record","name":"C","fields":[{"name":"y","aliases":["x"],"type":"long"}]}},
           {"name":"first","type":"int"}"#,
    ]);
    assert_eq!(shown(&shape), "new.y: long\nfirst: int\n");
    assert_eq!(shape.columns[0].aliases, ["new.x", "old.y", "old.x"]);
    assert_eq!(
        (shape.place("old.x"), shape.place("first"), shape.place("old")),
        (Some(0), Some(1), None)
    );
    let oldest = record(
        r#"{"name":"first","type":"int"}, {"name":"old","type":{"type":"record","name":"C","fields":[{"name":"x","type":"int"}]}}"#,
    );
    assert!(shape.covers(&oldest));
}

#[test]
fn an_alias_that_is_another_fields_name_elsewhere_is_refused_only_where_it_misleads() {
    let int = |name: &str| format!(r#"{{"name":"{name}","type":"int"}}"#);
    let renamed = r#"{"name":"b","aliases":["a"],"type":"int"}"#;
    // Written under both names for a while: nothing is ambiguous, `a` stays a column of its own.
    let both = format!("{},{}", int("a"), int("b"));
    assert_eq!(shown(&shape(&[&both, renamed])), "b: int\na: int?\n");
    // The old name comes back: as in Avro's own resolution, a name goes before an alias.
    let back = format!("{},{}", int("b"), int("a"));
    assert_eq!(shown(&shape(&[&int("a"), renamed, &back])), "b: int?\na: int?\n");
    // In version 2 `a` is what became `b`, in version 1 it is not.
    assert_eq!(
        refusal(&[&both, &int("a"), renamed]),
        "`a` in version 2 of the schema could be `b` or another field, for some version has that name as an alias; take \
         the alias away"
    );
}

#[test]
fn what_some_version_lacks_may_be_null_whatever_default_another_one_gives_it() {
    let inner = r#"{"type":"record","name":"C","fields":[
        {"name":"x","type":"int","default":1}, {"name":"y","type":"int"}]}"#;
    let newest = format!(
        r#"{{"name":"id","type":"string"}}, {{"name":"c","type":{inner},"default":{{"x":7,"y":2}}}},
           {{"name":"web","type":"string","default":"yes"}}"#
    );
    let without_x = r#"{"name":"id","type":"string"},
        {"name":"c","type":{"type":"record","name":"C","fields":[{"name":"y","type":"int"}]}}, {"name":"web","type":"string"}"#;
    let all = |versions: &[&str]| shown(&shape(versions));
    assert_eq!(
        all(&[r#"{"name":"id","type":"string"}"#, &newest]),
        "id: string\nc.x: int?\nc.y: int?\nweb: string?\n"
    );
    assert_eq!(
        all(&[without_x, &newest]),
        "id: string\nc.x: int?\nc.y: int\nweb: string\n"
    );
    assert_eq!(all(&[&newest]), "id: string\nc.x: int\nc.y: int\nweb: string\n");
}

#[test]
fn a_writer_that_does_not_fit_is_not_covered() {
    let shape = shape(&[r#"{"name":"a","type":"int"}, {"name":"b","type":["null","string"]}"#]);
    for (writer, fits) in [
        (r#"{"name":"a","type":"int"}, {"name":"b","type":"string"}"#, true),
        (r#"{"name":"b","type":"null"}, {"name":"a","type":"int"}"#, true),
        (r#"{"name":"a","type":"int"}"#, true),
        (r#"{"name":"b","type":"string"}"#, false),
        (r#"{"name":"a","type":["null","int"]}"#, false),
        (r#"{"name":"a","type":"long"}"#, false),
        (r#"{"name":"a","type":"int"}, {"name":"c","type":"int"}"#, false),
    ] {
        assert_eq!(shape.covers(&record(writer)), fits, "{writer}");
    }
    assert!(!shape.covers(&schema(r#""int""#)));
}

#[test]
fn a_schema_that_would_become_a_huge_table_is_refused() {
    let mut fields = vec![r#"{"name":"l0","type":{"type":"record","name":"L0","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"}]}}"#.to_owned()];
    for level in 1..30 {
        let below = level - 1;
        fields.push(format!(r#"{{"name":"l{level}","type":{{"type":"record","name":"L{level}","fields":[{{"name":"a","type":"L{below}"}},{{"name":"b","type":"L{below}"}}]}}}}"#));
    }
    assert!(refusal(&[&fields.join(",")]).contains("at most 4096 fields are possible"));
}

#[path = "tests/properties.rs"]
mod properties;
