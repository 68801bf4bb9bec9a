//! gRPC endpoints of the billing and the rules service, as the pipeline file describes them.

use std::path::Path;
use std::time::Duration;

use pipeline::Tls;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};

/// Until a connection stands.
const CONNECT_MAX: Duration = Duration::from_secs(10);

/// An endpoint that nobody has connected to yet. The error says what is wrong with the address or with a certificate.
pub fn endpoint(url: &str, tls: Option<&Tls>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(CONNECT_MAX);
    let Some(tls) = tls else { return Ok(endpoint) };
    let read = |file: &Path| std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()));
    let mut config = ClientTlsConfig::new();
    if let Some(file) = &tls.ca_file {
        config = config.ca_certificate(Certificate::from_pem(read(file)?));
    }
    if let (Some(cert), Some(key)) = (&tls.cert_file, &tls.key_file) {
        config = config.identity(Identity::from_pem(read(cert)?, read(key)?));
    }
    endpoint.tls_config(config).map_err(|error| error.to_string())
}
