//! Settling a pending promise: rebuild the range with what the promise pins, read back, and hand the machine a recovery
//! batch. Rebuilding and waiting for the deadline go on at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use exactly_once_kafka::Group;
use exactly_once_protocol::{Event, Guarantee, Kind, Partition, Promise, Range, RangeOutput, StopCode};
use rules::Revision;

use super::flow::{Flow, Mode};
use super::{Held, Inbox, LaneError, LaneLoop, Room};
use crate::collect::Collector;
use crate::model::Model;
use crate::settle::{Present, missing, read_back};
use crate::sinks::{Shipment, Unfed};
use crate::transform::{Outputs, transform};

/// Once the server has said so often that it cannot feed a rollup, the range is committed without: a rollup must not hold up its
/// table. Attempts that came to nothing for another reason (a worker or a server that died, a transaction that did not commit)
/// are repeated without end, like those of the table itself.
const REFUSED_MAX: u16 = 5;

/// Promises that are complete wait so long for others that have only been read back.
const TOGETHER_WITHIN: Duration = Duration::from_secs(2);

/// One promise that is being settled.
pub(super) struct Settling {
    ticket: u64,
    present_since: Option<Instant>,
    pub promise: Promise,
    /// The model that its columns are built with.
    pub model: Arc<Model>,
    pub collector: Collector,
    rebuilt: bool,
    present: Option<Present>,
    documents: Option<Arc<Vec<(String, String)>>>,
    /// Transformed and compared; waits for the others.
    ready: Option<(Shipment, RangeOutput)>,
}

impl Settling {
    /// Nothing was to be delivered: there is nothing to rebuild, and no rule decides anything.
    fn feeds_alone(&self) -> bool {
        self.promise.start == self.promise.end
    }
}

impl LaneLoop {
    pub(super) fn settle(&mut self, partition: Partition, promise: Promise) {
        self.tickets += 1;
        let ticket = self.tickets;
        let range = Range {
            partition,
            start: promise.start,
            end: promise.end,
        };
        let (sender, sinks) = (self.sender.clone(), Arc::clone(&self.shared.sinks));
        let (model, asked) = (Arc::clone(&self.model), promise.clone());
        self.shared.runtime.spawn(async move {
            let present = read_back(&sinks, &model, &asked, range).await;
            super::act::tell(
                &sender,
                Inbox::ReadBack {
                    partition,
                    ticket,
                    present,
                },
            );
        });
        let (start, end) = (promise.start, promise.end);
        let feeds_alone = start == end;
        let (sender, surroundings) = (self.sender.clone(), Arc::clone(&self.shared.surroundings));
        let rules = promise.rules;
        if !feeds_alone {
            self.shared.runtime.spawn(async move {
                let documents = surroundings.documents(rules).await;
                super::act::tell(
                    &sender,
                    Inbox::Documents {
                        partition,
                        ticket,
                        documents,
                    },
                );
            });
        }
        self.settling.insert(
            partition,
            Settling {
                ticket,
                present_since: None,
                promise,
                model: Arc::clone(&self.model),
                collector: Collector::default(),
                rebuilt: feeds_alone,
                present: None,
                documents: feeds_alone.then(Arc::default),
                ready: None,
            },
        );
        self.flows.insert(
            partition,
            Flow {
                mode: Mode::Settle { end },
                start,
                next: start,
                wait: None,
            },
        );
    }

    /// The last record of the promised range was seen.
    pub(super) fn rebuilt(&mut self, group: &Group, partition: Partition) -> Result<(), LaneError> {
        if let Some(settling) = self.settling.get_mut(&partition) {
            settling.rebuilt = true;
        }
        if let Some(flow) = self.flows.get_mut(&partition) {
            flow.mode = Mode::Idle;
            group.pause(&[partition])?;
        }
        Ok(())
    }

    pub(super) fn read_back(&mut self, partition: Partition, ticket: u64, present: Present) {
        if let Some(settling) = self
            .settling
            .get_mut(&partition)
            .filter(|settling| settling.ticket == ticket)
        {
            settling.present = Some(present);
            settling.present_since = Some(Instant::now());
        }
    }

