//! From what is there to what should be: each step with its statement and its reason, or a refusal with its own.

use pipeline::shape::Column;
use serde::Serialize;

use super::column::{plan_columns, plan_left_over};
use super::desired::{Desired, type_of};
use super::existing::{self, Existing, TableColumn};
use super::rollup::{COMMENT_HEAD, PartKind, WantedRollup};
use super::table::{IDENTITY, WantedTable, guarded_columns};
use crate::client::Client;
use crate::insert::{DEADLINE_COLUMN, DEADLINE_PASSED};
use crate::{Error, sql};

/// One statement that is needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What is changed: `table orders`.
    pub what: String,
    /// The statement. Running it twice does no harm.
    pub sql: String,
    /// Why it is needed and what it means for readers.
    pub why: String,
}

/// Something that would be needed and isn't done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// What it is about: `table orders, column amount`.
    pub what: String,
    /// Why it isn't done.
    pub reason: String,
    /// What an operator can do.
    pub remedy: String,
}

/// What stands between the server and the pipeline.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// In the order in which they are to be run.
    pub changes: Vec<Change>,
    /// While there is any, nothing is changed.
    pub refusals: Vec<Refusal>,
    /// What is left as it is, and is fine so.
    pub notes: Vec<String>,
}

/// Compares the server with what is wanted; changes nothing.
///
/// # Errors
/// As [`Client::query_text`].
pub async fn plan(client: &Client, desired: &Desired) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    if !existing::database_exists(client).await? {
        plan.changes.push(Change {
            what: format!("database {}", client.database()),
            sql: format!("CREATE DATABASE IF NOT EXISTS {}", sql::name(client.database())),
            why: "the pipeline's tables live in it".to_owned(),
        });
    }
    let rollup_parts = desired.rollups.iter().flat_map(|rollup| {
        let parts = rollup.parts.iter().map(|part| part.name.as_str());
        parts.chain([rollup.former_feed.as_str()])
    });
    let names: Vec<&str> = desired
        .tables
        .iter()
        .map(|table| table.name.as_str())
        .chain(rollup_parts)
        .collect();
    let there = existing::tables(client, &names).await?;
    for table in &desired.tables {
        plan_table(&mut plan, client, table, there.get(&table.name));
    }
    for rollup in &desired.rollups {
        if there.contains_key(&rollup.former_feed) {
            plan.changes.push(Change {
                what: format!("rollup {}", rollup.name),
                sql: format!("DROP VIEW IF EXISTS {}", client.table(&rollup.former_feed)),
                why: "lanes feed rollups now; this view would count each row a second time".to_owned(),
            });
        }
        for (index, part) in rollup.parts.iter().enumerate() {
            plan_part(&mut plan, client, (rollup, index), there.get(&part.name));
        }
    }
    Ok(plan)
}

/// Makes the server what is wanted and answers the plan that was carried out. Safe to repeat, and safe if two do it at
/// once: each statement says "if not exists" or sets what is set already.
///
/// # Errors
/// [`Error::Refused`] before anything is changed; otherwise as [`Client::query_text`].
pub async fn apply(client: &Client, desired: &Desired) -> Result<Plan, Error> {
    let plan = plan(client, desired).await?;
    run(client, plan).await
}

/// Gives `table` the columns that it lacks and makes nullable those that have to be: for a worker that meets a newer
/// schema while it runs. `low_cardinality` as for [`crate::encode`].
///
/// # Errors
/// As [`apply`]; [`Error::Refused`] also if the table isn't there.
pub async fn add_columns(
    client: &Client,
    table: &str,
    columns: &[Column],
    low_cardinality: &[String],
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    match existing::tables(client, &[table]).await?.get(table) {
        None => plan.refusals.push(Refusal {
            what: format!("table {table}"),
            reason: "it doesn't exist".to_owned(),
            remedy: "run `sluice schema apply`".to_owned(),
        }),
        Some(there) if !guarded(there) => plan.refusals.push(Refusal {
            what: format!("table {table}"),
            reason: "it doesn't refuse inserts that come after their deadline".to_owned(),
            remedy: "run `sluice schema apply`".to_owned(),
        }),
        Some(there) => {
            let typed = |column: &Column| {
                let type_name =
                    type_of(column, low_cardinality).map_err(|reason| Error::column(&column.name, reason))?;
                Ok((column.name.clone(), type_name))
            };
            let wanted = columns.iter().map(typed).collect::<Result<Vec<_>, Error>>()?;
            plan_columns(&mut plan, client, &wanted, there);
        }
    }
    run(client, plan).await
}

