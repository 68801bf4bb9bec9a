//! The pipeline of most scenarios: the five event types into topics of the scenario's own, every kind of sink, and rules
//! that use every action.

use devstack::Stack;

/// Where rules come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rules {
    /// The files of the scenario's directory `rules`.
    Directory,
    /// A `sluice config`.
    Service,
}

/// What differs from scenario to scenario.
pub(crate) struct Addresses<'a> {
    pub stack: &'a Stack,
    pub config: u16,
    pub billing: u16,
    pub rules: Rules,
}

/// For every tenant without rules of its own: each action, and one rule that fails for an order of no items.
pub const RULES: &str = r#"
tenant: "*"
meters: {revenue: {unit: EUR, scale: 2}, orders: {unit: order}}
rules:
  - name: dear-items
    events: [order.created]
    when: amount_minor / item_count > 25000
    alert: {severity: info, key: session_id, text: "'items of ' || order_id || ' at ' || amount_minor || ' ' || currency"}
  - {name: no-bots, when: "context.user_agent ILIKE '%bot%'", drop: true}
  - {name: no-mail, mask: {"properties['email']": sha256, context.ip: "null", user_id: truncate(6)}}
  - {name: currency, events: [order.created, payment.processed], set: {currency: "upper(currency)"}}
  - {name: referrer, rename: {"properties['ref']": "properties['referrer']"}}
  - {name: vip, events: [order.created], when: amount_minor > 20000, route: [orders, orders_vip]}
  - {name: count, events: [order.created], charge: {meter: orders, quantity: 1}}
  - name: revenue
    events: [payment.processed]
    when: status = 'captured' AND currency = 'EUR'
    charge: {meter: revenue, quantity: amount_minor}
  - name: fatal-error
    events: [error.captured]
    when: severity = 'fatal'
    alert: {severity: critical, key: context.app.name, text: "context.app.name || ': ' || message"}
"#;

/// The pipeline file. Timeouts are shorter than the defaults, so that a crash is settled within seconds.
pub(crate) fn pipeline(name: &str, at: &Addresses<'_>) -> String {
    let Addresses {
        stack,
        config,
        billing,
        rules,
    } = at;
    let rules = match rules {
        Rules::Directory => "{dir: ./rules}".to_owned(),
        Rules::Service => format!("{{url: \"http://127.0.0.1:{config}\"}}"),
    };
    let (registry, clickhouse) = (&stack.registry, &stack.clickhouse);
    let kafka = stack.kafka.replace(',', "\", \"");
    format!(
        r#"
pipeline: {name}
start: earliest
connections:
  kafka: {{brokers: ["{kafka}"]}}
  registry: {{url: "{registry}"}}
  clickhouse: {{url: "{clickhouse}", database: {name}}}
  rules: {rules}
event: {{id: event_id, tenant: tenant_id, type: type, time: occurred_at, accept: {{past: 400d, future: 24h}}}}
sources:
  - {{topic: {name}.user.pageview,     name: user.pageview,     table: pageviews, partitions: 4}}
  - {{topic: {name}.order.created,     name: order.created,     table: orders,    partitions: 4}}
  - {{topic: {name}.payment.processed, name: payment.processed, table: payments,  partitions: 2, schema_id: header}}
  - {{topic: {name}.session.end,       name: session.end,       table: sessions,  partitions: 2}}
  - {{topic: {name}.error.captured,    name: error.captured,    table: errors,    partitions: 2}}
tables:
  default: {{partition_by: day, order_by: [tenant_id, type, occurred_at]}}
  orders_vip: {{like: orders}}
rollups:
  - name: pageviews_minute
    from: pageviews
    every: 1m
    by: [tenant_id, context.device.type]
    measures: {{events: uniq(event_id), users: uniqCombined(anonymous_id)}}
  - name: orders_minute
    from: orders
    every: 1m
    by: [tenant_id, currency]
    measures: {{events: uniq(event_id), revenue: sum(amount_minor)}}
sinks:
  alerts:  {{topic: {name}.alerts}}
  billing: {{grpc: "http://127.0.0.1:{billing}"}}
batch:  {{deadline: 4s, grace: 1s, rollup_every: 300ms}}
limits: {{session_timeout: 6s, transaction_timeout: 5s, poll_interval_max: 30s}}
workers: {{lanes: 2}}
"#
    )
}
