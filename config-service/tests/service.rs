//! The role as its clients see it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by a panic"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use config_service::client::{Client, ClientError, Put, Watched};
use config_service::{Running, Settings};
use document::Fault;
use proto::config::v1::{Document, PutRulesRequest, Revision, RevisionId};
use rules::{Catalog, EventShape, FieldDef};
use serve::Stop;
use tokio::sync::watch::Receiver;

const PIPELINE: &str = "shop";
const ACME: &str =
    "tenant: acme\nrules:\n  - {name: big, events: [order.created], when: amount_minor > 10, drop: true}\n";
const EVERYBODY: &str =
    "tenant: '*'\nrules:\n  - {name: cheap, events: [order.created], when: amount_minor < 1, drop: true}\n";

fn catalog(amount: &str) -> Catalog {
    let names = ["tenant_id", amount];
    let schema = Schema::new(vec![
        Field::new(names[0], DataType::Utf8, false),
        Field::new(names[1], DataType::Int64, false),
    ]);
    let field = |name: &&str| FieldDef {
        column: (*name).to_owned(),
        path: (*name).to_owned(),
    };
    let event = EventShape {
        name: "order.created".to_owned(),
        shape: names.iter().map(field).collect(),
        schema: Arc::new(schema),
        tenant: 0,
        table: "orders".to_owned(),
        tables: vec!["orders".to_owned()],
    };
    Catalog {
        events: vec![event],
        alerts: true,
        charges: true,
    }
}

struct Service {
    folder: tempfile::TempDir,
    running: Running,
    stop: Stop,
    client: Client,
    /// The schema has changed: `amount_minor` is called `amount` now.
    renamed: Arc<AtomicBool>,
}

async fn begin(folder: tempfile::TempDir, listen: &str) -> Service {
    let renamed = Arc::new(AtomicBool::new(false));
    let provider = {
        let renamed = Arc::clone(&renamed);
        move || {
            Ok(catalog(if renamed.load(Ordering::Relaxed) {
                "amount"
            } else {
                "amount_minor"
            }))
        }
    };
    let mut settings = Settings::new(PIPELINE, folder.path().join("rules.db"), Arc::new(provider));
    settings.listen = listen.to_owned();
    let stop = Stop::new();
    let running = config_service::serve(settings, stop.clone()).await.expect("begins");
    let client = Client::new(&format!("http://{}", running.addr), None).expect("a client");
    Service {
        folder,
        running,
        stop,
        client,
        renamed,
    }
}

async fn service() -> Service {
    begin(tempfile::tempdir().expect("a folder"), "127.0.0.1:0").await
}

fn document(tenant: &str, text: &str) -> Document {
    Document {
        tenant: tenant.to_owned(),
        text: text.to_owned(),
        file: String::new(),
    }
}

fn request(documents: Vec<Document>) -> PutRulesRequest {
    PutRulesRequest {
        pipeline: PIPELINE.to_owned(),
        documents,
        base: None,
        check_only: false,
    }
}

async fn accepted(client: &Client, documents: Vec<Document>) -> RevisionId {
    match client.put(request(documents)).await.expect("an answer") {
        Put::Accepted(id) => id,
        Put::Refused(faults) => panic!("{faults:?}"),
    }
}

async fn refused(client: &Client, documents: Vec<Document>) -> Vec<String> {
    match client.put(request(documents)).await.expect("an answer") {
        Put::Accepted(id) => panic!("accepted as {id:?}"),
        Put::Refused(faults) => faults.iter().map(Fault::to_string).collect(),
    }
}

fn texts(revision: Revision) -> Vec<(String, String)> {
    revision
        .documents
        .into_iter()
        .map(|document| (document.tenant, document.text))
        .collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter()
        .map(|(tenant, text)| ((*tenant).to_owned(), (*text).to_owned()))
        .collect()
}

async fn wait_for(watched: &mut Receiver<Watched>, what: impl FnMut(&Watched) -> bool) -> Watched {
    let waiting = watched.wait_for(what);
    tokio::time::timeout(Duration::from_secs(20), waiting)
        .await
        .expect("in time")
        .expect("a watcher")
        .clone()
}

