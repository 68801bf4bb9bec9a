use crate::support::*;
use chaos::proxy::{Fault, InjectError, Wire};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// A server that sends back what it gets.
pub const ECHO: Speaks = Speaks {
    split: |bytes| (!bytes.is_empty()).then_some(bytes.len()),
    answer: |bytes| bytes.to_vec(),
    last: |_| false,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_struck_passes_byte_by_byte() {
    let target = Target::start(ECHO).await;
    let proxy = proxy(&target, Wire::Bytes).await;
    let stream = noise(1, 10_000_000);

    Client::to(&proxy).await.exchange(stream.clone(), &stream).await;

    assert!(target.requests().concat() == stream);
    assert_struck(&proxy, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_cut_after_so_many_bytes_since_the_strike() {
    let target = Target::start(ECHO).await;
    let proxy = proxy(&target, Wire::Bytes).await;
    for (number, after) in [0, 1, 1000, 400_000].into_iter().enumerate() {
        let before = target.requests().concat().len();
        let mut client = Client::to(&proxy).await;
        let stream = noise(2, 500_000);
        client.ask(&target, &stream[..5000]).await;
        proxy.inject(once(Fault::CutRequest { after })).unwrap();

        client.0.write_all(&stream).await.ok();

        client.rest().await;
        until("the end of the cut connection", || target.ended() == number + 1).await;
        let arrived = &target.requests().concat()[before..];
        assert!(
            arrived == [&stream[..5000], &stream[..after]].concat(),
            "cut at {after}"
        );
        assert_struck(&proxy, 1);
        proxy.inject(None).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_target_sends_next_is_dropped_and_the_connection_closed() {
    let target = Target::start(ECHO).await;
    let proxy = proxy(&target, Wire::Bytes).await;
    let mut client = Client::to(&proxy).await;
    client.ask(&target, b"first").await;
    proxy.inject(once(Fault::DropAnswer)).unwrap();

    client.send(b"struck").await;

    assert_eq!(client.rest().await, b"");
    assert_eq!(target.requests().concat(), b"firststruck");
    Client::to(&proxy).await.ask(&target, b"next").await;
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_answer_comes_whole_and_not_before_its_time() {
    let target = Target::start(ECHO).await;
    let proxy = proxy(&target, Wire::Bytes).await;
    let delay = Duration::from_millis(300);
    let mut client = Client::to(&proxy).await;
    proxy.inject(once(Fault::DelayAnswer(delay))).unwrap();
    let begun = Instant::now();
    client.ask(&target, b"struck").await;
    assert!(begun.elapsed() >= delay);
    client.ask(&target, b"next").await;
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_refused_and_what_was_injected_goes_on() {
    let target = Target::start(ECHO).await;
    let proxy = proxy(&target, Wire::Bytes).await;
    proxy.inject(once(Fault::DropAnswer)).unwrap();
    let refused = proxy.inject(once(Fault::Twice)).unwrap_err();
    assert!(matches!(refused, InjectError::NotOffered { .. }));
    assert_eq!(
        refused.to_string(),
        "Twice is not offered on Bytes: where a request ends is not known; use CutRequest or DropAnswer"
    );
    let mut client = Client::to(&proxy).await;
    client.send(b"struck").await;
    assert_eq!(client.rest().await, b"");
    assert_struck(&proxy, 1);
}
