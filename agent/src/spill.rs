//! Opens the agent's spill from its configuration.

use std::path::{Path, PathBuf};

use spillway_agent_core::spool::{Holdings, SpoolLimits};
use spillway_config::{AgentConfig, SpillConfig};
use spillway_proto::compress::Decompressor;
use spillway_proto::frame::Translator;
use spillway_proto::message;
use spillway_spill::admission::Limits;
use spillway_spill::commit::CommitLimits;
use spillway_spill::keeper::{Keeper, KeeperLimits};
use spillway_spill::seal::{Key, KeyError};
use spillway_spill::store::{Error as StoreError, SpillStore};
use spillway_spill::{Options, RotatingStore};
use tokio::sync::mpsc;

use crate::flows::Flows;
use crate::memory::Shares;
use crate::runner::SpillParts;

/// Most events that may wait for the runner; then the store waits. Frames among them are asked for one at a time.
const MAX_EVENTS: usize = 256;

/// Why the spill cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key cannot be used.
    #[error("spill.key_file = \"{}\" is of no use: make one with `openssl rand -hex 32`", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: KeyError,
    },
    /// The store cannot be opened.
    #[error("the spill in {} cannot be used: {}", dir.display(), remedy(source))]
    Store {
        /// Its directory.
        dir: PathBuf,
        /// Why not.
        source: StoreError,
    },
    /// zstd has no memory.
    #[error("cannot set up compression for the spill")]
    Compression(#[source] std::io::Error),
    /// No thread.
    #[error("cannot start the spill's thread")]
    Thread(#[source] std::io::Error),
}

fn remedy(error: &StoreError) -> &'static str {
    match error {
        StoreError::Locked { .. } => "another agent runs with it; stop that one, or give each its own spill.dir",
        StoreError::Newer { .. } => "start the version of the agent that wrote it until it is drained",
        StoreError::KeyWrong { .. } | StoreError::Key(_) => {
            "set spill.key_file as it was when the spill was written, at least until it is drained"
        }
        StoreError::Io { .. } | StoreError::Database { .. } | StoreError::EntryTooLarge { .. } => {
            "spill.dir must be a directory that the agent may write, on a disk that works; spill.max_bytes = \"off\" runs without a spill"
        }
    }
}

/// Whoever turns the spill off should know of what is in it.
fn warn_of_left_data(dir: &Path) {
    let left = spillway_spill::generations(dir).len();
    if left > 0 {
        tracing::warn!(
            dir = %dir.display(), left,
            "there is a spill with data, but spill.max_bytes is \"off\": what the site's Kafka does not have any more will be a gap. \
             Turn it on until it is drained"
        );
    }
}

/// Reads the key, if there is one.
///
/// # Errors
/// When it cannot be used.
pub fn key(spill: &SpillConfig) -> Result<Option<Key>, Error> {
    let read = |path: &PathBuf| Key::read(path).map_err(|source| Error::Key { path: path.clone(), source });
    spill.key_file.as_ref().map(read).transpose()
}

/// Opens the spill and starts its thread; `None` when the configuration wants none.
///
/// # Errors
/// When the directory cannot be used: the message says what to do.
pub fn open(config: &AgentConfig, shares: &Shares, flows: &Flows) -> Result<Option<SpillParts>, Error> {
    let spill = &config.spill;
    let Some(max_bytes) = spill.max_bytes.map(|size| size.bytes()) else {
        warn_of_left_data(&spill.dir);
        return Ok(None);
    };
    let key = key(spill)?;
    let limits = Limits { max_bytes, min_free_disk: spill.min_free_disk.bytes(), max_age: spill.max_age };
    let generation_max_bytes = shares.generation_bytes as u64;
    let options = Options { limits, key, generation_max_bytes, ..Options::new(max_bytes) };
    let store = RotatingStore::open(&spill.dir, options).map_err(|source| Error::Store { dir: spill.dir.clone(), source })?;
    let holds = Holdings { last: store.durable(), classes: store.classes() };
    let (partitions, usage) = (store.partitions(), store.usage());
    tracing::info!(
        event = "spill_open", dir = %spill.dir.display(), bytes = usage.disk_bytes, records = usage.records, partitions = partitions.len(),
        "the spill is open"
    );
    let (tell, events) = mpsc::channel(MAX_EVENTS);
    let commit = CommitLimits { max_bytes: spill.sync_bytes.as_usize(), max_wait: spill.sync_interval };
    // Once the runner is gone nobody is interested any more.
    let keeper = Keeper::start(store, KeeperLimits { commit, ..KeeperLimits::default() }, move |event| drop(tell.blocking_send(event)));
    let limits = SpoolLimits { after_bytes: spill.after_bytes.as_usize(), after: spill.after, drain_bytes: shares.drain_bytes };
    let keeper = keeper.map_err(Error::Thread)?;
    let classes = flows.spill.clone();
    let translator = Translator::new(message::VERSION).map_err(Error::Compression)?;
    let decompressor = Decompressor::new().map_err(Error::Compression)?;
    Ok(Some(SpillParts { events, keeper, holds, partitions, usage, max_bytes, limits, classes, translator, decompressor }))
}
