//! The generator is reproducible and its bytes are what the schemas say: decoded by `apache_avro`, which shares nothing with
//! the encoder.

use std::collections::BTreeSet;

use apache_avro::types::Value;
use serde_json::json;

use crate::encode::encode;
use crate::event::{Event, EventType, Own};
use crate::frame::Framing;
use crate::generate::Generator;
use crate::poison::{Poison, Recipe, UNKNOWN_SCHEMA_ID, poisoned};

const NOW_MS: i64 = 1_795_240_000_123;

fn schema(event: EventType, version: u32) -> apache_avro::Schema {
    apache_avro::Schema::parse_str(event.schema(version).unwrap()).unwrap()
}

fn decode(schema: &apache_avro::Schema, mut bytes: &[u8]) -> Result<Value, String> {
    let value = apache_avro::reader::datum::GenericDatumReader::builder(schema)
        .build()
        .unwrap()
        .read_value(&mut bytes)
        .map_err(|error| error.to_string())?;
    assert!(bytes.is_empty(), "{} bytes left", bytes.len());
    Ok(value)
}

/// What the decoded event must be: written down field by field, independently of the encoder.
fn expected(event: &Event, version: u32) -> serde_json::Value {
    let v = &*event.visitor;
    let m = &v.machine;
    let mut fields = json!({
        "event_id": event.id.to_string(), "tenant_id": v.tenant, "type": event.event_type().name(),
        "schema_version": version, "source": v.source, "user_id": v.user_id, "anonymous_id": v.anonymous_id,
        "session_id": event.session.to_string(), "occurred_at": event.occurred_at_ms,
        "sent_at": event.sent_at_ms, "received_at": event.received_at_ms,
        "context": {
            "app": {"name": m.app[0], "version": m.app[1], "build": m.app[2]},
            "browser": {"name": m.browser[0], "version": m.browser[1]},
            "device": {"type": (["mobile", "tablet", "desktop"][usize::from(m.device_type)]),
                       "model": m.device[0], "manufacturer": m.device[1]},
            "os": {"name": m.os[0], "version": m.os[1]},
            "locale": v.locale, "timezone": v.timezone,
            "screen": {"width": m.screen[0], "height": m.screen[1], "density": m.density},
            "page": {"url": event.page.url, "path": event.page.path, "title": event.page.title,
                     "referrer": event.page.referrer, "search": event.page.search},
            "campaign": event.campaign.map(|c| json!({
                "source": c.source, "medium": c.medium, "name": c.name, "term": c.term, "content": c.content})),
            "ip": v.ip, "user_agent": m.user_agent,
        },
        "properties": event.properties.iter().map(|(k, v)| ((*k).to_owned(), json!(v))).collect::<serde_json::Map<_, _>>(),
    });
    let own = match &event.own {
        Own::PageView {
            load_time_ms,
            scroll_percent,
            prerendered,
            ..
        } if version == 1 => {
            json!({"load_time_ms": load_time_ms, "scroll_percent": scroll_percent, "prerendered": prerendered})
        }
        Own::PageView {
            load_time_ms,
            scroll_percent,
            interactive_after_ms,
            navigation,
            ..
        } => {
            json!({"load_time_ms": load_time_ms, "scroll_percent": scroll_percent,
                   "interactive_after_ms": interactive_after_ms, "navigation": navigation})
        }
        Own::Order {
            order_id,
            amount_minor,
            currency,
            skus,
            coupon,
            gift,
            shipping_minor,
            channel,
        } => {
            let mut own = json!({"order_id": order_id, "amount_minor": amount_minor, "currency": currency,
                "item_count": skus.len(), "skus": skus, "coupon": coupon});
            if version == 1 {
                own["gift"] = json!(gift);
            } else {
                own["shipping_minor"] = json!(shipping_minor);
                own["channel"] = json!(channel);
            }
            own
        }
        Own::Payment {
            payment_id,
            order_id,
            amount_minor,
            currency,
            status,
            method,
        } => {
            json!({"payment_id": payment_id, "order_id": order_id, "amount_minor": amount_minor,
                   "currency": currency, "status": status, "method": method})
        }
        Own::SessionEnd {
            duration_ms,
            pageviews,
            bounced,
        } => {
            json!({"duration_ms": duration_ms, "pageviews": pageviews, "bounced": bounced})
        }
        Own::Error {
            severity,
            message,
            stack,
            handled,
        } => {
            json!({"severity": (["debug", "info", "warning", "error", "fatal"][usize::from(*severity)]),
                   "message": message, "stack": stack, "handled": handled})
        }
    };
    fields.as_object_mut().unwrap().extend(own.as_object().unwrap().clone());
    fields
}

