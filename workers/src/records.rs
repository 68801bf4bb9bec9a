//! Alerts, charges and dead letters as they leave the worker. Pure, and stable: their bytes are part of the digest.

use std::fmt::Write as _;

use arrow::array::StringArray;
use exactly_once_kafka::{Message, Pair};
use pipeline::{Limits, Source};
use proto::delivery::v1::Charge;
use time::OffsetDateTime;
use time::macros::format_description;
use xxhash_rust::xxh3::Xxh3;

use crate::collect::{Dead, Position};

/// What alerts and charges of one source's batch have in common.
pub struct Context<'a> {
    /// The source.
    pub source: &'a Source,
    /// Event ids by row.
    pub ids: &'a StringArray,
    /// Tenants by row.
    pub tenants: &'a StringArray,
    /// Event times by row, Unix milliseconds.
    pub times: Vec<Option<i64>>,
    /// Number of the rules revision.
    pub revision: u64,
}

/// An alert takes about as many bytes beside its text: what is allocated for it need not grow.
const ALERT_BYTES: usize = 320;

/// An alert's JSON. Members are written in this order, and their bytes are part of the digest.
#[derive(serde::Serialize)]
struct AlertJson<'a> {
    id: &'a str,
    tenant: &'a str,
    event: &'a str,
    event_id: &'a str,
    event_time: &'a str,
    rule: &'a str,
    severity: &'a str,
    text: &'a str,
    rules_revision: u64,
}

impl Context<'_> {
    /// The alert `n` of its event, as JSON.
    pub fn alert(&self, position: Position, n: u16, alert: &rules::Alert) -> Pair {
        let row = alert.row as usize;
        let tenant = self.tenants.value(row);
        let json = AlertJson {
            id: &self.id(position, n),
            tenant,
            event: &self.source.name,
            event_id: self.ids.value(row),
            event_time: &rfc3339(self.times[row].unwrap_or_default()),
            rule: &alert.rule,
            severity: alert.severity.as_str(),
            text: &alert.text,
            rules_revision: self.revision,
        };
        let key = alert.key.as_deref().unwrap_or(tenant).as_bytes().to_vec();
        // Texts and a number: there is no value in it that JSON lacks.
        let mut value = Vec::with_capacity(ALERT_BYTES + alert.text.len());
        serde_json::to_writer(&mut value, &json).ok();
        Pair { key, value }
    }

    /// Makes `into` the charge `n` of its event. The texts of the one before give their room.
    pub fn charge(&self, position: Position, n: u16, charge: &rules::Charge, into: &mut Charge) {
        let row = charge.row as usize;
        into.id.clear();
        self.write_id(position, n, &mut into.id);
        self.tenants.value(row).clone_into(&mut into.tenant);
        charge.meter.as_ref().clone_into(&mut into.meter);
        charge.unit.as_ref().clone_into(&mut into.unit);
        into.quantity = charge.quantity;
        into.scale = charge.scale;
        into.event_time_ms = self.times[row].unwrap_or_default();
        self.ids.value(row).clone_into(&mut into.event_id);
        charge.rule.as_ref().clone_into(&mut into.rule);
        into.rules_revision = self.revision;
        into.offset = position.offset;
    }

    fn id(&self, position: Position, n: u16) -> String {
        let mut id = String::new();
        self.write_id(position, n, &mut id);
        id
    }

    fn write_id(&self, position: Position, n: u16, into: &mut String) {
        let (topic, partition) = (&self.source.topic, position.partition.partition);
        // Writing to a text does not fail.
        write!(into, "{topic}/{partition}/{}/{n}", position.offset).ok();
    }
}

/// The dead letter of an event: its raw bytes and headers, and why it is one.
pub fn dead_letter(source: &Source, letter: &Dead, revision: u64) -> Message {
    let refusal = &letter.refusal;
    let mut headers = letter.raw.headers.clone();
    let mut add = |name: &str, value: String| headers.push((name.to_string(), Some(value.into_bytes())));
    add("sluice-stage", refusal.stage.name().to_string());
    add("sluice-code", refusal.code.clone());
    add("sluice-reason", refusal.reason.clone());
    if !refusal.field.is_empty() {
        add("sluice-field", refusal.field.clone());
    }
    add("sluice-attempts", refusal.attempts.to_string());
    add("sluice-topic", source.topic.clone());
    add("sluice-partition", letter.partition.partition.to_string());
    add("sluice-offset", letter.offset.to_string());
    add("sluice-timestamp", letter.timestamp_ms.to_string());
    if let Some(id) = refusal.schema_id {
        add("sluice-schema-id", id.to_string());
    }
    add("sluice-rules-revision", revision.to_string());
    if !refusal.tenant.is_empty() {
        add("sluice-tenant", refusal.tenant.clone());
    }
    Message {
        topic: source.dead_letter_topic.clone(),
        key: letter.raw.key.clone(),
        value: letter.raw.value.clone(),
        headers,
    }
}

/// What Sluice writes into the headers of a dead letter beside the tenant: names, numbers and a reason.
const HEADERS_BYTES_MAX: usize = 64 << 10;

