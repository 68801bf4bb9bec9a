//! Every way in which a registry can fail, against a fake one, which keeps the same contract as a real one.

#[path = "../tests/support/contract.rs"]
mod contract;
#[path = "../tests/support/fake.rs"]
mod fake;

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use fake::{Fake, Mode};
use serde_json::json;
use tempfile::TempDir;

use crate::{Error, Registry, Schema, Settings};

const CLICK: &str = r#"{"type":"record","name":"Click","fields":[{"name":"at","type":"long"}]}"#;
const CLICK_2: &str = r#"{"type":"record","name":"Click","fields":[{"name":"at","type":"long"},{"name":"by","type":"string","default":""}]}"#;
const OTHER: &str = r#"{"type":"record","name":"Other","fields":[{"name":"x","type":"string"}]}"#;

fn settings(fake: &Fake) -> Settings {
    Settings {
        timeout: Duration::from_secs(20),
        ..Settings::new(fake.url())
    }
}

fn with_snapshot(fake: &Fake, dir: &Path) -> Settings {
    Settings {
        snapshot_dir: Some(dir.to_owned()),
        ..settings(fake)
    }
}

/// Waits for a condition that something in the background will bring about; fails after ten seconds.
async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let met = tokio::time::timeout(Duration::from_secs(10), async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
    assert!(met.await.is_ok(), "never came about: {what}");
}

fn texts(schemas: &[Arc<Schema>]) -> Vec<(u32, &str)> {
    schemas.iter().map(|schema| (schema.id, schema.text.as_str())).collect()
}

/// The snapshot file of a schema id, which lies in the registry's own directory.
fn snapshot_file(dir: &TempDir, name: &str) -> std::path::PathBuf {
    let of_registry = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    of_registry.join(name)
}

#[tokio::test]
async fn a_schema_is_fetched_once_and_then_answered_from_memory() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let registry = Registry::open(settings(&fake)).unwrap();
    let first = registry.schema(7).await.unwrap();
    let second = registry.clone().schema(7).await.unwrap();
    assert_eq!((first.id, first.text.as_str()), (7, CLICK));
    assert_eq!(first.avro, apache_avro::Schema::parse_str(CLICK).unwrap());
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!(fake.requests("/schemas/ids/7"), 1);
}

#[tokio::test]
async fn fifty_callers_that_miss_the_same_id_cause_one_request() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    fake.set(Mode::Silent);
    let registry = Registry::open(settings(&fake)).unwrap();
    let callers: Vec<_> = (0..50)
        .map(|_| {
            let registry = registry.clone();
            tokio::spawn(async move { registry.schema(7).await.unwrap().id })
        })
        .collect();
    until("the request arrives", async || fake.requests("/schemas/ids/7") == 1).await;
    fake.set(Mode::Up);
    for caller in callers {
        assert_eq!(caller.await.unwrap(), 7);
    }
    assert_eq!(fake.requests("/schemas/ids/7"), 1);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_take_the_answer_from_the_others() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    fake.set(Mode::Silent);
    let registry = Registry::open(settings(&fake)).unwrap();
    let first = tokio::spawn({
        let registry = registry.clone();
        async move { registry.schema(7).await }
    });
    until("the request arrives", async || fake.requests("/schemas/ids/7") == 1).await;
    let second = tokio::spawn({
        let registry = registry.clone();
        async move { registry.schema(7).await }
    });
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    fake.set(Mode::Up);
    assert_eq!(second.await.unwrap().unwrap().id, 7);
}

#[tokio::test]
async fn a_known_schema_is_served_while_the_registry_is_down_and_checked_when_it_is_back() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let brief = Settings {
        ttl: Duration::ZERO,
        pause: Duration::ZERO,
        ..settings(&fake)
    };
    let registry = Registry::open(brief).unwrap();
    registry.schema(7).await.unwrap();
    fake.set(Mode::Answers(503, "down for maintenance".to_owned()));
    until("two checks fail", async || {
        assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
        registry.counts().unreachable >= 2
    })
    .await;
    fake.set(Mode::Up);
    let failed = registry.counts();
    until("a check succeeds", async || {
        registry.schema(7).await.unwrap();
        let counts = registry.counts();
        counts.requests - counts.unreachable > failed.requests - failed.unreachable
    })
    .await;
    assert_eq!(registry.counts().conflicts, 0);
}

