//! The alert topic.

use serde_json::Value as Json;

use crate::cell::hash_of;
use crate::kafka::Record;
use crate::ledger::{Content, Ledger, Place};

/// What is kept of an alert: a hash of its key and of its JSON with sorted members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alert {
    hash: u128,
}

impl Alert {
    pub fn new(key: &[u8], value: &Json) -> Alert {
        Alert {
            hash: hash_of(&[key, sorted(value).to_string().as_bytes()]),
        }
    }
}

/// An alert in the topic, with its text for the report.
pub struct FoundAlert {
    alert: Alert,
    text: String,
}

impl Content for Alert {
    type Found = FoundAlert;

    fn difference(&self, found: &FoundAlert) -> Option<String> {
        (*self != found.alert).then(|| format!("found {}", found.text))
    }
}

/// Enters one record of the alert topic. `place` knows the topics: `None` = of no source, `Some(None)` = outside of what
/// is verified.
pub fn found(record: &Record, ledger: &mut Ledger<Alert>, place: impl Fn(&str) -> Option<Option<Place>>) {
    let bytes = record.value.as_deref().unwrap_or_default();
    let text = || String::from_utf8_lossy(bytes).chars().take(400).collect::<String>();
    let parsed = serde_json::from_slice::<Json>(bytes).ok();
    let id = parsed
        .as_ref()
        .and_then(|value| Some(value.get("id")?.as_str()?.to_owned()));
    match (parsed, id.and_then(|id| place(&id))) {
        (Some(value), Some(Some(place))) => {
            let alert = Alert::new(record.key.as_deref().unwrap_or_default(), &value);
            ledger.found(place, &FoundAlert { alert, text: text() });
        }
        (Some(_), Some(None)) => {}
        _ => ledger.stray(format!("at {}/{}: {}", record.partition, record.offset, text())),
    }
}

fn sorted(value: &Json) -> Json {
    match value {
        Json::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_by(|one, other| one.0.cmp(other.0));
            Json::Object(
                members
                    .into_iter()
                    .map(|(name, value)| (name.clone(), sorted(value)))
                    .collect(),
            )
        }
        Json::Array(items) => items.iter().map(sorted).collect(),
        other => other.clone(),
    }
}

/// Unix milliseconds as RFC 3339 with milliseconds, UTC; the bare number outside of the years 0 to 9999 or so.
pub fn rfc3339(unix_ms: i64) -> String {
    let (days, millis) = (unix_ms.div_euclid(86_400_000), unix_ms.rem_euclid(86_400_000));
    // Days to a civil date, by Howard Hinnant's algorithm (howardhinnant.github.io/date_algorithms.html).
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if !(0..=9999).contains(&year) {
        return unix_ms.to_string();
    }
    let (hour, minute, second) = (millis / 3_600_000, millis / 60_000 % 60, millis / 1000 % 60);
    format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z",
        millis % 1000
    )
}
