//! Where the open transaction leaves the partitions that it moves: what becomes their records in `spillway-progress.internal` when it is committed.
//!
//! A partition's own lane moves its position; a gap of reason *deferred* moves it over a range that is remembered; a late lane moves the beginning of
//! such a range. All of that goes into one record, so that each offset is either below the position and in no deferred range (it is at the centre, or was
//! told to be lost), or still expected.

use std::collections::HashMap;

use spillway_proto::deferred::{self, Range};
use spillway_proto::frame::GapReason;
use spillway_proto::progress::Position;
use spillway_proto::{NextOffset, TopicId, TopicPartition};

/// Positions of one site's source partitions.
pub type Positions = HashMap<TopicPartition, Position>;

/// What a transaction does to positions. Empty at its beginning.
#[derive(Debug, Default)]
pub struct Moves {
    partitions: Positions,
}

/// A partition, as it was committed last.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    /// Which.
    pub source: &'a TopicPartition,
    /// Its topic's id, as the lane was announced for.
    pub topic_id: TopicId,
    /// Its position; `None` where it had none.
    pub position: Option<&'a Position>,
}

impl Moves {
    /// A new transaction.
    pub fn clear(&mut self) {
        self.partitions.clear();
    }

    /// The partition's own lane is at `next`.
    pub fn own(&mut self, before: Before<'_>, next: NextOffset) {
        self.position(before).next = next;
    }

    /// The partition's own lane goes over a gap. What was deferred before a gap that goes back, or of a topic made anew, comes no more: its ranges are
    /// answered, and are to be told as gaps for the same reason.
    ///
    /// # Errors
    /// When the offsets that come later break an invariant of [`deferred`].
    pub fn gap(&mut self, before: Before<'_>, gap: Range, reason: GapReason) -> Result<Vec<Range>, deferred::Error> {
        let position = self.position(before);
        let forgotten = match reason {
            GapReason::Deferred => {
                position.deferred.defer(gap)?;
                Vec::new()
            }
            GapReason::Truncated | GapReason::TopicRecreated => std::mem::take(&mut position.deferred).iter().collect(),
            GapReason::Retention | GapReason::Dropped | GapReason::Damaged | GapReason::Expired | GapReason::Other(_) => Vec::new(),
        };
        position.next = gap.end;
        Ok(forgotten)
    }

    /// The late lane for the range that ends at `end` is at `next`.
    pub fn late(&mut self, before: Before<'_>, end: NextOffset, next: NextOffset) {
        if let Some(position) = before.position {
            // What comes late may be of the topic that was there before.
            self.position(Before { topic_id: position.topic_id, ..before }).deferred.advance(end, next);
        }
    }

    /// What is left of the range that ends at `end`.
    pub fn range(&self, before: Before<'_>, end: NextOffset) -> Option<Range> {
        self.partitions.get(before.source).or(before.position)?.deferred.range(end)
    }