#[tokio::test]
async fn a_check_never_makes_a_caller_wait() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let registry = Registry::open(Settings {
        ttl: Duration::ZERO,
        pause: Duration::from_secs(60),
        ..settings(&fake)
    })
    .unwrap();
    registry.schema(7).await.unwrap();
    fake.set(Mode::Silent);
    // The first of these starts a check that stays without an answer; both are answered nevertheless.
    assert_eq!(registry.schema(7).await.unwrap().id, 7);
    until("the check is under way", async || fake.requests("/schemas/ids/7") == 2).await;
    assert_eq!(registry.schema(7).await.unwrap().id, 7);
    assert_eq!(fake.requests("/schemas/ids/7"), 2, "one check at a time");
}

#[tokio::test]
async fn another_schema_for_a_known_id_is_counted_and_the_known_one_stays() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let registry = Registry::open(Settings {
        ttl: Duration::ZERO,
        ..settings(&fake)
    })
    .unwrap();
    registry.schema(7).await.unwrap();
    fake.put(7, OTHER);
    until("the conflict is seen", async || {
        assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
        registry.counts().conflicts >= 1
    })
    .await;
    assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
}

#[tokio::test]
async fn the_same_json_in_another_layout_is_no_conflict() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let registry = Registry::open(Settings {
        ttl: Duration::ZERO,
        ..settings(&fake)
    })
    .unwrap();
    registry.schema(7).await.unwrap();
    let spaced = serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(CLICK).unwrap()).unwrap();
    fake.put(7, &spaced);
    let before = registry.counts().requests;
    until("it is checked", async || {
        registry.schema(7).await.unwrap();
        registry.counts().requests > before
    })
    .await;
    assert_eq!(registry.counts().conflicts, 0);
}

#[tokio::test]
async fn a_schema_that_the_registry_forgot_goes_on_being_served() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let registry = Registry::open(Settings {
        ttl: Duration::ZERO,
        ..settings(&fake)
    })
    .unwrap();
    registry.schema(7).await.unwrap();
    fake.set(Mode::Answers(
        404,
        json!({ "error_code": 40403, "message": "Schema not found" }).to_string(),
    ));
    let before = registry.counts().requests;
    until("it is checked", async || {
        assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
        registry.counts().requests > before
    })
    .await;
}

#[tokio::test]
async fn an_unknown_id_is_definite_for_a_moment_and_found_once_it_is_registered() {
    let fake = Fake::start().await;
    let registry = Registry::open(Settings {
        pause: Duration::from_millis(50),
        ..settings(&fake)
    })
    .unwrap();
    assert_eq!(registry.schema(9).await.unwrap_err(), Error::Unknown { id: 9 });
    fake.put(9, CLICK);
    until("the id is asked for again", async || registry.schema(9).await.is_ok()).await;
    assert_eq!(registry.schema(9).await.unwrap().text, CLICK);
}

#[tokio::test]
async fn ten_thousand_questions_for_one_unknown_id_cause_one_request() {
    let fake = Fake::start().await;
    let registry = Registry::open(Settings {
        pause: Duration::from_secs(60),
        ..settings(&fake)
    })
    .unwrap();
    for _ in 0..10_000 {
        assert_eq!(registry.schema(9).await.unwrap_err(), Error::Unknown { id: 9 });
    }
    assert_eq!(fake.requests("/schemas/ids/9"), 1);
}

#[tokio::test]
async fn an_id_that_no_registry_can_give_out_is_unknown_without_a_question() {
    let fake = Fake::start().await;
    let registry = Registry::open(settings(&fake)).unwrap();
    assert_eq!(
        registry.schema(u32::MAX).await.unwrap_err(),
        Error::Unknown { id: u32::MAX }
    );
    assert_eq!(registry.counts().requests, 0);
}

