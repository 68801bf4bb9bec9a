//! Addresses, certificates and secrets.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use document::{Item, Reader};

use super::setting::{at_least, setting};
use super::{Place, names};
use crate::machine::Machine;
use crate::{
    ClickHouse, Compression, Connections, Kafka, Registry, RulesFrom, Sasl, SaslMechanism, Secret, Tls, defaults,
};

/// Settings of librdkafka that are Sluice's: the protocol depends on them, they have a place of their own in the file, or the file's
/// would be overwritten. One that ends in a dot stands for all that begin so; other names of the same setting are here, too. What
/// `exactly-once/kafka/src/settings.rs` sets and is not here, it takes from the file first: `workers/src/worker_tests.rs` compares.
const OWNED: &[(&str, &str)] = &[
    ("bootstrap.servers", "use `brokers`"),
    ("metadata.broker.list", "use `brokers`"),
    ("security.protocol", "it follows from `tls` and `sasl`"),
    ("ssl.", "use `tls`"),
    ("sasl.", "use `sasl`"),
    ("client.id", "it names the pipeline and the worker"),
    ("group.id", "it is the pipeline's name"),
    (
        "group.instance.id",
        "static membership would let two processes be one member",
    ),
    ("group.protocol", "Sluice depends on it"),
    ("partition.assignment.strategy", "it is cooperative-sticky"),
    ("session.timeout.ms", "use `limits.session_timeout`"),
    ("heartbeat.interval.ms", "it follows from `limits.session_timeout`"),
    ("max.poll.interval.ms", "use `limits.poll_interval_max`"),
    ("enable.auto.commit", "offsets are committed in transactions only"),
    ("auto.commit.interval.ms", "offsets are committed in transactions only"),
    ("enable.auto.offset.store", "offsets are committed in transactions only"),
    ("auto.offset.reset", "use `start`; a lost offset is never guessed"),
    ("auto.commit.enable", "offsets are committed in transactions only"),
    ("enable.partition.eof", "nobody looks at the ends of partitions"),
    ("isolation.level", "only committed records are read"),
    ("transactional.id", "it follows from the pipeline's name"),
    ("transaction.timeout.ms", "use `limits.transaction_timeout`"),
    ("enable.idempotence", "the producer is transactional"),
    ("acks", "the producer is transactional"),
    ("request.required.acks", "the producer is transactional"),
    ("max.in.flight", "the producer is transactional"),
    ("max.in.flight.requests.per.connection", "the producer is transactional"),
    (
        "connections.max.idle.ms",
        "a transaction would hang with a coordinator that is gone",
    ),
    (
        "log.connection.close",
        "connections that idle out are closed on purpose",
    ),
    ("reconnect.backoff.ms", "a broker that is back is found within a second"),
    (
        "reconnect.backoff.max.ms",
        "a broker that is back is found within a second",
    ),
    (
        "topic.metadata.refresh.interval.ms",
        "new partitions are found within ten seconds",
    ),
    ("retry.backoff.ms", "it decides how fast transactions follow each other"),
    (
        "retry.backoff.max.ms",
        "it decides how fast transactions follow each other",
    ),
    (
        "fetch.queue.backoff.ms",
        "a partition would stall each time its queue was full",
    ),
    ("fetch.error.backoff.ms", "a partition that has moved is found at once"),
    (
        "fetch.wait.max.ms",
        "a question that waits longer than idle connections live would never be answered; use `fetch.min.bytes`",
    ),
    ("max.partition.fetch.bytes", "use `fetch.message.max.bytes`"),
    ("linger.ms", "a transaction is what travels together; use `batch`"),
    (
        "queue.buffering.max.ms",
        "a transaction is what travels together; use `batch`",
    ),
    (
        "queue.buffering.max.messages",
        "a transaction has to fit; use `batch.rows_max`",
    ),
    (
        "queue.buffering.max.kbytes",
        "a transaction has to fit; use `batch.bytes_max`",
    ),
    (
        "compression.type",
        "records travel as lz4; set `compression.type` of the topic for how it keeps them",
    ),
    (
        "compression.codec",
        "records travel as lz4; set `compression.type` of the topic for how it keeps them",
    ),
    ("message.max.bytes", "use `max.message.bytes` of the topic"),
];

