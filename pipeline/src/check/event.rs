//! Which fields of an event mean what: the pipeline's own, and a source's on top.

use std::time::Duration;

use document::Item;

use super::names;
use crate::{EventFields, defaults};

/// What one `event` section says.
#[derive(Debug, Clone, Default)]
pub(super) struct EventPart {
    id: Option<String>,
    tenant: Option<String>,
    event_type: Option<String>,
    time: Option<String>,
    past: Option<Duration>,
    future: Option<Duration>,
    /// Which of the required fields are there but could not be read: their fault is known.
    faulty: Vec<&'static str>,
}

pub(super) fn event_part(item: Option<&Item<'_>>) -> EventPart {
    let mut part = EventPart::default();
    let Some(reader) = item.and_then(Item::map) else {
        if item.is_some() {
            part.faulty = vec!["id", "tenant", "time"];
        }
        return part;
    };
    let mut faulty = Vec::new();
    let mut field = |key| {
        let item = reader.optional(key)?;
        let text = item
            .text()
            .filter(|text| item.checked(names::field_path(text)).is_some());
        if text.is_none() {
            faulty.push(key);
        }
        text.map(str::to_owned)
    };
    part.id = field("id");
    part.tenant = field("tenant");
    part.event_type = field("type");
    part.time = field("time");
    part.faulty = faulty;
    if let Some(accept) = reader.optional("accept").and_then(|item| item.map()) {
        part.past = accept.optional("past").and_then(|item| item.duration());
        part.future = accept.optional("future").and_then(|item| item.duration());
        accept.finish();
    }
    reader.finish();
    part
}

impl EventPart {
    /// A source's fields on top of the pipeline's. What neither names is a fault of the source.
    pub fn merged(self, pipeline: &EventPart, source: &Item<'_>) -> EventFields {
        let required = |own: Option<String>, general: &Option<String>, key: &'static str| {
            let known = self.faulty.contains(&key) || pipeline.faulty.contains(&key);
            own.or_else(|| general.clone()).unwrap_or_else(|| {
                if !known {
                    source.fault(format!(
                        "which field is the event's {key}? name it as `event: {{{key}: ...}}`, here or for the whole pipeline"
                    ));
                }
                String::new()
            })
        };
        EventFields {
            id: required(self.id.clone(), &pipeline.id, "id"),
            tenant: required(self.tenant.clone(), &pipeline.tenant, "tenant"),
            time: required(self.time.clone(), &pipeline.time, "time"),
            event_type: self.event_type.clone().or_else(|| pipeline.event_type.clone()),
            accept_past: self.past.or(pipeline.past).unwrap_or(defaults::ACCEPT_PAST),
            accept_future: self.future.or(pipeline.future).unwrap_or(defaults::ACCEPT_FUTURE),
        }
    }
}
