//! A summary, as it should be: a table of states (`<name>_state`) that lanes feed from the raw rows, and the view that
//! people read (`<name>`).
//!
//! Its definition doesn't depend on what may change in the raw table: a column that becomes nullable, or one that
//! becomes low in cardinality, leaves every statement here as it was. So each value passes a cast to a nullable type.

use pipeline::shape::{Column, Kind, Shape};
use pipeline::{Function, Measure, Pipeline, Rollup};
use xxhash_rust::xxh3::xxh3_64;

use super::desired::event_time;
use super::plan::Refusal;
use super::table::{SMALL_PARTS, bad_column};
use crate::feed::Feed;
use crate::native::Layout;
use crate::sql;

/// The column with the beginning of each bucket of event time.
const BUCKET: &str = "bucket";
/// The column of the states with the identities of the rows that are in them: how a state that a dying server left short
/// is told from a whole one. See [`crate::Feed`].
const ROWS: &str = "_rows";
/// A row's identity as 64 bits. Never change it: states hold it.
const ROW_IDENTITY: &str = "sipHash64(src._topic, src._partition, src._offset, src._index)";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedRollup {
    pub name: String,
    /// The raw table's name.
    pub from: String,
    /// In the order in which they have to be made: what feeds comes last.
    pub parts: [Part; 2],
    /// The view that fed the states with each insert before lanes did; beside them it would feed each row twice.
    pub former_feed: String,
    /// How the states of some rows are made.
    pub feed: Feed,
    pub dedup_window: u32,
    /// Marks the parts in their comments, so that another definition under the same name is noticed.
    pub comment: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub name: String,
    pub kind: PartKind,
    /// What is specific to it; the database stands as `{db}`.
    body: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartKind {
    State,
    Read,
}

/// One column of the summary.
struct Output {
    name: String,
    /// Its type in the table of states.
    type_name: String,
    /// How the feed computes it from a raw row `src`.
    feed: String,
    /// How it is read from a state `s`.
    read: String,
}

impl WantedRollup {
    pub(super) fn new(pipeline: &Pipeline, rollup: &Rollup, shape: &Shape) -> Result<Self, Vec<Refusal>> {
        let Some(table) = pipeline.tables.get(rollup.from) else {
            return Err(Vec::new());
        };
        let what = format!("rollup {}", rollup.name);
        let mut refusals = Vec::new();
        let mut keep = |made: Result<Output, Refusal>| made.map_err(|refusal| refusals.push(refusal)).ok();
        let by: Vec<Output> = rollup
            .by
            .iter()
            .filter_map(|name| keep(by_column(&what, name, shape)))
            .collect();
        let measures: Vec<Output> = rollup
            .measures
            .iter()
            .filter_map(|measure| keep(measured(&what, measure, shape)))
            .collect();
        let time = keep(event_time(pipeline, table.source, shape).map(|time| bucket(time, rollup.every.as_secs())));
        for (taken, why) in [
            (BUCKET, "with the time"),
            (ROWS, "that remembers which rows were summed up"),
        ] {
            if by.iter().chain(&measures).any(|output| output.name == taken) {
                refusals.push(Refusal {
                    what: what.clone(),
                    reason: format!("`{taken}` is the name of the column {why}"),
                    remedy: "name the measure or the column otherwise".to_owned(),
                });
            }
        }
        let Some(time) = time.filter(|_| refusals.is_empty()) else {
            return Err(refusals);
        };
        let (parts, feed) = parts(&rollup.name, &table.name, (&time, &by, &measures));
        // How states are made belongs to the definition; it is spelt as the view that it once was.
        let made = format!(
            "TO {{db}}.{} AS SELECT {} FROM {{db}}.{} AS src GROUP BY {}",
            sql::name(&feed.state),
            feed.named_values,
            sql::name(&table.name),
            feed.group_by
        );
        let digest = xxh3_64([parts[0].body.as_str(), &parts[1].body, &made].join("\n").as_bytes());
        Ok(Self {
            name: rollup.name.clone(),
            from: table.name.clone(),
            parts,
            former_feed: format!("{}_feed", rollup.name),
            feed,
            dedup_window: table.dedup_window,
            comment: format!("{COMMENT_HEAD}{digest:016x}"),
        })
    }

    pub(super) fn create(&self, part: &Part, database: &str) -> String {
        let name = format!("{}.{}", sql::name(database), sql::name(&part.name));
        let body = part.body.replace("{db}", &sql::name(database));
        let comment = sql::text(&self.comment);
        match part.kind {
            PartKind::State => format!(
                "CREATE TABLE IF NOT EXISTS {name}\n{body}\nSETTINGS non_replicated_deduplication_window = {}, {SMALL_PARTS}, allow_nullable_key = 1\nCOMMENT {comment}",
                self.dedup_window
            ),
            PartKind::Read => format!("CREATE VIEW IF NOT EXISTS {name}\n{body}\nCOMMENT {comment}"),
        }
    }
}

/// How the comment of every part of a rollup begins.
pub(super) const COMMENT_HEAD: &str = "sluice rollup ";

fn parts(name: &str, from: &str, (time, by, measures): (&Output, &[Output], &[Output])) -> ([Part; 2], Feed) {
    let rows = Output {
        name: ROWS.to_owned(),
        type_name: "AggregateFunction(groupUniqArray, UInt64)".to_owned(),
        feed: format!("groupUniqArrayState({ROW_IDENTITY})"),
        read: String::new(),
    };
    let keys: Vec<&Output> = by.iter().chain([time]).collect();
    let all: Vec<&Output> = [time].into_iter().chain(by).chain(measures).collect();
    let states: Vec<&Output> = all.iter().copied().chain([&rows]).collect();
    let list = |outputs: &[&Output], of: fn(&Output) -> String| {
        outputs.iter().map(|output| of(output)).collect::<Vec<_>>().join(", ")
    };
    let state = format!("{name}_state");
    let part = |name: &str, kind, body| Part {
        name: name.to_owned(),
        kind,
        body,
    };
    let feed = Feed {
        rollup: name.to_owned(),
        from: from.to_owned(),
        state: state.clone(),
        columns: list(&states, |output| sql::name(&output.name)),
        values: list(&states, |output| output.feed.clone()),
        named_values: list(&states, |output| {
            format!("{} AS {}", output.feed, sql::name(&output.name))
        }),
        group_by: list(&keys, |output| output.feed.clone()),
        keys: list(&keys, |output| sql::name(&output.name)),
        row: ROW_IDENTITY,
        rows_column: ROWS,
    };
    let parts = [
        part(
            &state,
            PartKind::State,
            format!(
                "({})\nENGINE = AggregatingMergeTree\nPARTITION BY toYYYYMM({BUCKET})\nORDER BY ({})",
                list(&states, |output| format!(
                    "{} {}",
                    sql::name(&output.name),
                    output.type_name
                )),
                list(&keys, |output| sql::name(&output.name)),
            ),
        ),
        part(
            name,
            PartKind::Read,
            format!(
                "AS SELECT {} FROM {{db}}.{} AS s GROUP BY {}",
                list(&all, |output| format!("{} AS {}", output.read, sql::name(&output.name))),
                sql::name(&state),
                list(&keys, |output| output.read.clone()),
            ),
        ),
    ];
    (parts, feed)
}

fn bucket(time: &Column, seconds: u64) -> Output {
    Output {
        name: BUCKET.to_owned(),
        type_name: "DateTime('UTC')".to_owned(),
        feed: format!(
            "toStartOfInterval(toDateTime(assumeNotNull(src.{}), 'UTC'), toIntervalSecond({seconds}), 'UTC')",
            sql::name(&time.name)
        ),
        read: format!("s.{}", sql::name(BUCKET)),
    }
}

fn by_column(what: &str, name: &str, shape: &Shape) -> Result<Output, Refusal> {
    let found = shape.index(name).and_then(|index| shape.columns.get(index));
    let refusal = || bad_column(what, "by", name, found.is_some(), shape);
    let column = found.ok_or_else(refusal)?;
    // What rows are grouped by has few values.
    let type_name = nullable_type(&column.kind, true).ok_or_else(refusal)?;
    Ok(Output {
        name: column.name.clone(),
        feed: format!("CAST(src.{}, {})", sql::name(&column.name), sql::text(&type_name)),
        read: format!("s.{}", sql::name(&column.name)),
        type_name,
    })
}

fn measured(what: &str, measure: &Measure, shape: &Shape) -> Result<Output, Refusal> {
    // Sums and counts are right because rows arrive exactly once; the others would be even if they didn't.
    let function = match measure.function {
        Function::Uniq => "uniqExact",
        Function::UniqCombined => "uniqCombined64",
        Function::Sum => "sum",
        Function::Count => "count",
        Function::Min => "min",
        Function::Max => "max",
    };
    let (argument_type, argument) = match &measure.column {
        None => (String::new(), String::new()),
        Some(name) => {
            let found = shape.index(name).and_then(|index| shape.columns.get(index));
            let refusal = || bad_column(what, function, name, found.is_some(), shape);
            let column = found.ok_or_else(refusal)?;
            let type_name = nullable_type(&column.kind, false)
                .filter(|_| measure.function != Function::Sum || is_number(&column.kind))
                .ok_or_else(refusal)?;
            let cast = format!("CAST(src.{}, {})", sql::name(&column.name), sql::text(&type_name));
            (format!(", {type_name}"), cast)
        }
    };
    let merged = format!("{function}Merge(s.{})", sql::name(&measure.name));
    Ok(Output {
        name: measure.name.clone(),
        type_name: format!("AggregateFunction({function}{argument_type})"),
        feed: format!("{function}State({argument})"),
        read: match measure.function {
            // Of values that are all null there are none; ClickHouse would say that their number is null.
            Function::Uniq | Function::UniqCombined => format!("ifNull({merged}, 0)"),
            Function::Sum | Function::Count | Function::Min | Function::Max => merged,
        },
    })
}

/// The type that holds the kind's values and null; `None` for lists and maps.
fn nullable_type(kind: &Kind, low_cardinality: bool) -> Option<String> {
    match kind {
        Kind::List(_) | Kind::Map(_) => None,
        scalar => Layout::of(&scalar.arrow(), true, low_cardinality)
            .ok()
            .map(|layout| layout.type_name()),
    }
}

fn is_number(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Int32 | Kind::Int64 | Kind::Float32 | Kind::Float64 | Kind::Decimal { .. }
    )
}