#[tokio::test]
async fn revisions_are_made_one_after_the_other_and_stay() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let empty = client.get(PIPELINE, None).await.expect("revision 0");
    assert_eq!(
        (empty.id.expect("an id").number, empty.created_at_ms, empty.documents),
        (0, 0, Vec::new())
    );

    let first = accepted(&client, vec![document("", ACME)]).await;
    assert_eq!(first.number, 1);
    let second = accepted(&client, vec![document("*", EVERYBODY)]).await;
    assert_eq!(second.number, 2);
    let third = accepted(&client, vec![document("acme", "")]).await;
    assert_eq!(third.number, 3);

    let get = async |number| client.get(PIPELINE, number).await.expect("a revision");
    assert_eq!(texts(get(Some(0)).await), []);
    assert_eq!(texts(get(Some(1)).await), pairs(&[("acme", ACME)]));
    assert_eq!(texts(get(Some(2)).await), pairs(&[("*", EVERYBODY), ("acme", ACME)]));
    assert_eq!(texts(get(Some(3)).await), pairs(&[("*", EVERYBODY)]));
    assert_eq!(get(None).await, get(Some(3)).await);
    assert_eq!(get(Some(1)).await.id, Some(first));

    // A worker that compiles what it got has the same rules: the digests say so.
    let documents: Vec<_> = get(Some(2))
        .await
        .documents
        .into_iter()
        .map(|it| (it.file, it.text))
        .collect();
    let compiled = rules::Revision::compile(2, &documents, &catalog("amount_minor")).expect("compiles");
    assert_eq!(compiled.digest, second.digest);

    let missing = ClientError::NotFound("there is no revision 4 of pipeline \"shop\"".to_owned());
    assert_eq!(client.get(PIPELINE, Some(4)).await, Err(missing));
    let other = "this service keeps the rules of pipeline \"shop\", not \"shopp\"".to_owned();
    assert_eq!(client.get("shopp", None).await, Err(ClientError::NotFound(other)));
}

#[tokio::test]
async fn the_same_content_makes_no_new_revision() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let first = accepted(&client, vec![document("", ACME), document("", EVERYBODY)]).await;
    assert_eq!(
        accepted(&client, vec![document("", ACME), document("", EVERYBODY)]).await,
        first
    );
    let other_file = Document {
        file: "else.yaml".to_owned(),
        ..document("acme", ACME)
    };
    assert_eq!(accepted(&client, vec![other_file]).await, first);
    assert_eq!(accepted(&client, vec![document("nobody", "")]).await, first);
    assert_eq!(accepted(&client, Vec::new()).await, first);
    assert_eq!(client.get(PIPELINE, None).await.expect("a revision").id, Some(first));
}

#[tokio::test]
async fn every_fault_is_told_with_its_place_and_nothing_changes() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let text = "tenant: acme\nrules:\n  - {name: a, when: amount_mnor > 10, drop: true}\n  - {name: b, dorp: true}\n";
    let faults = refused(
        &client,
        vec![
            document("", EVERYBODY),
            Document {
                file: "acme.yaml".to_owned(),
                ..document("", text)
            },
        ],
    )
    .await;
    let places: Vec<String> = faults
        .iter()
        .map(|fault| fault.split(": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "acme.yaml:3:21 rules[0].when",
        "acme.yaml:4:5 rules[1]",
        "acme.yaml:4:15 rules[1].dorp",
    ];
    assert_eq!(places, expected, "{faults:?}");
    assert!(
        faults[0].ends_with("order.created has no column `amount_mnor`; did you mean `amount_minor`?"),
        "{faults:?}"
    );
    assert_eq!(
        client
            .get(PIPELINE, None)
            .await
            .expect("a revision")
            .id
            .expect("an id")
            .number,
        0
    );
}

#[tokio::test]
async fn a_put_that_contradicts_itself_is_refused() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    assert_eq!(
        refused(&client, vec![document("umbrella", ACME)]).await,
        ["umbrella.yaml:0:0: it was put for tenant \"umbrella\", but its text says \"acme\""]
    );
    assert_eq!(
        refused(&client, vec![document("", ACME), document("acme", "")]).await,
        ["acme.yaml:0:0: tenant \"acme\" has another document in this put; name it once"]
    );
    assert_eq!(
        refused(&client, vec![document("", "")]).await,
        ["documents[0]:0:0: an empty text removes a tenant's rules, but no tenant is named"]
    );
}

#[tokio::test]
async fn rules_that_fail_their_own_tests_are_refused() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let text = format!(
        "{ACME}tests:\n  - {{name: small, given: {{type: order.created, amount_minor: 5}}, expect: {{dropped: true}}}}\n"
    );
    let faults = refused(&client, vec![document("", &text)]).await;
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0].starts_with("documents[0]:5:5: small: the test fails: "),
        "{faults:?}"
    );
}

