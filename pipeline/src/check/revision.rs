//! One number that changes exactly when outputs may.

use std::fmt::Write;

use xxhash_rust::xxh3::xxh3_64;

use crate::{PartitionBy, Pipeline, SchemaIdFrom};

/// Hash of the canonical text below. Not in it: addresses, secrets, batch sizes, timeouts, retention and whatever
/// else changes when or where something is done, but not which rows, alerts, charges and dead letters come out.
pub(super) fn revision(pipeline: &Pipeline) -> u64 {
    xxh3_64(canonical(pipeline).as_bytes())
}

/// One fact a line, texts in quotes, in a fixed order. Its form never changes: a running pipeline's promises
/// carry the hash.
fn canonical(pipeline: &Pipeline) -> String {
    let mut text = format!("sluice pipeline 1\nname {:?}\n", pipeline.name);
    let mut line = |fact: String| {
        // Writing to a String can't fail.
        text.write_str(&fact)
            .and_then(|()| text.write_char('\n'))
            .unwrap_or_default();
    };
    for source in &pipeline.sources {
        let table = pipeline
            .tables
            .get(source.table)
            .map(|table| table.name.as_str())
            .unwrap_or_default();
        let schema_id = match source.schema_id {
            SchemaIdFrom::Auto => "auto",
            SchemaIdFrom::Prefix => "prefix",
            SchemaIdFrom::Header => "header",
        };
        line(format!(
            "source {:?} {:?} table {table:?} schema_id {schema_id} {:?} subject {:?} dead_letters {:?}",
            source.topic, source.name, source.schema_id_header, source.subject, source.dead_letter_topic
        ));
        let event = &source.event;
        line(format!(
            "event {:?} {:?} {:?} {:?} past {} future {}",
            event.id,
            event.tenant,
            event.event_type,
            event.time,
            event.accept_past.as_millis(),
            event.accept_future.as_millis()
        ));
    }
    for table in &pipeline.tables {
        let partition_by = match table.partition_by {
            PartitionBy::Day => "day",
            PartitionBy::Month => "month",
            PartitionBy::None => "none",
        };
        line(format!(
            "table {:?} like {:?} partition_by {partition_by} order_by {:?}",
            table.name, table.like, table.order_by
        ));
    }
    line(format!(
        "alerts {:?}",
        pipeline.sinks.alerts.as_ref().map(|alerts| &alerts.topic)
    ));
    for sink in &pipeline.sinks.grpc {
        line(format!("grpc {:?}", sink.name));
    }
    line(format!("event_bytes_max {}", pipeline.limits.event_bytes_max));
    text
}
