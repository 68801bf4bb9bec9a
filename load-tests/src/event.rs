//! The example events as Rust values: what the generator makes up and the encoder writes.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use uuid::Uuid;

/// The five event types. Their topics carry the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EventType {
    /// `user.pageview`
    PageView,
    /// `order.created`
    Order,
    /// `payment.processed`
    Payment,
    /// `session.end`
    SessionEnd,
    /// `error.captured`
    Error,
}

impl EventType {
    /// All of them, in the order of `proto::events::schemas`.
    pub const ALL: [Self; 5] = [
        Self::PageView,
        Self::Order,
        Self::Payment,
        Self::SessionEnd,
        Self::Error,
    ];

    /// `user.pageview`, …: the value of the field `type`, and the topic unless a target says otherwise.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::PageView => "user.pageview",
            Self::Order => "order.created",
            Self::Payment => "payment.processed",
            Self::SessionEnd => "session.end",
            Self::Error => "error.captured",
        }
    }

    /// How many versions its schema has.
    #[must_use]
    pub fn versions(self) -> u32 {
        match self {
            Self::PageView | Self::Order => 2,
            Self::Payment | Self::SessionEnd | Self::Error => 1,
        }
    }

    /// The schema's text; none when there is no such version.
    #[must_use]
    pub fn schema(self, version: u32) -> Option<&'static str> {
        proto::events::schemas()
            .iter()
            .find(|schema| schema.topic == self.name() && schema.version == version)
            .map(|schema| schema.text)
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for EventType {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|event| event.name() == name)
            .ok_or_else(|| format!("{name} is none of the example event types"))
    }
}

/// One event, before it becomes bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// `event_id`, unique for a seed.
    pub id: Uuid,
    /// Who did it, on what.
    pub visitor: Arc<Visitor>,
    /// `session_id`; the record's key, too.
    pub session: Uuid,
    /// Unix ms.
    pub occurred_at_ms: i64,
    /// Unix ms.
    pub sent_at_ms: Option<i64>,
    /// Unix ms.
    pub received_at_ms: Option<i64>,
    /// Where it happened.
    pub page: Page,
    /// How the visitor came.
    pub campaign: Option<Campaign>,
    /// `properties`; keys are different from each other.
    pub properties: Vec<(&'static str, String)>,
    /// The fields of its type.
    pub own: Own,
}

impl Event {
    /// Which of the five types it is.
    #[must_use]
    pub fn event_type(&self) -> EventType {
        match self.own {
            Own::PageView { .. } => EventType::PageView,
            Own::Order { .. } => EventType::Order,
            Own::Payment { .. } => EventType::Payment,
            Own::SessionEnd { .. } => EventType::SessionEnd,
            Own::Error { .. } => EventType::Error,
        }
    }
}

/// A person (or bot) and their machine: the same in all their events.
#[derive(Debug, Clone, PartialEq)]
pub struct Visitor {
    /// `tenant-00`, …
    pub tenant: String,
    /// Known once signed in.
    pub user_id: Option<String>,
    /// The browser's or the app's own id.
    pub anonymous_id: String,
    /// Which client library sends.
    pub source: &'static str,
    /// The machine.
    pub machine: Machine,
    /// BCP 47.
    pub locale: &'static str,
    /// IANA name.
    pub timezone: &'static str,
    /// IPv4, from the ranges kept for documentation.
    pub ip: Option<String>,
    /// Goes into `properties` of some events.
    pub email: Option<String>,
    /// Whether `user_agent` says that it is a bot.
    pub bot: bool,
}

/// What a visitor uses.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Machine {
    /// Name, version, build.
    pub app: [&'static str; 3],
    /// Name, version.
    pub browser: [&'static str; 2],
    /// Index into mobile, tablet, desktop.
    pub device_type: u8,
    /// Model, manufacturer.
    pub device: [&'static str; 2],
    /// Name, version.
    pub os: [&'static str; 2],
    /// Width and height in pixels.
    pub screen: [i32; 2],
    /// Device pixels per CSS pixel.
    pub density: f64,
    /// As the browser says it.
    pub user_agent: Option<&'static str>,
}

/// Where an event happened.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Page {
    /// Whole address.
    pub url: &'static str,
    /// Its path.
    pub path: &'static str,
    /// With letters outside ASCII in some.
    pub title: &'static str,
    /// Where the visitor was before.
    pub referrer: Option<&'static str>,
    /// Query string.
    pub search: Option<&'static str>,
}

/// How a visitor came.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Campaign {
    /// For example a search engine.
    pub source: &'static str,
    /// For example `cpc`.
    pub medium: &'static str,
    /// The campaign.
    pub name: &'static str,
    /// Words searched for.
    pub term: Option<&'static str>,
    /// Which advertisement.
    pub content: Option<&'static str>,
}

/// The fields of one type. Fields of one version only are in both; the encoder writes those of its version.
#[derive(Debug, Clone, PartialEq)]
#[expect(missing_docs, reason = "the fields are the schema's, and documented there")]
pub enum Own {
    /// `user.pageview`
    PageView {
        load_time_ms: i32,
        scroll_percent: i32,
        prerendered: bool,
        interactive_after_ms: Option<i32>,
        navigation: &'static str,
    },
    /// `order.created`
    Order {
        order_id: String,
        amount_minor: i64,
        currency: &'static str,
        skus: Vec<&'static str>,
        coupon: Option<&'static str>,
        gift: bool,
        shipping_minor: Option<i64>,
        channel: &'static str,
    },
    /// `payment.processed`
    Payment {
        payment_id: String,
        order_id: String,
        amount_minor: i64,
        currency: &'static str,
        status: &'static str,
        method: &'static str,
    },
    /// `session.end`
    SessionEnd {
        duration_ms: i64,
        pageviews: i32,
        bounced: bool,
    },
    /// `error.captured`; the severity is an index into debug, info, warning, error, fatal.
    Error {
        severity: u8,
        message: &'static str,
        stack: Option<&'static str>,
        handled: bool,
    },
}
