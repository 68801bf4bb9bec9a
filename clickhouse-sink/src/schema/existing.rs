//! What the server has.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::client::Client;
use crate::{Error, sql};

/// A column of a table on the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TableColumn {
    /// Its name.
    pub name: String,
    /// Its type, as ClickHouse spells it: `LowCardinality(Nullable(String))`.
    #[serde(rename = "type")]
    pub type_name: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or empty.
    pub default_kind: String,
    /// The expression behind it, or empty.
    pub default_expression: String,
    /// Whether the table is sorted or parted by it, so that its type can't change.
    pub in_key: bool,
}

/// A table or view on the server.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Existing {
    pub name: String,
    pub engine: String,
    /// The engine with its keys, TTL and settings.
    pub engine_full: String,
    pub partition_key: String,
    pub sorting_key: String,
    pub comment: String,
    #[serde(skip)]
    pub columns: Vec<TableColumn>,
}

/// The columns of `table`, in their order; none if there is no such table.
///
/// # Errors
/// As [`Client::query_text`].
pub async fn columns(client: &Client, table: &str) -> Result<Vec<TableColumn>, Error> {
    Ok(all_columns(client, &[table]).await?.remove(table).unwrap_or_default())
}

pub(super) async fn database_exists(client: &Client) -> Result<bool, Error> {
    let sql = format!(
        "SELECT count() FROM system.databases WHERE name = {} FORMAT TSV",
        sql::text(client.database())
    );
    Ok(client.query(&sql, &[]).await?.trim() != "0")
}

/// Those of `names` that exist, by name.
pub(super) async fn tables(client: &Client, names: &[&str]) -> Result<BTreeMap<String, Existing>, Error> {
    let sql = format!(
        "SELECT name, engine, engine_full, partition_key, sorting_key, comment FROM system.tables \
         WHERE database = {} AND name IN ({}) FORMAT JSONEachRow",
        sql::text(client.database()),
        texts(names)
    );
    // In this order: a table that another process makes in between is then missing, never a table without columns.
    let tables = rows::<Existing>(&client.query(&sql, &[]).await?)?;
    let mut columns = all_columns(client, names).await?;
    let with_columns = |mut table: Existing| {
        table.columns = columns.remove(&table.name).unwrap_or_default();
        (table.name.clone(), table)
    };
    Ok(tables.into_iter().map(with_columns).collect())
}

async fn all_columns(client: &Client, tables: &[&str]) -> Result<BTreeMap<String, Vec<TableColumn>>, Error> {
    #[derive(Deserialize)]
    struct Row {
        table: String,
        #[serde(flatten)]
        column: TableColumn,
    }
    let sql = format!(
        "SELECT table, name, type, default_kind, default_expression, CAST(is_in_sorting_key OR is_in_partition_key AS Bool) AS in_key \
         FROM system.columns WHERE database = {} AND table IN ({}) ORDER BY table, position FORMAT JSONEachRow",
        sql::text(client.database()),
        texts(tables)
    );
    let mut columns = BTreeMap::<String, Vec<TableColumn>>::new();
    for row in rows::<Row>(&client.query(&sql, &[]).await?)? {
        columns.entry(row.table).or_default().push(row.column);
    }
    Ok(columns)
}

fn texts(names: &[&str]) -> String {
    names.iter().map(|name| sql::text(name)).collect::<Vec<_>>().join(", ")
}

fn rows<T: for<'a> Deserialize<'a>>(answer: &str) -> Result<Vec<T>, Error> {
    let parse = |line: &str| serde_json::from_str(line).map_err(|error| Error::Answer(format!("{error} in {line}")));
    answer.lines().map(parse).collect()
}

impl Existing {
    /// What stands behind `TTL`, if anything does.
    pub(super) fn ttl(&self) -> Option<&str> {
        let (_, behind) = self.engine_full.split_once(" TTL ")?;
        Some(behind.split_once(" SETTINGS ").map_or(behind, |(ttl, _)| ttl))
    }

    /// The value of an integer setting of the table.
    pub(super) fn setting(&self, name: &str) -> Option<u64> {
        let (_, settings) = self.engine_full.split_once(" SETTINGS ")?;
        let of_setting = |pair: &str| Some(pair.trim().split_once(" = ")?.1.parse().ok()).flatten();
        settings
            .split(',')
            .find(|pair| pair.trim().split(' ').next() == Some(name))
            .and_then(of_setting)
    }

    pub(super) fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}
