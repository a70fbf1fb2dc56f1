//! Produce.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceRequest;
use kafka_protocol::messages::produce_request::PartitionProduceData;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};

use super::code;
use crate::batch::Header;
use crate::dispatch::Call;
use crate::log::Appended;
use crate::state::State;
use crate::txn::Identity;

/// None, one, and -1 for all.
const ACKS: std::ops::RangeInclusive<i16> = -1..=1;

/// Appends batches; the flag says whether the producer wants to know.
pub(crate) fn produce(call: &Call<'_>, request: ProduceRequest) -> (ProduceResponse, bool) {
    let terms = Terms { acks: request.acks, transactional_id: request.transactional_id.as_ref().map(|id| id.as_str()) };
    let responses = call.server.with(|state| {
        let topics = request.topic_data.iter();
        topics
            .map(|topic| {
                let partitions = topic.partition_data.iter();
                TopicProduceResponse::default().with_name(topic.name.clone()).with_partition_responses(
                    partitions.map(|data| respond(data, append(call, state, &terms, &topic.name, data))).collect(),
                )
            })
            .collect()
    });
    call.server.wake();
    (ProduceResponse::default().with_responses(responses), request.acks != 0)
}

/// What holds for all partitions of a request.
struct Terms<'a> {
    acks: i16,
    transactional_id: Option<&'a str>,
}

/// What a partition answers: the batch's place and the log's start.
type Outcome = Result<(Appended, i64), ResponseError>;

fn append(call: &Call<'_>, state: &mut State, terms: &Terms<'_>, topic: &str, data: &PartitionProduceData) -> Outcome {
    if let Some(error) = call.injected {
        return Err(error);
    }
    if !ACKS.contains(&terms.acks) {
        return Err(ResponseError::InvalidRequiredAcks);
    }
    let batch = data.records.as_deref().ok_or(ResponseError::InvalidRecord)?;
    let header = Header::read(batch)?;
    if header.is_transactional() {
        check_transaction(state, terms, topic, data.index, &header)?;
    }
    let (log, settings) = state.topics.partition_mut(topic, data.index)?;
    let appended = log.append(batch, settings, call.now.unix_ms)?;
    Ok((appended, log.start()))
}

/// Transactional records are taken only into partitions that the coordinator knows to be part of the open transaction;
/// a late request could else leave records that no marker ever ends.
fn check_transaction(state: &mut State, terms: &Terms<'_>, topic: &str, partition: i32, header: &Header) -> Result<(), ResponseError> {
    let log = state.topics.partition(topic, partition)?;
    let producers = log.producers();
    if producers.has_transaction(header.producer_id) && producers.epoch(header.producer_id) == Some(header.producer_epoch) {
        return Ok(());
    }
    let id = terms.transactional_id.ok_or(ResponseError::InvalidTxnState)?;
    let identity = Identity { producer_id: header.producer_id, epoch: header.producer_epoch };
    match state.coordinator.check_partition(id, identity, &(topic.to_owned(), partition)) {
        // To a produce request Kafka gives the older name of this error.
        Err(ResponseError::ProducerFenced) => Err(ResponseError::InvalidProducerEpoch),
        checked => checked,
    }
}

fn respond(data: &PartitionProduceData, outcome: Outcome) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(data.index).with_error_code(code(&outcome));
    match outcome {
        Ok((appended, log_start)) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.append_time_ms.unwrap_or(-1))
            .with_log_start_offset(log_start),
        Err(_) => response.with_base_offset(-1).with_log_append_time_ms(-1).with_log_start_offset(-1),
    }
}