#[tokio::test]
async fn what_is_not_a_definite_answer_is_unreachable() {
    let fake = Fake::start().await;
    let registry = Registry::open(Settings {
        timeout: Duration::from_millis(400),
        ..settings(&fake)
    })
    .unwrap();
    let answers = [
        (
            500,
            r#"{"error_code":50001,"message":"Error in the backend data store"}"#,
            "answered 500",
        ),
        (503, "<html>", "answered 503 Service Unavailable: <html>"),
        (429, "", "answered 429"),
        (
            200,
            "<html>a captive portal</html>",
            "something else than the registry's JSON",
        ),
        (200, "{}", "missing field `schema`"),
    ];
    for (status, body, expected) in answers {
        fake.set(Mode::Answers(status, body.to_owned()));
        let Error::Unreachable { url, reason } = registry.schema(7).await.unwrap_err() else {
            panic!("{status}")
        };
        assert_eq!(url, format!("{}/schemas/ids/7", fake.url()));
        assert!(reason.contains(expected), "{reason}");
    }
    // Whoever asked says whether it waits.
    fake.set(Mode::Answers(501, "no such method".to_owned()));
    let refused = registry.register("orders-value", "{}").await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "schema registry at {}/subjects/orders-value/versions: answered 501 Not Implemented: no such method",
            fake.url()
        )
    );
    fake.set(Mode::Silent);
    let slow = registry.schema(7).await.unwrap_err();
    let url = format!("{}/schemas/ids/7", fake.url());
    assert_eq!(
        slow,
        Error::Unreachable {
            url,
            reason: "unreachable: no answer in time".to_owned()
        }
    );
    assert!(slow.is_wait());
}

#[tokio::test]
async fn a_refused_connection_is_unreachable() {
    let free = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let registry = Registry::open(Settings::new(format!("http://{free}"))).unwrap();
    let Error::Unreachable { reason, .. } = registry.schema(7).await.unwrap_err() else {
        panic!()
    };
    assert!(reason.contains("refused"), "{reason}");
}

#[tokio::test]
async fn a_404_without_the_registrys_code_never_counts_as_an_unknown_schema() {
    let fake = Fake::start().await;
    let registry = Registry::open(settings(&fake)).unwrap();
    fake.set(Mode::Answers(404, "no such page".to_owned()));
    let refused = Error::Refused {
        status: 404,
        body: "no such page".to_owned(),
    };
    assert_eq!(registry.schema(7).await.unwrap_err(), refused);
    fake.set(Mode::Answers(
        401,
        r#"{"error_code":401,"message":"Unauthorized"}"#.to_owned(),
    ));
    let Error::Refused { status: 401, .. } = registry.schema(7).await.unwrap_err() else {
        panic!()
    };
}

