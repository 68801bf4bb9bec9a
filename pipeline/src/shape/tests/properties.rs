//! Whatever versions a topic has: one shape that covers them all, or a reason.

use proptest::prelude::*;

use super::*;

/// A type as text. `#` stands for a number that makes its name the only one.
fn any_type() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => prop_oneof![Just("int"), Just("long"), Just("double"), Just("string"), Just("bytes"), Just("null"), Just("E")]
            .prop_map(|name| format!("\"{name}\"")),
        1 => Just(r#"{"type":"long","logicalType":"timestamp-micros"}"#.to_owned()),
        1 => (1_u32..40).prop_map(|digits| {
            format!(r#"{{"type":"bytes","logicalType":"decimal","precision":{digits},"scale":1}}"#)
        }),
        1 => Just(r#"{"type":"enum","name":"N#","symbols":["A"]}"#.to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let fields = proptest::collection::btree_map("[a-c]", inner.clone(), 0..3);
        prop_oneof![
            inner
                .clone()
                .prop_map(|items| format!(r#"{{"type":"array","items":{items}}}"#)),
            inner
                .clone()
                .prop_map(|values| format!(r#"{{"type":"map","values":{values}}}"#)),
            inner.prop_map(|other| if other.starts_with('[') || other.contains("null") {
                other
            } else {
                format!(r#"["null",{other}]"#)
            }),
            fields.prop_map(|fields| {
                let field =
                    |(name, kind): (&String, &String)| format!(r#"{{"name":"{name}","type":{kind},"aliases":["z"]}}"#);
                let fields: Vec<String> = fields.iter().map(field).collect();
                format!(r#"{{"type":"record","name":"R#","fields":[{}]}}"#, fields.join(","))
            }),
        ]
    })
}

/// Versions of one schema: mostly the same types under the same names, some missing, some with a default, a few of
/// another type.
fn any_versions() -> impl Strategy<Value = Vec<Schema>> {
    let choices = proptest::collection::vec((any_type(), any_type()), 5);
    let versions = proptest::collection::vec(proptest::collection::vec((0_u8..40, any::<bool>()), 5), 1..4);
    (choices, versions).prop_map(|(choices, versions)| {
        versions
            .iter()
            .filter_map(|version| Schema::parse_str(&version_text(&choices, version)).ok())
            .collect()
    })
}

fn version_text(choices: &[(String, String)], version: &[(u8, bool)]) -> String {
    let mut fields = Vec::new();
    for ((name, (usual, other)), (choice, with_default)) in ["a", "b", "c", "d", "x"].iter().zip(choices).zip(version) {
        let kind = match choice {
            0..8 => continue,
            8 => other,
            _ => usual,
        };
        let default = match kind.as_str() {
            r#""int""# if *with_default => r#","default":1"#,
            kind if kind.starts_with('[') => r#","default":null"#,
            _ => "",
        };
        let aliases = if *choice % 5 == 0 { r#","aliases":["a"]"# } else { "" };
        fields.push(format!(r#"{{"name":"{name}","type":{kind}{default}{aliases}}}"#));
    }
    let text = format!(r#"{{"type":"record","name":"E","fields":[{}]}}"#, fields.join(","));
    let mut parts = text.split('#');
    let first = parts.next().unwrap_or_default().to_owned();
    parts
        .enumerate()
        .fold(first, |text, (number, part)| format!("{text}{number}{part}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn versions_give_one_shape_that_covers_them_all_or_a_reason(versions in any_versions()) {
        let first = Shape::of(&versions);
        prop_assert_eq!(&first, &Shape::of(&versions));
        match first {
            Ok(shape) => {
                for writer in &versions {
                    prop_assert!(shape.covers(writer), "{} does not cover {}", shown(&shape), writer.canonical_form());
                }
                let mut names: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
                names.sort_unstable();
                names.dedup();
                prop_assert_eq!(names.len(), shape.columns.len());
                prop_assert_eq!(shape.arrow().fields().len(), shape.columns.len());
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}
