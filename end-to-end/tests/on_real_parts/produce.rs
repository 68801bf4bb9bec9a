//! A user's first event.

use std::time::Duration;

use end_to_end::shop::Rules;
use end_to_end::{run, until};

const CONTEXT: &str = r#"{"app": {"name": "shop", "version": "1", "build": "1"}, "browser": {"name": "b", "version": "1"},
    "device": {"type": "mobile", "model": "m", "manufacturer": "m"}, "os": {"name": "o", "version": "1"}, "locale": "en",
    "timezone": "UTC", "screen": {"width": 1, "height": 1, "density": 1},
    "page": {"url": "https://a.example/", "path": "/", "title": "t"}}"#;

/// Scenario: a file of five lines, of which one has a field that the schema lacks, one a value of another type and one is no
/// JSON, is produced into a topic whose schema id travels in a header, and into one with the prefix.
/// Guarantees: each fault is named with its line, the good events arrive.
#[test]
fn events_from_json_arrive_and_faults_are_named_by_line() {
    run("produce", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        for (topic, table, own) in [
            (
                "produce.payment.processed",
                "payments",
                r#""payment_id": "p", "order_id": "o", "amount_minor": 100, "currency": "EUR", "method": "card", "status": "captured""#,
            ),
            (
                "produce.user.pageview",
                "pageviews",
                r#""load_time_ms": 12, "scroll_percent": 40"#,
            ),
        ] {
            let event = |id: &str, more: &str| {
                format!(
                    r#"{{"event_id": "{id}", "tenant_id": "acme", "type": "{topic}", "schema_version": 1, "source": "test",
                        "anonymous_id": "a", "session_id": "s", "occurred_at": {}, "context": {CONTEXT}, {own}{more}}}"#,
                    std::time::SystemTime::now()
                        .duration_since(std::time::UNIX_EPOCH)
                        .unwrap()
                        .as_millis()
                )
                .replace('\n', " ")
            };
            let lines = [
                event("one", ""),
                event("two", r#", "amout": 1"#),
                event("three", r#", "session_id": 5"#),
                "{".to_owned(),
                event("five", ""),
            ];
            let file = scenario.dir.join("events.jsonl");
            std::fs::write(&file, lines.join("\n")).unwrap();
            let said = scenario.refused(&["produce", topic, &file.display().to_string()]).await;
            assert!(said.contains("line 2: the schema has no field `amout`"), "{said}");
            assert!(
                said.contains("line 3: the field `session_id`")
                    && said.contains("line 4: ")
                    && !said.contains("line 5"),
                "{said}"
            );
            assert!(said.contains("events produced: 2"), "{said}");
            let question = format!("SELECT arrayStringConcat(arraySort(groupArray(event_id)), ' ') FROM {table}");
            until(
                format!("{table} to have both events"),
                Duration::from_secs(60),
                async || (scenario.sql(&question).await == "five one").then_some(()),
            )
            .await;
        }
    });
}
