//! Counts what Kafka acknowledges. librdkafka calls back from `poll`, which only the driving thread calls, so the lock is
//! never waited for.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::ProducerContext;
use uuid::Uuid;

use super::{Progress, Report, Settings, TopicReport};
use crate::Error;
use crate::event::{Event, Visitor};
use crate::latency::{Feed, Sample};
use crate::poison::Poison;

/// An event that was sent and not yet acknowledged.
#[derive(Debug)]
pub(crate) struct Sent {
    pub target: usize,
    pub id: Uuid,
    pub visitor: Arc<Visitor>,
    pub version: u32,
    pub poison: Option<Poison>,
    pub sampled: bool,
    /// When it was due, unix ms, and its Kafka timestamp. Not `occurred_at`: that one may be poisoned, and brokers refuse
    /// timestamps that are far ahead.
    pub at_ms: i64,
}

impl Sent {
    /// A good event, not sampled.
    pub(crate) fn of(target: usize, event: &Event, version: u32, at_ms: i64) -> Self {
        let visitor = event.visitor.clone();
        Self {
            target,
            id: event.id,
            visitor,
            version,
            poison: None,
            sampled: false,
            at_ms,
        }
    }
}

pub(crate) struct Tally {
    inner: Mutex<Inner>,
}

struct Inner {
    topics: Vec<Topic>,
    /// What is on its way; the opaque that librdkafka carries is the index.
    sent: Vec<Option<Sent>>,
    free: Vec<usize>,
    poison: BTreeMap<Poison, u64>,
    failed: u64,
    last_failure: Option<String>,
    record: Option<(String, BufWriter<File>)>,
    record_fault: Option<String>,
    feed: Option<Feed>,
}

#[derive(Default)]
struct Topic {
    name: Arc<str>,
    produced: u64,
    second_version: u64,
    poison: u64,
    id_xor: u128,
    id_sum: u128,
}

impl Tally {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        let record = match &settings.record {
            None => None,
            Some(path) => {
                let name = path.display().to_string();
                let file = File::create(path).map_err(|error| Error::Record {
                    path: name.clone(),
                    reason: error.to_string(),
                })?;
                Some((name, BufWriter::new(file)))
            }
        };
        let topics = settings.targets.iter().map(|target| Topic {
            name: target.topic.as_str().into(),
            ..Topic::default()
        });
        Ok(Self {
            inner: Mutex::new(Inner {
                topics: topics.collect(),
                sent: Vec::new(),
                free: Vec::new(),
                poison: BTreeMap::new(),
                failed: 0,
                last_failure: None,
                record,
                record_fault: None,
                feed: settings.samples.clone(),
            }),
        })
    }

    /// Notes an event that is about to be sent and answers the opaque to send it with.
    pub(crate) fn sending(&self, sent: Sent) -> usize {
        let mut inner = self.lock();
        if let Some(slot) = inner.free.pop() {
            inner.sent[slot] = Some(sent);
            return slot;
        }
        inner.sent.push(Some(sent));
        inner.sent.len() - 1
    }

    /// The event of this opaque was not even taken.
    pub(crate) fn refused(&self, slot: usize, reason: &str) {
        self.lock().settle(slot, Err(reason.to_owned()));
    }

    pub(crate) fn in_flight(&self) -> u64 {
        let inner = self.lock();
        count(inner.sent.len() - inner.free.len())
    }

    pub(crate) fn progress(&self, elapsed: Duration, late_ms_max: u64) -> Progress {
        let inner = self.lock();
        Progress {
            elapsed,
            acknowledged: inner.topics.iter().map(|topic| topic.produced).sum(),
            poison: inner.topics.iter().map(|topic| topic.poison).sum(),
            failed: inner.failed,
            in_flight: count(inner.sent.len() - inner.free.len()),
            late_ms_max,
        }
    }

    pub(crate) fn report(&self, settings: &Settings, elapsed: Duration, late_ms_max: u64) -> Result<Report, Error> {
        let mut inner = self.lock();
        inner.close_record()?;
        let produced: u64 = inner.topics.iter().map(|topic| topic.produced).sum();
        let poison: u64 = inner.poison.values().sum();
        let unanswered = count(inner.sent.len() - inner.free.len());
        #[expect(clippy::cast_precision_loss, reason = "a rate for people to read")]
        let events = (produced + poison) as f64;
        Ok(Report {
            seed: settings.seed,
            produced,
            poison: inner
                .poison
                .iter()
                .map(|(kind, count)| (kind.name().to_owned(), *count))
                .collect(),
            failed: inner.failed + unanswered,
            last_failure: if unanswered > 0 {
                Some(format!(
                    "{unanswered} events were not acknowledged within {:?}",
                    settings.drain
                ))
            } else {
                inner.last_failure.clone()
            },
            seconds: elapsed.as_secs_f64(),
            events_per_second: events / elapsed.as_secs_f64().max(f64::EPSILON),
            late_ms_max,
            topics: inner.topics.iter().map(Topic::report).collect(),
        })
    }

    /// A panic in another holder cannot leave counts half-way: each is one addition.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClientContext for Tally {}

