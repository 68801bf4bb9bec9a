//! A circuit breaker before a server that does not keep up: after some failures in a row nothing is sent for a while, then one
//! probe decides. Pure: time comes in, and what is to be done comes out.
//!
//! ```text
//!            failures in a row                  pause is over
//!   closed ────────────────────────▶ open ────────────────────────▶ half-open
//!     ▲                               ▲                                │ │
//!     │                               └──────── probe failed ──────────┘ │
//!     └────────────────────────── probe succeeded ───────────────────────┘
//! ```

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures in a row open it: one lost answer is no overload.
const FAILURES_MAX: u32 = 3;
/// The first pause; each failed probe doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// No longer than this: a server that is back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Whoever waits for another one's probe looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A probe that has not ended by then was given up by whoever sent it; another one may go.
const PROBE_MAX: Duration = Duration::from_secs(10);

/// Where it stands, as a metric's value: 0, 1, 2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    Closed,
    /// One probe is under way.
    HalfOpen,
    /// Nothing passes.
    Open,
}

/// What somebody who wants to send may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// Send.
    Go,
    /// Send something small, and tell what came of it.
    Probe,
    /// Ask again after this time.
    Wait(Duration),
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { since: Instant, pause: Duration },
}

/// See the module. Shared by the lanes of a worker; the lock is held for a few comparisons, twice for each request.
#[derive(Debug)]
pub struct Breaker(Mutex<Inner>);

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker(Mutex::new(Inner::Closed { failures: 0 }))
    }
}

impl Breaker {
    /// May something be sent now? Whoever is told to probe has to tell how it went.
    pub fn ask(&self, now: Instant) -> Pass {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pause = match *inner {
            Inner::Closed { .. } => return Pass::Go,
            Inner::Open { until, .. } if now < until => return Pass::Wait(until - now),
            Inner::HalfOpen { since, .. } if now < since + PROBE_MAX => return Pass::Wait(LOOK_AGAIN),
            Inner::Open { pause, .. } | Inner::HalfOpen { pause, .. } => pause,
        };
        *inner = Inner::HalfOpen { since: now, pause };
        Pass::Probe
    }

    /// Something was answered as it should be.
    pub fn succeeded(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Inner::Closed { failures: 0 };
    }

    /// Something was not answered in time, or with a word of overload. True when it has opened just now.
    pub fn failed(&self, now: Instant) -> bool {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, opened) = match *inner {
            Inner::Closed { failures } if failures + 1 < FAILURES_MAX => {
                let failures = failures + 1;
                (Inner::Closed { failures }, false)
            }
            Inner::Closed { .. } => (opened(now, PAUSE_FIRST), true),
            Inner::HalfOpen { pause, .. } => (opened(now, (pause * 2).min(PAUSE_MAX)), false),
            // Sent before it opened.
            open @ Inner::Open { .. } => (open, false),
        };
        *inner = next;
        opened
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Inner::Closed { .. } => State::Closed,
            Inner::HalfOpen { .. } => State::HalfOpen,
            Inner::Open { .. } => State::Open,
        }
    }
}

fn opened(now: Instant, pause: Duration) -> Inner {
    Inner::Open {
        until: now + pause,
        pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(now: Instant) -> Breaker {
        let breaker = Breaker::default();
        let opened: Vec<bool> = (0..FAILURES_MAX).map(|_| breaker.failed(now)).collect();
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1, "told once");
        assert!(opened[FAILURES_MAX as usize - 1], "by the last");
        breaker
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_open_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            for _ in 1..FAILURES_MAX {
                assert!(!breaker.failed(now));
            }
            breaker.succeeded();
        }
        assert_eq!((breaker.state(), breaker.ask(now)), (State::Closed, Pass::Go));
    }

    #[test]
    fn an_open_one_lets_one_probe_through_after_its_pause_and_its_success_closes_it() {
        let now = Instant::now();
        let breaker = open(now);
        assert_eq!(breaker.ask(now), Pass::Wait(PAUSE_FIRST));
        let later = now + PAUSE_FIRST;
        assert_eq!(breaker.ask(later), Pass::Probe);
        assert_eq!(breaker.ask(later), Pass::Wait(LOOK_AGAIN), "one probe only");
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.ask(later)), (State::Closed, Pass::Go));
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let breaker = open(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..6 {
            assert_eq!(breaker.ask(now), Pass::Wait(pause));
            now += pause;
            assert_eq!(breaker.ask(now), Pass::Probe);
            assert!(!breaker.failed(now), "it was open before");
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
    }

    #[test]
    fn a_probe_that_nobody_tells_of_is_followed_by_another_and_late_failures_change_nothing() {
        let now = Instant::now();
        let breaker = open(now);
        breaker.failed(now);
        assert_eq!(
            breaker.ask(now),
            Pass::Wait(PAUSE_FIRST),
            "not prolonged by what was sent before"
        );
        let probed = now + PAUSE_FIRST;
        assert_eq!(breaker.ask(probed), Pass::Probe);
        assert_eq!(breaker.ask(probed + PROBE_MAX), Pass::Probe);
    }
}
