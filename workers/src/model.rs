//! What a worker knows of its pipeline at one moment: the checked file, the shape of every source, and where the
//! envelope's fields stand. Immutable; a newer schema makes a new model with a higher version.

use std::sync::Arc;

use arrow::datatypes::DataType;
use clickhouse_sink::Feed;
use pipeline::Pipeline;
use pipeline::shape::Shape;
use rules::{Catalog, EventShape, FieldDef};
use thiserror::Error;

/// Indexes of the envelope's columns in a source's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// The event id.
    pub id: usize,
    /// The tenant.
    pub tenant: usize,
    /// The event time.
    pub time: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Model {
    /// The checked pipeline file.
    pub pipeline: Arc<Pipeline>,
    /// By source.
    pub shapes: Vec<Shape>,
    /// By source.
    pub envelopes: Vec<Envelope>,
    /// What rules may name.
    pub catalog: Arc<Catalog>,
    /// By table: the columns that it stores as `LowCardinality`.
    pub low_cardinality: Vec<Arc<Vec<String>>>,
    /// How each rollup is fed from the rows of its table.
    pub feeds: Vec<Feed>,
    /// Grows by one with every change of a shape.
    pub version: u64,
}

/// A schema lacks what the pipeline file says that its events have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("source `{topic}`: `event.{role}` is `{path}`, but {problem}")]
pub struct ModelFault {
    /// The source's topic.
    pub topic: String,
    /// `id`, `tenant` or `time`.
    pub role: &'static str,
    /// As the pipeline file says it.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Model {
    /// A range as ClickHouse's rows name it.
    pub fn stored(&self, range: exactly_once_protocol::Range) -> clickhouse_sink::Range {
        clickhouse_sink::Range {
            topic: self.pipeline.sources[usize::from(range.partition.topic)].topic.clone(),
            partition: range.partition.partition,
            start: range.start,
            end: range.end,
        }
    }

    /// Puts a pipeline and its sources' shapes together; `shapes` is by source.
    pub fn new(pipeline: Arc<Pipeline>, shapes: Vec<Shape>, version: u64) -> Result<Model, Vec<ModelFault>> {
        let mut faults = Vec::new();
        let mut envelopes = Vec::new();
        for (source, shape) in pipeline.sources.iter().zip(&shapes) {
            let mut find = |role, path: &str, fits: fn(&DataType) -> bool, wanted: &str| {
                let fault = |problem| ModelFault {
                    topic: source.topic.clone(),
                    role,
                    path: path.into(),
                    problem,
                };
                match shape.index(path) {
                    Some(index) if fits(&shape.columns[index].kind.arrow()) => index,
                    Some(index) => {
                        let kind = shape.columns[index].kind.arrow();
                        faults.push(fault(format!("that is {kind}; it has to be {wanted}")));
                        0
                    }
                    None => {
                        faults.push(fault("no version of its schema has such a field".into()));
                        0
                    }
                }
            };
            let text = |kind: &DataType| *kind == DataType::Utf8;
            let time = |kind: &DataType| matches!(kind, DataType::Timestamp(..) | DataType::Int64);
            let event = &source.event;
            envelopes.push(Envelope {
                id: find("id", &event.id, text, "a string"),
                tenant: find("tenant", &event.tenant, text, "a string"),
                time: find("time", &event.time, time, "a timestamp, or a long of Unix milliseconds"),
            });
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let catalog = Arc::new(catalog(&pipeline, &shapes, &envelopes));
        let low = |(index, table): (usize, &pipeline::Table)| {
            Arc::new(clickhouse_sink::schema::low_cardinality(
                &pipeline,
                index,
                &shapes[table.source],
            ))
        };
        let low_cardinality = pipeline.tables.iter().enumerate().map(low).collect();
        let feeds = clickhouse_sink::schema::feeds(&pipeline, &shapes);
        Ok(Model {
            pipeline,
            shapes,
            envelopes,
            catalog,
            low_cardinality,
            feeds,
            version,
        })
    }

    /// Index of a table by its name.
    pub fn table(&self, name: &str) -> Option<usize> {
        self.pipeline.tables.iter().position(|table| table.name == name)
    }
}

fn catalog(pipeline: &Pipeline, shapes: &[Shape], envelopes: &[Envelope]) -> Catalog {
    let events = pipeline
        .sources
        .iter()
        .zip(shapes)
        .zip(envelopes)
        .map(|((source, shape), envelope)| {
            let table = pipeline.tables[source.table].name.clone();
            let routable = tables_of(pipeline, source);
            EventShape {
                name: source.name.clone(),
                shape: shape
                    .columns
                    .iter()
                    .map(|column| FieldDef {
                        column: column.name.clone(),
                        path: column.path.clone(),
                    })
                    .collect(),
                schema: shape.arrow(),
                tenant: envelope.tenant,
                tables: routable.map(str::to_owned).collect(),
                table,
            }
        });
    Catalog {
        events: events.collect(),
        alerts: pipeline.sinks.alerts.is_some(),
        charges: !pipeline.sinks.grpc.is_empty(),
    }
}

/// The tables that rows of a source may go to.
pub fn tables_of<'a>(pipeline: &'a Pipeline, source: &'a pipeline::Source) -> impl Iterator<Item = &'a str> {
    let names = pipeline.tables.iter().map(|table| table.name.as_str());
    names.filter(|name| root(pipeline, name) == pipeline.tables[source.table].name)
}

/// The table whose columns a `like` chain ends at. The checked pipeline has no cycles.
fn root<'a>(pipeline: &'a Pipeline, name: &'a str) -> &'a str {
    let mut name = name;
    for _ in 0..=pipeline.tables.len() {
        match pipeline
            .tables
            .iter()
            .find(|table| table.name == name)
            .and_then(|table| table.like.as_deref())
        {
            Some(like) => name = like,
            None => break,
        }
    }
    name
}
