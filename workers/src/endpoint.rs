//! gRPC endpoints from the pipeline file's addresses.

use std::path::{Path, PathBuf};
use std::time::Duration;

use pipeline::Tls;
use thiserror::Error;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Error, Identity};

/// Why an endpoint cannot be used.
#[derive(Debug, Error)]
pub enum EndpointError {
    /// The address, or what the certificates are.
    #[error("{url}: {}", deepest(.error))]
    Unusable {
        /// As the pipeline file has it.
        url: String,
        /// What is wrong.
        error: Error,
    },
    /// A file of certificates or of a key.
    #[error("{} can't be read: {error}", path.display())]
    Unread {
        /// As the pipeline file has it.
        path: PathBuf,
        /// What happened.
        error: std::io::Error,
    },
}

/// tonic says "transport error" and keeps the reason behind it.
fn deepest(error: &Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    causes.last().map_or_else(|| error.to_string(), ToString::to_string)
}

/// An endpoint that connects when it is used.
///
/// # Errors
/// See [`EndpointError`].
pub fn endpoint(url: &str, tls: Option<&Tls>) -> Result<Endpoint, EndpointError> {
    let unusable = |error| EndpointError::Unusable {
        url: url.to_owned(),
        error,
    };
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(unusable)?
        .connect_timeout(Duration::from_secs(2))
        // A peer that is gone without a word is noticed within seconds.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true);
    let Some(tls) = tls else { return Ok(endpoint) };
    endpoint.tls_config(certificates(tls)?).map_err(unusable)
}

/// What a client is to trust and to show.
///
/// # Errors
/// [`EndpointError::Unread`].
pub fn certificates(tls: &Tls) -> Result<ClientTlsConfig, EndpointError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| EndpointError::Unread {
            path: path.to_owned(),
            error,
        })
    };
    let mut config = ClientTlsConfig::new();
    if let Some(file) = &tls.ca_file {
        config = config.ca_certificate(Certificate::from_pem(read(file)?));
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_cannot_be_read_is_named() {
        let tls = Tls {
            ca_file: Some("no/such/ca.pem".into()),
            ..Tls::default()
        };
        let said = endpoint("https://127.0.0.1:1", Some(&tls)).unwrap_err().to_string();
        assert!(said.starts_with("no/such/ca.pem can't be read: "), "{said}");
    }

    #[test]
    fn an_address_that_is_none_is_named_with_the_reason() {
        let said = endpoint("http://[", None).unwrap_err().to_string();
        assert!(
            said.starts_with("http://[: ") && !said.contains("transport error"),
            "{said}"
        );
    }
}