    pub(super) fn pinned(&mut self, partition: Partition, ticket: u64, documents: Option<Arc<Vec<(String, String)>>>) {
        if let Some(settling) = self
            .settling
            .get_mut(&partition)
            .filter(|settling| settling.ticket == ticket)
        {
            match documents {
                Some(documents) => settling.documents = Some(documents),
                None => self
                    .events
                    .push_back(Event::Unsettled(partition, StopCode::RevisionGone)),
            }
        }
    }

    /// Newer shapes: what is half rebuilt begins again with them.
    pub(super) fn restart_settlings(&mut self, group: &Group) -> Result<(), LaneError> {
        for (partition, settling) in &mut self.settling {
            if settling.rebuilt {
                continue;
            }
            settling.model = Arc::clone(&self.model);
            settling.collector = Collector::default();
            let (start, end) = (settling.promise.start, settling.promise.end);
            let waits = self.flows.get(partition).is_some_and(|flow| flow.wait.is_some());
            let wait = self.flows.get(partition).and_then(|flow| flow.wait);
            self.flows.insert(
                *partition,
                Flow {
                    mode: Mode::Settle { end },
                    start,
                    next: start,
                    wait,
                },
            );
            if !waits
                && !self
                    .unassigned
                    .as_ref()
                    .is_some_and(|waiting| waiting.contains_key(partition))
            {
                group.seek(*partition, start)?;
            }
        }
        Ok(())
    }

    /// Transforms and compares what is complete; hands the ready ones to the machine together, so that forty partitions
    /// of a crashed worker need one transaction and not forty.
    pub(super) fn settle_what_is_ready(&mut self, group: &Group) -> Result<(), LaneError> {
        if self.settling.is_empty() {
            return Ok(());
        }
        let complete: Vec<Partition> = self
            .settling
            .iter()
            .filter(|(_, s)| s.ready.is_none() && s.rebuilt && s.present.is_some() && s.documents.is_some())
            .map(|(partition, _)| *partition)
            .collect();
        let mut compiled = BTreeMap::new();
        for partition in complete {
            self.compare(partition, &mut compiled)?;
        }
        // Those whose read-back is there will be complete within moments, and travel together; what one of them lacks may also be
        // away for long: the registry, the rules service, a partition's leader.
        let soon = self.settling.values().any(|s| {
            let present = s.present_since.is_some_and(|since| since.elapsed() < TOGETHER_WITHIN);
            s.ready.is_none() && present
        });
        if !soon && self.machine.standing().waiting == 0 {
            self.send_ready();
        }
        self.carry_out(group)
    }

