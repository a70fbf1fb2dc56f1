//! How full the store is, for [`crate::admission`].

use std::collections::BTreeMap;
use std::time::Duration;

use super::generation::Generation;
use super::{RotatingStore, disk};
use crate::admission::{Fill, Victim};
use crate::entry::Class;

impl RotatingStore {
    pub(super) fn fill(&self, class: Class, now_ms: i64) -> Fill {
        let mut free_disk = disk::free_bytes(&self.root);
        // What the open generations have reserved is not free any more, but it is theirs.
        free_disk = free_disk.saturating_add(self.unused_reserve());
        let oldest =
            self.generations.values().filter(|generation| generation.class == class).filter_map(|generation| generation.summary.oldest_ms);
        Fill { disk_bytes: self.disk_bytes(), free_disk, oldest: oldest.min().map(|oldest| age(oldest, now_ms)) }
    }

    /// Classes that have a generation to drop.
    pub(super) fn victims(&self, now_ms: i64) -> Vec<Victim> {
        let mut victims: BTreeMap<Class, Victim> = BTreeMap::new();
        for Generation { class, summary, .. } in self.generations.values().filter(|generation| !generation.summary.is_empty()) {
            let age = summary.oldest_ms.map_or(Duration::ZERO, |oldest| age(oldest, now_ms));
            let (class, policy) = (*class, self.options.policy(*class));
            let victim = victims.entry(class).or_insert(Victim { class, policy, age });
            victim.age = victim.age.max(age);
        }
        victims.into_values().collect()
    }

    /// The disk that an entry takes beyond what is reserved: a new generation, if it needs one.
    pub(super) fn needed(&self, class: Class, bytes: u64) -> u64 {
        let limit = self.options.generation_bytes();
        match self.writers.get(&class).filter(|(_, writer)| writer.has_room(bytes, limit)) {
            Some((_, writer)) => (writer.bytes() + bytes).saturating_sub(limit.max(writer.bytes())),
            None => limit.max(bytes),
        }
    }

    pub(super) fn unused_reserve(&self) -> u64 {
        let limit = self.options.generation_bytes();
        self.writers.values().map(|(_, writer)| limit.saturating_sub(writer.bytes())).sum()
    }

    /// Bytes of all files; an open generation counts what it has reserved or written, whatever is more.
    pub(super) fn disk_bytes(&self) -> u64 {
        let limit = self.options.generation_bytes();
        let open = self.writers.values().map(|(_, writer)| writer.bytes().max(limit)).sum::<u64>();
        open + self.generations.values().map(|generation| generation.disk_bytes).sum::<u64>()
    }
}

fn age(then_ms: i64, now_ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(now_ms.saturating_sub(then_ms)).unwrap_or(0))
}
