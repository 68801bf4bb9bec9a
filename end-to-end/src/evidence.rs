//! What a scenario that does not get on shows: enough to tell a stopped partition from a slow machine, on a machine that nobody
//! can look at afterwards.

use std::process::Command;

use devstack::Part;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::Scenario;
use crate::offsets::{ANSWER_WITHIN, End};

/// Lines of each part's log that say that something is wrong.
const PART_LINES: usize = 4;
/// Processes that use most of the machine.
const PROCESSES: usize = 12;
/// A longer line is cut.
const LINE: usize = 220;
/// What of a worker's metrics tells where it stands.
const METRICS: [&str; 7] = [
    "sluice_breaker_",
    "sluice_partitions_",
    "sluice_lag_records",
    "sluice_records_committed",
    "sluice_inserts_failed",
    "sluice_deliveries_failed",
    "sluice_promises_settled",
];

impl Scenario<'_> {
    /// Which partitions are behind these ends, who is a member of the group, what the roles and parts say, and what the machine
    /// is busy with.
    pub async fn evidence(&self, ends: &[End]) -> String {
        let mut said = vec![self.left(ends), self.members()];
        for (name, role) in &self.roles {
            let ready = self.http.body(&format!("http://{}/readyz", role.http)).await;
            said.push(format!("{name}: {}", ready.unwrap_or_else(|| "does not answer".into())));
            let metrics = self.http.get(&format!("http://{}/metrics", role.http)).await;
            let metrics = metrics.unwrap_or_default();
            let telling = metrics
                .lines()
                .filter(|line| METRICS.iter().any(|metric| line.starts_with(metric)));
            said.extend(
                telling
                    .filter(|line| !line.ends_with(" 0"))
                    .map(|line| format!("  {}", cut(line))),
            );
        }
        let client = self.http.body(&format!("{}/ping", self.stack.clickhouse)).await;
        said.push(format!("ClickHouse answers {client:?} to a ping"));
        for part in Part::ALL.into_iter().filter(|part| self.stack.log(*part).exists()) {
            let runs = if self.stack.runs(part) { "runs" } else { "has ended" };
            said.push(format!("{part} {runs}"));
            let log = std::fs::read(self.stack.log(part)).unwrap_or_default();
            let log = String::from_utf8_lossy(&log);
            let wrong: Vec<&str> = log.lines().filter(|line| wrong(line)).collect();
            let last = &wrong[wrong.len().saturating_sub(PART_LINES)..];
            said.extend(last.iter().map(|line| format!("  {}", cut(line))));
        }
        said.push(output("df", &["-h", "--output=target,size,avail"]));
        said.push(output("free", &["-m"]));
        let busy = output("top", &["-b", "-n", "2", "-d", "2", "-w", "200", "-c"]);
        let second = busy.rfind("top - ").map_or("", |at| &busy[at..]);
        said.extend(second.lines().take(7 + PROCESSES).map(|line| cut(line).to_owned()));
        said.join("\n")
    }

    fn left(&self, ends: &[End]) -> String {
        match self.lags(ends) {
            Ok(lags) => {
                let behind = lags.iter().filter(|lag| lag.behind > 0);
                let lines: Vec<String> = behind.map(|lag| format!("  {lag:?}")).collect();
                format!("behind: {} of {}\n{}", lines.len(), lags.len(), lines.join("\n"))
            }
            Err(error) => format!("Kafka does not tell the group's offsets: {error}"),
        }
    }

    fn members(&self) -> String {
        let consumer: BaseConsumer = match ClientConfig::new().set("bootstrap.servers", &self.stack.kafka).create() {
            Ok(consumer) => consumer,
            Err(error) => return error.to_string(),
        };
        match consumer.fetch_group_list(Some(&self.pipeline.name), ANSWER_WITHIN) {
            Ok(found) => {
                let groups = found.groups().iter();
                let words = groups.map(|group| {
                    format!(
                        "group {}: {}, {} members",
                        group.name(),
                        group.state(),
                        group.members().len()
                    )
                });
                words.collect::<Vec<String>>().join("; ")
            }
            Err(error) => format!("Kafka does not tell the group's members: {error}"),
        }
    }
}

fn wrong(line: &str) -> bool {
    ["ERROR", "FATAL", "PANIC", "WARN", "<Error>", "<Fatal>"]
        .iter()
        .any(|word| line.contains(word))
}

fn cut(line: &str) -> &str {
    line.char_indices().nth(LINE).map_or(line, |(at, _)| &line[..at])
}

fn output(program: &str, words: &[&str]) -> String {
    match Command::new(program).args(words).output() {
        Ok(output) => String::from_utf8_lossy(&output.stdout).into_owned(),
        Err(error) => format!("{program}: {error}"),
    }
}
