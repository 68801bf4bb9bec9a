use crate::support::*;
use chaos::proxy::{Fault, Only, Strike, Wire};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;

/// A broker that answers each request with its correlation id and its bytes in reverse.
pub const BROKER: Speaks = Speaks {
    split,
    answer,
    last: |_| false,
};

const PRODUCE: i16 = 0;
const FETCH: i16 = 1;
const END_TXN: i16 = 26;

fn split(bytes: &[u8]) -> Option<usize> {
    let length = i32::from_be_bytes(bytes.get(..4)?.try_into().unwrap());
    let whole = 4 + usize::try_from(length).unwrap();
    (bytes.len() >= whole).then_some(whole)
}

fn answer(request: &[u8]) -> Vec<u8> {
    let reversed: Vec<u8> = request[4..].iter().rev().copied().collect();
    frame(&[&request[8..12], &reversed])
}

fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = i32::try_from(content.len()).unwrap().to_be_bytes();
    [&length[..], &content].concat()
}

pub fn request(api_key: i16, correlation: i32, payload: &[u8]) -> Vec<u8> {
    frame(&[
        &api_key.to_be_bytes(),
        &3_i16.to_be_bytes(),
        &correlation.to_be_bytes(),
        payload,
    ])
}

fn end_txn(fault: Fault) -> Option<Strike> {
    once_at(Only::ApiKey(END_TXN), fault)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_struck_passes_byte_by_byte_pipelined_and_large() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    proxy.inject(end_txn(Fault::DropAnswer)).unwrap();
    let sizes = [0, 1, 40, 3_000_000, 65_524, 65_536, 900];
    // More than wait for an answer at a time.
    let requests: Vec<Vec<u8>> = (0..3000_i32)
        .map(|number| {
            let size = if number % 1000 < 7 {
                sizes[number as usize % 1000]
            } else {
                number as usize % 50
            };
            request(
                if number % 2 == 0 { PRODUCE } else { FETCH },
                number - 7,
                &noise(number as u64, size),
            )
        })
        .collect();
    let answers: Vec<u8> = requests.iter().flat_map(|request| answer(request)).collect();

    Client::to(&proxy).await.exchange(requests.concat(), &answers).await;

    assert_same(&target.requests(), &requests);
    assert_struck(&proxy, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_request_that_is_cut_exactly_so_many_bytes_arrive() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    let (first, struck) = (request(PRODUCE, 1, b"x"), request(END_TXN, 2, &noise(1, 200_000)));
    for after in [3, 4, 11, 12, 100_000, struck.len() - 1] {
        let before = target.count();
        let mut client = Client::to(&proxy).await;
        proxy.inject(end_txn(Fault::CutRequest { after })).unwrap();
        client.ask(&target, &first).await;

        client.0.write_all(&struck).await.ok();

        assert_eq!(client.rest().await, b"", "cut at {after}");
        until("what was not cut off", || target.count() == before + 2).await;
        let seen = &target.seen()[before + 1];
        assert_eq!((&seen.bytes[..], seen.whole), (&struck[..after], false));
        assert_struck(&proxy, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_answer_comes_after_those_before_it() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    proxy.inject(end_txn(Fault::DropAnswer)).unwrap();
    let requests = [
        request(PRODUCE, 1, &noise(1, 1_000_000)),
        request(END_TXN, 2, b"commit"),
    ];
    let mut client = Client::to(&proxy).await;

    client.send(&requests.concat()).await;

    assert_eq!(client.rest().await, answer(&requests[0]));
    assert_same(&target.requests(), &requests);
    // Over after one: the retry is answered.
    Client::to(&proxy).await.ask(&target, &requests[1]).await;
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_answer_delays_those_behind_it_and_keeps_their_order() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    let delay = Duration::from_millis(300);
    proxy.inject(end_txn(Fault::DelayAnswer(delay))).unwrap();
    let requests = [
        request(FETCH, 1, b"a"),
        request(END_TXN, 2, b"b"),
        request(FETCH, 3, b"c"),
    ];
    let mut client = Client::to(&proxy).await;
    let begun = Instant::now();

    client.send(&requests.concat()).await;

    let answers = requests.each_ref().map(|request| answer(request));
    assert_eq!(client.receive(answers[0].len()).await, answers[0]);
    // The target has all three, whatever the client hears of them.
    until("all requests", || target.count() == 3).await;
    assert_eq!(client.receive(answers[1].len()).await, answers[1]);
    assert!(begun.elapsed() >= delay);
    assert_eq!(client.receive(answers[2].len()).await, answers[2]);
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_delivered_twice_is_answered_once() {
    let target = Target::start(BROKER).await;
    let (struck, next) = (request(END_TXN, 1, &noise(1, 500_000)), request(FETCH, 2, b"next"));
    assert_twice(&target, Wire::Kafka, Only::ApiKey(END_TXN), &struck, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_end_of_a_transaction_arrives_after_the_retry_on_a_new_connection() {
    let (first, held) = (
        request(PRODUCE, 1, &noise(1, 400_000)),
        request(END_TXN, 2, b"first try"),
    );
    let (lost, retry) = (request(FETCH, 3, b"lost"), request(END_TXN, 1, b"second try"));
    let target = Target::start(BROKER).await;
    assert_held(
        &target,
        Wire::Kafka,
        Only::ApiKey(END_TXN),
        [&first, &held, &lost, &retry],
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_held_silently_arrives_after_its_client_has_given_up() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    let (first, held) = (request(PRODUCE, 1, b"before"), request(END_TXN, 2, b"first try"));
    let retry = request(END_TXN, 1, b"second try");
    let hold = Duration::from_millis(1500);
    // Only a round in which the retry was quicker than the hold says something about the order.
    loop {
        let before = target.count();
        let mut client = Client::to(&proxy).await;
        proxy.inject(end_txn(Fault::HoldSilently(hold))).unwrap();
        let begun = Instant::now();
        client.send(&[&first[..], &held].concat()).await;
        let answered = answer(&first);
        assert_eq!(client.receive(answered.len()).await, answered);
        until("the hold", || proxy.struck() == 1).await;
        let nothing = client.0.try_read(&mut [0]).map_err(|error| error.kind());
        drop(client);
        Client::to(&proxy).await.ask(&target, &retry).await;
        let retried = begun.elapsed();

        until("the held request", || target.count() == before + 3).await;
        if retried < hold {
            assert_eq!(nothing, Err(std::io::ErrorKind::WouldBlock), "the connection is open");
            let seen = &target.seen()[before..];
            let bytes = [&seen[0].bytes, &seen[1].bytes, &seen[2].bytes];
            assert_eq!(bytes, [&first, &retry, &held]);
            break;
        }
    }
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_another_request_than_is_waiting_is_not_passed_on_and_told() {
    // A broker that leaves one request unanswered, as with acks=0.
    fn answer_but_to_produce(bytes: &[u8]) -> Vec<u8> {
        if bytes[5] == 0 { Vec::new() } else { answer(bytes) }
    }
    let target = Target::start(Speaks {
        answer: answer_but_to_produce,
        ..BROKER
    })
    .await;
    let proxy = proxy(&target, Wire::Kafka).await;
    let mut client = Client::to(&proxy).await;
    client
        .send(&[request(PRODUCE, 1, b""), request(FETCH, 2, b"")].concat())
        .await;
    assert_eq!(client.rest().await, b"");
    let trouble = proxy.trouble().unwrap();
    assert!(trouble.contains("acks=0"), "{trouble}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_kafka_is_not_passed_on_and_told() {
    let target = Target::start(BROKER).await;
    for wrong in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"\x00\x00\x00\x07\x00\x01\x00\x00\x00\x00\x00\x01",
        b"\xff\xff\xff\xff\x00\x01\x00\x00\x00\x00\x00\x01",
    ] {
        let proxy = proxy(&target, Wire::Kafka).await;
        let mut client = Client::to(&proxy).await;
        client.send(wrong).await;
        assert_eq!(client.rest().await, b"");
        assert!(proxy.trouble().unwrap().contains("frame"), "{:?}", proxy.trouble());
    }
    assert_eq!(target.count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_delivery_that_cannot_be_made_is_told() {
    let target = Target::start(BROKER).await;
    let proxy = proxy(&target, Wire::Kafka).await;
    proxy.inject(end_txn(Fault::Twice)).unwrap();
    let mut client = Client::to(&proxy).await;
    client.ask(&target, &request(FETCH, 1, b"")).await;
    // Nobody listens on the reserved port 1.
    proxy.retarget("127.0.0.1:1".parse().unwrap());
    client.ask(&target, &request(END_TXN, 2, b"")).await;
    until("trouble", || proxy.trouble().is_some()).await;
    assert!(proxy.trouble().unwrap().contains("twice"), "{:?}", proxy.trouble());
}
