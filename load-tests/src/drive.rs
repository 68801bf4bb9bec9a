//! An open-loop producer: when each event is sent follows from a schedule fixed beforehand, never from how fast anything
//! answers, so that a slow system cannot slow its own load down (coordinated omission). An event's Kafka timestamp and
//! `occurred_at` are the time at which it *should* have been sent.

mod report;
pub(crate) mod sampling;
pub(crate) mod schedule;
mod settings;
mod tally;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

pub use report::{Progress, Report, TopicReport};
pub use settings::{Burst, Settings, Target};

use crate::encode::encode;
use crate::event::{Event, EventType};
use crate::frame::Frame;
use crate::generate::Generator;
use crate::poison::{Poison, Recipe, poisoned};
use crate::random::Random;
use crate::register::register;
use crate::{Error, unix_ms};
use sampling::Sampling;
use schedule::Schedule;
use tally::{Sent, Tally};

/// How long the loop rests when nothing is due; also how precise the schedule is.
const TICK: Duration = Duration::from_millis(1);
const NULL_KEY_SHARE: f64 = 0.02;

/// Drives until `settings.duration` has passed or `settings.stop` is set, then waits for acknowledgements. Blocks: call it on a
/// thread of its own (`spawn_blocking`). `progress` is called every `settings.progress_every`, on the same thread.
///
/// # Errors
/// [`Error`] when nothing could be driven; events that Kafka refused are counted in the report.
pub fn run(settings: Settings, progress: &mut impl FnMut(Progress)) -> Result<Report, Error> {
    let mut drive = Drive::prepare(settings)?;
    drive.send_all(progress)?;
    drive.drain(progress);
    drive.report()
}

struct Drive {
    settings: Settings,
    producer: BaseProducer<Tally>,
    /// Of each target.
    writing: Vec<Writing>,
    generator: Generator,
    random: Random,
    schedule: Schedule,
    poisons: u64,
    bursts_left: u64,
    sampling: Sampling,
    late_ms_max: u64,
    avro: Vec<u8>,
    next_progress: Duration,
    newer: Option<mpsc::Receiver<Result<Vec<Writing>, Error>>>,
}

/// The schema version of a target that is sent now.
#[derive(Debug, Clone, Copy)]
struct Writing {
    version: u32,
    schema_id: u32,
}

impl Drive {
    fn prepare(settings: Settings) -> Result<Self, Error> {
        settings.check()?;
        let writing = register_all(&settings, 1)?;
        let tally = Tally::new(&settings)?;
        let producer: BaseProducer<Tally> = client_config(&settings)
            .create_with_context(tally)
            .map_err(|error| kafka(&settings, &error.to_string()))?;
        find_topics(&settings, &producer)?;
        let schedule = Schedule::start(settings.rate, settings.duration, Instant::now(), unix_ms());
        Ok(Self {
            generator: Generator::new(settings.seed, settings.tenants),
            random: Random::new(settings.seed ^ 0x706f_6973_6f6e),
            producer,
            writing,
            schedule,
            poisons: 0,
            bursts_left: settings.burst.as_ref().map_or(0, |burst| burst.count),
            sampling: Sampling::of(&settings, unix_ms()),
            late_ms_max: 0,
            avro: Vec::with_capacity(2_048),
            next_progress: settings.progress_every,
            newer: None,
            settings,
        })
    }

    fn send_all(&mut self, progress: &mut impl FnMut(Progress)) -> Result<(), Error> {
        while !self.settings.stop.load(Ordering::Relaxed) {
            self.second_version()?;
            self.burst();
            match self.schedule.due(Instant::now()) {
                schedule::Due::Event { number, at_ms } => self.one(number, at_ms),
                schedule::Due::Nothing => self.rest(),
                schedule::Due::Over => break,
            }
            self.tell(progress);
        }
        Ok(())
    }

    /// Serves delivery reports, then sleeps: rdkafka's own poll spins through the last millisecond of its timeout.
    fn rest(&self) {
        self.serve();
        std::thread::sleep(TICK);
    }

