//! A registry of our own: Confluent's API as far as Sluice uses it, and every way to misbehave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// How the fake answers from now on.
#[derive(Debug, Clone, PartialEq)]
pub enum Mode {
    Up,
    /// This status and body to everything.
    Answers(u16, String),
    /// Takes requests and doesn't answer before the mode changes.
    Silent,
}

#[derive(Default)]
struct Held {
    schemas: BTreeMap<u32, Value>,
    subjects: BTreeMap<String, Vec<u32>>,
    requests: Vec<String>,
    authorization: Option<String>,
}

#[derive(Clone)]
pub struct Fake {
    held: Arc<Mutex<Held>>,
    mode: Arc<watch::Sender<Mode>>,
    pub address: SocketAddr,
}

impl Fake {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let fake = Self {
            held: Arc::default(),
            mode: Arc::new(watch::Sender::new(Mode::Up)),
            address: listener.local_addr().unwrap(),
        };
        let router = Router::new()
            .route("/base/schemas/ids/{id}", get(by_id))
            .route("/base/subjects/{subject}/versions", get(versions).post(register))
            .route("/base/subjects/{subject}/versions/{version}", get(version))
            .route(
                "/base/compatibility/subjects/{subject}/versions/latest",
                post(compatible),
            )
            .route("/base/config/{subject}", put(set_compatibility))
            .layer(middleware::from_fn_with_state(fake.clone(), misbehave))
            .with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    pub fn url(&self) -> String {
        format!("http://{}/base", self.address)
    }

    pub fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }

    /// Gives an id a schema, or another one than before.
    pub fn put(&self, id: u32, text: &str) {
        self.put_raw(id, json!({ "schema": text }));
    }

    pub fn put_raw(&self, id: u32, registered: Value) {
        self.held.lock().unwrap().schemas.insert(id, registered);
    }

    pub fn add_version(&self, subject: &str, id: u32) {
        self.held
            .lock()
            .unwrap()
            .subjects
            .entry(subject.to_owned())
            .or_default()
            .push(id);
    }

    /// Requests so far whose path ends like this.
    pub fn requests(&self, ending: &str) -> usize {
        self.held
            .lock()
            .unwrap()
            .requests
            .iter()
            .filter(|path| path.ends_with(ending))
            .count()
    }

    pub fn authorization(&self) -> Option<String> {
        self.held.lock().unwrap().authorization.clone()
    }
}

async fn misbehave(State(fake): State<Fake>, request: Request, next: Next) -> Response {
    {
        let mut held = fake.held.lock().unwrap();
        held.requests.push(request.uri().path().to_owned());
        held.authorization = request
            .headers()
            .get("authorization")
            .map(|value| value.to_str().unwrap().to_owned());
    }
    let mut mode = fake.mode.subscribe();
    let now = mode.wait_for(|mode| *mode != Mode::Silent).await.unwrap().clone();
    match now {
        Mode::Answers(status, body) => (StatusCode::from_u16(status).unwrap(), body).into_response(),
        _ => next.run(request).await,
    }
}

fn fault(status: u16, code: u32, message: &str) -> Response {
    let body = json!({ "error_code": code, "message": message }).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

async fn by_id(State(fake): State<Fake>, Path(id): Path<u32>) -> Response {
    match fake.held.lock().unwrap().schemas.get(&id) {
        Some(registered) => registered.to_string().into_response(),
        None => fault(404, 40403, "Schema not found"),
    }
}

async fn versions(State(fake): State<Fake>, Path(subject): Path<String>) -> Response {
    match fake.held.lock().unwrap().subjects.get(&subject) {
        Some(ids) => json!((1..=ids.len()).collect::<Vec<_>>()).to_string().into_response(),
        None => fault(404, 40401, "Subject not found"),
    }
}

async fn version(State(fake): State<Fake>, Path((subject, version)): Path<(String, usize)>) -> Response {
    let held = fake.held.lock().unwrap();
    let Some(ids) = held.subjects.get(&subject) else {
        return fault(404, 40401, "Subject not found");
    };
    let Some(&id) = ids.get(version - 1) else {
        return fault(404, 40402, "Version not found");
    };
    let mut registered = held.schemas[&id].clone();
    registered["id"] = json!(id);
    registered["version"] = json!(version);
    registered["subject"] = json!(subject);
    registered.to_string().into_response()
}

async fn register(State(fake): State<Fake>, Path(subject): Path<String>, body: String) -> Response {
    let text = serde_json::from_str::<Value>(&body).unwrap()["schema"]
        .as_str()
        .unwrap()
        .to_owned();
    if apache_avro::Schema::parse_str(&text).is_err() {
        return fault(422, 42201, "Invalid schema");
    }
    let mut held = fake.held.lock().unwrap();
    if !reads_latest(&held, &subject, &text) {
        return fault(
            409,
            409,
            "Schema being registered is incompatible with an earlier schema",
        );
    }
    let same = held
        .schemas
        .iter()
        .find(|(_, registered)| registered["schema"] == json!(text))
        .map(|(id, _)| *id);
    let id = same.unwrap_or_else(|| held.schemas.keys().max().unwrap_or(&0) + 1);
    held.schemas.insert(id, json!({ "schema": text }));
    let ids = held.subjects.entry(subject).or_default();
    if !ids.contains(&id) {
        ids.push(id);
    }
    json!({ "id": id }).to_string().into_response()
}

async fn compatible(State(fake): State<Fake>, Path(subject): Path<String>, body: String) -> Response {
    let text = serde_json::from_str::<Value>(&body).unwrap()["schema"]
        .as_str()
        .unwrap()
        .to_owned();
    let held = fake.held.lock().unwrap();
    if !held.subjects.contains_key(&subject) {
        return fault(404, 40401, "Subject not found");
    }
    json!({ "is_compatible": reads_latest(&held, &subject, &text) })
        .to_string()
        .into_response()
}

async fn set_compatibility(body: String) -> Response {
    let level = serde_json::from_str::<Value>(&body).unwrap()["compatibility"]
        .as_str()
        .unwrap()
        .to_owned();
    match level.as_str() {
        "NONE" | "BACKWARD" | "BACKWARD_TRANSITIVE" | "FORWARD" | "FORWARD_TRANSITIVE" | "FULL" | "FULL_TRANSITIVE" => {
            json!({ "compatibility": level }).to_string().into_response()
        }
        _ => fault(422, 42203, "Invalid compatibility level"),
    }
}

fn reads_latest(held: &Held, subject: &str, text: &str) -> bool {
    let Some(latest) = held.subjects.get(subject).and_then(|ids| ids.last()) else {
        return true;
    };
    let writer = apache_avro::Schema::parse_str(held.schemas[latest]["schema"].as_str().unwrap()).unwrap();
    let reader = apache_avro::Schema::parse_str(text).unwrap();
    apache_avro::schema_compatibility::SchemaCompatibility::can_read(&writer, &reader).is_ok()
}
