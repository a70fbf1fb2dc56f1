//! Where a lane begins, and what is lost before it.

use spillway_proto::NextOffset;
use spillway_proto::frame::GapReason;
use spillway_proto::message::ResumePoint;

/// What the source's log holds of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogRange {
    /// Oldest offset.
    pub start: NextOffset,
    /// Last stable offset: one past what a read-committed consumer can read now.
    pub end: NextOffset,
}

/// Where a partition begins for which the centre holds no progress; a time is already turned into an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartPolicy {
    /// At the oldest record.
    Earliest,
    /// At what is written from now on.
    Latest,
    /// At the given offset; `None`: every record is older than the time asked for, so as [`Self::Latest`].
    Found(Option<NextOffset>),
}

/// How a lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// The centre has nothing: a start section, then data from `at`.
    Start {
        /// First offset.
        at: NextOffset,
    },
    /// Data from `at`, where the centre left off.
    Resume {
        /// First offset.
        at: NextOffset,
    },
    /// A gap section, then data from `next`.
    Gap(Gap),
}

/// Offsets that will never reach the centre.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// The next offset that the centre expects.
    pub first: NextOffset,
    /// Where the lane goes on.
    pub next: NextOffset,
    /// Why.
    pub reason: GapReason,
}

impl Gap {
    /// The offsets lost, first and last; `None` where their number is not known (a topic made anew) or they are overwritten (a truncated
    /// log: what the centre holds from `next` on is no longer in the source).
    pub fn lost(&self) -> Option<(NextOffset, NextOffset)> {
        match self.reason {
            GapReason::Retention | GapReason::Dropped | GapReason::Damaged | GapReason::Expired => {
                Some((self.first, NextOffset::new(self.next.value().saturating_sub(1))?))
            }
            GapReason::Truncated | GapReason::TopicRecreated | GapReason::Deferred | GapReason::Other(_) => None,
        }
    }

    /// How many offsets were lost, 0 where that is not known. Holes count: nobody can tell any more whether they were records.
    pub fn lost_count(&self) -> u64 {
        self.reason.lost_count(self.first, self.next).unwrap_or(0)
    }
}

impl Beginning {
    /// Where reading begins.
    pub fn at(&self) -> NextOffset {
        match self {
            Self::Start { at } | Self::Resume { at } => *at,
            Self::Gap(gap) => gap.next,
        }
    }
}

/// Decides how a lane begins, from what the centre says and what the source still has.
pub fn decide(resume: ResumePoint, log: LogRange, policy: StartPolicy) -> Beginning {
    match resume {
        ResumePoint::Fresh => Beginning::Start { at: first_offset(log, policy) },
        ResumePoint::At(next) if next < log.start => gap(next, log.start, GapReason::Retention),
        ResumePoint::At(next) if next > log.end => gap(next, log.end, GapReason::Truncated),
        ResumePoint::At(next) => Beginning::Resume { at: next },
        // Whatever the new topic holds has never been at the centre, so it is read from its beginning whatever the policy.
        ResumePoint::Recreated { previous: _, next } => gap(next, log.start, GapReason::TopicRecreated),
    }
}

fn gap(first: NextOffset, next: NextOffset, reason: GapReason) -> Beginning {
    Beginning::Gap(Gap { first, next, reason })
}

fn first_offset(log: LogRange, policy: StartPolicy) -> NextOffset {
    match policy {
        StartPolicy::Earliest => log.start,
        StartPolicy::Latest | StartPolicy::Found(None) => log.end,
        // The log may have moved between the two questions.
        StartPolicy::Found(Some(offset)) => offset.max(log.start).min(log.end.max(log.start)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use proptest::prelude::*;
    use spillway_proto::TopicId;

    use super::*;

    fn next(value: u64) -> NextOffset {
        NextOffset::new(value).unwrap()
    }

    const LOG: fn() -> LogRange = || LogRange { start: next(10), end: next(20) };

    #[test]
    fn without_progress_the_policy_decides() {
        let begin = |policy| decide(ResumePoint::Fresh, LOG(), policy);
        assert_eq!(begin(StartPolicy::Earliest), Beginning::Start { at: next(10) });
        assert_eq!(begin(StartPolicy::Latest), Beginning::Start { at: next(20) });
        assert_eq!(begin(StartPolicy::Found(Some(next(15)))), Beginning::Start { at: next(15) });
        assert_eq!(begin(StartPolicy::Found(None)), Beginning::Start { at: next(20) });
        assert_eq!(begin(StartPolicy::Found(Some(next(5)))), Beginning::Start { at: next(10) }, "the log moved on meanwhile");
    }

    #[test]
    fn with_progress_the_policy_does_not_matter() {
        for policy in [StartPolicy::Earliest, StartPolicy::Latest, StartPolicy::Found(None)] {
            for at in [10, 15, 20] {
                assert_eq!(decide(ResumePoint::At(next(at)), LOG(), policy), Beginning::Resume { at: next(at) });
            }
        }
    }

    #[test]
    fn what_retention_removed_is_a_gap_with_its_exact_range() {
        let Beginning::Gap(gap) = decide(ResumePoint::At(next(4)), LOG(), StartPolicy::Latest) else { panic!("a gap") };
        assert_eq!(gap, Gap { first: next(4), next: next(10), reason: GapReason::Retention });
        assert_eq!((gap.lost(), gap.lost_count()), (Some((next(4), next(9))), 6));
    }

    #[test]
    fn a_log_that_ends_below_the_centres_position_was_truncated() {
        let Beginning::Gap(gap) = decide(ResumePoint::At(next(21)), LOG(), StartPolicy::Earliest) else { panic!("a gap") };
        assert_eq!(gap, Gap { first: next(21), next: next(20), reason: GapReason::Truncated });
        assert_eq!(gap.lost_count(), 0);
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning() {
        let resume = ResumePoint::Recreated { previous: TopicId([1; 16]), next: next(15) };
        let expected = Gap { first: next(15), next: next(10), reason: GapReason::TopicRecreated };
        assert_eq!(decide(resume, LOG(), StartPolicy::Latest), Beginning::Gap(expected));
    }

    proptest! {
        /// Reading never begins outside of the log, and nothing between the centre's position and the beginning goes unannounced.
        #[test]
        fn no_silent_jump(start in 0u64..50, length in 0u64..50, at in 0u64..120) {
            let log = LogRange { start: next(start), end: next(start + length) };
            let beginning = decide(ResumePoint::At(next(at)), log, StartPolicy::Latest);
            prop_assert!(beginning.at() >= log.start && beginning.at() <= log.end);
            match beginning {
                Beginning::Resume { at: begin } => prop_assert_eq!(begin, next(at)),
                Beginning::Gap(gap) => { prop_assert_eq!(gap.first, next(at)); prop_assert_ne!(gap.first, gap.next); }
                Beginning::Start { .. } => prop_assert!(false, "the centre has progress"),
            }
        }
    }
}
