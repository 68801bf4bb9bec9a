use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// One of the real servers that Sluice works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Apache Kafka 4.3.1, one KRaft node (broker and controller in one process).
    Kafka,
    /// The second node of a cluster of three.
    Kafka2,
    /// The third node of a cluster of three.
    Kafka3,
    /// Apicurio Registry 3.0.9, which speaks Confluent's schema registry API.
    Registry,
    /// ClickHouse: the one on the PATH, else 26.7 as a library in a process of its own.
    ClickHouse,
    /// PostgreSQL as Debian packages it: a second store for the billing service.
    Postgres,
}

impl Part {
    /// Every part, in the order in which they are shown.
    pub const ALL: [Part; 6] = [
        Part::Kafka,
        Part::Kafka2,
        Part::Kafka3,
        Part::Registry,
        Part::ClickHouse,
        Part::Postgres,
    ];

    /// The nodes of a Kafka cluster, by node id from 1 on.
    pub const KAFKAS: [Part; 3] = [Part::Kafka, Part::Kafka2, Part::Kafka3];

    /// The name used on the command line, in the state file and as the directory of its data.
    pub fn name(self) -> &'static str {
        match self {
            Part::Kafka => "kafka",
            Part::Kafka2 => "kafka2",
            Part::Kafka3 => "kafka3",
            Part::Registry => "registry",
            Part::ClickHouse => "clickhouse",
            Part::Postgres => "postgres",
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Part, String> {
        let found = Part::ALL.into_iter().find(|part| part.name() == text);
        found.ok_or_else(|| {
            let names = Part::ALL.map(Part::name).join(", ");
            format!("'{text}' is not a part; there are: {names}")
        })
    }
}

/// Where each part listens on 127.0.0.1. As a wish, 0 means "any free port".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Kafka clients.
    pub kafka: u16,
    /// Kafka's own controller.
    pub kafka_controller: u16,
    /// The second node: clients.
    #[serde(default)]
    pub kafka2: u16,
    /// The second node: controller.
    #[serde(default)]
    pub kafka2_controller: u16,
    /// The third node: clients.
    #[serde(default)]
    pub kafka3: u16,
    /// The third node: controller.
    #[serde(default)]
    pub kafka3_controller: u16,
    /// Each node of a cluster: clients that come through a proxy ([`crate::Options::kafka_proxies`]).
    #[serde(default)]
    pub kafka_front: [u16; 3],
    /// The registry's API.
    pub registry: u16,
    /// The registry's own health and metrics.
    pub registry_management: u16,
    /// ClickHouse over HTTP.
    pub clickhouse: u16,
    /// ClickHouse's native protocol.
    pub clickhouse_native: u16,
    /// PostgreSQL.
    pub postgres: u16,
}

impl Default for Ports {
    /// Fixed, so that people can remember them, and below the range of outgoing connections, which could take them.
    fn default() -> Ports {
        Ports {
            kafka: 19092,
            kafka_controller: 19093,
            kafka2: 19094,
            kafka2_controller: 19095,
            kafka3: 19096,
            kafka3_controller: 19097,
            kafka_front: [19192, 19193, 19194],
            registry: 18081,
            registry_management: 18082,
            clickhouse: 18123,
            clickhouse_native: 19000,
            postgres: 15432,
        }
    }
}

impl Ports {
    /// Any free ports: for tests, which run beside each other.
    pub fn any() -> Ports {
        Ports {
            kafka: 0,
            kafka_controller: 0,
            kafka2: 0,
            kafka2_controller: 0,
            kafka3: 0,
            kafka3_controller: 0,
            kafka_front: [0; 3],
            registry: 0,
            registry_management: 0,
            clickhouse: 0,
            clickhouse_native: 0,
            postgres: 0,
        }
    }

    /// The address that goes into a pipeline file: `host:port` for Kafka, else a URL.
    pub fn address(&self, part: Part) -> String {
        match part {
            Part::Kafka | Part::Kafka2 | Part::Kafka3 => format!("127.0.0.1:{}", self.kafka_of(part).0),
            Part::Registry => format!("http://127.0.0.1:{}/apis/ccompat/v7", self.registry),
            Part::ClickHouse => format!("http://127.0.0.1:{}", self.clickhouse),
            Part::Postgres => format!("postgresql://sluice@127.0.0.1:{}/postgres", self.postgres),
        }
    }

    /// Where one of [`Part::KAFKAS`] listens: for clients, and as a controller.
    pub(crate) fn kafka_of(&self, part: Part) -> (u16, u16) {
        match part {
            Part::Kafka2 => (self.kafka2, self.kafka2_controller),
            Part::Kafka3 => (self.kafka3, self.kafka3_controller),
            _ => (self.kafka, self.kafka_controller),
        }
    }

    pub(crate) fn each_mut(&mut self) -> [&mut u16; 14] {
        let [front, front2, front3] = &mut self.kafka_front;
        [
            front,
            front2,
            front3,
            &mut self.kafka,
            &mut self.kafka_controller,
            &mut self.kafka2,
            &mut self.kafka2_controller,
            &mut self.kafka3,
            &mut self.kafka3_controller,
            &mut self.registry,
            &mut self.registry_management,
            &mut self.clickhouse,
            &mut self.clickhouse_native,
            &mut self.postgres,
        ]
    }
}
