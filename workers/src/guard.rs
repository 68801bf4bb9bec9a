//! The circuit breakers before what a worker's lanes ask ClickHouse for again and again. With metrics, and a word in `/readyz`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::breaker::{Breaker, Pass, Permit};
use crate::metrics::Metrics;

/// What is asked for. A server may answer questions and not be able to write, so that each kind has a breaker of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requests {
    /// Inserts and feedings.
    Writes,
    /// Read-backs.
    Reads,
}

impl Requests {
    /// The metrics' label.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Requests::Writes => "writes",
            Requests::Reads => "reads",
        }
    }
}

/// Shared by the lanes of a worker. A lock is held for a few comparisons, twice for each request.
pub struct Guard {
    writes: Mutex<Breaker>,
    reads: Mutex<Breaker>,
    metrics: Arc<Metrics>,
    health: serve::Health,
}

/// For one request. Dropped without a word, it is given up.
#[must_use]
pub struct Turn<'a> {
    guard: &'a Guard,
    requests: Requests,
    permit: Option<Permit>,
}

impl Guard {
    /// With both closed.
    pub fn new(metrics: Arc<Metrics>, health: serve::Health) -> Guard {
        Guard {
            writes: Mutex::default(),
            reads: Mutex::default(),
            metrics,
            health,
        }
    }

    /// Waits until something may be sent. `None` once there is no time `left` to wait.
    pub async fn turn(&self, requests: Requests, left: impl Fn() -> Duration) -> Option<Turn<'_>> {
        loop {
            let pause = match self.with(requests, |breaker| breaker.ask(Instant::now())) {
                Pass::Go(permit) => {
                    return Some(Turn {
                        guard: self,
                        requests,
                        permit: Some(permit),
                    });
                }
                Pass::Wait(pause) => pause,
            };
            let left = left();
            if left.is_zero() {
                return None;
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// Called now and then: a breaker that is open and that nobody waits for any more is closed, and is no reason not to be ready. The
    /// partitions whose requests have opened it are another worker's.
    pub fn look(&self) {
        for requests in [Requests::Writes, Requests::Reads] {
            self.with(requests, |breaker| {
                if breaker.forget(Instant::now()) {
                    self.tell_health(requests, "");
                }
            });
        }
    }

    /// Under the lock, so that metric and health show the last change last.
    fn with<T>(&self, requests: Requests, act: impl FnOnce(&mut Breaker) -> T) -> T {
        let breaker = match requests {
            Requests::Writes => &self.writes,
            Requests::Reads => &self.reads,
        };
        let mut breaker = breaker.lock().unwrap_or_else(PoisonError::into_inner);
        let done = act(&mut breaker);
        self.metrics.breaker(requests.name(), breaker.state());
        done
    }

    fn tell_health(&self, requests: Requests, reason: &str) {
        let part = self.health.part(&format!("clickhouse {}", requests.name()));
        part.ready(reason.is_empty(), reason);
    }
}

impl Turn<'_> {
    /// Everybody else waits for this one: it had better not take long.
    pub fn is_probe(&self) -> bool {
        self.permit.as_ref().is_some_and(Permit::is_probe)
    }

    /// Tells what came of it: `overload` if it looks like a server that is away or does not keep up.
    pub fn tell(mut self, overload: bool) {
        let Some(permit) = self.permit.take() else { return };
        let (guard, requests) = (self.guard, self.requests);
        let changed = guard.with(requests, |breaker| {
            let (changed, reason) = if overload {
                let opened = breaker.failed(permit, Instant::now());
                (opened, "the circuit breaker is open: away, or does not keep up")
            } else {
                (breaker.succeeded(permit), "")
            };
            if changed {
                guard.tell_health(requests, reason);
            }
            changed
        });
        match (changed, overload) {
            (true, true) => {
                guard.metrics.breaker_opened(requests.name());
                tracing::warn!(
                    requests = requests.name(),
                    "ClickHouse does not keep up: it is asked for nothing for a while, then for one thing"
                );
            }
            (true, false) => tracing::info!(requests = requests.name(), "ClickHouse keeps up again"),
            (false, _) => {}
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.guard
                .with(self.requests, |breaker| breaker.given_up(permit, Instant::now()));
        }
    }
}
