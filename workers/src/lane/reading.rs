//! Reads where partitions stand: committed offsets with their promises, and what topics and sinks say of them. On threads of
//! their own: each question may have to wait, for a transaction that is open or a server that is away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use exactly_once_kafka::{Group, Oldest, Reader, Start};
use exactly_once_protocol::{Event, Offsets, Partition, StopCode, Wanted};

use super::act::tell;
use super::flow::{Mode, Wait};
use super::{Inbox, LaneError, LaneLoop};
use crate::sinks::Sinks;
use crate::witnesses::{described, witnesses};

const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Between two lines of the log about the same wait.
const TELL_AGAIN: Duration = Duration::from_secs(30);
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// How often a lane looks whether its topics are still the same.
pub(super) const TOPICS_EVERY: Duration = Duration::from_secs(30);

/// One reading: it goes on until it has an answer or its lane is gone.
struct Reading {
    reader: Reader,
    start: Start,
    sinks: Arc<Sinks>,
    runtime: tokio::runtime::Handle,
    slot: String,
    sender: SyncSender<Inbox>,
}

impl LaneLoop {
    pub(super) fn read_offsets(&self, group: &Group, epoch: u64, wanted: Vec<Wanted>) {
        let reading = Reading {
            reader: group.reader(),
            start: self.settings.start,
            sinks: Arc::clone(&self.shared.sinks),
            runtime: self.shared.runtime.clone(),
            slot: self.settings.slot.clone(),
            sender: self.sender.clone(),
        };
        self.shared.runtime.spawn_blocking(move || {
            if let Some(offsets) = reading.run(&wanted) {
                tell(&reading.sender, Inbox::Offsets { epoch, offsets });
            }
        });
    }

    /// Notes what was found, for the line of the log in case that it stops a partition.
    pub(super) fn offsets(&mut self, epoch: u64, offsets: Offsets) {
        for (partition, stored) in &offsets {
            if let Some(witnesses) = &stored.witnesses {
                self.found.insert(*partition, described(&self.model.pipeline, stored));
                if let Some(id) = witnesses.topic {
                    let known = self.topic_ids.get(&partition.topic);
                    // What the lane holds of the topic already is of the one before.
                    if known.is_some_and(|known| *known != id) {
                        self.topic_replaced(partition.topic);
                    }
                    self.topic_ids.insert(partition.topic, id);
                }
            }
        }
        self.events.push_back(Event::OffsetsRead { epoch, offsets });
    }

    /// Asks whether the topics are still those that the lane began with.
    pub(super) fn look_at_topics(&self, group: &Group) {
        let known = self.topic_ids.clone();
        let partitions: Vec<Partition> = known
            .keys()
            .map(|topic| Partition {
                topic: *topic,
                partition: 0,
            })
            .collect();
        if partitions.is_empty() {
            return;
        }
        let (reader, sender) = (group.reader(), self.sender.clone());
        self.shared
            .runtime
            .spawn_blocking(move || match reader.topic_ids(&partitions, ANSWER_WITHIN) {
                Ok(ids) => {
                    for topic in replaced(&known, &ids) {
                        tell(&sender, Inbox::TopicReplaced(topic));
                    }
                }
                Err(error) => tracing::debug!(%error, "topics cannot be looked at"),
            });
    }

    /// librdkafka says once that an offset is gone: Kafka is asked until it has answered.
    pub(super) fn ask_for_oldest(&self, group: &Group, partitions: Vec<Partition>) {
        if partitions.is_empty() {
            return;
        }
        let known = self.topic_ids.clone();
        // Where each is read meanwhile moves on, and says nothing about an end that was told before.
        let next = |partition: &Partition| Some((*partition, self.flows.get(partition)?.next));
        let asked: BTreeMap<Partition, i64> = partitions.iter().filter_map(next).collect();
        let (ask, reader, sender) = (group.oldest(partitions.clone()), group.reader(), self.sender.clone());
        self.shared.runtime.spawn_blocking(move || {
            let mut oldest = ask();
            match reader.topic_ids(&partitions, ANSWER_WITHIN) {
                // A topic that was made again has other offsets, and that is what has to be said of it.
                Ok(ids) => {
                    let replaced = replaced(&known, &ids);
                    oldest
                        .offsets
                        .retain(|(partition, ..)| !replaced.contains(&partition.topic));
                    for topic in replaced {
                        tell(&sender, Inbox::TopicReplaced(topic));
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "topics cannot be looked at");
                    let asked = oldest.offsets.drain(..).map(|(partition, ..)| partition);
                    oldest.unanswered.extend(asked);
                }
            }
            tell(&sender, Inbox::Oldest(oldest, asked));
        });
    }

