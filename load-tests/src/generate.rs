//! Makes events up, reproducibly: a seed and a sequence of times give the same events.
//!
//! The mix is meant to set every kind of rule off: bots to drop, mail addresses to mask, currencies in small letters, orders
//! worth routing apart, refunds worth an alert, captured payments to charge, fatal errors.

use std::sync::Arc;

use uuid::Uuid;

use crate::event::{Event, EventType, Own, Visitor};
use crate::random::Random;
use crate::sample::{
    BOT_USER_AGENTS, CAMPAIGNS, CHANNELS, ERRORS, MACHINES, METHODS, NAMES, NAVIGATIONS, PAGES, PLACES, SKUS,
};

const VISITORS_PER_TENANT: usize = 40;
const VISITORS_MAX: usize = 20_000;

/// An order above this many minor units is a big one.
pub const BIG_ORDER_MINOR: i64 = 100_000;
/// A refund below this many minor units is a big one.
pub const BIG_REFUND_MINOR: i64 = -50_000;

/// An endless, reproducible source of events.
#[derive(Debug)]
pub struct Generator {
    random: Random,
    visits: Vec<Visit>,
}

#[derive(Debug)]
struct Visit {
    visitor: Arc<Visitor>,
    session: Uuid,
    /// Id, amount and currency of the last order: what a payment is for.
    ordered: Option<(String, i64, &'static str)>,
}

impl Generator {
    /// Events of tenants `tenant-00`, `tenant-01`, …; at least one tenant. Another seed gives other event ids.
    #[must_use]
    pub fn new(seed: u64, tenants: u32) -> Self {
        let mut random = Random::new(seed);
        let tenants = tenants.max(1);
        let count = usize::try_from(tenants)
            .unwrap_or(usize::MAX)
            .saturating_mul(VISITORS_PER_TENANT)
            .min(VISITORS_MAX);
        let visits = (0..count.max(usize::try_from(tenants).unwrap_or(count)))
            .zip((0..tenants).cycle())
            .map(|(number, tenant)| Visit {
                visitor: Arc::new(visitor(&mut random, tenant, number)),
                session: random.uuid(),
                ordered: None,
            })
            .collect();
        Self { random, visits }
    }

    /// The next event, of any type: six in ten are page views.
    pub fn next(&mut self, now_ms: i64) -> Event {
        let event_type = match self.random.unit() {
            share if share < 0.60 => EventType::PageView,
            share if share < 0.72 => EventType::Order,
            share if share < 0.84 => EventType::Payment,
            share if share < 0.93 => EventType::SessionEnd,
            _ => EventType::Error,
        };
        self.next_of(event_type, now_ms)
    }

    /// The next event, of this type, happened at `now_ms` (unix ms).
    pub fn next_of(&mut self, event_type: EventType, now_ms: i64) -> Event {
        let random = &mut self.random;
        // Squared: the first tenants have the most visitors' events, as in life.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "an index below len"
        )]
        let index = (random.unit().powi(2) * self.visits.len() as f64) as usize;
        let index = index.min(self.visits.len() - 1);
        let visit = &mut self.visits[index];
        let session = visit.session;
        if event_type == EventType::SessionEnd {
            visit.session = random.uuid();
        }
        let own = match event_type {
            EventType::PageView => page_view(random),
            EventType::Order => order(random, visit),
            EventType::Payment => payment(random, visit),
            EventType::SessionEnd => session_end(random),
            EventType::Error => error(random),
        };
        Event {
            id: random.uuid(),
            visitor: visit.visitor.clone(),
            session,
            occurred_at_ms: now_ms,
            sent_at_ms: random.chance(0.9).then_some(now_ms),
            received_at_ms: random.chance(0.5).then_some(now_ms),
            page: random.pick(&PAGES),
            campaign: random.chance(0.2).then(|| random.pick(&CAMPAIGNS)),
            properties: properties(random, &visit.visitor),
            own,
        }
    }
}

