//! A TCP proxy inside the test's process, between a worker and a real part, that spoils chosen requests.
//!
//! ```no_run
//! # async fn example(clickhouse: std::net::SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
//! use chaos::proxy::{Fault, Only, Proxy, Strike, Wire};
//! let proxy = Proxy::start(clickhouse, Wire::Http).await?;
//! // Give proxy.address() to the worker. Of its inserts each third is carried out without the worker hearing of it:
//! let only = Only::Text("query=INSERT".to_owned());
//! proxy.inject(Some(Strike { only, every: 3, ..Strike::new(Fault::DropAnswer) }))?;
//! // When enough were struck:
//! proxy.inject(None)?;
//! assert_eq!(proxy.trouble(), None);
//! # Ok(())
//! # }
//! ```
//!
//! **Invariant:** what is not struck passes byte by byte, in order, as it comes; only heads and lengths are read, and
//! nothing is kept but a request that `Twice` or `Hold` has struck.
//! **Invariant:** bytes that are not of the proxy's wire are never guessed at: the connection is closed and
//! [`Proxy::trouble`] says why.
//!
//! Not read: TLS, HTTP/2 (other than as [`Wire::Bytes`]), HTTP upgrades, and Kafka's requests without an answer (Produce
//! with acks=0). Kafka's clients connect to the address that a broker advertises, so that has to be the proxy's: take the
//! port first, with [`Proxy::start_on`].

mod strike;
mod plan;
mod stream;
mod message;
mod framed;
mod http;
mod kafka;
mod bytes;

pub use strike::{Answer, Fault, InjectError, Only, Strike};

use plan::{Admitted, Plan};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// Free ports are looked for here: below the outgoing connections' (32768 and up), which could take the port of a proxy
/// that is to be started again, and below devstack's (15432 and up), whose parts keep theirs while they are stopped.
const PORTS: std::ops::RangeInclusive<u16> = 13_000..=14_999;

/// After the system refused to accept (too many open files, say).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// HTTP/1.1.
    Http,
    /// Kafka's protocol, without TLS.
    Kafka,
    /// Anything else, for example gRPC.
    Bytes,
}

/// A running proxy. Dropping it closes its listener and every connection, those of requests that are held included, as
/// soon as the runtime gets to it.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Plan>,
    serving: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, between 13000 and 14999, where no role of a scenario does, and connects to `target` for
    /// each connection that is accepted; one whose target cannot be reached is closed. Needs a tokio runtime with I/O and time.
    ///
    /// # Errors
    /// The system's, when it has no port or socket left.
    pub async fn start(target: SocketAddr, wire: Wire) -> io::Result<Proxy> {
        let span = u64::from(PORTS.end() - PORTS.start()) + 1;
        // Each search begins elsewhere, so that proxies started together don't walk over the same ports.
        let begin = RandomState::new().build_hasher().finish() % span;
        let mut refused = io::ErrorKind::AddrInUse.into();
        for step in 0..span {
            let port = PORTS.start() + u16::try_from((begin + step) % span).unwrap_or(0);
            match Proxy::start_on(port, target, wire).await {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => refused = error,
                started_or_refused => return started_or_refused,
            }
        }
        Err(refused)
    }

    /// As [`start`](Proxy::start), on a port that is known beforehand.
    ///
    /// # Errors
    /// The system's, for example that the port is in use.
    pub async fn start_on(port: u16, target: SocketAddr, wire: Wire) -> io::Result<Proxy> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let address = listener.local_addr()?;
        let plan = Arc::new(Plan::new(target, wire));
        let serving = tokio::spawn(serve(listener, Arc::clone(&plan)));
        Ok(Proxy { address, plan, serving })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Replaces what is injected; none heals. A request is judged by what is injected when its head has arrived; one that
    /// was struck already is delayed, held or delivered again to the end, whatever is injected meanwhile, except that
    /// `Refuse` closes and `Freeze` stops these, too.
    ///
    /// # Errors
    /// [`InjectError`] when the proxy's wire cannot do this. What was injected before goes on then.
    pub fn inject(&self, strike: Option<Strike>) -> Result<(), InjectError> {
        self.plan.inject(strike)
    }

    /// How many requests the present strike has struck, or, after it was healed, had; each counts as soon as its head has
    /// arrived. For `Refuse` and `Freeze`: how many connections.
    pub fn struck(&self) -> u64 {
        self.plan.struck()
    }

    /// Sends new connections elsewhere; open ones stay.
    pub fn retarget(&self, target: SocketAddr) {
        self.plan.retarget(target);
    }

    /// The first thing that kept the proxy from doing as it was told: bytes that are not of its wire, a second or a held
    /// delivery that the target did not answer. A test that trusts its faults asserts that this is none.
    pub fn trouble(&self) -> Option<String> {
        self.plan.trouble()
    }

    /// From now on [`Proxy::trouble`] tells of what comes next.
    pub fn forget_trouble(&self) {
        self.plan.forget_trouble();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The listener and the set of connections are the task's own and go with it.
        self.serving.abort();
    }
}

async fn serve(listener: TcpListener, plan: Arc<Plan>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => {
                    if let Some(admitted) = plan.admit() {
                        connections.spawn(connection(client, admitted));
                    }
                }
                Err(error) => {
                    plan.report(format!("no connection could be accepted: {error}"));
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(ended) = connections.join_next() => if let Err(error) = ended {
                plan.report(format!("a connection ended by a fault of the proxy's own: {error}"));
            },
        }
    }
}

async fn connection(client: TcpStream, admitted: Admitted) {
    let mut gate = admitted.gate();
    let plan = Arc::clone(gate.plan());
    let relayed = async {
        gate.open().await;
        let target = TcpStream::connect(plan.target()).await?;
        match plan.wire() {
            Wire::Http => framed::relay::<http::Http>(client, target, gate).await,
            Wire::Kafka => framed::relay::<kafka::Kafka>(client, target, gate).await,
            Wire::Bytes => bytes::relay(client, target, gate).await,
        }
    };
    tokio::select! {
        biased;
        () = admitted.refused() => {}
        // An error says that a peer cannot be reached or has gone: it is closed, and so is the other.
        _ = relayed => {}
    }
}
