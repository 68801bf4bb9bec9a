//! Records into collectors: what a partition's records are for, and which schema each of them has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crash_points::{Point, here};
use exactly_once_kafka::{Group, Record as Fetched, headers};
use exactly_once_protocol::{Partition, UNKNOWN_SCHEMAS_MAX};

use super::{Inbox, LaneError, LaneLoop};
use crate::collect::{Headers, Position, Record, Refusal, Stage};
use crate::decode::Plan;
use crate::frame::frame;

/// How long "unknown to the registry" is believed before it is asked again.
const UNKNOWN_FOR: Duration = Duration::from_secs(30);

/// More unknown ids than this are not remembered; forgetting one only costs asking again.
const UNKNOWN_IDS_MAX: usize = 10_000;

/// What a partition's records are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// Nothing: it is paused.
    Idle,
    /// New ranges.
    New,
    /// Rebuilding a promised range, up to this offset.
    Settle {
        /// One past the last offset.
        end: i64,
    },
}

/// Why a partition that has something to do is not fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Its next record needs this schema.
    Schema(u32),
    /// Its next record's schema has fields that the model lacks.
    Model,
    /// It holds more than its share, its batch was taken back or has as many unknown ids as a promise has room for, or the lane or its batch holds
    /// as much as it may while another partition is rebuilt.
    Pressure,
    /// The dead-letter brake is on.
    Brake,
    /// Kafka answered with an error in place of its next record: it is asked again.
    Error,
    /// Its next offset is not in the topic: Kafka is asked where the topic begins and ends.
    Gone,
}

impl Wait {
    pub(super) fn name(self) -> &'static str {
        match self {
            Wait::Schema(_) => "schema",
            Wait::Model => "model",
            Wait::Pressure => "pressure",
            Wait::Brake => "brake",
            Wait::Error => "error",
            Wait::Gone => "gone",
        }
    }
}

/// One partition of the lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flow {
    pub mode: Mode,
    /// Where the next range begins.
    pub start: i64,
    /// The next offset that is wanted; anything below it is an echo of an earlier fetch.
    pub next: i64,
    pub wait: Option<Wait>,
}

impl Flow {
    pub(super) const IDLE: Flow = Flow {
        mode: Mode::Idle,
        start: 0,
        next: 0,
        wait: None,
    };
}

/// What is known of a schema that the model does not hold.
#[derive(Debug, Clone, Copy)]
pub(super) enum Foreign {
    /// The registry is asked.
    Asked,
    /// A version of the subject: a newer model will hold it, or the registry is asked again then.
    Newer {
        /// When.
        until: Instant,
    },
    /// Of no version of the subject, as is believed until then: its events become dead letters.
    Believed {
        /// Then the registry is asked again.
        until: Instant,
    },
}

/// What became of a record's schema.
enum Found {
    /// Index in [`LaneLoop::plans`].
    Plan(usize),
    /// The registry definitely does not know it.
    Unknown,
    /// It cannot be read into the table.
    Unfit(String),
    /// Asked for; the record will come again.
    Later(Wait),
}

impl LaneLoop {
    pub(super) fn record(&mut self, group: &Group, message: &Fetched<'_>) -> Result<(), LaneError> {
        let partition = message.partition();
        let Some(flow) = self.flows.get(&partition).copied() else {
            return Ok(());
        };
        let offset = message.offset();
        if flow.mode == Mode::Idle || flow.wait.is_some() || offset < flow.next {
            return Ok(());
        }
        if let Mode::Settle { end } = flow.mode
            && offset >= end
        {
            return self.rebuilt(group, partition);
        }
        let timestamp_ms = message.timestamp_ms();
        match self.take(partition, flow, message, timestamp_ms) {
            Ok(()) => {
                here(Point::AfterPoll);
                if let Some(flow) = self.flows.get_mut(&partition) {
                    flow.next = offset + 1;
                }
                if flow.mode == Mode::New {
                    self.first_at.get_or_insert_with(Instant::now);
                    self.oldest_ms = self.oldest_ms.min(timestamp_ms.unwrap_or(i64::MAX));
                }
            }
            // It will come again: a range whose last record waits is not rebuilt yet.
            Err(wait) => return self.hold_back(group, partition, wait),
        }
        match flow.mode {
            Mode::Settle { end } if offset + 1 >= end => self.rebuilt(group, partition),
            _ => Ok(()),
        }
    }

