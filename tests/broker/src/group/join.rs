//! JoinGroup and SyncGroup: how a generation of members comes about.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::member::Member;
use super::{Caller, Group, Phase};

/// `group.min.session.timeout.ms` and `group.max.session.timeout.ms`.
const SESSION_TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(6)..=Duration::from_secs(1_800);

/// A JoinGroup request.
#[derive(Debug)]
pub(crate) struct Join {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: StrBytes,
    pub(crate) protocols: Vec<(StrBytes, Bytes)>,
    /// The client knows how to come again with the id that it is given (version 4 and later).
    pub(crate) takes_promises: bool,
}

/// The answer to a join.
pub(crate) type Joined = Result<Generation, JoinRefused>;

/// A refused join; the member id is what the client is to come again with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) code: ResponseError,
    pub(crate) member_id: String,
}

/// What a member learns of its new generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) number: i32,
    pub(crate) protocol_type: Option<StrBytes>,
    pub(crate) protocol: Option<StrBytes>,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// For the leader: every member's id, instance id and metadata.
    pub(crate) members: Vec<(String, Option<StrBytes>, Bytes)>,
    /// The leader need not assign anew: a static member came back.
    pub(crate) skip_assignment: bool,
}

/// A SyncGroup request's content.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) assignments: HashMap<String, Bytes>,
}

/// The answer to a sync: the member's assignment.
pub(crate) type Synced = Result<Bytes, ResponseError>;

impl Group {
    /// Lets a member join; the answer comes when all have, or when the time to wait for them is up.
    pub(crate) fn join(&mut self, mut join: Join, now: Instant) -> oneshot::Receiver<Joined> {
        let (answer, receiver) = oneshot::channel();
        match self.admit(&mut join, now) {
            Ok(Some(generation)) => send(answer, Ok(generation)),
            Ok(None) => {
                if let Some(member) = self.members.get_mut(&join.member_id) {
                    member.joining = Some(answer);
                }
                if !matches!(self.phase, Phase::Preparing { .. }) {
                    self.rebalance(now);
                }
                self.advance(now);
            }
            Err(code) => send(answer, Err(JoinRefused { code, member_id: join.member_id })),
        }
        receiver
    }

    /// Hands a member its assignment as soon as the leader has sent it.
    pub(crate) fn sync(&mut self, caller: Caller<'_>, sync: Sync, now: Instant) -> oneshot::Receiver<Synced> {
        let (answer, receiver) = oneshot::channel();
        if let Err(code) = self.check(caller) {
            send(answer, Err(code));
            return receiver;
        }
        let is_leader = self.leader.as_deref() == Some(caller.member_id);
        let Some(member) = self.members.get_mut(caller.member_id) else {
            send(answer, Err(ResponseError::UnknownMemberId));
            return receiver;
        };
        member.touch(now);
        match self.phase {
            Phase::Empty => send(answer, Err(ResponseError::UnknownMemberId)),
            Phase::Preparing { .. } => send(answer, Err(ResponseError::RebalanceInProgress)),
            Phase::Stable => send(answer, Ok(member.assignment.clone())),
            Phase::Completing => {
                member.syncing = Some(answer);
                if is_leader {
                    self.assign(sync, now);
                }
            }
        }
        receiver
    }

