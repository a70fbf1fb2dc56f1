//! DescribeCluster and FindCoordinator: everything is the one node.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse};

use super::{HOST, NODE};
use crate::dispatch::Call;
use crate::state::State;

/// The first version that asks for several keys at once.
const MANY_KEYS: i16 = 4;
/// Groups and transactional ids.
const KEY_TYPES: std::ops::RangeInclusive<i8> = 0..=1;

pub(crate) fn describe(call: &Call<'_>, state: &mut State, _request: DescribeClusterRequest) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default().with_broker_id(NODE).with_host(HOST).with_port(i32::from(call.port));
    DescribeClusterResponse::default().with_cluster_id(state.cluster_id.clone()).with_controller_id(NODE).with_brokers(vec![broker])
}

pub(crate) fn find_coordinator(call: &Call<'_>, _state: &mut State, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let refused = call.injected.or_else(|| (!KEY_TYPES.contains(&request.key_type)).then_some(ResponseError::InvalidRequest));
    let error_code = refused.map_or(0, |error| error.code());
    let port = i32::from(call.port);
    let answer = FindCoordinatorResponse::default();
    if call.version < MANY_KEYS {
        return match refused {
            Some(_) => answer.with_error_code(error_code).with_node_id((-1).into()).with_port(-1),
            None => answer.with_node_id(NODE).with_host(HOST).with_port(port),
        };
    }
    let coordinators = request.coordinator_keys.into_iter().map(|key| {
        let coordinator = Coordinator::default().with_key(key).with_error_code(error_code);
        match refused {
            Some(_) => coordinator.with_node_id((-1).into()).with_port(-1),
            None => coordinator.with_node_id(NODE).with_host(HOST).with_port(port),
        }
    });
    answer.with_coordinators(coordinators.collect())
}
