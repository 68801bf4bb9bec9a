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
    assert!(
        report(0)
            .to_string()
            .ends_with("exactly once: lost = duplicated = altered = unexpected = 0\n")
    );
    assert!(!report(1).clean());
    assert!(
        report(1)
            .to_string()
            .ends_with("NOT exactly once: lost 1, duplicated 0, altered 0, unexpected 0\n")
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
        "sinks",
        "examples",
    ];
    assert_eq!(keys, expected);
    assert_eq!(json["lost"], 1);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report(1));
}
