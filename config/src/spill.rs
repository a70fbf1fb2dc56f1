use std::path::PathBuf;
use std::time::Duration;

use crate::layer::Item;
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::units::ByteSize;

/// `[spill]` of the agent: where frames wait on disk while the centre does not acknowledge them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpillConfig {
    /// Folder of the spill, made if it is not there. Only one agent may use it. Default `/var/lib/spillway/spill`.
    pub dir: PathBuf,
    /// Most bytes of all its files. `None` (written `"off"`): no spill at all. Default 1 GiB, 8 MiB to 1 TiB.
    pub max_bytes: Option<ByteSize>,
    /// Free bytes that the file system keeps: with less it counts as full. Default 64 MiB, 0 to 1 TiB.
    pub min_free_disk: ByteSize,
    /// It counts as full when its oldest data is older. `None` (written `"unlimited"`): any age. Default `None`, 1 min to 365 d.
    pub max_age: Option<Duration>,
    /// So many encoded bytes without acknowledgement begin the spill. Default 16 MiB, 64 KiB to 1 GiB. More than the agent's share of
    /// `memory_max` never comes together: then only `after` counts.
    pub after_bytes: ByteSize,
    /// … or a frame that was not acknowledged for so long, or so long without a session. Default 10 s, 100 ms to 1 h.
    pub after: Duration,
    /// What happens when it is full. Default block. A topic rule may differ: see [`AgentConfig::when_full_of`](crate::AgentConfig::when_full_of).
    pub when_full: WhenFull,
    /// What is written is made durable together after so many bytes. Default 64 KiB, 1 KiB to 16 MiB.
    pub sync_bytes: ByteSize,
    /// … or after so long. Default 200 ms, 1 ms to 10 s.
    pub sync_interval: Duration,
    /// File with the key for encryption at rest: 32 bytes, or 64 hexadecimal digits. Default `None`: stored in clear. It can be read when the
    /// configuration was loaded; its content is checked where it is used. Others should not be able to read it.
    pub key_file: Option<PathBuf>,
}

/// What happens to the records of a topic when the spill is full. Whatever is dropped is counted, and announced to the centre as a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WhenFull {
    /// Reading stops until there is room. Nothing is lost as long as the source's retention lasts.
    Block,
    /// The oldest spilled data of such topics makes room, also for topics that block.
    DropOldest,
    /// What comes is not stored.
    DropNewest,
}

/// Eight generations of a MiB: with less, what is deleted as a whole would be too coarse.
const LEAST: ByteSize = ByteSize::from_mib(8);

/// More than the disk of any gateway: a slip of the pen.
const MOST: ByteSize = ByteSize::from_mib(1 << 20);

/// How to come by a key.
const MAKE_KEY: &str = "make one with `(umask 077 && head -c 32 /dev/urandom > FILE)`, readable for the user that this program runs as";

impl SpillConfig {
    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let minute = Duration::from_secs(60);
        let dir = table.required_path("dir");
        let max_bytes = table.required("max_bytes", parse::unless("off", parse::size(LEAST..=MOST)));
        let min_free_disk = table.required("min_free_disk", parse::size(ByteSize::from_bytes(0)..=MOST));
        let max_age = table.required("max_age", parse::unless("unlimited", parse::duration(minute..=365 * 24 * 60 * minute)));
        let after_bytes = table.required("after_bytes", parse::size(ByteSize::from_kib(64)..=ByteSize::from_mib(1 << 10)));
        let after = table.required("after", parse::duration(Duration::from_millis(100)..=60 * minute));
        let when_full = table.required("when_full", WhenFull::parse);
        let sync_bytes = table.required("sync_bytes", parse::size(ByteSize::from_kib(1)..=ByteSize::from_mib(16)));
        let sync_interval = table.required("sync_interval", parse::duration(Duration::from_millis(1)..=Duration::from_secs(10)));
        let key_file = table.optional_key_file("key_file", MAKE_KEY);
        Ok(Self {
            dir: dir?,
            max_bytes: max_bytes?,
            min_free_disk: min_free_disk?,
            max_age: max_age?,
            after_bytes: after_bytes?,
            after: after?,
            when_full: when_full?,
            sync_bytes: sync_bytes?,
            sync_interval: sync_interval?,
            key_file: key_file?,
        })
    }
}

impl WhenFull {
    /// As it is written in the file; also the name for logs and labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::DropOldest => "drop_oldest",
            Self::DropNewest => "drop_newest",
        }
    }

    pub(crate) fn parse(item: &Item) -> Result<Self, Flaw> {
        const WORDS: &[(&str, WhenFull)] = &[
            (WhenFull::Block.as_str(), WhenFull::Block),
            (WhenFull::DropOldest.as_str(), WhenFull::DropOldest),
            (WhenFull::DropNewest.as_str(), WhenFull::DropNewest),
        ];
        parse::word(WORDS)(item)
    }
}
