//! One verification from beginning to end: what must be there first, then sink after sink what is there.

use std::collections::BTreeMap;
use std::time::Duration;

use pipeline::shape::Shape;
use pipeline::{Pipeline, Start};
use rules::{Catalog, Revision};
use tokio::runtime::Handle;

use crate::alerts;
use crate::audit::{Audit, RulesId, Tiling};
use crate::charged;
use crate::clickhouse::ClickHouse;
use crate::counts::{self, Counting};
use crate::dead_letters;
use crate::error::Error;
use crate::event_ids::EventIds;
use crate::judge::{Judge, Ledgers, catalog};
use crate::kafka::{Log, Range, Record};
use crate::ledger::{Ledger, Place};
use crate::options::{Options, RulesRevision, Until};
use crate::position::Position;
use crate::registry::Registry;
use crate::report::Report;
use crate::rollups;
use crate::verified::Verified;

/// How long the rules service may take to answer for one revision.
const RULES_WITHIN: Duration = Duration::from_secs(30);
/// More partitions than this are counted and not named.
const SET_BACK_MAX: usize = 20;
/// Records that are judged together: enough for the rules to work on columns, few enough to be held.
const CHUNK: usize = 5_000;

/// Verifies everything that the pipeline delivers.
///
/// # Errors
/// When a part does not answer, the group does not settle, or the rules do not compile. Differences are no errors.
pub async fn run(pipeline: &Pipeline, options: Options) -> Result<Report, Error> {
    Ok(round(pipeline, options, Position::default()).await?.0)
}

