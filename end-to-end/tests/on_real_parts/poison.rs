//! Records that can be nothing but dead letters.

use std::time::Duration;

use end_to_end::run;
use end_to_end::shop::Rules;
use load_tests::drive::Burst;
use load_tests::poison::{Mix, Poison};

/// Scenario: every kind of broken record between good ones, and ten thousand truncated ones in a row.
/// Guarantees: each broken record is a dead letter with its bytes and its reason; every good one arrives.
#[test]
fn ten_thousand_poison_records_in_a_row_stop_no_good_one() {
    run("poison", Rules::Directory, async |scenario| {
        scenario.set_the_shop_up().await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let mut settings = scenario.load_of(600.0, Duration::from_secs(8), 1);
        settings.poison = Mix {
            share: 0.1,
            ..Mix::default()
        };
        settings.burst = Some(Burst {
            at: Duration::from_secs(2),
            kind: Poison::Truncated,
            count: 10_000,
        });
        let driven = scenario.drive(settings).finished().await;
        let report = scenario.verified(&[&driven]).await;
        assert_eq!(driven.poison.len(), Poison::ALL.len(), "{:?}", driven.poison);
        assert_eq!(report.dead_letters, driven.poison.values().sum::<u64>(), "{report}");
        assert!(driven.poison["truncated"] >= 10_000, "{:?}", driven.poison);
        let dead =
            async |labels: &[(&str, &str)]| scenario.metric("worker-a", "sluice_dead_letters_total", labels).await;
        if !scenario.knows_its_outcomes("worker-a").await {
            println!("a transaction's outcome stayed unknown: the worker's own counts are bounds");
            assert!(dead(&[]).await <= report.dead_letters as f64);
            return;
        }
        // Of the same worker from beginning to end, so its own counts are exact.
        let count = |kind: Poison| driven.poison[kind.name()] as f64;
        assert_eq!(dead(&[]).await, report.dead_letters as f64);
        assert_eq!(dead(&[("code", "too_large")]).await, count(Poison::TooLarge));
        assert_eq!(
            dead(&[("code", "unknown_schema_id")]).await,
            count(Poison::UnknownSchema) + count(Poison::ForeignSchema)
        );
        assert_eq!(dead(&[("code", "invalid_utf8")]).await, count(Poison::InvalidUtf8));
        assert_eq!(
            dead(&[("code", "time_out_of_range")]).await,
            count(Poison::TimeOutOfRange)
        );
        assert_eq!(dead(&[("stage", "frame")]).await, count(Poison::TruncatedPrefix));
        assert_eq!(dead(&[("code", "divide_by_zero")]).await, count(Poison::RuleFailing));
    });
}
