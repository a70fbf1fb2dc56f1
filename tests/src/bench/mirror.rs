//! MirrorMaker 2 as a peer on a thin line: with its default settings or tuned for the line, on TCP with CUBIC or BBR.

use anyhow::{Result, ensure};

use super::peer::Congestion;
use super::thin::Field;
use crate::process::Daemon;
use crate::wan::{End, Wan};

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

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// For a thin line; otherwise it has its default settings.
    pub tuned: bool,
    /// Of its TCP connections, and its peers'.
    pub congestion: Congestion,
}

/// One that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Mirroring {
    mirror: Mirror,
    daemon: Daemon,
    /// Of the central Kafka, where this one comes in.
    port: u16,
}

impl Mirror {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match (self.tuned, self.congestion) {
            (false, Congestion::Cubic) => "mm2-default",
            (false, Congestion::Bbr) => "mm2-default-bbr",
            (true, Congestion::Cubic) => "mm2-tuned",
            (true, Congestion::Bbr) => "mm2-tuned-bbr",
        }
    }

    /// Its cluster alias; each has its own, and so its own remote topics.
    #[must_use]
    pub fn site(self) -> &'static str {
        match (self.tuned, self.congestion) {
            (false, Congestion::Cubic) => "plant-8",
            (true, Congestion::Cubic) => "plant-9",
            (false, Congestion::Bbr) => "plant-10",
            (true, Congestion::Bbr) => "plant-11",
        }
    }

    /// Starts it at the edge, where it does best, as `alias`. It takes most of a minute until it carries anything over a long line.
    ///
    /// # Errors
    /// When Java is missing, or the kernel lacks the congestion control.
    pub fn start(self, field: &Field<'_>, alias: &str) -> Result<Mirroring> {
        let (centre, port) = field.door(self.congestion)?;
        let daemon = field.mirror_maker(alias, &centre, if self.tuned { TUNING } else { "" })?;
        Ok(Mirroring { mirror: self, daemon, port })
    }
}

impl Mirroring {
    /// Whether it still runs.
    ///
    /// # Errors
    /// When it has ended, with the end of its log.
    pub fn check(&mut self) -> Result<()> {
        ensure!(self.daemon.is_running(), "{} has ended\n{}", self.mirror.name(), self.daemon.log_tail());
        Ok(())
    }

    /// Whether it works with the settings, and crosses the line with the congestion control, that it is meant to have. Asked while its connections are open.
    ///
    /// # Errors
    /// When it does not.
    pub fn is_as_meant(&self, wan: &Wan) -> Result<()> {
        let (name, wished) = (self.mirror.name(), self.mirror.congestion.name());
        let found: Vec<String> = wan.tcp_congestions(End::Edge, self.port)?.into_iter().collect();
        ensure!(found == [wished], "the connections of {name} have the congestion control {found:?} in place of {wished}");
        let seen = !self.daemon.log_lines(TUNED).is_empty();
        ensure!(seen == self.mirror.tuned, "the log of {name} {} {TUNED:?}", if seen { "has" } else { "has no" });
        Ok(())
    }
}
