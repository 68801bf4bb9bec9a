//! What [`crate::transactions`] does, without a transaction: alerts, dead letters and the audit's record are written and flushed,
//! then the offsets are committed. On the same thread of its own, because a broker that is away holds both up.
//!
//! If the process dies: before the flush is over, some of the records are there, and after it all of them; before the commit was
//! carried out, everything of the batch comes again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crash_points::{Point, here};
use exactly_once_protocol::{BatchId, TxnEnd};
use rdkafka::error::KafkaError;
use rdkafka::producer::BaseProducer;
use rdkafka::types::RDKafkaErrorCode;

use crate::commits::Committer;
use crate::errors::{Verdict, verdict};
use crate::settings;
use crate::transactions::{
    Answer, Context, Fenced, Heard, LISTEN_EVERY, Recipe, Work, answered, offsets, why_not_taken,
};

/// A commit is waited for so long at least, when records have taken all of the time.
const COMMIT_WITHIN: Duration = Duration::from_secs(1);

/// How one piece of work is done without a transaction.
pub struct Plainly {
    /// Commits its offsets.
    pub committer: Committer,
    /// The batch whose records are to be written first, if any.
    pub batch: Option<BatchId>,
}

pub(crate) fn serve(recipe: &Recipe, epoch: u64, work: &Receiver<Work>, given_up: &AtomicBool) {
    let Some(producer) = made(recipe, work) else { return };
    if !(recipe.answers)(Answer::Ready(epoch)) {
        return;
    }
    let mut written = None;
    loop {
        let next = match work.recv_timeout(LISTEN_EVERY) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout) => {
                producer.listen();
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let end = match attempt(recipe, &producer, &next, &mut written, given_up) {
            Ok(()) => TxnEnd::Committed,
            Err(error) => {
                let judged = verdict(&error);
                tracing::warn!(id = recipe.transactional_id, %error, ?judged, "a batch was not committed");
                if matches!(error, KafkaError::Flush(_)) {
                    why_not_taken(recipe, &next);
                }
                match judged {
                    Verdict::Abort => TxnEnd::Aborted,
                    Verdict::Discard => TxnEnd::Doubt,
                }
            }
        };
        let epoch = next.epoch;
        // It holds the consumer, which the lane may be about to leave the group with.
        drop(next);
        if !(recipe.answers)(Answer::Ended(epoch, end)) || end == TxnEnd::Doubt {
            return;
        }
        producer.listen();
    }
}

/// Needs no broker; only settings that are refused make it fail.
fn made(recipe: &Recipe, work: &Receiver<Work>) -> Option<Fenced> {
    loop {
        let heard = Arc::new(Heard::default());
        let made: Result<BaseProducer<Context>, KafkaError> =
            settings::plain_producer(&recipe.connection).create_with_context(Context(Arc::clone(&heard)));
        match made {
            Ok(producer) => return Some(Fenced { producer, heard }),
            Err(error) => {
                tracing::warn!(id = recipe.transactional_id, %error, "cannot write yet, trying again");
                if let Err(RecvTimeoutError::Disconnected) = work.recv_timeout(Duration::from_millis(500)) {
                    return None;
                }
            }
        }
    }
}

