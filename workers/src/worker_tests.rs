use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use exactly_once_kafka::settings;

use super::*;

fn checked(connections: &str) -> Result<Pipeline, Vec<document::Fault>> {
    let text = format!(
        "\
pipeline: shop
start: latest
event: {{id: event_id, tenant: tenant_id, time: occurred_at}}
sources:
  - {{topic: order.created, table: orders}}
connections: {connections}
"
    );
    pipeline::check("p.yaml", &text, Path::new("/nowhere"))
}

fn with_property(key: &str, value: &str) -> Result<Pipeline, Vec<document::Fault>> {
    checked(&format!(
        "{{kafka: {{brokers: ['a:1'], properties: {{{key}: '{value}'}}}}}}"
    ))
}

/// What a consumer and a producer of this pipeline are set to.
fn set(pipeline: &Pipeline) -> [BTreeMap<String, String>; 2] {
    let connection = connection(pipeline, "worker-0").unwrap();
    [
        settings::consumer(&connection),
        settings::producer(&connection, "shop-worker-0"),
    ]
    .map(|config| {
        let all = config.config_map().into_iter();
        all.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    })
}

#[test]
fn a_property_that_sluice_sets_is_refused_in_the_file_or_taken_from_it() {
    let plain = set(&checked("{kafka: {brokers: ['a:1']}}").unwrap());
    let keys: BTreeSet<&String> = plain.iter().flat_map(BTreeMap::keys).collect();
    assert!(keys.len() > 30, "{keys:?}");
    let mut taken = Vec::new();
    for key in keys {
        match with_property(key, "7") {
            Err(faults) => assert!(
                faults.len() == 1 && faults[0].message.starts_with(&format!("`{key}` is set by Sluice: ")),
                "{faults:?}"
            ),
            Ok(pipeline) => {
                for config in set(&pipeline) {
                    // Of `debug` Sluice needs one more than the user.
                    assert!(
                        ["7", "broker,7"].contains(&config[key].as_str()),
                        "{key}: {}",
                        config[key]
                    );
                }
                taken.push(key.as_str());
            }
        }
    }
    let matters_of_speed = [
        "debug",
        "fetch.message.max.bytes",
        "fetch.min.bytes",
        "queued.max.messages.kbytes",
        "queued.min.messages",
    ];
    assert_eq!(taken, matters_of_speed);
}

#[test]
fn what_the_file_says_of_security_is_no_property() {
    let secured = "{kafka: {brokers: ['a:1'], tls: {ca_file: ca.pem, cert_file: c.pem, key_file: k.pem}}}";
    let pipeline = checked(secured).unwrap();
    let kafka = pipeline.connections.kafka.unwrap();
    for key in kafka_properties(&kafka).unwrap().keys() {
        assert!(with_property(key, "7").is_err(), "{key}");
    }
}

#[tokio::test]
async fn a_command_gives_a_registry_that_is_away_up_and_names_it() {
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let pipeline = checked(&format!("{{registry: {{url: 'http://{free}'}}}}")).unwrap();
    let settings = registry_cache::Settings::new(format!("http://{free}"));
    let registry = Registry::open(settings).unwrap();
    let said = shapes_within(&registry, &pipeline, Duration::ZERO).await;
    let said = said.unwrap_err().to_string();
    let asked = format!("schema registry at http://{free}/subjects/order.created-value/versions: unreachable: ");
    assert!(said.starts_with(&asked), "{said}");
    assert!(
        said.ends_with("; it was tried for 0 s: start the registry, or mend `connections.registry`"),
        "{said}"
    );
}