#[tokio::test]
async fn what_is_not_avro_is_unusable() {
    let fake = Fake::start().await;
    fake.put_raw(1, json!({ "schemaType": "PROTOBUF", "schema": "syntax = \"proto3\";" }));
    fake.put(2, r#"{"type":"record","name":"Broken"}"#);
    let registry = Registry::open(settings(&fake)).unwrap();
    let reason = "it is PROTOBUF, and only AVRO is read".to_owned();
    assert_eq!(registry.schema(1).await.unwrap_err(), Error::Unusable { id: 1, reason });
    let Error::Unusable { id: 2, reason } = registry.schema(2).await.unwrap_err() else {
        panic!()
    };
    assert!(reason.contains("fields"), "{reason}");
}

#[tokio::test]
async fn an_answer_of_unbounded_size_is_refused() {
    let fake = Fake::start().await;
    let registry = Registry::open(settings(&fake)).unwrap();
    fake.set(Mode::Answers(200, "x".repeat(9 << 20)));
    let body = "the answer is larger than 8388608 bytes".to_owned();
    assert_eq!(
        registry.schema(7).await.unwrap_err(),
        Error::Refused { status: 200, body }
    );
}

#[tokio::test]
async fn memory_holds_no_more_than_entries_max() {
    let fake = Fake::start().await;
    let registry = Registry::open(Settings {
        entries_max: 10,
        ..settings(&fake)
    })
    .unwrap();
    for id in 1..=100 {
        fake.put(id, CLICK);
        registry.schema(id).await.unwrap();
    }
    // Eviction is a little late, and done by whoever comes by.
    until("only ten are left", async || {
        registry.schema(100).await.unwrap();
        registry.counts().entries == 10
    })
    .await;
    assert_eq!(fake.requests("/schemas/ids/100"), 1, "the newest is still there");
    registry.schema(1).await.unwrap();
    assert_eq!(fake.requests("/schemas/ids/1"), 2, "the oldest had to go");
}

#[tokio::test]
async fn references_are_resolved_into_one_schema() {
    let fake = Fake::start().await;
    fake.put(
        1,
        r#"{"type":"record","name":"Money","namespace":"a","fields":[{"name":"minor","type":"long"}]}"#,
    );
    fake.put_raw(
        2,
        json!({
            "schema": r#"{"type":"record","name":"Price","namespace":"a","fields":[{"name":"net","type":"a.Money"},{"name":"tax","type":"a.Money"}]}"#,
            "references": [{"name": "a.Money", "subject": "money", "version": 1}],
        }),
    );
    fake.put_raw(
        3,
        json!({
            "schema": r#"{"type":"record","name":"Order","namespace":"a","fields":[{"name":"paid","type":"a.Money"},{"name":"price","type":"a.Price"}]}"#,
            "references": [
                {"name": "a.Price", "subject": "price", "version": 1},
                {"name": "a.Money", "subject": "money", "version": 1},
            ],
        }),
    );
    fake.add_version("money", 1);
    fake.add_version("price", 2);
    let dir = TempDir::new().unwrap();
    let whole = apache_avro::Schema::parse_str(
        r#"{"type":"record","name":"Order","namespace":"a","fields":[
            {"name":"paid","type":{"type":"record","name":"Money","fields":[{"name":"minor","type":"long"}]}},
            {"name":"price","type":{"type":"record","name":"Price","fields":[{"name":"net","type":"Money"},{"name":"tax","type":"Money"}]}}]}"#,
    )
    .unwrap();
    let registry = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
    assert_eq!(registry.schema(3).await.unwrap().avro, whole);
    fake.set(Mode::Answers(500, String::new()));
    let restarted = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
    assert_eq!(restarted.schema(3).await.unwrap().avro, whole);
}

#[tokio::test]
async fn a_reference_to_nothing_is_unusable() {
    let fake = Fake::start().await;
    fake.put_raw(
        3,
        json!({ "schema": r#"{"type":"record","name":"O","fields":[{"name":"m","type":"M"}]}"#,
                "references": [{"name": "M", "subject": "money", "version": 4}] }),
    );
    let registry = Registry::open(settings(&fake)).unwrap();
    let reason = "refers to money version 4, which the registry does not have".to_owned();
    assert_eq!(registry.schema(3).await.unwrap_err(), Error::Unusable { id: 3, reason });
}

/// Scenario: the registry goes away, then the worker restarts.
/// Guarantees: every schema and subject seen before is there; what was never seen is "unreachable", not "unknown".
#[tokio::test]
async fn a_restart_during_an_outage_works_from_the_snapshot() {
    let dir = TempDir::new().unwrap();
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    fake.put(8, CLICK_2);
    fake.add_version("click-value", 7);
    fake.add_version("click-value", 8);
    let before = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
    before.versions("click-value").await.unwrap();
    drop(before);
    fake.set(Mode::Answers(500, String::new()));

    let registry = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
    assert_eq!(registry.schema(8).await.unwrap().text, CLICK_2);
    assert_eq!(
        texts(&registry.versions("click-value").await.unwrap()),
        [(7, CLICK), (8, CLICK_2)]
    );
    assert!(registry.schema(9).await.unwrap_err().is_wait());
    assert!(registry.versions("never-seen").await.unwrap_err().is_wait());
}

