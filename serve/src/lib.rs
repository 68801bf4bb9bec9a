//! What every role offers besides its work: logs, `/metrics`, `/healthz`, `/readyz`, and a stop that drains.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod logs;
mod stop;
mod health;
mod metrics;
mod http;
mod grpc;

pub use grpc::{Grpc, grpc};
pub use health::Health;
pub use http::{Server, http};
pub use logs::logs;
pub use metrics::{Count, CountBy, registry, seconds};
pub use stop::{Stop, stop_signal};

/// Why a role could not offer its addresses.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is not one, is taken, or needs a right that this process doesn't have.
    #[error("cannot listen on {listen}: {reason}; give another address or port 0 for a free one")]
    Listen {
        /// The address as it was given.
        listen: String,
        /// The operating system's reason.
        reason: String,
    },
}

async fn bind(listen: &str) -> Result<(tokio::net::TcpListener, std::net::SocketAddr), Error> {
    let refused = |error: std::io::Error| Error::Listen {
        listen: listen.to_owned(),
        reason: error.to_string(),
    };
    let listener = tokio::net::TcpListener::bind(listen).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    Ok((listener, addr))
}