/// `written`: the batch whose records are there already. Its commit was refused, and is tried again.
fn attempt(
    recipe: &Recipe,
    producer: &Fenced,
    work: &Work,
    written: &mut Option<BatchId>,
    given_up: &AtomicBool,
) -> Result<(), KafkaError> {
    let Some(plainly) = &work.plainly else {
        return Err(KafkaError::Canceled);
    };
    let deadline = Instant::now() + recipe.connection.transaction_timeout;
    if plainly.batch.is_none() || *written != plainly.batch {
        work.write(&producer.producer, deadline, |_| true)?;
        if plainly.batch.is_some() {
            here(Point::AlertsProduced);
        }
        if !answered(&producer.producer, deadline) || producer.heard.unwritten.load(Ordering::Acquire) {
            return Err(KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut));
        }
        *written = plainly.batch;
    }
    // What the lane has given up it reads again; a commit now would only set the offset back.
    if given_up.load(Ordering::Acquire) {
        return Err(KafkaError::Canceled);
    }
    let within = deadline.saturating_duration_since(Instant::now()).max(COMMIT_WITHIN);
    if plainly.batch.is_some() {
        here(Point::CommitUnsent);
        here(Point::CommitSent);
    }
    plainly.committer.commit(&offsets(&recipe.topics, work)?, within)?;
    if plainly.batch.is_some() {
        here(Point::CommitAnswered);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use exactly_once_protocol::{Guarantee, Marks, Metadata, Partition};
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::*;
    use crate::group::{Group, Topics, Unanswered};
    use crate::mocked::{self, Cluster, WITHIN};
    use crate::settings::Connection;
    use crate::transactions::{Pair, Pairs, Transactor};
    use crate::{Operator, Start};

    const P0: Partition = Partition { topic: 0, partition: 0 };

    struct Stand {
        connection: Connection,
        transactor: Transactor,
        answers: Receiver<Answer>,
        group: Option<Group>,
        /// Last: who leaves a group waits for its broker.
        cluster: Cluster,
    }

    impl Drop for Stand {
        fn drop(&mut self) {
            if let Some(group) = self.group.take() {
                group.leave(&Unanswered::Nothing);
            }
        }
    }

    impl Stand {
        fn group(&self) -> &Group {
            self.group.as_ref().expect("until it is dropped")
        }

        /// A lane that owns the one partition of `out`, and its producer.
        fn new() -> Stand {
            let cluster = mocked::cluster(&[("out", 1), ("alerts", 1)]);
            let connection = mocked::connection(&cluster);
            let topics = Topics::new(vec!["out".to_owned()]);
            let (group, partitions) = mocked::joined(&connection, &topics);
            assert_eq!(partitions, [P0]);
            group.assign(&[(P0, Some(0))]).expect("an assignment");
            let (sender, answers) = sync_channel(4);
            let recipe = Recipe {
                connection: connection.clone(),
                transactional_id: "shop-0".to_owned(),
                topics,
                answers: Arc::new(move |answer| sender.send(answer).is_ok()),
                guarantee: Guarantee::AtLeastOnce,
            };
            let transactor = Transactor::start(recipe, 1).expect("a thread");
            assert_eq!(answers.recv_timeout(WITHIN), Ok(Answer::Ready(1)));
            Stand {
                connection,
                transactor,
                answers,
                group: Some(group),
                cluster,
            }
        }

        /// Commits batch 1, which has an alert, up to offset 7.
        fn commits(&self, epoch: u64, topic: &str) -> TxnEnd {
            let alert = Pair {
                key: b"acme".to_vec(),
                value: b"paid".to_vec(),
            };
            let alerts = Pairs {
                topic: topic.to_owned(),
                records: Arc::new(vec![alert]),
            };
            let committer = self.group().committer().expect("it is a member");
            let batch = Some(1);
            let work = Work {
                epoch,
                group: self.group().metadata().expect("it is a member"),
                offsets: vec![(P0, 7, settled())],
                alerts: vec![alerts],
                messages: Vec::new(),
                plainly: Some(Plainly { committer, batch }),
            };
            assert!(self.transactor.run(work));
            match self.answers.recv_timeout(WITHIN) {
                Ok(Answer::Ended(ended, end)) if ended == epoch => end,
                other => panic!("{other:?}"),
            }
        }

        fn committed(&self) -> Option<(i64, Metadata)> {
            let read = self.group().reader().read(&[P0], Start::Earliest, WITHIN);
            let (_, stored) = read.expect("an answer").remove(0);
            stored
                .committed
                .then(|| (stored.offset, stored.metadata.expect("ours")))
        }

        fn alerts(&self) -> i64 {
            let topics = Topics::new(vec!["alerts".to_owned()]);
            let operator = Operator::new(&self.connection, &topics).expect("a client");
            operator.watermarks(P0, WITHIN).expect("an answer").1
        }
    }

    fn settled() -> Metadata {
        let marks = Marks::default();
        Metadata::Settled { marks, fed: 7 }
    }

    #[test]
    fn records_are_written_and_then_the_offsets_with_their_metadata() {
        let stand = Stand::new();
        assert_eq!(stand.committed(), None);
        assert_eq!(stand.commits(2, "alerts"), TxnEnd::Committed);
        assert_eq!(stand.committed(), Some((7, settled())));
        assert_eq!(stand.alerts(), 1);
    }

    #[test]
    fn a_commit_that_was_refused_is_tried_again_without_its_records() {
        let stand = Stand::new();
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS];
        stand.cluster.request_errors(RDKafkaApiKey::OffsetCommit, &refused);
        assert_eq!(stand.commits(2, "alerts"), TxnEnd::Aborted);
        assert_eq!(stand.committed(), None);
        assert_eq!(stand.commits(3, "alerts"), TxnEnd::Committed);
        assert_eq!((stand.committed(), stand.alerts()), (Some((7, settled())), 1));
    }

    #[test]
    fn nothing_is_committed_past_a_record_that_was_not_written() {
        let stand = Stand::new();
        let refused = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED];
        stand.cluster.request_errors(RDKafkaApiKey::Produce, &refused);
        assert_eq!(stand.commits(2, "alerts"), TxnEnd::Doubt);
        assert_eq!((stand.committed(), stand.alerts()), (None, 0));
    }
}