    /// `asked`: where each partition was read when Kafka was asked.
    pub(super) fn offsets_gone(
        &mut self,
        group: &Group,
        oldest: Oldest,
        asked: &BTreeMap<Partition, i64>,
    ) -> Result<(), LaneError> {
        for (partition, low, high) in oldest.offsets {
            let Some(flow) = self.flows.get(&partition).filter(|flow| flow.mode != Mode::Idle) else {
                continue;
            };
            let stands = asked.get(&partition) == Some(&flow.next);
            // Behind the end of a log that has lost records: those that come there next are others.
            if flow.next < low || (stands && flow.next > high) {
                self.events
                    .push_back(Event::Unsettled(partition, StopCode::OffsetsGone));
            } else if flow.wait == Some(Wait::Gone) {
                // librdkafka reads no further where it was told so, and a log that has grown again has the offset.
                self.go_on(group, partition)?;
            }
        }
        let mut still = oldest.unanswered;
        still.retain(|partition| self.flows.contains_key(partition));
        self.ask_for_oldest(group, still);
        Ok(())
    }

    pub(super) fn topic_replaced(&mut self, topic: u16) {
        let of_topic = self.flows.keys().filter(|partition| partition.topic == topic);
        let stopped = of_topic.map(|partition| Event::Unsettled(*partition, StopCode::TopicReplaced));
        self.events.extend(stopped);
    }
}

/// Topics whose ids are others now.
fn replaced(known: &BTreeMap<u16, u128>, now: &BTreeMap<u16, u128>) -> Vec<u16> {
    let other = |(topic, id): &(&u16, &u128)| now.get(topic).is_some_and(|now| now != *id);
    known.iter().filter(other).map(|(topic, _)| *topic).collect()
}

impl Reading {
    fn run(&self, wanted: &[Wanted]) -> Option<Offsets> {
        let partitions: Vec<Partition> = wanted.iter().map(|wanted| wanted.partition).collect();
        let mut offsets = self.until("committed offsets cannot be read yet", || {
            self.reader.read(&partitions, self.start, ANSWER_WITHIN)
        })?;
        let asked = wanted.iter().filter(|one| one.witnesses).map(|one| one.partition);
        let asked: Vec<Partition> = asked.collect();
        if asked.is_empty() {
            return Some(offsets);
        }
        let topics = self.until("topics cannot be described yet", || {
            self.reader.topic_ids(&asked, ANSWER_WITHIN)
        })?;
        let reaches: Vec<(Partition, i64)> = offsets
            .iter()
            .filter(|(partition, _)| asked.contains(partition))
            .map(|(partition, stored)| (*partition, stored.reach()))
            .collect();
        let mut told = self.until("it cannot be asked yet what sinks have", || {
            self.runtime.block_on(witnesses(&self.sinks, &topics, &reaches))
        })?;
        for (partition, stored) in &mut offsets {
            stored.witnesses = told.remove(partition);
        }
        Some(offsets)
    }

    /// `None` when the lane is gone.
    fn until<T, E: std::fmt::Display>(&self, waiting: &str, mut ask: impl FnMut() -> Result<T, E>) -> Option<T> {
        let mut told: Option<Instant> = None;
        loop {
            match ask() {
                Ok(answer) => return Some(answer),
                Err(error) if told.is_none_or(|told| told.elapsed() >= TELL_AGAIN) => {
                    told = Some(Instant::now());
                    tracing::info!(lane = self.slot, %error, "{waiting}, asking again");
                }
                Err(error) => tracing::debug!(lane = self.slot, %error, "{waiting}"),
            }
            std::thread::sleep(ASK_AGAIN);
            if self.reader.abandoned() {
                return None;
            }
        }
    }
}
