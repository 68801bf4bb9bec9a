//! What each Kafka error means for a transaction: one table, with the reason beside each line.

use rdkafka::error::KafkaError;
use rdkafka::types::RDKafkaErrorCode as Code;

/// What to do after an error of a transactional call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Abort; if the broker confirms that, the producer goes on.
    Abort,
    /// The producer must not be used again: the outcome is unknown, or it is fenced.
    Discard,
}

/// The table. Whatever it does not name is doubt, and doubt discards the producer.
pub fn verdict(error: &KafkaError) -> Verdict {
    let Some(code) = error.rdkafka_error_code() else {
        return Verdict::Discard;
    };
    if let KafkaError::Transaction(inner) = error
        && inner.is_fatal()
    {
        return Verdict::Discard;
    }
    match code {
        // The group moved on: nothing was committed, and the broker says so.
        Code::UnknownMemberId | Code::IllegalGeneration | Code::RebalanceInProgress | Code::FencedInstanceId => {
            Verdict::Abort
        }
        // A message that can never be written: the batch is rebuilt and meets the same error again, visibly.
        Code::MessageSizeTooLarge | Code::InvalidMessage | Code::TopicAuthorizationFailed => Verdict::Abort,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => Verdict::Abort,
        Code::OffsetMetadataTooLarge | Code::GroupAuthorizationFailed => Verdict::Abort,
        // Another producer with this transactional id is newer.
        Code::ProducerFenced | Code::InvalidProducerEpoch | Code::Fenced | Code::Fatal => Verdict::Discard,
        // A timeout says nothing about what the broker did (librdkafka#5423: a delayed EndTxn may end a later one).
        Code::OperationTimedOut | Code::RequestTimedOut | Code::MessageTimedOut => Verdict::Discard,
        // A lost connection may have carried the request.
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::NetworkException => Verdict::Discard,
        _ => Verdict::Discard,
    }
}

/// Whether somebody else uses the transactional id, or the broker has ended the transaction because it took too long.
pub fn is_fenced(error: &KafkaError) -> bool {
    let fenced = [Code::ProducerFenced, Code::InvalidProducerEpoch, Code::Fenced];
    error.rdkafka_error_code().is_some_and(|code| fenced.contains(&code))
}

/// Whether a question has no answer: nobody is there, or nobody takes this client's `tls` and `sasl`, which librdkafka says in its
/// log alone.
pub fn is_unanswered(error: &KafkaError) -> bool {
    let away = [
        Code::BrokerTransportFailure,
        Code::AllBrokersDown,
        Code::OperationTimedOut,
        Code::Resolve,
        Code::Authentication,
        Code::NetworkException,
    ];
    error.rdkafka_error_code().is_some_and(|code| away.contains(&code))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn a_question_without_an_answer_names_who_was_asked() {
        let brokers = ["a:1".to_owned(), "b:2".to_owned()];
        let said = |reason| Error::asking(&brokers, reason).to_string();
        assert_eq!(
            said(KafkaError::MetadataFetch(Code::BrokerTransportFailure)),
            "no answer from Kafka at a:1, b:2 (Meta data fetch error: BrokerTransportFailure (Local: Broker transport \
             failure)): is it there, and do `tls` and `sasl` of `connections.kafka` fit?"
        );
        let silent = said(KafkaError::GroupListFetch(Code::OperationTimedOut));
        assert!(
            silent.starts_with("no answer from Kafka at a:1, b:2 (Group list fetch error: "),
            "{silent}"
        );
        let refused = said(KafkaError::GroupListFetch(Code::GroupAuthorizationFailed));
        assert!(
            refused.starts_with("kafka consumer: Group list fetch error: "),
            "{refused}"
        );
    }

    #[test]
    fn an_unknown_outcome_always_discards_the_producer() {
        for code in [
            Code::OperationTimedOut,
            Code::BrokerTransportFailure,
            Code::ProducerFenced,
            Code::Unknown,
        ] {
            assert_eq!(verdict(&KafkaError::Global(code)), Verdict::Discard, "{code:?}");
        }
        assert_eq!(verdict(&KafkaError::Canceled), Verdict::Discard);
    }

    #[test]
    fn a_refusal_by_the_group_is_an_abort() {
        assert_eq!(verdict(&KafkaError::Global(Code::IllegalGeneration)), Verdict::Abort);
    }
}
