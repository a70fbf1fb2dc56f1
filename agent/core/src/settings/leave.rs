//! Taking leave: the plan says that nothing is sent from now on, and the centre is to hear of that.

use std::time::Duration;

/// When nothing may be sent any more, the line is open for so long, at the rate before. At 8 kbit/s what was sent and received before may take up the cap for 10 s; a
/// report, and the close after it, are a datagram each.
pub const LEAVE_TIME: Duration = Duration::from_secs(20);

/// Of these, a close waits for so long until the centre has answered the reports before it.
pub const REPORT_TIME: Duration = Duration::from_secs(10);

/// How far a site has got with leaving.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leave {
    /// The plan lets something through.
    No,
    /// It lets nothing through, since so long.
    Since(Duration),
}

impl Leave {
    /// Off from the start: there is nobody to take leave of.
    pub const TAKEN: Self = Self::Since(LEAVE_TIME);

    /// What the plan says now, and how long after the last look.
    pub fn look(&mut self, is_off: bool, elapsed: Duration) {
        *self = match self {
            _ if !is_off => Self::No,
            Self::No => Self::Since(Duration::ZERO),
            Self::Since(since) => Self::Since(since.saturating_add(elapsed)),
        };
    }

    /// Whether the session is to be closed; `has_reports`: the centre has not answered all reports.
    pub fn must_close(&self, has_reports: bool) -> bool {
        matches!(self, Self::Since(since) if !has_reports || *since >= REPORT_TIME)
    }

    /// Whether no datagram may leave.
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Since(since) if *since >= LEAVE_TIME)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_site_leaves_when_it_was_heard_or_has_waited_for_that() {
        let mut leave = Leave::No;
        leave.look(false, SECOND);
        assert!(!leave.must_close(false) && !leave.is_taken());
        // The time before it was off does not count.
        leave.look(true, LEAVE_TIME);
        assert!(leave.must_close(false) && !leave.must_close(true), "the answer to a report is waited for");
        leave.look(true, REPORT_TIME - SECOND);
        assert!(!leave.must_close(true));
        leave.look(true, SECOND);
        assert!(leave.must_close(true) && !leave.is_taken(), "the close itself may leave");
        leave.look(true, LEAVE_TIME - REPORT_TIME - SECOND);
        assert!(!leave.is_taken());
        leave.look(true, SECOND);
        assert!(leave.is_taken());
    }

    #[test]
    fn each_off_has_its_own_time() {
        let mut leave = Leave::TAKEN;
        assert!(leave.is_taken() && leave.must_close(true));
        leave.look(true, SECOND);
        assert!(leave.is_taken());
        leave.look(false, SECOND);
        assert_eq!(leave, Leave::No);
        leave.look(true, SECOND);
        assert!(!leave.is_taken() && !leave.must_close(true));
    }
}
