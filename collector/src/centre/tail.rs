//! `spillway-progress.internal`, read to its end for all sites by one thread.
//!
//! The topic is small (one record a source partition, compacted) and every collector reads all of it when it starts, so that a site that
//! comes here from another collector finds its positions in memory. What was read last is not yet authoritative: another site's open
//! transaction may hide newer records of ours behind the last stable offset. A site's writer therefore commits a session marker first and
//! waits here until it shows up: everything that the site committed before has been read then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::TopicPartitionList;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::Offset as StartOffset;
use spillway_collector_core::progress::Positions;
use spillway_config::KafkaClient;
use spillway_kafka::events::{Event, EventQueue};
use spillway_proto::progress::{self, Position, ProgressKey, SessionMarker};
use spillway_proto::{Partition, SiteName};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A random number that identifies one opening of a site's writer.
pub type Marker = [u8; 16];

/// What is known of all sites. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tail {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    partitions: AtomicU32,
    caught_up: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    sites: HashMap<SiteName, Site>,
    waiters: HashMap<Marker, SyncSender<()>>,
}

#[derive(Debug, Default)]
struct Site {
    positions: Positions,
    marker: watch::Sender<Option<Marker>>,
    /// Why the site's progress cannot be read: a record of a later version.
    unreadable: Option<String>,
}

/// Why a site's positions are not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A record that this version does not understand; guessing would lose or duplicate data.
    #[error("progress of the site cannot be read ({0}): a newer collector has written it; upgrade this one")]
    Unreadable(String),
    /// The marker did not show up in time.
    #[error("the session marker did not show up in spillway-progress.internal within {0:?}")]
    MarkerLate(Duration),
}

/// Waits for a marker.
#[derive(Debug)]
pub struct MarkerWait {
    tail: Tail,
    marker: Marker,
    receiver: mpsc::Receiver<()>,
}

impl Tail {
    /// An empty one, to be filled by [`Self::start`].
    pub fn new() -> Self {
        Self { shared: Arc::default() }
    }

    /// Starts reading; the topic exists and has `partitions`. Ends when `stop` is cancelled.
    ///
    /// # Errors
    /// When the consumer or its thread cannot be made.
    pub fn start(&self, kafka: &KafkaClient, partitions: u32, stop: CancellationToken) -> Result<(), StartError> {
        let consumer: BaseConsumer<spillway_kafka::Context> = consumer_config(kafka).create_with_context(spillway_kafka::Context)?;
        // Without the leaders at hand, the consumer would look for them once a second, and everybody would wait for that.
        if let Err(error) = consumer.fetch_metadata(Some(progress::TOPIC), METADATA_TIMEOUT) {
            tracing::debug!(%error, "no metadata yet; the consumer looks for it by itself");
        }
        let mut assignment = TopicPartitionList::with_capacity(partitions as usize);
        for partition in 0..partitions {
            let partition = i32::try_from(partition).unwrap_or(i32::MAX);
            assignment.add_partition_offset(progress::TOPIC, partition, StartOffset::Beginning)?;
        }
        consumer.assign(&assignment)?;
        self.shared.partitions.store(partitions, Ordering::Release);
        let tail = self.clone();
        thread::Builder::new().name("progress-tail".to_owned()).spawn(move || tail.read(&consumer, partitions, &stop))?;
        Ok(())
    }

    /// True once everything that was there at the start has been read.
    pub fn is_caught_up(&self) -> bool {
        self.shared.caught_up.load(Ordering::Acquire)
    }

    /// The partition of the progress topic that holds a site.
    pub fn partition_of(&self, site: &SiteName) -> Partition {
        progress::partition_of(site, self.shared.partitions.load(Ordering::Acquire))
    }

    /// The newest marker of a site that was read.
    pub fn marker_of(&self, site: &SiteName) -> Option<Marker> {
        self.lock().sites.get(site).and_then(|site| *site.marker.borrow())
    }

    /// Tells when a site's newest marker changes.
    pub fn watch_marker(&self, site: &SiteName) -> watch::Receiver<Option<Marker>> {
        self.lock().sites.entry(site.clone()).or_default().marker.subscribe()
    }

