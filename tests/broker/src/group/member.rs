//! One member of a group.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;

use super::{Joined, Synced};

/// A member: what it asked for and what it waits for.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) instance_id: Option<StrBytes>,
    pub(super) client_id: StrBytes,
    pub(super) session_timeout: Duration,
    pub(super) rebalance_timeout: Duration,
    /// Names of the assignment protocols in the order of preference, each with the member's metadata.
    pub(super) protocols: Vec<(StrBytes, Bytes)>,
    pub(super) assignment: Bytes,
    /// The order of joining; the first of the group leads.
    pub(super) order: u64,
    pub(super) joining: Option<oneshot::Sender<Joined>>,
    pub(super) syncing: Option<oneshot::Sender<Synced>>,
    deadline: Instant,
}

impl Member {
    pub(super) fn new(client_id: StrBytes, order: u64, now: Instant) -> Self {
        Self {
            instance_id: None,
            client_id,
            session_timeout: Duration::ZERO,
            rebalance_timeout: Duration::ZERO,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            order,
            joining: None,
            syncing: None,
            deadline: now,
        }
    }

    /// A sign of life.
    pub(super) fn touch(&mut self, now: Instant) {
        self.deadline = now + self.session_timeout;
    }

    /// Whether the session lasts. A member that waits for the others to join is kept: it cannot send heartbeats.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.joining.is_some() || now <= self.deadline
    }

    /// The metadata for a protocol; empty if the member does not speak it.
    pub(super) fn metadata(&self, protocol: &StrBytes) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }

    pub(super) fn speaks(&self, protocol: &StrBytes) -> bool {
        self.protocols.iter().any(|(name, _)| name == protocol)
    }
}
