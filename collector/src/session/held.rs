//! Partitions that stand still because the central Kafka refuses a record or a topic.
//!
//! The settings of their topics are looked at every few seconds; when one that can refuse records has changed, the agent is asked to try
//! again. After some minutes it is asked anyway: what changed may be the brokers' setting, or a right.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use spillway_proto::message::{Hold, HoldReason};
use spillway_proto::{Lane, TopicName};
use tokio::task::JoinSet;

use super::limits;
use crate::centre::topics::{RefusingSettings, Topics};
use crate::writer::Refusal;

/// The held lanes of one session.
#[derive(Debug)]
pub struct Held {
    topics: Topics,
    lanes: HashMap<Lane, HeldLane>,
    tasks: JoinSet<Looked>,
    next_check: Option<Instant>,
}

#[derive(Debug)]
struct HeldLane {
    /// The source partition, for people.
    source: String,
    remote: TopicName,
    reason: HoldReason,
    detail: String,
    since: Instant,
    settings: Option<RefusingSettings>,
}

#[derive(Debug)]
enum Looked {
    /// A record was refused just now.
    First { refusal: Box<Refusal>, settings: Option<RefusingSettings> },
    /// The settings of a topic with held lanes.
    Again { remote: TopicName, settings: Option<RefusingSettings> },
}

/// What follows.
#[derive(Debug)]
pub enum Step {
    /// Tell the agent that a lane is held.
    Hold(Hold),
    /// Tell the agent to try these lanes' partitions again.
    Retry(Vec<Lane>),
}

impl Held {
    /// None so far.
    pub fn new(topics: Topics) -> Self {
        Self { topics, lanes: HashMap::new(), tasks: JoinSet::new(), next_check: None }
    }

    /// The central Kafka has refused something. Its topic's settings are looked up first: they name the limit.
    pub fn refused(&mut self, refusal: Refusal) {
        let topics = self.topics.clone();
        self.tasks.spawn(async move {
            let settings = topics.refusing_settings(&refusal.remote).await.ok();
            Looked::First { refusal: Box::new(refusal), settings }
        });
    }

    /// A lane whose topic cannot be made is held.
    pub fn hold_topic(&mut self, lane: Lane, source: String, remote: TopicName, detail: String) {
        self.insert(lane, HeldLane { source, remote, reason: HoldReason::TopicRefused, detail, since: Instant::now(), settings: None });
    }

    /// The next step; pends while there is none. Cancel safe.
    pub async fn next(&mut self) -> Step {
        loop {
            let check = self.next_check;
            tokio::select! {
                Some(looked) = self.tasks.join_next(), if !self.tasks.is_empty() => {
                    if let Ok(looked) = looked
                        && let Some(step) = self.looked(looked)
                    {
                        return step;
                    }
                }
                () = sleep_until(check) => {
                    if let Some(step) = self.check(Instant::now()) {
                        return step;
                    }
                }
            }
        }
    }

    /// Lanes held.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// For people: the source partition of a held lane.
    pub fn source_of(&self, lane: Lane) -> Option<String> {
        self.lanes.get(&lane).map(|held| held.source.clone())
    }

    /// For people: source partition and why.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let lanes = self.lanes.values();
        lanes.map(|held| (held.source.clone(), format!("{}: {}", held.reason.as_str(), held.detail))).collect()
    }

    fn insert(&mut self, lane: Lane, held: HeldLane) {
        self.lanes.insert(lane, held);
        self.next_check.get_or_insert_with(|| Instant::now() + limits::HELD_CHECK);
    }

    fn looked(&mut self, looked: Looked) -> Option<Step> {
        match looked {
            Looked::First { refusal, settings } => {
                let detail = describe(&refusal, settings.as_ref());
                let Refusal { lane, next, source, remote, reason, .. } = *refusal;
                let held = HeldLane { source: source.to_string(), remote, reason, detail: detail.clone(), since: Instant::now(), settings };
                self.insert(lane, held);
                Some(Step::Hold(Hold { lane, next, reason, detail }))
            }
            Looked::Again { remote, settings } => {
                let settings = settings?;
                let same_topic = self.lanes.iter_mut().filter(|(_, held)| held.remote == remote);
                let mut changed = Vec::new();
                for (lane, held) in same_topic {
                    // Unknown until now: nothing to compare with yet.
                    let before = held.settings.get_or_insert_with(|| settings.clone());
                    if *before != settings {
                        changed.push(*lane);
                    }
                }
                self.release(changed)
            }
        }
    }

    fn check(&mut self, now: Instant) -> Option<Step> {
        let due: Vec<Lane> = self.lanes.iter().filter(|(_, held)| now >= held.since + held.retry_after()).map(|(lane, _)| *lane).collect();
        let mut remotes: Vec<_> =
            self.lanes.values().filter(|held| held.reason != HoldReason::TopicRefused).map(|held| held.remote.clone()).collect();
        remotes.sort();
        remotes.dedup();
        for remote in remotes {
            let topics = self.topics.clone();
            self.tasks.spawn(async move {
                let settings = topics.refusing_settings(&remote).await.ok();
                Looked::Again { remote, settings }
            });
        }
        self.next_check = (!self.lanes.is_empty()).then(|| now + limits::HELD_CHECK);
        self.release(due)
    }

    fn release(&mut self, lanes: Vec<Lane>) -> Option<Step> {
        for lane in &lanes {
            self.lanes.remove(lane);
        }
        (!lanes.is_empty()).then_some(Step::Retry(lanes))
    }
}

impl HeldLane {
    fn retry_after(&self) -> Duration {
        if self.reason == HoldReason::TopicRefused { limits::TOPIC_RETRY } else { limits::HELD_RETRY }
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

/// For people: what was refused, the limit, and the setting that holds it.
fn describe(refusal: &Refusal, settings: Option<&RefusingSettings>) -> String {
    let Refusal { source, remote, reason, code, offset, detail, .. } = refusal;
    if let Some(detail) = detail {
        return detail.clone();
    }
    let setting = |name: &str| {
        let value = settings.and_then(|settings| settings.get(name)).map_or("unknown", String::as_str);
        format!("{name} is {value}")
    };
    let record = offset.map_or_else(|| source.to_string(), |offset| format!("the record at offset {offset} of {source}"));
    match reason {
        HoldReason::RecordTooLarge => {
            format!("{record} is too large for {remote}, whose {}; raise it with kafka-configs", setting("max.message.bytes"))
        }
        HoldReason::TimestampOutOfRange => format!(
            "the timestamp of {record} is outside of what {remote} allows: {}, {}; widen them with kafka-configs",
            setting("message.timestamp.before.max.ms"),
            setting("message.timestamp.after.max.ms")
        ),
        HoldReason::RecordInvalid => format!(
            "{record} is refused for {remote} ({code}): {}; a compacted topic takes no record without a key",
            setting("cleanup.policy")
        ),
        HoldReason::TopicRefused | HoldReason::Other(_) => {
            format!("{remote} cannot be written ({code}); the collector's user needs Write and Describe on it")
        }
    }
}
