//! The Avro schemas of the five example event types, as text.
//!
//! They serve the demo and the tests. Sluice itself never looks at them: a pipeline file names topics, and the registry has
//! their schemas.

/// One version of one example event's Avro schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventSchema {
    /// The topic, which is also the event type, for example `order.created`.
    pub topic: &'static str,
    /// Counts from 1. Every version reads what the one before it wrote (BACKWARD).
    pub version: u32,
    /// The schema: JSON, one self-contained record.
    pub text: &'static str,
}

macro_rules! schema {
    ($topic:literal, $version:literal) => {
        EventSchema {
            topic: $topic,
            version: $version,
            text: include_str!(concat!("../avro/", $topic, ".v", $version, ".avsc")),
        }
    };
}

static SCHEMAS: [EventSchema; 7] = [
    schema!("user.pageview", 1),
    schema!("user.pageview", 2),
    schema!("order.created", 1),
    schema!("order.created", 2),
    schema!("payment.processed", 1),
    schema!("session.end", 1),
    schema!("error.captured", 1),
];

/// Every version of every example event, grouped by topic, oldest version first.
#[must_use]
pub fn schemas() -> &'static [EventSchema] {
    &SCHEMAS
}
