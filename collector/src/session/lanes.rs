//! Lanes announced: their remote topics are made ready, then the writer tells where they go on.

use std::collections::HashMap;
use std::sync::Arc;

use spillway_proto::message::{self, HoldReason};
use spillway_proto::naming::PrefixPolicy;
use spillway_proto::{Lane, NextOffset, SiteName, TopicName, TopicPartition};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::limits;
use crate::centre::topics::{self, Topics, syncs_topic};
use crate::writer::inbox::OpenLane;

/// A lane whose remote topic is ready, or will not be.
#[derive(Debug)]
pub struct Prepared {
    /// The lane.
    pub open: OpenLane,
    /// Why it is held at once.
    pub refused: Option<topics::Error>,
}

/// The lanes of one session, by source partition.
#[derive(Debug)]
pub struct Lanes {
    site: SiteName,
    policy: PrefixPolicy,
    topics: Topics,
    /// The lane that each partition has now, and its late one.
    current: HashMap<(TopicPartition, Kind), Lane>,
    preparing: JoinSet<Prepared>,
    turns: Arc<Semaphore>,
}

/// A partition has one lane of each kind at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Own,
    Late,
}

impl Kind {
    fn of(until: Option<NextOffset>) -> Self {
        if until.is_some() { Self::Late } else { Self::Own }
    }
}

impl Lanes {
    /// A session without lanes.
    pub fn new(site: SiteName, policy: PrefixPolicy, topics: Topics) -> Self {
        let turns = Arc::new(Semaphore::new(limits::MAX_TOPIC_REQUESTS));
        Self { site, policy, topics, current: HashMap::new(), preparing: JoinSet::new(), turns }
    }

    /// A lane was announced. Answers the lane that its partition had before, which is over now.
    ///
    /// # Errors
    /// A hold, when the topic has no remote name.
    pub fn announce(&mut self, open: message::OpenLane) -> (Option<Lane>, Result<(), message::Hold>) {
        let replaces = self.current.insert((open.source.clone(), Kind::of(open.until)), open.lane);
        let names = self.policy.remote_topic(&self.site, &open.source.topic);
        let remote = match names {
            Ok(remote) => remote,
            Err(error) => {
                let detail = spillway_ops::exit::chain(&error);
                let hold = message::Hold { lane: open.lane, next: NextOffset::ZERO, reason: HoldReason::TopicRefused, detail };
                return (replaces, Err(hold));
            }
        };
        let message::OpenLane { lane, source, topic_id, partition_count, until } = open;
        let open = OpenLane { lane, source, topic_id, partition_count, until, remote, replaces };
        let (topics, turns) = (self.topics.clone(), Arc::clone(&self.turns));
        let syncs = syncs_topic(&self.policy, &self.site);
        self.preparing.spawn(async move {
            let refused = prepare(&topics, &turns, syncs.as_ref(), &open).await.err();
            Prepared { open, refused }
        });
        (replaces, Ok(()))
    }

    /// The next lane whose topic is ready or refused; pends while there is none. Cancel safe.
    pub async fn prepared(&mut self) -> Prepared {
        loop {
            match self.preparing.join_next().await {
                Some(Ok(prepared)) => return prepared,
                // A task that was aborted or has panicked prepares nothing; its lane stays silent until the agent's next session.
                Some(Err(error)) => tracing::error!(site = %self.site, %error, "a topic could not be made ready"),
                None => std::future::pending().await,
            }
        }
    }

    /// True while the lane is its partition's.
    pub fn is_current(&self, open: &OpenLane) -> bool {
        self.current.get(&(open.source.clone(), Kind::of(open.until))) == Some(&open.lane)
    }

    /// Number of lanes that partitions have.
    pub fn len(&self) -> usize {
        self.current.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.current.is_empty()
    }
}

/// Tries until the topics are there. Only a refusal ends it: while the central Kafka is away, the lane waits.
async fn prepare(topics: &Topics, turns: &Semaphore, syncs: Option<&TopicName>, open: &OpenLane) -> Result<(), topics::Error> {
    let mut pause = limits::TOPIC_PAUSE.0;
    loop {
        let result = {
            let _turn = turns.acquire().await;
            ensure(topics, syncs, open).await
        };
        match result {
            Err(error @ topics::Error::Unavailable { .. }) => {
                tracing::debug!(topic = %open.remote, %error, "a topic is not ready; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(limits::TOPIC_PAUSE.1);
            }
            result => return result,
        }
    }
}

async fn ensure(topics: &Topics, syncs: Option<&TopicName>, open: &OpenLane) -> Result<(), topics::Error> {
    if let Some(syncs) = syncs {
        topics.ensure_syncs(syncs).await?;
    }
    topics.ensure_remote(&open.remote, open.partition_count).await
}