fn visitor(random: &mut Random, tenant: u32, number: usize) -> Visitor {
    let name = random.pick(&NAMES);
    let signed_in = random.chance(0.6);
    let bot = random.chance(0.04);
    let mut machine = random.pick(&MACHINES);
    if bot {
        machine.user_agent = Some(random.pick(&BOT_USER_AGENTS));
    }
    let [locale, timezone] = random.pick(&PLACES);
    Visitor {
        tenant: format!("tenant-{tenant:02}"),
        user_id: signed_in.then(|| format!("user-{number}")),
        anonymous_id: random.uuid().to_string(),
        source: if machine.app[0] == "shop-web" { "web" } else { "mobile" },
        machine,
        locale,
        timezone,
        ip: random.chance(0.8).then(|| format!("203.0.113.{}", number % 256)),
        email: signed_in.then(|| format!("{name}.{number}@mail.example")),
        bot,
    }
}

fn properties(random: &mut Random, visitor: &Visitor) -> Vec<(&'static str, String)> {
    let mut properties = Vec::new();
    if let Some(email) = visitor.email.as_ref().filter(|_| random.chance(0.4)) {
        properties.push(("email", email.clone()));
    }
    if random.chance(0.3) {
        properties.push(("ref", format!("partner-{}", random.between(1, 40))));
    }
    if random.chance(0.2) {
        properties.push(("note", "grüße aus 東京 ✓".to_owned()));
    }
    properties
}

fn currency(random: &mut Random) -> &'static str {
    match random.unit() {
        share if share < 0.75 => "EUR",
        share if share < 0.85 => "eur",
        share if share < 0.95 => "USD",
        _ => "GBP",
    }
}

fn order_id(random: &mut Random) -> String {
    format!("o-{:016x}", random.number())
}

fn amount(random: &mut Random) -> i64 {
    if random.chance(0.02) {
        return random.between(BIG_ORDER_MINOR + 1, 9 * BIG_ORDER_MINOR);
    }
    random.between(500, 30_000)
}

fn page_view(random: &mut Random) -> Own {
    Own::PageView {
        load_time_ms: i32::try_from(random.between(40, 4_000)).unwrap_or(0),
        scroll_percent: i32::try_from(random.between(0, 101)).unwrap_or(0),
        prerendered: random.chance(0.1),
        interactive_after_ms: random
            .chance(0.7)
            .then(|| i32::try_from(random.between(60, 6_000)).unwrap_or(0)),
        navigation: random.pick(&NAVIGATIONS),
    }
}

fn order(random: &mut Random, visit: &mut Visit) -> Own {
    let (order_id, amount_minor, currency) = (order_id(random), amount(random), currency(random));
    visit.ordered = Some((order_id.clone(), amount_minor, currency));
    let items = 1 + random.index(4);
    Own::Order {
        order_id,
        amount_minor,
        currency,
        skus: (0..items).map(|_| random.pick(&SKUS)).collect(),
        coupon: random.chance(0.15).then_some("AUTUMN10"),
        gift: random.chance(0.05),
        shipping_minor: random.chance(0.6).then_some(490),
        channel: random.pick(&CHANNELS),
    }
}

fn payment(random: &mut Random, visit: &mut Visit) -> Own {
    let (order_id, paid_minor, currency) = visit
        .ordered
        .take()
        .unwrap_or_else(|| (order_id(random), amount(random), currency(random)));
    let (status, amount_minor) = match random.unit() {
        share if share < 0.85 => ("captured", paid_minor),
        share if share < 0.93 => ("failed", paid_minor),
        share if share < 0.99 => ("refunded", -paid_minor),
        _ => ("refunded", random.between(8 * BIG_REFUND_MINOR, BIG_REFUND_MINOR)),
    };
    Own::Payment {
        payment_id: format!("p-{:016x}", random.number()),
        order_id,
        amount_minor,
        currency,
        status,
        method: random.pick(&METHODS),
    }
}

fn session_end(random: &mut Random) -> Own {
    let pageviews = i32::try_from(random.between(1, 30)).unwrap_or(1);
    Own::SessionEnd {
        duration_ms: random.between(800, 3_600_000),
        pageviews,
        bounced: pageviews == 1,
    }
}

fn error(random: &mut Random) -> Own {
    let (message, stack) = random.pick(&ERRORS);
    let severity = match random.unit() {
        share if share < 0.10 => 0,
        share if share < 0.25 => 1,
        share if share < 0.50 => 2,
        share if share < 0.98 => 3,
        _ => 4,
    };
    Own::Error {
        severity,
        message,
        stack,
        handled: random.chance(0.7),
    }
}
