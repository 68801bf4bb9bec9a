//! Batches, limits, dead letters, the audit: numbers, and the relations between them.

use std::time::Duration;

use document::{Item, Reader};

use super::names;
use super::setting::{Setting, Size, at_least, setting, size};
use super::sources::Draft;
use crate::{Audit, Batch, Brake, DeadLetters, Limits, Sinks, defaults};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Batches and limits together, because they bound each other.
pub(super) fn batch_and_limits(top: &Reader<'_>) -> (Batch, Limits) {
    let section = |key| top.optional(key).and_then(|item| item.map());
    let (batch, limits) = (section("batch"), section("limits"));
    let (b, l) = (batch.as_ref(), limits.as_ref());

    let linger = setting(b, "linger", defaults::LINGER, Item::duration);
    let age_max = setting(b, "age_max", defaults::AGE_MAX, |item| at_least(item, MS));
    let rows = setting(b, "rows", defaults::ROWS, rows_setting);
    let rows_max = setting(b, "rows_max", defaults::ROWS_MAX, rows_setting);
    let bytes_max = setting(b, "bytes_max", Size(defaults::BATCH_BYTES_MAX), size_setting);
    // The server compares whole seconds.
    let deadline = setting(b, "deadline", defaults::DEADLINE, |item| at_least(item, 2 * SECOND));
    let rollup_every = setting(b, "rollup_every", defaults::ROLLUP_EVERY, feeding);
    let grace = setting(b, "grace", defaults::GRACE, |item| at_least(item, 100 * MS));
    linger.relate(|a, b| a <= b, "can't be longer than", &age_max);
    rows.relate(|a, b| a <= b, "can't be more than", &rows_max);
    deadline.relate(|a, b| a > b, "has to be longer than", &age_max);
    deadline.relate(|a, b| a > b, "has to be longer than", &grace);

    let event_bytes_max = setting(l, "event_bytes_max", Size(defaults::EVENT_BYTES_MAX), size_setting);
    let in_flight_rows_max = setting(l, "in_flight_rows_max", defaults::IN_FLIGHT_ROWS_MAX, rows_setting);
    let in_flight_bytes_max = setting(
        l,
        "in_flight_bytes_max",
        Size(defaults::IN_FLIGHT_BYTES_MAX),
        size_setting,
    );
    let resume_below = setting(l, "resume_below", defaults::RESUME_BELOW, |item| share(item, false));
    let session_timeout = timeout(l, "session_timeout", defaults::SESSION_TIMEOUT);
    let transaction_timeout = timeout(l, "transaction_timeout", defaults::TRANSACTION_TIMEOUT);
    let poll_interval_max = timeout(l, "poll_interval_max", defaults::POLL_INTERVAL_MAX);
    event_bytes_max.relate(|a, b| a <= b, "can't be larger than", &bytes_max);
    rows_max.relate(|a, b| a <= b, "can't be more than", &in_flight_rows_max);
    bytes_max.relate(|a, b| a <= b, "can't be larger than", &in_flight_bytes_max);
    // A zombie's transaction has to end before its partitions have a new owner, who would wait for it otherwise.
    transaction_timeout.relate(|a, b| a < b, "has to be shorter than", &session_timeout);
    session_timeout.relate(|a, b| a < b, "has to be shorter than", &poll_interval_max);
    // Otherwise a lane that settles one doubt is taken for dead.
    deadline.relate(|a, b| a < b, "has to be shorter than", &poll_interval_max);

    for reader in [batch, limits].into_iter().flatten() {
        reader.finish();
    }
    let batch = Batch {
        linger: linger.value,
        age_max: age_max.value,
        rollup_every: rollup_every.value,
        rows: rows.value,
        rows_max: rows_max.value,
        bytes_max: bytes_max.value.0,
        deadline: deadline.value,
        grace: grace.value,
    };
    let limits = Limits {
        event_bytes_max: event_bytes_max.value.0,
        in_flight_rows_max: in_flight_rows_max.value,
        in_flight_bytes_max: in_flight_bytes_max.value.0,
        resume_below: resume_below.value,
        session_timeout: session_timeout.value,
        transaction_timeout: transaction_timeout.value,
        poll_interval_max: poll_interval_max.value,
    };
    (batch, limits)
}