async fn run(client: &Client, plan: Plan) -> Result<Plan, Error> {
    if !plan.refusals.is_empty() {
        return Err(Error::Refused(plan.refusals));
    }
    for change in &plan.changes {
        client.query(&change.sql, &[]).await?;
    }
    Ok(plan)
}

fn plan_table(plan: &mut Plan, client: &Client, wanted: &WantedTable, there: Option<&Existing>) {
    let what = format!("table {}", wanted.name);
    let qualified = client.table(&wanted.name);
    let Some(there) = there else {
        let why = "a table of the pipeline that isn't there yet".to_owned();
        plan.changes.push(Change {
            what,
            sql: wanted.create(&qualified),
            why,
        });
        return;
    };
    // Replicated and shared tables remember tokens by default; the window is only set where its default is none.
    if !["MergeTree", "ReplicatedMergeTree", "SharedMergeTree"].contains(&there.engine.as_str()) {
        plan.refusals.push(Refusal {
            what,
            reason: format!(
                "its engine is {}, which may merge or lose rows; MergeTree keeps each",
                there.engine
            ),
            remedy: format!(
                "rename it: RENAME TABLE {qualified} TO {}",
                client.table(&format!("{}_old", wanted.name))
            ),
        });
        return;
    }
    for (name, type_name) in IDENTITY {
        if there.column(name).is_none_or(|column| column.type_name != type_name) {
            plan.refusals.push(Refusal {
                what: format!("{what}, column {name}"),
                reason: format!("it should be there as {type_name}: this table wasn't made by Sluice"),
                remedy: "rename the table, or name another in the pipeline file".to_owned(),
            });
            return;
        }
    }
    if !guarded(there) {
        let [(deadline, of_deadline), (inserted_at, of_inserted_at)] = guarded_columns();
        plan.changes.push(Change {
            what: what.clone(),
            sql: format!(
                "ALTER TABLE {qualified} ADD COLUMN IF NOT EXISTS {} {of_deadline}, MODIFY COLUMN {} {of_inserted_at}",
                sql::name(deadline),
                sql::name(inserted_at)
            ),
            why: "the table itself refuses inserts that come after their deadline".to_owned(),
        });
    }
    plan_columns(plan, client, &wanted.columns, there);
    for column in &there.columns {
        plan_left_over(plan, &what, &qualified, wanted, column);
    }
    plan_keys(plan, &what, wanted, there);
    plan_retention(plan, &what, &qualified, wanted, there);
}

/// Whether the table has the guard of [`guarded_columns`].
fn guarded(there: &Existing) -> bool {
    let (deadline, type_name) = DEADLINE_COLUMN;
    let comes = |column: &TableColumn| column.type_name == type_name && column.default_kind == "EPHEMERAL";
    let throws = |column: &TableColumn| {
        column.default_kind == "DEFAULT"
            && [deadline, "throwIf", "nowInBlock", DEADLINE_PASSED]
                .iter()
                .all(|part| column.default_expression.contains(part))
    };
    there.column(deadline).is_some_and(comes) && there.column("_inserted_at").is_some_and(throws)
}

