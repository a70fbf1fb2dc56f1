//! How a site's writer is opened: at the session's start, after a pause, and after a fatal error of the producer. Always the same.
//!
//! 1. `init_transactions` with the site's `transactional.id`: every older writer is fenced, its open transaction aborted.
//! 2. A transaction that holds a fresh session marker is committed into the site's progress partition.
//! 3. The collector's reading of that partition is waited for until it delivers the marker. Now it has read everything the site ever
//!    committed, and nobody can commit more: what it knows is authoritative.

use std::time::{Duration, Instant};

use spillway_collector_core::progress::Positions;
use spillway_proto::progress::{self, ProgressKey, SessionMarker};
use spillway_proto::{SiteName, TopicName};
use tokio::sync::OwnedSemaphorePermit;

use super::attempt::Attempt;
use super::inbox::{Ending, Inbox};
use crate::centre::Centre;
use crate::centre::native::Outgoing;
use crate::centre::producer::{ProducerSettings, SiteProducer, TransactionError};
use crate::centre::tail::{self, Marker};

/// How long the marker may take from its commit to our reading of it.
const MARKER_TIMEOUT: Duration = Duration::from_secs(10);

/// Calls of `init_transactions` before a new client is tried; each takes up to two seconds.
const INIT_CALLS: u32 = 15;

/// A writer just opened.
#[derive(Debug)]
pub struct Opened {
    /// The producer.
    pub producer: SiteProducer,
    /// Its marker.
    pub marker: Marker,
    /// The site's positions.
    pub positions: Positions,
}

/// Why a writer could not be opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenError {
    /// Try again after a pause.
    Again(String),
    /// Another writer of the site was opened meanwhile.
    Fenced,
    /// The site's progress cannot be understood.
    Unreadable(String),
    /// The session is over.
    Ended(Ending),
}

/// Opens the writer of a site. `turn` is its place among the openings under way.
///
/// The turn is given back before the marker is waited for: that costs nothing, and what hides the marker may be another site's transaction
/// that a dead collector left open, which ends when that site gets a turn.
pub fn open(centre: &Centre, site: &SiteName, batch_bytes: usize, inbox: &Inbox, turn: OwnedSemaphorePermit) -> Result<Opened, OpenError> {
    let started = Instant::now();
    let max_record = centre.max_frame_bytes;
    let settings = ProducerSettings::new(&centre.kafka, &centre.transactions, site, max_record, batch_bytes);
    let mut producer = SiteProducer::new(&settings).map_err(|error| OpenError::Again(error.to_string()))?;
    init(&producer, inbox)?;
    let marker: Marker = rand::random();
    let wait = centre.tail.expect(marker);
    commit_marker(centre, site, &mut producer, marker, inbox)?;
    drop(turn);
    let wanted = || inbox.ending().is_none();
    let positions = wait.positions(site, MARKER_TIMEOUT, wanted).map_err(|error| match error {
        tail::Error::Unreadable(_) => OpenError::Unreadable(error.to_string()),
        tail::Error::MarkerLate(_) => match inbox.ending() {
            Some(ending) => OpenError::Ended(ending),
            None => OpenError::Again(error.to_string()),
        },
    })?;
    let elapsed = started.elapsed();
    centre.meters.resume_duration.observe(elapsed.as_secs_f64());
    let resume_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(event = "writer_opened", %site, partitions = positions.len(), resume_ms, "opened the site's writer");
    Ok(Opened { producer, marker, positions })
}

fn init(producer: &SiteProducer, inbox: &Inbox) -> Result<(), OpenError> {
    let mut last = String::new();
    for _ in 0..INIT_CALLS {
        if let Some(ending) = inbox.ending() {
            return Err(OpenError::Ended(ending));
        }
        match producer.init_transactions() {
            Ok(()) => return Ok(()),
            Err(TransactionError::Again(text)) => last = text,
            Err(TransactionError::Abort(text) | TransactionError::Fenced(text) | TransactionError::Reopen(text)) => {
                return Err(OpenError::Again(text));
            }
        }
    }
    Err(OpenError::Again(last))
}

fn commit_marker(centre: &Centre, site: &SiteName, producer: &mut SiteProducer, marker: Marker, inbox: &Inbox) -> Result<(), OpenError> {
    let opened_ms = jiff::Timestamp::now().as_millisecond();
    let value = SessionMarker { marker, opened_ms, collector: centre.name.clone() }.encode();
    let key = ProgressKey::Session { site: site.clone() }.encode();
    let topic = TopicName::parse(progress::TOPIC).map_err(|error| OpenError::Again(error.to_string()))?;
    let partition = centre.tail.partition_of(site).to_kafka();
    producer.begin().map_err(again)?;
    let record = Outgoing::own(&key, &value, opened_ms);
    producer.produce(&topic, partition, &record, Attempt::OWN).map_err(|code| OpenError::Again(code.to_string()))?;
    let mut reports = Vec::new();
    while producer.in_flight() > 0 {
        producer.poll(&mut reports);
        if let Some(Err(code)) = reports.iter().map(|report| report.outcome).find(Result::is_err) {
            return Err(OpenError::Again(format!("{}: {code}", progress::TOPIC)));
        }
        if let Some(ending) = inbox.ending() {
            return Err(OpenError::Ended(ending));
        }
    }
    loop {
        match producer.commit() {
            Ok(()) => return Ok(()),
            Err(TransactionError::Again(_)) if inbox.ending().is_none() => {}
            Err(error) => return Err(again(error)),
        }
    }
}

fn again(error: TransactionError) -> OpenError {
    match error {
        TransactionError::Again(text) | TransactionError::Abort(text) | TransactionError::Reopen(text) => OpenError::Again(text),
        TransactionError::Fenced(_) => OpenError::Fenced,
    }
}
