//! Fetch, with the long poll.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use tokio::time::{Instant, timeout_at};

use super::code;
use crate::batch::LEADER_EPOCH;
use crate::dispatch::Call;
use crate::log::PartitionLog;
use crate::state::State;

/// The first version that names topics by their id.
const BY_ID: i16 = 13;
/// The longest that a fetch is held, whatever the client asks for.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// Answers as soon as there is as much as the client wants, something went wrong, or it has waited long enough.
pub(crate) async fn fetch(call: &Call<'_>, request: &FetchRequest) -> FetchResponse {
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    loop {
        // Registered before the look, so that nothing that comes in between is missed.
        let grown = call.server.grown().notified();
        tokio::pin!(grown);
        grown.as_mut().enable();
        let ready = call.server.with(|state| is_ready(call, state, request));
        if ready || timeout_at(deadline, grown).await.is_err() {
            return call.server.with(|state| collect(call, state, request));
        }
    }
}

fn is_ready(call: &Call<'_>, state: &State, request: &FetchRequest) -> bool {
    let wanted = usize::try_from(request.min_bytes).unwrap_or(0);
    let mut sum = 0;
    for topic in &request.topics {
        for partition in &topic.partitions {
            match find(call, state, topic, partition) {
                Ok(log) => {
                    let max = usize::try_from(partition.partition_max_bytes).unwrap_or(0).max(1);
                    sum += log.readable_bytes(partition.fetch_offset, is_committed(request), max);
                }
                Err(_) => return true,
            }
        }
    }
    sum >= wanted
}

fn collect(call: &Call<'_>, state: &State, request: &FetchRequest) -> FetchResponse {
    let mut left = Left { bytes: usize::try_from(request.max_bytes).unwrap_or(0), empty: true };
    let mut responses = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in &topic.partitions {
            let found = find(call, state, topic, partition);
            let data =
                PartitionData::default().with_partition_index(partition.partition).with_error_code(code(&found)).with_high_watermark(-1);
            partitions.push(match found {
                Ok(log) => left.read(log, partition, is_committed(request), data),
                Err(ResponseError::OffsetOutOfRange) => with_bounds(call, state, topic, partition, data),
                Err(_) => data.with_last_stable_offset(-1).with_log_start_offset(-1),
            });
        }
        let response = FetchableTopicResponse::default().with_partitions(partitions);
        responses.push(if call.version >= BY_ID {
            response.with_topic_id(topic.topic_id)
        } else {
            response.with_topic(topic.topic.clone())
        });
    }
    FetchResponse::default().with_responses(responses)
}

/// What the answer may still hold.
struct Left {
    bytes: usize,
    empty: bool,
}

impl Left {
    fn read(&mut self, log: &PartitionLog, wanted: &FetchPartition, committed: bool, data: PartitionData) -> PartitionData {
        let max = usize::try_from(wanted.partition_max_bytes).unwrap_or(0).min(self.bytes);
        // A batch that is larger than the limits must come through nevertheless, or the consumer hangs.
        let slice = log.read(wanted.fetch_offset, committed, max, self.empty);
        self.bytes = self.bytes.saturating_sub(slice.records.len());
        self.empty &= slice.records.is_empty();
        let aborted = slice.aborted.iter().map(|aborted| {
            AbortedTransaction::default().with_producer_id(ProducerId(aborted.producer_id)).with_first_offset(aborted.first_offset)
        });
        data.with_high_watermark(log.end())
            .with_last_stable_offset(log.last_stable())
            .with_log_start_offset(log.start())
            .with_aborted_transactions(committed.then(|| aborted.collect()))
            .with_records(Some(slice.records))
    }
}

fn is_committed(request: &FetchRequest) -> bool {
    request.isolation_level == 1
}

fn find<'a>(call: &Call<'_>, state: &'a State, topic: &FetchTopic, wanted: &FetchPartition) -> Result<&'a PartitionLog, ResponseError> {
    if let Some(error) = call.injected {
        return Err(error);
    }
    let log = log(call, state, topic, wanted.partition)?;
    match wanted.current_leader_epoch {
        known if known > LEADER_EPOCH => return Err(ResponseError::UnknownLeaderEpoch),
        known if (0..LEADER_EPOCH).contains(&known) => return Err(ResponseError::FencedLeaderEpoch),
        _ => {}
    }
    if (log.start()..=log.end()).contains(&wanted.fetch_offset) {
        return Ok(log);
    }
    Err(ResponseError::OffsetOutOfRange)
}

fn log<'a>(call: &Call<'_>, state: &'a State, topic: &FetchTopic, partition: i32) -> Result<&'a PartitionLog, ResponseError> {
    if call.version < BY_ID {
        return state.topics.partition(&topic.topic, partition);
    }
    let name = state.topics.name(topic.topic_id).ok_or(ResponseError::UnknownTopicId)?;
    state.topics.partition(name, partition)
}

fn with_bounds(call: &Call<'_>, state: &State, topic: &FetchTopic, wanted: &FetchPartition, data: PartitionData) -> PartitionData {
    match log(call, state, topic, wanted.partition) {
        Ok(log) => data.with_high_watermark(log.end()).with_last_stable_offset(log.last_stable()).with_log_start_offset(log.start()),
        Err(_) => data,
    }
}
