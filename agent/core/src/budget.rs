//! Who may hold how much of the memory for frames that are not acknowledged.
//!
//! Flows of class 0 may take all that is free, and an eighth is theirs alone. Of the others each may hold its equal part, and more as long as twice of what is then
//! free is more: one flow alone gets two thirds, and whoever comes later finds room at once.
//!
//! A frame that is larger than that (a single large record) waits until there is room for it; meanwhile the others take no more, so that there will be.

use crate::schedule::Flow;

/// This part is for class 0, where there are topics of it.
const URGENT_PART: usize = 8;

/// A budget of bytes. Invariant: what is taken never exceeds the total.
#[derive(Debug)]
pub struct Shares {
    total: usize,
    flows: Vec<Held>,
    all: usize,
    /// The flow with a frame for which the others make room.
    claim: Option<Flow>,
}

#[derive(Debug, Clone, Copy)]
struct Held {
    is_urgent: bool,
    bytes: usize,
}

impl Shares {
    /// `total` bytes, none taken. `urgent` says of each flow by number whether it is of class 0; one at least is assumed.
    pub fn new(total: usize, urgent: impl IntoIterator<Item = bool>) -> Self {
        let mut flows = urgent.into_iter().map(|is_urgent| Held { is_urgent, bytes: 0 }).collect::<Vec<_>>();
        if flows.is_empty() {
            flows.push(Held { is_urgent: false, bytes: 0 });
        }
        Self { total, flows, all: 0, claim: None }
    }

    /// All there is, in bytes.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes taken.
    pub fn taken(&self) -> usize {
        self.all
    }

    /// Takes `bytes` if the flow may have them. More than the total is asked for as the total. Answers what was taken.
    pub fn take(&mut self, flow: Flow, bytes: usize) -> Option<usize> {
        let bytes = bytes.min(self.total);
        let is_others_turn = self.claim.is_some_and(|claim| claim != flow && !self.held(flow).is_urgent);
        if self.all + bytes > self.total || is_others_turn || (self.claim != Some(flow) && bytes > self.room(flow)) {
            return None;
        }
        self.claim = self.claim.filter(|claim| *claim != flow);
        self.all += bytes;
        if let Some(held) = self.flows.get_mut(flow.0 as usize) {
            held.bytes += bytes;
        }
        Some(bytes)
    }

    /// As [`Self::take`], for a closed frame that waits for it: where it is too large to be sure of its turn, the others make room.
    pub fn take_for_closed(&mut self, flow: Flow, bytes: usize) -> Option<usize> {
        let taken = self.take(flow, bytes);
        let is_large = bytes + self.held(flow).bytes > self.part(flow);
        if taken.is_none() && is_large && (self.claim.is_none() || self.held(flow).is_urgent) {
            self.claim = Some(flow);
        }
        taken
    }

    /// Gives bytes back.
    pub fn give(&mut self, flow: Flow, bytes: usize) {
        if let Some(held) = self.flows.get_mut(flow.0 as usize) {
            let bytes = bytes.min(held.bytes);
            held.bytes -= bytes;
            self.all -= bytes;
        }
    }

    /// Bytes that the flow may take now.
    pub fn room(&self, flow: Flow) -> usize {
        let held = self.held(flow);
        if held.is_urgent {
            return self.total - self.all;
        }
        let free = self.for_others().saturating_sub(self.all);
        if self.others() == 1 {
            return free;
        }
        let most = self.part(flow).max(2 * free);
        most.saturating_sub(held.bytes).min(free)
    }

    /// What it is sure of.
    pub fn part(&self, flow: Flow) -> usize {
        if self.held(flow).is_urgent { self.total / URGENT_PART } else { self.for_others() / self.others().max(1) }
    }

    fn for_others(&self) -> usize {
        if self.flows.iter().any(|held| held.is_urgent) { self.total - self.total / URGENT_PART } else { self.total }
    }

    fn others(&self) -> usize {
        self.flows.iter().filter(|held| !held.is_urgent).count()
    }

    fn held(&self, flow: Flow) -> Held {
        self.flows.get(flow.0 as usize).copied().unwrap_or(Held { is_urgent: false, bytes: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALARMS: Flow = Flow(0);
    const FIRST: Flow = Flow(1);
    const SECOND: Flow = Flow(2);

    fn shares() -> Shares {
        Shares::new(800, [true, false, false])
    }

    fn most(shares: &mut Shares, flow: Flow) -> usize {
        std::iter::from_fn(|| shares.take(flow, 1)).count()
    }

    #[test]
    fn one_flow_has_all() {
        for mut shares in [Shares::new(100, [false]), Shares::new(100, [])] {
            assert_eq!(shares.take(Flow(0), 60), Some(60));
            assert_eq!(shares.take(Flow(0), 60), None);
            shares.give(Flow(0), 20);
            assert_eq!((shares.take(Flow(0), 60), shares.taken()), (Some(60), 100));
        }
    }

    #[test]
    fn what_is_larger_than_all_waits_for_all() {
        let mut shares = Shares::new(100, [false]);
        assert_eq!((shares.take(Flow(0), 1), shares.take_for_closed(Flow(0), 500)), (Some(1), None));
        shares.give(Flow(0), 1);
        assert_eq!(shares.take_for_closed(Flow(0), 500), Some(100));
    }

    #[test]
    fn bulk_leaves_room_for_alarms_and_for_whoever_comes_later() {
        let mut shares = shares();
        let alone = most(&mut shares, FIRST);
        assert!((460..=470).contains(&alone), "two thirds of 700, not {alone}");
        let second = most(&mut shares, SECOND);
        assert!(second >= 150, "{second} for the one that comes later");
        let alarms = most(&mut shares, ALARMS);
        assert_eq!(alone + second + alarms, 800, "class 0 takes all that is left");
        assert!(alarms >= 100);
        shares.give(FIRST, alone);
        assert!(most(&mut shares, SECOND) > 100, "and it gets more again when the other has gone");
    }

    #[test]
    fn a_large_frame_gets_its_turn_beside_others_that_take_whatever_is_free() {
        let mut shares = shares();
        let mut first = most(&mut shares, FIRST);
        assert_eq!(shares.take_for_closed(SECOND, 600), None);
        let mut rounds = 0;
        while shares.take_for_closed(SECOND, 600).is_none() {
            shares.give(FIRST, 10);
            first -= 10;
            assert_eq!(shares.take(FIRST, 10), None, "the others make room");
            assert_eq!(shares.take(ALARMS, 1), Some(1), "but for class 0");
            shares.give(ALARMS, 1);
            rounds += 1;
        }
        assert!(rounds > 10 && first <= 200);
        shares.give(SECOND, 600);
        assert!(shares.take(FIRST, 10).is_some(), "and take again");
    }

    #[test]
    fn a_large_alarm_gets_its_turn_first() {
        let mut shares = shares();
        let first = most(&mut shares, FIRST);
        assert_eq!((shares.take_for_closed(SECOND, 700), shares.take_for_closed(ALARMS, 700)), (None, None));
        shares.give(FIRST, first - 100);
        assert_eq!((shares.take_for_closed(SECOND, 700), shares.take_for_closed(ALARMS, 700)), (None, Some(700)));
    }
}
