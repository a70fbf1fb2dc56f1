//! JoinGroup, SyncGroup, Heartbeat, LeaveGroup, ListGroups, DescribeGroups and DeleteGroups.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId, HeartbeatRequest, HeartbeatResponse,
    JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{code, text};
use crate::dispatch::Call;
use crate::group::{Caller, Group, Join, JoinRefused, Sync};
use crate::state::State;

/// The first version of JoinGroup whose client comes again with the member id that it is given.
const TAKES_PROMISES: i16 = 4;
/// The first version of JoinGroup that says when to rebalance; before, the session timeout decides.
const REBALANCE_TIMEOUT: i16 = 1;
/// The first version of JoinGroup whose answer tells the protocol type and may lack a protocol name.
const TELLS_TYPE: i16 = 7;
/// The first version of JoinGroup that lets a leader skip the assignment.
const SKIPS: i16 = 9;
/// The first version of SyncGroup whose answer tells the protocol.
const SYNC_TELLS_TYPE: i16 = 5;
/// The first version of LeaveGroup that names several members.
const MANY_LEAVE: i16 = 3;
const LIST_STATES: i16 = 4;
const LIST_TYPES: i16 = 5;
/// The first versions that show static members.
const JOIN_INSTANCES: i16 = 5;
const DESCRIBE_INSTANCES: i16 = 4;

pub(crate) async fn join(call: &Call<'_>, request: JoinGroupRequest) -> JoinGroupResponse {
    if request.group_id.is_empty() {
        return refuse_join(call, ResponseError::InvalidGroupId, request.member_id);
    }
    let session_timeout = millis(request.session_timeout_ms);
    let join = Join {
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id,
        client_id: call.client_id.clone(),
        session_timeout,
        rebalance_timeout: match call.version {
            REBALANCE_TIMEOUT.. => millis(request.rebalance_timeout_ms),
            _ => session_timeout,
        },
        protocol_type: request.protocol_type,
        protocols: request.protocols.into_iter().map(|protocol| (protocol.name, protocol.metadata)).collect(),
        takes_promises: call.version >= TAKES_PROMISES,
    };
    let answer = call.server.with(|state| {
        let group = state.groups.entry(request.group_id.to_string()).or_default();
        group.join(join, call.now.instant)
    });
    match answer.await {
        Ok(Ok(generation)) => {
            let members = generation.members.into_iter().map(|(id, instance, metadata)| {
                let member = JoinGroupResponseMember::default().with_member_id(text(&id)).with_metadata(metadata);
                if call.version >= JOIN_INSTANCES { member.with_group_instance_id(instance) } else { member }
            });
            let response = JoinGroupResponse::default()
                .with_generation_id(generation.number)
                .with_protocol_name(Some(generation.protocol.unwrap_or_default()))
                .with_leader(text(&generation.leader))
                .with_member_id(text(&generation.member_id))
                .with_members(members.collect());
            let response = if call.version >= TELLS_TYPE { response.with_protocol_type(generation.protocol_type) } else { response };
            if call.version >= SKIPS { response.with_skip_assignment(generation.skip_assignment) } else { response }
        }
        Ok(Err(JoinRefused { code, member_id })) => refuse_join(call, code, text(&member_id)),
        // The member was removed, or came again on another connection.
        Err(_) => refuse_join(call, ResponseError::UnknownMemberId, request.member_id),
    }
}

pub(crate) async fn sync(call: &Call<'_>, request: SyncGroupRequest) -> SyncGroupResponse {
    let assignments = request.assignments.into_iter().map(|a| (a.member_id.to_string(), a.assignment)).collect();
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref().map(StrBytes::as_str),
        generation: request.generation_id,
    };
    let answer = call.server.with(|state| {
        let group = state.groups.get_mut(request.group_id.as_str())?;
        Some(group.sync(caller, Sync { assignments }, call.now.instant))
    });
    let synced = match answer {
        Some(answer) => answer.await.unwrap_or(Err(ResponseError::RebalanceInProgress)),
        None => Err(ResponseError::UnknownMemberId),
    };
    let response = SyncGroupResponse::default().with_error_code(code(&synced)).with_assignment(synced.unwrap_or_default());
    if call.version >= SYNC_TELLS_TYPE {
        response.with_protocol_type(request.protocol_type).with_protocol_name(request.protocol_name)
    } else {
        response
    }
}

