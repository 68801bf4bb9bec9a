//! Registers the example schemas, as any producer does before its first event. A client of its own: what drives Sluice must not
//! share code with what it checks.

use std::time::Duration;

use crate::Error;
use crate::event::EventType;

/// Where the registry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryAddress {
    /// Base of the Confluent API.
    pub url: String,
    /// User and password of HTTP basic authentication.
    pub credentials: Option<(String, String)>,
}

/// Registers a version of an event type's schema under a subject and answers its id. The same schema again answers the same id.
///
/// # Errors
/// [`Error::Registry`] when the registry doesn't answer or refuses.
pub async fn register(address: &RegistryAddress, subject: &str, event: EventType, version: u32) -> Result<u32, Error> {
    let schema = event.schema(version).ok_or_else(|| Error::Registry {
        url: address.url.clone(),
        reason: format!("{event} has no version {version}"),
    })?;
    register_schema(address, subject, schema).await
}

/// The same for any Avro schema.
///
/// # Errors
/// Like [`register`].
pub async fn register_schema(address: &RegistryAddress, subject: &str, schema: &str) -> Result<u32, Error> {
    let fault = |reason: String| Error::Registry {
        url: address.url.clone(),
        reason,
    };
    let mut url = reqwest::Url::parse(&address.url).map_err(|error| fault(error.to_string()))?;
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(["subjects", subject, "versions"]);
    }
    let mut request = client(&address.url)
        .map_err(|error| fault(error.to_string()))?
        .post(url)
        .header("content-type", "application/vnd.schemaregistry.v1+json")
        .body(serde_json::json!({ "schema": schema }).to_string());
    if let Some((user, password)) = &address.credentials {
        request = request.basic_auth(user, Some(password));
    }
    let response = request.send().await.map_err(|error| fault(error.to_string()))?;
    let status = response.status();
    let body = response.text().await.map_err(|error| fault(error.to_string()))?;
    let answer: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    match answer["id"].as_u64().and_then(|id| u32::try_from(id).ok()) {
        Some(id) if status.is_success() => Ok(id),
        _ => Err(fault(format!("registering {subject} was answered {status}: {body}"))),
    }
}

/// A client for `http` and `https`, with TLS by ring.
/// An HTTP client of `url` with a patience of 10 s.
///
/// # Errors
/// When the system's certificates cannot be read.
pub fn client(url: &str) -> reqwest::Result<reqwest::Client> {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Somebody else may install one at the same moment; either will do.
        if rustls::crypto::ring::default_provider().install_default().is_err() {}
    }
    let mut builder = reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy();
    if url.starts_with("http://") {
        // Reading the system's certificates takes time and fails where there are none.
        builder = builder.tls_certs_only([]);
    }
    builder.build()
}