    fn compare(
        &mut self,
        partition: Partition,
        compiled: &mut BTreeMap<(u64, u64, u64), Arc<Revision>>,
    ) -> Result<(), LaneError> {
        let Some(settling) = self.settling.get_mut(&partition) else {
            return Ok(());
        };
        let (number, digest) = settling.promise.rules;
        let same = (self.revision.number, self.revision.digest) == (number, digest)
            && settling.model.version == self.model.version;
        let revision = if same || settling.feeds_alone() {
            Arc::clone(&self.revision)
        } else if let Some(known) = compiled.get(&(number, digest, settling.model.version)) {
            Arc::clone(known)
        } else {
            let documents = settling.documents.clone().unwrap_or_default();
            match Revision::compile(number, &documents, &settling.model.catalog) {
                Ok(revision) => {
                    let revision = Arc::new(revision);
                    compiled.insert((number, digest, settling.model.version), Arc::clone(&revision));
                    revision
                }
                Err(faults) => {
                    let first = faults.first().map(ToString::to_string).unwrap_or_default();
                    tracing::error!(number, first, "the rules of a pending promise do not compile any more");
                    self.events
                        .push_back(Event::Unsettled(partition, StopCode::RevisionGone));
                    return Ok(());
                }
            }
        };
        let collected = settling.collector.close()?;
        let mut outputs = transform(&settling.model, &revision, collected)?;
        let promised = Range {
            partition,
            start: settling.promise.start,
            end: settling.promise.end,
        };
        let nothing = (promised.start == promised.end).then(|| RangeOutput::of_nothing(promised));
        let rebuilt = outputs.ranges.first().filter(|output| output.range == promised);
        let Some(output) = nothing.or_else(|| rebuilt.cloned()) else {
            self.events
                .push_back(Event::Unsettled(partition, StopCode::OffsetsGone));
            return Ok(());
        };
        outputs.rules = settling.promise.rules;
        let present = settling.present.take().unwrap_or_default();
        match compared(&settling.promise, &output, &outputs, &present, self.recipe.guarantee) {
            Ok(rows) => {
                // Rows that are about to be inserted are in no rollup either.
                let lacking = rows.iter().any(|rows| !rows.is_empty());
                let mut feeds = if lacking { present.rollups } else { present.unfed };
                let mut refused = Arc::clone(self.refused.entry(partition).or_default());
                if !feeds.is_empty() && refused.load(Ordering::Relaxed) >= REFUSED_MAX {
                    tracing::error!(
                        rollup = feeds[0].rollup,
                        "the rollup lacks rows and cannot be fed; its table is whole: see `sluice rollups repair`"
                    );
                    feeds.clear();
                }
                if feeds.is_empty() {
                    refused = Arc::default();
                    self.refused.insert(partition, Arc::clone(&refused));
                }
                let unfed = present.unfed_range.filter(|_| !feeds.is_empty());
                let rows = self.shared.sinks.write(&self.shared.runtime, &mut outputs, Some(&rows));
                settling.ready = Some((
                    Shipment {
                        outputs: Arc::new(outputs),
                        rows,
                        unfed: unfed.map(|range| {
                            let ranges = vec![range];
                            Arc::new(Unfed { feeds, ranges, refused })
                        }),
                    },
                    output,
                ));
            }
            Err(code) => self.events.push_back(Event::Unsettled(partition, code)),
        }
        Ok(())
    }

    fn send_ready(&mut self) {
        let mut groups: BTreeMap<(u64, u64), Vec<Partition>> = BTreeMap::new();
        for (partition, settling) in &self.settling {
            if settling.ready.is_some() {
                groups.entry(settling.promise.rules).or_default().push(*partition);
            }
        }
        for (rules, partitions) in groups {
            let (mut shipments, mut ranges) = (Vec::new(), Vec::new());
            for partition in partitions {
                if let Some(settling) = self.settling.remove(&partition)
                    && let Some((shipment, output)) = settling.ready
                {
                    shipments.push(shipment);
                    ranges.push(output);
                }
            }
            let lacking = |shipment: &Shipment| shipment.unfed.is_some() || !shipment.rows.is_empty();
            let kind = Kind::Recovery {
                missing: shipments.iter().any(lacking),
            };
            let records = shipments.iter().map(|shipment| shipment.outputs.records as usize).sum();
            tracing::info!(
                lane = self.settings.slot,
                partitions = ranges.len(),
                records,
                ?kind,
                "promises read back"
            );
            self.shared.metrics.settled.inc_by(ranges.len() as u64);
            let by_partition = ranges
                .iter()
                .map(|output: &RangeOutput| (output.range.partition, 0))
                .collect();
            let held = Held {
                records,
                room: Room {
                    rows: records,
                    ..Room::default()
                },
                by_partition,
                ..Held::of(shipments, kind)
            };
            let batch = self.hold(held);
            self.events.push_back(Event::Prepared {
                batch,
                kind,
                ranges,
                rules,
            });
        }
    }
}

/// Never deliver other bytes under an old promise: the digest is compared before anything of the read-back is believed.
fn compared(
    promise: &Promise,
    output: &RangeOutput,
    outputs: &Outputs,
    present: &Present,
    guarantee: Guarantee,
) -> Result<Vec<Vec<usize>>, StopCode> {
    if promise.digest != output.digest || promise.outputs != output.outputs {
        return Err(StopCode::DigestDiffers);
    }
    missing(outputs, present, guarantee)
}
