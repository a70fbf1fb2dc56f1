//! What a failed delivery means.

use rdkafka::error::RDKafkaErrorCode;
use spillway_proto::message::HoldReason;

/// What a failed delivery means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// A record of the lane is refused; which one has to be found.
    Record(HoldReason),
    /// The lane's remote topic cannot be written at all.
    Topic,
    /// The remote topic or partition is not there (any more).
    TopicMissing,
    /// A victim of another failure in the same transaction.
    Victim,
    /// Nothing that the data could help: try again.
    Transient,
}

/// Sorts a delivery's error.
pub fn classify(code: RDKafkaErrorCode) -> Failure {
    use RDKafkaErrorCode as Code;
    match code {
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::InvalidMessageSize => Failure::Record(HoldReason::RecordTooLarge),
        Code::InvalidTimestamp => Failure::Record(HoldReason::TimestampOutOfRange),
        Code::InvalidRecord | Code::UnsupportedForMessageFormat | Code::PolicyViolation => Failure::Record(HoldReason::RecordInvalid),
        Code::TopicAuthorizationFailed | Code::InvalidTopic => Failure::Topic,
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => Failure::TopicMissing,
        Code::PurgeQueue | Code::PurgeInflight => Failure::Victim,
        _ => Failure::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purged_records_are_nobodys_fault() {
        assert_eq!(classify(RDKafkaErrorCode::PurgeQueue), Failure::Victim);
        assert_eq!(classify(RDKafkaErrorCode::NotEnoughReplicas), Failure::Transient);
        assert_eq!(classify(RDKafkaErrorCode::MessageSizeTooLarge), Failure::Record(HoldReason::RecordTooLarge));
    }
}
