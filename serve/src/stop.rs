use std::sync::Arc;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks the parts of a role to finish what is in flight and end. Clones share one request; a request can't be taken back.
#[derive(Clone, Debug)]
pub struct Stop {
    requested: Arc<watch::Sender<bool>>,
}

impl Stop {
    /// A stop that nobody has requested yet.
    pub fn new() -> Self {
        Self {
            requested: Arc::new(watch::Sender::new(false)),
        }
    }

    /// A stop that SIGTERM or SIGINT requests. Must be called inside a tokio runtime.
    pub fn on_signal() -> Self {
        let stop = Self::new();
        let requester = stop.clone();
        tokio::spawn(async move {
            stop_signal().await;
            requester.request();
        });
        stop
    }

    /// Requests the stop and wakes everyone who waits for it.
    pub fn request(&self) {
        self.requested.send_replace(true);
    }

    /// Whether the stop has been requested.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }

    /// Resolves when the stop is requested; at once when it was requested before. Safe to drop and call again.
    pub async fn requested(&self) {
        let mut seen = self.requested.subscribe();
        // `self` holds the sender, so the wait can only end by the request.
        while !*seen.borrow_and_update() {
            if seen.changed().await.is_err() {
                return;
            }
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self::new()
    }
}

/// Resolves on SIGTERM (an orchestrator's request) or SIGINT (Ctrl-C).
///
/// From the first call on, these signals no longer end the process by themselves.
pub async fn stop_signal() {
    let name = tokio::select! {
        () = one(SignalKind::terminate()) => "SIGTERM",
        () = one(SignalKind::interrupt()) => "SIGINT",
    };
    tracing::info!("{name}: finishing what is in flight");
}

async fn one(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            // The signal keeps its default action, which ends the process at once: safe, only not graceful.
            tracing::error!("cannot wait for {kind:?}, so a stop by it will not drain: {error}");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_reaches_those_who_wait_and_those_who_come_later() {
        let stop = Stop::new();
        assert!(!stop.is_requested());
        let waiter = tokio::spawn({
            let stop = stop.clone();
            async move { stop.requested().await }
        });
        stop.request();
        waiter.await.expect("the waiter ends");
        stop.clone().requested().await;
        assert!(stop.is_requested());
    }
}