fn plan_keys(plan: &mut Plan, what: &str, wanted: &WantedTable, there: &Existing) {
    let plain = |key: &str| key.replace(['`', ' '], "");
    let partition_key = wanted.partition_key.clone().unwrap_or_default();
    let keys = [
        ("sorted", &there.sorting_key, wanted.sorting_key.join(", ")),
        ("parted", &there.partition_key, partition_key),
    ];
    for (how, is, to_be) in keys {
        if plain(is) != plain(&to_be) {
            let or_nothing = |key: &str| {
                if key.is_empty() {
                    "nothing".to_owned()
                } else {
                    key.to_owned()
                }
            };
            plan.refusals.push(Refusal {
                what: what.to_owned(),
                reason: format!(
                    "it is {how} by {} and should be by {}: that can't change while the table has rows",
                    or_nothing(is),
                    or_nothing(&to_be)
                ),
                remedy: "take the change back in the pipeline file, or use a new table and copy the rows".to_owned(),
            });
        }
    }
}

fn plan_retention(plan: &mut Plan, what: &str, qualified: &str, wanted: &WantedTable, there: &Existing) {
    let plain = |ttl: &str| ttl.replace(['`', ' '], "");
    let change = match (&wanted.ttl, there.ttl()) {
        (Some(ttl), is) if is.map(plain) != Some(plain(ttl)) => Some((
            format!("MODIFY TTL {ttl}"),
            "rows are deleted after this time now".to_owned(),
        )),
        (None, Some(_)) => Some(("REMOVE TTL".to_owned(), "rows are kept for ever now".to_owned())),
        _ => None,
    };
    if let Some((alter, why)) = change {
        plan.changes.push(Change {
            what: what.to_owned(),
            sql: format!("ALTER TABLE {qualified} {alter}"),
            why,
        });
    }
    plan_window(plan, what, qualified, wanted.dedup_window, there);
}

fn plan_window(plan: &mut Plan, what: &str, qualified: &str, window: u32, there: &Existing) {
    const SETTING: &str = "non_replicated_deduplication_window";
    let is = there.setting(SETTING).unwrap_or(0);
    if !there.engine.starts_with("Replicated") && !there.engine.starts_with("Shared") && is != u64::from(window) {
        plan.changes.push(Change {
            what: what.to_owned(),
            sql: format!("ALTER TABLE {qualified} MODIFY SETTING {SETTING} = {window}"),
            why: format!("it remembers {is} insert tokens and should remember {window}"),
        });
    }
}

fn plan_part(plan: &mut Plan, client: &Client, (rollup, index): (&WantedRollup, usize), there: Option<&Existing>) {
    let Some(part) = rollup.parts.get(index) else { return };
    let what = format!("rollup {}", rollup.name);
    match there {
        None => plan.changes.push(Change {
            what,
            sql: rollup.create(part, client.database()),
            why: match part.kind {
                PartKind::State => "a table for the states of a new rollup".to_owned(),
                PartKind::Read => format!(
                    "the view that people read; rows that {} has already are not in it",
                    rollup.from
                ),
            },
        }),
        Some(there) if there.comment == rollup.comment => {
            if part.kind == PartKind::State {
                plan_window(plan, &what, &client.table(&part.name), rollup.dedup_window, there);
            }
        }
        Some(there) => {
            let drops = rollup.parts.iter().rev().map(|part| {
                let kind = if part.kind == PartKind::State { "TABLE" } else { "VIEW" };
                format!("DROP {kind} IF EXISTS {}", client.table(&part.name))
            });
            let ours = there.comment.starts_with(COMMENT_HEAD);
            plan.refusals.push(Refusal {
                what: format!("{what}, {}", part.name),
                reason: if ours {
                    "its definition has changed, and the states that are there can't be turned into the new ones"
                        .to_owned()
                } else {
                    "something of this name is there that wasn't made by Sluice".to_owned()
                },
                remedy: if ours {
                    format!(
                        "give the new definition another name, or drop the old rollup: {}",
                        drops.collect::<Vec<_>>().join("; ")
                    )
                } else {
                    "give the rollup another name in the pipeline file".to_owned()
                },
            });
        }
    }
}
