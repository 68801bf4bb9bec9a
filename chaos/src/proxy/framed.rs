//! A connection whose requests and answers are told apart. One task, two directions that run side by side:
//!
//! - **up** reads a request's head, asks the plan, tells `down` what answer to expect, then passes the request on;
//! - **down** takes what is expected off the queue, in the order of the requests, and does with the answer as it says.
//!
//! `down` is told before the target can know of a request, so an answer never comes unexpected. Neither direction waits
//! for the other but through the queue, which is longer than what clients leave unanswered, and `Hold`, where up has
//! nothing more to do. Whatever ends a direction early ends both.

use super::http;
use super::message::{Broken, Extent};
use super::plan::Gate;
use super::stream::{Inlet, Outlet, close, ends};
use super::strike::{Fault, Only};
use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Requests of one connection that wait for an answer; a client that sends more of them is not read meanwhile.
const UNANSWERED_MAX: usize = 1024;

/// Largest request that `Twice` and `Hold` keep.
const KEPT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// What a wire knows: heads. None: more bytes are needed.
pub(super) trait Framing: Send + 'static {
    fn request(bytes: &[u8]) -> Result<Option<RequestHead>, Broken>;

    /// `asked` is the request that waits for this answer, none if none does.
    fn answer(bytes: &[u8], asked: Option<Asked>) -> Result<Option<AnswerHead>, Broken>;
}

#[derive(Debug)]
pub(super) struct RequestHead {
    /// Length of the head.
    pub bytes: usize,
    pub extent: Extent,
    pub asked: Asked,
}

#[derive(Debug)]
pub(super) struct AnswerHead {
    pub extent: Extent,
    /// The answer proper is yet to come (HTTP status 1xx).
    pub interim: bool,
}

/// What of a request matters to its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Http {
        /// The method is HEAD: the answer has no body.
        head: bool,
    },
    Kafka {
        api_key: i16,
        correlation: i32,
    },
}

#[derive(Debug)]
struct Expected {
    /// None: no request asked, and the answer is passed on.
    asked: Option<Asked>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    Pass,
    PassLate(Duration),
    PassThenAgain(Arc<Vec<u8>>),
    Drop,
    Swap(Vec<u8>),
    /// The target was not asked.
    Own(Vec<u8>),
    Hold(Held),
}

/// A request that reaches the target late.
#[derive(Debug)]
struct Held {
    request: Vec<u8>,
    delay: Duration,
    /// The client's connection stays open until then.
    silently: bool,
}

/// Why both directions end.
#[derive(Debug)]
enum End {
    Broken(Broken),
    Cut,
    Dropped,
    Hold(Held, Option<Asked>),
}

impl From<Broken> for End {
    fn from(broken: Broken) -> Self {
        End::Broken(broken)
    }
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Broken(Broken::Io(error))
    }
}

/// Serves one connection until both peers have ended it or a fault has.
pub(super) async fn relay<F: Framing>(client: TcpStream, target: TcpStream, gate: Gate) -> io::Result<()> {
    let (requests, to_client) = ends(client, &gate)?;
    let (answers, to_target) = ends(target, &gate)?;
    let (expect, expected) = mpsc::channel(UNANSWERED_MAX);
    let mut up = Up {
        requests,
        target: to_target,
        expect,
        gate: gate.clone(),
    };
    let mut down = Down {
        answers,
        client: to_client,
        expected,
        gate,
        copies: JoinSet::new(),
    };
    let ended = tokio::try_join!(up.run::<F>(), down.run::<F>());

    let plan = Arc::clone(up.gate.plan());
    if let Err(End::Broken(Broken::Unframed(why))) = &ended {
        // Before anything is closed: who sees the connection end can ask why.
        plan.report(why.clone());
    }
    let (mut target, mut answers, mut copies) = (up.target, down.answers, down.copies);
    let client = (up.requests, down.client);
    match ended {
        Ok(_) | Err(End::Dropped | End::Broken(_)) => drop(client),
        Err(End::Cut) => {
            drop(client);
            close(&mut target, &mut answers).await;
        }
        Err(End::Hold(
            Held {
                request,
                delay,
                silently,
            },
            asked,
        )) => {
            let kept = silently.then_some(client);
            tokio::time::sleep(delay).await;
            drop(kept);
            if let Err(why) = deliver::<F>(&request, asked, &mut target, &mut answers).await {
                plan.report(format!("a request held for {delay:?} was not answered: {why}"));
            }
        }
    }
    drop((target, answers));
    while copies.join_next().await.is_some() {}
    Ok(())
}

#[derive(Debug)]
struct Up {
    requests: Inlet,
    target: Outlet,
    expect: mpsc::Sender<Expected>,
    gate: Gate,
}

