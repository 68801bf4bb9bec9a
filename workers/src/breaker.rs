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

use std::time::{Duration, Instant};

/// So many failures in a row open it: one lost answer is no overload.
const FAILURES_MAX: u32 = 3;
/// The first pause; each failed probe doubles it.
const PAUSE_FIRST: Duration = Duration::from_millis(500);
/// No longer than this, and the time that a probe takes: so soon a server that is back is noticed.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// Who waits asks when the pause is over: an open one that nobody asks for so long after that has nobody who waits.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);
/// Whoever waits for another one's probe looks again after this.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

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
#[derive(Debug, PartialEq, Eq)]
pub enum Pass {
    /// Send, and tell what came of it.
    Go(Permit),
    /// Ask again after this time.
    Wait(Duration),
}

/// One request. Has to be told of, or given up: it may be the probe that everybody waits for.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub struct Permit {
    /// The breaker's when it was given: what was sent before the last change says nothing about what is now.
    turn: u64,
    probe: bool,
}

impl Permit {
    /// Everybody else waits for this one.
    pub fn is_probe(&self) -> bool {
        self.probe
    }
}

#[derive(Debug, Clone, Copy)]
enum Inner {
    Closed { failures: u32 },
    Open { until: Instant, pause: Duration },
    HalfOpen { pause: Duration },
}

/// See the module.
#[derive(Debug)]
pub struct Breaker {
    inner: Inner,
    /// Counts openings and probes.
    turn: u64,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker {
            inner: Inner::Closed { failures: 0 },
            turn: 0,
        }
    }
}

impl Breaker {
    /// May something be sent now?
    pub fn ask(&mut self, now: Instant) -> Pass {
        let mut probe = false;
        match self.inner {
            Inner::Closed { .. } => {}
            Inner::Open { until, .. } if now < until => return Pass::Wait(until - now),
            Inner::HalfOpen { .. } => return Pass::Wait(LOOK_AGAIN),
            Inner::Open { pause, .. } => {
                self.inner = Inner::HalfOpen { pause };
                self.turn += 1;
                probe = true;
            }
        }
        let turn = self.turn;
        Pass::Go(Permit { turn, probe })
    }

    /// It was answered as it should be. True when this has closed it.
    pub fn succeeded(&mut self, permit: Permit) -> bool {
        if permit.turn != self.turn {
            return false;
        }
        let closes = matches!(self.inner, Inner::HalfOpen { .. });
        self.inner = Inner::Closed { failures: 0 };
        closes
    }

    /// It was not answered in time, or with a word of overload. True when this has opened it; a probe's failure leaves it open.
    pub fn failed(&mut self, permit: Permit, now: Instant) -> bool {
        if permit.turn != self.turn {
            return false;
        }
        match self.inner {
            Inner::Closed { failures } if failures + 1 < FAILURES_MAX => {
                self.inner = Inner::Closed { failures: failures + 1 };
                false
            }
            Inner::Closed { .. } => {
                self.open(now, PAUSE_FIRST);
                true
            }
            Inner::HalfOpen { pause } => {
                self.open(now, (pause * 2).min(PAUSE_MAX));
                false
            }
            // No permit has its turn.
            Inner::Open { .. } => false,
        }
    }

    /// Nobody will know what came of it. If it was the probe, another one may go at once.
    pub fn given_up(&mut self, permit: Permit, now: Instant) {
        if let (Inner::HalfOpen { pause }, true) = (self.inner, permit.turn == self.turn) {
            self.inner = Inner::Open { until: now, pause };
        }
    }

    /// Closes it if it is open and nobody has wanted to send anything for long; the next failure opens it again. True when it has.
    pub fn forget(&mut self, now: Instant) -> bool {
        let forgotten = matches!(self.inner, Inner::Open { until, .. } if now >= until + FORGOTTEN_AFTER);
        if forgotten {
            let failures = FAILURES_MAX - 1;
            self.inner = Inner::Closed { failures };
        }
        forgotten
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        match self.inner {
            Inner::Closed { .. } => State::Closed,
            Inner::HalfOpen { .. } => State::HalfOpen,
            Inner::Open { .. } => State::Open,
        }
    }

