//! The circuit breaker before what a worker's lanes ask ClickHouse for again and again: inserts, feedings and read-backs. With
//! metrics, and a word in `/readyz`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::breaker::{Breaker, Pass};
use crate::metrics::Metrics;

/// Shared by the lanes of a worker.
pub struct Guard {
    breaker: Breaker,
    metrics: Arc<Metrics>,
    health: serve::Health,
}

impl Guard {
    /// A closed one.
    pub fn new(metrics: Arc<Metrics>, health: serve::Health) -> Guard {
        let breaker = Breaker::default();
        Guard {
            breaker,
            metrics,
            health,
        }
    }

    /// Waits until something may be sent, which may then be the probe: tell [`Guard::heed`] what came of it. False once there
    /// is no time `left` to wait.
    pub async fn turn(&self, left: impl Fn() -> Duration) -> bool {
        loop {
            let pass = self.breaker.ask(Instant::now());
            self.metrics.breaker(self.breaker.state(), false);
            let Pass::Wait(pause) = pass else {
                return true;
            };
            let left = left();
            if left.is_zero() {
                return false;
            }
            tokio::time::sleep(pause.min(left)).await;
        }
    }

    /// Takes into account what came of a request: `overload` if it looks like a server that is away or does not keep up.
    pub fn heed(&self, overload: bool) {
        let opened = if overload {
            self.breaker.failed(Instant::now())
        } else {
            self.breaker.succeeded();
            false
        };
        self.metrics.breaker(self.breaker.state(), opened);
        if opened {
            tracing::warn!("ClickHouse does not keep up: it is asked for nothing for a while, then for one thing");
            self.health
                .part("clickhouse")
                .ready(false, "away, or does not keep up: the circuit breaker is open");
        }
    }
}
