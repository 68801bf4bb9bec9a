//! What a document may not be, and that no text whatever makes the parser panic or grow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use document::{Faults, Item, Node, Value, parse, parse_bytes};
use proptest::prelude::*;

fn refusal(text: &str) -> String {
    parse("a.yaml", text).unwrap_err().to_string()
}

#[test]
fn every_key_and_value_knows_its_line_and_column() {
    let text = "# a comment\na: 1\nb:\n  - x\n  - {c: [ü, y], d: 'q'}\ne: |\n  text\n";
    let node = parse("a.yaml", text).unwrap();
    let Value::Map(entries) = &node.value else {
        panic!("{node:?}")
    };
    let keys: Vec<_> = entries
        .iter()
        .map(|entry| (entry.key.as_str(), entry.line, entry.column))
        .collect();
    assert_eq!(keys, [("a", 2, 1), ("b", 3, 1), ("e", 6, 1)]);
    assert_eq!(entries[0].node.position(), (2, 4));
    assert_eq!(entries[2].node.value, Value::Text("text\n".to_owned()));
    let Value::List(list) = &entries[1].node.value else {
        panic!("{node:?}")
    };
    assert_eq!(list[0].position(), (4, 5));
    let c = list[1].get("c").unwrap();
    assert_eq!(c.position(), (5, 9));
    let Value::List(letters) = &c.value else {
        panic!("{c:?}")
    };
    assert_eq!((letters[0].position(), letters[1].position()), ((5, 10), (5, 13)));
    assert_eq!(list[1].get("d").unwrap().position(), (5, 20));
}

#[test]
fn quotes_make_a_text_of_anything() {
    let node = parse("a.yaml", "[1, '1', true, \"true\", ~, '~', 0.10]").unwrap();
    let Value::List(list) = node.value else { panic!() };
    let values: Vec<Value> = list.into_iter().map(|node| node.value).collect();
    let text = |text: &str| Value::Text(text.to_owned());
    let number = |text: &str| Value::Number(text.to_owned());
    let expected = [
        number("1"),
        text("1"),
        Value::Bool(true),
        text("true"),
        Value::Null,
        text("~"),
        number("0.10"),
    ];
    assert_eq!(values, expected);
}

#[test]
fn an_empty_document_is_nothing_and_a_byte_order_mark_is_no_letter() {
    for text in ["", "\n", "# nothing\n", "---\n", "\u{feff}"] {
        assert_eq!(parse("a.yaml", text).unwrap().value, Value::Null, "{text:?}");
    }
    assert_eq!(
        parse("a.yaml", "\u{feff}a: 1").unwrap().get("a").unwrap().position(),
        (1, 4)
    );
}

#[test]
fn what_is_no_yaml_or_too_much_of_it_is_refused_at_its_place() {
    for (text, message) in [
        (
            "a: 1\na: 2\n",
            "a.yaml:2:1: the key `a` is already there in this mapping",
        ),
        (
            "a: 1\n---\nb: 2\n",
            "a.yaml:2:1: a second document begins here; put it into a file of its own",
        ),
        (
            "a: !!str 5\n",
            "a.yaml:1:10: tags such as `!!str` are not read; put a text into quotes instead",
        ),
        (
            "a: &x {b: 1}\nc:\n  <<: *x\n",
            "a.yaml:3:3: merge keys (`<<`) are not read; write the keys out",
        ),
        (
            "? [a]\n: b\n",
            "a.yaml:1:3: a key has to be text; this one is a list, a mapping or an alias",
        ),
        (
            "a: &x [*x]\n",
            "a.yaml:1:8: the alias stands for something that contains itself",
        ),
    ] {
        assert_eq!(refusal(text), message, "{text:?}");
    }
    for (text, start) in [
        ("a: [1, 2\nb: 3\n", "a.yaml:2:"),
        ("a: *nobody\n", "a.yaml:1:4: this is no YAML: "),
        ("a: 'open\n", "a.yaml:"),
        ("%YAML 1.1\n---\na: 1\n", "a.yaml:1:1: this is no YAML: "),
    ] {
        let message = refusal(text);
        assert!(message.starts_with(start), "{message}");
        assert!(
            message.contains("this is no YAML: ") && !message.ends_with(": "),
            "{message}"
        );
    }
}

#[test]
fn an_alias_stands_for_a_copy() {
    let node = parse("a.yaml", "a: &x {b: [1]}\nc: *x\n").unwrap();
    assert_eq!(node.get("a"), node.get("c"));
    assert_eq!(node.get("c").unwrap().get("b").unwrap().position(), (1, 11));
}

#[test]
fn a_text_that_would_grow_without_bound_is_refused() {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    assert!(parse("a.yaml", &nested(64)).is_ok());
    for depth in [65, 66, 300, 100_000] {
        let message = refusal(&nested(depth));
        assert!(message.contains("nest") || message.contains("limit"), "{message}");
    }
    let block: String = (0..2000).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(!refusal(&block).is_empty());

    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let below = format!("*a{}, ", level - 1).repeat(10);
        bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
    }
    assert!(refusal(&bomb).contains("more than 200000 values, counting what aliases stand for"));

    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(100));
    assert!(refusal(&long).contains("bytes, counting what aliases stand for"));

    let mut deep = "a0: &a0 [x]\n".to_owned();
    for level in 1..80 {
        deep.push_str(&format!("a{level}: &a{level} [*a{}]\n", level - 1));
    }
    assert!(refusal(&deep).contains("nested more than 64 deep"));

    assert!(refusal(&"#".repeat(5 << 20)).contains("at most 4194304 are read"));
}

#[test]
fn bytes_that_are_no_text_are_reported_at_their_place() {
    let message = parse_bytes("a.yaml", b"a: 1\nb: \xc3\xbc\xff\n")
        .unwrap_err()
        .to_string();
    assert_eq!(message, "a.yaml:2:5: the file is not UTF-8 text from here on");
    assert!(parse_bytes("a.yaml", "b: ü".as_bytes()).is_ok());
}

/// Asks everything of everything.
fn read_all(node: &Node, faults: &Faults) {
    fn read(item: &Item<'_>) {
        item.text();
        item.scalar();
        item.bool();
        item.u64();
        item.f64();
        item.duration();
        item.byte_size();
        item.period();
        item.choice(&[("a", 1)]);
        for below in item.list().unwrap_or_default() {
            read(&below);
        }
        for (_, below) in item.entries().unwrap_or_default() {
            read(&below);
        }
        if let Some(reader) = item.map() {
            reader.required("a");
            reader.optional("b");
            reader.finish();
        }
    }
    read(&Item::root(node, faults));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn no_bytes_whatever_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(node) = parse_bytes("a.yaml", &bytes) {
            read_all(&node, &Faults::new("a.yaml"));
        }
    }

    #[test]
    fn no_text_of_yaml_signs_makes_it_panic(text in "([ab1: \\-\\[\\]{},&*!|>'\"#?%@~\n\t]|ü|<<|: |- |---\n|&a |\\*a|  ){0,60}") {
        if let Ok(node) = parse("a.yaml", &text) {
            let faults = Faults::new("a.yaml");
            read_all(&node, &faults);
            for fault in faults.into_vec() {
                prop_assert!(fault.line >= 1 && fault.column >= 1 && !fault.message.is_empty());
            }
        }
    }

    #[test]
    fn any_text_in_double_quotes_comes_back(text in "[ -~äöü]{0,40}") {
        let quoted = format!("a: \"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        let node = parse("a.yaml", &quoted).unwrap();
        prop_assert_eq!(&node.get("a").unwrap().value, &Value::Text(text));
    }
}
