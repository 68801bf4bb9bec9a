//! The tables: those that sources fill, with the settings that the file has for them, and those like them.

use document::{Item, Period, Reader, nearest};

use super::names;
use super::sources::Draft;
use crate::{EventFields, Keep, PartitionBy, Table, defaults};

/// The name under which the file keeps what all tables have in common.
const COMMON: &str = "default";

/// Of the tables that there are, so many are named to somebody who named another.
const NAMED_MAX: usize = 20;

/// What the file says of one table.
#[derive(Default)]
struct Part<'a> {
    like: Option<(&'a str, Item<'a>)>,
    partition_by: Option<PartitionBy>,
    order_by: Option<Vec<String>>,
    keep: Option<Option<Keep>>,
    low_cardinality: Option<Vec<String>>,
    dedup_window: Option<u32>,
}

/// A table's name in the file, what it says, and where.
type Listed<'a> = (&'a str, Part<'a>, Item<'a>);

/// All tables, and in each draft the index of its own.
pub(super) fn tables<'a>(top: &Reader<'a>, drafts: &mut [Draft<'a>]) -> Vec<Table> {
    let entries = top
        .optional("tables")
        .and_then(|item| item.entries())
        .unwrap_or_default();
    let parts: Vec<Listed<'a>> = entries
        .into_iter()
        .map(|(name, item)| (name, part(&item), item))
        .collect();
    let common = parts.iter().find(|(name, ..)| *name == COMMON).map(|(_, part, _)| part);
    if let Some((_, like)) = common.and_then(|part| part.like.as_ref()) {
        like.fault_at_key("what all tables have in common can't be `like` one of them");
    }
    let mut tables = filled(drafts, &parts, common);
    let filled = tables.clone();
    // While a source's table isn't known, nobody can say which others are missing.
    let all_known = drafts.iter().all(|draft| draft.table.is_some());
    for (name, part, item) in &parts {
        if *name != COMMON && !filled.iter().any(|table| table.name == *name) {
            tables.extend(other(name, part, item, &filled, all_known));
        }
    }
    tables
}

/// The tables that sources fill.
fn filled<'a>(drafts: &mut [Draft<'a>], parts: &[Listed<'a>], common: Option<&Part<'a>>) -> Vec<Table> {
    let mut tables: Vec<Table> = Vec::new();
    for (index, draft) in drafts.iter_mut().enumerate() {
        let Some((name, item)) = &draft.table else { continue };
        if *name == COMMON {
            item.fault("`default` is what all tables have in common; name the table otherwise");
            continue;
        }
        // Two sources with one table are reported with the sources.
        if tables.iter().any(|table| table.name == *name) {
            continue;
        }
        let own = parts.iter().find(|(other, ..)| other == name).map(|(_, part, _)| part);
        if let Some((_, like)) = own.and_then(|part| part.like.as_ref()) {
            like.fault_at_key("a source fills this table; `like` is for tables to which only rules route rows");
        }
        draft.source.table = tables.len();
        tables.push(laid_over(base(common, &draft.source.event), own, name, index));
    }
    tables
}

/// A table that no source fills, so that it has to be like one that has a source. What could not be resolved gets a
/// stand-in, so that rollups of it are not reported, too.
fn other<'a>(name: &str, part: &Part<'a>, item: &Item<'a>, filled: &[Table], all_known: bool) -> Option<Table> {
    if let Err(reason) = names::identifier(name) {
        item.fault_at_key(reason);
    }
    let like = part
        .like
        .as_ref()
        .and_then(|(like, _)| filled.iter().find(|table| table.name == *like));
    match &part.like {
        _ if like.is_some() || !all_known => {}
        Some((text, like)) => like.fault(unresolved(text, filled)),
        None => item.fault_at_key(match nearest(name, filled.iter().map(|table| table.name.as_str())) {
            Some(meant) => format!("no source fills this table; did you mean `{meant}`?"),
            None => "no source fills this table; is it `like: <table>` of one that has a source?".to_owned(),
        }),
    }
    let mut base = like.or(filled.first())?.clone();
    base.like = part.like.as_ref().map(|(like, _)| (*like).to_owned());
    let source = base.source;
    Some(laid_over(base, Some(part), name, source))
}