#[tokio::test]
async fn versions_come_oldest_first_and_a_new_one_is_seen_at_once() {
    let fake = Fake::start().await;
    fake.put(8, CLICK);
    fake.put(3, CLICK_2);
    fake.add_version("a subject/with signs?", 8);
    let registry = Registry::open(settings(&fake)).unwrap();
    assert_eq!(
        texts(&registry.versions("a subject/with signs?").await.unwrap()),
        [(8, CLICK)]
    );
    fake.add_version("a subject/with signs?", 3);
    assert_eq!(
        texts(&registry.versions("a subject/with signs?").await.unwrap()),
        [(8, CLICK), (3, CLICK_2)]
    );
    registry.schema(8).await.unwrap();
    assert_eq!(fake.requests("/schemas/ids/8"), 0, "learnt with the versions");
    let subject = "none".to_owned();
    assert_eq!(
        registry.versions("none").await.unwrap_err(),
        Error::UnknownSubject { subject }
    );
}

#[tokio::test]
async fn spoiled_snapshot_files_are_ignored_and_counted() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let dir = TempDir::new().unwrap();
    Registry::open(with_snapshot(&fake, dir.path()))
        .unwrap()
        .schema(7)
        .await
        .unwrap();
    let file = snapshot_file(&dir, "id-7.schema");
    let good = fs::read(&file).unwrap();
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let foreign = b"sluice-schemas 2 00000000\n{}".to_vec();
    for spoiled in [
        flipped,
        good[..good.len() / 2].to_vec(),
        Vec::new(),
        b"\xff\xfe".to_vec(),
        foreign,
    ] {
        fs::write(&file, &spoiled).unwrap();
        let registry = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
        assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
        assert_eq!((registry.counts().spoiled, registry.counts().requests), (1, 1));
        assert_eq!(fs::read(&file).unwrap(), good, "written anew");
    }
    let files = fs::read_dir(file.parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "no drafts are left behind");
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_written_does_not_stop_events() {
    let fake = Fake::start().await;
    fake.put(7, CLICK);
    let dir = TempDir::new().unwrap();
    let registry = Registry::open(with_snapshot(&fake, dir.path())).unwrap();
    // A directory where the file should go: a rename onto it fails for root, too.
    fs::create_dir_all(snapshot_file(&dir, "id-7.schema").join("in-the-way")).unwrap();
    assert_eq!(registry.schema(7).await.unwrap().text, CLICK);
    assert_eq!(registry.counts().unwritten, 1);
}

#[tokio::test]
async fn another_registry_has_a_snapshot_of_its_own() {
    let (fake, other) = (Fake::start().await, Fake::start().await);
    fake.put(7, CLICK);
    other.put(7, OTHER);
    let dir = TempDir::new().unwrap();
    Registry::open(with_snapshot(&fake, dir.path()))
        .unwrap()
        .schema(7)
        .await
        .unwrap();
    let registry = Registry::open(with_snapshot(&other, dir.path())).unwrap();
    assert_eq!(registry.schema(7).await.unwrap().text, OTHER);
}

#[tokio::test]
async fn credentials_are_sent_and_never_shown() {
    let fake = Fake::start().await;
    let url = fake.url().replace("http://", "http://ann:secret@");
    let registry = Registry::open(Settings::new(url)).unwrap();
    fake.set(Mode::Answers(500, String::new()));
    let shown = registry.schema(7).await.unwrap_err().to_string();
    assert_eq!(fake.authorization().as_deref(), Some("Basic YW5uOnNlY3JldA=="));
    assert!(!shown.contains("secret") && !shown.contains("ann"), "{shown}");
}

#[test]
fn settings_that_cannot_work_are_refused_with_the_reason() {
    for (url, reason) in [
        (
            "localhost:8081",
            r#"url "localhost:8081" must begin with http:// or https://"#,
        ),
        ("not a url", r#"url "not a url": relative URL without a base"#),
    ] {
        let Err(error) = Registry::open(Settings::new(url)) else {
            panic!("{url}")
        };
        assert_eq!(
            error,
            Error::Settings {
                reason: reason.to_owned()
            }
        );
    }
    let bad_ca = Settings {
        ca_pem: Some(b"-----BEGIN CERTIFICATE-----\nx".to_vec()),
        ..Settings::new("https://a")
    };
    let Err(Error::Settings { reason }) = Registry::open(bad_ca) else {
        panic!()
    };
    assert!(reason.starts_with("ca certificate: "), "{reason}");
}

#[tokio::test]
async fn the_fake_registry_keeps_the_contract() {
    let fake = Fake::start().await;
    contract::check(&fake.url(), "a").await;
}
