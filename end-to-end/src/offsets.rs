//! The group's offsets, as an administrator's tools read and write them.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::error::{KafkaResult, RDKafkaErrorCode};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::Scenario;
use crate::ask::{LOOK_EVERY, until};

pub(crate) const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Whoever looks again and again asks another node soon when one is dead.
const LOOKED_WITHIN: Duration = Duration::from_secs(4);
const FLOWED_WITHIN: Duration = Duration::from_secs(60);
/// Fields of metadata that holds a promise.
const PROMISE_FIELDS: usize = 16;

/// One committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The topic.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// Its metadata.
    pub metadata: String,
}

impl Committed {
    /// Start and end of the range that its promise is about; the same twice if only rollups are to be fed.
    ///
    /// # Panics
    /// When its metadata is no promise.
    pub fn range(&self) -> (i64, i64) {
        let fields: Vec<&str> = self.metadata.split(';').collect();
        (fields[3].parse().unwrap(), fields[4].parse().unwrap())
    }

    /// Whether a range is promised, and not only what rollups are fed.
    ///
    /// # Panics
    /// When its metadata is no promise.
    pub fn is_range(&self) -> bool {
        let (start, end) = self.range();
        start < end
    }
}

/// A topic, one of its partitions, and an offset up to which it is looked at.
pub type End = (String, i32, i64);

/// How far a partition is behind.
#[derive(Debug)]
#[expect(dead_code, reason = "read by whoever reads a failure, in its Debug form")]
pub(crate) struct Lag {
    partition: String,
    pub behind: i64,
    /// Offset and metadata.
    committed: Option<(i64, String)>,
}