    /// All reports that are there: without a timeout rdkafka serves one batch of them a call.
    fn serve(&self) {
        loop {
            let before = self.producer.context().in_flight();
            self.producer.poll(Duration::ZERO);
            if self.producer.context().in_flight() == before {
                return;
            }
        }
    }

    /// Sends event `number` of the schedule, which was due at `at_ms` (unix ms).
    fn one(&mut self, number: u64, at_ms: i64) {
        if number.is_multiple_of(64) {
            self.serve();
        }
        self.late_ms_max = self
            .late_ms_max
            .max(unix_ms().saturating_sub(at_ms).max(0).unsigned_abs());
        if !self.settings.poison.kinds.is_empty() && self.random.chance(self.settings.poison.share) {
            let kinds = &self.settings.poison.kinds;
            let turn = usize::try_from(self.poisons).unwrap_or(0) % kinds.len();
            let kind = kinds[turn];
            self.poisons += 1;
            self.send_poison(kind, at_ms);
            return;
        }
        let (target, event) = loop {
            let event = self.generator.next(at_ms);
            if let Some(target) = self.target_of(event.event_type()) {
                break (target, event);
            }
        };
        let Writing { version, schema_id } = self.writing[target];
        self.avro.clear();
        encode(&event, version, &mut self.avro);
        let frame = self.settings.targets[target].framing.frame(schema_id, &self.avro);
        // Bots may be dropped by a rule, and then never become visible.
        let sampled = !event.visitor.bot && self.sampling.takes(target, at_ms);
        self.send(
            &event,
            frame,
            Sent {
                sampled,
                ..Sent::of(target, &event, version, at_ms)
            },
        );
    }

    fn send_poison(&mut self, kind: Poison, at_ms: i64) {
        let wanted = if kind == Poison::RuleFailing {
            self.target_of(EventType::Order)
        } else {
            None
        };
        let target = wanted.unwrap_or_else(|| self.random.index(self.settings.targets.len()));
        let targets = self.settings.targets.len();
        let (kind, of) = match kind {
            Poison::ForeignSchema if targets > 1 => (kind, (target + 1) % targets),
            Poison::ForeignSchema => (Poison::UnknownSchema, target),
            _ => (kind, target),
        };
        let Writing { version, schema_id } = self.writing[of];
        let recipe = Recipe {
            event_type: self.settings.targets[of].event,
            version,
            schema_id,
            framing: &self.settings.targets[target].framing,
            now_ms: at_ms,
            oversize_bytes: self.settings.poison.oversize_bytes,
        };
        let (event, frame) = poisoned(kind, &recipe, &mut self.generator);
        self.send(
            &event,
            frame,
            Sent {
                poison: Some(kind),
                ..Sent::of(target, &event, version, at_ms)
            },
        );
    }

    fn target_of(&self, event: EventType) -> Option<usize> {
        self.settings.targets.iter().position(|target| target.event == event)
    }

    fn send(&mut self, event: &Event, frame: Frame, sent: Sent) {
        let mut text = uuid::Uuid::encode_buffer();
        let session: &str = event.session.hyphenated().encode_lower(&mut text);
        let headers = frame.header.as_ref().map(|(key, value)| {
            OwnedHeaders::new_with_capacity(1).insert(Header {
                key,
                value: Some(value),
            })
        });
        let mut record = BaseRecord {
            topic: &self.settings.targets[sent.target].topic,
            partition: None,
            payload: Some(frame.value.as_slice()),
            key: (!self.random.chance(NULL_KEY_SHARE)).then_some(session),
            timestamp: Some(sent.at_ms),
            headers,
            delivery_opaque: self.producer.context().sending(sent),
        };
        while let Err((error, back)) = self.producer.send(record) {
            let full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
            if !full || self.settings.stop.load(Ordering::Relaxed) {
                self.producer
                    .context()
                    .refused(back.delivery_opaque, &error.to_string());
                return;
            }
            self.rest();
            record = back;
        }
    }

    /// A run of poison, sent at once when its time has come, a few in each round so that good events go on between them.
    fn burst(&mut self) {
        let Some(burst) = self.settings.burst.clone() else {
            return;
        };
        if self.bursts_left == 0 || self.schedule.elapsed(Instant::now()) < burst.at {
            return;
        }
        for _ in 0..self.bursts_left.min(100) {
            self.send_poison(burst.kind, unix_ms());
            self.bursts_left -= 1;
        }
    }

