use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

use crate::health::body;
use crate::{Error, Health, Stop, bind};

/// How long a reader that doesn't read may hold up the end of the process.
const STOP_WAIT: Duration = Duration::from_secs(2);
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The running HTTP server of a role. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    /// Where it listens, with the real port.
    pub addr: SocketAddr,
    stop: Stop,
    task: JoinHandle<()>,
}

impl Server {
    /// Ends the server; requests that are being answered get two seconds.
    pub async fn stop(mut self) {
        self.stop.request();
        if tokio::time::timeout(STOP_WAIT, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.request();
    }
}

#[derive(Clone)]
struct Shown {
    registry: Arc<Registry>,
    health: Health,
}

/// Serves `/metrics` (OpenMetrics text), `/healthz` and `/readyz` (200 or 503, with the reasons as JSON) on `listen`.
///
/// # Errors
/// [`Error::Listen`] when the address can't be had.
pub async fn http(listen: &str, registry: Arc<Registry>, health: Health) -> Result<Server, Error> {
    let (listener, addr) = bind(listen).await?;
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route(
            "/healthz",
            get(async |State(shown): State<Shown>| answer(&shown.health.unhealthy())),
        )
        .route(
            "/readyz",
            get(async |State(shown): State<Shown>| answer(&shown.health.not_ready())),
        )
        .with_state(Shown { registry, health });
    let stop = Stop::new();
    let stopped = stop.clone();
    let serving = axum::serve(listener, routes).with_graceful_shutdown(async move { stopped.requested().await });
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!("the HTTP server on {addr} ended: {error}");
        }
    });
    Ok(Server { addr, stop, task })
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &shown.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn answer(reasons: &BTreeMap<String, String>) -> Response {
    let status = if reasons.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, axum::Json(body(reasons))).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::{Count, CountBy};

    async fn ask(addr: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(addr).await.expect("connects");
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("writes");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("reads");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let kind = head
            .lines()
            .find(|line| line.starts_with("content-type"))
            .expect("a content type");
        format!("{}|{kind}|{body}", head.lines().next().expect("a status"))
    }

    #[tokio::test]
    async fn metrics_health_and_readiness_are_shown_until_the_stop() {
        let mut registry = crate::registry();
        let (charges, parts) = (Count::default(), CountBy::default());
        registry.register("billing_charges", "Charges applied", charges.clone());
        registry.register("billing_parts", "Parts by outcome", parts.clone());
        charges.inc_by(3);
        parts.get_or_create(&vec![("outcome", "applied".to_owned())]).inc();
        let health = Health::new("billing");
        let server = http("127.0.0.1:0", Arc::new(registry), health.clone())
            .await
            .expect("listens");

        let json = "content-type: application/json";
        assert_eq!(
            ask(server.addr, "/healthz").await,
            format!("HTTP/1.1 200 OK|{json}|{{\"ok\":true,\"reasons\":{{}}}}")
        );
        assert_eq!(
            ask(server.addr, "/readyz").await,
            format!(
                "HTTP/1.1 503 Service Unavailable|{json}|{{\"ok\":false,\"reasons\":{{\"billing\":\"starting\"}}}}"
            )
        );
        health.ready(true, "");
        assert_eq!(
            ask(server.addr, "/readyz").await,
            format!("HTTP/1.1 200 OK|{json}|{{\"ok\":true,\"reasons\":{{}}}}")
        );
        let expected = "# HELP sluice_billing_charges Charges applied.\n# TYPE sluice_billing_charges counter\n\
            sluice_billing_charges_total 3\n# HELP sluice_billing_parts Parts by outcome.\n\
            # TYPE sluice_billing_parts counter\nsluice_billing_parts_total{outcome=\"applied\"} 1\n# EOF\n";
        assert_eq!(
            ask(server.addr, "/metrics").await,
            format!("HTTP/1.1 200 OK|content-type: {OPEN_METRICS}|{expected}")
        );

        let addr = server.addr;
        server.stop().await;
        assert!(TcpStream::connect(addr).await.is_err());
    }

    #[tokio::test]
    async fn an_address_that_is_taken_is_named() {
        let health = Health::new("billing");
        let first = http("127.0.0.1:0", Arc::new(crate::registry()), health.clone())
            .await
            .expect("listens");
        let taken = first.addr.to_string();
        let error = http(&taken, Arc::new(crate::registry()), health)
            .await
            .expect_err("taken")
            .to_string();
        assert!(error.starts_with(&format!("cannot listen on {taken}: ")), "{error}");
    }
}
