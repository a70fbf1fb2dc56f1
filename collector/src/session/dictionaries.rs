//! The dictionaries that sites' frames name: kept in memory for all sessions, asked for where they are missing.
//!
//! A collector that was restarted, or that a site has never been to, has none, and asks; so nothing has to be kept on disk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spillway_proto::SiteName;
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::message::CollectorMessage;

use super::frames::Arrived;

/// Most dictionaries of one site. An agent trains one after the other, and rarely.
const MAX_OF_SITE: usize = 4;

/// Most dictionaries of all sites together; of at most 16 KiB each, so 64 MiB, and 32 as agents make them.
const MAX_OF_ALL: usize = 4096;

/// All sites' dictionaries, the ones used last kept.
#[derive(Debug, Default)]
pub struct Dictionaries {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<(SiteName, DictionaryId), (Arc<Dictionary>, u64)>,
    uses: u64,
}

impl Dictionaries {
    /// Keeps a site's dictionary; the one that was used least lately makes room.
    pub fn add(&self, site: &SiteName, dictionary: Arc<Dictionary>) {
        let mut state = self.lock();
        state.uses += 1;
        let uses = state.uses;
        state.known.insert((site.clone(), dictionary.id()), (dictionary, uses));
        let of_site = |state: &State| state.known.keys().filter(|(of, _)| of == site).count();
        if of_site(&state) > MAX_OF_SITE {
            state.drop_oldest(|(of, _)| of == site);
        }
        if state.known.len() > MAX_OF_ALL {
            state.drop_oldest(|_| true);
        }
    }

    /// A site's dictionary.
    pub fn find(&self, site: &SiteName, id: DictionaryId) -> Option<Arc<Dictionary>> {
        let mut state = self.lock();
        state.uses += 1;
        let uses = state.uses;
        let (dictionary, used) = state.known.get_mut(&(site.clone(), id))?;
        *used = uses;
        Some(Arc::clone(dictionary))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn drop_oldest(&mut self, of: impl Fn(&(SiteName, DictionaryId)) -> bool) {
        let oldest = self.known.iter().filter(|(key, _)| of(key)).min_by_key(|(_, (_, used))| *used).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.known.remove(&key);
        }
    }
}

/// Frames of one session that wait for a dictionary. Bounded with all frames that the session holds ([`super::limits::MAX_FRAMES_HELD`]).
#[derive(Debug, Default)]
pub struct Parked {
    frames: Vec<(DictionaryId, Arrived)>,
}

impl Parked {
    /// Parks a frame. Answers what the agent is to be asked, once for each dictionary.
    pub fn park(&mut self, id: DictionaryId, arrived: Arrived) -> Option<CollectorMessage> {
        let asked = self.frames.iter().any(|(of, _)| *of == id);
        self.frames.push((id, arrived));
        (!asked).then_some(CollectorMessage::WantDictionary(id))
    }

    /// The frames that waited for a dictionary.
    pub fn take(&mut self, id: DictionaryId) -> Vec<Arrived> {
        self.frames.extract_if(.., |(of, _)| *of == id).map(|(_, arrived)| arrived).collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn dictionary(n: u32) -> Arc<Dictionary> {
        Arc::new(Dictionary::new(n.to_be_bytes().to_vec().into()).unwrap())
    }

    #[test]
    fn a_site_keeps_what_it_used_last_and_takes_nobody_elses() {
        let (dictionaries, a, b) = (Dictionaries::default(), SiteName::parse("a").unwrap(), SiteName::parse("b").unwrap());
        dictionaries.add(&b, dictionary(0));
        for n in 0..MAX_OF_SITE as u32 {
            dictionaries.add(&a, dictionary(n));
        }
        assert!(dictionaries.find(&a, dictionary(0).id()).is_some());
        dictionaries.add(&a, dictionary(99));
        let known = |site, n| dictionaries.find(site, dictionary(n).id()).is_some();
        assert!(known(&a, 0) && !known(&a, 1) && known(&a, 99) && known(&b, 0) && !known(&b, 99));
    }

    #[test]
    fn all_sites_together_keep_a_bounded_number() {
        let dictionaries = Dictionaries::default();
        for n in 0..MAX_OF_ALL + 10 {
            dictionaries.add(&SiteName::parse(&format!("s{n}")).unwrap(), dictionary(1));
        }
        assert_eq!(dictionaries.lock().known.len(), MAX_OF_ALL);
    }
}
