//! Any other wire: nothing is known of requests and answers, so a request is what one read from the client brought, and
//! its answer is what the target sends next.

use super::plan::Gate;
use super::stream::{Inlet, Outlet, close, ends};
use super::strike::{Fault, Strike};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// What happens to what the target sends next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Drop,
    Delay(Duration),
}

/// Why both directions end.
#[derive(Debug)]
enum End {
    Io(io::Error),
    Cut,
    Dropped,
}

impl From<io::Error> for End {
    fn from(error: io::Error) -> Self {
        End::Io(error)
    }
}

/// Serves one connection until both peers have ended it or a fault has.
pub(super) async fn relay(client: TcpStream, target: TcpStream, gate: Gate) -> io::Result<()> {
    let (requests, to_client) = ends(client, &gate)?;
    let (answers, to_target) = ends(target, &gate)?;
    let next = Mutex::new(None);
    let mut up = Up {
        requests,
        target: to_target,
        gate,
        next: &next,
        since: Since::default(),
    };
    let mut down = Down {
        answers,
        client: to_client,
        next: &next,
    };
    match tokio::try_join!(up.run(), down.run()) {
        Ok(_) | Err(End::Dropped) => Ok(()),
        Err(End::Io(error)) => Err(error),
        Err(End::Cut) => {
            let (mut target, mut answers) = (up.target, down.answers);
            drop((up.requests, down.client));
            close(&mut target, &mut answers).await;
            Ok(())
        }
    }
}

/// What the client has sent since a strike was set.
#[derive(Debug, Default)]
struct Since {
    strike: u64,
    bytes: usize,
}

impl Since {
    /// How many of the next `bytes` still pass before so many have passed `after` strike `number` was set; none while it
    /// takes more of them.
    fn cut(&mut self, number: u64, after: usize, bytes: usize) -> Option<usize> {
        if self.strike != number {
            *self = Since {
                strike: number,
                bytes: 0,
            };
        }
        let left = after.saturating_sub(self.bytes);
        self.bytes += bytes;
        // Reached: the next cut, should this one not be struck, is so many bytes further on.
        (left <= bytes).then(|| {
            self.bytes = bytes - left;
            left
        })
    }
}

#[derive(Debug)]
struct Up<'a> {
    requests: Inlet,
    target: Outlet,
    gate: Gate,
    next: &'a Mutex<Option<Next>>,
    since: Since,
}

impl Up<'_> {
    async fn run(&mut self) -> Result<(), End> {
        while self.requests.fill().await? {
            let bytes = self.requests.waiting().len();
            let mut cut = None;
            let means = |strike: &Strike, number| match strike.fault {
                Fault::CutRequest { after } => {
                    cut = self.since.cut(number, after, bytes);
                    cut.is_some()
                }
                _ => true,
            };
            let struck = self.gate.judge(means).await;
            let fault = struck.as_ref().map(|strike| &strike.fault);
            let next = match fault {
                Some(Fault::CutRequest { .. }) => {
                    self.target.pass(self.requests.take(cut.unwrap_or(0))).await?;
                    return Err(End::Cut);
                }
                Some(Fault::DropAnswer) => Some(Next::Drop),
                Some(Fault::DelayAnswer(delay)) => Some(Next::Delay(*delay)),
                _ => None,
            };
            if next.is_some() {
                *self.next.lock().unwrap_or_else(PoisonError::into_inner) = next;
            }
            self.target.pass(self.requests.take(bytes)).await?;
        }
        Ok(self.target.end().await?)
    }
}

#[derive(Debug)]
struct Down<'a> {
    answers: Inlet,
    client: Outlet,
    next: &'a Mutex<Option<Next>>,
}

impl Down<'_> {
    async fn run(&mut self) -> Result<(), End> {
        while self.answers.fill().await? {
            let next = self.next.lock().unwrap_or_else(PoisonError::into_inner).take();
            match next {
                Some(Next::Drop) => return Err(End::Dropped),
                Some(Next::Delay(delay)) => tokio::time::sleep(delay).await,
                None => {}
            }
            self.client.pass(self.answers.take(usize::MAX)).await?;
        }
        Ok(self.client.end().await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_is_counted_from_its_strike_on_and_again_after_one_that_was_spared() {
        let mut since = Since::default();
        assert_eq!(since.cut(1, 10, 4), None);
        assert_eq!(since.cut(1, 10, 4), None);
        assert_eq!(since.cut(1, 10, 4), Some(2)); // 2 bytes of the next ten have passed
        assert_eq!(since.cut(1, 10, 7), None);
        assert_eq!(since.cut(1, 10, 1), Some(1));
        assert_eq!(since.cut(1, 10, 3), None);
        assert_eq!(since.cut(2, 10, 9), None); // another strike begins at 0
        assert_eq!(since.cut(2, 10, 1), Some(1));
        assert_eq!(since.cut(3, 0, 5), Some(0));
    }
}