pub(super) fn connections(top: &Reader<'_>, state_dir: &Path, place: Place<'_>) -> Connections {
    let reader = top.optional("connections").and_then(|item| item.map());
    let section = |key| {
        reader
            .as_ref()
            .and_then(|reader| reader.optional(key))
            .and_then(|item| item.map())
    };
    let kafka = section("kafka").map(|reader| kafka(reader, place));
    let registry = registry(section("registry"), state_dir, place);
    let clickhouse = clickhouse(section("clickhouse"), place, top);
    let rules = section("rules").map_or(RulesFrom::None, |reader| rules(reader, place));
    if let Some(reader) = reader {
        reader.finish();
    }
    Connections {
        kafka,
        registry,
        clickhouse,
        rules,
    }
}

fn kafka(reader: Reader<'_>, place: Place<'_>) -> Kafka {
    let mut brokers = Vec::new();
    if let Some(item) = reader.required("brokers") {
        let items = item.list();
        if items.as_ref().is_some_and(Vec::is_empty) {
            item.fault("at least one broker is needed");
        }
        for item in items.unwrap_or_default() {
            let Some(text) = item.text() else { continue };
            if item.checked(names::host_port(text)).is_some() {
                brokers.push(text.to_owned());
            }
        }
    }
    let kafka = Kafka {
        brokers,
        tls: tls(&reader, None, place),
        sasl: reader
            .optional("sasl")
            .and_then(|item| item.map())
            .and_then(|reader| sasl(reader, place)),
        properties: reader
            .optional("properties")
            .map(|item| properties(&item, place.machine))
            .unwrap_or_default(),
    };
    reader.finish();
    kafka
}

fn sasl(reader: Reader<'_>, place: Place<'_>) -> Option<Sasl> {
    let mechanisms = [
        SaslMechanism::ScramSha512,
        SaslMechanism::ScramSha256,
        SaslMechanism::Plain,
    ];
    let words = mechanisms.map(|mechanism| (mechanism.name(), mechanism));
    let mechanism = reader.required("mechanism").and_then(|item| item.choice(&words));
    let user = reader.required("user").and_then(|item| item.text().map(str::to_owned));
    let password = password(&reader, place);
    if password.is_none() && !reader.has("password") {
        reader.required("password_file");
    }
    reader.finish();
    Some(Sasl {
        mechanism: mechanism?,
        user: user?,
        password: password?,
    })
}

fn properties(item: &Item<'_>, machine: &dyn Machine) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    for (key, item) in item.entries().unwrap_or_default() {
        let owned = |name: &str| {
            if name.ends_with('.') {
                key.starts_with(name)
            } else {
                key == name
            }
        };
        if let Some((_, why)) = OWNED.iter().find(|(name, _)| owned(name)) {
            item.fault_at_key(format!("`{key}` is set by Sluice: {why}"));
        } else if let Some(value) = item.scalar() {
            if let Err(reason) = machine.kafka_property(key, value) {
                item.fault_at_key(reason);
            }
            properties.insert(key.to_owned(), value.to_owned());
        }
    }
    properties
}

fn registry(reader: Option<Reader<'_>>, state_dir: &Path, place: Place<'_>) -> Registry {
    let address = reader
        .as_ref()
        .and_then(|reader| reader.optional("url"))
        .and_then(|item| url(&item));
    let user = reader.as_ref().and_then(|reader| reader.optional("user"));
    let password = reader.as_ref().and_then(|reader| password(reader, place));
    match (&user, &password, &reader) {
        (Some(user), None, Some(reader)) if !reader.has("password_file") => {
            user.fault("a user needs a `password_file` beside it");
        }
        (None, Some(_), Some(reader)) => reader.item().fault("a `password_file` needs a `user` beside it"),
        _ => {}
    }
    let cache = reader
        .as_ref()
        .and_then(|reader| reader.optional("cache"))
        .and_then(|item| item.map());
    let c = cache.as_ref();
    let entries_max = setting(c, "entries_max", defaults::REGISTRY_ENTRIES_MAX, |item| {
        item.integer(1..=1_000_000)
    });
    let ttl = setting(c, "ttl", defaults::REGISTRY_TTL, |item| {
        at_least(item, std::time::Duration::from_secs(1))
    });
    let snapshot_dir = setting(c, "snapshot_dir", state_dir.join("schemas"), |item| {
        path(item, place.base_dir)
    });
    let registry = Registry {
        tls: reader
            .as_ref()
            .and_then(|reader| tls(reader, address.as_deref(), place)),
        url: address,
        user: user.and_then(|item| item.text().map(str::to_owned)),
        password,
        entries_max: entries_max.value,
        ttl: ttl.value,
        snapshot_dir: snapshot_dir.value,
    };
    for reader in [cache, reader].into_iter().flatten() {
        reader.finish();
    }
    registry
}