    /// Decodes a record into its collector. `Err`: the partition has to wait, and the record will come again.
    fn take(
        &mut self,
        partition: Partition,
        flow: Flow,
        message: &Fetched<'_>,
        timestamp_ms: Option<i64>,
    ) -> Result<(), Wait> {
        if flow.mode == Mode::New && self.collector.records() >= self.records_max {
            return Err(Wait::Pressure);
        }
        let source = usize::from(partition.topic);
        let headers = headers::all(message);
        let mut position = Position {
            partition,
            offset: message.offset(),
            timestamp_ms: timestamp_ms.unwrap_or(0),
            schema_id: 0,
        };
        let outcome = match self.framed(source, message, &headers) {
            Err(refused) => Err(refused),
            Ok((id, body)) => {
                position.schema_id = id;
                match self.plan(partition, source, id) {
                    Found::Later(wait) => return Err(wait),
                    Found::Plan(plan) => Ok((plan, body)),
                    Found::Unknown => {
                        self.note_unknown(partition, flow.mode, id);
                        Err(self.unknown_id(source, id))
                    }
                    Found::Unfit(reason) => Err(refusal(Stage::Schema, "schema_unusable", reason, "", Some(id))),
                }
            }
        };
        let record = Record {
            position,
            key: message.key(),
            value: message.payload(),
            headers,
        };
        // Borrowed, not cloned: lanes share the model, and the count of its owners would go from core to core with each record.
        let (collector, model) = match flow.mode {
            Mode::Settle { .. } => match self.settling.get_mut(&partition) {
                Some(settling) => (&mut settling.collector, &settling.model),
                None => return Ok(()),
            },
            _ => (&mut self.collector, &self.model),
        };
        collector.cover(partition, flow.start, position.offset);
        match outcome {
            Ok((plan, body)) => match self.plans[plan].1.decode(collector.columns(model, source), body) {
                Ok(()) => collector.row(model, source, record),
                Err(fault) => {
                    let id = Some(position.schema_id);
                    collector.dead(
                        record,
                        refusal(Stage::Decode, fault.code, fault.reason, &fault.field, id),
                    );
                }
            },
            Err(refused) => collector.dead(record, refused),
        }
        if flow.mode == Mode::New {
            self.taken[source].1 += 1;
        }
        Ok(())
    }