impl Up {
    async fn run<F: Framing>(&mut self) -> Result<(), End> {
        while let Some(request) = self.head::<F>().await? {
            self.request(request).await?;
        }
        // Perhaps the beginning of a head, whose end never comes.
        self.target.pass(self.requests.take(usize::MAX)).await?;
        Ok(self.target.end().await?)
    }

    async fn head<F: Framing>(&mut self) -> Result<Option<RequestHead>, End> {
        loop {
            if let Some(request) = F::request(self.requests.waiting())? {
                return Ok(Some(request));
            }
            if !self.requests.fill().await? {
                return Ok(None);
            }
        }
    }

    async fn request(&mut self, request: RequestHead) -> Result<(), End> {
        let RequestHead { bytes, extent, asked } = request;
        let head = &self.requests.waiting()[..bytes];
        let struck = self.gate.judge(|strike, _| means(&strike.only, head, asked)).await;
        let Some(fault) = struck.as_ref().map(|strike| &strike.fault) else {
            self.expect(asked, Then::Pass).await?;
            return self.forward(extent).await;
        };
        match fault {
            // These strike connections; a request is never judged so.
            Fault::Refuse | Fault::Freeze => {
                self.expect(asked, Then::Pass).await?;
                self.forward(extent).await
            }
            Fault::CutRequest { after } => {
                self.expect(asked, Then::Pass).await?;
                self.forward_until(extent, *after).await?;
                Err(End::Cut)
            }
            Fault::DropAnswer => {
                self.expect(asked, Then::Drop).await?;
                self.forward(extent).await
            }
            Fault::DelayAnswer(delay) => {
                self.expect(asked, Then::PassLate(*delay)).await?;
                self.forward(extent).await
            }
            Fault::SwapAnswer(answer) => {
                self.expect(asked, Then::Swap(http::written(answer, asked))).await?;
                self.forward(extent).await
            }
            Fault::Answer(answer) => {
                if extent.swallow(&mut self.requests).await? {
                    self.expect(asked, Then::Own(http::written(answer, asked))).await?;
                }
                Ok(())
            }
            Fault::Twice => {
                let (bytes, whole) = extent.collect(&mut self.requests, KEPT_BYTES_MAX).await?;
                let bytes = Arc::new(bytes);
                let then = if whole {
                    Then::PassThenAgain(Arc::clone(&bytes))
                } else {
                    Then::Pass
                };
                self.expect(asked, then).await?;
                Ok(self.target.pass(&bytes).await?)
            }
            Fault::Hold(delay) | Fault::HoldSilently(delay) => {
                let (request, whole) = extent.collect(&mut self.requests, KEPT_BYTES_MAX).await?;
                if whole {
                    let held = Held {
                        request,
                        delay: *delay,
                        silently: matches!(fault, Fault::HoldSilently(_)),
                    };
                    self.expect(asked, Then::Hold(held)).await?;
                    // Down ends both directions when the answers before this one have passed.
                    pending::<()>().await;
                }
                Ok(())
            }
        }
    }

    async fn expect(&mut self, asked: Asked, then: Then) -> Result<(), End> {
        let asked = Some(asked);
        match self.expect.send(Expected { asked, then }).await {
            Ok(()) => Ok(()),
            // The target has ended its direction, so no answers are waited for; what is to be held is held all the same.
            Err(mpsc::error::SendError(expected)) => match expected.then {
                Then::Hold(held) => Err(End::Hold(held, asked)),
                _ => Ok(()),
            },
        }
    }

    async fn forward(&mut self, mut extent: Extent) -> Result<(), End> {
        while let Some(piece) = extent.piece(&mut self.requests).await? {
            self.target.pass(piece).await?;
        }
        Ok(())
    }

    async fn forward_until(&mut self, mut extent: Extent, mut left: usize) -> Result<(), End> {
        while left > 0
            && let Some(piece) = extent.piece(&mut self.requests).await?
        {
            let passed = left.min(piece.len());
            self.target.pass(&piece[..passed]).await?;
            left -= passed;
        }
        Ok(())
    }
}

fn means(only: &Only, head: &[u8], asked: Asked) -> bool {
    match (only, asked) {
        (Only::Any, _) => true,
        (Only::Text(text), _) => text.is_empty() || head.windows(text.len()).any(|part| part == text.as_bytes()),
        (Only::ApiKey(wanted), Asked::Kafka { api_key, .. }) => *wanted == api_key,
        (Only::ApiKey(_), Asked::Http { .. }) => false,
    }
}

#[derive(Debug)]
struct Down {
    answers: Inlet,
    client: Outlet,
    expected: mpsc::Receiver<Expected>,
    gate: Gate,
    /// Second deliveries.
    copies: JoinSet<()>,
}

