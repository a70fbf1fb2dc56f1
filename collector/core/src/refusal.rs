//! Which record the central Kafka refuses.
//!
//! A broker refuses a batch, not a record, and a refusal costs the whole transaction. So the lane's share of the following transactions
//! is halved until one record alone is refused: that one is the culprit, and all before it are committed by then. The other lanes'
//! records are written again with each attempt; they lose some time and nothing else.

use std::collections::HashMap;

use spillway_proto::Lane;

/// The lanes under suspicion, and how far the search has come.
#[derive(Debug, Default)]
pub struct Refusals {
    lanes: HashMap<Lane, Suspicion>,
}

/// What is known of a lane's next records: `clear` of them were taken by the broker, the culprit is among the `suspects` after them.
#[derive(Debug, Clone, Copy)]
struct Suspicion {
    clear: u32,
    suspects: u32,
}

/// What follows from a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The search goes on with a smaller share.
    Narrowed,
    /// The lane's next record is the culprit: hold the lane there.
    Culprit,
}

impl Refusals {
    /// Most records that a lane may have in the next transaction; `None`: no limit.
    pub fn share(&self, lane: Lane) -> Option<u32> {
        self.lanes.get(&lane).map(|suspicion| suspicion.share())
    }

    /// A transaction failed on a lane. `taken` of its records were in it, `first` to `last` (from 0) were refused.
    pub fn failed(&mut self, lane: Lane, taken: u32, first: u32, last: u32) -> Verdict {
        if taken <= 1 {
            self.lanes.remove(&lane);
            return Verdict::Culprit;
        }
        self.lanes.insert(lane, Suspicion { clear: first, suspects: last.max(first) - first + 1 });
        Verdict::Narrowed
    }

    /// A transaction with `taken` records of the lane was committed.
    pub fn succeeded(&mut self, lane: Lane, taken: u32) {
        if let Some(suspicion) = self.lanes.get_mut(&lane) {
            let cleared = taken.min(suspicion.clear);
            suspicion.clear -= cleared;
            suspicion.suspects = suspicion.suspects.saturating_sub(taken - cleared);
            if suspicion.suspects == 0 {
                self.lanes.remove(&lane);
            }
        }
    }

    /// The lane is over.
    pub fn forget(&mut self, lane: Lane) {
        self.lanes.remove(&lane);
    }
}

impl Suspicion {
    fn share(self) -> u32 {
        if self.clear > 0 { self.clear } else { (self.suspects / 2).max(1) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LANE: Lane = Lane(3);

    /// Plays broker: batches of `batch` records, each refused when it holds a culprit. Answers the record held and the transactions needed.
    fn search(records: u32, culprit: u32, batch: u32) -> (Option<u32>, u32) {
        let mut refusals = Refusals::default();
        let mut committed = 0;
        for attempt in 1..200 {
            let taken = refusals.share(LANE).unwrap_or(u32::MAX).min(records - committed);
            if taken == 0 {
                return (None, attempt);
            }
            if culprit < committed || culprit >= committed + taken {
                refusals.succeeded(LANE, taken);
                committed += taken;
                continue;
            }
            let first = (culprit - committed) / batch * batch;
            let last = (first + batch - 1).min(taken - 1);
            if refusals.failed(LANE, taken, first, last) == Verdict::Culprit {
                return (Some(committed), attempt);
            }
        }
        (None, u32::MAX)
    }

    #[test]
    fn one_record_alone_is_the_culprit() {
        assert_eq!(search(1, 0, 1), (Some(0), 1));
    }

    #[test]
    fn a_healthy_lane_has_no_limit_and_gets_it_back() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.share(LANE), None);
        assert_eq!(refusals.failed(LANE, 10, 0, 9), Verdict::Narrowed);
        assert_eq!(refusals.share(LANE), Some(5));
        refusals.succeeded(LANE, 5);
        refusals.succeeded(LANE, 5);
        assert_eq!(refusals.share(LANE), None, "all suspects were taken after all");
    }

    proptest! {
        #[test]
        fn the_culprit_is_found_in_logarithmic_time(records in 1u32..5000, place in 0.0..1.0f64, batch in 1u32..2000) {
            let culprit = ((f64::from(records) * place) as u32).min(records - 1);
            let (held, attempts) = search(records, culprit, batch);
            prop_assert_eq!(held, Some(culprit));
            prop_assert!(attempts <= 2 * 14 + 4, "{} attempts", attempts);
        }
    }
}