    /// Begins to wait for a marker. To be called before the marker is committed.
    pub fn expect(&self, marker: Marker) -> MarkerWait {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.lock().waiters.insert(marker, sender);
        MarkerWait { tail: self.clone(), marker, receiver }
    }

    fn positions(&self, site: &SiteName) -> Result<Positions, Error> {
        match self.lock().sites.get(site) {
            Some(Site { unreadable: Some(reason), .. }) => Err(Error::Unreadable(reason.clone())),
            Some(site) => Ok(site.positions.clone()),
            None => Ok(Positions::new()),
        }
    }

    fn read(&self, consumer: &BaseConsumer<spillway_kafka::Context>, partitions: u32, stop: &CancellationToken) {
        let Some(queue) = EventQueue::new(consumer) else {
            tracing::error!("the progress consumer has no queue");
            return;
        };
        let (started, mut records) = (Instant::now(), 0u64);
        let mut ended = vec![false; partitions as usize];
        while !stop.is_cancelled() {
            let Some(mut polled) = queue.poll(POLL) else {
                continue;
            };
            match polled.event() {
                Event::Record(record) => {
                    records += 1;
                    self.apply(record.key.unwrap_or_default(), record.value);
                }
                Event::PartitionEnd { partition, .. } if !self.is_caught_up() => {
                    if let Some(ended) = ended.get_mut(partition.index() as usize) {
                        *ended = true;
                    }
                    if ended.iter().all(|ended| *ended) {
                        self.shared.caught_up.store(true, Ordering::Release);
                        let elapsed_ms = elapsed_ms(started);
                        tracing::info!(records, elapsed_ms, "progress of all sites was read");
                    }
                }
                Event::PartitionFailed { partition, text, .. } => {
                    tracing::warn!(topic = progress::TOPIC, %partition, error = text, "progress cannot be read; trying again");
                }
                Event::ClientFailed { text, fatal: true, .. } => {
                    tracing::error!(topic = progress::TOPIC, error = text, "progress cannot be read any more; restart the collector");
                }
                _ => {}
            }
        }
    }

    fn apply(&self, key: &[u8], value: Option<&[u8]>) {
        let key = match ProgressKey::decode(key) {
            Ok(key) => key,
            Err(error) => {
                tracing::warn!(topic = progress::TOPIC, %error, "skipped a record whose key is unknown to this version");
                return;
            }
        };
        let mut state = self.lock();
        match key {
            ProgressKey::Position { site, source } => {
                let site = state.sites.entry(site).or_default();
                match value.map(Position::decode) {
                    Some(Ok(position)) => {
                        site.positions.insert(source, position);
                    }
                    Some(Err(error)) => site.unreadable = Some(format!("{source}: {error}")),
                    None => {
                        site.positions.remove(&source);
                    }
                }
            }
            ProgressKey::Session { site } => match value.map(SessionMarker::decode) {
                Some(Ok(SessionMarker { marker, .. })) => {
                    state.sites.entry(site).or_default().marker.send_replace(Some(marker));
                    if let Some(waiter) = state.waiters.remove(&marker) {
                        // A waiter that has given up needs no answer.
                        let _gone = waiter.try_send(());
                    }
                }
                Some(Err(error)) => state.sites.entry(site).or_default().unreadable = Some(format!("session marker: {error}")),
                None => {
                    state.sites.entry(site).or_default().marker.send_replace(None);
                }
            },
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self::new()
    }
}

impl MarkerWait {
    /// Blocks until the marker was read; then all positions that the site ever committed are known. `wanted` is asked now and then whether
    /// anybody still waits.
    ///
    /// # Errors
    /// [`Error::MarkerLate`] after `timeout`, or when nobody waits any more; [`Error::Unreadable`].
    pub fn positions(self, site: &SiteName, timeout: Duration, wanted: impl Fn() -> bool) -> Result<Positions, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let step = deadline.saturating_duration_since(Instant::now()).min(WANTED_CHECK);
            match self.receiver.recv_timeout(step) {
                Ok(()) => return self.tail.positions(site),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline && wanted() => {}
                Err(_) => return Err(Error::MarkerLate(timeout)),
            }
        }
    }
}

