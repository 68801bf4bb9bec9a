//! What people and scripts read.

use crate::report::{Report, SinkReport};

fn report(lost: u64) -> Report {
    let mut report = Report {
        produced: 3,
        clickhouse_rows: 3 - lost,
        ..Report::default()
    };
    report.add(SinkReport {
        sink: "table orders".to_owned(),
        expected: 3,
        found: 3 - lost,
        lost,
        ..SinkReport::default()
    });
    report.add(SinkReport {
        sink: "alerts".to_owned(),
        ..SinkReport::default()
    });
    report
}

#[test]
fn one_lost_row_makes_the_whole_report_red_and_says_so() {
    assert!(report(0).clean());
    assert!(report(0).to_string().ends_with(
        "\nexactly once: lost = duplicated = altered = unexpected = gap = overlap = 0, over 0 committed ranges, 0 with their \
         counts\n"
    ));
    assert!(!report(1).clean());
    assert!(
        report(1)
            .to_string()
            .ends_with("NOT exactly once: lost 1, duplicated 0, altered 0, unexpected 0, gap 0, overlap 0\n")
    );
}

#[test]
fn what_was_not_compared_is_said_and_no_difference() {
    let mut report = report(0);
    report.left_out.push("rollups, they move".to_owned());
    assert!(report.clean());
    let text = report.to_string();
    assert!(
        text.contains("\nnot compared: rollups, they move\nexactly once: "),
        "{text}"
    );
}

#[test]
fn any_kind_of_difference_alone_makes_it_red() {
    for kind in 0..4 {
        let mut sink = SinkReport::default();
        *[
            &mut sink.lost,
            &mut sink.duplicated,
            &mut sink.altered,
            &mut sink.unexpected,
        ][kind] = 1;
        let mut report = Report::default();
        report.add(sink);
        assert!(!report.clean());
    }
    for (gap, overlap) in [(1, 0), (0, 1)] {
        let report = Report {
            gap,
            overlap,
            ..Report::default()
        };
        assert!(!report.clean());
    }
}

#[test]
fn a_wrong_count_makes_it_red_and_says_nothing_of_the_sinks() {
    let miscounted = |lost| Report {
        miscounted: 2,
        ranges: 9,
        ranges_compared: 8,
        ..report(lost)
    };
    assert!(!miscounted(0).clean() && miscounted(0).exactly_once());
    assert_eq!((miscounted(0).differences(), miscounted(1).differences()), (2, 3));
    let said = miscounted(0).to_string();
    let (_, end) = said.split_once("the audit").unwrap();
    assert_eq!(
        end,
        " is WRONG: it miscounts what came of 2 of 8 ranges\n\
         exactly once: lost = duplicated = altered = unexpected = gap = overlap = 0, over 9 committed ranges, 8 with their counts\n"
    );
    assert!(!miscounted(1).exactly_once());
    assert!(miscounted(1).to_string().contains("\nNOT exactly once: lost 1,"));
}

#[test]
fn the_json_has_the_keys_that_the_demo_reports() {
    let json = serde_json::to_value(report(1)).unwrap();
    let keys: Vec<_> = json.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "produced",
        "clickhouse_rows",
        "alerts",
        "charges",
        "dead_letters",
        "dropped",
        "lost",
        "duplicated",
        "altered",
        "unexpected",
        "gap",
        "overlap",
        "miscounted",
        "ranges",
        "ranges_compared",
        "unread",
        "left_out",
        "sinks",
        "examples",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["lost"], 1);
    assert_eq!(serde_json::from_value::<Report>(json.clone()).unwrap(), report(1));
    let mut of_before = json;
    for name in ["unread", "left_out", "miscounted", "ranges_compared"] {
        of_before.as_object_mut().unwrap().remove(name);
    }
    assert_eq!(serde_json::from_value::<Report>(of_before).unwrap(), report(1));
}

#[test]
fn a_difference_is_laid_to_its_column_in_tables_of_any_width() {
    use crate::cell::{Cell, Fingerprinter, FoundRow};
    use crate::ledger::Content as _;
    for width in [1usize, 2, 3, 16, 17, 65, 128, 256, 300] {
        let row = |other: Option<(usize, i64)>| {
            let mut fingerprint = Fingerprinter::new(width);
            for column in 0..width {
                let altered = other.filter(|(at, _)| *at == column);
                fingerprint.add(&Cell::Int(altered.map_or(0, |(_, value)| value)));
            }
            fingerprint.finish()
        };
        let columns: std::sync::Arc<[String]> = (0..width).map(|column| format!("c{column}")).collect();
        for at in [0, width / 2, width - 1] {
            let mut named = 0;
            for value in 1..=40 {
                let found = FoundRow {
                    fingerprint: row(Some((at, value))),
                    columns: columns.clone(),
                };
                let told = row(None).difference(&found).unwrap();
                if let Some(names) = told.strip_prefix("probably ") {
                    named += 1;
                    // Past 256 columns two of them share their bits; otherwise no other column is blamed.
                    let names: Vec<_> = names.split(", ").collect();
                    assert!(names.contains(&format!("c{at}").as_str()), "{width}: {told}");
                    assert!(names.len() == 1 || width > 256, "{width}: {told}");
                }
            }
            // With a single bit a column every second difference is named, with more nearly every one.
            assert!(named >= 10, "{width}: {named}");
        }
        let same = FoundRow {
            fingerprint: row(None),
            columns,
        };
        assert_eq!(row(None).difference(&same), None);
    }
}

#[test]
fn values_are_shown_as_people_write_them() {
    use crate::cell::Cell;
    assert_eq!(Cell::text("é\n").show(), "\"é\\n\"");
    assert_eq!(Cell::Bytes(vec![0xff]).show(), "b\"\\xff\"");
    assert_eq!(
        (Cell::Int(-3).show(), Cell::Null.show()),
        ("-3".to_owned(), "NULL".to_owned())
    );
}
