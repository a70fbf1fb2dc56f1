//! The thread that asks the site's Kafka questions: which topics there are, and where a lane begins.
//!
//! Topics are looked for every `refresh_interval`, and those known are asked for their id every [`ID_CHECK`] at least. That matters because
//! librdkafka 2.12 follows a topic that was deleted and made anew without a word (`rd_kafka_topic_metadata_update`): if the new log is longer
//! than the old position by the time it looks, it goes on reading in the middle of the new one. What it read until the next check was sent as
//! if it were the old topic's, and is sent again as the new one's. The window is a few seconds, and only for a topic that is made anew and
//! outgrows its old length within them. A shorter new log is told at once, by an offset that has vanished.
//!
//! A leader that was just elected may know of less than the one before it for a moment. So a log that seems truncated is looked at
//! three times before it is believed: a false alarm would send records twice.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use spillway_agent_core::lane::LaneSource;
use spillway_agent_core::start::{Beginning, LogRange};
use spillway_agent_core::topics::{Snapshot, TopicState};
use spillway_config::{StartFrom, TopicsConfig};
use spillway_kafka::topics::{DescribeError, describe_topics};
use spillway_proto::message::ResumePoint;
use spillway_proto::{Lane, NextOffset, TopicName, TopicPartition};
use tokio::sync::mpsc;

use crate::source::SiteConsumer;

mod look;

use look::Found;

/// The ids of known topics are checked this often at least.
pub const ID_CHECK: Duration = Duration::from_secs(5);

/// Looks, [`RETRY_PAUSE`] apart, after which a topic that is not the one asked about is taken for gone.
const OTHER_TOPIC_LOOKS: u32 = 30;

/// How long the site's Kafka may take for one answer.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after a question that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Most questions that may wait: each lane asks one in each session.
const MAX_QUESTIONS: usize = 1024;

/// Most answers that may wait for the runner.
const MAX_ANSWERS: usize = 1024;

/// Most topics in one request for ids.
const TOPICS_PER_REQUEST: usize = 500;

/// Where does a lane begin?
#[derive(Debug, Clone)]
pub struct Question {
    /// The lane.
    pub lane: Lane,
    /// What it is for.
    pub source: LaneSource,
    /// What is to be found out.
    pub asked: Asked,
    /// The session it was asked in, or the last one.
    pub session: u64,
    /// Where a partition begins of which the centre has nothing.
    pub start: StartFrom,
}

/// What is to be found out of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// How a lane begins of which the centre says this.
    Begin(ResumePoint),
    /// What the source still has of a partition of which the spill has lost something; the centre says this of it.
    Hole(ResumePoint),
    /// Where to read on while nobody knows what the centre has.
    Ahead,
}

/// What the survey tells.
#[derive(Debug)]
pub enum Answer {
    /// The topics as they are now, and whether that was a full look for new ones.
    Topics(Snapshot),
    /// A lane begins.
    Begin {
        /// The question.
        question: Box<Question>,
        /// How.
        beginning: Beginning,
    },
    /// What the source has, to [`Asked::Hole`].
    Hole {
        /// The question.
        question: Box<Question>,
        /// The source's log.
        log: LogRange,
    },
    /// Where to read on, to [`Asked::Ahead`].
    Ahead {
        /// The question.
        question: Box<Question>,
        /// What the local group has committed: the centre or the spill has everything below.
        committed: Option<NextOffset>,
        /// The source's log.
        log: LogRange,
        /// Where a partition begins that was never read.
        first: NextOffset,
    },
    /// Kafka does not answer, from now on. The text says what it is and what to do.
    Away(String),
    /// Kafka answers again, or for the first time.
    Back,
}

enum Request {
    Ask(Box<Question>),
    Refresh,
}

/// The running thread. It ends when this is dropped.
#[derive(Debug)]
pub struct Survey {
    requests: SyncSender<Request>,
    /// What it tells.
    pub answers: mpsc::Receiver<Answer>,
}