/// Avro's value as JSON, without the marks of unions.
fn plain(value: Value) -> serde_json::Value {
    match value {
        Value::Union(_, inner) => plain(*inner),
        Value::Record(fields) => fields.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        Value::Map(entries) => entries.into_iter().map(|(name, value)| (name, plain(value))).collect(),
        Value::Array(items) => items.into_iter().map(plain).collect(),
        Value::Enum(_, symbol) | Value::String(symbol) => json!(symbol),
        Value::TimestampMillis(ms) => json!(ms),
        Value::Long(number) => json!(number),
        Value::Int(number) => json!(number),
        Value::Double(number) => json!(number),
        Value::Boolean(flag) => json!(flag),
        Value::Null => serde_json::Value::Null,
        other => panic!("no field is of this kind: {other:?}"),
    }
}

#[test]
fn every_type_and_version_decodes_to_the_event_field_by_field() {
    let mut generator = Generator::new(7, 50);
    let mut avro = Vec::new();
    for event_type in EventType::ALL {
        for version in 1..=event_type.versions() {
            let schema = schema(event_type, version);
            for _ in 0..300 {
                let event = generator.next_of(event_type, NOW_MS);
                avro.clear();
                encode(&event, version, &mut avro);
                assert_eq!(plain(decode(&schema, &avro).unwrap()), expected(&event, version));
            }
        }
    }
}

#[test]
fn numbers_at_the_ends_of_their_ranges_survive_encoding() {
    let mut event = Generator::new(1, 1).next_of(EventType::SessionEnd, NOW_MS);
    let schema = schema(EventType::SessionEnd, 1);
    for number in [0, -1, 1, 63, 64, -64, -65, 8_191, 8_192, i64::MAX, i64::MIN] {
        event.own = Own::SessionEnd {
            duration_ms: number,
            pageviews: i32::MIN,
            bounced: false,
        };
        let mut avro = Vec::new();
        encode(&event, 1, &mut avro);
        assert_eq!(plain(decode(&schema, &avro).unwrap()), expected(&event, 1));
    }
}

#[test]
fn each_later_schema_version_reads_the_one_before() {
    use apache_avro::schema_compatibility::SchemaCompatibility;
    for event_type in EventType::ALL {
        for version in 2..=event_type.versions() {
            let (writer, reader) = (schema(event_type, version - 1), schema(event_type, version));
            SchemaCompatibility::can_read(&writer, &reader).unwrap();
        }
    }
}

#[test]
fn the_enum_of_types_knows_every_schema_of_the_proto_crate() {
    let known: Vec<_> = EventType::ALL
        .into_iter()
        .flat_map(|event| (1..=event.versions()).map(move |version| (event.name(), version)))
        .collect();
    let schemas: Vec<_> = proto::events::schemas()
        .iter()
        .map(|schema| (schema.topic, schema.version))
        .collect();
    assert_eq!(known, schemas);
}

#[test]
fn the_same_seed_gives_the_same_events_and_another_seed_other_ids() {
    let events = |seed| {
        let mut generator = Generator::new(seed, 50);
        (0..1_000).map(|n| generator.next(NOW_MS + n)).collect::<Vec<_>>()
    };
    assert_eq!(events(7), events(7));
    let ids = |seed| events(seed).iter().map(|event| event.id).collect::<BTreeSet<_>>();
    assert_eq!(ids(7).len(), 1_000, "no id twice");
    assert!(ids(7).is_disjoint(&ids(8)));
}

