//! One verification from beginning to end: what must be there first, then sink after sink what is there.

use std::collections::{BTreeMap, BTreeSet};

use pipeline::Pipeline;
use pipeline::shape::Shape;
use rules::Revision;
use tokio::runtime::Handle;

use crate::alerts;
use crate::audit::{Audit, RulesId, Tiling};
use crate::charged;
use crate::clickhouse::ClickHouse;
use crate::dead_letters;
use crate::error::Error;
use crate::event_ids::EventIds;
use crate::judge::{Judge, Ledgers, catalog};
use crate::kafka::{Log, Range, Record};
use crate::ledger::Ledger;
use crate::options::{Options, RulesRevision, Until};
use crate::registry::Registry;
use crate::report::Report;
use crate::rollups;
use crate::verified::Verified;

/// Records that are judged together: enough for the rules to work on columns, few enough to be held.
const CHUNK: usize = 5_000;

/// Verifies everything that the pipeline delivers.
///
/// # Errors
/// When a part does not answer, the group does not settle, or the rules do not compile. Differences are no errors.
pub async fn run(pipeline: &Pipeline, options: Options) -> Result<Report, Error> {
    for (part, address) in [
        ("kafka", &options.brokers),
        ("registry", &options.registry),
        ("clickhouse", &options.clickhouse),
    ] {
        if address.is_empty() {
            return Err(Error::NoAddress { part });
        }
    }
    // Large enough for every event, far too small for a length that was made up.
    apache_avro::util::max_allocation_bytes(64 << 20);
    let registry = Registry::connect(pipeline, &options.registry)?;
    let mut shapes = Vec::new();
    for source in &pipeline.sources {
        let versions = registry.versions(&source.subject).await?;
        let shape = Shape::of(&versions);
        shapes.push(shape.map_err(|error| Error::Shape {
            topic: source.topic.clone(),
            reason: error.to_string(),
        })?);
    }
    let catalog = catalog(pipeline, &shapes)?;
    let compiled = |rules: &RulesRevision| {
        let revision = Revision::compile(rules.number, &rules.documents, &catalog);
        revision.map_err(|faults| Error::Rules {
            faults: faults.iter().map(ToString::to_string).collect(),
        })
    };
    let revision = compiled(&options.rules)?;
    let mut revisions = BTreeMap::new();
    for (id, rules) in &options.revisions {
        // A directory has only what is in force now, and what was in force once may not fit the pipeline any more: either is
        // missed only if a record needs it.
        if let Ok(revision) = compiled(rules)
            && revision.digest == id.1
        {
            revisions.insert(*id, revision);
        }
    }
    let bench = Bench {
        pipeline: pipeline.clone(),
        options: options.clone(),
        shapes,
        revision,
        revisions,
        now_ms: now_ms(),
    };
    let task = tokio::task::spawn_blocking(move || bench.from_the_log(registry, &Handle::current()));
    let Judged {
        bench,
        tiling,
        mut ledgers,
        verified,
        event_ids,
    } = task.await.map_err(|error| Error::Ended(error.to_string()))??;
    let clickhouse = ClickHouse::connect(pipeline, &options.clickhouse)?;
    for (table, ledger) in pipeline.tables.iter().zip(&mut ledgers.tables) {
        if let Some(shape) = bench.shapes.get(table.source) {
            clickhouse
                .table(&table.name, shape, ledger, |topic, partition, offset| {
                    verified.place(topic, partition, offset)
                })
                .await?;
        }
    }
    let mut report = Report {
        produced: ledgers.produced,
        dropped: ledgers.dropped,
        gap: tiling.gap,
        overlap: tiling.overlap,
        ranges: tiling.ranges,
        ..Report::default()
    };
    let mut examples = Vec::new();
    let mut extra = Vec::new();
    if let Some(url) = &options.billing {
        extra.extend(charged::compare(pipeline, &options, url, &verified, &mut ledgers).await?);
    }
    // While rows arrive, a summary and its raw table can't be read at one moment.
    let settled = matches!(options.until, Until::Settled(_));
    for rollup in pipeline.rollups.iter().filter(|_| settled) {
        let of = (rollup, bench.now_ms, options.examples_max);
        extra.push(rollups::compare(&clickhouse, pipeline, &bench.shapes, of).await?);
    }
    let tables = ledgers.tables.into_iter().map(Ledger::finish);
    let (alerts, charges, dead) = (ledgers.alerts.finish(), ledgers.charges.finish(), ledgers.dead.finish());
    report.alerts = alerts.0.found;
    report.charges = charges.0.found;
    report.dead_letters = dead.0.found;
    let used = |sink: &str| match sink {
        "alerts" => pipeline.sinks.alerts.is_some(),
        "billing" => options.billing.is_some(),
        _ => true,
    };
    for (sink, found) in tables.chain([alerts, charges, dead]).chain(extra) {
        if !used(&sink.sink) {
            continue;
        }
        if sink.sink.starts_with("table ") {
            report.clickhouse_rows += sink.found;
        }
        report.add(sink);
        examples.extend(found);
    }
    let named = tokio::task::spawn_blocking(move || event_ids.of(&bench, examples));
    report.examples = named.await.map_err(|error| Error::Ended(error.to_string()))?;
    report.examples.extend(tiling.examples);
    Ok(report)
}

