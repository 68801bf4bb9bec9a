//! Where events go besides the tables.

use document::{Item, Reader, nearest};

use super::connections::{tls, url};
use super::setting::{Size, setting, size};
use super::sources::Draft;
use super::{Place, names};
use crate::{AlertSink, GrpcSink, Guarantee, Sinks, defaults};

const NEVER_TWICE: &str = "a charge is never applied twice: gRPC sinks need `guarantee: exactly_once`";

pub(super) fn sinks(top: &Reader<'_>, drafts: &[Draft<'_>], place: Place<'_>, guarantee: Guarantee) -> Sinks {
    let none = Sinks {
        alerts: None,
        grpc: Vec::new(),
    };
    let Some(mut reader) = top.optional("sinks").and_then(|item| item.map()) else {
        return none;
    };
    let alerts = reader.optional("alerts").map(|item| alerts(&item, drafts));
    let grpc = reader
        .rest()
        .into_iter()
        .filter_map(|(name, item)| {
            if guarantee == Guarantee::AtLeastOnce {
                item.fault_at_key(NEVER_TWICE);
            }
            grpc(name, &item, place)
        })
        .collect();
    reader.finish();
    Sinks { alerts, grpc }
}

fn alerts(item: &Item<'_>, drafts: &[Draft<'_>]) -> AlertSink {
    let read = item.map().map(|reader| {
        let topic = reader.required("topic").and_then(|item| {
            let text = item.text()?;
            item.checked(names::topic(text))?;
            // Alerts would come back as events, and raise alerts.
            if drafts.iter().any(|draft| draft.source.topic == text) {
                item.fault(format!(
                    "`{text}` is a source of this pipeline; alerts need a topic of their own"
                ));
            }
            if let Some(draft) = drafts.iter().find(|draft| draft.source.dead_letter_topic == text) {
                item.fault(format!(
                    "`{text}` is where the dead letters of `{}` go",
                    draft.source.topic
                ));
            }
            Some(text.to_owned())
        });
        let partitions = reader.optional("partitions").and_then(|item| item.integer(1..=10_000));
        reader.finish();
        (topic, partitions)
    });
    let (topic, partitions) = read.unwrap_or_default();
    AlertSink {
        topic: topic.unwrap_or_default(),
        partitions: partitions.unwrap_or(defaults::ALERT_PARTITIONS),
    }
}

fn grpc(name: &str, item: &Item<'_>, place: Place<'_>) -> Option<GrpcSink> {
    if let Err(reason) = names::identifier(name) {
        item.fault_at_key(reason);
    }
    let reader = item.map()?;
    if !reader.has("grpc")
        && let Some(meant) = nearest(name, ["alerts"])
    {
        item.fault_at_key(format!(
            "the sink `{name}` has no `grpc` address; did you mean `{meant}`?"
        ));
        return None;
    }
    let address = reader.required("grpc").and_then(|item| url(&item));
    let largest = setting(
        Some(&reader),
        "message_bytes_max",
        Size(defaults::MESSAGE_BYTES_MAX),
        // Room for the parts of a range besides its charges.
        |item| size(item, Size(64 << 10)),
    );
    let tls = tls(&reader, address.as_deref(), place);
    reader.finish();
    Some(GrpcSink {
        name: name.to_owned(),
        url: address.unwrap_or_default(),
        message_bytes_max: largest.value.0,
        tls,
    })
}