    /// Registers the second versions on another thread when their time has come, and writes them once their ids are known.
    fn second_version(&mut self) -> Result<(), Error> {
        let Some(after) = self.settings.second_version_after else {
            return Ok(());
        };
        if let Some(newer) = &self.newer {
            if let Ok(registered) = newer.try_recv() {
                self.writing = registered?;
                self.settings.second_version_after = None;
            }
        } else if self.schedule.elapsed(Instant::now()) >= after {
            let (to, from) = mpsc::channel();
            let settings = self.settings.clone();
            std::thread::spawn(move || {
                // The receiver is gone when the run ended first; then nobody needs the ids.
                if to.send(register_all(&settings, 2)).is_err() {}
            });
            self.newer = Some(from);
        }
        Ok(())
    }

    fn drain(&mut self, progress: &mut impl FnMut(Progress)) {
        let until = Instant::now() + self.settings.drain;
        while self.producer.context().in_flight() > 0 && Instant::now() < until {
            self.rest();
            self.tell(progress);
        }
    }

    fn tell(&mut self, progress: &mut impl FnMut(Progress)) {
        let elapsed = self.schedule.elapsed(Instant::now());
        if elapsed >= self.next_progress {
            self.next_progress = elapsed + self.settings.progress_every;
            progress(self.producer.context().progress(elapsed, self.late_ms_max));
        }
    }

    fn report(self) -> Result<Report, Error> {
        let elapsed = self.schedule.elapsed(Instant::now());
        self.producer
            .context()
            .report(&self.settings, elapsed, self.late_ms_max)
    }
}

/// The newest version up to `version` of each target's schema, registered.
fn register_all(settings: &Settings, version: u32) -> Result<Vec<Writing>, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Settings(error.to_string()))?;
    runtime.block_on(async {
        let mut ids = Vec::with_capacity(settings.targets.len());
        for target in &settings.targets {
            let version = version.min(target.event.versions());
            let schema_id = register(&settings.registry, &target.subject, target.event, version).await?;
            ids.push(Writing { version, schema_id });
        }
        Ok(ids)
    })
}

fn client_config(settings: &Settings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", &settings.brokers)
        .set("client.id", "sluice-drive")
        .set("enable.idempotence", "true")
        // With more, librdkafka writes some records twice when a partition's leader moves: it makes a new epoch for those in flight
        // (github.com/confluentinc/librdkafka/issues/4953), and the log would not be what the report says.
        .set("max.in.flight.requests.per.connection", "1")
        .set("compression.codec", "lz4")
        // librdkafka sends a request for each partition: with the default of 5 ms the broker is busy with requests.
        .set("linger.ms", "15")
        // As Java clients do it: the same key goes to the same partition whoever sends.
        .set("partitioner", "murmur2_random")
        .set("queue.buffering.max.messages", "200000")
        .set("queue.buffering.max.kbytes", "262144")
        .set("message.timeout.ms", "120000")
        .set(
            "message.max.bytes",
            (settings.poison.oversize_bytes + (1 << 20)).to_string(),
        );
    for (name, value) in &settings.kafka {
        config.set(name, value);
    }
    config
}

/// A missing topic would only show two minutes later, as a timeout of each event.
fn find_topics(settings: &Settings, producer: &BaseProducer<Tally>) -> Result<(), Error> {
    let metadata = producer
        .client()
        .fetch_metadata(None, Duration::from_secs(20))
        .map_err(|error| kafka(settings, &error.to_string()))?;
    for target in &settings.targets {
        if !metadata.topics().iter().any(|topic| topic.name() == target.topic) {
            return Err(kafka(
                settings,
                &format!(
                    "there is no topic {}; make it first (sluice schema apply)",
                    target.topic
                ),
            ));
        }
    }
    Ok(())
}

fn kafka(settings: &Settings, reason: &str) -> Error {
    Error::Kafka {
        brokers: settings.brokers.clone(),
        reason: reason.to_owned(),
    }
}

/// A flag that ends a run early.
pub type Stop = Arc<std::sync::atomic::AtomicBool>;
