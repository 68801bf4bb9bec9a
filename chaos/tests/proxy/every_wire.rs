//! What is the same whatever the wire: faults of whole connections, and the proxy's life.

use crate::bytes::ECHO;
use crate::http::{SERVER, post};
use crate::kafka::{BROKER, request};
use crate::support::*;
use chaos::proxy::{Fault, Proxy, Strike, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Each wire with its target and two requests of it.
fn wires() -> [(Wire, Speaks, Vec<u8>, Vec<u8>); 3] {
    [
        (Wire::Http, SERVER, post("/length", b"one"), post("/chunked", b"two")),
        (Wire::Kafka, BROKER, request(1, 1, b"one"), request(1, 2, b"two")),
        (Wire::Bytes, ECHO, b"one".to_vec(), b"two".to_vec()),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_closes_open_and_new_connections_until_it_is_healed() {
    for (wire, speaks, one, two) in wires() {
        let target = Target::start(speaks).await;
        let proxy = proxy(&target, wire).await;
        let mut open = Client::to(&proxy).await;
        open.ask(&target, &one).await;

        proxy.inject(Some(Strike::new(Fault::Refuse))).unwrap();

        assert_eq!(open.rest().await, b"");
        let mut new = Client::to(&proxy).await;
        assert_eq!(new.rest().await, b"");
        assert_struck(&proxy, 2);
        proxy.inject(None).unwrap();
        Client::to(&proxy).await.ask(&target, &two).await;
        assert_eq!(target.requests(), [one.clone(), two]);

        // Healed before any connection had looked: what was open is closed all the same.
        let mut open = Client::to(&proxy).await;
        open.ask(&target, &one).await;
        proxy.inject(Some(Strike::new(Fault::Refuse))).unwrap();
        proxy.inject(None).unwrap();
        assert_eq!(open.rest().await, b"");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_frozen_nothing_passes_and_afterwards_everything_does() {
    for (wire, speaks, one, two) in wires() {
        let target = Target::start(speaks).await;
        let proxy = proxy(&target, wire).await;
        let mut open = Client::to(&proxy).await;
        open.ask(&target, &one).await;

        proxy.inject(Some(Strike::new(Fault::Freeze))).unwrap();
        open.send(&two).await;
        let mut new = Client::to(&proxy).await;
        new.send(&one).await;
        // Long enough for a request that passes to be seen: as many round trips past the proxy.
        let mut direct = Client::connect(target.address).await;
        for _ in 0..200 {
            direct.ask(&target, &one).await;
        }

        assert_eq!(target.count(), 201);
        assert_struck(&proxy, 2);
        proxy.inject(None).unwrap();
        for (client, request) in [(&mut open, &two), (&mut new, &one)] {
            let answer = target.answer(request);
            assert_eq!(client.receive(answer.len()).await, answer);
        }
        open.ask(&target, &one).await;
        assert_eq!(target.count(), 204);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_during_a_freeze_comes_after_it() {
    for (wire, speaks, one, _) in wires() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Proxy::start(listener.local_addr().unwrap(), wire).await.unwrap();
        let mut client = Client::to(&proxy).await;
        client.send(&one).await;
        let (mut socket, _) = in_time("the proxy", listener.accept()).await.unwrap();
        let mut request = vec![0; one.len()];
        in_time("the request", socket.read_exact(&mut request)).await.unwrap();

        proxy.inject(Some(Strike::new(Fault::Freeze))).unwrap();
        let answer = (speaks.answer)(&request);
        socket.write_all(&answer).await.unwrap();
        some_round_trips().await;

        let nothing = client.0.try_read(&mut [0]).unwrap_err();
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "{wire:?}");
        proxy.inject(None).unwrap();
        assert_eq!(client.receive(answer.len()).await, answer);
    }
}

/// Long enough for what passes the proxy to be seen.
async fn some_round_trips() {
    let bystander = Target::start(ECHO).await;
    let mut direct = Client::connect(bystander.address).await;
    for _ in 0..200 {
        direct.ask(&bystander, b"ping").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_under_way_is_frozen_too() {
    // More than the sockets between target and client can hold, so that it is under way until the client has read.
    let answer = noise(1, 40_000_000);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), Wire::Bytes).await.unwrap();
    let mut client = Client::to(&proxy).await;
    let (mut socket, _) = in_time("the proxy", listener.accept()).await.unwrap();
    let sent = answer.clone();
    let sending = tokio::spawn(async move { socket.write_all(&sent).await.unwrap() });
    let mut got = client.receive(1000).await;

    proxy.inject(Some(Strike::new(Fault::Freeze))).unwrap();
    let reading = tokio::spawn(async move { client.rest().await });
    some_round_trips().await;

    assert!(!sending.is_finished());
    assert!(!reading.is_finished());
    proxy.inject(None).unwrap();
    in_time("the sender", sending).await.unwrap();
    got.extend(in_time("the rest", reading).await.unwrap());
    assert!(got == answer);
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_out_a_freeze_is_judged_by_what_comes_after_it() {
    for (wire, speaks, one, two) in wires() {
        let target = Target::start(speaks).await;
        let proxy = proxy(&target, wire).await;
        let mut client = Client::to(&proxy).await;
        client.ask(&target, &one).await;
        proxy.inject(Some(Strike::new(Fault::Freeze))).unwrap();
        client.send(&two).await;
        proxy.inject(once(Fault::DropAnswer)).unwrap();
        assert_eq!(client.rest().await, b"");
        assert_eq!(target.requests(), [one, two]);
        assert_struck(&proxy, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_listens_below_the_outgoing_connections_ports_and_where_it_is_told() {
    let target = Target::start(ECHO).await;
    let one = proxy(&target, Wire::Bytes).await;
    let port = one.address().port();
    assert!((13_000..15_000).contains(&port), "{port}");
    assert!(one.address().ip().is_loopback());

    let taken = Proxy::start_on(port, target.address, Wire::Bytes).await.unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);

    let mut client = Client::to(&one).await;
    client.ask(&target, b"one").await;
    drop(one);
    assert_eq!(client.rest().await, b"");
    let again = in_time("the port", async {
        loop {
            match Proxy::start_on(port, target.address, Wire::Bytes).await {
                Ok(proxy) => return proxy,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let again = again.await;
    assert_eq!(again.address().port(), port);
    Client::to(&again).await.ask(&target, b"two").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_connections_go_to_the_new_target_and_one_that_cannot_be_reached_is_closed() {
    let (old, new) = (Target::start(ECHO).await, Target::start(ECHO).await);
    let proxy = proxy(&old, Wire::Bytes).await;
    let mut first = Client::to(&proxy).await;
    first.ask(&old, b"one").await;
    proxy.retarget(new.address);
    Client::to(&proxy).await.ask(&new, b"two").await;
    first.ask(&old, b"three").await;
    assert_eq!(old.requests().concat(), b"onethree");
    assert_eq!(new.requests(), [b"two"]);
    // Nobody listens on the reserved port 1.
    proxy.retarget("127.0.0.1:1".parse().unwrap());
    assert_eq!(
        Client(TcpStream::connect(proxy.address()).await.unwrap()).rest().await,
        b""
    );
    assert_eq!(proxy.trouble(), None);
}