pub(crate) fn heartbeat(call: &Call<'_>, state: &mut State, request: HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_ref().map(StrBytes::as_str),
        generation: request.generation_id,
    };
    let beat = match state.groups.get_mut(request.group_id.as_str()) {
        Some(group) => group.heartbeat(caller, call.now.instant),
        None => Err(ResponseError::UnknownMemberId),
    };
    HeartbeatResponse::default().with_error_code(code(&beat))
}

pub(crate) fn leave(call: &Call<'_>, state: &mut State, request: LeaveGroupRequest) -> LeaveGroupResponse {
    let mut leave = |member: &str, instance: Option<&str>| match state.groups.get_mut(request.group_id.as_str()) {
        Some(group) => group.leave(member, instance, call.now.instant),
        None => Err(ResponseError::UnknownMemberId),
    };
    if call.version < MANY_LEAVE {
        return LeaveGroupResponse::default().with_error_code(code(&leave(&request.member_id, None)));
    }
    let members = request.members.iter().map(|member| {
        let instance = member.group_instance_id.as_ref().map(StrBytes::as_str);
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&leave(&member.member_id, instance)))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(crate) fn list(call: &Call<'_>, state: &mut State, request: ListGroupsRequest) -> ListGroupsResponse {
    let passes = |filter: &[StrBytes], value: &str| filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(value));
    let groups = state
        .groups
        .iter()
        .filter(|(_, group)| passes(&request.states_filter, group.state()) && passes(&request.types_filter, "classic"))
        .map(|(name, group)| {
            let listed = ListedGroup::default().with_group_id(GroupId(text(name))).with_protocol_type(group.protocol_type());
            let listed = if call.version >= LIST_STATES { listed.with_group_state(text(group.state())) } else { listed };
            if call.version >= LIST_TYPES { listed.with_group_type(text("classic")) } else { listed }
        });
    ListGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) fn describe(call: &Call<'_>, state: &mut State, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let groups = request.groups.into_iter().map(|name| match state.groups.get(name.as_str()) {
        Some(group) => describe_one(call, name, group),
        None => DescribedGroup::default().with_group_id(name).with_group_state(text("Dead")),
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(crate) fn delete(_call: &Call<'_>, state: &mut State, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let results = request.groups_names.into_iter().map(|name| {
        let deleted = match state.groups.get(name.as_str()) {
            Some(group) if group.has_members() => Err(ResponseError::NonEmptyGroup),
            Some(_) => Ok(()),
            None => Err(ResponseError::GroupIdNotFound),
        };
        if deleted.is_ok() {
            state.groups.remove(name.as_str());
        }
        DeletableGroupResult::default().with_group_id(name).with_error_code(code(&deleted))
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

fn refuse_join(call: &Call<'_>, error: ResponseError, member_id: StrBytes) -> JoinGroupResponse {
    let response = JoinGroupResponse::default().with_error_code(error.code()).with_generation_id(-1).with_member_id(member_id);
    // Older versions cannot say that there is no protocol.
    if call.version >= TELLS_TYPE { response } else { response.with_protocol_name(Some(StrBytes::new())) }
}

fn describe_one(call: &Call<'_>, name: GroupId, group: &Group) -> DescribedGroup {
    let members = group.describe().into_iter().map(|member| {
        let described = DescribedGroupMember::default()
            .with_member_id(text(&member.member_id))
            .with_client_id(member.client_id)
            .with_client_host(text("/127.0.0.1"))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if call.version >= DESCRIBE_INSTANCES { described.with_group_instance_id(member.instance_id) } else { described }
    });
    DescribedGroup::default()
        .with_group_id(name)
        .with_group_state(text(group.state()))
        .with_protocol_type(group.protocol_type())
        .with_protocol_data(group.protocol())
        .with_members(members.collect())
}

fn millis(millis: i32) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or(0))
}
