//! What waits to be written, and what the open transaction has taken of it.
//!
//! A section leaves the backlog only when its transaction was committed; after an abort it is taken again. A lane that was cut (its share
//! of the transaction is used up) is passed over until the next transaction, so that its order is kept while the others flow.

use std::collections::{HashSet, VecDeque};

use spillway_proto::frame::Frame;
use spillway_proto::{Lane, NextOffset};

use super::sequencer::Ready;

/// Sections in the order in which they are to be written, order kept within each lane.
#[derive(Debug)]
pub struct Backlog<F> {
    waiting: VecDeque<Ready<F>>,
    /// In the open transaction, up to where.
    taken: Vec<(Ready<F>, NextOffset)>,
    /// Passed over by the open transaction.
    skipped: VecDeque<Ready<F>>,
    cut: HashSet<Lane>,
}

impl<F: AsRef<Frame>> Backlog<F> {
    /// Nothing waits.
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), taken: Vec::new(), skipped: VecDeque::new(), cut: HashSet::new() }
    }

    /// A section is next on its lane.
    pub fn push(&mut self, ready: Ready<F>) {
        self.waiting.push_back(ready);
    }

    /// True when nothing waits that the open transaction could still take.
    pub fn is_drained(&self) -> bool {
        self.waiting.is_empty()
    }

    /// True when nothing waits and nothing is in the open transaction.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.taken.is_empty() && self.skipped.is_empty()
    }

    /// True when the open transaction has passed over sections of a lane that was cut.
    pub fn has_skipped(&self) -> bool {
        !self.skipped.is_empty()
    }

    /// The next section that the open transaction may take. Give it back with [`Self::take`] or [`Self::skip`].
    pub fn pop(&mut self) -> Option<Ready<F>> {
        while let Some(ready) = self.waiting.pop_front() {
            if !self.cut.contains(&ready.lane) {
                return Some(ready);
            }
            self.skipped.push_back(ready);
        }
        None
    }

    /// The open transaction holds the section up to `until`. Where that is not its end, the lane is cut.
    pub fn take(&mut self, ready: Ready<F>, until: NextOffset) {
        if until != end_of(&ready) {
            self.cut.insert(ready.lane);
        }
        self.taken.push((ready, until));
    }

    /// The open transaction takes nothing more of the lane.
    pub fn cut(&mut self, lane: Lane) {
        self.cut.insert(lane);
    }

    /// Nothing of the section fits into the open transaction; the lane is cut.
    pub fn skip(&mut self, ready: Ready<F>) {
        self.cut.insert(ready.lane);
        self.skipped.push_back(ready);
    }

    /// The open transaction was committed: what it took is done.
    pub fn committed(&mut self) {
        let rests = self.taken.drain(..).filter(|(ready, until)| *until != end_of(ready));
        let rests: Vec<_> = rests.map(|(ready, until)| Ready { from: until, ..ready }).collect();
        self.restore(rests);
    }

    /// The open transaction was aborted: what it took waits again.
    pub fn aborted(&mut self) {
        let taken: Vec<_> = self.taken.drain(..).map(|(ready, _)| ready).collect();
        self.restore(taken);
    }

    /// The lane is over: what waits of it vanishes. Only between transactions.
    pub fn retire(&mut self, lane: Lane) {
        self.waiting.retain(|ready| ready.lane != lane);
    }

    fn restore(&mut self, first: Vec<Ready<F>>) {
        self.cut.clear();
        for ready in self.skipped.drain(..).rev() {
            self.waiting.push_front(ready);
        }
        for ready in first.into_iter().rev() {
            self.waiting.push_front(ready);
        }
    }
}

impl<F: AsRef<Frame>> Default for Backlog<F> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where a section ends.
pub fn end_of<F>(ready: &Ready<F>) -> NextOffset {
    ready.to
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::sync::Arc;

    use proptest::prelude::*;
    use spillway_proto::Offset;
    use spillway_proto::compress::Compressor;
    use spillway_proto::frame::FrameBuilder;
    use spillway_proto::record::RecordWriter;

    use super::*;

    #[derive(Debug)]
    struct TestFrame(Frame);

    impl AsRef<Frame> for TestFrame {
        fn as_ref(&self) -> &Frame {
            &self.0
        }
    }

    fn at(next: u64) -> NextOffset {
        NextOffset::new(next).unwrap()
    }

    fn ready(lane: u32, first: u64, next: u64) -> Ready<TestFrame> {
        let mut writer = RecordWriter::new(at(first));
        for offset in first..next {
            assert!(writer.push(Offset::new(offset).unwrap(), 0, None, None, std::iter::empty()));
        }
        let mut builder = FrameBuilder::new();
        builder.data(Lane(lane), writer);
        let bytes = builder.encode(&mut Compressor::new(1).unwrap()).bytes;
        let frame = Arc::new(TestFrame(Frame::decode(bytes, 1 << 20).unwrap()));
        Ready { lane: Lane(lane), frame, section: 0, from: at(first), to: at(next) }
    }

    proptest! {
        #[test]
        fn each_lane_keeps_its_order_over_cuts_commits_and_aborts(
            sections in prop::collection::vec((0u32..3, 1u64..9), 1..30),
            rounds in prop::collection::vec((1u64..20, any::<bool>(), 0usize..10), 1..60),
        ) {
            let mut ends = [0u64; 3];
            let mut backlog = Backlog::new();
            for (lane, count) in sections {
                let end = &mut ends[lane as usize];
                backlog.push(ready(lane, *end, *end + count));
                *end += count;
            }
            let mut centre = [0u64; 3];
            for (share, commit, most) in rounds {
                let mut position = centre;
                let mut left = [share; 3];
                for _ in 0..most {
                    let Some(ready) = backlog.pop() else { break };
                    let lane = ready.lane.0 as usize;
                    prop_assert_eq!(ready.from.value(), position[lane], "in order, without hole or overlap");
                    let take = left[lane].min(end_of(&ready).value() - ready.from.value());
                    left[lane] -= take;
                    position[lane] += take;
                    if take == 0 {
                        backlog.skip(ready);
                    } else {
                        let until = at(ready.from.value() + take);
                        backlog.take(ready, until);
                    }
                }
                if commit {
                    backlog.committed();
                    centre = position;
                } else {
                    backlog.aborted();
                }
            }
            while let Some(ready) = backlog.pop() {
                let position = &mut centre[ready.lane.0 as usize];
                prop_assert_eq!(ready.from.value(), *position);
                *position = end_of(&ready).value();
                backlog.take(ready, at(*position));
            }
            backlog.committed();
            prop_assert_eq!(centre, ends);
            prop_assert!(backlog.is_empty());
        }
    }

    #[test]
    fn a_lane_that_was_cut_goes_on_with_the_next_transaction() {
        let mut backlog = Backlog::new();
        for ready in [ready(0, 0, 3), ready(0, 3, 5), ready(1, 0, 3)] {
            backlog.push(ready);
        }
        let first = backlog.pop().unwrap();
        backlog.cut(first.lane);
        backlog.take(first, at(3));
        assert_eq!(backlog.pop().unwrap().lane, Lane(1));
        assert!(backlog.has_skipped());
        backlog.committed();
        assert_eq!(backlog.pop().unwrap().from, at(3));
    }

    #[test]
    fn a_retired_lane_leaves_nothing_behind() {
        let mut backlog = Backlog::new();
        backlog.push(ready(0, 0, 3));
        backlog.push(ready(1, 0, 3));
        backlog.retire(Lane(0));
        assert_eq!(backlog.pop().unwrap().lane, Lane(1));
        assert!(backlog.is_drained());
    }
}
