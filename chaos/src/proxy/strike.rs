//! What is injected: the fault, the requests that it strikes, and which of these a wire cannot offer.

use super::Wire;
use std::time::Duration;

/// A fault and the requests that it strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// What happens to a request.
    pub fault: Fault,
    /// Which requests are meant.
    pub only: Only,
    /// Each so-manieth request of those is struck; 1 is each.
    pub every: u64,
    /// So many are struck, then the strike is over.
    pub at_most: Option<u64>,
}

impl Strike {
    /// Strikes each request, without end.
    pub fn new(fault: Fault) -> Self {
        Self {
            fault,
            only: Only::Any,
            every: 1,
            at_most: None,
        }
    }
}

/// Which requests a strike means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Only {
    /// All of them.
    Any,
    /// Http: the request's head (method, path and query, headers) contains this, as sent: case counts, and a query is
    /// percent-encoded, with `+` for a blank (`query=INSERT+INTO`).
    Text(String),
    /// Kafka: requests of this API key, for example 0 Produce, 26 EndTxn, 28 TxnOffsetCommit.
    ApiKey(i16),
}

/// What happens to a request that is struck. On [`Wire::Bytes`] a request is what one read from the client brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Open connections are closed, and new ones as soon as they are accepted.
    Refuse,
    /// Nothing passes in either direction; connections stay open, new ones are accepted, and all go on after the strike.
    Freeze,
    /// Only so many bytes of the request, its head included, reach the target; then both sides are closed. A request
    /// that is not longer arrives whole, and nobody waits for its answer. Bytes: so many bytes of each connection since the
    /// strike was set.
    CutRequest {
        /// Bytes that still arrive.
        after: usize,
    },
    /// The request arrives and is answered; the answer is swallowed and then both sides are closed. Bytes: what the
    /// target sends next counts as the answer.
    DropAnswer,
    /// The answer, and what comes behind it on the connection, is passed on so much after it began to arrive.
    DelayAnswer(Duration),
    /// The request is delivered once more, on a connection of its own, after the first answer was passed on. The second
    /// answer is swallowed. Not for Bytes.
    Twice,
    /// The client's connection is closed as soon as the request has been read and the requests before it are answered;
    /// the request itself reaches the target so much later, on the connection that was kept for it, and its answer is
    /// swallowed. What the client had sent behind it is lost. Not for Bytes.
    Hold(Duration),
    /// As `Hold`, and the client's connection stays open until the request is delivered, or the client closes it.
    HoldSilently(Duration),
    /// Http: this is answered, the target never sees the request, and the connection goes on.
    Answer(Answer),
    /// Http: the target carries the request out and its answer is swallowed; this is passed on instead.
    SwapAnswer(Answer),
}

/// An HTTP answer. Its Content-Length is added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// 200 to 599, but not 204 or 304, which have no body.
    pub status: u16,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

/// Why a strike is refused; nothing has changed then.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InjectError {
    /// The fault needs to know where requests begin and end, or what an answer looks like.
    #[error("{fault} is not offered on {wire:?}: {instead}")]
    NotOffered {
        /// The fault's name.
        fault: &'static str,
        /// The proxy's wire.
        wire: Wire,
        /// What to do.
        instead: &'static str,
    },
    /// The choice of requests does not exist on this wire.
    #[error("requests on {wire:?} cannot be chosen by {only}: use {instead}")]
    NotChosenSo {
        /// The choice's name.
        only: &'static str,
        /// The proxy's wire.
        wire: Wire,
        /// What to do.
        instead: &'static str,
    },
    /// The fault strikes all connections, so no request can be chosen.
    #[error("{fault} strikes all connections: use it with Only::Any, every 1 and no at_most, and end it with None")]
    AllConnections {
        /// The fault's name.
        fault: &'static str,
    },
    /// `every` is 0.
    #[error("every 0 strikes nothing: 1 is each request; inject None to strike none")]
    Never,
    /// The answer would not be one whole HTTP answer.
    #[error("this answer cannot be sent: {0}")]
    Answer(String),
}

impl Strike {
    /// Whether `wire` can do this.
    pub(super) fn check(&self, wire: Wire) -> Result<(), InjectError> {
        if self.every == 0 {
            return Err(InjectError::Never);
        }
        self.only.check(wire)?;
        match &self.fault {
            Fault::Refuse | Fault::Freeze => {
                if self.only != Only::Any || self.every != 1 || self.at_most.is_some() {
                    let fault = self.fault.name();
                    return Err(InjectError::AllConnections { fault });
                }
                Ok(())
            }
            Fault::CutRequest { .. } | Fault::DropAnswer | Fault::DelayAnswer(_) => Ok(()),
            Fault::Twice | Fault::Hold(_) | Fault::HoldSilently(_) => match wire {
                Wire::Http | Wire::Kafka => Ok(()),
                Wire::Bytes => {
                    Err(self.not_offered(wire, "where a request ends is not known; use CutRequest or DropAnswer"))
                }
            },
            Fault::Answer(answer) | Fault::SwapAnswer(answer) => match wire {
                Wire::Http => answer.check(),
                Wire::Kafka | Wire::Bytes => {
                    Err(self.not_offered(wire, "only HTTP answers can be made up; use DropAnswer or CutRequest"))
                }
            },
        }
    }

    fn not_offered(&self, wire: Wire, instead: &'static str) -> InjectError {
        let fault = self.fault.name();
        InjectError::NotOffered { fault, wire, instead }
    }
}