impl Survey {
    /// Starts the thread, which looks at the topics at once. `client` comes from [`crate::source::inquirer`].
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(client: SiteConsumer, topics: TopicsConfig) -> std::io::Result<Self> {
        let (requests, requests_in) = sync_channel(MAX_QUESTIONS);
        let (answers_out, answers) = mpsc::channel(MAX_ANSWERS);
        let surveyor = Surveyor {
            client,
            topics,
            requests: requests_in,
            answers: answers_out,
            known: Vec::new(),
            questions: BTreeMap::new(),
            away: None,
            refreshed: None,
            checked: None,
            refresh: false,
        };
        std::thread::Builder::new().name("survey".to_owned()).spawn(move || surveyor.run())?;
        Ok(Self { requests, answers })
    }

    /// Asks. Answers false when too many questions wait: ask again later.
    pub fn ask(&self, question: Question) -> bool {
        self.requests.try_send(Request::Ask(Box::new(question))).is_ok()
    }

    /// Looks at the topics soon; the answer is newer than this call.
    pub fn refresh(&self) {
        if let Err(TrySendError::Disconnected(_)) = self.requests.try_send(Request::Refresh) {
            tracing::debug!("the survey has ended");
        }
    }
}

/// Why there is no answer yet.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Kafka(#[from] KafkaError),
    #[error(transparent)]
    Describe(#[from] DescribeError),
    #[error("{0}: {1}")]
    Topic(TopicName, RDKafkaErrorCode),
    #[error("{0}: the broker answered without an offset")]
    NoOffset(TopicPartition),
    /// The topic is another one by now: the runner will hear of it, and close the lane.
    #[error("{0} was deleted or made anew")]
    OtherTopic(TopicName),
    #[error("the log of {0} seems truncated; looking again")]
    Suspicious(TopicPartition),
}

struct Pending {
    question: Box<Question>,
    due: Instant,
    /// How often the topic was found to be another one, or none.
    other_topic: u32,
    /// A truncation seen, and how often in a row.
    suspected: Option<(Beginning, u32)>,
}

/// The runner is gone.
struct Gone;

struct Surveyor {
    client: SiteConsumer,
    topics: TopicsConfig,
    requests: Receiver<Request>,
    answers: mpsc::Sender<Answer>,
    known: Vec<TopicName>,
    questions: BTreeMap<Lane, Pending>,
    away: Option<String>,
    refreshed: Option<Instant>,
    checked: Option<Instant>,
    refresh: bool,
}

impl Surveyor {
    fn run(mut self) {
        while self.turn().is_ok() {}
    }

    fn turn(&mut self) -> Result<(), Gone> {
        self.receive()?;
        // Nothing is consumed here, but the client's own events have to be taken.
        drop(self.client.poll(Duration::ZERO));
        let now = Instant::now();
        let over = |since: Option<Instant>, interval: Duration| since.is_none_or(|since| now.duration_since(since) >= interval);
        if self.refresh || over(self.refreshed, self.topics.refresh_interval) {
            self.look(true)?;
        } else if over(self.checked, ID_CHECK.min(self.topics.refresh_interval)) {
            self.look(false)?;
        }
        let due = self.questions.values().find(|pending| pending.due <= now).map(|pending| pending.question.lane);
        match due.and_then(|lane| self.questions.remove(&lane)) {
            Some(pending) => self.answer(pending),
            None => Ok(()),
        }
    }

    /// Takes requests; waits for one when there is nothing to do.
    fn receive(&mut self) -> Result<(), Gone> {
        let now = Instant::now();
        let next = self.questions.values().map(|pending| pending.due).min();
        let mut wait = next.map_or(RETRY_PAUSE, |due| due.saturating_duration_since(now)).min(RETRY_PAUSE);
        if self.refresh || self.checked.is_none() {
            wait = wait.min(if self.away.is_some() { RETRY_PAUSE } else { Duration::ZERO });
        }
        loop {
            match self.requests.recv_timeout(wait) {
                Ok(Request::Ask(question)) => {
                    self.questions.insert(question.lane, Pending { question, due: Instant::now(), other_topic: 0, suspected: None });
                }
                Ok(Request::Refresh) => self.refresh = true,
                Err(RecvTimeoutError::Timeout) => return Ok(()),
                Err(RecvTimeoutError::Disconnected) => return Err(Gone),
            }
            wait = Duration::ZERO;
        }
    }

