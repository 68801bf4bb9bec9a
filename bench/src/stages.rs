//! What one core does to an event between Kafka and the sinks: frame, decode, rules, route, digest, order, encode. The
//! production functions, in the order and with the arguments of a lane; no I/O.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use exactly_once_protocol::Partition;
use load_tests::envelope;
use pipeline::shape::Shape;
use pipeline::{Compression, Pipeline};
use rules::Revision;
use workers::charges::Charges;
use workers::collect::{Collector, Position, Record};
use workers::decode::Plan;
use workers::frame::frame;
use workers::model::Model;
use workers::transform::{Outputs, transform};

use crate::arguments::at_least_one;
use crate::cpu;
use crate::error::Error;
use crate::shop::{self, Addresses, PARTITIONS};

/// Kafka's timestamp of the records, and the events' time, Unix milliseconds.
const NOW_MS: i64 = 1_795_228_766_362;
const SCHEMA_ID: u32 = 7;

/// How much of it.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Options {
    /// Events for each measurement
    #[arg(long, default_value_t = 2_000_000, value_parser = at_least_one())]
    pub events: usize,
    /// Events in a batch
    #[arg(long, default_value_t = 65_536, value_parser = at_least_one())]
    pub batch: usize,
    /// Tenants, each with five rules of its own
    #[arg(long, default_value_t = 50, value_parser = at_least_one())]
    pub tenants: usize,
    /// Different texts of their rules; as many as tenants unless it is said
    #[arg(long, value_parser = at_least_one())]
    pub texts: Option<usize>,
    /// Measurements; the median counts
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub runs: usize,
    /// Different events, again and again; as many as a batch has unless it is said, so that none is there twice
    #[arg(long, value_parser = at_least_one())]
    pub different: Option<usize>,
    /// The last stage that is run
    #[arg(long, value_enum, default_value = "encode")]
    pub until: Stage,
    /// Blocks without LZ4, as they go to a ClickHouse of this machine
    #[arg(long)]
    pub without_lz4: bool,
}

impl Default for Options {
    /// As the command's.
    fn default() -> Self {
        Self {
            events: 2_000_000,
            batch: 65_536,
            tenants: 50,
            texts: None,
            runs: 5,
            different: None,
            until: Stage::Encode,
            without_lz4: false,
        }
    }
}

/// In the order in which an event passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Stage {
    /// Frame, decode, and the raw bytes put aside
    Decode,
    /// Envelope, rules, route, digest
    Transform,
    /// Sorted, written as a Native block, compressed unless without
    Encode,
}

/// CPU time of one thread for each event, nanoseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Costs {
    /// Of [`Stage::Decode`].
    pub decode: f64,
    /// Of [`Stage::Transform`].
    pub transform: f64,
    /// Of [`Stage::Encode`].
    pub encode: f64,
}

impl Costs {
    /// All of them.
    pub fn total(&self) -> f64 {
        self.decode + self.transform + self.encode
    }
}

struct Bench {
    model: Model,
    revision: Revision,
    plan: Plan,
    framed: Vec<Vec<u8>>,
}

impl Bench {
    fn new(options: Options) -> Result<Self, Error> {
        let pipeline = pipeline::check("bench.yaml", &shop::pipeline(&Addresses::NOBODY), Path::new("."))
            .map_err(|faults| Error::faults(&faults))?;
        let schema = apache_avro::Schema::parse_str(envelope::SCHEMA)?;
        let shape = Shape::of(std::slice::from_ref(&schema))?;
        let plan = Plan::compile(&schema, &shape)?;
        let model = model(pipeline, shape)?;
        let documents = shop::documents(options.tenants, options.texts.unwrap_or(options.tenants));
        let revision = Revision::compile(1, &documents, &model.catalog).map_err(|faults| Error::faults(&faults))?;
        let different = options.different.unwrap_or(options.batch).min(options.events);
        let framed = envelope::payloads(different, options.tenants, 1, NOW_MS);
        let framed = framed.into_iter().map(|payload| {
            let id = SCHEMA_ID.to_be_bytes();
            [&[0][..], &id, &payload].concat()
        });
        Ok(Self {
            framed: framed.collect(),
            model,
            revision,
            plan,
        })
    }

    fn collected(&self, collector: &mut Collector, first: usize, count: usize) -> Result<(), Error> {
        let source = &self.model.pipeline.sources[0];
        for number in first..first + count {
            let value = &self.framed[number % self.framed.len()];
            let (schema_id, body) =
                frame(source, Some(value), None).map_err(|fault| Error::Frame(fault.reason().into()))?;
            let partition = Partition {
                topic: 0,
                partition: i32::try_from(number % PARTITIONS).unwrap_or(0),
            };
            let offset = i64::try_from(number / PARTITIONS).unwrap_or(i64::MAX);
            let record = Record {
                position: Position {
                    partition,
                    offset,
                    timestamp_ms: NOW_MS,
                    schema_id,
                },
                key: None,
                value: Some(value),
                headers: Vec::new(),
            };
            collector.cover(partition, offset, offset);
            self.plan.decode(collector.columns(&self.model, 0), body)?;
            collector.row(&self.model, 0, record);
        }
        Ok(())
    }

