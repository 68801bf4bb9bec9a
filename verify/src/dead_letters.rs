//! Dead-letter topics: the record as it stood in the log, and the right reason.

use crate::cell::hash_of;
use crate::kafka::{Headers, Record};
use crate::ledger::{Content, Ledger, Place};

/// Which step must have refused the event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Frame,
    Schema,
    Decode,
    Event,
    Rules,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Stage::Frame => "frame",
            Stage::Schema => "schema",
            Stage::Decode => "decode",
            Stage::Event => "event",
            Stage::Rules => "rules",
        }
    }
}

/// What is kept of a record that must be a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpectedLetter {
    content: u128,
    headers: usize,
    timestamp_ms: i64,
    /// `None`: either of several will do.
    stage: Option<Stage>,
    /// `None`: this crate cannot tell.
    code: Option<&'static str>,
}

impl ExpectedLetter {
    pub fn new(record: &Record, stage: Option<Stage>, code: Option<&'static str>) -> ExpectedLetter {
        ExpectedLetter {
            content: content(record, record.headers.len()),
            headers: record.headers.len(),
            timestamp_ms: record.timestamp_ms,
            stage,
            code,
        }
    }
}

/// Key, value and the first `headers` headers.
fn content(record: &Record, headers: usize) -> u128 {
    let missing: &[u8] = &[0];
    let tagged = |part: &Option<Vec<u8>>| match part {
        Some(bytes) => [&[1], bytes.as_slice()].concat(),
        None => missing.to_vec(),
    };
    let mut parts = vec![tagged(&record.key), tagged(&record.value)];
    for (name, value) in record.headers.iter().take(headers) {
        parts.push(name.clone().into_bytes());
        parts.push(tagged(value));
    }
    hash_of(&parts.iter().map(Vec::as_slice).collect::<Vec<_>>())
}

impl Content for ExpectedLetter {
    type Found = Record;

    fn difference(&self, found: &Record) -> Option<String> {
        let says = |name: &str| header(&found.headers, name).unwrap_or_default();
        if content(found, self.headers) != self.content {
            return Some("key, value or headers are not those of the record".to_owned());
        }
        if let Some(stage) = self
            .stage
            .map(Stage::name)
            .filter(|stage| *stage != says("sluice-stage"))
        {
            return Some(format!("stage is {:?}, not {stage:?}", says("sluice-stage")));
        }
        if let Some(code) = self.code.filter(|code| *code != says("sluice-code")) {
            return Some(format!("code is {:?}, not {code:?}", says("sluice-code")));
        }
        if says("sluice-timestamp") != self.timestamp_ms.to_string() {
            return Some(format!(
                "timestamp is {:?}, not {}",
                says("sluice-timestamp"),
                self.timestamp_ms
            ));
        }
        let silent = ["sluice-stage", "sluice-code", "sluice-reason", "sluice-attempts"];
        let missing = silent.into_iter().find(|name| says(name).is_empty());
        missing.map(|name| format!("the header {name} is missing or empty"))
    }
}

/// Sluice's own headers stand after the record's, so that the last of a name counts.
fn header(headers: &Headers, name: &str) -> Option<String> {
    let (_, value) = headers.iter().rev().find(|(header, _)| header == name)?;
    Some(String::from_utf8_lossy(value.as_deref().unwrap_or_default()).into_owned())
}

/// Enters one record of a dead-letter topic. `place` takes topic, partition and offset of the source: `None` = of no
/// source, `Some(None)` = outside of what is verified.
pub fn found(
    record: &Record,
    ledger: &mut Ledger<ExpectedLetter>,
    place: impl Fn(&str, i32, i64) -> Option<Option<Place>>,
) {
    let says = |name: &str| header(&record.headers, name);
    let position = || {
        let partition = says("sluice-partition")?.parse().ok()?;
        let offset = says("sluice-offset")?.parse().ok()?;
        place(&says("sluice-topic")?, partition, offset)
    };
    match position() {
        Some(Some(place)) => ledger.found(place, record),
        Some(None) => {}
        None => ledger.stray(format!(
            "at {}/{} of a dead-letter topic",
            record.partition, record.offset
        )),
    }
}
