//! Who carries the backlog from one Kafka to the other.

use anyhow::{Result, bail};

use crate::bench::mirror::Mirroring;
use crate::bench::peer::Peer;
use crate::bench::thin::{Field, Spillway};

/// A contestant that runs. Dropping it kills it.
#[derive(Debug)]
pub enum Running {
    /// Both programs.
    Spillway(Box<Spillway>),
    /// One process.
    MirrorMaker(Box<Mirroring>),
}

impl Running {
    /// The peer's site, or cluster alias; each has its own, and so its own remote topics.
    #[must_use]
    pub fn site(peer: Peer) -> &'static str {
        if let Peer::MirrorMaker(mirror) = peer { mirror.site() } else { "plant-7" }
    }

    /// Starts it; what it has to be connected to for that is its own affair.
    ///
    /// # Errors
    /// When it does not come up, or knows nothing of Kafka.
    pub fn start(peer: Peer, field: &Field<'_>) -> Result<Self> {
        Ok(match peer {
            Peer::Spillway => Self::Spillway(Box::new(field.spillway(Self::site(peer))?)),
            Peer::MirrorMaker(mirror) => Self::MirrorMaker(Box::new(mirror.start(field, mirror.site())?)),
            Peer::Quinn(_) | Peer::Tcp(_) => bail!("{peer} carries no records of Kafka"),
        })
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When a process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Self::Spillway(both) => both.check(),
            Self::MirrorMaker(mirroring) => mirroring.check(),
        }
    }

    /// Whether MirrorMaker 2 works with what it is meant to have; asked while its connections are open.
    ///
    /// # Errors
    /// When it does not.
    pub fn is_as_meant(&self, field: &Field<'_>) -> Result<()> {
        match self {
            Self::Spillway(_) => Ok(()),
            Self::MirrorMaker(mirroring) => mirroring.is_as_meant(field.wan),
        }
    }
}
