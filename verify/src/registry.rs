//! The schema registry, asked directly: the ids that the log names and the versions of each subject.

use std::collections::HashMap;
use std::time::Duration;

use apache_avro::Schema;
use pipeline::{Pipeline, Tls};
use serde_json::Value as Json;

use crate::error::Error;

const ANSWER_MAX: Duration = Duration::from_secs(15);

/// What stands behind a schema id.
#[derive(Debug, Clone)]
pub enum Answer {
    Schema(Schema),
    /// The registry says that there is no such id.
    Unknown,
    /// It is something else than Avro that parses.
    Unusable,
}

/// See the module.
pub struct Registry {
    client: reqwest::Client,
    url: String,
    credentials: Option<(String, String)>,
    answers: HashMap<u32, Answer>,
}

/// An HTTP client that trusts what the pipeline file says.
pub fn http(part: &'static str, tls: Option<&Tls>) -> Result<reqwest::Client, Error> {
    let bad = |reason: String| Error::Settings { part, reason };
    // A second installation answers with an error that says just that.
    drop(rustls::crypto::ring::default_provider().install_default());
    let mut builder = reqwest::Client::builder();
    if let Some(file) = tls.and_then(|tls| tls.ca_file.as_ref()) {
        let pem = std::fs::read(file).map_err(|error| bad(format!("{}: {error}", file.display())))?;
        let certificates = reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
        builder = builder.tls_certs_only(certificates);
    }
    if let Some((cert, key)) = tls.and_then(|tls| tls.cert_file.as_ref().zip(tls.key_file.as_ref())) {
        let mut pem = std::fs::read(cert).map_err(|error| bad(format!("{}: {error}", cert.display())))?;
        pem.push(b'\n');
        pem.extend(std::fs::read(key).map_err(|error| bad(format!("{}: {error}", key.display())))?);
        builder = builder.identity(reqwest::Identity::from_pem(&pem).map_err(|error| bad(error.to_string()))?);
    }
    builder.build().map_err(|error| bad(error.to_string()))
}

impl Registry {
    pub fn connect(pipeline: &Pipeline, url: &str) -> Result<Registry, Error> {
        let settings = &pipeline.connections.registry;
        let password = settings.password.as_ref().map(pipeline::Secret::read).transpose();
        let password = password.map_err(|error| Error::Settings {
            part: "registry",
            reason: error.to_string(),
        })?;
        Ok(Registry {
            client: http("registry", settings.tls.as_ref())?,
            url: url.trim_end_matches('/').to_owned(),
            credentials: settings.user.clone().map(|user| (user, password.unwrap_or_default())),
            answers: HashMap::new(),
        })
    }

    /// `None` = 404.
    async fn get(&self, path: &str) -> Result<Option<Json>, Error> {
        let failed = |reason: String| Error::Registry {
            doing: format!("GET {path}"),
            reason,
        };
        let mut request = self.client.get(format!("{}{path}", self.url)).timeout(ANSWER_MAX);
        if let Some((user, password)) = &self.credentials {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await.map_err(|error| failed(error.to_string()))?;
        if answer.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = answer.error_for_status().map_err(|error| failed(error.to_string()))?;
        answer.json().await.map(Some).map_err(|error| failed(error.to_string()))
    }

    /// What the id stands for; asked once.
    pub async fn schema(&mut self, id: u32) -> Result<Answer, Error> {
        if let Some(answer) = self.answers.get(&id) {
            return Ok(answer.clone());
        }
        let answer = match self.get(&format!("/schemas/ids/{id}")).await? {
            None => Answer::Unknown,
            Some(answer) => parse(&answer).map_or(Answer::Unusable, Answer::Schema),
        };
        self.answers.insert(id, answer.clone());
        Ok(answer)
    }

    /// All versions of a subject that parse, oldest first.
    pub async fn versions(&self, subject: &str) -> Result<Vec<Schema>, Error> {
        let path = format!("/subjects/{}/versions", encoded(subject));
        let missing = |path: &str| Error::Registry {
            doing: format!("GET {path}"),
            reason: "not found".to_owned(),
        };
        let numbers = self.get(&path).await?.ok_or_else(|| missing(&path))?;
        let mut versions = Vec::new();
        for number in numbers.as_array().into_iter().flatten().filter_map(Json::as_u64) {
            let path = format!("{path}/{number}");
            let answer = self.get(&path).await?.ok_or_else(|| missing(&path))?;
            versions.extend(parse(&answer));
        }
        Ok(versions)
    }
}

fn parse(answer: &Json) -> Option<Schema> {
    match answer.get("schemaType").and_then(Json::as_str) {
        None | Some("AVRO") => Schema::parse_str(answer.get("schema")?.as_str()?).ok(),
        Some(_) => None,
    }
}

/// A text as a part of an address.
pub fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}
