//! The counter's durable form runs ahead of use, so that a power cut can only count too much.
//!
//! What is on disk is the counter plus a **lease**: bytes that may be used without another write. Nothing beyond the lease is sent before a further one
//! is durable. After a crash the whole lease counts as used.

use std::time::Duration;

use jiff::Timestamp;

use crate::{Budget, Counter};

/// Counts bytes by a total that only grows (the wire counter of the process), and says how far that total may grow.
#[derive(Debug, Clone)]
pub struct Meter {
    counter: Counter,
    /// The total that is in `counter`.
    seen: u64,
    /// The total up to which use is durable.
    durable: u64,
    /// The total up to which use is durable once what [`Meter::lease`] gave is written.
    writing: Option<u64>,
    /// A period has begun while that was being written: it says nothing about the new one.
    stale: bool,
}

impl Meter {
    /// Goes on from what was on disk; what the process has used so far, `total`, is in it or does not count.
    pub fn new(counter: Counter, total: u64) -> Self {
        Self { counter, seen: total, durable: total, writing: None, stale: false }
    }

    /// The process has used `total` bytes since it began, at `now`; `elapsed` is the time since the last call by a clock that does not step.
    pub fn observe(&mut self, budget: &Budget, total: u64, now: Timestamp, elapsed: Duration) {
        // What was used since the last look belongs to the period that was under way then: counted too early rather than not at all, and at once.
        self.counter.add(total.saturating_sub(self.seen));
        self.seen = self.seen.max(total);
        if self.counter.roll(&budget.calendar, now, elapsed) {
            // The lease on disk is one of the periods before.
            self.durable = self.seen;
            self.stale = self.writing.is_some();
        }
    }

    /// The text to make durable next, if it is time and none is being written. Tell the end by [`Meter::written`].
    pub fn lease(&mut self, budget: &Budget) -> Option<String> {
        let step = budget.lease();
        if self.writing.is_some() || self.durable.saturating_sub(self.seen) > step / 2 {
            return None;
        }
        let mut ahead = self.counter;
        ahead.add(step);
        self.writing = Some(self.seen.saturating_add(step));
        Some(ahead.to_text())
    }

    /// What [`Meter::lease`] gave is durable, or could not be written.
    pub fn written(&mut self, durable: bool) {
        if let Some(until) = self.writing.take()
            && durable
            && !std::mem::take(&mut self.stale)
        {
            self.durable = until;
        }
        self.stale = false;
    }

    /// The text to keep at a clean end, when nothing more is sent: what was used, and no lease.
    pub fn settle(&self) -> String {
        self.counter.to_text()
    }

    /// The total that must not be passed before the next look: what is durable, and what the budget has left.
    pub fn fuse(&self, budget: &Budget) -> u64 {
        self.durable.min(self.seen.saturating_add(budget.left(&self.counter)))
    }

    /// What is used up.
    pub fn counter(&self) -> &Counter {
        &self.counter
    }
}
