//! Which offset syncs go into a transaction: MirrorMaker 2's rule (Kafka: `OffsetSyncWriter`, `PartitionState`).
//!
//! A record's pair of offsets is due at once when it is the partition's first in this session, when the centre has moved on by
//! [`MAX_LAG`] since the last sync, when the source has a hole before it, or when the centre went back. Any other pair is delayed,
//! for at most [`MAX_DELAY`]. Where a pair is due, the latest one of the transaction is written: one sync a partition and transaction.
//!
//! What an aborted transaction has told is forgotten again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use spillway_proto::mm2::OffsetSync;
use spillway_proto::{Offset, TopicPartition};

/// Records at the centre after which a sync is due (MM2: `offset.lag.max`).
pub const MAX_LAG: u64 = 100;

/// How long a pair may wait for a transaction (MM2: Connect's `offset.flush.interval.ms`).
pub const MAX_DELAY: Duration = Duration::from_secs(60);

/// The syncs of one site's session.
#[derive(Debug, Default)]
pub struct Syncs {
    partitions: Vec<Partition>,
    by_source: HashMap<TopicPartition, SyncSlot>,
}

/// A source partition's place among the syncs; found once a lane, so that a record costs no search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncSlot(usize);

#[derive(Debug)]
struct Partition {
    source: TopicPartition,
    committed: State,
    tentative: State,
}

#[derive(Debug, Default, Clone, Copy)]
struct State {
    last: Option<Pair>,
    /// Where the centre was at the last sync.
    last_sync: Option<Offset>,
    due: bool,
    /// Since when `last` waits to be written.
    waiting_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Pair {
    upstream: Offset,
    downstream: Offset,
}

impl Syncs {
    /// The place of a source partition.
    pub fn slot(&mut self, source: &TopicPartition) -> SyncSlot {
        if let Some(slot) = self.by_source.get(source) {
            return *slot;
        }
        let slot = SyncSlot(self.partitions.len());
        self.partitions.push(Partition { source: source.clone(), committed: State::default(), tentative: State::default() });
        self.by_source.insert(source.clone(), slot);
        slot
    }

    /// A record of the open transaction was delivered. Records of one partition are told in order.
    pub fn observe(&mut self, slot: SyncSlot, upstream: Offset, downstream: Offset, now: Instant) {
        let Some(Partition { tentative: state, .. }) = self.partitions.get_mut(slot.0) else {
            return;
        };
        state.due |= is_due(state, upstream, downstream);
        state.last = Some(Pair { upstream, downstream });
        state.waiting_since = state.waiting_since.or(Some(now));
    }

    /// The syncs that the open transaction must hold; with `all`, the delayed ones too.
    pub fn take(&mut self, now: Instant, all: bool) -> Vec<OffsetSync> {
        let mut out = Vec::new();
        for Partition { source, tentative: state, .. } in &mut self.partitions {
            let overdue = state.waiting_since.is_some_and(|since| all || now.saturating_duration_since(since) >= MAX_DELAY);
            if let Some(pair) = state.last
                && (state.due || overdue)
            {
                *state = State { last: Some(pair), last_sync: Some(pair.downstream), due: false, waiting_since: None };
                out.push(OffsetSync { source: source.clone(), upstream: pair.upstream, downstream: pair.downstream });
            }
        }
        out
    }

    /// When the earliest delayed sync must be written; `None` when none is.
    pub fn deadline(&self) -> Option<Instant> {
        self.partitions.iter().filter_map(|partition| partition.committed.waiting_since).min().map(|since| since + MAX_DELAY)
    }

    /// The open transaction was committed.
    pub fn committed(&mut self) {
        for partition in &mut self.partitions {
            partition.committed = partition.tentative;
        }
    }

    /// The open transaction was aborted.
    pub fn aborted(&mut self) {
        for partition in &mut self.partitions {
            partition.tentative = partition.committed;
        }
    }
}

fn is_due(state: &State, upstream: Offset, downstream: Offset) -> bool {
    let (Some(last), Some(last_sync)) = (state.last, state.last_sync) else {
        return true;
    };
    upstream.value() != last.upstream.value() + 1 || downstream < last.downstream || downstream.value() >= last_sync.value() + 1 + MAX_LAG
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    struct Bench {
        syncs: Syncs,
        source: TopicPartition,
        now: Instant,
    }

    impl Bench {
        fn new() -> Self {
            let source = TopicPartition { topic: "t".parse().unwrap(), partition: spillway_proto::Partition::FIRST };
            Self { syncs: Syncs::default(), source, now: Instant::now() }
        }

        fn see(&mut self, upstream: u64, downstream: u64) {
            let (upstream, downstream) = (Offset::new(upstream).unwrap(), Offset::new(downstream).unwrap());
            let slot = self.syncs.slot(&self.source);
            self.syncs.observe(slot, upstream, downstream, self.now);
        }

        fn commit(&mut self) -> Vec<(u64, u64)> {
            let syncs = self.syncs.take(self.now, false);
            self.syncs.committed();
            syncs.iter().map(|sync| (sync.upstream.value(), sync.downstream.value())).collect()
        }
    }

    #[test]
    fn the_first_record_of_a_session_is_synced() {
        let mut bench = Bench::new();
        bench.see(5, 50);
        assert_eq!(bench.commit(), [(5, 50)]);
        bench.see(6, 51);
        assert_eq!(bench.commit(), []);
    }

    #[test]
    fn a_hole_a_step_back_and_a_hundred_records_are_synced() {
        let mut bench = Bench::new();
        bench.see(5, 50);
        bench.commit();
        bench.see(7, 51);
        assert_eq!(bench.commit(), [(7, 51)], "a hole");
        bench.see(8, 40);
        assert_eq!(bench.commit(), [(8, 40)], "a step back");
        for n in 1..=100 {
            bench.see(8 + n, 40 + n);
            assert_eq!(bench.commit(), [], "{n}");
        }
        bench.see(109, 141);
        assert_eq!(bench.commit(), [(109, 141)], "the 101st, as MirrorMaker 2 does");
    }

    #[test]
    fn the_latest_of_a_transaction_wins() {
        let mut bench = Bench::new();
        bench.see(0, 0);
        bench.see(1, 1);
        bench.see(2, 2);
        assert_eq!(bench.commit(), [(2, 2)]);
        assert_eq!(bench.syncs.deadline(), None, "nothing is left over");
    }

    #[test]
    fn a_delayed_sync_waits_at_most_a_minute() {
        let mut bench = Bench::new();
        bench.see(0, 0);
        bench.commit();
        bench.see(1, 1);
        assert_eq!(bench.commit(), []);
        assert_eq!(bench.syncs.deadline(), Some(bench.now + MAX_DELAY));
        bench.now += MAX_DELAY;
        assert_eq!(bench.commit(), [(1, 1)]);
        assert_eq!(bench.syncs.deadline(), None);
    }

    #[test]
    fn an_aborted_transaction_has_told_nothing() {
        let mut bench = Bench::new();
        bench.see(0, 0);
        assert_eq!(bench.syncs.take(bench.now, false).len(), 1);
        bench.syncs.aborted();
        bench.see(0, 3);
        assert_eq!(bench.commit(), [(0, 3)]);
    }

    #[test]
    fn the_end_of_a_session_takes_the_delayed_ones() {
        let mut bench = Bench::new();
        bench.see(0, 0);
        bench.commit();
        bench.see(1, 1);
        bench.commit();
        assert_eq!(bench.syncs.take(bench.now, true).len(), 1);
    }
}