#[tokio::test]
async fn a_base_that_is_not_the_newest_is_refused_unless_nothing_would_change() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let on = |base, text| PutRulesRequest {
        base: Some(base),
        ..request(vec![document("", text)])
    };
    let first = client.put(on(0, ACME)).await.expect("an answer");
    // The answer was lost, and the put comes again.
    assert_eq!(client.put(on(0, ACME)).await.expect("an answer"), first);
    let moved_on = "the newest revision is 1, not 0: get it, and put again on top of it".to_owned();
    assert_eq!(client.put(on(0, EVERYBODY)).await, Err(ClientError::MovedOn(moved_on)));
    let Put::Accepted(second) = client.put(on(1, EVERYBODY)).await.expect("an answer") else {
        panic!("refused")
    };
    assert_eq!(second.number, 2);
}

#[tokio::test]
async fn a_check_makes_no_revision() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let check = |text| PutRulesRequest {
        check_only: true,
        ..request(vec![document("", text)])
    };
    let Put::Accepted(id) = client.put(check(ACME)).await.expect("an answer") else {
        panic!("refused")
    };
    assert_eq!(id.number, 0);
    let Put::Refused(faults) = client.put(check("tenant: [")).await.expect("an answer") else {
        panic!("accepted")
    };
    assert_eq!(faults.len(), 1);
    assert_eq!(
        client
            .get(PIPELINE, None)
            .await
            .expect("a revision")
            .id
            .expect("an id")
            .number,
        0
    );
}

#[tokio::test]
async fn rules_that_no_longer_fit_the_schema_are_named_when_others_are_put() {
    let Service {
        client,
        renamed,
        folder: _folder,
        ..
    } = service().await;
    accepted(&client, vec![document("", ACME)]).await;
    renamed.store(true, Ordering::Relaxed);
    let text = EVERYBODY.replace("amount_minor", "amount");
    let faults = refused(&client, vec![document("", &text)]).await;
    assert!(
        faults.len() == 1 && faults[0].starts_with("documents[0]:3:"),
        "{faults:?}"
    );
    let mended = ACME.replace("amount_minor", "amount");
    assert_eq!(
        accepted(&client, vec![document("", &text), document("", &mended)])
            .await
            .number,
        2
    );
}

#[tokio::test]
async fn a_meter_counts_in_one_unit_for_ever() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let text = |tenant: &str, unit: &str| {
        format!(
            "tenant: '{tenant}'\nmeters:\n  revenue: {{unit: {unit}, scale: 2}}\n  calls: {{unit: call}}\nrules: []\n"
        )
    };
    let taken = |whose: &str| {
        format!(
            "the meter \"revenue\" of tenant \"{whose}\" counts in \"EUR\" with scale 2 for ever, because a ledger can't add up two \
             units; give this one another name"
        )
    };
    accepted(&client, vec![document("", &text("acme", "EUR"))]).await;
    // Another tenant's meter of that name is another meter.
    accepted(&client, vec![document("", &text("umbrella", "USD"))]).await;
    let place = "documents[0]:3:12: meters.revenue: ";
    assert_eq!(
        refused(&client, vec![document("", &text("acme", "USD"))]).await,
        [format!("{place}{}", taken("acme"))]
    );
    // Not even after it was gone: the ledger remembers.
    accepted(&client, vec![document("acme", "")]).await;
    assert_eq!(
        refused(&client, vec![document("", &text("acme", "USD"))]).await,
        [format!("{place}{}", taken("acme"))]
    );
    // Everybody's document charges those tenants whose own document is gone.
    assert_eq!(
        refused(&client, vec![document("", &text("*", "USD"))]).await,
        [format!("{place}{}", taken("acme"))]
    );
    assert_eq!(
        accepted(&client, vec![document("", &text("acme", "EUR"))]).await.number,
        4
    );
    let both = vec![document("", &text("x", "GBP")), document("", &text("*", "EUR"))];
    let expected = format!(
        "documents[1]:3:12: meters.revenue: {}",
        taken("umbrella").replace("EUR", "USD")
    );
    assert_eq!(refused(&client, both).await, [expected]);
}

#[tokio::test]
async fn puts_at_the_same_time_make_one_revision_each_and_lose_no_document() {
    let Service {
        client,
        folder: _folder,
        ..
    } = service().await;
    let puts: Vec<_> = (0..8)
        .map(|i| {
            let (client, text) = (client.clone(), ACME.replace("acme", &format!("tenant{i}")));
            tokio::spawn(async move { accepted(&client, vec![document("", &text)]).await.number })
        })
        .collect();
    let mut numbers = Vec::new();
    for put in puts {
        numbers.push(put.await.expect("a put"));
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=8).collect::<Vec<_>>());
    let tenants = texts(client.get(PIPELINE, None).await.expect("a revision"));
    let expected: Vec<String> = (0..8).map(|i| format!("tenant{i}")).collect();
    assert_eq!(
        tenants.into_iter().map(|(tenant, _)| tenant).collect::<Vec<_>>(),
        expected
    );
}

