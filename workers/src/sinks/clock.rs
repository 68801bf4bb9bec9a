//! What time it is: at the sink, by which deadlines go, and on this machine.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crash_points::clock_ahead_ms;

/// What the server says of the time is as old as its answer took, at most.
const PROMPT: Duration = Duration::from_secs(1);

/// The sink's clock, estimated: what ClickHouse told last, and how much time has passed since. Lanes start when it has told once.
/// Later jumps of this machine's wall clock change nothing: an hour's would put deadlines an hour away, and whoever settles
/// them would wait for it.
#[derive(Debug)]
pub struct SinkClock {
    began: Instant,
    /// What has to be added to the milliseconds since then.
    ahead_ms: AtomicI64,
    known: AtomicBool,
}

impl Default for SinkClock {
    fn default() -> SinkClock {
        SinkClock {
            began: Instant::now(),
            ahead_ms: AtomicI64::new(unix_ms()),
            known: AtomicBool::new(false),
        }
    }
}

impl SinkClock {
    /// Takes what the server said when it was asked at this moment, and answered so much later; an answer that took long only
    /// while nothing better is known.
    pub fn learn(&self, server_ms: i64, asked: Instant, took: Duration) {
        if took <= PROMPT || !self.is_known() {
            let ahead_ms = server_ms - self.passed_ms(asked);
            self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
            self.known.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the server has ever told.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Unix milliseconds on the sink's clock.
    pub fn now_ms(&self) -> i64 {
        self.passed_ms(Instant::now()) + self.ahead_ms.load(Ordering::Relaxed)
    }

    fn passed_ms(&self, at: Instant) -> i64 {
        at.saturating_duration_since(self.began).as_millis() as i64
    }
}

/// This machine's clock, Unix milliseconds. The rim is the only place that reads it.
pub fn unix_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as i64 + clock_ahead_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sinks_clock_goes_on_from_what_the_server_has_told() {
        let clock = SinkClock::default();
        assert!(
            (clock.now_ms() - unix_ms()).abs() < 60_000,
            "its own machine's, before it was told"
        );
        let an_hour_ahead = unix_ms() + 3_600_000;
        let asked = clock.began + Duration::from_secs(20);
        assert!(!clock.is_known());
        clock.learn(an_hour_ahead, asked, 3 * PROMPT);
        assert!(clock.is_known(), "better than nothing");
        clock.learn(0, asked, 2 * PROMPT);
        let ahead_ms = clock.ahead_ms.load(Ordering::Relaxed);
        assert_eq!(
            ahead_ms,
            an_hour_ahead - 20_000,
            "a late answer is not better than what is known"
        );
    }
}
