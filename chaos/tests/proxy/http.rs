use crate::support::*;
use chaos::proxy::{Answer, Fault, Only, Proxy, Strike, Wire};
use std::time::{Duration, Instant};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// A server that answers by the path, with what the request's body was:
/// `/length`, `/chunked`, `/none` (204), `/until-end`, `/continue` (100 first).
pub const SERVER: Speaks = Speaks { split, answer, last };

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

fn split(bytes: &[u8]) -> Option<usize> {
    let end = head_end(bytes)?;
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    if head.contains("Transfer-Encoding: chunked") {
        let mut at = end;
        loop {
            let line = at + bytes[at..].windows(2).position(|two| two == b"\r\n")?;
            let size = std::str::from_utf8(&bytes[at..line])
                .unwrap()
                .split(';')
                .next()
                .unwrap();
            let size = usize::from_str_radix(size, 16).unwrap();
            at = line + 2 + size + 2;
            if size == 0 {
                let trailer = b"Trailer: t\r\n\r\n";
                at = line + 2 + trailer.len();
            }
            if bytes.len() < at {
                return None;
            }
            if size == 0 {
                return Some(at);
            }
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("Content-Length: "))
        .map_or(0, |length| length.parse().unwrap());
    (bytes.len() >= end + length).then_some(end + length)
}

fn last(request: &[u8]) -> bool {
    request.starts_with(b"POST /until-end")
}

fn answer(request: &[u8]) -> Vec<u8> {
    let (head, body) = request.split_at(head_end(request).unwrap());
    let head = std::str::from_utf8(head).unwrap();
    let path = head.split(' ').nth(1).unwrap();
    let with_length = |start: &str| {
        let mut answer = format!("{start}HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        if !head.starts_with("HEAD") {
            answer.extend_from_slice(body);
        }
        answer
    };
    match path.split('?').next().unwrap() {
        "/length" => with_length(""),
        "/continue" => with_length("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"),
        "/chunked" => {
            let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n".to_vec();
            answer.extend(chunked(body));
            answer
        }
        "/none" => b"HTTP/1.1 204 No Content\r\nX: y\r\n\r\n".to_vec(),
        "/until-end" => [b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", body].concat(),
        other => panic!("{other}"),
    }
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    let mut rest = body;
    let mut sizes = [1, 16, 70_000, 255, 1_000_000, 5].iter().cycle();
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        chunks.extend_from_slice(format!("{:x};x=\"y\"\r\n", now.len()).as_bytes());
        chunks.extend_from_slice(now);
        chunks.extend_from_slice(b"\r\n");
        rest = later;
    }
    chunks.extend_from_slice(b"0\r\nTrailer: t\r\n\r\n");
    chunks
}

pub fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn post_chunked(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    [head.as_bytes(), &chunked(body)].concat()
}

fn too_many_parts() -> Answer {
    Answer {
        status: 500,
        headers: vec![("X-ClickHouse-Exception-Code".to_owned(), "252".to_owned())],
        body: "Code: 252. DB::Exception: Too many parts".to_owned(),
    }
}

const TOO_MANY_PARTS: &str = "HTTP/1.1 500 \r\nX-ClickHouse-Exception-Code: 252\r\nContent-Length: 40\r\n\r\n\
     Code: 252. DB::Exception: Too many parts";

/// One connection's traffic: large and empty bodies, each framing in both directions.
fn traffic(seed: u64) -> Vec<Vec<u8>> {
    let mut requests = Vec::new();
    for (number, size) in [0, 1, 3_000_000, 65_536, 17, 700_000].into_iter().enumerate() {
        let body = noise(seed + number as u64, size);
        requests.push(post("/length", &body));
        requests.push(b"GET /length?a=b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec());
        requests.push(post_chunked("/chunked", &body));
        requests.push(b"HEAD /length HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello".to_vec());
        requests.push(post_chunked("/length", &body));
        requests.push(post("/none", &body));
        requests.push(post("/continue", &body));
    }
    requests.push(post("/until-end", &noise(seed, 400_000)));
    requests
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_struck_passes_byte_by_byte_pipelined_chunked_and_large() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    // A strike that means none of them changes nothing.
    let only = Only::Text("/elsewhere".to_owned());
    for strike in [
        None,
        Some(Strike {
            only,
            ..Strike::new(Fault::Twice)
        }),
    ] {
        let before = target.count();
        proxy.inject(strike).unwrap();
        let requests = traffic(before as u64);
        let answers: Vec<u8> = requests.iter().flat_map(|request| target.answer(request)).collect();

        Client::to(&proxy).await.exchange(requests.concat(), &answers).await;

        assert_same(&target.requests()[before..], &requests);
        assert_struck(&proxy, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_only_stops_sending_gets_its_answer_and_half_a_head_is_passed_on() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let request = post("/chunked", b"body");
    let stream = [&request[..], b"POST /len"].concat();
    let answer = target.answer(&request);

    Client::to(&proxy).await.exchange(stream, &answer).await;

    until("half a head", || target.count() == 2).await;
    let seen = target.seen();
    assert_eq!(seen[0].bytes, request);
    assert_eq!((&seen[1].bytes[..], seen[1].whole), (&b"POST /len"[..], false));
    assert_struck(&proxy, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_up_does_so_for_the_client_and_may_say_why_unasked() {
    let target = Target::start(SERVER).await;
    let first = proxy(&target, Wire::Http).await;
    let request = post("/until-end", &noise(1, 100_000));
    let mut client = Client::to(&first).await;
    client.send(&request).await;
    assert!(client.rest().await == target.answer(&request));

    let said = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 4\r\n\r\nslow";
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = Proxy::start(listener.local_addr().unwrap(), Wire::Http).await.unwrap();
    let mut client = Client::to(&second).await;
    let (mut socket, _) = in_time("the proxy", listener.accept()).await.unwrap();
    socket.write_all(said).await.unwrap();
    drop(socket);
    assert_eq!(client.rest().await, said);
    assert_struck(&second, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_request_that_is_cut_exactly_so_many_bytes_arrive() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let request = post("/length", &noise(1, 1_000_000));
    for after in [1, 30, 66, 100_000, request.len() - 1] {
        let mut client = Client::to(&proxy).await;
        proxy.inject(None).unwrap();
        client.ask(&target, &post("/length", b"before")).await;
        let before = target.count();
        proxy.inject(once(Fault::CutRequest { after })).unwrap();

        // The proxy may hang up before everything is written.
        client.0.write_all(&request).await.ok();

        assert_eq!(client.rest().await, b"", "cut at {after}");
        until("what was not cut off", || target.count() > before).await;
        let seen = &target.seen()[before];
        assert_eq!((&seen.bytes[..], seen.whole), (&request[..after], false));
        assert_struck(&proxy, 1);
    }
    let mut client = Client::to(&proxy).await;
    let before = target.count();
    proxy.inject(once(Fault::CutRequest { after: 0 })).unwrap();
    client.send(&post("/length", b"x")).await;
    assert_eq!(client.rest().await, b"");
    until("the end of the cut connection", || target.ended() == 6).await;
    Client::to(&proxy).await.ask(&target, &post("/length", b"next")).await;
    assert_eq!(target.requests()[before..], [post("/length", b"next")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_answer_is_dropped_arrives_whole_and_is_answered_to_the_end() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let (first, struck) = (post("/length", b"1"), post_chunked("/chunked", &noise(2, 20_000_000)));
    let mut client = Client::to(&proxy).await;
    client.ask(&target, &first).await;
    proxy.inject(once(Fault::DropAnswer)).unwrap();

    client.send(&struck).await;

    assert_eq!(client.rest().await, b"");
    // More than fits between the two: the target is done only if somebody read it.
    until("the end of the answer", || target.answered() == 2).await;
    assert_same(&target.requests(), &[first.clone(), struck]);
    Client::to(&proxy).await.ask(&target, &first).await;
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_answer_comes_whole_and_not_before_its_time() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let delay = Duration::from_millis(300);
    proxy.inject(once(Fault::DelayAnswer(delay))).unwrap();
    let mut client = Client::to(&proxy).await;
    let begun = Instant::now();

    client.ask(&target, &post("/chunked", &noise(3, 500_000))).await;

    assert!(begun.elapsed() >= delay);
    client.ask(&target, &post("/length", b"next")).await;
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_delivered_twice_is_answered_once() {
    let target = Target::start(SERVER).await;
    let (struck, next) = (post_chunked("/chunked", &noise(4, 900_000)), post("/length", b"next"));
    assert_twice(&target, Wire::Http, Only::Text("/chunked".to_owned()), &struck, &next).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_with_its_answer_takes_no_second_delivery_back() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    proxy.inject(once(Fault::Twice)).unwrap();
    let leaving = post("/none", &noise(5, 8_000_000));
    let mut client = Client::to(&proxy).await;
    client.ask(&target, &leaving).await;
    drop(client);
    until("the second delivery", || target.count() == 2).await;
    assert_same(&target.requests(), &[leaving.clone(), leaving]);
    assert_struck(&proxy, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_request_arrives_later_on_its_own_connection_after_the_retry() {
    let held = post_chunked("/length?held", &noise(5, 300_000));
    let [first, lost, retry] = ["first", "lost", "retry"].map(|body| post("/length", body.as_bytes()));
    let only = Only::Text("/length?held".to_owned());
    let target = Target::start(SERVER).await;
    assert_held(&target, Wire::Http, only, [&first, &held, &lost, &retry]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_held_for_hours_goes_with_the_proxy() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let mut client = Client::to(&proxy).await;
    proxy.inject(once(Fault::Hold(Duration::from_secs(3600)))).unwrap();
    client.send(&post("/length", b"held")).await;
    assert_eq!(client.rest().await, b"");
    Client::to(&proxy).await.ask(&target, &post("/length", b"other")).await;
    assert_struck(&proxy, 1);
    drop(proxy);
    Client::connect(target.address)
        .await
        .ask(&target, &post("/length", b"last"))
        .await;
    assert_eq!(target.requests(), [post("/length", b"other"), post("/length", b"last")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_answer_comes_in_its_turn_and_the_target_never_sees_the_request() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let only = Only::Text("query=INSERT+INTO+orders".to_owned());
    let strike = Strike {
        only,
        ..Strike::new(Fault::Answer(too_many_parts()))
    };
    proxy.inject(Some(strike)).unwrap();
    let struck = post("/length?query=INSERT+INTO+orders", &noise(6, 1_500_000));
    let others = [
        post("/length?query=INSERT+INTO+shops", b"1"),
        post_chunked("/chunked", &noise(7, 80_000)),
    ];
    let mut head = struck.clone();
    head.splice(..4, *b"HEAD");
    let stream = [&others[0][..], &struck, &head, &others[1], &struck].concat();
    let without_body = TOO_MANY_PARTS.split_inclusive("\r\n\r\n").next().unwrap();
    let answers = [
        &target.answer(&others[0])[..],
        TOO_MANY_PARTS.as_bytes(),
        without_body.as_bytes(),
        &target.answer(&others[1]),
        TOO_MANY_PARTS.as_bytes(),
    ]
    .concat();

    Client::to(&proxy).await.exchange(stream, &answers).await;

    assert_same(&target.requests(), &others);
    assert_struck(&proxy, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_swapped_answer_the_target_works_and_the_client_hears_something_else() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let strike = Strike {
        every: 2,
        ..Strike::new(Fault::SwapAnswer(too_many_parts()))
    };
    proxy.inject(Some(strike)).unwrap();
    let body = noise(8, 600_000);
    let paths = ["/length", "/chunked", "/chunked", "/continue", "/length", "/until-end"];
    let requests = paths.map(|path| post(path, &body));
    let interim = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
    let answers = [
        &target.answer(&requests[0])[..],
        TOO_MANY_PARTS.as_bytes(),
        &target.answer(&requests[2]),
        interim,
        TOO_MANY_PARTS.as_bytes(),
        &target.answer(&requests[4]),
        TOO_MANY_PARTS.as_bytes(),
    ]
    .concat();

    Client::to(&proxy).await.exchange(requests.concat(), &answers).await;

    assert_same(&target.requests(), &requests);
    assert_struck(&proxy, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_third_is_struck_and_at_most_two() {
    let target = Target::start(SERVER).await;
    let proxy = proxy(&target, Wire::Http).await;
    let strike = Strike {
        only: Only::Text("/length?meant".to_owned()),
        every: 3,
        at_most: Some(2),
        ..Strike::new(Fault::Answer(too_many_parts()))
    };
    for _ in 0..2 {
        // Counted anew each time it is set, and over all connections.
        proxy.inject(Some(strike.clone())).unwrap();
        assert_struck(&proxy, 0);
        let before = target.count();
        let mut arrived = Vec::new();
        for number in 1..=13 {
            let mut client = Client::to(&proxy).await;
            client.ask(&target, &post("/length?other", b"")).await;
            let request = post("/length?meant", number.to_string().as_bytes());
            if number == 3 || number == 6 {
                client.send(&request).await;
                assert_eq!(client.receive(TOO_MANY_PARTS.len()).await, TOO_MANY_PARTS.as_bytes());
            } else {
                client.ask(&target, &request).await;
            }
            arrived.push(post("/length?other", b""));
            if number != 3 && number != 6 {
                arrived.push(request);
            }
        }
        assert_same(&target.requests()[before..], &arrived);
        assert_struck(&proxy, 2);
        proxy.inject(None).unwrap();
        assert_struck(&proxy, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http_is_not_passed_on_and_told() {
    let target = Target::start(SERVER).await;
    for (wrong, word) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], "head"),
        (b"\x00\x00\x00\x10\x00\x12\x00\x03", "head"),
        (
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
            "chunk",
        ),
        (
            b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhello",
            "twice",
        ),
    ] {
        let proxy = proxy(&target, Wire::Http).await;
        let mut client = Client::to(&proxy).await;
        client.send(wrong).await;
        assert_eq!(client.rest().await, b"");
        let trouble = proxy.trouble().unwrap();
        assert!(trouble.contains(word), "{trouble}");
    }
}
