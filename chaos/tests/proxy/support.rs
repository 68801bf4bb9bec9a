//! A target that keeps what it was sent, and a client that says what it got. Both handle plain bytes.

use chaos::proxy::{Fault, Only, Proxy, Strike, Wire};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// No wait of a test ends by this unless something is broken, on a machine that builds beside the tests, too.
const DEADLINE: Duration = Duration::from_secs(180);

pub async fn in_time<T>(what: &str, wait: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(DEADLINE, wait).await;
    waited.unwrap_or_else(|_| panic!("waited {DEADLINE:?} for {what}"))
}

pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        // What the proxy counts is looked at from outside, as its users do.
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    in_time(what, wait).await;
}

/// What one connection brought: a whole request, or what was there when it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Counted from 0, as accepted.
    pub connection: usize,
    pub bytes: Vec<u8>,
    pub whole: bool,
}

/// How a wire's target understands its clients.
#[derive(Clone, Copy)]
pub struct Speaks {
    /// Length of the first whole request.
    pub split: fn(&[u8]) -> Option<usize>,
    pub answer: fn(&[u8]) -> Vec<u8>,
    /// Whether the target hangs up after this request.
    pub last: fn(&[u8]) -> bool,
}

pub struct Target {
    pub address: SocketAddr,
    pub speaks: Speaks,
    seen: Arc<Mutex<Vec<Seen>>>,
    ended: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for Target {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Target {
    pub async fn start(speaks: Speaks) -> Target {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let ended = Arc::new(AtomicUsize::new(0));
        let answered = Arc::new(AtomicUsize::new(0));
        let (shared, count, answers) = (Arc::clone(&seen), Arc::clone(&ended), Arc::clone(&answered));
        let serving = tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await.unwrap();
                let (shared, count, answers) = (Arc::clone(&shared), Arc::clone(&count), Arc::clone(&answers));
                tokio::spawn(async move {
                    serve(socket, speaks, connection, shared, answers).await;
                    count.fetch_add(1, Ordering::SeqCst);
                });
            }
        });
        Target {
            address,
            speaks,
            seen,
            ended,
            answered,
            serving,
        }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn count(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// Connections that have ended.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }

    /// Answers that were written to their end.
    pub fn answered(&self) -> usize {
        self.answered.load(Ordering::SeqCst)
    }

    /// The bytes of all requests, in the order in which they came.
    pub fn requests(&self) -> Vec<Vec<u8>> {
        self.seen().into_iter().map(|seen| seen.bytes).collect()
    }

    pub fn answer(&self, request: &[u8]) -> Vec<u8> {
        (self.speaks.answer)(request)
    }
}

async fn serve(
    mut socket: TcpStream,
    speaks: Speaks,
    connection: usize,
    seen: Arc<Mutex<Vec<Seen>>>,
    answered: Arc<AtomicUsize>,
) {
    let mut buffer = Vec::new();
    let keep = |bytes: Vec<u8>, whole| {
        seen.lock().unwrap().push(Seen {
            connection,
            bytes,
            whole,
        });
    };
    loop {
        while let Some(length) = (speaks.split)(&buffer) {
            let request: Vec<u8> = buffer.drain(..length).collect();
            let (answer, last) = ((speaks.answer)(&request), (speaks.last)(&request));
            keep(request, true);
            if socket.write_all(&answer).await.is_err() {
                return;
            }
            answered.fetch_add(1, Ordering::SeqCst);
            if last {
                return;
            }
        }
        buffer.reserve(64 * 1024);
        // A reset is an end as well.
        if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
            if !buffer.is_empty() {
                keep(buffer, false);
            }
            return;
        }
    }
}

pub struct Client(pub TcpStream);

impl Client {
    pub async fn connect(address: SocketAddr) -> Client {
        Client(in_time("a connection", TcpStream::connect(address)).await.unwrap())
    }

    pub async fn to(proxy: &Proxy) -> Client {
        Client::connect(proxy.address()).await
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        in_time("room to write", self.0.write_all(bytes)).await.unwrap();
    }

    pub async fn receive(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        in_time("an answer", self.0.read_exact(&mut bytes)).await.unwrap();
        bytes
    }