/// Verifies what was committed since `position`, and says where the next round begins. Everything that is committed is looked at
/// by one round; sinks are read for these offsets alone, so that a row or a charge of an offset that was verified before is not
/// looked at again. A second alert, dead letter or audit record of it is noticed.
///
/// # Errors
/// As [`run`].
pub async fn round(pipeline: &Pipeline, mut options: Options, position: Position) -> Result<(Report, Position), Error> {
    let bounded = !position.is_beginning();
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
    let shapes = shapes(&registry, pipeline).await?;
    let catalog = catalog(pipeline, &shapes)?;
    let bench = Bench {
        pipeline: pipeline.clone(),
        options: options.clone(),
        revision: compiled(&options.rules, &catalog)?,
        revisions: BTreeMap::new(),
        shapes,
        catalog,
        now_ms: now_ms(),
    };
    let task = tokio::task::spawn_blocking(move || bench.from_the_log(registry, &Handle::current(), position));
    let Judged {
        bench,
        tiling,
        counting,
        mut ledgers,
        verified,
        unread,
        gone,
        set_back,
        event_ids,
        position,
    } = task.await.map_err(|error| Error::Ended(error.to_string()))??;
    let clickhouse = ClickHouse::connect(pipeline, &options.clickhouse)?;
    for (table, ledger) in pipeline.tables.iter().zip(&mut ledgers.tables) {
        if let Some(shape) = bench.shapes.get(table.source) {
            let within = match bounded {
                true => Some(verified.condition(table.source)),
                false => verified.but_the_past(table.source),
            };
            clickhouse
                .table((&table.name, within), shape, ledger, |topic, partition, offset| {
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
        miscounted: counting.miscounted,
        ranges: tiling.ranges,
        ranges_compared: counting.compared,
        unread,
        ..Report::default()
    };
    let settled = matches!(options.until, Until::Settled(_)) && !bounded;
    // Both are over everything that ever was; and while rows arrive, a summary and its raw table can't be read at one moment.
    options.usage &= settled && gone.is_empty() && options.from.is_empty();
    if !bounded {
        report.left_out = left_out(pipeline, &options, settled, &gone, &set_back);
    }
    let mut examples = Vec::new();
    let mut extra = Vec::new();
    if let Some(url) = &options.billing {
        extra.extend(charged::compare(pipeline, &options, url, &verified, &mut ledgers).await?);
    }
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
    report.examples.extend(counting.examples);
    Ok((report, position))
}

/// What a reader of the report could take for compared.
fn left_out(pipeline: &Pipeline, options: &Options, settled: bool, gone: &[Gone], set_back: &[SetBack]) -> Vec<String> {
    let mut left_out = Vec::new();
    left_out.extend(set_back.iter().take(SET_BACK_MAX).map(SetBack::told));
    if set_back.len() > SET_BACK_MAX {
        left_out.push(format!(
            "nor what came of {} partitions more of which that is so",
            set_back.len() - SET_BACK_MAX
        ));
    }
    if let Some(first) = gone.first() {
        left_out.push(format!(
            "what came of events before those of which the log and the audit tell, of {} partitions ({}/{} before {})",
            gone.len(),
            first.topic,
            first.partition,
            first.start
        ));
    }
    let moving = "they move while events arrive: stop the producers, and verify with --settle";
    if !settled && !pipeline.rollups.is_empty() {
        left_out.push(format!("rollups, {moving}"));
    }
    if options.billing.is_some() && !options.usage {
        left_out.push(match settled {
            false => format!("billing's sums, {moving}"),
            true => "billing's sums, which are over all events that ever were".to_owned(),
        });
    }
    left_out
}

fn compiled(rules: &RulesRevision, catalog: &Catalog) -> Result<Revision, Error> {
    let revision = Revision::compile(rules.number, &rules.documents, catalog);
    revision.map_err(|faults| Error::Rules {
        faults: faults.iter().map(ToString::to_string).collect(),
    })
}

/// What does not change while the log is read.
pub struct Bench {
    pub pipeline: Pipeline,
    pub options: Options,
    pub shapes: Vec<Shape>,
    catalog: Catalog,
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
    counting: Counting,
    ledgers: Ledgers,
    verified: Verified,
    unread: u64,
    gone: Vec<Gone>,
    set_back: Vec<SetBack>,
    event_ids: EventIds,
    /// Where the next round begins.
    position: Position,
}

/// A partition whose first events are not in the log any more, as far as the audit can tell.
struct Gone {
    topic: String,
    partition: i32,
    /// The first offset that is looked at.
    start: i64,
}

/// A partition whose committed offset somebody has set back behind what the audit has of it.
struct SetBack {
    topic: String,
    partition: i32,
    committed: Option<i64>,
    /// Where the last range ends.
    audited: i64,
}

impl SetBack {
    fn told(&self) -> String {
        let Self {
            topic,
            partition,
            committed,
            audited,
        } = self;
        let list = "`sluice partitions list` tells whether a worker goes on";
        match committed {
            Some(at) => format!(
                "what came of {topic}/{partition} from {at} on: its committed offset stands there, and the audit has ranges up to {audited} ({list})"
            ),
            None => format!(
                "what came of {topic}/{partition}: it has no committed offset, and the audit has ranges up to {audited} ({list})"
            ),
        }
    }
}

/// The columns of each source, by all versions that its subject has now.
async fn shapes(registry: &Registry, pipeline: &Pipeline) -> Result<Vec<Shape>, Error> {
    let mut shapes = Vec::new();
    for source in &pipeline.sources {
        let versions = registry.versions(&source.subject).await?;
        let shape = Shape::of(&versions);
        shapes.push(shape.map_err(|error| Error::Shape {
            topic: source.topic.clone(),
            reason: error.to_string(),
        })?);
    }
    Ok(shapes)
}

impl Bench {
    /// Reads the schemas once more, behind the offsets: what was committed until then may be of a version that came while it was
    /// waited for them.
    fn reshape(&mut self, registry: &Registry, handle: &Handle) -> Result<(), Error> {
        let shapes = handle.block_on(shapes(registry, &self.pipeline))?;
        if shapes != self.shapes {
            self.catalog = catalog(&self.pipeline, &shapes)?;
            self.revision = compiled(&self.options.rules, &self.catalog)?;
            self.revisions.clear();
            self.shapes = shapes;
        }
        Ok(())
    }

    /// Everything that Kafka knows: the source topics, judged, and the topics that are sinks. Blocking.
    #[allow(clippy::wrong_self_convention)] // reads from where the caller says, not from `self`
    fn from_the_log(
        mut self,
        mut registry: Registry,
        handle: &Handle,
        mut position: Position,
    ) -> Result<Judged, Error> {
        let first_round = position.is_beginning();
        let log = Log::connect(self.pipeline.connections.kafka.as_ref(), &self.options)?;
        settle(&log, &self.pipeline, self.options.until)?;
        let mut ledgers = Ledgers::new(&self.pipeline, self.options.examples_max);
        let outputs = self.output_topics();
        let before: Vec<Vec<Range>> = outputs.iter().map(|topic| log.whole(topic)).collect::<Result<_, _>>()?;
        let mut offsets = Vec::new();
        for source in &self.pipeline.sources {
            offsets.push(committed(&log, &source.topic)?);
        }
        self.reshape(&registry, handle)?;
        // Read after the offsets, and behind every transaction that was open then: whatever they cover is in it.
        let topic = &self.pipeline.audit.topic;
        let unaudited = position.unaudited(topic, log.stable(topic)?);
        position.audit.read(&log, (topic, &unaudited), &self.pipeline.name)?;
        position.note_audited(topic, &unaudited);
        let (mut ranges, mut next, mut unread) = (Vec::new(), Vec::new(), 0);
        let mut tiled = BTreeMap::new();
        for (source, offsets) in self.pipeline.sources.iter().zip(offsets) {
            let topic = &source.topic;
            let taken = self.taken(topic, offsets, &mut position);
            unread += taken.unread;
            next.push((topic.clone(), taken.next));
            ranges.push((topic.clone(), taken.ranges));
            tiled.extend(
                taken
                    .tiled
                    .into_iter()
                    .map(|(partition, to)| ((topic.clone(), partition), to)),
            );
        }
        self.learn(&position.audit, handle)?;
        let mut tiling = Tiling::default();
        for (topic, ranges) in &ranges {
            let tiled = |partition| tiled.get(&(topic.clone(), partition)).copied();
            let examples_max = self.options.examples_max;
            position.audit.tile((topic, ranges), tiled, examples_max, &mut tiling);
        }
        let audit = &position.audit;
        for (index, (source, (_, ranges))) in self.pipeline.sources.iter().zip(&ranges).enumerate() {
            let Some(shape) = self.shapes.get(index) else { continue };
            let mut judge = Judge::new(&self.pipeline, index, shape, self.now_ms)?;
            let rules = |record: &Record| self.rules_of(audit, &source.topic, record);
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
        let gone = match first_round {
            true => self.untold(&log, audit, &ranges)?,
            false => Vec::new(),
        };
        let set_back = match first_round {
            true => self.set_back(&log, audit)?,
            false => Vec::new(),
        };
        let counting = counts::compare(&self.pipeline, audit, &ranges, &ledgers, self.options.examples_max);
        let verified = Verified::new(ranges);
        for (topic, before) in outputs.iter().zip(&before) {
            let unseen = position.unseen(topic, log.stable(topic)?);
            log.read(topic, &unseen, |record| {
                // What was put there after an earlier round had read it, and is of what that round verified, is there twice.
                let read_to = position.seen(topic, record.partition).map(|seen| seen.read_to);
                let late = read_to.is_some_and(|read_to| record.offset >= read_to);
                let placed = |place: Option<Option<Place>>, past: bool| if late && past { None } else { place };
                if self
                    .pipeline
                    .sinks
                    .alerts
                    .as_ref()
                    .is_some_and(|sink| sink.topic == *topic)
                {
                    alerts::found(&record, &mut ledgers.alerts, |id| {
                        placed(verified.place_of_id(id), verified.is_past_id(id))
                    });
                } else {
                    dead_letters::found(&record, &mut ledgers.dead, |topic, partition, offset| {
                        let past = verified.is_past(topic, partition, offset);
                        placed(verified.place(topic, partition, offset), past)
                    });
                }
                Ok(())
            })?;
            position.note_outputs(topic, before, &unseen);
        }
        for (topic, partitions) in next {
            for (partition, offset) in partitions {
                position.note_verified(&topic, partition, offset);
            }
        }
        let event_ids = EventIds {
            log,
            registry,
            handle: handle.clone(),
        };
        Ok(Judged {
            bench: self,
            tiling,
            counting,
            ledgers,
            verified,
            unread,
            gone,
            set_back,
            event_ids,
            position,
        })
    }

    /// The topics that are sinks: alerts first, then dead letters.
    fn output_topics(&self) -> Vec<String> {
        let sources = self.pipeline.sources.iter();
        let mut topics: Vec<String> = sources.map(|source| source.dead_letter_topic.clone()).collect();
        topics.sort_unstable();
        topics.dedup();
        let alerts = self.pipeline.sinks.alerts.as_ref().map(|sink| sink.topic.clone());
        topics.retain(|topic| Some(topic) != alerts.as_ref());
        alerts.into_iter().chain(topics).collect()
    }

    /// The partitions of which the log, or the audit that could tell, does not go back to where the pipeline has begun.
    fn untold(&self, log: &Log, audit: &Audit, ranges: &[(String, Vec<Range>)]) -> Result<Vec<Gone>, Error> {
        let audited = log.whole(&self.pipeline.audit.topic)?;
        let audited = audited.iter().all(|range| range.start == 0);
        let mut gone = Vec::new();
        for (topic, ranges) in ranges {
            for range in ranges {
                let first = audit.first(topic, range.partition);
                if !is_whole(self.pipeline.start, audited.then_some(first), range) {
                    gone.push(Gone {
                        topic: topic.clone(),
                        partition: range.partition,
                        start: range.start,
                    });
                }
            }
        }
        Ok(gone)
    }

    /// A range and its offset are committed together, so an offset that is asked for after the audit was read lies behind no range of it.
    fn set_back(&self, log: &Log, audit: &Audit) -> Result<Vec<SetBack>, Error> {
        let mut all = Vec::new();
        for source in &self.pipeline.sources {
            for (range, committed) in committed(log, &source.topic)? {
                let partition = range.partition;
                if let Some(audited) = audit
                    .end(&source.topic, partition)
                    .filter(|end| *end > committed.max(0))
                {
                    all.push(SetBack {
                        topic: source.topic.clone(),
                        partition,
                        committed: (committed >= 0).then_some(committed),
                        audited,
                    });
                }
            }
        }
        Ok(all)
    }

    /// Compiles the rules that the audit names and that nobody has asked for yet. A directory has only what is in force now,
    /// and what was in force once may not fit the pipeline any more: either is missed only if a record needs it.
    fn learn(&mut self, audit: &Audit, handle: &Handle) -> Result<(), Error> {
        for id in audit.revisions() {
            if id == (self.revision.number, self.revision.digest) {
                continue;
            }
            let asking = self.options.revisions.ask(id);
            let answer = handle.block_on(async { tokio::time::timeout(RULES_WITHIN, asking).await });
            let answer = answer.map_err(|_| Error::RulesUnanswered {
                number: id.0,
                waited_s: RULES_WITHIN.as_secs(),
            })?;
            if let Some(rules) = answer
                && let Ok(revision) = compiled(&rules, &self.catalog)
                && revision.digest == id.1
            {
                self.revisions.insert(id, revision);
            }
        }
        Ok(())
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

    /// What a round takes of one topic: from where the last one ended, or from where an operator has let the partition go on if
    /// that is earlier, up to the committed offset.
    fn taken(&self, topic: &str, offsets: Vec<(Range, i64)>, position: &mut Position) -> Taken {
        let mut taken = Taken::default();
        for (log, committed) in offsets {
            let partition = log.partition;
            let told = self.options.from.get(&(topic.to_owned(), partition)).copied();
            let restarted = position.audit.take_news(topic, partition);
            let earlier = position.verified(topic, partition);
            let begun = match earlier {
                // A start that Kafka refused in the end leaves everything as it was.
                Some(earlier) => restarted
                    .filter(|at| committed < earlier || position.audit.begins_at(topic, partition, *at))
                    .map_or(earlier, |at| at.min(earlier)),
                None => told.unwrap_or_else(|| self.beginning(topic, &log, committed, &position.audit)),
            };
            let start = log.start.max(begun);
            let end = committed.clamp(start, log.end.max(start));
            if earlier.is_some() {
                taken.tiled.push((partition, begun));
                // Retention was faster.
                taken.unread += start.min(committed.max(begun)).abs_diff(begun);
            }
            // Where nothing is committed nobody has begun yet.
            if committed >= 0 {
                taken.next.push((partition, committed.min(end)));
            }
            taken.ranges.push(Range { start, end, ..log });
        }
        taken
    }

    /// Where the pipeline has begun a partition that no round has looked at. Workers that start anywhere but at the log's start
    /// leave out what lies before; the audit's first range says where that was.
    fn beginning(&self, topic: &str, log: &Range, committed: i64, audit: &Audit) -> i64 {
        match self.pipeline.start {
            Start::Earliest => log.start,
            _ => audit.first(topic, log.partition).unwrap_or(committed).max(log.start),
        }
    }
}

/// Whether the pipeline has begun a partition where it is looked at. `audited`: the audit's first offset, `None` if something of the
/// audit was removed.
fn is_whole(start: Start, audited: Option<Option<i64>>, looked_at: &Range) -> bool {
    let by_audit = match audited {
        Some(Some(first)) => first == looked_at.start,
        // Another audit topic, or one that was made again, if there is something to look at.
        Some(None) => looked_at.start == looked_at.end,
        None => false,
    };
    by_audit || (start == Start::Earliest && looked_at.start == 0)
}

/// What a round takes of one source topic.
#[derive(Default)]
struct Taken {
    ranges: Vec<Range>,
    /// Up to where the audit's ranges are known to tile, of partitions that a round has looked at.
    tiled: Vec<(i32, i64)>,
    /// Where the next round begins, by partition.
    next: Vec<(i32, i64)>,
    /// Offsets that were committed and are gone from the log before anybody verified them.
    unread: u64,
}

/// The group's offsets of a topic (-1 = none), and the log as it was afterwards: nothing is committed past its end.
fn committed(log: &Log, topic: &str) -> Result<Vec<(Range, i64)>, Error> {
    let offsets = log.committed(topic, &log.whole(topic)?)?;
    let whole = log.whole(topic)?;
    // Partitions that were added in between are left for the next round.
    Ok(whole
        .into_iter()
        .zip(offsets)
        .map(|(range, (committed, _))| (range, committed))
        .collect())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_whole_if_the_pipeline_has_not_begun_before_it() {
        // (start, the audit's first offset, where it is looked at, whether there is something)
        for (start, audited, looked_at, empty, whole) in [
            (Start::Earliest, Some(Some(0)), 0, false, true),
            (Start::Earliest, None, 0, false, true),
            (Start::Earliest, Some(Some(0)), 5, false, false),
            (Start::Earliest, Some(Some(5)), 5, false, true),
            (Start::Earliest, Some(Some(9)), 5, false, false),
            (Start::Earliest, None, 5, false, false),
            (Start::Earliest, Some(None), 5, true, true),
            (Start::Earliest, Some(None), 5, false, false),
            (Start::Latest, Some(Some(5)), 5, false, true),
            (Start::Latest, None, 5, false, false),
            (Start::At(1), Some(Some(5)), 9, false, false),
        ] {
            let range = Range {
                partition: 0,
                start: looked_at,
                end: looked_at + i64::from(!empty),
            };
            let found = is_whole(start, audited, &range);
            assert_eq!(found, whole, "{start:?} {audited:?} {range:?}");
        }
    }
}
