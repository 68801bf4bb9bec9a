//! The registry's HTTP interface: Confluent's API, which Apicurio and Karapace speak, too.
//!
//! Each answer gets its verdict in [`Client::ask`], in one place: what is definite, what is worth waiting for, what an
//! operator must see.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{Error, Settings};

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// Confluent's own limit for a schema is 1 MiB; an answer far above is a mistake and must not fill the memory.
const ANSWER_BYTES_MAX: usize = 8 << 20;
const BODY_SHOWN_CHARS_MAX: usize = 300;
/// Schemas that one schema may pull in by references.
const REFERENCES_MAX: usize = 100;

/// What the registry says of an id or a version.
#[derive(Debug, Deserialize)]
pub(crate) struct Registered {
    pub id: Option<u32>,
    pub schema: String,
    #[serde(rename = "schemaType")]
    pub schema_type: Option<String>,
    #[serde(default)]
    pub references: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Reference {
    pub subject: String,
    pub version: i32,
}

/// A definite answer.
enum Answer<T> {
    Found(T),
    /// 404 with one of Confluent's codes for "no such subject, version or schema".
    Absent,
}

#[derive(Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: Url,
    credentials: Option<(String, Option<String>)>,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Settings { reason };
        let mut base =
            Url::parse(&settings.url).map_err(|error| invalid(format!("url {:?}: {error}", settings.url)))?;
        if !matches!(base.scheme(), "http" | "https") || base.cannot_be_a_base() {
            return Err(invalid(format!(
                "url {:?} must begin with http:// or https://",
                settings.url
            )));
        }
        let mut credentials = settings.user.clone().map(|user| (user, settings.password.clone()));
        if credentials.is_none() && !base.username().is_empty() {
            credentials = Some((base.username().to_owned(), base.password().map(str::to_owned)));
        }
        // Credentials must not come back in an error message. Setting them fails only for urls without a host.
        if base.set_username("").is_err() || base.set_password(None).is_err() {
            return Err(invalid(format!("url {:?} has no host", settings.url)));
        }
        Ok(Self {
            http: http_client(settings, base.scheme() == "http")?,
            base,
            credentials,
        })
    }

    /// The address without credentials, for messages and to tell one registry's snapshot from another's.
    pub(crate) fn address(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    pub(crate) async fn by_id(&self, id: u32) -> Result<Registered, Error> {
        let path = ["schemas", "ids", &id.to_string()];
        match self.ask(Method::GET, &path, None).await? {
            Answer::Found(registered) => Ok(registered),
            Answer::Absent => Err(Error::Unknown { id }),
        }
    }

    pub(crate) async fn versions(&self, subject: &str) -> Result<Vec<i32>, Error> {
        match self.ask(Method::GET, &["subjects", subject, "versions"], None).await? {
            Answer::Found(versions) => Ok(versions),
            Answer::Absent => Err(Error::UnknownSubject {
                subject: subject.to_owned(),
            }),
        }
    }

    pub(crate) async fn version(&self, subject: &str, version: i32) -> Result<Registered, Error> {
        let path = ["subjects", subject, "versions", &version.to_string()];
        match self.ask(Method::GET, &path, None).await? {
            Answer::Found(registered) => Ok(registered),
            Answer::Absent => Err(Error::UnknownSubject {
                subject: format!("{subject} version {version}"),
            }),
        }
    }

    /// The texts of everything `registered` refers to, innermost first, each once.
    pub(crate) async fn references(&self, id: u32, registered: &Registered) -> Result<Vec<String>, Error> {
        enum Step {
            Open(String, i32),
            Close(String),
        }
        let open = |references: &[Reference]| {
            references
                .iter()
                .rev()
                .map(|r| Step::Open(r.subject.clone(), r.version))
                .collect::<Vec<_>>()
        };
        let mut steps = open(&registered.references);
        let mut seen = std::collections::HashSet::new();
        let mut texts = Vec::new();
        while let Some(step) = steps.pop() {
            match step {
                Step::Close(text) => texts.push(text),
                Step::Open(subject, version) => {
                    if !seen.insert((subject.clone(), version)) {
                        continue;
                    }
                    if seen.len() > REFERENCES_MAX {
                        let reason = format!("refers to more than {REFERENCES_MAX} other schemas");
                        return Err(Error::Unusable { id, reason });
                    }
                    let inner = self.version(&subject, version).await.map_err(|error| match error {
                        Error::UnknownSubject { subject } => Error::Unusable {
                            id,
                            reason: format!("refers to {subject}, which the registry does not have"),
                        },
                        other => other,
                    })?;
                    steps.push(Step::Close(inner.schema));
                    steps.extend(open(&inner.references));
                }
            }
        }
        Ok(texts)
    }

    pub(crate) async fn register(&self, subject: &str, text: &str) -> Result<u32, Error> {
        #[derive(Deserialize)]
        struct Id {
            id: u32,
        }
        let body = serde_json::json!({ "schema": text });
        match self
            .ask::<Id>(Method::POST, &["subjects", subject, "versions"], Some(body))
            .await?
        {
            Answer::Found(found) => Ok(found.id),
            Answer::Absent => Err(Error::UnknownSubject {
                subject: subject.to_owned(),
            }),
        }
    }

    pub(crate) async fn compatible(&self, subject: &str, text: &str) -> Result<bool, Error> {
        #[derive(Deserialize)]
        struct Verdict {
            is_compatible: bool,
        }
        let path = ["compatibility", "subjects", subject, "versions", "latest"];
        let body = serde_json::json!({ "schema": text });
        match self.ask::<Verdict>(Method::POST, &path, Some(body)).await? {
            Answer::Found(verdict) => Ok(verdict.is_compatible),
            // A first version has nothing to be compatible with.
            Answer::Absent => Ok(true),
        }
    }

    pub(crate) async fn set_compatibility(&self, subject: Option<&str>, level: &str) -> Result<(), Error> {
        let mut path = vec!["config"];
        path.extend(subject);
        let body = serde_json::json!({ "compatibility": level });
        match self.ask::<serde_json::Value>(Method::PUT, &path, Some(body)).await? {
            Answer::Found(_) => Ok(()),
            Answer::Absent => Err(Error::UnknownSubject {
                subject: subject.unwrap_or_default().to_owned(),
            }),
        }
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &[&str],
        body: Option<serde_json::Value>,
    ) -> Result<Answer<T>, Error> {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        let mut request = self
            .http
            .request(method, url.clone())
            .header("accept", format!("{CONTENT_TYPE}, application/json"));
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, password.as_deref());
        }
        if let Some(body) = body {
            request = request.header("content-type", CONTENT_TYPE).body(body.to_string());
        }
        let unreachable = |reason: String| Error::Unreachable {
            url: url.to_string(),
            reason,
        };
        let silent = |error: reqwest::Error| unreachable(format!("unreachable: {}", innermost(&error)));
        let mut response = request.send().await.map_err(silent)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(silent)? {
            if bytes.len() + chunk.len() > ANSWER_BYTES_MAX {
                let body = format!("the answer is larger than {ANSWER_BYTES_MAX} bytes");
                return Err(Error::Refused {
                    status: status.as_u16(),
                    body,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        if status.is_success() {
            return serde_json::from_slice(&bytes).map(Answer::Found).map_err(|error| {
                unreachable(format!(
                    "answered {status} with something else than the registry's JSON: {error}"
                ))
            });
        }
        match verdict(status, &bytes) {
            Verdict::Absent => Ok(Answer::Absent),
            Verdict::Wait => Err(unreachable(format!("answered {status}: {}", shown(&bytes)))),
            Verdict::Refused => Err(Error::Refused {
                status: status.as_u16(),
                body: shown(&bytes),
            }),
        }
    }
}

enum Verdict {
    Absent,
    Wait,
    Refused,
}

/// A 404 counts as "absent" only with Confluent's code in the body: a proxy's or a wrong path's 404 says nothing about a
/// schema, and an event must not be dead-lettered for it.
fn verdict(status: StatusCode, bytes: &[u8]) -> Verdict {
    #[derive(Deserialize)]
    struct Fault {
        error_code: i64,
    }
    let code = serde_json::from_slice::<Fault>(bytes)
        .map(|fault| fault.error_code)
        .ok();
    match (status.as_u16(), code) {
        (404, Some(40401..=40403)) => Verdict::Absent,
        (408 | 425 | 429, _) | (500..=599, _) => Verdict::Wait,
        _ => Verdict::Refused,
    }
}

fn shown(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown: String = text.trim().chars().take(BODY_SHOWN_CHARS_MAX).collect();
    if shown.len() < text.trim().len() {
        shown.push('…');
    }
    shown
}

/// reqwest's own sentence repeats the url and hides the cause at the end of the chain.
fn innermost(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn http_client(settings: &Settings, plain: bool) -> Result<reqwest::Client, Error> {
    let invalid = |reason: String| Error::Settings { reason };
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may install one at the same moment; either will do.
        if rustls::crypto::ring::default_provider().install_default().is_err() {}
    }
    let mut builder = reqwest::Client::builder()
        .timeout(settings.timeout)
        .connect_timeout(settings.timeout / 3)
        // A registry that was restarted has closed what we kept open.
        .pool_idle_timeout(Duration::from_secs(20))
        .no_proxy();
    if let Some(pem) = &settings.ca_pem {
        let authorities =
            reqwest::Certificate::from_pem_bundle(pem).map_err(|error| invalid(format!("ca certificate: {error}")))?;
        builder = builder.tls_certs_only(authorities);
    } else if plain {
        // Reading the system's certificates takes time and fails where there are none.
        builder = builder.tls_certs_only([]);
    }
    if let Some(identity) = &settings.identity {
        let identity = reqwest::Identity::from_pem(&identity.pem)
            .map_err(|error| invalid(format!("client certificate: {error}")))?;
        builder = builder.identity(identity);
    }
    builder
        .build()
        .map_err(|error| invalid(format!("http client: {}", innermost(&error))))
}
