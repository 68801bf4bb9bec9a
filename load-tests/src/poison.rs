//! Events that must become dead letters, each broken in one known way.

use std::str::FromStr;

use crate::encode::encode;
use crate::event::{Event, EventType, Own};
use crate::frame::{Frame, Framing};
use crate::generate::Generator;

/// In which way an event is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Poison {
    /// The Avro ends in the middle of a field.
    Truncated,
    /// The Avro is no Avro: a length that never ends.
    Broken,
    /// A string field (`source`) that is not UTF-8.
    InvalidUtf8,
    /// A schema id that the registry never gave out, 1,999,999,999.
    UnknownSchema,
    /// An event of another type, with its schema id: no version of the topic's subject has its fields. With one topic: like
    /// `UnknownSchema`.
    ForeignSchema,
    /// A prefix of three bytes, or a schema id header of three bytes that are no number.
    TruncatedPrefix,
    /// `occurred_at` three days ahead.
    TimeOutOfRange,
    /// More bytes than [`Mix::oversize_bytes`]. The topic must take that much (`max.message.bytes`).
    TooLarge,
    /// An order of zero items: whatever rule divides by `item_count` fails. Of other types: like `Broken`.
    RuleFailing,
}

impl Poison {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::Truncated,
        Self::Broken,
        Self::InvalidUtf8,
        Self::UnknownSchema,
        Self::ForeignSchema,
        Self::TruncatedPrefix,
        Self::TimeOutOfRange,
        Self::TooLarge,
        Self::RuleFailing,
    ];

    /// `invalid_utf8`, …: how command line and reports call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Broken => "broken",
            Self::InvalidUtf8 => "invalid_utf8",
            Self::UnknownSchema => "unknown_schema",
            Self::ForeignSchema => "foreign_schema",
            Self::TruncatedPrefix => "truncated_prefix",
            Self::TimeOutOfRange => "time_out_of_range",
            Self::TooLarge => "too_large",
            Self::RuleFailing => "rule_failing",
        }
    }
}

impl FromStr for Poison {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("{name} is no kind of poison; known are {}", known.join(", "))
        })
    }
}

/// How much poison to mix in.
#[derive(Debug, Clone, PartialEq)]
pub struct Mix {
    /// Share of all events, 0 to 1.
    pub share: f64,
    /// Which kinds, taken in turn; empty = none.
    pub kinds: Vec<Poison>,
    /// Size of a [`Poison::TooLarge`] event; above the pipeline's `event_bytes_max`, below the topic's `max.message.bytes`.
    pub oversize_bytes: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            share: 0.0,
            kinds: Poison::ALL.to_vec(),
            oversize_bytes: (1 << 20) + 1,
        }
    }
}

/// An id above every registry's and within its type.
pub const UNKNOWN_SCHEMA_ID: u32 = 1_999_999_999;
const AHEAD_MS: i64 = 3 * 24 * 3_600_000;

/// What a poisoned event is made with; for [`Poison::ForeignSchema`] type, version and schema are those of another topic.
pub(crate) struct Recipe<'a> {
    pub event_type: EventType,
    pub version: u32,
    pub schema_id: u32,
    pub framing: &'a Framing,
    pub now_ms: i64,
    pub oversize_bytes: usize,
}

/// Makes an event, breaks it and frames it. Its event id may or may not be readable.
pub(crate) fn poisoned(kind: Poison, recipe: &Recipe, generator: &mut Generator) -> (Event, Frame) {
    let mut event = generator.next_of(recipe.event_type, recipe.now_ms);
    let mut kind = kind;
    match (kind, &mut event.own) {
        (Poison::TimeOutOfRange, _) => event.occurred_at_ms += AHEAD_MS,
        (Poison::TooLarge, _) => event.properties = vec![("note", "x".repeat(recipe.oversize_bytes))],
        (Poison::RuleFailing, Own::Order { skus, .. }) => skus.clear(),
        (Poison::RuleFailing, _) => kind = Poison::Broken,
        _ => {}
    }
    let mut avro = Vec::new();
    encode(&event, recipe.version, &mut avro);
    match kind {
        Poison::Truncated => avro.truncate(avro.len() / 2),
        // Event id and tenant stay readable; where `type` should begin stands a varint of more than ten bytes.
        Poison::Broken => {
            avro.truncate(avro_strings(&event));
            avro.extend_from_slice(&[0xff; 32]);
        }
        Poison::InvalidUtf8 => spoil_source(&event, &mut avro),
        _ => {}
    }
    let frame = match kind {
        Poison::UnknownSchema => recipe.framing.frame(UNKNOWN_SCHEMA_ID, &avro),
        Poison::TruncatedPrefix => recipe.framing.broken_frame(&avro),
        _ => recipe.framing.frame(recipe.schema_id, &avro),
    };
    (event, frame)
}

/// How many bytes `event_id` and `tenant_id` take: both are shorter than 64 bytes, so each has a length of one byte.
fn avro_strings(event: &Event) -> usize {
    1 + 36 + 1 + event.visitor.tenant.len()
}

/// `source` follows `type` and the one byte of `schema_version`; its first byte becomes one that never begins a character.
fn spoil_source(event: &Event, avro: &mut [u8]) {
    let at = avro_strings(event) + 1 + event.event_type().name().len() + 1 + 1;
    if let Some(byte) = avro.get_mut(at) {
        *byte = 0xff;
    }
}