impl ProducerContext for Tally {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, slot: usize) {
        let outcome = match result {
            Ok(message) => Ok((message.partition(), message.offset())),
            Err((error, _)) => Err(error.to_string()),
        };
        self.lock().settle(slot, outcome);
    }
}

impl Inner {
    fn settle(&mut self, slot: usize, outcome: Result<(i32, i64), String>) {
        let Some(sent) = self.sent.get_mut(slot).and_then(Option::take) else {
            return;
        };
        self.free.push(slot);
        match outcome {
            Ok((partition, offset)) => self.acknowledged(&sent, partition, offset),
            Err(reason) => {
                self.failed += 1;
                self.last_failure = Some(reason);
            }
        }
    }

    fn acknowledged(&mut self, sent: &Sent, partition: i32, offset: i64) {
        let topic = &mut self.topics[sent.target];
        match sent.poison {
            Some(kind) => {
                topic.poison += 1;
                *self.poison.entry(kind).or_default() += 1;
            }
            None => {
                topic.produced += 1;
                topic.second_version += u64::from(sent.version == 2);
                topic.id_xor ^= sent.id.as_u128();
                topic.id_sum = topic.id_sum.wrapping_add(sent.id.as_u128());
            }
        }
        if sent.sampled
            && let Some(feed) = &self.feed
        {
            feed.published(Sample {
                topic: topic.name.clone(),
                partition,
                offset,
                at_ms: sent.at_ms,
            });
        }
        if let Some((_, file)) = &mut self.record {
            let Sent {
                id,
                visitor,
                version,
                poison,
                ..
            } = sent;
            let kind = poison.map_or("-", Poison::name);
            let line = writeln!(
                file,
                "{}\t{partition}\t{offset}\t{id}\t{}\t{version}\t{kind}",
                topic.name, visitor.tenant
            );
            if let Err(error) = line {
                self.record_fault = Some(error.to_string());
            }
        }
    }

    fn close_record(&mut self) -> Result<(), Error> {
        let Some((path, mut file)) = self.record.take() else {
            return Ok(());
        };
        if let Err(error) = file.flush() {
            self.record_fault = Some(error.to_string());
        }
        self.record_fault
            .take()
            .map_or(Ok(()), |reason| Err(Error::Record { path, reason }))
    }
}

impl Topic {
    fn report(&self) -> TopicReport {
        TopicReport {
            topic: self.name.to_string(),
            produced: self.produced,
            second_version: self.second_version,
            poison: self.poison,
            id_xor: format!("{:032x}", self.id_xor),
            id_sum: format!("{:032x}", self.id_sum),
        }
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