/// The largest batch that a topic of records is made for (`max.message.bytes`, of what a producer has compressed). Twice what an
/// event may have: a larger one is to become a dead letter here, not to be lost by its producer.
pub fn batch_bytes_max(limits: &Limits) -> usize {
    (limits.event_bytes_max * 2).max(4 << 20)
}

/// The same of dead letters, which have to fit whatever fits their source: the record, compressed once more by lz4, which takes
/// up to twice what gzip or zstd take for text; and headers, of which the tenant alone can be nearly as long as an event.
pub fn dead_letter_bytes_max(limits: &Limits) -> usize {
    batch_bytes_max(limits) * 2 + limits.event_bytes_max + HEADERS_BYTES_MAX
}

/// Content hash for the digest. Reasons are left out: a clearer sentence in a later version is no other delivery.
pub fn dead_hash(letter: &Dead) -> u64 {
    let refusal = &letter.refusal;
    let mut hasher = Xxh3::new();
    for part in [refusal.stage.name(), &refusal.code, &refusal.field] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    for part in [&letter.raw.key, &letter.raw.value] {
        hasher.update(&part.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
        hasher.update(part.as_deref().unwrap_or_default());
    }
    hasher.digest()
}

/// Content hash for the digest.
pub fn alert_hash(alert: &Pair) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&(alert.key.len() as u64).to_le_bytes());
    hasher.update(&alert.key);
    hasher.update(&alert.value);
    hasher.digest()
}

/// Unix milliseconds as RFC 3339 with milliseconds, UTC; the bare number where no calendar reaches. Every alert has one: the digits are
/// written without a format that would be read each time.
pub fn rfc3339(unix_ms: i64) -> String {
    let Ok(time) = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000) else {
        return unix_ms.to_string();
    };
    let (year, month, day) = time.to_calendar_date();
    let (hour, minute, second, milli) = time.to_hms_milli();
    let Ok(year) = u16::try_from(year) else {
        // Before the year 0.
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        return time.format(&format).unwrap_or_else(|_| unix_ms.to_string());
    };
    let mut text = String::with_capacity(24);
    let parts = [
        (year, 4, '-'),
        (u8::from(month).into(), 2, '-'),
        (day.into(), 2, 'T'),
        (hour.into(), 2, ':'),
        (minute.into(), 2, ':'),
        (second.into(), 2, '.'),
        (milli, 3, 'Z'),
    ];
    for (number, digits, end) in parts {
        for place in (0..digits).rev() {
            let digit = number / 10_u16.pow(place) % 10;
            text.push(char::from(b'0' + digit as u8));
        }
        text.push(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use exactly_once_protocol::Partition;

    use super::*;
    use crate::collect::{Raw, Refusal, Stage};

    #[test]
    fn a_time_is_written_as_the_library_writes_it() {
        let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        // From before the year 0 to the end of the year 9999, at odd steps.
        for unix_ms in (-62_300_000_000_000_i64..253_402_300_800_000).step_by(86_399_123_457) {
            let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(unix_ms) * 1_000_000).unwrap();
            assert_eq!(rfc3339(unix_ms), time.format(&format).unwrap());
        }
        assert_eq!(rfc3339(1_795_228_766_362), "2026-11-21T02:39:26.362Z");
        assert_eq!(rfc3339(253_402_300_800_000), "253402300800000");
    }

    #[test]
    fn dead_letters_have_room_for_their_headers_and_for_another_codec() {
        for event_bytes_max in ["64KiB", "1MiB", "8MiB"] {
            let text = format!(
                "\
pipeline: shop
start: latest
event: {{id: event_id, tenant: tenant_id, time: occurred_at}}
sources:
  - {{topic: {}, table: orders}}
limits: {{event_bytes_max: {event_bytes_max}}}
",
                "t".repeat(240)
            );
            let pipeline = pipeline::check("p.yaml", &text, std::path::Path::new(".")).unwrap();
            let limits = &pipeline.limits;
            // What no codec makes smaller, in a batch of its own.
            let record = Raw {
                key: None,
                value: Some(vec![0; batch_bytes_max(limits) - 1000]),
                headers: vec![("h".to_owned(), Some(vec![0; 800]))],
            };
            let letter = Dead {
                partition: Partition { topic: 0, partition: 7 },
                offset: i64::MAX,
                timestamp_ms: i64::MAX,
                raw: record,
                refusal: Refusal {
                    stage: Stage::Rules,
                    code: "evaluation".to_owned(),
                    reason: "r".repeat(8 << 10),
                    field: "f".repeat(8 << 10),
                    attempts: u32::MAX,
                    schema_id: Some(u32::MAX),
                    tenant: "t".repeat(limits.event_bytes_max),
                },
            };
            let message = dead_letter(&pipeline.sources[0], &letter, u64::MAX);
            let headers = message.headers.iter();
            // Lengths are written in up to five bytes each.
            let headers: usize = headers
                .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len) + 10)
                .sum();
            let bytes = message.value.unwrap().len() + headers;
            assert!(bytes > batch_bytes_max(limits), "{event_bytes_max}: {bytes}");
            // Twice over what has no headers: another codec had made it smaller.
            let recompressed = bytes + batch_bytes_max(limits);
            assert!(
                recompressed <= dead_letter_bytes_max(limits),
                "{event_bytes_max}: {recompressed}"
            );
        }
    }
}
