//! When each event is due: `rate` events a second from the start to the end, however late the sender is.

use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Schedule {
    rate: f64,
    total: u64,
    next: u64,
    began: Instant,
    began_ms: i64,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Send this one; it was due at this time (unix ms).
    Event { number: u64, at_ms: i64 },
    /// The next one isn't due yet.
    Nothing,
    /// All were handed out.
    Over,
}

impl Schedule {
    /// `began` and `began_ms` are the same moment on two clocks.
    pub(crate) fn start(rate: f64, duration: Duration, began: Instant, began_ms: i64) -> Self {
        Self {
            rate,
            total: whole(rate * duration.as_secs_f64()),
            next: 0,
            began,
            began_ms,
        }
    }

    pub(crate) fn due(&mut self, now: Instant) -> Due {
        if self.next >= self.total {
            return Due::Over;
        }
        #[expect(clippy::cast_precision_loss, reason = "exact below 2^53 events")]
        let after = Duration::from_secs_f64(self.next as f64 / self.rate);
        if self.elapsed(now) < after {
            return Due::Nothing;
        }
        let number = self.next;
        self.next += 1;
        Due::Event {
            number,
            at_ms: self.began_ms + i64::try_from(after.as_millis()).unwrap_or(i64::MAX),
        }
    }

    pub(crate) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates, and a rate is not negative"
)]
fn whole(number: f64) -> u64 {
    number.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_sender_gets_every_event_with_the_time_at_which_it_was_due() {
        let began = Instant::now();
        let mut schedule = Schedule::start(4.0, Duration::from_secs(1), began, 1_000);
        assert_eq!(
            schedule.due(began),
            Due::Event {
                number: 0,
                at_ms: 1_000
            }
        );
        assert_eq!(schedule.due(began + Duration::from_millis(249)), Due::Nothing);
        let late = began + Duration::from_secs(60);
        let rest: Vec<_> = (0..4).map(|_| schedule.due(late)).collect();
        assert_eq!(
            rest,
            [
                Due::Event {
                    number: 1,
                    at_ms: 1_250
                },
                Due::Event {
                    number: 2,
                    at_ms: 1_500
                },
                Due::Event {
                    number: 3,
                    at_ms: 1_750
                },
                Due::Over
            ]
        );
    }
}
