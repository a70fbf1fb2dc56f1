//! Consumer groups of the classic protocol: members, generations, rebalances. Which member gets which partition is the
//! clients' business.
//!
//! ```text
//! Empty ── join ──► Preparing ── all joined, or time is up ──► Completing ── leader's sync ──► Stable
//!   ▲                  ▲  │                                        │                             │
//!   └── last one left ─┼──┘ ◄── join, leave or expiry of a member ─┴─────────────────────────────┘
//! ```
//! - [`member`]: one member
//! - [`join`]: JoinGroup and SyncGroup
//!
//! Answers that must wait go through oneshot channels; nothing here sleeps, the broker's timer calls
//! [`Group::expire`].

mod join;
mod member;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;

pub(crate) use self::join::{Join, JoinRefused, Joined, Sync, Synced};
use self::member::Member;
use crate::offsets::GroupOffsets;
use crate::varint::Reader;

/// One consumer group with its offsets.
#[derive(Debug, Default)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: Option<StrBytes>,
    protocol: Option<StrBytes>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Member ids that were given out and have not joined yet, with the time they are kept.
    promised: HashMap<String, Instant>,
    joins: u64,
    pub(crate) offsets: GroupOffsets,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Phase {
    #[default]
    Empty,
    Preparing {
        deadline: Instant,
    },
    Completing,
    Stable,
}

/// How a request names the member that sends it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance_id: Option<&'a str>,
    pub(crate) generation: i32,
}

/// A member as DescribeGroups shows it.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) member_id: String,
    pub(crate) instance_id: Option<StrBytes>,
    pub(crate) client_id: StrBytes,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

impl Group {
    /// The state as Kafka names it.
    pub(crate) fn state(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    /// Whether the group can be deleted, and whether it is all there is to it.
    pub(crate) fn has_members(&self) -> bool {
        !self.members.is_empty()
    }

    pub(crate) fn protocol_type(&self) -> StrBytes {
        self.protocol_type.clone().unwrap_or_default()
    }

    pub(crate) fn protocol(&self) -> StrBytes {
        self.protocol.clone().unwrap_or_default()
    }

    /// Lists the members; metadata and assignments are shown only while the group is stable.
    pub(crate) fn describe(&self) -> Vec<Described> {
        let stable = self.phase == Phase::Stable;
        let shown = |bytes: Bytes| if stable { bytes } else { Bytes::new() };
        let describe = |(id, member): (&String, &Member)| Described {
            member_id: id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            metadata: shown(member.metadata(&self.protocol())),
            assignment: shown(member.assignment.clone()),
        };
        self.members.iter().map(describe).collect()
    }

    /// Whether a member subscribes to this topic, as far as its metadata tells.
    pub(crate) fn subscribes(&self, topic: &str) -> bool {
        let protocol = self.protocol();
        self.members.values().any(|member| subscribed(&member.metadata(&protocol)).is_some_and(|t| t.iter().any(|t| t == topic)))
    }

    /// Keeps a member alive.
    ///
    /// # Errors
    /// `REBALANCE_IN_PROGRESS` tells the member to join again; else what [`check`](Self::check) says.
    pub(crate) fn heartbeat(&mut self, caller: Caller<'_>, now: Instant) -> Result<(), ResponseError> {
        self.check(caller)?;
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.touch(now);
        }
        match self.phase {
            Phase::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Completing | Phase::Stable => Ok(()),
        }
    }

    /// Takes a member out of the group.
    ///
    /// # Errors
    /// `UNKNOWN_MEMBER_ID` or `FENCED_INSTANCE_ID`.
    pub(crate) fn leave(&mut self, member_id: &str, instance_id: Option<&str>, now: Instant) -> Result<(), ResponseError> {
        if self.promised.remove(member_id).is_some() {
            self.advance(now);
            return Ok(());
        }
        let id = match instance_id {
            Some(instance) => {
                let id = self.static_member(instance).ok_or(ResponseError::UnknownMemberId)?;
                if !member_id.is_empty() && member_id != id {
                    return Err(ResponseError::FencedInstanceId);
                }
                id
            }
            None => member_id.to_owned(),
        };
        self.members.remove(&id).ok_or(ResponseError::UnknownMemberId)?;
        self.rebalance(now);
        Ok(())
    }

    /// Checks who may commit offsets: a member of this generation, or anybody while the group has no members. Inside a
    /// transaction old clients do not say who they are.
    ///
    /// # Errors
    /// As [`check`](Self::check), and `REBALANCE_IN_PROGRESS` between join and sync.
    pub(crate) fn check_commit(&mut self, caller: Caller<'_>, transactional: bool, now: Instant) -> Result<(), ResponseError> {
        if caller.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        if caller.generation >= 0 || !caller.member_id.is_empty() || caller.instance_id.is_some() {
            self.check(caller)?;
        } else if !transactional {
            return Err(ResponseError::UnknownMemberId);
        }
        if let Some(member) = self.members.get_mut(caller.member_id) {
            member.touch(now);
        }
        if !transactional && self.phase == Phase::Completing {
            return Err(ResponseError::RebalanceInProgress);
        }
        Ok(())
    }

    /// Removes members that were silent for longer than their session timeout and ends rebalances whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        let before = self.members.len();
        self.members.retain(|_, member| member.is_alive(now));
        self.promised.retain(|_, deadline| now <= *deadline);
        if self.members.len() < before {
            self.rebalance(now);
        }
        self.advance(now);
    }

    /// Gives every member its whole session timeout again: the broker was away, not they.
    pub(crate) fn forgive(&mut self, now: Instant) {
        for member in self.members.values_mut() {
            member.touch(now);
        }
    }

    /// Checks member, instance and generation of a request.
    ///
    /// # Errors
    /// `FENCED_INSTANCE_ID`, `UNKNOWN_MEMBER_ID` or `ILLEGAL_GENERATION`.
    fn check(&self, caller: Caller<'_>) -> Result<(), ResponseError> {
        if let Some(instance) = caller.instance_id {
            let id = self.static_member(instance).ok_or(ResponseError::UnknownMemberId)?;
            if id != caller.member_id {
                return Err(ResponseError::FencedInstanceId);
            }
        }
        if !self.members.contains_key(caller.member_id) {
            return Err(ResponseError::UnknownMemberId);
        }
        if caller.generation != self.generation {
            return Err(ResponseError::IllegalGeneration);
        }
        Ok(())
    }

    fn static_member(&self, instance: &str) -> Option<String> {
        let is = |member: &Member| member.instance_id.as_ref().is_some_and(|id| id.as_str() == instance);
        self.members.iter().find(|(_, member)| is(member)).map(|(id, _)| id.clone())
    }
}

/// Reads the topics of a consumer's subscription: version i16, then an array of strings.
fn subscribed(metadata: &[u8]) -> Option<Vec<String>> {
    let mut reader = Reader::new(metadata);
    reader.take(2)?;
    let count = u32::from_be_bytes(*reader.take(4)?.first_chunk()?);
    (0..count)
        .map(|_| {
            let len = u16::from_be_bytes(*reader.take(2)?.first_chunk()?);
            String::from_utf8(reader.take(usize::from(len))?.to_vec()).ok()
        })
        .collect()
}
