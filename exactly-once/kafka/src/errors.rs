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

#[cfg(test)]
mod tests {
    use super::*;

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
