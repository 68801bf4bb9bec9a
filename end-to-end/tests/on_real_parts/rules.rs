//! Each thing that a rule can do, one tenant each.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use end_to_end::shop::Rules;
use end_to_end::{Scenario, run};
use proto::delivery::v1::GetUsageRequest;
use proto::delivery::v1::billing_client::BillingClient;

/// Tenant, and its one rule.
const ONE_EACH: [(&str, &str); 7] = [
    ("tenant-00", "{name: drop, events: [session.end], drop: true}"),
    (
        "tenant-01",
        "{name: set, events: [order.created, payment.processed], set: {currency: \"upper(currency)\"}}",
    ),
    (
        "tenant-02",
        "{name: mask, mask: {\"properties['email']\": sha256, context.ip: \"null\", anonymous_id: truncate(8)}}",
    ),
    (
        "tenant-03",
        "{name: rename, rename: {\"properties['ref']\": \"properties['referrer']\"}}",
    ),
    (
        "tenant-04",
        "{name: route, events: [order.created], when: amount_minor > 20000, route: [orders_vip]}",
    ),
    (
        "tenant-05",
        "{name: alert, events: [error.captured], alert: {severity: critical, key: session_id, text: message}}",
    ),
    (
        "tenant-06",
        "{name: charge, events: [payment.processed], charge: {meter: revenue, quantity: amount_minor}}",
    ),
];

/// Fails for orders of one item, and for payments of more than 184.46.
const FAILING: &str = "
tenant: tenant-07
rules:
  - {name: divide, events: [order.created], set: {amount_minor: amount_minor / (item_count - 1)}}
  - {name: overflow, events: [payment.processed], set: {amount_minor: amount_minor * 500000000000000}}
";

/// Events by type and tenant, from what the driver wrote down for each acknowledged one.
fn produced(record: &Path) -> BTreeMap<(String, String), u64> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(record).unwrap().lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let event = fields[0].strip_prefix("actions.").unwrap().to_owned();
        *counts.entry((event, fields[4].to_owned())).or_insert(0) += 1;
    }
    counts
}

/// Scenario: eight tenants, each with one kind of rule; the rules of the last fail on some of its events.
/// Guarantees: each rule does what it says to its tenant's events and to no other's; an event on which a rule fails is a dead
/// letter.
#[test]
fn every_rule_action_does_what_it_says_to_its_tenant_alone() {
    run("actions", Rules::Directory, async |scenario| {
        scenario.write_rules("default", "tenant: \"*\"\nrules: []\n");
        for (tenant, rule) in ONE_EACH {
            let meters = "meters: {revenue: {unit: cent}}";
            scenario.write_rules(tenant, &format!("tenant: {tenant}\n{meters}\nrules:\n  - {rule}\n"));
        }
        scenario.write_rules("tenant-07", FAILING);
        scenario.set_the_shop_up().await;
        scenario.sluice(&["rules", "check"]).await;
        scenario.start_billing().await;
        scenario.start_worker("worker-a").await;
        let mut settings = scenario.load_of(1_000.0, Duration::from_secs(8), 1);
        let record = scenario.dir.join("produced.tsv");
        settings.record = Some(record.clone());
        let driven = scenario.drive(settings).finished().await;
        let report = scenario.verified(&[&driven]).await;

        let produced = produced(&record);
        let of = |event: &str, tenant: &str| produced[&(event.to_owned(), tenant.to_owned())];
        assert_eq!(produced.values().sum::<u64>(), driven.produced);
        assert_eq!(report.alerts, of("error.captured", "tenant-05"), "{report}");
        assert_eq!(report.charges, of("payment.processed", "tenant-06"), "{report}");
        assert_eq!(report.dropped, of("session.end", "tenant-00"), "{report}");
        assert_eq!(
            charged(scenario).await,
            scenario
                .number(
                    "SELECT toUInt64(sum(amount_minor) + 1000000000000) FROM payments WHERE tenant_id = 'tenant-06'",
                )
                .await
        );
        failures_are_dead_letters(scenario, &produced, report.dead_letters).await;
        rows_are_as_the_rules_say(scenario, &produced).await;
    });
}

