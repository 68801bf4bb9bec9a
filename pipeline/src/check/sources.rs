//! The topics.

use document::{Item, Reader};

use super::event::{EventPart, event_part};
use super::names;
use crate::{DeadLetters, SchemaIdFrom, Source, defaults};

/// A source whose table is known by name only.
pub(super) struct Draft<'a> {
    pub source: Source,
    /// The table's name and where it stands; `None` when it could not be read.
    pub table: Option<(&'a str, Item<'a>)>,
    /// Where the topic stands; `None` when it could not be read.
    topic: Option<Item<'a>>,
    /// Where the name stands, or the topic that takes its place.
    name: Option<Item<'a>>,
}

pub(super) fn drafts<'a>(top: &Reader<'a>, event: &EventPart, dead_letters: &DeadLetters) -> Vec<Draft<'a>> {
    let Some(item) = top.required("sources") else {
        return Vec::new();
    };
    let Some(items) = item.list() else {
        return Vec::new();
    };
    if items.is_empty() {
        item.fault("a pipeline needs at least one source");
    }
    let drafts: Vec<_> = items
        .iter()
        .filter_map(|item| draft(item, event, dead_letters))
        .collect();
    refuse_doubles(&drafts);
    drafts
}

fn draft<'a>(item: &Item<'a>, event: &EventPart, dead_letters: &DeadLetters) -> Option<Draft<'a>> {
    let reader = item.map()?;
    let named = |key, check: fn(&str) -> Result<(), String>| {
        let item = reader.optional(key)?;
        let text = item.text()?;
        item.checked(check(text)).map(|()| (text, item))
    };
    reader.required("topic");
    let topic = named("topic", names::topic);
    reader.required("table");
    let table = named("table", names::identifier);
    let name = named("name", names::topic);
    let header = named("schema_id_header", header_name);
    let subject = named("subject", subject);

    let topic_text = topic.as_ref().map(|(text, _)| *text).unwrap_or_default();
    let dead_letter_topic = dead_letters.topic_pattern.replace("{topic}", topic_text);
    if let Some((_, item)) = &topic
        && let Err(reason) = names::topic(&dead_letter_topic)
    {
        item.fault(format!(
            "its dead letters would go to `{dead_letter_topic}`, which {reason}"
        ));
    }
    let words = [
        ("auto", SchemaIdFrom::Auto),
        ("prefix", SchemaIdFrom::Prefix),
        ("header", SchemaIdFrom::Header),
    ];
    let schema_id = reader.optional("schema_id").and_then(|item| item.choice(&words));
    let partitions = reader.optional("partitions").and_then(|item| item.integer(1..=10_000));
    let own_event = event_part(reader.optional("event").as_ref());
    let source = Source {
        topic: topic_text.to_owned(),
        name: name.as_ref().map_or(topic_text, |(text, _)| text).to_owned(),
        table: 0,
        schema_id: schema_id.unwrap_or(SchemaIdFrom::Auto),
        schema_id_header: header.map_or(defaults::SCHEMA_ID_HEADER, |(text, _)| text).to_owned(),
        event: own_event.merged(event, item),
        subject: subject.map_or(format!("{topic_text}-value"), |(text, _)| text.to_owned()),
        partitions: partitions.unwrap_or(defaults::PARTITIONS),
        dead_letter_topic,
    };
    reader.finish();
    let topic = topic.map(|(_, item)| item);
    Some(Draft {
        source,
        table,
        name: name.map(|(_, item)| item).or(topic.clone()),
        topic,
    })
}

fn header_name(text: &str) -> Result<(), String> {
    if (1..=100).contains(&text.len()) && text.chars().all(|letter| letter.is_ascii_graphic()) {
        Ok(())
    } else {
        Err("should be the name of a header, such as schema-id".to_owned())
    }
}

fn subject(text: &str) -> Result<(), String> {
    if (1..=500).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err("should be the name of a subject in the registry, such as order.created-value".to_owned())
    }
}

fn refuse_doubles(drafts: &[Draft<'_>]) {
    for (index, draft) in drafts.iter().enumerate() {
        let others = || drafts.iter().take(index);
        let Source { topic, name, .. } = &draft.source;
        if let Some(item) = &draft.topic {
            if others().any(|other| other.source.topic == *topic) {
                item.fault(format!("the topic `{topic}` has a source already"));
            } else if let Some(item) = &draft.name
                && others().any(|other| other.source.name == *name)
            {
                item.fault(format!(
                    "another source is called `{name}` already; rules could not tell them apart"
                ));
            }
            if let Some(other) = drafts.iter().find(|other| other.source.dead_letter_topic == *topic) {
                item.fault(format!(
                    "`{topic}` is where the dead letters of `{}` go",
                    other.source.topic
                ));
            }
        }
        if let Some((table, item)) = &draft.table
            && let Some(other) = others().find(|other| other.table.as_ref().is_some_and(|(name, _)| name == table))
        {
            item.fault(format!(
                "the table `{table}` is filled from `{}` already; a table has the columns of one source",
                other.source.topic
            ));
        }
    }
}