impl Only {
    fn check(&self, wire: Wire) -> Result<(), InjectError> {
        let (only, instead) = match (self, wire) {
            (Only::Any, _) | (Only::Text(_), Wire::Http) | (Only::ApiKey(_), Wire::Kafka) => return Ok(()),
            (Only::Text(_), Wire::Kafka) => ("Text", "Only::ApiKey or Only::Any"),
            (Only::ApiKey(_), Wire::Http) => ("ApiKey", "Only::Text or Only::Any"),
            (Only::Text(_), Wire::Bytes) => ("Text", "Only::Any"),
            (Only::ApiKey(_), Wire::Bytes) => ("ApiKey", "Only::Any"),
        };
        Err(InjectError::NotChosenSo { only, wire, instead })
    }
}

impl Fault {
    fn name(&self) -> &'static str {
        match self {
            Fault::Refuse => "Refuse",
            Fault::Freeze => "Freeze",
            Fault::CutRequest { .. } => "CutRequest",
            Fault::DropAnswer => "DropAnswer",
            Fault::DelayAnswer(_) => "DelayAnswer",
            Fault::Twice => "Twice",
            Fault::Hold(_) => "Hold",
            Fault::HoldSilently(_) => "HoldSilently",
            Fault::Answer(_) => "Answer",
            Fault::SwapAnswer(_) => "SwapAnswer",
        }
    }
}

impl Answer {
    fn check(&self) -> Result<(), InjectError> {
        let fault = |text: String| Err(InjectError::Answer(text));
        if !(200..=599).contains(&self.status) || matches!(self.status, 204 | 304) {
            return fault(format!("status {}: use 200 to 599, not 204 or 304", self.status));
        }
        for (name, value) in &self.headers {
            let frames = ["content-length", "transfer-encoding"];
            if frames.iter().any(|known| name.eq_ignore_ascii_case(known)) {
                return fault(format!("header {name}: leave it out, the length is added"));
            }
            let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(token) {
                return fault(format!("header {name:?}: a name is letters, digits and dashes"));
            }
            if value.bytes().any(|byte| byte.is_ascii_control()) {
                return fault(format!("header {name}: a value has no line ends or control characters"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, header: &str, value: &str) -> Answer {
        Answer {
            status,
            headers: vec![(header.to_owned(), value.to_owned())],
            body: "x".to_owned(),
        }
    }

    #[test]
    fn each_wire_takes_the_faults_that_it_can_carry_out_and_no_other() {
        let plain = || answer(500, "X-ClickHouse-Exception-Code", "241");
        let everywhere = [true, true, true];
        for (fault, taken) in [
            (Fault::Refuse, everywhere),
            (Fault::Freeze, everywhere),
            (Fault::CutRequest { after: 0 }, everywhere),
            (Fault::DropAnswer, everywhere),
            (Fault::DelayAnswer(Duration::ZERO), everywhere),
            (Fault::Twice, [true, true, false]),
            (Fault::Hold(Duration::ZERO), [true, true, false]),
            (Fault::HoldSilently(Duration::ZERO), [true, true, false]),
            (Fault::Answer(plain()), [true, false, false]),
            (Fault::SwapAnswer(plain()), [true, false, false]),
        ] {
            let wires = [Wire::Http, Wire::Kafka, Wire::Bytes];
            let checked = wires.map(|wire| Strike::new(fault.clone()).check(wire));
            assert_eq!(checked.each_ref().map(Result::is_ok), taken, "{fault:?}");
            for refused in checked.into_iter().filter_map(Result::err) {
                assert!(matches!(refused, InjectError::NotOffered { .. }), "{refused}");
            }
        }
    }

    #[test]
    fn requests_are_chosen_by_what_the_wire_has() {
        for (only, taken) in [
            (Only::Any, [true, true, true]),
            (Only::Text("INSERT".to_owned()), [true, false, false]),
            (Only::ApiKey(26), [false, true, false]),
        ] {
            let strike = Strike {
                only,
                ..Strike::new(Fault::DropAnswer)
            };
            let wires = [Wire::Http, Wire::Kafka, Wire::Bytes];
            assert_eq!(wires.map(|wire| strike.check(wire).is_ok()), taken, "{strike:?}");
        }
    }

    #[test]
    fn a_strike_that_would_do_something_else_than_it_says_is_refused() {
        let frozen = Strike::new(Fault::Freeze);
        for strike in [
            Strike {
                every: 2,
                ..frozen.clone()
            },
            Strike {
                at_most: Some(1),
                ..frozen.clone()
            },
            Strike {
                only: Only::Text(String::new()),
                ..frozen
            },
        ] {
            let fault = "Freeze";
            assert_eq!(strike.check(Wire::Http), Err(InjectError::AllConnections { fault }));
        }
        let never = Strike {
            every: 0,
            ..Strike::new(Fault::Twice)
        };
        assert_eq!(never.check(Wire::Http), Err(InjectError::Never));
        for unusable in [
            answer(199, "a", "b"),
            answer(204, "a", "b"),
            answer(304, "a", "b"),
            answer(600, "a", "b"),
            answer(200, "content-length", "1"),
            answer(200, "Transfer-Encoding", "chunked"),
            answer(200, "a b", "c"),
            answer(200, "", "c"),
            answer(200, "a", "b\r\nc: d"),
        ] {
            let checked = Strike::new(Fault::Answer(unusable.clone())).check(Wire::Http);
            assert!(matches!(checked, Err(InjectError::Answer(_))), "{unusable:?}");
        }
    }
}
