//! The hands of the exactly-once protocol: everything that touches Kafka on the worker's path.
//!
//! In the order in which data flows: [`settings`] names every librdkafka setting with its reason, [`presence`] says
//! which topics are there, [`group`] is the
//! consumer-group member that hands records to the lane (`fetched` takes them from librdkafka, many at a time), [`offsets`] reads committed offsets, promises and topics' ids,
//! [`transactions`] runs one short transaction after another on a thread of its own (`plainly` and `commits` do without one, where a
//! pipeline asks for at least once), [`operator`] is what commands do while no worker runs,
//! [`errors`] is the table that says
//! what each Kafka error means for a transaction.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod settings;
pub mod presence;
pub mod group;
mod fetched;
pub mod headers;
pub mod offsets;
mod topic_ids;
pub mod operator;
pub mod transactions;
mod commits;
mod plainly;
mod mutated;
pub mod errors;
#[cfg(test)]
mod mocked;

pub use commits::Committer;
pub use fetched::Record;
pub use group::{Group, Moved, Oldest, Polled, Topics, Unanswered};
pub use offsets::{Reader, Start};
pub use operator::Operator;
pub use plainly::Plainly;
pub use presence::missing_topics;
pub use settings::Connection;
pub use transactions::{Answer, Message, Pair, Pairs, Transactor, Work};

use thiserror::Error;

/// What can go wrong before or beside a transaction. Errors of transactions are outcomes, not errors.
#[derive(Debug, Error)]
pub enum Error {
    /// A librdkafka setting is refused: the pipeline file has to change.
    #[error("kafka refuses the configuration: {0}")]
    Configuration(rdkafka::error::KafkaError),
    /// No broker answers, or none takes this client: ask again, or somebody has to look.
    #[error(
        "no answer from Kafka at {brokers} ({reason}): is it there, and do `tls` and `sasl` of `connections.kafka` fit?"
    )]
    Unanswered {
        /// Who was asked.
        brokers: String,
        /// What librdkafka says, which names nobody.
        reason: rdkafka::error::KafkaError,
    },
    /// The consumer can't go on (fatal): the lane starts again with a new one.
    #[error("kafka consumer: {0}")]
    Consumer(rdkafka::error::KafkaError),
    /// A record came by another way than the lane's queue, where its place among the others is not known: the lane starts again, from
    /// what is committed.
    #[error(
        "record {offset} of partition {partition} of {topic} came past the lane's queue; the lane reads again from its commit"
    )]
    Astray {
        /// Its topic.
        topic: String,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
    /// An offset can be written from outside only while nobody is in the group.
    #[error("the group has members: stop all workers of the pipeline first, and wait until they have ended")]
    Members,
    /// A thread could not be started: the machine is out of resources.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
}

impl Error {
    /// Of a question to these brokers.
    pub(crate) fn asking(brokers: &[String], reason: rdkafka::error::KafkaError) -> Error {
        if errors::is_unanswered(&reason) {
            let brokers = brokers.join(", ");
            Error::Unanswered { brokers, reason }
        } else {
            Error::Consumer(reason)
        }
    }
}