    /// Starts a rebalance, or empties the group if nobody is left.
    pub(super) fn rebalance(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            if let Some(syncing) = member.syncing.take() {
                send(syncing, Err(ResponseError::RebalanceInProgress));
            }
        }
        let longest = self.members.values().map(|member| member.rebalance_timeout).max().unwrap_or_default();
        if !matches!(self.phase, Phase::Preparing { .. }) {
            self.phase = Phase::Preparing { deadline: now + longest };
        }
        self.advance(now);
    }

    /// Completes the rebalance if everybody has joined or the time is up.
    pub(super) fn advance(&mut self, now: Instant) {
        let Phase::Preparing { deadline } = self.phase else {
            return;
        };
        let complete = self.promised.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if !complete && now < deadline {
            return;
        }
        self.members.retain(|_, member| member.joining.is_some() || member.instance_id.is_some());
        self.generation += 1;
        self.protocol = self.choose_protocol();
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader = None;
            return;
        }
        self.phase = Phase::Completing;
        let first = self.members.iter().min_by_key(|(_, member)| (member.joining.is_none(), member.order));
        let kept = self.leader.take().filter(|leader| self.members.get(leader).is_some_and(|m| m.joining.is_some()));
        self.leader = kept.or_else(|| first.map(|(id, _)| id.clone()));
        let answers: Vec<_> = self.members.keys().map(|id| (id.clone(), self.generation_for(id))).collect();
        for (id, generation) in answers {
            if let Some(member) = self.members.get_mut(&id) {
                member.touch(now);
                if let Some(joining) = member.joining.take() {
                    send(joining, Ok(generation));
                }
            }
        }
    }

    /// Enters or updates the member. An immediate answer: nothing changed that calls for a rebalance.
    fn admit(&mut self, join: &mut Join, now: Instant) -> Result<Option<Generation>, ResponseError> {
        if !SESSION_TIMEOUTS.contains(&join.session_timeout) {
            return Err(ResponseError::InvalidSessionTimeout);
        }
        self.check_protocols(join)?;
        let returning = join.instance_id.as_ref().and_then(|instance| self.static_member(instance));
        if let Some(id) = returning {
            return self.readmit_static(&id, join, now);
        }
        if join.member_id.is_empty() {
            join.member_id = format!("{}-{:032x}", join.client_id.as_str(), rand::random::<u128>());
            if join.takes_promises && join.instance_id.is_none() {
                self.promised.insert(join.member_id.clone(), now + join.session_timeout);
                return Err(ResponseError::MemberIdRequired);
            }
        } else if self.promised.remove(&join.member_id).is_none() && !self.members.contains_key(&join.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        let is_leader = self.leader.as_deref() == Some(join.member_id.as_str());
        let unchanged = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        self.enter(join, now);
        match self.phase {
            Phase::Completing if unchanged => Ok(Some(self.generation_for(&join.member_id))),
            Phase::Stable if unchanged && !is_leader => Ok(Some(self.generation_for(&join.member_id))),
            _ => Ok(None),
        }
    }

    /// A static member that restarts takes over from its former self; while the group is stable and it asks for the same,
    /// the assignment stays.
    fn readmit_static(&mut self, id: &str, join: &mut Join, now: Instant) -> Result<Option<Generation>, ResponseError> {
        if !join.member_id.is_empty() && join.member_id != id {
            return Err(ResponseError::FencedInstanceId);
        }
        let restarted = join.member_id.is_empty();
        if restarted {
            let instance = join.instance_id.as_ref().map(StrBytes::as_str).unwrap_or_default();
            join.member_id = format!("{instance}-{:032x}", rand::random::<u128>());
            if let Some(mut member) = self.members.remove(id) {
                if let Some(joining) = member.joining.take() {
                    let fenced = JoinRefused { code: ResponseError::FencedInstanceId, member_id: id.to_owned() };
                    send(joining, Err(fenced));
                }
                self.members.insert(join.member_id.clone(), member);
            }
            if self.leader.as_deref() == Some(id) {
                self.leader = Some(join.member_id.clone());
            }
        }
        let unchanged = self.members.get(&join.member_id).is_some_and(|member| member.protocols == join.protocols);
        self.enter(join, now);
        let is_leader = self.leader.as_ref() == Some(&join.member_id);
        if self.phase == Phase::Stable && unchanged && (restarted || !is_leader) {
            let generation = self.generation_for(&join.member_id);
            return Ok(Some(Generation { skip_assignment: restarted && is_leader, ..generation }));
        }
        Ok(None)
    }

    fn enter(&mut self, join: &Join, now: Instant) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.joins += 1;
        let order = self.joins;
        let member = self.members.entry(join.member_id.clone()).or_insert_with(|| Member::new(join.client_id.clone(), order, now));
        member.instance_id.clone_from(&join.instance_id);
        member.session_timeout = join.session_timeout;
        member.rebalance_timeout = join.rebalance_timeout;
        member.protocols.clone_from(&join.protocols);
        member.touch(now);
    }

    fn check_protocols(&self, join: &Join) -> Result<(), ResponseError> {
        let others = || self.members.iter().filter(|(id, _)| **id != join.member_id).map(|(_, member)| member);
        let same_type = others().next().is_none() || self.protocol_type.as_ref() == Some(&join.protocol_type);
        let common = join.protocols.iter().any(|(name, _)| others().all(|member| member.speaks(name)));
        if join.protocol_type.is_empty() || !same_type || !common {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    /// The protocol that most members prefer among those that all speak.
    fn choose_protocol(&self) -> Option<StrBytes> {
        let common = |name: &&StrBytes| self.members.values().all(|member| member.speaks(name));
        let mut votes: HashMap<StrBytes, usize> = HashMap::new();
        for member in self.members.values() {
            if let Some(name) = member.protocols.iter().map(|(name, _)| name).find(common) {
                *votes.entry(name.clone()).or_default() += 1;
            }
        }
        votes.into_iter().max_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0))).map(|(name, _)| name)
    }

    fn generation_for(&self, member_id: &str) -> Generation {
        let leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol();
        let list = |(id, member): (&String, &Member)| (id.clone(), member.instance_id.clone(), member.metadata(&protocol));
        let members = if leader == member_id { self.members.iter().map(list).collect() } else { Vec::new() };
        Generation {
            number: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader,
            member_id: member_id.to_owned(),
            members,
            skip_assignment: false,
        }
    }

    fn assign(&mut self, mut sync: Sync, now: Instant) {
        self.phase = Phase::Stable;
        for (id, member) in &mut self.members {
            member.assignment = sync.assignments.remove(id).unwrap_or_default();
            if let Some(syncing) = member.syncing.take() {
                member.touch(now);
                send(syncing, Ok(member.assignment.clone()));
            }
        }
    }
}

