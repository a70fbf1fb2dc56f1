//! Who carries the backlog.

use std::fmt;
use std::str::FromStr;

use anyhow::{Error, Result, bail, ensure};

use crate::bench::thin::{Field, Spillway};
use crate::process::Daemon;
use crate::wan::End;

/// How MirrorMaker 2 is tuned for a thin line: large batches that wait for their fill, zstd, large fetches, and time for them.
const TUNING: &str = "\
centre.producer.compression.type=zstd
centre.producer.linger.ms=500
centre.producer.batch.size=1048576
centre.producer.buffer.memory=67108864
centre.producer.max.request.size=2097152
centre.producer.request.timeout.ms=120000
centre.producer.delivery.timeout.ms=300000
SITE.consumer.max.poll.records=5000
SITE.consumer.fetch.min.bytes=1048576
SITE.consumer.fetch.max.wait.ms=500
SITE.consumer.fetch.max.bytes=52428800
SITE.consumer.max.partition.fetch.bytes=8388608
";

/// MirrorMaker 2 logs what its producer works with, in this form; only a tuned one's has it.
const TUNED: &str = "compression.type = zstd";

/// One contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// Agent and collector as they ship.
    Spillway,
    /// A dedicated MirrorMaker 2.
    MirrorMaker {
        /// For a thin line; otherwise it has its default settings.
        tuned: bool,
        /// Of its TCP connections, and its peers'.
        congestion: Congestion,
    },
}

/// A congestion control of the kernel's TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// What almost every machine has.
    Cubic,
    /// The kernel's (version 1).
    Bbr,
}

/// A contestant that runs. Dropping it kills it.
#[derive(Debug)]
pub enum Running {
    /// Both programs.
    Spillway(Box<Spillway>),
    /// The process, and whether it was tuned.
    MirrorMaker(Box<Daemon>, bool),
}

impl Congestion {
    /// As the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

impl Carrier {
    /// In the order of the table.
    pub const ALL: [Self; 5] = [
        Self::Spillway,
        Self::MirrorMaker { tuned: false, congestion: Congestion::Cubic },
        Self::MirrorMaker { tuned: false, congestion: Congestion::Bbr },
        Self::MirrorMaker { tuned: true, congestion: Congestion::Cubic },
        Self::MirrorMaker { tuned: true, congestion: Congestion::Bbr },
    ];

    /// What it is called on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::MirrorMaker { tuned: false, congestion: Congestion::Cubic } => "mm2-default",
            Self::MirrorMaker { tuned: false, congestion: Congestion::Bbr } => "mm2-default-bbr",
            Self::MirrorMaker { tuned: true, congestion: Congestion::Cubic } => "mm2-tuned",
            Self::MirrorMaker { tuned: true, congestion: Congestion::Bbr } => "mm2-tuned-bbr",
        }
    }

    /// Its site, or cluster alias; each has its own, and so its own remote topics.
    #[must_use]
    pub fn site(self) -> &'static str {
        match self {
            Self::Spillway => "plant-7",
            Self::MirrorMaker { tuned: false, congestion: Congestion::Cubic } => "plant-8",
            Self::MirrorMaker { tuned: true, congestion: Congestion::Cubic } => "plant-9",
            Self::MirrorMaker { tuned: false, congestion: Congestion::Bbr } => "plant-10",
            Self::MirrorMaker { tuned: true, congestion: Congestion::Bbr } => "plant-11",
        }
    }

    /// What its TCP connections over the line are to have; `None` where it makes none.
    #[must_use]
    pub fn congestion(self) -> Option<Congestion> {
        match self {
            Self::Spillway => None,
            Self::MirrorMaker { congestion, .. } => Some(congestion),
        }
    }

    /// Starts it; what it has to be connected to for that is its own affair.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(self, field: &Field<'_>) -> Result<Running> {
        Ok(match self {
            Self::Spillway => Running::Spillway(Box::new(field.spillway(self.site())?)),
            Self::MirrorMaker { tuned, .. } => {
                Running::MirrorMaker(Box::new(field.mirror_maker(self.site(), if tuned { TUNING } else { "" })?), tuned)
            }
        })
    }

    /// Whether its connections over the line have the congestion control that they are meant to have; asked while they are open.
    ///
    /// # Errors
    /// When one has another, or none is open.
    pub fn crosses_as_meant(self, field: &Field<'_>) -> Result<()> {
        let Some(congestion) = self.congestion() else { return Ok(()) };
        let found: Vec<String> = field.wan.tcp_congestions(End::Edge)?.into_iter().collect();
        ensure!(found == [congestion.name()], "its connections have the congestion control {found:?} in place of {}", congestion.name());
        Ok(())
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Carrier {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|carrier| carrier.name() == text) {
            Some(carrier) => Ok(carrier),
            None => bail!("no contestant {text:?}; there are {}", Self::ALL.map(Self::name).join(", ")),
        }
    }
}

impl Running {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When a process has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        match self {
            Self::Spillway(both) => [&mut both.agent, &mut both.collector].into_iter().try_for_each(|program| {
                ensure!(program.is_running(), "it has ended: {}", program.log_lines("").into_iter().next_back().unwrap_or_default());
                Ok(())
            }),
            Self::MirrorMaker(daemon, _) => {
                ensure!(daemon.is_running(), "it has ended\n{}", daemon.log_tail());
                Ok(())
            }
        }
    }

    /// Whether MirrorMaker 2 has worked with the settings that it was meant to have.
    ///
    /// # Errors
    /// When it has not.
    pub fn was_as_meant(&self) -> Result<()> {
        let Self::MirrorMaker(daemon, tuned) = self else { return Ok(()) };
        let seen = !daemon.log_lines(TUNED).is_empty();
        ensure!(seen == *tuned, "its log {} {TUNED:?}", if seen { "has" } else { "has no" });
        Ok(())
    }
}