impl Drop for MarkerWait {
    fn drop(&mut self) {
        self.tail.lock().waiters.remove(&self.marker);
    }
}

/// Why the reading cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// librdkafka refuses the settings or the assignment.
    #[error("the progress consumer cannot be made")]
    Kafka(#[from] KafkaError),
    /// The system gives no thread.
    #[error("no thread for the progress consumer")]
    Thread(#[from] std::io::Error),
}

/// How often the thread looks whether it shall end.
const POLL: Duration = Duration::from_millis(200);

/// How long the start may wait for the topic's leaders.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a wait looks whether anybody still waits.
const WANTED_CHECK: Duration = Duration::from_millis(100);

fn consumer_config(kafka: &KafkaClient) -> ClientConfig {
    let mut config = spillway_kafka::client_config(kafka, "spillway-collector-progress");
    for (key, value) in [
        // Names the reader; nothing is ever committed, and no rebalance takes place.
        ("group.id", "spillway-collector"),
        ("enable.auto.commit", "false"),
        ("enable.auto.offset.store", "false"),
        ("auto.offset.reset", "earliest"),
        ("isolation.level", "read_committed"),
        ("enable.partition.eof", "true"),
        // A marker is waited for by a session, so the answer to it must come at once.
        ("fetch.min.bytes", "1"),
        ("fetch.wait.max.ms", "500"),
        ("fetch.error.backoff.ms", "50"),
    ] {
        config.set(key, value);
    }
    config
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::deferred::Deferred;
    use spillway_proto::{NextOffset, TopicId, TopicPartition};

    use super::*;

    const SOON: Duration = Duration::from_millis(5);

    fn site() -> SiteName {
        SiteName::parse("a").unwrap()
    }

    fn source() -> TopicPartition {
        TopicPartition { topic: "t".parse().unwrap(), partition: Partition::FIRST }
    }

    fn mark(tail: &Tail, marker: Marker) {
        let value = SessionMarker { marker, opened_ms: 0, collector: String::new() };
        tail.apply(&ProgressKey::Session { site: site() }.encode(), Some(&value.encode()));
    }

    #[test]
    fn positions_are_told_once_the_marker_has_come() {
        let tail = Tail::new();
        let position = Position { topic_id: TopicId([1; 16]), next: NextOffset::new(7).unwrap(), deferred: Deferred::new() };
        let key = ProgressKey::Position { site: site(), source: source() }.encode();
        let wait = tail.expect([1; 16]);
        tail.apply(&key, Some(&position.encode()));
        mark(&tail, [2; 16]);
        assert_eq!(wait.positions(&site(), SOON, || true), Err(Error::MarkerLate(SOON)), "another marker");
        let wait = tail.expect([1; 16]);
        mark(&tail, [1; 16]);
        assert_eq!(wait.positions(&site(), SOON, || true).unwrap().get(&source()), Some(&position));
        assert_eq!(tail.marker_of(&site()), Some([1; 16]));
        tail.apply(&key, None);
        let wait = tail.expect([3; 16]);
        mark(&tail, [3; 16]);
        assert!(wait.positions(&site(), SOON, || true).unwrap().is_empty(), "a tombstone forgets the position");
        assert!(tail.lock().waiters.is_empty());
    }

    #[test]
    fn a_record_of_a_later_version_closes_its_site_and_no_other() {
        let tail = Tail::new();
        let key = ProgressKey::Position { site: site(), source: source() }.encode();
        tail.apply(&key, Some(&[0, 9, 1, 2, 3]));
        tail.apply(&[9, 9], Some(b"a key kind of the future"));
        let wait = tail.expect([1; 16]);
        mark(&tail, [1; 16]);
        assert!(matches!(wait.positions(&site(), SOON, || true), Err(Error::Unreadable(_))));
        assert!(tail.positions(&SiteName::parse("b").unwrap()).unwrap().is_empty());
    }
}
