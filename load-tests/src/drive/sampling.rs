//! Which events have their latency measured. Looking for an event costs ClickHouse something, so samples come in clusters:
//! several events of one topic, due at nearly the same moment, are found by the same looks. Moments are spread at random, so that they keep no step with the system's own rhythm, and the first event that
//! comes decides the topic, so that each topic is sampled as often as it has events.

use std::time::Duration;

use super::settings::Settings;
use crate::random::Random;

/// From one moment to the next, at least and at most.
const APART_MS: (i64, i64) = (200, 600);

#[derive(Debug)]
pub(crate) struct Sampling {
    random: Random,
    per_moment: u32,
    left: u32,
    /// Of the moment that has begun.
    topic: Option<usize>,
    next_ms: i64,
}

impl Sampling {
    /// For a run that began at `began_ms` (unix).
    pub(crate) fn of(settings: &Settings, began_ms: i64) -> Self {
        let rate = settings.samples.is_some().then_some(settings.samples_per_second);
        let after = i64::try_from(settings.samples_after.as_millis()).unwrap_or(i64::MAX);
        Self::new(rate, settings.seed, began_ms.saturating_add(after))
    }

    /// So many a second from `first_ms` (unix) on, or none.
    pub(crate) fn new(samples_per_second: Option<f64>, seed: u64, first_ms: i64) -> Self {
        let mean_apart = Duration::from_millis((APART_MS.0 + APART_MS.1).unsigned_abs() / 2);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturates, and is not negative"
        )]
        let per_moment = match samples_per_second {
            Some(rate) if rate > 0.0 => (rate * mean_apart.as_secs_f64()).ceil() as u32,
            _ => 0,
        };
        Self {
            random: Random::new(seed),
            per_moment,
            left: per_moment,
            topic: None,
            next_ms: first_ms,
        }
    }

    /// Whether an event of this topic, due then, is a sample.
    pub(crate) fn takes(&mut self, topic: usize, at_ms: i64) -> bool {
        if self.left == 0 || at_ms < self.next_ms || *self.topic.get_or_insert(topic) != topic {
            return false;
        }
        self.left -= 1;
        if self.left == 0 {
            self.left = self.per_moment;
            self.topic = None;
            self.next_ms = at_ms + self.random.between(APART_MS.0, APART_MS.1);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Sampler;

    fn taken(samples_per_second: f64, feed: bool) -> Vec<i64> {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _inside = runtime.enter();
        let sampler = Sampler::start(crate::latency::Settings::new("http://127.0.0.1:1", "shop")).unwrap();
        let mut settings = Settings::new("127.0.0.1:1", "http://127.0.0.1:1");
        settings.samples = feed.then(|| sampler.feed());
        settings.samples_per_second = samples_per_second;
        settings.samples_after = Duration::from_secs(2);
        let mut sampling = Sampling::of(&settings, 1_000);
        (1_000..61_000).filter(|at_ms| sampling.takes(0, *at_ms)).collect()
    }

    #[test]
    fn as_many_as_wanted_in_clusters_after_the_warm_up() {
        let taken = taken(20.0, true);
        assert!(taken.iter().all(|at_ms| *at_ms >= 3_000));
        let seconds = 58.0;
        let rate = taken.len() as f64 / seconds;
        assert!((17.0..23.0).contains(&rate), "{rate} a second");
        let moments = taken.windows(2).filter(|pair| pair[1] - pair[0] > 100).count();
        assert!((125..165).contains(&moments), "{moments} moments");
    }

    #[test]
    fn topics_are_sampled_as_often_as_they_have_events() {
        let mut random = Random::new(7);
        let mut sampling = Sampling {
            random: Random::new(1),
            per_moment: 5,
            left: 5,
            topic: None,
            next_ms: 0,
        };
        let mut taken = [0_u32; 2];
        for at_ms in 0..1_000_000 {
            let topic = usize::from(random.chance(0.2));
            taken[topic] += u32::from(sampling.takes(topic, at_ms));
        }
        let share = f64::from(taken[1]) / f64::from(taken[0] + taken[1]);
        assert!((0.14..0.26).contains(&share), "{share}");
    }

    #[test]
    fn none_without_a_sampler_or_a_rate() {
        assert!(taken(20.0, false).is_empty());
        assert!(taken(0.0, true).is_empty());
    }
}
