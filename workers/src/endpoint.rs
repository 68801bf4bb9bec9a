//! gRPC endpoints from the pipeline file's addresses.

use std::time::Duration;

use pipeline::Tls;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Error, Identity};

/// An endpoint that connects when it is used. Files that cannot be read leave TLS without them; the handshake then
/// says which certificate is missing.
pub fn endpoint(url: &str, tls: Option<&Tls>) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(url.to_string())?
        .connect_timeout(Duration::from_secs(2))
        // A peer that is gone without a word is noticed within seconds.
        .http2_keep_alive_interval(Duration::from_secs(5))
        .keep_alive_timeout(Duration::from_secs(5))
        .tcp_nodelay(true);
    let Some(tls) = tls else { return Ok(endpoint) };
    let read = |path: &Option<std::path::PathBuf>| path.as_ref().and_then(|path| std::fs::read(path).ok());
    let mut config = ClientTlsConfig::new();
    if let Some(ca) = read(&tls.ca_file) {
        config = config.ca_certificate(Certificate::from_pem(ca));
    }
    if let (Some(cert), Some(key)) = (read(&tls.cert_file), read(&tls.key_file)) {
        config = config.identity(Identity::from_pem(cert, key));
    }
    endpoint.tls_config(config)
}
