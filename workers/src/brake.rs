//! The brake: a bad deploy must not drain a topic into the dead letters. It looks at events whose bytes are sound and
//! that are refused all the same (schema, envelope, rules); broken bytes are nobody's deploy and never trip it, so ten
//! thousand poison records in a row do not stop the good ones between them.

use std::collections::VecDeque;

use pipeline::Brake as Settings;

use crate::collect::Stage;
use crate::transform::Outputs;

/// Share of refused events over the last `over_events` or more.
pub struct Brake {
    settings: Settings,
    /// Events and refused events of the last batches.
    window: VecDeque<(u64, u64)>,
    tripped: bool,
}

impl Brake {
    /// A brake that has seen nothing.
    pub fn new(settings: Settings) -> Brake {
        Brake {
            settings,
            window: VecDeque::new(),
            tripped: false,
        }
    }

    /// True while the lane must not take anything in.
    pub fn tripped(&self) -> bool {
        self.tripped
    }

    /// Looks at a batch before it is promised. `Some`: it must not be, and why.
    pub fn take(&mut self, outputs: &Outputs) -> Option<String> {
        let refused = outputs
            .dead
            .iter()
            .filter(|letter| counts(letter.refusal.stage))
            .count() as u64;
        let broken = outputs.dead.len() as u64 - refused;
        self.window.push_back((outputs.records - broken, refused));
        let total = |window: &VecDeque<(u64, u64)>| window.iter().map(|(events, _)| events).sum::<u64>();
        while self
            .window
            .front()
            .is_some_and(|(events, _)| total(&self.window) - events >= self.settings.over_events)
        {
            self.window.pop_front();
        }
        let events = total(&self.window);
        let refused: u64 = self.window.iter().map(|(_, refused)| refused).sum();
        if events < self.settings.over_events || (refused as f64) <= self.settings.share * events as f64 {
            return None;
        }
        self.tripped = true;
        let first = outputs.dead.iter().find(|letter| counts(letter.refusal.stage));
        let example = first.map_or(String::new(), |letter| {
            let refusal = &letter.refusal;
            format!(
                "; for example {} at stage {}: {}",
                refusal.code,
                refusal.stage.name(),
                refusal.reason
            )
        });
        Some(format!(
            "{refused} of the last {events} events would become dead letters{example}"
        ))
    }

    /// New rules or shapes may have mended it: try again. True if the brake was on.
    pub fn release(&mut self) -> bool {
        self.window.clear();
        std::mem::take(&mut self.tripped)
    }
}

fn counts(stage: Stage) -> bool {
    match stage {
        Stage::Schema | Stage::Event | Stage::Rules => true,
        Stage::Frame | Stage::Decode => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::{Dead, Raw, Refusal};
    use exactly_once_protocol::Partition;

    fn batch(records: u64, refused: usize, stage: Stage) -> Outputs {
        let refusal = Refusal {
            stage,
            code: "x".into(),
            reason: "y".into(),
            field: String::new(),
            attempts: 1,
            schema_id: None,
            tenant: String::new(),
        };
        let partition = Partition { topic: 0, partition: 0 };
        let letter = Dead {
            partition,
            offset: 0,
            timestamp_ms: 0,
            raw: Raw::default(),
            refusal,
        };
        Outputs {
            records,
            dead: vec![letter; refused],
            ..Outputs::default()
        }
    }

    #[test]
    fn it_trips_when_more_than_the_share_is_refused_over_enough_events() {
        let mut brake = Brake::new(Settings {
            share: 0.5,
            over_events: 1000,
        });
        assert_eq!(
            brake.take(&batch(600, 600, Stage::Rules)),
            None,
            "too few events to judge"
        );
        let why = brake.take(&batch(600, 100, Stage::Rules)).unwrap();
        assert!(why.starts_with("700 of the last 1200"), "{why}");
        assert!(brake.tripped() && brake.release() && !brake.tripped());
    }

    #[test]
    fn it_forgets_what_is_older_than_its_window() {
        let mut brake = Brake::new(Settings {
            share: 0.5,
            over_events: 1000,
        });
        assert_eq!(brake.take(&batch(900, 900, Stage::Event)), None);
        assert_eq!(
            brake.take(&batch(1000, 0, Stage::Event)),
            None,
            "the 900 lie outside the last 1000"
        );
    }

    #[test]
    fn broken_bytes_never_trip_it() {
        let mut brake = Brake::new(Settings {
            share: 0.1,
            over_events: 10,
        });
        assert_eq!(brake.take(&batch(10_000, 10_000, Stage::Decode)), None);
        assert_eq!(brake.take(&batch(10_000, 10_000, Stage::Frame)), None);
    }
}