    /// The positions that differ from the committed ones.
    pub fn moved<'a>(&'a self, committed: &'a Positions) -> impl Iterator<Item = (&'a TopicPartition, &'a Position)> {
        self.partitions.iter().filter(|(source, position)| committed.get(*source) != Some(*position))
    }

    fn position(&mut self, before: Before<'_>) -> &mut Position {
        self.partitions.entry(before.source.clone()).or_insert_with(|| match before.position {
            // A source that tells no id leaves the one that is known.
            Some(position) if before.topic_id == TopicId::UNKNOWN => position.clone(),
            Some(position) => Position { topic_id: before.topic_id, ..position.clone() },
            None => Position { topic_id: before.topic_id, next: NextOffset::ZERO, deferred: deferred::Deferred::new() },
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use spillway_proto::Partition;
    use spillway_proto::deferred::Deferred;

    use super::*;

    const ID: TopicId = TopicId([1; 16]);

    fn at(next: u64) -> NextOffset {
        NextOffset::new(next).unwrap()
    }

    fn range(first: u64, end: u64) -> Range {
        Range { first: at(first), end: at(end) }
    }

    fn source() -> TopicPartition {
        TopicPartition { topic: "t".parse().unwrap(), partition: Partition::FIRST }
    }

    fn position(next: u64, ranges: &[(u64, u64)]) -> Position {
        let mut deferred = Deferred::new();
        ranges.iter().for_each(|(first, end)| deferred.defer(range(*first, *end)).unwrap());
        Position { topic_id: ID, next: at(next), deferred }
    }

    fn play(committed: Option<Position>, steps: impl FnOnce(&mut Moves, Before<'_>)) -> Option<Position> {
        let source = source();
        let positions: Positions = committed.into_iter().map(|position| (source.clone(), position)).collect();
        let mut moves = Moves::default();
        steps(&mut moves, Before { source: &source, topic_id: ID, position: positions.get(&source) });
        moves.moved(&positions).map(|(_, position)| position.clone()).next()
    }

    #[test]
    fn a_deferral_moves_the_position_and_a_late_lane_the_ranges_beginning() {
        let deferred = play(Some(position(10, &[])), |moves, before| {
            assert_eq!(moves.gap(before, range(10, 50), GapReason::Deferred), Ok(vec![]));
            moves.own(before, at(60));
        });
        assert_eq!(deferred, Some(position(60, &[(10, 50)])));
        let both = play(deferred, |moves, before| {
            moves.late(before, at(50), at(30));
            moves.own(before, at(70));
            assert_eq!(moves.range(before, at(50)), Some(range(30, 50)));
        });
        assert_eq!(both, Some(position(70, &[(30, 50)])));
        let done = play(both, |moves, before| moves.late(before, at(50), at(50)));
        assert_eq!(done, Some(position(70, &[])));
        assert_eq!(play(done, |moves, before| moves.late(before, at(50), at(50))), None, "nothing has moved");
        assert_eq!(play(None, |moves, before| moves.late(before, at(50), at(50))), None, "there is no such partition");
    }

    #[test]
    fn what_was_deferred_before_offsets_begin_anew_is_answered() {
        for reason in [GapReason::Truncated, GapReason::TopicRecreated] {
            let after = play(Some(position(60, &[(10, 20), (30, 50)])), |moves, before| {
                moves.late(before, at(20), at(15));
                assert_eq!(moves.gap(before, range(60, 5), reason), Ok(vec![range(15, 20), range(30, 50)]));
            });
            assert_eq!(after, Some(position(5, &[])));
        }
        let kept = play(Some(position(60, &[(10, 20)])), |moves, before| {
            assert_eq!(moves.gap(before, range(60, 65), GapReason::Retention), Ok(vec![]));
        });
        assert_eq!(kept, Some(position(65, &[(10, 20)])));
    }

    #[test]
    fn too_many_ranges_are_refused_and_change_nothing() {
        let full: Vec<_> = (0..deferred::MAX_RANGES as u64).map(|n| (10 * n, 10 * n + 1)).collect();
        let unchanged = play(Some(position(1000, &full)), |moves, before| {
            assert_eq!(moves.gap(before, range(1000, 1001), GapReason::Deferred), Err(deferred::Error::TooMany));
        });
        assert_eq!(unchanged, None);
    }

    #[test]
    fn an_id_that_is_not_told_stays() {
        let source = source();
        let committed: Positions = [(source.clone(), position(5, &[]))].into();
        let mut moves = Moves::default();
        moves.own(Before { source: &source, topic_id: TopicId::UNKNOWN, position: committed.get(&source) }, at(6));
        assert_eq!(moves.moved(&committed).map(|(_, position)| position.topic_id).collect::<Vec<_>>(), [ID]);
        moves.clear();
        assert_eq!(moves.moved(&committed).count(), 0);
    }
}
