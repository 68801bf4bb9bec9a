//! The differences as lines for people: each with the id of its event, which is looked up in the log once more.

use std::collections::HashMap;

use tokio::runtime::Handle;

use crate::judge::Judge;
use crate::kafka::{Log, Range};
use crate::ledger::{Example, Place};
use crate::registry::Registry;
use crate::run::Bench;

/// Looks events up again by their place, for the few that the report names.
pub struct EventIds {
    pub log: Log,
    pub registry: Registry,
    pub handle: Handle,
}

impl EventIds {
    /// The examples as lines. An event that can't be read again is named by its place alone.
    pub fn of(mut self, bench: &Bench, examples: Vec<Example>) -> Vec<String> {
        let mut ids: HashMap<(u16, i32, i64), String> = HashMap::new();
        let line = |example: Example| {
            let Example {
                sink,
                kind,
                place,
                detail,
            } = example;
            let place = place.and_then(|place| {
                let source = bench.pipeline.sources.get(usize::from(place.source))?;
                let key = (place.source, place.partition, place.offset);
                let id = ids
                    .entry(key)
                    .or_insert_with(|| self.look_up(bench, place).unwrap_or_default());
                let id = if id.is_empty() {
                    String::new()
                } else {
                    format!(" event {id}")
                };
                Some(format!(
                    " {}/{}/{}/{}{id}",
                    source.topic, place.partition, place.offset, place.index
                ))
            });
            let detail = if detail.is_empty() {
                String::new()
            } else {
                format!(": {detail}")
            };
            format!("{} {sink}{}{detail}", kind.word(), place.unwrap_or_default())
        };
        examples.into_iter().map(line).collect()
    }

    fn look_up(&mut self, bench: &Bench, place: Place) -> Option<String> {
        let index = usize::from(place.source);
        let source = bench.pipeline.sources.get(index)?;
        let mut judge = Judge::new(&bench.pipeline, index, bench.shapes.get(index)?, bench.now_ms).ok()?;
        let range = Range {
            partition: place.partition,
            start: place.offset,
            end: place.offset + 1,
        };
        let mut found = None;
        let read = self.log.read(&source.topic, &[range], |record| {
            found = Some(record);
            Ok(())
        });
        let record = read.ok().and(found).filter(|record| record.offset == place.offset)?;
        for id in judge.unknown(std::slice::from_ref(&record)) {
            let answer = self.handle.block_on(self.registry.schema(id)).ok()?;
            judge.learn(id, &answer);
        }
        Some(judge.event_id(&record))
    }
}