/// What tenant-06 owes, plus 10^12 so that a sum of refunds is no negative number.
async fn charged(scenario: &Scenario<'_>) -> u64 {
    let mut billing = BillingClient::connect(scenario.billing_url()).await.unwrap();
    let request = GetUsageRequest {
        tenant: "tenant-06".into(),
        meter: "revenue".into(),
        from_ms: 0,
        to_ms: i64::MAX,
    };
    let usage = billing.get_usage(request).await.unwrap().into_inner();
    assert_eq!((usage.unit.as_str(), usage.scale), ("cent", 0));
    u64::try_from(usage.quantity + 1_000_000_000_000).unwrap()
}

async fn failures_are_dead_letters(scenario: &Scenario<'_>, produced: &BTreeMap<(String, String), u64>, letters: u64) {
    let dead = async |code: &str| {
        let labels = [("stage", "rules"), ("code", code)];
        scenario.metric("worker-a", "sluice_dead_letters_total", &labels).await as u64
    };
    let (divided, overflown) = (dead("divide_by_zero").await, dead("overflow").await);
    assert!(divided > 0 && overflown > 0, "{divided} {overflown}");
    assert_eq!(divided + overflown, letters);
    for (event, table, dead) in [
        ("order.created", "orders", divided),
        ("payment.processed", "payments", overflown),
    ] {
        let rows = scenario
            .number(&format!("SELECT count() FROM {table} WHERE tenant_id = 'tenant-07'"))
            .await;
        assert_eq!(
            rows + dead,
            produced[&(event.to_owned(), "tenant-07".to_owned())],
            "{table}"
        );
    }
}

async fn rows_are_as_the_rules_say(scenario: &Scenario<'_>, produced: &BTreeMap<(String, String), u64>) {
    // Every event of every tenant but those that drop, route or fail is in its own table.
    for (event, table) in [
        ("user.pageview", "pageviews"),
        ("order.created", "orders"),
        ("payment.processed", "payments"),
        ("session.end", "sessions"),
        ("error.captured", "errors"),
    ] {
        let apart = ["tenant-00", "tenant-04", "tenant-07"];
        let expected: u64 = produced
            .iter()
            .filter(|((of, tenant), _)| of == event && !apart.contains(&tenant.as_str()))
            .map(|(_, count)| count)
            .sum();
        let rows =
            format!("SELECT count() FROM {table} WHERE tenant_id NOT IN ('tenant-00', 'tenant-04', 'tenant-07')");
        assert_eq!(scenario.number(&rows).await, expected, "{table}");
    }
    let count = async |what: &str, table: &str, tenant: &str| {
        scenario
            .number(&format!(
                "SELECT countIf({what}) FROM {table} WHERE tenant_id = '{tenant}'"
            ))
            .await
    };
    assert_eq!(count("1", "sessions", "tenant-00").await, 0);
    assert_eq!(count("currency != upper(currency)", "orders", "tenant-01").await, 0);
    assert!(
        count("currency != upper(currency)", "orders", "tenant-02").await > 0,
        "others keep their letters"
    );

    let hashed = "mapContains(properties, 'email') AND match(properties['email'], '^[0-9a-f]{64}$')";
    assert!(count(hashed, "pageviews", "tenant-02").await > 0);
    let open = "properties['email'] LIKE '%@%' OR context_ip IS NOT NULL OR length(anonymous_id) != 8";
    assert_eq!(count(open, "pageviews", "tenant-02").await, 0);
    assert_eq!(
        count(hashed, "pageviews", "tenant-03").await,
        0,
        "others keep their mail addresses"
    );

    assert!(count("mapContains(properties, 'referrer')", "pageviews", "tenant-03").await > 0);
    assert_eq!(
        count("mapContains(properties, 'ref')", "pageviews", "tenant-03").await,
        0
    );
    assert!(count("mapContains(properties, 'ref')", "pageviews", "tenant-02").await > 0);

    let (small, vip) = (
        count("1", "orders", "tenant-04").await,
        count("1", "orders_vip", "tenant-04").await,
    );
    assert_eq!(
        small + vip,
        produced[&("order.created".to_owned(), "tenant-04".to_owned())]
    );
    assert_eq!(count("amount_minor > 20000", "orders", "tenant-04").await, 0);
    assert_eq!(count("amount_minor <= 20000", "orders_vip", "tenant-04").await, 0);
    assert_eq!(
        scenario.number("SELECT count() FROM orders_vip").await,
        vip,
        "nobody else routes"
    );
}