    /// Schema id and Avro body of a record, or why it has none.
    fn framed<'a>(
        &self,
        source: usize,
        message: &'a Fetched<'_>,
        headers: &Headers,
    ) -> Result<(u32, &'a [u8]), Refusal> {
        let pipeline = &self.model.pipeline;
        let described = &pipeline.sources[source];
        let bytes = message.payload().map_or(0, <[u8]>::len) + message.key().map_or(0, <[u8]>::len);
        let limit = pipeline.limits.event_bytes_max;
        if bytes > limit {
            let reason = format!("the event has {bytes} bytes, the limit `limits.event_bytes_max` is {limit}");
            return Err(refusal(Stage::Event, "too_large", reason, "", None));
        }
        let mut named = headers
            .iter()
            .rev()
            .filter(|(name, _)| *name == described.schema_id_header);
        let header = named.next().and_then(|(_, value)| value.as_deref());
        frame(described, message.payload(), header)
            .map_err(|fault| refusal(Stage::Frame, fault.code(), fault.reason().into(), "", None))
    }

    fn unknown_id(&self, source: usize, id: u32) -> Refusal {
        let pipeline = &self.model.pipeline;
        let subject = &pipeline.sources[source].subject;
        let reason = format!("the registry has no schema id {id} among the versions of subject {subject}");
        Refusal {
            attempts: pipeline.dead_letters.attempts,
            ..refusal(Stage::Schema, "unknown_schema_id", reason, "", Some(id))
        }
    }

    /// Tells what was taken in since the last time.
    pub(super) fn count_taken(&mut self) {
        for (counter, taken) in &mut self.taken {
            if *taken > 0 {
                counter.inc_by(std::mem::take(taken));
            }
        }
    }

    fn note_unknown(&mut self, partition: Partition, mode: Mode, id: u32) {
        let collector = match mode {
            Mode::Settle { .. } => self
                .settling
                .get_mut(&partition)
                .map(|settling| &mut settling.collector),
            _ => Some(&mut self.collector),
        };
        if let Some(collector) = collector {
            collector.unknown_schema(partition, id);
        }
    }

    /// The plan of a schema id, or why there is none.
    fn plan(&mut self, partition: Partition, source: usize, id: u32) -> Found {
        let settling = self.settling.get(&partition);
        if let Some(settling) = settling
            && settling.promise.unknown_schemas.contains(&id)
        {
            // The promise's verdict stands, whatever the registry says by now.
            return Found::Unknown;
        }
        if settling.is_none() && self.collector.is_unknown(partition, id) {
            // So does the range's: it will be rebuilt with one verdict for all of its events.
            return Found::Unknown;
        }
        let model = settling.map_or(&self.model, |settling| &settling.model);
        // Records come in runs of one schema: the last one's plan is found first.
        let wanted = (model.version, source, id);
        if let Some(plan) = self.plans.iter().position(|(of, _)| *of == wanted) {
            self.plans.swap(0, plan);
            return Found::Plan(0);
        }
        let Some(schema) = self.schemas.get(&id).cloned() else {
            let believed = self.unknown.get(&id).is_some_and(|until| *until > Instant::now());
            if believed && settling.is_none() {
                return self.unknown_to(partition);
            }
            self.ask_for_schema(id, Duration::ZERO);
            return Found::Later(Wait::Schema(id));
        };
        if !model.shapes[source].covers(&schema.avro) {
            if settling.is_some() {
                // It was held when the range was promised.
                self.shared.surroundings.evolve(source);
                return Found::Later(Wait::Model);
            }
            return self.foreign(partition, source, &schema);
        }
        match Plan::compile(&schema.avro, &model.shapes[source]) {
            Ok(plan) => {
                self.plans.push((wanted, plan));
                Found::Plan(self.plans.len() - 1)
            }
            Err(error) => Found::Unfit(format!("schema id {id}: {error}")),
        }
    }

    /// The registry knows the id, and the model does not hold its fields: it is newer, or of another subject.
    fn foreign(&mut self, partition: Partition, source: usize, schema: &Arc<registry_cache::Schema>) -> Found {
        match self.foreign.get(&(source, schema.id)) {
            Some(Foreign::Believed { until }) if *until > Instant::now() => return self.unknown_to(partition),
            Some(Foreign::Newer { until }) if *until > Instant::now() => {
                self.shared.surroundings.evolve(source);
                return Found::Later(Wait::Model);
            }
            Some(Foreign::Asked) => {}
            Some(Foreign::Believed { .. } | Foreign::Newer { .. }) | None => {
                self.foreign.insert((source, schema.id), Foreign::Asked);
                let (surroundings, sender) = (Arc::clone(&self.shared.surroundings), self.sender.clone());
                let (id, schema) = (schema.id, Arc::clone(schema));
                self.shared.runtime.spawn(async move {
                    let belongs = surroundings.belongs(source, schema).await;
                    super::act::tell(&sender, Inbox::Belongs { source, id, belongs });
                });
            }
        }
        Found::Later(Wait::Schema(schema.id))
    }

    pub(super) fn belonging(&mut self, group: &Group, source: usize, id: u32, belongs: bool) -> Result<(), LaneError> {
        let until = Instant::now() + UNKNOWN_FOR;
        let found = match belongs {
            true => Foreign::Newer { until },
            false => {
                let subject = &self.model.pipeline.sources[source].subject;
                tracing::warn!(
                    id,
                    subject,
                    "the schema of this id is no version of the topic's subject: its events become dead letters"
                );
                Foreign::Believed { until }
            }
        };
        self.foreign.insert((source, id), found);
        self.release(group, |wait| wait == Wait::Schema(id))
    }

    /// A subject that had nothing newer when it was read may have by now: for partitions that wait for it, or for the brake, which
    /// events of no version may have tripped.
    pub(super) fn evolve_again(&mut self, group: &Group) -> Result<(), LaneError> {
        let waits = |flow: &Flow| matches!(flow.wait, Some(Wait::Model | Wait::Brake));
        let waiting = self.flows.iter().filter(|(_, flow)| waits(flow));
        let sources: BTreeSet<usize> = waiting.map(|(partition, _)| usize::from(partition.topic)).collect();
        for source in sources {
            self.shared.surroundings.evolve(source);
        }
        let now = Instant::now();
        let over = |found: &Foreign| matches!(found, Foreign::Newer { until } if *until <= now);
        match self.foreign.values().any(over) {
            true => {
                self.foreign.retain(|_, found| !over(found));
                self.release(group, |wait| wait == Wait::Model)
            }
            false => Ok(()),
        }
    }

    /// A promise pins the ids that its range holds to be unknown, and has room for so many.
    fn unknown_to(&self, partition: Partition) -> Found {
        match self.collector.unknown_count(partition) >= UNKNOWN_SCHEMAS_MAX {
            true => Found::Later(Wait::Pressure),
            false => Found::Unknown,
        }
    }

    fn ask_for_schema(&mut self, id: u32, after: Duration) {
        if after.is_zero() && self.asking.contains_key(&id) {
            return;
        }
        *self.asking.entry(id).or_insert(0) += 1;
        let (surroundings, sender) = (Arc::clone(&self.shared.surroundings), self.sender.clone());
        self.shared.runtime.spawn(async move {
            tokio::time::sleep(after).await;
            let schema = surroundings.schema(id).await;
            super::act::tell(&sender, Inbox::Schema { id, schema });
        });
    }

    pub(super) fn schema_arrived(
        &mut self,
        group: &Group,
        id: u32,
        schema: Result<Arc<registry_cache::Schema>, String>,
    ) -> Result<(), LaneError> {
        let attempts = self.asking.get(&id).copied().unwrap_or(1);
        match schema {
            Ok(schema) => {
                self.asking.remove(&id);
                self.unknown.remove(&id);
                self.schemas.insert(id, schema);
            }
            Err(reason) if attempts >= self.model.pipeline.dead_letters.attempts => {
                tracing::warn!(
                    id,
                    attempts,
                    reason,
                    "no schema of this id can be had: its events become dead letters"
                );
                self.asking.remove(&id);
                if self.unknown.len() >= UNKNOWN_IDS_MAX {
                    self.unknown.clear();
                }
                self.unknown.insert(id, Instant::now() + UNKNOWN_FOR);
            }
            Err(_) => {
                // A producer's registration may still be on its way to the registry's other nodes.
                self.ask_for_schema(id, Duration::from_millis(50 << attempts.min(4)));
                return Ok(());
            }
        }
        self.release(group, |wait| wait == Wait::Schema(id))
    }
}

/// Of a record that was tried once and belongs to no tenant that is known.
fn refusal(stage: Stage, code: &str, reason: String, field: &str, schema_id: Option<u32>) -> Refusal {
    Refusal {
        stage,
        code: code.into(),
        reason,
        field: field.into(),
        attempts: 1,
        schema_id,
        tenant: String::new(),
    }
}