/// The message for a name that is no table.
pub(super) fn unresolved(name: &str, tables: &[Table]) -> String {
    let names = || tables.iter().map(|table| table.name.as_str());
    match nearest(name, names()) {
        Some(meant) => format!("there is no table `{name}`; did you mean `{meant}`?"),
        None => {
            let some = names().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
            let others = match tables.len().saturating_sub(NAMED_MAX) {
                0 => String::new(),
                others => format!(" and {others} more"),
            };
            format!("there is no table `{name}`; there are {some}{others}")
        }
    }
}

fn part<'a>(item: &Item<'a>) -> Part<'a> {
    // A table of which nothing is said may stand in the list all the same.
    if item.is_null() {
        return Part::default();
    }
    let Some(reader) = item.map() else {
        return Part::default();
    };
    let words = [
        ("day", PartitionBy::Day),
        ("month", PartitionBy::Month),
        ("none", PartitionBy::None),
    ];
    let part = Part {
        like: reader.optional("like").and_then(|item| Some((item.text()?, item))),
        partition_by: reader.optional("partition_by").and_then(|item| item.choice(&words)),
        order_by: reader.optional("order_by").and_then(|item| {
            let columns = columns(&item)?;
            if columns.is_empty() {
                item.fault("a table needs at least one column to be ordered by");
            }
            Some(columns)
        }),
        keep: reader.optional("keep").and_then(|item| keep(&item)),
        low_cardinality: reader.optional("low_cardinality").and_then(|item| columns(&item)),
        dedup_window: reader
            .optional("dedup_window")
            .and_then(|item| item.integer(100..=1_000_000)),
    };
    reader.finish();
    part
}

fn keep(item: &Item<'_>) -> Option<Option<Keep>> {
    if item.node().value == document::Value::Text("forever".to_owned()) {
        return Some(None);
    }
    Some(Some(match item.period()? {
        Period::Days(days) => Keep::Days(days),
        Period::Months(months) => Keep::Months(months),
    }))
}

/// Columns by name or by path; each once.
pub(super) fn columns(item: &Item<'_>) -> Option<Vec<String>> {
    let mut columns = Vec::new();
    for item in item.list()? {
        let Some(text) = item
            .text()
            .filter(|text| item.checked(names::field_path(text)).is_some())
        else {
            continue;
        };
        let column = column_name(text);
        if columns.contains(&column) {
            item.fault(format!("`{column}` is in this list already"));
        } else {
            columns.push(column);
        }
    }
    Some(columns)
}

/// `context.page.url` -> `context_page_url`.
pub(super) fn column_name(path: &str) -> String {
    path.replace('.', "_")
}

/// What a table has of which the file says nothing.
fn base(common: Option<&Part<'_>>, event: &EventFields) -> Table {
    let kind: Vec<&String> = std::iter::once(&event.tenant).chain(&event.event_type).collect();
    let names = |paths: &[&String]| paths.iter().map(|path| column_name(path)).collect::<Vec<_>>();
    // Most questions are about one tenant, one type and a span of time.
    let mut order_by = names(&[kind.as_slice(), &[&event.time]].concat());
    order_by.dedup();
    let table = Table {
        name: String::new(),
        like: None,
        source: 0,
        // The token's window and the retention both work by the day; more than a hundred days in one insert is rare.
        partition_by: PartitionBy::Day,
        order_by,
        keep: Some(Keep::Months(defaults::KEEP_MONTHS)),
        // Few different values, asked for in every query.
        low_cardinality: names(&kind),
        dedup_window: defaults::DEDUP_WINDOW,
    };
    laid_over(table, common, "", 0)
}

/// A table with what the file says of it on top.
fn laid_over(base: Table, part: Option<&Part<'_>>, name: &str, source: usize) -> Table {
    let general = Part::default();
    let part = part.unwrap_or(&general);
    Table {
        name: name.to_owned(),
        like: base.like,
        source,
        partition_by: part.partition_by.unwrap_or(base.partition_by),
        order_by: part.order_by.clone().unwrap_or(base.order_by),
        keep: part.keep.unwrap_or(base.keep),
        low_cardinality: part.low_cardinality.clone().unwrap_or(base.low_cardinality),
        dedup_window: part.dedup_window.unwrap_or(base.dedup_window),
    }
}