    /// Looks at the topics: with `all` also for new ones.
    fn look(&mut self, all: bool) -> Result<(), Gone> {
        let result = self.snapshot(all);
        let now = Instant::now();
        self.checked = Some(now);
        match result {
            Ok(snapshot) => {
                if all {
                    (self.refreshed, self.refresh) = (Some(now), false);
                }
                self.back()?;
                self.send(Answer::Topics(snapshot))
            }
            Err(trouble) => self.away(&trouble),
        }
    }

    fn snapshot(&mut self, all: bool) -> Result<Snapshot, Trouble> {
        let mut snapshot = Snapshot::default();
        if all {
            let metadata = self.client.fetch_metadata(None, QUERY_TIMEOUT)?;
            let names = metadata.topics().iter().map(|topic| topic.name()).filter(|name| self.topics.selects(name));
            let listed = names.filter_map(|name| TopicName::parse(name).ok()).collect::<Vec<_>>();
            snapshot.absent = std::mem::take(&mut self.known).into_iter().filter(|topic| !listed.contains(topic)).collect();
            self.known = listed;
        }
        for topics in self.known.chunks(TOPICS_PER_REQUEST) {
            for description in describe_topics(self.client.client(), topics, QUERY_TIMEOUT)? {
                match description.outcome {
                    Ok(shape) => {
                        snapshot.present.insert(description.topic, TopicState { id: shape.id, partitions: shape.partitions });
                    }
                    Err(RDKafkaErrorCode::UnknownTopicOrPartition) => snapshot.absent.push(description.topic),
                    Err(error) => tracing::debug!(topic = %description.topic, %error, "no description"),
                }
            }
        }
        Ok(snapshot)
    }

    fn answer(&mut self, mut pending: Pending) -> Result<(), Gone> {
        match self.found(&mut pending) {
            Ok(found) => {
                self.back()?;
                let question = pending.question;
                self.send(match found {
                    Found::Begin(beginning) => Answer::Begin { question, beginning },
                    Found::Hole(log) => Answer::Hole { question, log },
                    Found::Ahead { committed, log, first } => Answer::Ahead { question, committed, log, first },
                })
            }
            // The watcher will see it as well and close the lane, unless it was a broker that had not heard of the topic yet.
            Err(Trouble::OtherTopic(topic)) if pending.other_topic == OTHER_TOPIC_LOOKS => {
                tracing::debug!(%topic, "gave up asking where a lane of a topic that is gone begins");
                Ok(())
            }
            Err(trouble) => {
                if matches!(trouble, Trouble::OtherTopic(_)) {
                    pending.other_topic += 1;
                    self.refresh = true;
                }
                pending.due = Instant::now() + RETRY_PAUSE;
                let lane = pending.question.lane;
                tracing::debug!(%lane, error = %trouble, "where a lane begins is not known yet");
                self.questions.entry(lane).or_insert(pending);
                Ok(())
            }
        }
    }

    fn away(&mut self, trouble: &Trouble) -> Result<(), Gone> {
        let text = trouble.to_string();
        if self.away.as_ref() == Some(&text) {
            return Ok(());
        }
        self.away = Some(text.clone());
        self.send(Answer::Away(text))
    }

    fn back(&mut self) -> Result<(), Gone> {
        let first = self.refreshed.is_none() && self.questions.is_empty();
        if self.away.take().is_some() || first {
            return self.send(Answer::Back);
        }
        Ok(())
    }

    fn send(&self, answer: Answer) -> Result<(), Gone> {
        self.answers.blocking_send(answer).map_err(|_| Gone)
    }
}