fn timeout<'a>(reader: Option<&Reader<'a>>, key: &'static str, default: Duration) -> Setting<'a, Duration> {
    setting(reader, key, default, |item| at_least(item, SECOND))
}

/// A feeding has to end soon after its deadline, however many rows have gathered.
fn feeding(item: &Item<'_>) -> Option<Duration> {
    let every = at_least(item, 100 * MS)?;
    if every > 60 * SECOND {
        item.fault("should be at most 1m: what gathers is fed at once".to_owned());
        return None;
    }
    Some(every)
}

fn rows_setting(item: &Item<'_>) -> Option<usize> {
    item.integer(1..=10_000_000)
}

fn size_setting(item: &Item<'_>) -> Option<Size> {
    size(item, Size(1 << 10))
}

/// A number above 0 and below 1; 1 itself where `whole` says so.
fn share(item: &Item<'_>, whole: bool) -> Option<f64> {
    let share = item.f64()?;
    if share > 0.0 && (share < 1.0 || (whole && share == 1.0)) {
        return Some(share);
    }
    item.fault(format!(
        "should be above 0 and {} 1",
        if whole { "at most" } else { "below" }
    ));
    None
}

/// The audit's topic is nobody else's: its records are none of a source and no dead letters.
pub(super) fn audit(top: &Reader<'_>, pipeline: &str, drafts: &[Draft<'_>], sinks: &Sinks) -> Audit {
    let reader = top.optional("audit").and_then(|item| item.map());
    let r = reader.as_ref();
    let taken = |topic: &str| {
        let of_source = |draft: &Draft<'_>| {
            [&draft.source.topic, &draft.source.dead_letter_topic]
                .iter()
                .any(|own| *own == topic)
        };
        drafts.iter().any(of_source) || sinks.alerts.as_ref().is_some_and(|alerts| alerts.topic == topic)
    };
    let topic = setting(
        r,
        "topic",
        defaults::AUDIT_PATTERN.replace("{pipeline}", pipeline),
        |item| {
            let text = item.text()?;
            item.checked(names::topic(text))?;
            if taken(text) {
                item.fault("is a source's topic, its dead letters' or that of alerts");
                return None;
            }
            Some(text.to_owned())
        },
    );
    let keep = setting(r, "keep", defaults::AUDIT_KEEP, |item| {
        at_least(item, defaults::AUDIT_KEEP_MIN)
    });
    if let Some(reader) = reader {
        reader.finish();
    }
    Audit {
        topic: topic.value,
        keep: keep.value,
    }
}

/// The dead letters; whether their topics fit is checked with the sources.
pub(super) fn dead_letters(top: &Reader<'_>) -> DeadLetters {
    let reader = top.optional("dead_letters").and_then(|item| item.map());
    let r = reader.as_ref();
    let pattern = setting(r, "topic", defaults::DEAD_LETTER_PATTERN.to_owned(), |item| {
        let text = item.text()?;
        if text.matches("{topic}").count() != 1 || text == "{topic}" {
            item.fault("should contain {topic} once, and more than that, such as {topic}.dlq");
            return None;
        }
        Some(text.to_owned())
    });
    let attempts = setting(r, "attempts", defaults::ATTEMPTS, |item| item.integer(1..=100));
    let brake = r
        .and_then(|reader| reader.optional("brake"))
        .and_then(|item| item.map());
    let b = brake.as_ref();
    let share = setting(b, "share", defaults::BRAKE_SHARE, |item| share(item, true));
    let over_events = setting(b, "over_events", defaults::BRAKE_OVER_EVENTS, |item| {
        item.integer(10..=1_000_000)
    });
    for reader in [brake, reader].into_iter().flatten() {
        reader.finish();
    }
    DeadLetters {
        topic_pattern: pattern.value,
        attempts: attempts.value,
        brake: Brake {
            share: share.value,
            over_events: over_events.value,
        },
    }
}
