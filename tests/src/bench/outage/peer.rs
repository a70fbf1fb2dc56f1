//! Who sends, and what is watched of each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use anyhow::{Error, Result, bail, ensure};

use super::quic::Stock;
use super::trickle::{Reader, Records, TOPIC, Watch};
use crate::bench::thin::{Field, Spillway};
use crate::metrics::Metrics;
use crate::oracle::remote_topic;
use crate::process::Daemon;
use crate::wan::{End, Wan};

/// The collector's counter of frames that it has received whole.
const FRAMES: &str = "spillway_frames_total";

/// It logs this when it has read an agent's first words on a new connection.
const SESSION: &str = "event=\"session_opened\"";

/// A contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Agent and collector as they ship.
    Spillway,
    /// A client and a server on quinn's own settings, with CUBIC.
    QuinnCubic,
    /// A dedicated MirrorMaker 2 with its default settings, on TCP with CUBIC.
    MirrorMaker,
}

impl Peer {
    /// In the order of the table.
    pub const ALL: [Self; 3] = [Self::Spillway, Self::QuinnCubic, Self::MirrorMaker];

    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::QuinnCubic => "quinn-cubic",
            Self::MirrorMaker => "mm2-default",
        }
    }

    /// Whether it has a way where UDP is blocked.
    #[must_use]
    pub fn passes_without_udp(self) -> bool {
        self != Self::QuinnCubic
    }

    /// Where its records are at the centre, if it carries records.
    #[must_use]
    pub fn remote_topic(self) -> Option<String> {
        self.site().map(|site| remote_topic(site, TOPIC))
    }

    /// Starts it. Who takes no records from Kafka sends messages of so many bytes.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn enter<'a>(self, field: &Field<'a>, bytes: usize) -> Result<Entry<'a>> {
        let (first, records) = (Arc::new(Watch::default()), Records::default());
        let reader = match self.remote_topic() {
            Some(topic) => Some(field.wan.inside(End::Centre, || Reader::start(&field.centre, &topic, records.clone()))?),
            None => None,
        };
        let (any, fresh) = (Arc::clone(&records.any), Arc::clone(&records.fresh));
        let (held, watched) = match self {
            Self::Spillway => {
                let both = field.spillway(self.site().unwrap_or_default())?;
                let held = Held::Spillway { both: Box::new(both), wan: field.wan, told: 0 };
                (held, vec![("spillway byte", first), ("spillway record", any), ("spillway fresh record", fresh)])
            }
            Self::QuinnCubic => {
                (Held::Stock { _both: Stock::start(field.wan, bytes, Arc::clone(&first))? }, vec![("quinn-cubic byte", first)])
            }
            Self::MirrorMaker => {
                let daemon = field.mirror_maker(self.site().unwrap_or_default(), "")?;
                (Held::MirrorMaker(Box::new(daemon)), vec![("mm2-default record", any), ("mm2-default fresh record", fresh)])
            }
        };
        Ok(Entry { peer: self, watched, held, records, _reader: reader })
    }

    /// Its site, or cluster alias.
    fn site(self) -> Option<&'static str> {
        match self {
            Self::Spillway => Some("plant-7"),
            Self::QuinnCubic => None,
            Self::MirrorMaker => Some("plant-8"),
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Peer {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|peer| peer.name() == text) {
            Some(peer) => Ok(peer),
            None => bail!("no contestant {text:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

/// A contestant that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Entry<'a> {
    peer: Peer,
    watched: Vec<(&'static str, Arc<Watch>)>,
    held: Held<'a>,
    records: Records,
    _reader: Option<Reader>,
}

#[derive(Debug)]
enum Held<'a> {
    Spillway { both: Box<Spillway>, wan: &'a Wan, told: u64 },
    Stock { _both: Stock },
    MirrorMaker(Box<Daemon>),
}

impl Entry<'_> {
    /// Who it is.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }

    /// What is watched of it: first what is there earlier.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.watched.iter().map(|(name, _)| *name)
    }

    /// The same.
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
            Held::Spillway { both, .. } => [&mut both.agent, &mut both.collector].into_iter().try_for_each(|program| {
                ensure!(program.is_running(), "it has ended: {}", program.log_lines("").into_iter().next_back().unwrap_or_default());
                Ok(())
            }),
            Held::Stock { .. } => Ok(()),
            Held::MirrorMaker(daemon) => {
                ensure!(daemon.is_running(), "MirrorMaker 2 has ended\n{}", daemon.log_tail());
                Ok(())
            }
        }
    }
}
