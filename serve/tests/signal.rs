//! A program of its own, because it sends a signal to itself, and because the fork for `kill` would hold the listeners of
//! tests beside it open for a moment.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends by a panic"
)]

use std::future::{Future, poll_fn};
use std::task::Poll;

#[tokio::test]
async fn sigterm_resolves_the_stop_signal() {
    let mut waiting = Box::pin(serve::stop_signal());
    // The handler is installed by the first poll; only then may the signal be sent.
    let early = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_ready())).await;
    assert!(!early);
    let pid = std::process::id().to_string();
    let sent = tokio::process::Command::new("kill")
        .args(["-TERM", &pid])
        .status()
        .await
        .expect("kill runs");
    assert!(sent.success());
    waiting.await;
}
