//! Who sends, and what is watched of each.

use std::sync::Arc;

use anyhow::{Result, bail};

use super::quic::Stock;
use super::trickle::{Reader, Records, TOPIC, Watch};
use crate::bench::mirror::Mirroring;
use crate::bench::peer::Peer;
use crate::bench::thin::{Field, Spillway};
use crate::metrics::Metrics;
use crate::oracle::remote_topic;
use crate::wan::{End, Wan};

/// The collector's counter of frames that it has received whole.
const FRAMES: &str = "spillway_frames_total";

/// Spillway's.
const SITE: &str = "plant-7";

/// It logs this when it has read an agent's first words on a new connection.
const SESSION: &str = "event=\"session_opened\"";

/// Whether it has a way where UDP is blocked.
#[must_use]
pub fn passes_without_udp(peer: Peer) -> bool {
    !matches!(peer, Peer::Quinn(_))
}

/// Where its records are at the centre, if it carries records.
#[must_use]
pub fn remote(peer: Peer) -> Option<String> {
    match peer {
        Peer::Spillway => Some(remote_topic(SITE, TOPIC)),
        Peer::MirrorMaker(mirror) => Some(remote_topic(mirror.site(), TOPIC)),
        Peer::Quinn(_) | Peer::Tcp(_) => None,
    }
}

/// Starts it. Who takes no records from Kafka sends messages of so many bytes.
///
/// # Errors
/// When it does not come up.
pub fn enter<'a>(peer: Peer, field: &Field<'a>, bytes: usize) -> Result<Entry<'a>> {
    let (first, records) = (Arc::new(Watch::default()), Records::default());
    let reader = match remote(peer) {
        Some(topic) => Some(field.wan.inside(End::Centre, || Reader::start(&field.centre, &topic, records.clone()))?),
        None => None,
    };
    let byte = vec![(format!("{peer} byte"), Arc::clone(&first))];
    let kafka = vec![(format!("{peer} record"), Arc::clone(&records.any)), (format!("{peer} fresh record"), Arc::clone(&records.fresh))];
    let (held, watched) = match peer {
        Peer::Spillway => {
            let both = Box::new(field.spillway(SITE)?);
            (Held::Spillway { both, wan: field.wan, told: 0 }, [byte, kafka].concat())
        }
        Peer::Quinn(congestion) => (Held::Stock { _both: Stock::start(field.wan, congestion, bytes, first)? }, byte),
        Peer::MirrorMaker(mirror) => (Held::MirrorMaker(Box::new(mirror.start(field, mirror.site())?)), kafka),
        Peer::Tcp(_) => bail!("{peer} does not dial again"),
    };
    Ok(Entry { peer, watched, held, records, _reader: reader })
}

/// A contestant that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Entry<'a> {
    peer: Peer,
    watched: Vec<(String, Arc<Watch>)>,
    held: Held<'a>,
    records: Records,
    _reader: Option<Reader>,
}

#[derive(Debug)]
enum Held<'a> {
    Spillway { both: Box<Spillway>, wan: &'a Wan, told: u64 },
    Stock { _both: Stock },
    MirrorMaker(Box<Mirroring>),
}

impl Entry<'_> {
    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What is watched of it: first what is there earlier.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.watched.iter().map(|(name, _)| name.as_str())
    }

    /// Those of them that have seen nothing.
    pub fn missing(&self) -> impl Iterator<Item = &str> {
        self.watched.iter().filter(|(_, watch)| watch.first().is_none()).map(|(name, _)| name.as_str())
    }

    /// What notes it, in the same order.
    pub fn watches(&self) -> impl Iterator<Item = &Arc<Watch>> {
        self.watched.iter().map(|(_, watch)| watch)
    }

    /// What arrives next is the first, and what is written from now on is fresh.
    pub fn arm(&mut self) {
        // What has not been looked for yet came before.
        self.watches().for_each(|watch| watch.arm());
        self.look();
        self.records.fresh_from_now();
        self.watches().for_each(|watch| watch.arm());
    }

    /// Looks for what nobody tells of: the first words of an agent, and frames that the collector has received whole.
    pub fn look(&mut self) {
        let Held::Spillway { both, wan, told } = &mut self.held else { return };
        let Some((_, watch)) = self.watched.first().filter(|(_, watch)| watch.first().is_none()) else { return };
        let port = both.collector.admin_port();
        // One that does not answer is asked again; one that has ended is told of by `check`.
        let Ok(frames) = wan.inside(End::Centre, || Ok(Metrics::fetch(port)?.sum(FRAMES, &[]))) else { return };
        let sessions = both.collector.log_lines(SESSION).len();
        let sum = frames as u64 + u64::try_from(sessions).unwrap_or_default();
        if sum > *told {
            *told = sum;
            watch.note();
        }
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When a process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match &mut self.held {
            Held::Spillway { both, .. } => both.check(),
            Held::Stock { .. } => Ok(()),
            Held::MirrorMaker(mirroring) => mirroring.check(),
        }
    }

    /// Whether a MirrorMaker 2 works with what it is meant to have; asked while its connections are open.
    ///
    /// # Errors
    /// When it does not.
    pub fn is_as_meant(&self, wan: &Wan) -> Result<()> {
        if let Held::MirrorMaker(mirroring) = &self.held { mirroring.is_as_meant(wan) } else { Ok(()) }
    }
}
