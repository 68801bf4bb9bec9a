//! What must hold at every step, and in the end.

use std::collections::BTreeMap;

use exactly_once_protocol::{Metadata, Partition};

use crate::{LOG_END, World, summed};

impl World {
    pub(crate) fn wrong(&self) -> Option<String> {
        for (what, counts) in [
            ("row", &self.rows),
            ("alert", &self.alerts),
            ("row of a rollup", &self.fed),
        ] {
            if let Some((at, count)) = counts.iter().find(|(_, count)| **count > 1) {
                return Some(format!("{what} {at:?} is there {count} times"));
            }
        }
        for (partition, (offset, metadata)) in &self.committed {
            let (fed_to, exactly) = match metadata {
                Metadata::Nothing => (*offset, true),
                Metadata::Settled { fed, .. } => (*fed, true),
                Metadata::Promised(promise) => (promise.fed, false),
            };
            let is_fed = |at: i64| self.fed.contains_key(&(*partition, at));
            if let Some(at) = (0..fed_to).find(|at| summed(*at) && !is_fed(*at)) {
                return Some(format!("{partition:?} {at} counts as fed and is in no rollup"));
            }
            if let Some(at) = (fed_to..LOG_END).find(|at| exactly && is_fed(*at)) {
                return Some(format!("{partition:?} {at} counts as unfed and is in a rollup"));
            }
            for at in 0..*offset {
                let key = (*partition, at);
                let has = |counts: &BTreeMap<(Partition, i64), u32>| counts.contains_key(&key);
                if !has(&self.rows) || !has(&self.alerts) || self.cursor.get(partition).copied().unwrap_or(0) <= at {
                    return Some(format!("{key:?} is committed and a sink lacks it"));
                }
            }
        }
        None
    }

    pub(crate) fn finished(&self) -> bool {
        self.committed
            .values()
            .all(|(offset, metadata)| *offset == LOG_END && matches!(metadata, Metadata::Settled { fed: LOG_END, .. }))
    }
}