#[tokio::test]
async fn a_watcher_hears_the_newest_revision_and_each_later_one_through_a_restart() {
    let Service {
        client,
        folder,
        running,
        stop,
        ..
    } = service().await;
    let first = accepted(&client, vec![document("", ACME)]).await;
    let mut watched = client.watch(PIPELINE);
    let expected = Watched {
        newest: Some(first),
        fault: None,
    };
    assert_eq!(
        wait_for(&mut watched, |watched| watched.newest.is_some()).await,
        expected
    );
    let second = accepted(&client, vec![document("", EVERYBODY)]).await;
    wait_for(&mut watched, |watched| watched.newest == Some(second)).await;

    let addr = running.addr.to_string();
    stop.request();
    // Well below the ten seconds after which calls are cut off: the open stream doesn't hold the stop up.
    tokio::time::timeout(Duration::from_secs(8), running.ended())
        .await
        .expect("ends");
    let away = wait_for(&mut watched, |watched| watched.fault.is_some()).await;
    assert_eq!(away.newest, Some(second));

    let Service {
        client,
        folder: _folder,
        ..
    } = begin(folder, &addr).await;
    wait_for(&mut watched, |watched| watched.fault.is_none()).await;
    let third = accepted(&client, vec![document("acme", "")]).await;
    assert_eq!(third.number, 3);
    wait_for(&mut watched, |watched| {
        *watched
            == Watched {
                newest: Some(third),
                fault: None,
            }
    })
    .await;
}

#[tokio::test]
async fn a_watcher_does_not_follow_a_service_that_has_gone_back() {
    let Service {
        client,
        running,
        stop,
        folder: _folder,
        ..
    } = service().await;
    accepted(&client, vec![document("", ACME)]).await;
    let newest = accepted(&client, vec![document("", EVERYBODY)]).await;
    let mut watched = client.watch(PIPELINE);
    wait_for(&mut watched, |watched| watched.newest == Some(newest)).await;
    let addr = running.addr.to_string();
    stop.request();
    running.ended().await;

    // The store was lost, and a new one begins at 0.
    let Service {
        client,
        folder: _new_folder,
        ..
    } = begin(tempfile::tempdir().expect("a folder"), &addr).await;
    let gone_back = |to| {
        format!("the service has gone back from revision 2 to {to}; the rules stay as they are until it is past that")
    };
    let seen = wait_for(&mut watched, |watched| watched.fault == Some(gone_back(0))).await;
    assert_eq!(seen.newest, Some(newest));
    // Number 2 again, but other rules.
    accepted(&client, vec![document("", EVERYBODY)]).await;
    accepted(&client, vec![document("umbrella", &ACME.replace("acme", "umbrella"))]).await;
    let seen = wait_for(&mut watched, |watched| watched.fault == Some(gone_back(2))).await;
    assert_eq!(seen.newest, Some(newest));
    let third = accepted(&client, vec![document("umbrella", "")]).await;
    wait_for(&mut watched, |watched| {
        *watched
            == Watched {
                newest: Some(third),
                fault: None,
            }
    })
    .await;
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unavailable() {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", socket.local_addr().expect("its address"));
    drop(socket);
    let client = Client::new(&url, None).expect("a client");
    assert!(matches!(
        client.get(PIPELINE, None).await,
        Err(ClientError::Unavailable(_))
    ));
    assert!(matches!(Client::new("no url", None), Err(ClientError::Url { .. })));
}

#[tokio::test]
async fn a_catalog_that_is_not_known_is_a_matter_of_waiting() {
    let folder = tempfile::tempdir().expect("a folder");
    let provider = Arc::new(|| Err("the schema registry is down".to_owned()));
    let settings = Settings::new(PIPELINE, folder.path().join("rules.db"), provider);
    let running = config_service::serve(settings, Stop::new()).await.expect("begins");
    let client = Client::new(&format!("http://{}", running.addr), None).expect("a client");
    let reason = "the events that rules may name are not known: the schema registry is down".to_owned();
    assert_eq!(
        client.put(request(vec![document("", ACME)])).await,
        Err(ClientError::Unavailable(reason))
    );
    assert_eq!(
        client
            .get(PIPELINE, None)
            .await
            .expect("a revision")
            .id
            .expect("an id")
            .number,
        0
    );
}
