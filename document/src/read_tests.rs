use super::*;
use crate::{Fault, parse};

/// Reads `text` and answers all faults as they are printed.
fn faults_of(text: &str, read: impl Fn(Item<'_>)) -> Vec<String> {
    let node = parse("a.yaml", text).unwrap();
    let faults = Faults::new("a.yaml");
    read(Item::root(&node, &faults));
    faults.into_vec().iter().map(Fault::to_string).collect()
}

#[test]
fn all_faults_of_a_document_are_reported_at_once_and_in_its_order() {
    let text = "name: 7\nsources:\n  - {topic: a, rwos: 5}\n  - {rows: many, wiat: 5}\nwait: 5\nzebra: [x]\n";
    let faults = faults_of(text, |root| {
        let reader = root.map().unwrap();
        assert_eq!(reader.optional("wait").unwrap().duration(), None);
        for source in reader.required("sources").unwrap().list().unwrap() {
            let source = source.map().unwrap();
            source.required("topic");
            source.optional("rows").and_then(|item| item.u64());
            source.finish();
        }
        assert_eq!(reader.required("name").unwrap().text(), None);
        reader.finish();
    });
    assert_eq!(
        faults,
        [
            "a.yaml:1:7: name: should be text, is a number; put it into quotes",
            "a.yaml:3:16: sources[0].rwos: the key `rwos` is not known; did you mean `rows`?",
            "a.yaml:4:5: sources[1]: `topic` is missing",
            "a.yaml:4:12: sources[1].rows: should be a whole number from 0 to 18446744073709551615, is text",
            "a.yaml:4:18: sources[1].wiat: the key `wiat` is not known; here may be topic, rows",
            "a.yaml:5:7: wait: `5` is not understood; a duration is a whole number with a unit: ms, s, m, h or d, \
             such as 40ms",
            "a.yaml:6:1: zebra: the key `zebra` is not known; here may be wait, sources, name",
        ]
    );
}

#[test]
fn each_getter_reads_what_it_names() {
    let text = "{t: a b, n: 3, f: 0.5, b: true, d: 40ms, s: 16MiB, p: 13 months, c: two, e: 0.10, l: [x, y]}";
    let faults = faults_of(text, |root| {
        let reader = root.map().unwrap();
        let get = |key| reader.required(key).unwrap();
        assert_eq!(get("t").text(), Some("a b"));
        assert_eq!(get("n").u64(), Some(3));
        assert_eq!(get("n").integer(0_u16..=3), Some(3));
        assert_eq!(get("f").f64(), Some(0.5));
        assert_eq!(get("b").bool(), Some(true));
        assert_eq!(get("b").scalar(), Some("true"));
        assert_eq!(get("d").duration(), Some(Duration::from_millis(40)));
        assert_eq!(get("s").byte_size(), Some(16 << 20));
        assert_eq!(get("p").period(), Some(Period::Months(13)));
        assert_eq!(get("c").choice(&[("one", 1), ("two", 2)]), Some(2));
        assert_eq!(get("e").scalar(), Some("0.10"));
        assert_eq!(get("l").texts(), Some(vec!["x", "y"]));
        reader.finish();
    });
    assert_eq!(faults, [""; 0]);
}

#[test]
fn each_getter_says_what_it_wanted() {
    let text = "t: [1]\nn: 3.5\nf: x\nb: yes\nd: {}\ns: 1 potato\np: 13\nc: three\nl: 4\nm: x\ni: 9\nh: 1e999\n";
    let faults = faults_of(text, |root| {
        let reader = root.map().unwrap();
        let get = |key| reader.required(key).unwrap();
        assert_eq!(get("t").text(), None);
        assert_eq!(get("n").u64(), None);
        assert_eq!(get("f").f64(), None);
        assert_eq!(get("b").bool(), None);
        assert_eq!(get("d").duration(), None);
        assert_eq!(get("s").byte_size(), None);
        assert_eq!(get("p").period(), None);
        assert_eq!(get("c").choice(&[("one", 1), ("two", 2)]), None);
        assert!(get("l").list().is_none());
        assert!(get("m").map().is_none());
        assert_eq!(get("i").integer(1_u32..=8), None);
        assert_eq!(get("h").f64(), None);
        reader.finish();
    });
    let expected = [
        "1:4: t: should be text, is a list",
        "2:4: n: should be a whole number from 0 to 18446744073709551615, is 3.5",
        "3:4: f: should be a number, is text",
        "4:4: b: should be true or false, is the text `yes`",
        "5:4: d: should be a duration, such as 40ms, is a mapping",
        "6:4: s: `1 potato` is not understood; a size is a whole number of bytes, or one with a unit: B, kB, MB, GB, \
         KiB, MiB or GiB, such as 16MiB",
        "7:4: p: `13` is not understood; write days, months or years, such as 13 months or 90 days",
        "8:4: c: should be one or two, is `three`",
        "9:4: l: should be a list, is a number",
        "10:4: m: should be a mapping of keys to values, is text",
        "11:4: i: should be a whole number from 1 to 8, is 9",
        "12:4: h: 1e999 is too large for a number",
    ];
    assert_eq!(faults, expected.map(|fault| format!("a.yaml:{fault}")));
}

#[test]
fn a_key_without_a_value_is_as_good_as_absent_unless_it_is_required() {
    let faults = faults_of("rollups:\nname:\n", |root| {
        let reader = root.map().unwrap();
        assert!(reader.optional("rollups").is_none());
        assert!(!reader.has("rollups"));
        assert!(reader.required("name").is_none());
        reader.finish();
    });
    assert_eq!(faults, ["a.yaml:2:1: name: has no value"]);
}

#[test]
fn names_of_the_users_own_stand_beside_known_keys() {
    let faults = faults_of("alerts: {}\nbilling: 1\n\"a.b\": 2\n", |root| {
        let mut reader = root.map().unwrap();
        assert!(reader.optional("alerts").is_some());
        let rest = reader.rest();
        assert_eq!(rest.iter().map(|(key, _)| *key).collect::<Vec<_>>(), ["billing", "a.b"]);
        rest[1].1.fault_at_key("is odd");
        reader.finish();
    });
    assert_eq!(faults, ["a.yaml:3:1: [\"a.b\"]: is odd"]);
}

#[test]
fn only_the_first_thousand_faults_are_kept() {
    let faults = Faults::new("a.yaml");
    for line in 1..=1500 {
        faults.at((line, 1), "", "wrong");
    }
    let list = faults.into_vec();
    assert_eq!(list.len(), 1000);
    assert_eq!(list[999].to_string(), "a.yaml:1000:1: wrong");
}