/// Answers a member. One whose connection is gone does not hear it; its session timeout will remove it.
fn send<T>(answer: oneshot::Sender<T>, value: T) {
    drop(answer.send(value));
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn join(member_id: &str) -> Join {
        Join {
            member_id: member_id.to_owned(),
            instance_id: None,
            client_id: StrBytes::from_static_str("c"),
            session_timeout: Duration::from_secs(10),
            rebalance_timeout: Duration::from_secs(60),
            protocol_type: StrBytes::from_static_str("consumer"),
            protocols: vec![(StrBytes::from_static_str("range"), Bytes::new())],
            takes_promises: true,
        }
    }

    fn enter(group: &mut Group, now: Instant) -> (String, oneshot::Receiver<Joined>) {
        let promised = group.join(join(""), now).try_recv().unwrap().unwrap_err();
        assert_eq!(promised.code, ResponseError::MemberIdRequired);
        let answer = group.join(join(&promised.member_id), now);
        (promised.member_id, answer)
    }

    fn sync_all(group: &mut Group, leader: &str, now: Instant) -> Synced {
        let caller = Caller { member_id: leader, instance_id: None, generation: group.generation };
        group.sync(caller, Sync { assignments: HashMap::new() }, now).try_recv().unwrap()
    }

    #[test]
    fn the_first_member_leads_and_a_second_one_makes_it_join_again() {
        let (mut group, now) = (Group::default(), Instant::now());
        let (first, mut answer) = enter(&mut group, now);
        let generation = answer.try_recv().unwrap().unwrap();
        assert_eq!((generation.number, &generation.leader), (1, &first));
        assert_eq!(sync_all(&mut group, &first, now), Ok(Bytes::new()));
        assert_eq!(group.state(), "Stable");

        let (_, mut waiting) = enter(&mut group, now);
        assert!(waiting.try_recv().is_err(), "the second waits for the first");
        let caller = Caller { member_id: &first, instance_id: None, generation: 1 };
        assert_eq!(group.heartbeat(caller, now), Err(ResponseError::RebalanceInProgress));
        let leader = group.join(join(&first), now).try_recv().unwrap().unwrap();
        let follower = waiting.try_recv().unwrap().unwrap();
        assert_eq!((leader.number, follower.number), (2, 2));
        assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    }

    #[test]
    fn a_member_that_does_not_come_back_is_left_out_when_the_time_is_up() {
        let (mut group, now) = (Group::default(), Instant::now());
        let (first, _answer) = enter(&mut group, now);
        sync_all(&mut group, &first, now).unwrap();
        let (second, mut waiting) = enter(&mut group, now);
        group.expire(now + Duration::from_secs(11));
        assert_eq!(waiting.try_recv().unwrap().unwrap().leader, second);
        let caller = Caller { member_id: &first, instance_id: None, generation: 1 };
        assert_eq!(group.heartbeat(caller, now), Err(ResponseError::UnknownMemberId));
    }

    #[test]
    fn only_the_leader_makes_others_join_again_when_it_asks_for_the_same() {
        let (mut group, now) = (Group::default(), Instant::now());
        let (leader, _answer) = enter(&mut group, now);
        let (follower, _waiting) = enter(&mut group, now);
        group.join(join(&leader), now).try_recv().unwrap().unwrap();
        sync_all(&mut group, &leader, now).unwrap();
        let again = group.join(join(&follower), now).try_recv().unwrap().unwrap();
        assert_eq!((again.number, group.state()), (2, "Stable"));
        assert!(group.join(join(&leader), now).try_recv().is_err(), "it waits for the follower");
        assert_eq!(group.state(), "PreparingRebalance");
    }

    #[test]
    fn a_static_member_that_restarts_keeps_the_generation() {
        let (mut group, now) = (Group::default(), Instant::now());
        let fixed = || Join { instance_id: Some(StrBytes::from_static_str("i")), ..join("") };
        let first = group.join(fixed(), now).try_recv().unwrap().unwrap();
        let caller = Caller { member_id: &first.member_id, instance_id: Some("i"), generation: 1 };
        let sync = Sync { assignments: HashMap::from([(first.member_id.clone(), Bytes::from_static(b"mine"))]) };
        assert_eq!(group.sync(caller, sync, now).try_recv().unwrap().unwrap(), "mine");
        let second = group.join(fixed(), now).try_recv().unwrap().unwrap();
        assert_eq!((second.number, second.skip_assignment, group.state()), (1, true, "Stable"));
        assert_eq!(group.heartbeat(caller, now), Err(ResponseError::FencedInstanceId));
    }

    #[test]
    fn members_are_not_blamed_for_the_time_the_broker_was_away() {
        let (mut group, now) = (Group::default(), Instant::now());
        let (first, _answer) = enter(&mut group, now);
        let later = now + Duration::from_secs(11);
        group.forgive(later);
        group.expire(later);
        let caller = Caller { member_id: &first, instance_id: None, generation: 1 };
        assert_eq!(group.heartbeat(caller, later), Ok(()));
        group.expire(later + Duration::from_secs(11));
        assert_eq!(group.heartbeat(caller, later), Err(ResponseError::UnknownMemberId));
    }

    #[test]
    fn the_group_is_empty_when_the_last_one_leaves() {
        let (mut group, now) = (Group::default(), Instant::now());
        let (first, _answer) = enter(&mut group, now);
        group.leave(&first, None, now).unwrap();
        assert_eq!(group.state(), "Empty");
    }
}
