//! Tables: whole, or the rows of some offsets.

use std::collections::HashMap;
use std::sync::Arc;

use pipeline::Pipeline;
use pipeline::shape::Shape;

use crate::cell::{Cell, Fingerprint, Fingerprinter, FoundRow};
use crate::error::Error;
use crate::judge::as_stored;
use crate::ledger::{Ledger, Place};
use crate::registry::{encoded, http};
use crate::row_binary::{Bytes, Type};

/// A connection to ClickHouse's HTTP interface.
pub struct ClickHouse {
    client: reqwest::Client,
    url: String,
    database: String,
    user: String,
    password: String,
}

/// A name in backticks.
pub fn name(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

impl ClickHouse {
    pub fn connect(pipeline: &Pipeline, url: &str) -> Result<ClickHouse, Error> {
        let settings = &pipeline.connections.clickhouse;
        let password = settings.password.as_ref().map(pipeline::Secret::read).transpose();
        let password = password.map_err(|error| Error::Settings {
            part: "clickhouse",
            reason: error.to_string(),
        })?;
        Ok(ClickHouse {
            client: http("clickhouse", settings.tls.as_ref())?,
            url: url.trim_end_matches('/').to_owned(),
            database: settings.database.clone(),
            user: settings.user.clone(),
            password: password.unwrap_or_default(),
        })
    }

    /// Asks, and hands each row to `row`, which gets the names of the columns with the first.
    pub async fn rows(
        &self,
        doing: &str,
        sql: &str,
        mut row: impl FnMut(&[String], Vec<Cell>) -> Result<(), String>,
    ) -> Result<(), Error> {
        let failed = |reason: String| Error::ClickHouse {
            doing: doing.to_owned(),
            reason,
        };
        // A failure in mid-answer must not look like an end: the server keeps the answer back until it is whole.
        let settings = "default_format=RowBinaryWithNamesAndTypes&wait_end_of_query=1";
        let answer = self
            .client
            .post(format!("{}/?database={}&{settings}", self.url, encoded(&self.database)));
        let answer = answer
            .header("X-ClickHouse-User", &self.user)
            .header("X-ClickHouse-Key", &self.password);
        let mut answer = answer
            .body(sql.to_owned())
            .send()
            .await
            .map_err(|error| failed(error.to_string()))?;
        if !answer.status().is_success() || answer.headers().contains_key("X-ClickHouse-Exception-Code") {
            let text = answer.text().await.unwrap_or_default();
            return Err(failed(text.trim().chars().take(500).collect()));
        }
        let mut buffer: Vec<u8> = Vec::new();
        let mut columns: Option<(Vec<String>, Vec<Type>)> = None;
        while let Some(chunk) = answer
            .chunk()
            .await
            .map_err(|error: reqwest::Error| failed(error.to_string()))?
        {
            buffer.extend_from_slice(&chunk);
            let mut used = 0;
            if columns.is_none() {
                let mut bytes = Bytes::new(&buffer);
                let Some(header) = bytes.header() else { continue };
                used = bytes.position();
                let types = header.iter().map(|(name, spelling)| {
                    Type::parse(spelling).ok_or_else(|| failed(format!("column {name} has the type {spelling}")))
                });
                let types = types.collect::<Result<Vec<_>, _>>()?;
                columns = Some((header.into_iter().map(|(name, _)| name).collect(), types));
            }
            if let Some((names, types)) = &columns {
                loop {
                    let mut bytes = Bytes::new(buffer.get(used..).unwrap_or_default());
                    if bytes.at_end() {
                        break;
                    }
                    let Some(cells) = types.iter().map(|kind| bytes.cell(kind)).collect::<Option<Vec<_>>>() else {
                        break;
                    };
                    used += bytes.position();
                    row(names, cells).map_err(&failed)?;
                }
            }
            buffer.drain(..used);
        }
        match buffer.is_empty() && columns.is_some() {
            true => Ok(()),
            false => Err(failed("the answer ends in the middle of a row".to_owned())),
        }
    }

    /// Enters every row of a table, or those that meet a condition, into its ledger. `place` takes topic, partition and offset:
    /// `None` = of no source, `Some(None)` = outside of what is verified.
    pub async fn table(
        &self,
        (table, within): (&str, Option<String>),
        shape: &Shape,
        ledger: &mut Ledger<Fingerprint>,
        place: impl Fn(&str, i32, i64) -> Option<Option<Place>>,
    ) -> Result<(), Error> {
        let columns: Arc<[String]> = shape.columns.iter().map(|column| column.name.clone()).collect();
        let selected: Vec<String> = columns.iter().map(|column| name(column)).collect();
        let sql = format!(
            "SELECT _topic, _partition, _offset, _index, {} FROM {}.{}{}",
            selected.join(", "),
            name(&self.database),
            name(table),
            within.map(|within| format!(" WHERE {within}")).unwrap_or_default()
        );
        self.rows(&format!("reading table {table}"), &sql, |_, mut cells| {
            if cells.len() != columns.len() + IDENTITY {
                return Err(format!("a row has {} columns", cells.len()));
            }
            let values = cells.split_off(IDENTITY);
            let mut fingerprint = Fingerprinter::new(columns.len());
            for (column, cell) in shape.columns.iter().zip(values) {
                fingerprint.add(&as_stored(&column.kind, cell));
            }
            let [
                Cell::Bytes(topic),
                Cell::Int(partition),
                Cell::Int(offset),
                Cell::Int(index),
            ] = cells.as_slice()
            else {
                return Err("a row's identity is of other types".to_owned());
            };
            let topic = String::from_utf8_lossy(topic);
            let partition = i32::try_from(*partition).map_err(|error| error.to_string())?;
            let index = u32::try_from(*index).map_err(|error| error.to_string())?;
            match place(&topic, partition, *offset) {
                Some(Some(place)) => {
                    let found = FoundRow {
                        fingerprint: fingerprint.finish(),
                        columns: Arc::clone(&columns),
                    };
                    ledger.found(Place { index, ..place }, &found);
                }
                Some(None) => {}
                None => ledger.stray(format!("a row of {topic}/{partition}/{offset}")),
            }
            Ok(())
        })
        .await
    }

    /// Answers of a grouped question: the first `keys` columns as one text, the others as another.
    pub async fn groups(&self, doing: &str, sql: &str, keys: usize) -> Result<HashMap<String, String>, Error> {
        let mut groups = HashMap::new();
        self.rows(doing, sql, |_, cells| {
            let text = |cells: &[Cell]| cells.iter().map(Cell::show).collect::<Vec<_>>().join(", ");
            let (key, values) = cells.split_at_checked(keys).ok_or("a row is too short")?;
            match groups.insert(text(key), text(values)) {
                None => Ok(()),
                Some(_) => Err(format!("the group {} comes twice", text(key))),
            }
        })
        .await?;
        Ok(groups)
    }

    pub fn database(&self) -> &str {
        &self.database
    }
}

const IDENTITY: usize = 4;