impl Down {
    async fn run<F: Framing>(&mut self) -> Result<(), End> {
        while let Some(expected) = self.next().await? {
            self.answer::<F>(expected).await?;
        }
        self.client.end().await?;
        // From here on up hears that nobody waits for answers; what it said before is still to be heard.
        self.expected.close();
        while let Some(Expected { asked, then }) = self.expected.recv().await {
            if let Then::Hold(held) = then {
                return Err(End::Hold(held, asked));
            }
        }
        Ok(())
    }

    /// What to do with the next answer; none when the target has ended its direction.
    async fn next(&mut self) -> Result<Option<Expected>, End> {
        if self.answers.waiting().is_empty() {
            tokio::select! {
                // What is expected comes first: an answer is never there before it.
                biased;
                Some(expected) = self.expected.recv() => return Ok(Some(expected)),
                filled = self.answers.fill() => if !filled? {
                    return Ok(self.expected.try_recv().ok());
                },
            }
        }
        // Unasked: an HTTP server may say why it hangs up. Each wire judges that for itself.
        Ok(Some(self.expected.try_recv().unwrap_or(Expected {
            asked: None,
            then: Then::Pass,
        })))
    }

    async fn answer<F: Framing>(&mut self, expected: Expected) -> Result<(), End> {
        let Expected { asked, then } = expected;
        match then {
            Then::Own(answer) => return Ok(self.client.pass(&answer).await?),
            Then::Hold(held) => return Err(End::Hold(held, asked)),
            _ => {}
        }
        let Some(extent) = self.head::<F>(asked).await? else {
            if matches!(then, Then::Drop) {
                return Err(End::Dropped);
            }
            return Ok(self.client.pass(self.answers.take(usize::MAX)).await?);
        };
        match then {
            Then::PassLate(delay) => {
                tokio::time::sleep(delay).await;
                self.forward(extent).await
            }
            Then::PassThenAgain(request) => {
                self.forward(extent).await?;
                while self.copies.try_join_next().is_some() {}
                self.copies.spawn(once_more::<F>(request, asked, self.gate.clone()));
                Ok(())
            }
            Then::Drop => {
                extent.swallow(&mut self.answers).await?;
                Err(End::Dropped)
            }
            Then::Swap(answer) => {
                extent.swallow(&mut self.answers).await?;
                Ok(self.client.pass(&answer).await?)
            }
            Then::Pass | Then::Own(_) | Then::Hold(..) => self.forward(extent).await,
        }
    }

    /// The answer's extent, interim answers passed on; none when the target stops before it.
    async fn head<F: Framing>(&mut self, asked: Option<Asked>) -> Result<Option<Extent>, End> {
        loop {
            match F::answer(self.answers.waiting(), asked)? {
                Some(head) if head.interim => self.forward(head.extent).await?,
                Some(head) => return Ok(Some(head.extent)),
                None if self.answers.fill().await? => {}
                None => return Ok(None),
            }
        }
    }

    async fn forward(&mut self, mut extent: Extent) -> Result<(), End> {
        while let Some(piece) = extent.piece(&mut self.answers).await? {
            self.client.pass(piece).await?;
        }
        Ok(())
    }
}

/// Delivers a request on a connection of its own.
async fn once_more<F: Framing>(request: Arc<Vec<u8>>, asked: Option<Asked>, mut gate: Gate) {
    gate.open().await;
    let plan = Arc::clone(gate.plan());
    let connected = TcpStream::connect(plan.target()).await;
    let delivered = match connected.and_then(|target| ends(target, &gate)) {
        Ok((mut answers, mut target)) => deliver::<F>(&request, asked, &mut target, &mut answers).await,
        Err(error) => Err(error.to_string()),
    };
    if let Err(why) = delivered {
        plan.report(format!(
            "a request delivered twice was not answered the second time: {why}"
        ));
    }
}

/// Sends a whole request and swallows its answer.
async fn deliver<F: Framing>(
    request: &[u8],
    asked: Option<Asked>,
    target: &mut Outlet,
    answers: &mut Inlet,
) -> Result<(), String> {
    let delivered = async {
        target.pass(request).await?;
        loop {
            match F::answer(answers.waiting(), asked)? {
                Some(head) => {
                    let whole = head.extent.swallow(answers).await?;
                    if !head.interim || !whole {
                        return Ok(whole);
                    }
                }
                None if answers.fill().await? => {}
                None => return Ok(false),
            }
        }
    };
    match delivered.await {
        Ok(true) => Ok(()),
        Ok(false) => Err("the target closed the connection".to_owned()),
        Err(Broken::Io(error)) => Err(error.to_string()),
        Err(Broken::Unframed(why)) => Err(why),
    }
}