    fn open(&mut self, now: Instant, pause: Duration) {
        self.turn += 1;
        self.inner = Inner::Open {
            until: now + pause,
            pause,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(breaker: &mut Breaker, now: Instant) -> Permit {
        match breaker.ask(now) {
            Pass::Go(permit) => permit,
            Pass::Wait(pause) => panic!("it has to wait {pause:?}"),
        }
    }

    fn fails(breaker: &mut Breaker, now: Instant) -> bool {
        let permit = permit(breaker, now);
        breaker.failed(permit, now)
    }

    fn open(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        let opened: Vec<bool> = (0..FAILURES_MAX).map(|_| fails(&mut breaker, now)).collect();
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 1, "told once");
        assert!(opened[FAILURES_MAX as usize - 1], "by the last");
        breaker
    }

    #[test]
    fn failures_that_are_not_in_a_row_do_not_open_it() {
        let (mut breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..10 {
            for _ in 1..FAILURES_MAX {
                assert!(!fails(&mut breaker, now));
            }
            let answered = permit(&mut breaker, now);
            assert!(!breaker.succeeded(answered), "it was closed before");
        }
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn an_open_one_lets_one_probe_through_after_its_pause_and_its_success_closes_it() {
        let now = Instant::now();
        let mut breaker = open(now);
        assert_eq!(breaker.ask(now), Pass::Wait(PAUSE_FIRST));
        let later = now + PAUSE_FIRST;
        let probe = permit(&mut breaker, later);
        assert_eq!(breaker.ask(later), Pass::Wait(LOOK_AGAIN), "one probe only");
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.succeeded(probe));
        assert_eq!(breaker.state(), State::Closed);
        assert!(!fails(&mut breaker, later), "counted from the beginning");
    }

    #[test]
    fn each_failed_probe_doubles_the_pause_up_to_its_limit() {
        let mut now = Instant::now();
        let mut breaker = open(now);
        let mut pause = PAUSE_FIRST;
        for _ in 0..6 {
            assert_eq!(breaker.ask(now), Pass::Wait(pause));
            now += pause;
            assert!(!fails(&mut breaker, now), "it was open before");
            pause = (pause * 2).min(PAUSE_MAX);
        }
        assert_eq!(pause, PAUSE_MAX);
    }

    #[test]
    fn what_was_sent_before_it_opened_changes_nothing_however_it_ends() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        let early: Vec<Permit> = (0..3).map(|_| permit(&mut breaker, now)).collect();
        for _ in 0..FAILURES_MAX {
            fails(&mut breaker, now);
        }
        let later = now + PAUSE_FIRST;
        let [ends_well, ends_badly, is_dropped] = <[Permit; 3]>::try_from(early).unwrap();
        assert!(!breaker.succeeded(ends_well));
        assert_eq!(breaker.ask(now), Pass::Wait(PAUSE_FIRST));
        let probe = permit(&mut breaker, later);
        assert!(!breaker.failed(ends_badly, later));
        breaker.given_up(is_dropped, later);
        assert_eq!(
            (breaker.state(), breaker.ask(later)),
            (State::HalfOpen, Pass::Wait(LOOK_AGAIN))
        );
        assert!(breaker.succeeded(probe));
    }

    #[test]
    fn an_open_one_that_nobody_asks_is_forgotten_and_one_failure_opens_it_again() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE_FIRST + FORGOTTEN_AFTER;
        assert!(!breaker.forget(later - PAUSE_FIRST) && breaker.forget(later));
        assert_eq!(breaker.state(), State::Closed);
        assert!(!permit(&mut breaker, later).is_probe());
        assert!(fails(&mut breaker, later), "opened");
        let probe = permit(&mut breaker, later + PAUSE_FIRST);
        assert!(
            probe.is_probe() && !breaker.forget(later + FORGOTTEN_AFTER + FORGOTTEN_AFTER),
            "half-open"
        );
        assert!(breaker.succeeded(probe));
    }

    #[test]
    fn a_probe_that_is_given_up_is_followed_by_another_at_once() {
        let now = Instant::now();
        let mut breaker = open(now);
        let later = now + PAUSE_FIRST;
        let probe = permit(&mut breaker, later);
        breaker.given_up(probe, later);
        assert_eq!(breaker.state(), State::Open);
        let next = permit(&mut breaker, later);
        assert!(!breaker.failed(next, later));
        assert_eq!(breaker.ask(later), Pass::Wait(2 * PAUSE_FIRST));
    }
}
