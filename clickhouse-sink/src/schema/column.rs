//! One column of a table: there, or to be added, or to become nullable, or in the way.

use super::existing::{Existing, TableColumn};
use super::plan::{Change, Plan, Refusal};
use super::table::{IDENTITY, WantedTable};
use crate::client::Client;
use crate::insert::DEADLINE_COLUMN;
use crate::sql;

/// New columns stand where the schema has them, but never behind the identity.
pub(super) fn plan_columns(plan: &mut Plan, client: &Client, wanted: &[(String, String)], there: &Existing) {
    let identity = there
        .columns
        .iter()
        .position(|column| column.name == IDENTITY[0].0)
        .unwrap_or_default();
    let last = there
        .columns
        .get(..identity)
        .and_then(<[_]>::last)
        .map(|column| column.name.as_str());
    let mut after = last;
    for (name, type_name) in wanted {
        plan_column(plan, client, there, (name, type_name, after));
        after = Some(name);
    }
}

/// One column: there, or to be added, or to become nullable, or in the way.
fn plan_column(plan: &mut Plan, client: &Client, there: &Existing, (name, wanted, after): (&str, &str, Option<&str>)) {
    let what = format!("table {}, column {name}", there.name);
    let (qualified, quoted) = (client.table(&there.name), sql::name(name));
    let Some(column) = there.column(name) else {
        let place = after.map_or("FIRST".to_owned(), |after| format!("AFTER {}", sql::name(after)));
        plan.changes.push(Change {
            what,
            sql: format!(
                "ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS {quoted} {} {place}",
                nullable(wanted)
            ),
            why: "a new field of the schema; rows that are there already have no value for it".to_owned(),
        });
        return;
    };
    let (is, to_be) = (Bare::of(&column.type_name), Bare::of(wanted));
    if is.scalar != to_be.scalar {
        plan.refusals.push(Refusal {
            what,
            reason: format!("it is {} and the schema now says {wanted}: readers rely on its type", column.type_name),
            remedy: format!("take the change back, or give the field another name; or, if every reader can take it, run ALTER TABLE {qualified} MODIFY COLUMN {quoted} {wanted}"),
        });
        return;
    }
    if is.low_cardinality != to_be.low_cardinality {
        plan.notes.push(format!(
            "{what} stays {}; as {wanted} it would be written anew",
            column.type_name
        ));
    }
    if to_be.nullable && !is.nullable {
        if column.in_key {
            plan.refusals.push(Refusal {
                what,
                reason: "some events have no value for it any more, and a column that the table is sorted or parted by can't become nullable".to_owned(),
                remedy: "keep the field, without null, in every version of the schema; or begin a new table that is not sorted by it".to_owned(),
            });
            return;
        }
        plan.changes.push(Change {
            what,
            sql: format!(
                "ALTER TABLE {qualified} MODIFY COLUMN IF EXISTS {quoted} {}",
                nullable(&column.type_name)
            ),
            why: "some events have no value for it any more; rows that are there keep theirs".to_owned(),
        });
    }
}

/// Columns that no schema version has any more are never dropped. New rows have none of their values: fine where that
/// is a null or the column's own default, a lie where it would be an empty text or a zero.
pub(super) fn plan_left_over(plan: &mut Plan, what: &str, qualified: &str, wanted: &WantedTable, column: &TableColumn) {
    let known = wanted
        .columns
        .iter()
        .map(|(name, _)| name.as_str())
        .chain(IDENTITY.iter().map(|(name, _)| *name))
        .chain([DEADLINE_COLUMN.0]);
    if known.into_iter().any(|name| name == column.name) {
        return;
    }
    let what = format!("{what}, column {}", column.name);
    if Bare::of(&column.type_name).nullable || !column.default_kind.is_empty() {
        plan.notes.push(format!(
            "{what} is in no version of the schema; it stays, and new rows leave it empty"
        ));
        return;
    }
    let quoted = sql::name(&column.name);
    plan.refusals.push(Refusal {
        what,
        reason: "no version of the schema has it; Sluice drops nothing, and new rows would pretend to a value".to_owned(),
        remedy: format!(
            "let it be empty: ALTER TABLE {qualified} MODIFY COLUMN {quoted} {}; or drop it: ALTER TABLE {qualified} DROP COLUMN {quoted}",
            nullable(&column.type_name)
        ),
    });
}

/// A type without what only says how it is stored and whether it may be missing.
#[derive(Debug, PartialEq, Eq)]
struct Bare<'a> {
    scalar: &'a str,
    low_cardinality: bool,
    nullable: bool,
}

impl<'a> Bare<'a> {
    fn of(type_name: &'a str) -> Self {
        let within = |text: &'a str, wrapper: &str| text.strip_prefix(wrapper)?.strip_suffix(')');
        let low = within(type_name, "LowCardinality(");
        let inner = low.unwrap_or(type_name);
        let bare = within(inner, "Nullable(");
        Self {
            scalar: bare.unwrap_or(inner),
            low_cardinality: low.is_some(),
            nullable: bare.is_some(),
        }
    }
}

/// The type that also holds a null; arrays and maps, which have no null in ClickHouse, stay.
fn nullable(type_name: &str) -> String {
    let bare = Bare::of(type_name);
    match (bare.scalar, bare.low_cardinality) {
        (scalar, _) if scalar.starts_with("Array(") || scalar.starts_with("Map(") => scalar.to_owned(),
        (scalar, true) => format!("LowCardinality(Nullable({scalar}))"),
        (scalar, false) => format!("Nullable({scalar})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_becomes_nullable_inside_its_dictionary_and_lists_never_do() {
        for (is, to_be) in [
            ("String", "Nullable(String)"),
            ("Nullable(String)", "Nullable(String)"),
            ("LowCardinality(String)", "LowCardinality(Nullable(String))"),
            ("Decimal(10, 2)", "Nullable(Decimal(10, 2))"),
            ("Array(Nullable(Int64))", "Array(Nullable(Int64))"),
            (
                "Map(LowCardinality(String), String)",
                "Map(LowCardinality(String), String)",
            ),
        ] {
            assert_eq!(nullable(is), to_be);
        }
    }
}
