//! A table for raw rows, as it should be.

use pipeline::shape::{Kind, Shape};
use pipeline::{Keep, PartitionBy, Pipeline};

use super::desired::{event_time, low_cardinality, type_of};
use super::plan::Refusal;
use crate::insert::{DEADLINE_COLUMN, DEADLINE_PASSED};
use crate::sql;

/// For tables that get a small part from each batch. Merging five parts at a time, as by default, costs more than the
/// inserts themselves; and statistics of every column, which 26.x collects by default, cost a quarter of an insert and are
/// only of use to joins. Both are the table's own settings: `ALTER TABLE … MODIFY SETTING` changes them, and Sluice leaves
/// that alone.
pub(super) const SMALL_PARTS: &str = "merge_selector_base = 20, auto_statistics_types = ''";

/// What every table has behind the user's columns: where each row came from, what it contains, when it arrived.
pub(super) const IDENTITY: [(&str, &str); 6] = [
    ("_topic", "LowCardinality(String)"),
    ("_partition", "Int32"),
    ("_offset", "Int64"),
    ("_index", "UInt16"),
    ("_row_hash", "UInt64"),
    ("_inserted_at", "DateTime64(3, 'UTC')"),
];

/// The guard of every table: each block comes with its deadline in a column that is not stored, and the default of
/// `_inserted_at`, which no insert names, throws when that has passed. It is computed after the whole block has arrived
/// and before any of it is written: by `nowInBlock`, because `now` is the time at which the query began, and a request whose
/// body stalls begins long before its block is there. Rows that are inserted by hand without a deadline are let in.
pub(super) fn guarded_columns() -> [(&'static str, String); 2] {
    let (name, type_name) = DEADLINE_COLUMN;
    let message = sql::text(DEADLINE_PASSED);
    [
        (name, format!("{type_name} EPHEMERAL toDateTime(4294967295, 'UTC')")),
        (
            "_inserted_at",
            format!(
                "DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC') + toIntervalSecond(throwIf(nowInBlock('UTC') >= {name}, {message}))"
            ),
        ),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WantedTable {
    pub name: String,
    /// The user's columns and their types, without [`IDENTITY`].
    pub columns: Vec<(String, String)>,
    /// `None`: rows aren't parted.
    pub partition_key: Option<String>,
    pub sorting_key: Vec<String>,
    /// Whether a column of the sorting key may be null, which ClickHouse has to be asked for.
    nullable_key: bool,
    /// `None`: rows are kept for ever.
    pub ttl: Option<String>,
    /// Parts hold rows of one day, so that expired ones are dropped whole instead of being written anew.
    drop_whole_parts: bool,
    pub dedup_window: u32,
}

impl WantedTable {
    /// The table at `index` in [`Pipeline::tables`].
    pub(super) fn new(pipeline: &Pipeline, index: usize, shape: &Shape) -> Result<Self, Vec<Refusal>> {
        let Some(table) = pipeline.tables.get(index) else {
            return Err(Vec::new());
        };
        let what = || format!("table {}", table.name);
        let mut refusals = Vec::new();
        let low = low_cardinality(pipeline, index, shape);
        let mut columns = Vec::with_capacity(shape.columns.len());
        for column in &shape.columns {
            match type_of(column, &low) {
                Ok(type_name) => columns.push((column.name.clone(), type_name)),
                Err(reason) => refusals.push(Refusal {
                    what: format!("{}, column {}", what(), column.name),
                    reason,
                    remedy: "change the Avro schema".to_owned(),
                }),
            }
        }
        let mut nullable_key = false;
        let mut sorting_key = Vec::with_capacity(table.order_by.len());
        for name in &table.order_by {
            match shape.index(name).and_then(|index| shape.columns.get(index)) {
                Some(column) if !matches!(column.kind, Kind::List(_) | Kind::Map(_)) => {
                    nullable_key |= column.nullable;
                    sorting_key.push(column.name.clone());
                }
                found => refusals.push(bad_column(&what(), "order_by", name, found.is_some(), shape)),
            }
        }
        for name in table.low_cardinality.iter().filter(|name| !names_a_text(shape, name)) {
            refusals.push(bad_column(
                &what(),
                "low_cardinality",
                name,
                shape.index(name).is_some(),
                shape,
            ));
        }
        let mut wanted = Self {
            name: table.name.clone(),
            columns,
            partition_key: None,
            sorting_key,
            nullable_key,
            ttl: None,
            drop_whole_parts: table.partition_by == PartitionBy::Day && table.keep.is_some(),
            dedup_window: table.dedup_window,
        };
        if table.partition_by != PartitionBy::None || table.keep.is_some() {
            match event_time(pipeline, table.source, shape) {
                // Events without a time never get here; the key and the TTL must not be nullable for all that.
                Ok(time) if time.nullable => wanted.set_time(table, &format!("assumeNotNull({})", time.name)),
                Ok(time) => wanted.set_time(table, &time.name),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if refusals.is_empty() { Ok(wanted) } else { Err(refusals) }
    }

    /// Spelled as ClickHouse spells them in `system.tables`, so that they can be compared.
    fn set_time(&mut self, table: &pipeline::Table, time: &str) {
        self.partition_key = match table.partition_by {
            PartitionBy::Day => Some(format!("toYYYYMMDD({time})")),
            PartitionBy::Month => Some(format!("toYYYYMM({time})")),
            PartitionBy::None => None,
        };
        self.ttl = table.keep.map(|keep| match keep {
            Keep::Days(days) => format!("toDateTime({time}) + toIntervalDay({days})"),
            Keep::Months(months) => format!("toDateTime({time}) + toIntervalMonth({months})"),
        });
    }

    pub(super) fn create(&self, qualified: &str) -> String {
        let mut lines: Vec<String> = self
            .columns
            .iter()
            .map(|(name, type_name)| format!("    {} {type_name}", sql::name(name)))
            .collect();
        let guarded = guarded_columns();
        let stored = IDENTITY
            .iter()
            .filter(|(name, _)| guarded.iter().all(|(of, _)| of != name));
        lines.extend(stored.map(|(name, type_name)| format!("    {} {type_name}", sql::name(name))));
        lines.extend(guarded.map(|(name, definition)| format!("    {} {definition}", sql::name(name))));
        // One index over both: a part's rows are mostly of few partitions, each a narrow span of offsets.
        lines.push("    INDEX _position (_partition, _offset) TYPE minmax GRANULARITY 1".to_owned());
        let mut create = format!(
            "CREATE TABLE IF NOT EXISTS {qualified}\n(\n{}\n)\nENGINE = MergeTree",
            lines.join(",\n")
        );
        if let Some(key) = &self.partition_key {
            create.push_str(&format!("\nPARTITION BY {key}"));
        }
        create.push_str(&format!(
            "\nORDER BY ({})",
            sql::names(self.sorting_key.iter().map(String::as_str))
        ));
        if let Some(ttl) = &self.ttl {
            create.push_str(&format!("\nTTL {ttl}"));
        }
        create.push_str(&format!(
            "\nSETTINGS non_replicated_deduplication_window = {}, {SMALL_PARTS}",
            self.dedup_window
        ));
        if self.drop_whole_parts {
            create.push_str(", ttl_only_drop_parts = 1");
        }
        if self.nullable_key {
            create.push_str(", allow_nullable_key = 1");
        }
        create
    }
}

fn names_a_text(shape: &Shape, name: &str) -> bool {
    let column = shape.index(name).and_then(|index| shape.columns.get(index));
    column.is_some_and(|column| matches!(column.kind, Kind::String | Kind::Uuid | Kind::Enum))
}

/// A name in the pipeline file that isn't a column, or one of the wrong kind.
pub(super) fn bad_column(what: &str, setting: &str, name: &str, exists: bool, shape: &Shape) -> Refusal {
    let names: Vec<&str> = shape.columns.iter().map(|column| column.name.as_str()).collect();
    let (reason, remedy) = if exists {
        (
            format!("{setting} names {name}, whose kind of values can't be used there"),
            "name another column".to_owned(),
        )
    } else {
        (
            format!("{setting} names {name}, which no schema version has"),
            format!("name one of {}", names.join(", ")),
        )
    };
    Refusal {
        what: what.to_owned(),
        reason,
        remedy,
    }
}