    /// Everything until the other side has ended or reset the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64 * 1024);
        let read = async { while self.0.read_buf(&mut bytes).await.unwrap_or(0) > 0 {} };
        in_time("the end of the connection", read).await;
        bytes
    }

    /// Sends a request and checks that the target's answer comes back.
    pub async fn ask(&mut self, target: &Target, request: &[u8]) {
        self.send(request).await;
        let answer = target.answer(request);
        assert_eq!(self.receive(answer.len()).await, answer);
    }

    /// Sends `stream` in writes of many sizes while it reads as many bytes as `answers` has, and compares these.
    pub async fn exchange(self, stream: Vec<u8>, answers: &[u8]) {
        let (mut reader, mut writer) = self.0.into_split();
        let writing = tokio::spawn(async move {
            let mut rest = &stream[..];
            let mut sizes = [1, 7, 4096, 13, 100_000, 3, 65_536, 1500].iter().cycle();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
                writer.write_all(now).await.unwrap();
                rest = later;
            }
            writer
        });
        let mut got = vec![0; answers.len()];
        in_time("all answers", reader.read_exact(&mut got)).await.unwrap();
        assert!(
            got == answers,
            "the answers differ, first at byte {:?}",
            first_difference(&got, answers)
        );
        let mut writer = writing.await.unwrap();
        writer.shutdown().await.unwrap();
        let mut more = Vec::new();
        in_time("the end", reader.read_to_end(&mut more)).await.unwrap();
        assert_eq!(more, b"", "after the last answer");
    }
}

fn first_difference(one: &[u8], other: &[u8]) -> Option<usize> {
    one.iter().zip(other).position(|(one, other)| one != other)
}

pub fn assert_same(got: &[Vec<u8>], expected: &[Vec<u8>]) {
    assert_eq!(got.len(), expected.len(), "number of requests");
    for (number, (got, expected)) in got.iter().zip(expected).enumerate() {
        let at = first_difference(got, expected);
        assert!(
            got == expected,
            "request {number} differs, at {at:?}, {} and {} bytes",
            got.len(),
            expected.len()
        );
    }
}

/// Bytes that repeat nowhere near, so that a lost or doubled piece shows.
pub fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(step).take(count / 8 + 1).flatten().collect();
    bytes.truncate(count);
    bytes
}

pub async fn proxy(target: &Target, wire: Wire) -> Proxy {
    Proxy::start(target.address, wire).await.unwrap()
}

/// What was injected did what it says, without trouble.
pub fn assert_struck(proxy: &Proxy, struck: u64) {
    assert_eq!(proxy.struck(), struck);
    assert_eq!(proxy.trouble(), None);
}

/// Strikes one request.
pub fn once(fault: Fault) -> Option<Strike> {
    once_at(Only::Any, fault)
}

/// Strikes one of the requests that are meant.
pub fn once_at(only: Only, fault: Fault) -> Option<Strike> {
    Some(Strike {
        only,
        at_most: Some(1),
        ..Strike::new(fault)
    })
}

/// `struck`, which `only` means, arrives twice and is answered once; the second time comes on a connection of its own.
pub async fn assert_twice(target: &Target, wire: Wire, only: Only, struck: &[u8], next: &[u8]) {
    let proxy = proxy(target, wire).await;
    proxy.inject(once_at(only, Fault::Twice)).unwrap();
    let mut client = Client::to(&proxy).await;

    client.ask(target, struck).await;

    until("the second delivery", || target.count() == 2).await;
    client.ask(target, next).await;
    assert_same(&target.requests(), &[struck.to_vec(), struck.to_vec(), next.to_vec()]);
    let connections: Vec<usize> = target.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 1, 0]);
    assert_struck(&proxy, 1);
}

/// `held`, which `only` means, is under way when its client's connection breaks: it arrives after the `retry` on a new one, and
/// on its own connection. What came before it is answered, and what comes behind it is lost.
pub async fn assert_held(target: &Target, wire: Wire, only: Only, [first, held, lost, retry]: [&[u8]; 4]) {
    let proxy = proxy(target, wire).await;
    let hold = Duration::from_millis(1500);
    // Only a round in which the retry was quicker than the hold says something about the order.
    loop {
        let before = target.count();
        let mut client = Client::to(&proxy).await;
        proxy.inject(once_at(only.clone(), Fault::Hold(hold))).unwrap();
        let begun = Instant::now();
        client.send(&[first, held, lost].concat()).await;

        assert_eq!(client.rest().await, target.answer(first));
        Client::to(&proxy).await.ask(target, retry).await;
        let retried = begun.elapsed();

        until("the held request", || target.count() == before + 3).await;
        assert!(begun.elapsed() >= hold);
        if retried < hold {
            let seen = &target.seen()[before..];
            assert_eq!(
                [&seen[0].bytes[..], &seen[1].bytes, &seen[2].bytes],
                [first, retry, held]
            );
            assert_eq!(seen[2].connection, seen[0].connection);
            break;
        }
    }
    assert_struck(&proxy, 1);
}