fn clickhouse(reader: Option<Reader<'_>>, place: Place<'_>, top: &Reader<'_>) -> ClickHouse {
    let r = reader.as_ref();
    let address = r.and_then(|reader| reader.optional("url")).and_then(|item| url(&item));
    let database = setting(r, "database", default_database(top), |item| {
        let text = item.text()?;
        item.checked(names::identifier(text)).map(|()| text.to_owned())
    });
    let user = setting(r, "user", defaults::CLICKHOUSE_USER.to_owned(), |item| {
        item.text().map(str::to_owned)
    });
    let clickhouse = ClickHouse {
        tls: r.and_then(|reader| tls(reader, address.as_deref(), place)),
        url: address,
        database: database.value,
        user: user.value,
        password: r.and_then(|reader| password(reader, place)),
        compression: r.and_then(|reader| reader.optional("compression")).and_then(|item| {
            let words = [("lz4", Compression::Lz4), ("none", Compression::None)];
            item.choice(&words)
        }),
    };
    if let Some(reader) = reader {
        reader.finish();
    }
    clickhouse
}

/// The pipeline's name, as far as it can name a database.
fn default_database(top: &Reader<'_>) -> String {
    let name = top.item().node().get("pipeline").map(|node| &node.value);
    let name = match name {
        Some(document::Value::Text(text)) => text.replace(['.', '-'], "_"),
        _ => String::new(),
    };
    if names::identifier(&name).is_ok() {
        name
    } else {
        format!("sluice_{}", name.trim_start_matches('_'))
    }
}

fn rules(reader: Reader<'_>, place: Place<'_>) -> RulesFrom {
    let dir = reader.optional("dir");
    let address = reader.optional("url");
    let rules = match (&dir, &address) {
        (Some(item), None) => path(item, place.base_dir).map(|dir| {
            item.checked(place.machine.rules(&dir));
            RulesFrom::Dir(dir)
        }),
        (None, Some(item)) => url(item).map(|url| RulesFrom::Service {
            tls: tls(&reader, Some(&url), place),
            url,
        }),
        (Some(_), Some(item)) => {
            item.fault_at_key("rules come from a service (`url`) or from a directory (`dir`), not from both");
            None
        }
        (None, None) => {
            reader
                .item()
                .fault("should have the `url` of a config service or the `dir` of rule files");
            None
        }
    };
    reader.finish();
    rules.unwrap_or(RulesFrom::None)
}

/// An `http` or `https` address.
pub(super) fn url(item: &Item<'_>) -> Option<String> {
    item.checked(names::url(item.text()?))
}

/// The `tls` of a section. `address` is the section's own, where it has one.
pub(super) fn tls(reader: &Reader<'_>, address: Option<&str>, place: Place<'_>) -> Option<Tls> {
    let item = reader.optional("tls")?;
    if address.is_some_and(|address| address.starts_with("http://")) {
        item.fault_at_key("certificates need an address that begins with https://");
    }
    let reader = item.map()?;
    let file = |key| {
        let item = reader.optional(key)?;
        let file = path(&item, place.base_dir)?;
        item.checked(place.machine.file(&file));
        Some(file)
    };
    let tls = Tls {
        ca_file: file("ca_file"),
        cert_file: file("cert_file"),
        key_file: file("key_file"),
    };
    if reader.has("cert_file") != reader.has("key_file") {
        item.fault("`cert_file` and `key_file` belong together");
    }
    reader.finish();
    Some(tls)
}

/// The `password_file` of a section.
fn password(reader: &Reader<'_>, place: Place<'_>) -> Option<Secret> {
    if let Some(item) = reader.optional("password") {
        item.fault_at_key(
            "a secret doesn't belong into this file; put it into one of its own and name that as `password_file`",
        );
    }
    let item = reader.optional("password_file")?;
    let secret = Secret::in_file(path(&item, place.base_dir)?);
    item.checked(place.machine.secret(&secret));
    Some(secret)
}

/// A path, from the file's own directory where it isn't absolute.
pub(super) fn path(item: &Item<'_>, base_dir: &Path) -> Option<PathBuf> {
    let text = item.text()?;
    if text.is_empty() || text.contains('\0') {
        item.fault("should be a path");
        return None;
    }
    Some(base_dir.join(text.strip_prefix("./").unwrap_or(text)))
}