#[test]
fn every_tenant_and_everything_that_rules_look_for_occurs() {
    let mut generator = Generator::new(7, 50);
    let events: Vec<_> = (0..50_000).map(|_| generator.next(NOW_MS)).collect();
    let tenants: BTreeSet<_> = events.iter().map(|event| event.visitor.tenant.clone()).collect();
    assert_eq!(
        tenants.into_iter().collect::<Vec<_>>(),
        (0..50).map(|n| format!("tenant-{n:02}")).collect::<Vec<_>>()
    );
    let share = |wanted: &dyn Fn(&Event) -> bool| events.iter().filter(|event| wanted(event)).count();
    let occurring: [(&str, usize); 8] = [
        ("bots", share(&|event| event.visitor.bot)),
        (
            "mail",
            share(&|event| event.properties.iter().any(|(key, _)| *key == "email")),
        ),
        (
            "references",
            share(&|event| event.properties.iter().any(|(key, _)| *key == "ref")),
        ),
        (
            "small letters",
            share(&|event| matches!(event.own, Own::Order { currency: "eur", .. })),
        ),
        (
            "big orders",
            share(&|event| {
                matches!(
                    event.own,
                    Own::Order {
                        amount_minor: 100_001..,
                        ..
                    }
                )
            }),
        ),
        (
            "big refunds",
            share(&|event| {
                matches!(
                    event.own,
                    Own::Payment {
                        amount_minor: ..-50_000,
                        ..
                    }
                )
            }),
        ),
        (
            "captured",
            share(&|event| matches!(event.own, Own::Payment { status: "captured", .. })),
        ),
        (
            "fatal",
            share(&|event| matches!(event.own, Own::Error { severity: 4, .. })),
        ),
    ];
    for (what, count) in occurring {
        assert!(count >= 20, "{what}: {count}");
    }
    assert_eq!(
        share(&|event| matches!(&event.own, Own::Order { skus, .. } if skus.is_empty())),
        0,
        "only poison"
    );
}

fn poison(kind: Poison, event_type: EventType, framing: &Framing) -> (Event, Vec<u8>, Option<Vec<u8>>) {
    let recipe = Recipe {
        event_type,
        version: 1,
        schema_id: 258,
        framing,
        now_ms: NOW_MS,
        oversize_bytes: 1 << 20,
    };
    let (event, frame) = poisoned(kind, &recipe, &mut Generator::new(7, 50));
    (event, frame.value, frame.header.map(|(_, value)| value))
}

#[test]
fn poison_is_broken_in_exactly_its_own_way() {
    for event_type in EventType::ALL {
        let schema = schema(event_type, 1);
        let made = |kind| poison(kind, event_type, &Framing::Prefix);
        for kind in [Poison::Truncated, Poison::Broken] {
            let (_, value, _) = made(kind);
            assert_eq!(value[..5], [0, 0, 0, 1, 2]);
            decode(&schema, &value[5..]).unwrap_err();
        }
        let (event, value, _) = made(Poison::InvalidUtf8);
        assert_eq!(decode(&schema, &value[5..]).unwrap_err(), "Invalid utf-8 string");
        let at = value.iter().position(|byte| *byte == 0xff).unwrap();
        let mut healed = value[5..].to_vec();
        healed[at - 5] = event.visitor.source.as_bytes()[0];
        assert_eq!(
            plain(decode(&schema, &healed).unwrap()),
            expected(&event, 1),
            "nothing else is broken"
        );

        let (event, value, _) = made(Poison::UnknownSchema);
        assert_eq!(value[1..5], UNKNOWN_SCHEMA_ID.to_be_bytes());
        assert_eq!(plain(decode(&schema, &value[5..]).unwrap()), expected(&event, 1));
        assert_eq!(made(Poison::TruncatedPrefix).1, [0, 0, 0]);

        let (event, value, _) = made(Poison::TimeOutOfRange);
        assert_eq!(event.occurred_at_ms, NOW_MS + 3 * 86_400_000);
        assert_eq!(plain(decode(&schema, &value[5..]).unwrap()), expected(&event, 1));
        let (event, value, _) = made(Poison::TooLarge);
        assert!(value.len() > 1 << 20);
        assert_eq!(plain(decode(&schema, &value[5..]).unwrap()), expected(&event, 1));
    }
    let (_, value, _) = poison(Poison::RuleFailing, EventType::Order, &Framing::Prefix);
    assert_eq!(
        plain(decode(&schema(EventType::Order, 1), &value[5..]).unwrap())["item_count"],
        json!(0)
    );
}

#[test]
fn a_header_carries_the_schema_id_as_decimal_digits() {
    let framing = Framing::Header("schema-id".to_owned());
    let (event, value, header) = poison(Poison::TimeOutOfRange, EventType::Order, &framing);
    assert_eq!(header.as_deref(), Some(b"258".as_slice()));
    assert_eq!(
        plain(decode(&schema(EventType::Order, 1), &value).unwrap()),
        expected(&event, 1)
    );
    assert_eq!(
        poison(Poison::TruncatedPrefix, EventType::Order, &framing).2.as_deref(),
        Some([0, 0, 7].as_slice())
    );
}