    fn encoded(&self, outputs: &Outputs, compression: Compression) -> Result<usize, Error> {
        let mut bytes = 0;
        for rows in &outputs.tables {
            let block = workers::sinks::block(&self.model.pipeline, rows, None, compression)?;
            bytes += block.bytes.len();
        }
        Ok(bytes)
    }

    /// Everything once, and what it costs an event.
    fn run(&self, options: Options) -> Result<(Costs, Totals), Error> {
        let mut collector = Collector::default();
        let (mut decode, mut middle, mut encode) = (Duration::ZERO, Duration::ZERO, Duration::ZERO);
        let mut totals = Totals::default();
        let compression = match options.without_lz4 {
            true => Compression::None,
            false => Compression::Lz4,
        };
        let mut first = 0;
        while first < options.events {
            let count = options.batch.min(options.events - first);
            let began = cpu::of_this_thread();
            self.collected(&mut collector, first, count)?;
            let collected = collector.close()?;
            let decoded = cpu::of_this_thread();
            decode += decoded - began;
            first += count;
            if options.until == Stage::Decode {
                continue;
            }
            let outputs = transform(&self.model, &self.revision, collected)?;
            let transformed = cpu::of_this_thread();
            middle += transformed - decoded;
            if options.until == Stage::Encode {
                totals.bytes += self.encoded(&outputs, compression)?;
                encode += cpu::of_this_thread() - transformed;
            }
            totals.count(&outputs);
        }
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let each = |time: Duration| time.as_nanos() as f64 / options.events as f64;
        let costs = Costs {
            decode: each(decode),
            transform: each(middle),
            encode: each(encode),
        };
        Ok((costs, totals))
    }
}

fn model(pipeline: Pipeline, shape: Shape) -> Result<Model, Error> {
    Model::new(Arc::new(pipeline), vec![shape], 1).map_err(|faults| Error::faults(&faults))
}

/// What came out, so that nobody measures a pipeline that does nothing.
#[derive(Debug, Default)]
pub struct Totals {
    rows: usize,
    alerts: usize,
    charges: usize,
    dead: usize,
    bytes: usize,
}

impl Totals {
    fn count(&mut self, outputs: &Outputs) {
        self.rows += outputs.tables.iter().map(|rows| rows.rows.len()).sum::<usize>();
        self.alerts += outputs.alerts.len();
        self.charges += outputs.charges.values().map(Charges::len).sum::<usize>();
        self.dead += outputs.dead.len();
    }
}

/// What the median of all stages together cost, and what came out.
///
/// # Errors
/// When the pipeline refuses its own events.
pub fn measure(options: Options, mut told: impl FnMut(&Costs)) -> Result<(Costs, Totals), Error> {
    let bench = Bench::new(options)?;
    let mut all = Vec::new();
    for _ in 0..options.runs {
        let (costs, totals) = bench.run(options)?;
        told(&costs);
        all.push((costs, totals));
    }
    all.sort_by(|(one, _), (other, _)| one.total().total_cmp(&other.total()));
    Ok(all.swap_remove(all.len() / 2))
}

/// The same on a thread of its own, so that a signal is heard.
///
/// # Errors
/// Like [`measure`].
pub async fn measured(options: Options) -> Result<(Costs, Totals), Error> {
    let done = tokio::task::spawn_blocking(move || measure(options, |_| {})).await;
    done.map_err(|error| Error::Failed(error.to_string()))?
}

/// Measures and prints.
///
/// # Errors
/// Like [`measure`].
pub fn run(options: Options) -> Result<(), Error> {
    let told = |costs: &Costs| {
        println!(
            "decode {:.0} ns, rules and route {:.0} ns, encode {:.0} ns, together {:.0} ns of CPU an event: {:.0} events/s on one core",
            costs.decode,
            costs.transform,
            costs.encode,
            costs.total(),
            1e9 / costs.total()
        );
    };
    let (median, totals) = measure(options, told)?;
    println!(
        "median of {}: {:.0} events/s on one core; {} rows in {} bytes, {} alerts, {} charges, {} dead letters of {} events in batches of {}",
        options.runs,
        1e9 / median.total(),
        totals.rows,
        totals.bytes,
        totals.alerts,
        totals.charges,
        totals.dead,
        options.events,
        options.batch
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_comes_out_with_its_alerts_and_charges() {
        let options = Options {
            events: 5000,
            batch: 1000,
            runs: 1,
            ..Options::default()
        };
        let (costs, totals) = Bench::new(options).unwrap().run(options).unwrap();
        assert!(costs.total() > 0.0);
        assert_eq!((totals.rows, totals.dead), (5000, 0));
        assert!((5..60).contains(&totals.alerts), "{totals:?}");
        assert!((850..1150).contains(&totals.charges), "{totals:?}");
    }
}