/// What does not change while the log is read.
pub struct Bench {
    pub pipeline: Pipeline,
    pub options: Options,
    pub shapes: Vec<Shape>,
    /// For what the audit doesn't name.
    pub revision: Revision,
    /// For what it names, as far as they are others.
    pub revisions: BTreeMap<RulesId, Revision>,
    pub now_ms: i64,
}

/// The rim: only here is the clock read.
fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

struct Judged {
    bench: Bench,
    tiling: Tiling,
    ledgers: Ledgers,
    verified: Verified,
    event_ids: EventIds,
}

impl Bench {
    /// Everything that Kafka knows: the source topics, judged, and the topics that are sinks. Blocking.
    #[allow(clippy::wrong_self_convention)] // reads from where the caller says, not from `self`
    fn from_the_log(self, mut registry: Registry, handle: &Handle) -> Result<Judged, Error> {
        let log = Log::connect(self.pipeline.connections.kafka.as_ref(), &self.options)?;
        settle(&log, &self.pipeline, self.options.until)?;
        let mut ledgers = Ledgers::new(&self.pipeline, self.options.examples_max);
        let mut ranges = Vec::new();
        for source in &self.pipeline.sources {
            ranges.push((source.topic.clone(), self.ranges(&log, &source.topic)?));
        }
        // Read after the offsets: whatever they cover is in it.
        let audit = Audit::read(&log, &self.pipeline.audit.topic, &self.pipeline.name)?;
        let mut tiling = Tiling::default();
        for (topic, ranges) in &ranges {
            audit.tile(topic, ranges, self.options.examples_max, &mut tiling);
        }
        for (index, (source, (_, ranges))) in self.pipeline.sources.iter().zip(&ranges).enumerate() {
            let Some(shape) = self.shapes.get(index) else { continue };
            let mut judge = Judge::new(&self.pipeline, index, shape, self.now_ms)?;
            let rules = |record: &Record| self.rules_of(&audit, &source.topic, record);
            let mut chunk: Vec<Record> = Vec::with_capacity(CHUNK);
            log.read(&source.topic, ranges, |record| {
                chunk.push(record);
                match chunk.len() < CHUNK {
                    true => Ok(()),
                    false => judge_chunk(
                        &mut judge,
                        (&mut registry, handle),
                        std::mem::take(&mut chunk),
                        &rules,
                        &mut ledgers,
                    ),
                }
            })?;
            judge_chunk(&mut judge, (&mut registry, handle), chunk, &rules, &mut ledgers)?;
        }
        let verified = Verified::new(ranges);
        if let Some(sink) = &self.pipeline.sinks.alerts {
            log.read(&sink.topic, &log.whole(&sink.topic)?, |record| {
                alerts::found(&record, &mut ledgers.alerts, |id| verified.place_of_id(id));
                Ok(())
            })?;
        }
        let mut topics: Vec<&str> = self
            .pipeline
            .sources
            .iter()
            .map(|source| source.dead_letter_topic.as_str())
            .collect();
        topics.sort_unstable();
        topics.dedup();
        for topic in topics {
            log.read(topic, &log.whole(topic)?, |record| {
                dead_letters::found(&record, &mut ledgers.dead, |topic, partition, offset| {
                    verified.place(topic, partition, offset)
                });
                Ok(())
            })?;
        }
        let event_ids = EventIds {
            log,
            registry,
            handle: handle.clone(),
        };
        Ok(Judged {
            bench: self,
            tiling,
            ledgers,
            verified,
            event_ids,
        })
    }