impl Scenario<'_> {
    fn group(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.stack.kafka)
            .set("group.id", &self.pipeline.name)
            .set("isolation.level", "read_committed");
        config
    }

    /// Every offset that the group has committed. The group's coordinator may be moving.
    pub fn committed(&self) -> Vec<Committed> {
        // A killed worker's transaction stays open for a while, and one try takes its patience.
        let deadline = Instant::now() + 3 * ANSWER_WITHIN;
        loop {
            match self.asked_for_committed(ANSWER_WITHIN) {
                Ok(committed) => return committed,
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn asked_for_committed(&self, patience: Duration) -> KafkaResult<Vec<Committed>> {
        let consumer: BaseConsumer = self.group().create()?;
        let mut all = TopicPartitionList::new();
        for source in &self.pipeline.sources {
            all.add_partition_range(&source.topic, 0, i32::try_from(source.partitions).unwrap() - 1);
        }
        let committed = consumer.committed_offsets(all, patience)?;
        let one = |one: rdkafka::topic_partition_list::TopicPartitionListElem<'_>| match one.offset() {
            Offset::Offset(offset) => Some(Committed {
                topic: one.topic().to_owned(),
                partition: one.partition(),
                offset,
                metadata: one.metadata().to_owned(),
            }),
            _ => None,
        };
        Ok(committed.elements().into_iter().filter_map(one).collect())
    }

    /// The end of every source partition, for a reader of committed records. Fails while Kafka does not answer.
    pub fn ends(&self) -> KafkaResult<Vec<End>> {
        let consumer: BaseConsumer = self.group().create()?;
        let mut ends = Vec::new();
        for source in &self.pipeline.sources {
            for partition in 0..i32::try_from(source.partitions).unwrap() {
                let (_, end) = consumer.fetch_watermarks(&source.topic, partition, LOOKED_WITHIN)?;
                ends.push((source.topic.clone(), partition, end));
            }
        }
        Ok(ends)
    }

    /// The same, once Kafka answers.
    ///
    /// # Panics
    /// When it doesn't within a minute.
    pub async fn ends_now(&self) -> Vec<End> {
        until("the ends of topics", FLOWED_WITHIN, async || self.ends().ok()).await
    }

    /// Returns once everything below these is committed.
    ///
    /// # Panics
    /// When it isn't within two minutes.
    pub async fn committed_up_to(&self, ends: &[End]) {
        until("everything to be committed", 2 * FLOWED_WITHIN, async || {
            (self.behind(ends).ok()? == 0).then_some(())
        })
        .await;
    }

    /// Returns once everything that was written until now is committed.
    ///
    /// # Panics
    /// When it isn't within two minutes.
    pub async fn flowed(&self) {
        self.committed_up_to(&self.ends_now().await).await;
    }

    /// How many offsets below these the group has not committed. Fails while Kafka does not answer.
    pub fn behind(&self, ends: &[End]) -> KafkaResult<i64> {
        Ok(self.lags(ends)?.iter().map(|lag| lag.behind).sum())
    }

    /// The same for each partition by itself.
    pub(crate) fn lags(&self, ends: &[End]) -> KafkaResult<Vec<Lag>> {
        let committed = self.asked_for_committed(LOOKED_WITHIN)?;
        let lag = |(topic, partition, end): &End| {
            let mut all = committed.iter();
            let found = all
                .find(|one| one.topic == *topic && one.partition == *partition)
                .cloned();
            let offset = found.as_ref().map_or(0, |one| one.offset);
            Lag {
                partition: format!("{topic}/{partition}"),
                behind: (end - offset).max(0),
                committed: found.map(|one| (one.offset, one.metadata)),
            }
        };
        Ok(ends.iter().map(lag).collect())
    }

    /// Those of the group's committed offsets that a promise stands in.
    pub fn promised(&self) -> Vec<Committed> {
        let mut all = self.committed();
        all.retain(|one| one.metadata.split(';').count() == PROMISE_FIELDS);
        all
    }

    /// Removes the records of a partition below an offset, as retention does.
    pub async fn delete_records(&self, topic: &str, partition: i32, below: i64) {
        let admin: AdminClient<DefaultClientContext> = self.group().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(below))
            .unwrap();
        let deleted = admin.delete_records(&list, &options).await.unwrap();
        deleted.elements()[0].error().unwrap();
    }

    /// Writes an offset of the group, which must have no members.
    pub fn commit(&self, to: &Committed) {
        self.ask_to_commit(to).unwrap();
    }

    /// The same; fails while Kafka takes somebody for a member of the group.
    pub fn ask_to_commit(&self, to: &Committed) -> KafkaResult<()> {
        self.ask_to_commit_bytes(to, to.metadata.as_bytes())
    }

    /// The same with other metadata, which need not be text.
    pub fn ask_to_commit_bytes(&self, to: &Committed, metadata: &[u8]) -> KafkaResult<()> {
        let consumer: BaseConsumer = self.group().create().unwrap();
        let mut list = TopicPartitionList::new();
        let mut element = list.add_partition(&to.topic, to.partition);
        element.set_offset(Offset::Offset(to.offset)).unwrap();
        // SAFETY: the list has one element, without metadata; it frees what it is given here, which librdkafka has allocated and
        // which is as long as it says.
        unsafe {
            let copy = rdkafka::bindings::rd_kafka_mem_malloc(std::ptr::null_mut(), metadata.len().max(1)).cast::<u8>();
            copy.copy_from_nonoverlapping(metadata.as_ptr(), metadata.len());
            let element = (*list.ptr()).elems;
            (*element).metadata = copy.cast();
            (*element).metadata_size = metadata.len();
        }
        consumer.commit(&list, CommitMode::Sync)
    }

    /// Waits until the group has no members: one that could not say that it leaves stays for its session.
    pub async fn group_is_empty(&self) {
        crate::until("the group to have no members", 3 * ANSWER_WITHIN, async || {
            let consumer: BaseConsumer = self.group().create().unwrap();
            let name = &self.pipeline.name;
            let found = consumer.fetch_group_list(Some(name), ANSWER_WITHIN).ok()?;
            let members = found.groups().iter().map(|group| group.members().len());
            (members.sum::<usize>() == 0).then_some(())
        })
        .await;
    }

    /// Removes the group with all its offsets; it must have no members.
    pub async fn forget_group(&self) {
        let admin: AdminClient<DefaultClientContext> = self.group().create().unwrap();
        crate::until("the group to be removed", 3 * ANSWER_WITHIN, async || {
            let options = AdminOptions::new();
            let deleted = admin.delete_groups(&[&self.pipeline.name], &options).await.ok()?;
            let gone = |answer: &_| matches!(answer, Ok(_) | Err((_, RDKafkaErrorCode::GroupIdNotFound)));
            gone(&deleted[0]).then_some(())
        })
        .await;
    }

    /// Deletes a topic and makes it again with the same partitions.
    pub async fn make_again(&self, topic: &str) {
        self.delete_topic(topic).await;
        self.sluice(&["schema", "apply"]).await;
    }

    /// Deletes a topic; `sluice schema apply` makes it again.
    pub async fn delete_topic(&self, topic: &str) {
        let admin: AdminClient<DefaultClientContext> = self.group().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(ANSWER_WITHIN));
        admin.delete_topics(&[topic], &options).await.unwrap()[0]
            .as_ref()
            .unwrap();
        crate::until(format!("{topic} to be gone"), ANSWER_WITHIN, async || {
            let consumer: BaseConsumer = self.group().create().unwrap();
            let metadata = consumer.fetch_metadata(None, ANSWER_WITHIN).ok()?;
            (!metadata.topics().iter().any(|there| there.name() == topic)).then_some(())
        })
        .await;
    }
}
