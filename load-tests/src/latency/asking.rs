//! What the sampler asks ClickHouse, over HTTP.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;

use super::{Sample, Settings};
use crate::Error;
use crate::register::client;

/// Clocks of this machine and of the server may differ by so much; what differs by more is found by the seldom looks at all
/// parts.
const CLOCKS_APART_S: i64 = 2;

pub(super) struct Asking {
    http: reqwest::Client,
    url: String,
    database: String,
    user: String,
    password: String,
    /// Topic to table.
    tables: BTreeMap<String, String>,
}

/// Where an event came from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// A part of a table.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Part {
    pub(super) table: String,
    pub(super) name: String,
}

impl Part {
    /// Whether this part is that one, or was merged from it among others. A part is called after its partition and the first and
    /// the last block in it; one insert is one block.
    pub(super) fn holds(&self, other: &Part) -> bool {
        self.table == other.table
            && match (self.blocks(), other.blocks()) {
                (Some((one, first, last)), Some((two, from, to))) => one == two && first <= from && to <= last,
                _ => self.name == other.name,
            }
    }

    fn blocks(&self) -> Option<(&str, i64, i64)> {
        let mut words = self.name.split('_');
        Some((words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    }
}

/// An insert, as ClickHouse's log has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inserted {
    pub(super) part: Part,
    /// Unix ms.
    pub(super) at_ms: i64,
}

impl Asking {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        let http = client(&settings.url).map_err(|error| Error::Settings(format!("clickhouse client: {error}")))?;
        let Settings {
            url,
            database,
            user,
            password,
            tables,
            ..
        } = settings;
        Ok(Self {
            http,
            url,
            database,
            user,
            password,
            tables,
        })
    }

    pub(super) fn knows(&self, topic: &str) -> bool {
        self.tables.contains_key(topic)
    }

    /// Which of the samples are visible, and in which part. `whole`: in all parts of the tables, not only in those that came
    /// after the oldest sample.
    pub(super) async fn for_samples(&self, samples: &[&Sample], whole: bool) -> Result<HashMap<Key, Part>, String> {
        let mut by_topic: BTreeMap<&str, Vec<&Sample>> = BTreeMap::new();
        for sample in samples {
            by_topic.entry(&sample.topic).or_default().push(sample);
        }
        let select = |(topic, samples): (&&str, &Vec<&Sample>)| {
            let table = self.tables.get(*topic)?;
            Some(self.select(topic, table, samples, whole))
        };
        let selects: Vec<String> = by_topic.iter().filter_map(select).collect();
        if selects.is_empty() {
            return Ok(HashMap::new());
        }
        let all = selects.join(" UNION ALL ");
        let answer = self
            .ask(format!("{all} SETTINGS max_threads = 1 FORMAT TabSeparatedRaw"))
            .await?;
        let line = |line: &str| {
            let mut words = line.split('\t');
            let topic = words.next()?.to_owned();
            let (partition, offset) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let name = words.next()?.to_owned();
            let table = self.tables.get(&topic)?.clone();
            Some((
                Key {
                    topic,
                    partition,
                    offset,
                },
                Part { table, name },
            ))
        };
        Ok(answer.lines().filter_map(line).collect())
    }

    /// The bounds repeat what the list says, because the table's index understands them. A part that holds a sample is not
    /// older than the sample, merged or not.
    fn select(&self, topic: &str, table: &str, samples: &[&Sample], whole: bool) -> String {
        let first = samples.iter().map(|sample| sample.offset).min().unwrap_or_default();
        let last = samples.iter().map(|sample| sample.offset).max().unwrap_or_default();
        let oldest_s = samples.iter().map(|sample| sample.at_ms).min().unwrap_or_default() / 1_000 - CLOCKS_APART_S;
        let mut list = String::new();
        for (n, Sample { partition, offset, .. }) in samples.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            // Writing to a String cannot fail.
            if write!(list, "{comma}({partition},{offset})").is_err() {}
        }
        let (database, name) = (quoted(&self.database, '\''), quoted(table, '\''));
        let recent = format!(
            " AND _part IN (SELECT name FROM system.parts WHERE active AND database = {database} AND table = {name} \
             AND modification_time >= toDateTime({oldest_s}))"
        );
        format!(
            "SELECT _topic, _partition, _offset, _part FROM {}.{} WHERE _topic = {} AND _offset BETWEEN {first} AND {last} \
             AND (_partition, _offset) IN ({list}){}",
            quoted(&self.database, '`'),
            quoted(table, '`'),
            quoted(topic, '\''),
            if whole { "" } else { &recent },
        )
    }

    /// Every insert since then that ClickHouse's log has of the tables, and when its part could be read from, by the server's clock.
    pub(super) async fn inserts(&self, since_ms: i64) -> Result<Vec<Inserted>, String> {
        let since_s = since_ms / 1_000 - CLOCKS_APART_S;
        let tables: BTreeSet<String> = self.tables.values().map(|table| quoted(table, '\'')).collect();
        let tables: Vec<String> = tables.into_iter().collect();
        // The server does so itself every few seconds; whoever may not ask for it waits.
        drop(self.ask("SYSTEM FLUSH LOGS part_log".to_owned()).await);
        let question = format!(
            "SELECT table, part_name, toUnixTimestamp64Milli(event_time_microseconds) FROM system.part_log \
             WHERE event_type = 'NewPart' AND event_date >= toDate(toDateTime({since_s})) AND event_time >= toDateTime({since_s}) \
             AND database = {} AND table IN ({}) SETTINGS max_threads = 1 FORMAT TabSeparatedRaw",
            quoted(&self.database, '\''),
            tables.join(",")
        );
        let answer = self.ask(question).await?;
        let line = |line: &str| {
            let mut words = line.split('\t');
            let (table, name) = (words.next()?.to_owned(), words.next()?.to_owned());
            let part = Part { table, name };
            Some(Inserted {
                part,
                at_ms: words.next()?.parse().ok()?,
            })
        };
        Ok(answer.lines().filter_map(line).collect())
    }

    async fn ask(&self, question: String) -> Result<String, String> {
        let response = self
            .http
            .post(&self.url)
            .header("x-clickhouse-user", &self.user)
            .header("x-clickhouse-key", &self.password)
            .body(question)
            .send()
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status();
        let answer = response.text().await.map_err(|error| error.to_string())?;
        if !status.is_success() {
            return Err(answer.trim().chars().take(300).collect());
        }
        Ok(answer)
    }
}

fn quoted(text: &str, mark: char) -> String {
    let escaped = text.replace('\\', "\\\\").replace(mark, &format!("\\{mark}"));
    format!("{mark}{escaped}{mark}")
}
