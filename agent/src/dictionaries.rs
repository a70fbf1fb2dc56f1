//! The dictionaries of this run of the agent: the thread that builds frames adds them, the runner gives them to collectors that ask.
//!
//! All are kept until the agent ends, since any frame in memory may name any of them: at most 32 ([`MAX_TRAINED`]) of
//! at most 16 KiB. None outlives the process: frames go to the spill without.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillway_proto::compress::MAX_TRAINED;
use spillway_proto::dictionary::{Dictionary, DictionaryId};

/// The dictionaries. See the module.
#[derive(Debug, Default)]
pub struct Dictionaries {
    list: Mutex<Vec<Arc<Dictionary>>>,
}

impl Dictionaries {
    /// Keeps a dictionary. Call it before a frame that names it is handed over.
    pub fn add(&self, dictionary: Arc<Dictionary>) {
        let mut list = self.lock();
        debug_assert!(list.len() < MAX_TRAINED, "the compressor makes no more");
        list.push(dictionary);
    }

    /// The dictionary of an id.
    pub fn find(&self, id: DictionaryId) -> Option<Arc<Dictionary>> {
        self.lock().iter().find(|dictionary| dictionary.id() == id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Dictionary>>> {
        // Nothing that can panic runs under the lock.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
