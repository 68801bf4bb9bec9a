//! Which topics are there. A consumer that subscribes to a topic that is not there waits in silence.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer as _};

use crate::Error;
use crate::settings::{self, Connection};

/// Those of `topics` that the brokers don't have, or don't show to this user. Blocks for `timeout` at most.
///
/// # Errors
/// [`Error::Configuration`] for refused settings, [`Error::Unanswered`]: ask again.
pub fn missing_topics(connection: &Connection, topics: &[String], timeout: Duration) -> Result<Vec<String>, Error> {
    let consumer: BaseConsumer = settings::consumer(connection).create().map_err(Error::Configuration)?;
    let metadata = consumer.fetch_metadata(None, timeout);
    let metadata = metadata.map_err(|error| Error::asking(&connection.brokers, error))?;
    let there = |name: &&String| {
        let found = metadata.topics().iter().find(|topic| topic.name() == name.as_str());
        found.is_some_and(|topic| topic.error().is_none() && !topic.partitions().is_empty())
    };
    Ok(topics.iter().filter(|name| !there(name)).cloned().collect())
}