    /// The rules that a record was committed with.
    fn rules_of(&self, audit: &Audit, topic: &str, record: &Record) -> Result<&Revision, Error> {
        let Some(id) = audit.rules_of(topic, record.partition, record.offset) else {
            return Ok(&self.revision);
        };
        if id == (self.revision.number, self.revision.digest) {
            return Ok(&self.revision);
        }
        let (number, digest) = id;
        self.revisions.get(&id).ok_or(Error::RulesGone { number, digest })
    }

    fn ranges(&self, log: &Log, topic: &str) -> Result<Vec<Range>, Error> {
        let whole = log.whole(topic)?;
        let committed = log.committed(topic, &whole)?;
        let verified = |(range, (committed, _)): (Range, (i64, bool))| {
            let from = self.options.from.get(&(topic.to_owned(), range.partition)).copied();
            let start = range.start.max(from.unwrap_or(range.start));
            Range {
                start,
                end: committed.clamp(start, range.end.max(start)),
                ..range
            }
        };
        Ok(whole.into_iter().zip(committed).map(verified).collect())
    }
}

fn judge_chunk<'r>(
    judge: &mut Judge<'_>,
    (registry, handle): (&mut Registry, &Handle),
    records: Vec<Record>,
    rules: &dyn Fn(&Record) -> Result<&'r Revision, Error>,
    ledgers: &mut Ledgers,
) -> Result<(), Error> {
    for id in judge.unknown(&records) {
        let answer = handle.block_on(registry.schema(id))?;
        judge.learn(id, &answer);
    }
    let mut by_rules: BTreeMap<RulesId, (&Revision, Vec<Record>)> = BTreeMap::new();
    for record in records {
        let revision = rules(&record)?;
        let of = by_rules.entry((revision.number, revision.digest));
        of.or_insert((revision, Vec::new())).1.push(record);
    }
    for (revision, records) in by_rules.into_values() {
        judge.judge(records, revision, ledgers)?;
    }
    Ok(())
}

fn settle(log: &Log, pipeline: &Pipeline, until: Until) -> Result<(), Error> {
    let Until::Settled(patience) = until else {
        return Ok(());
    };
    let topics: Vec<&str> = pipeline.sources.iter().map(|source| source.topic.as_str()).collect();
    log.settle(&topics, patience)
}

/// Every rules revision that the audit names, once the group has settled: what [`Options::revisions`] needs. Blocking.
///
/// # Errors
/// When Kafka does not answer, the group does not settle, or a record of the audit cannot be read.
pub fn audited_rules(pipeline: &Pipeline, options: &Options) -> Result<BTreeSet<RulesId>, Error> {
    let log = Log::connect(pipeline.connections.kafka.as_ref(), options)?;
    settle(&log, pipeline, options.until)?;
    Ok(Audit::read(&log, &pipeline.audit.topic, &pipeline.name)?.revisions())
}
