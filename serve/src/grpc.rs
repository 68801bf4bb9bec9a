use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::{Error, Stop, bind};

/// A peer that is gone without a word (a pulled cable) is noticed after an interval and a timeout.
const KEEPALIVE: Duration = Duration::from_secs(20);

/// A running gRPC server.
#[derive(Debug)]
pub struct Grpc {
    /// Where it listens, with the real port.
    pub addr: SocketAddr,
    task: JoinHandle<()>,
}

impl Grpc {
    /// Resolves when the server has ended: after the stop was requested, and its calls were answered or cut off.
    pub async fn ended(self) {
        if let Err(error) = self.task.await {
            tracing::error!("the gRPC server on {} broke: {error}", self.addr);
        }
    }
}

/// Serves `routes` on `listen` until `stop`; then no new call is taken and those in flight get `drain` to end.
///
/// Streams that have no end of their own have to watch `stop` themselves, or they are cut off after `drain`.
///
/// # Errors
/// [`Error::Listen`] when the address can't be had.
pub async fn grpc(listen: &str, routes: Routes, stop: Stop, drain: Duration) -> Result<Grpc, Error> {
    let (listener, addr) = bind(listen).await?;
    let task = tokio::spawn(async move {
        let serving = Server::builder()
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE))
            .tcp_nodelay(true)
            .add_routes(routes)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop.requested());
        let cut_off = async {
            stop.requested().await;
            tokio::time::sleep(drain).await;
        };
        tokio::select! {
            ended = serving => if let Err(error) = ended {
                tracing::error!("the gRPC server on {addr} ended: {error}");
            },
            () = cut_off => tracing::warn!("calls on {addr} were cut off: they did not end within {drain:?}"),
        }
    });
    Ok(Grpc { addr, task })
}
