//! The session with the centre, which begins and ends at any moment; and the agent's end.

use super::super::centre::Answer;
use super::super::next;
use super::rules::{ledger, spools};
use super::{PARTITIONS, WINDOW, World};
use crate::lane::HeldBecause;

impl World {
    pub(super) fn connect(&mut self) {
        if !self.connected {
            self.connected = true;
            // One that does not know them refuses a site with deferred ranges.
            let defers = !self.older || self.centre.deferred.values().any(|deferred| !deferred.is_empty());
            for open in self.ledger.session_opened_with(WINDOW, defers) {
                self.announce(&open);
            }
        }
    }

    pub(super) fn disconnect(&mut self) {
        if self.connected {
            self.connected = false;
            self.wire.clear();
            self.acks.clear();
            self.centre.clear();
            self.ledger.session_closed();
            self.spool.session_closed(&mut self.ledger);
        }
    }

    pub(super) fn arrive(&mut self, newest: bool) {
        let arrived = if newest { self.wire.pop_back() } else { self.wire.pop_front() };
        if let Some((seq, frame)) = arrived {
            let Answer { acks, holds } = self.centre.take(seq, frame);
            self.acks.extend(acks);
            for (lane, at) in holds {
                let because = HeldBecause { reason: "test", detail: String::new() };
                self.ledger.hold(lane, next(at), because, self.now).unwrap();
            }
        }
    }

    pub(super) fn crash(&mut self, kept: usize) {
        self.returning = false;
        self.disconnect();
        for append in std::mem::take(&mut self.unsynced).into_iter().take(kept) {
            self.insert(append);
        }
        self.rules.0 = self.rules.1;
        self.ledger = ledger(self.rules.0, self.mortal, self.now);
        self.spool = spools(self.rules.0, &self.holdings());
        self.reading.clear();
        self.reopen.clear();
        self.budget.clear();
        (0..PARTITIONS).for_each(|index| self.open(index));
    }

    pub(super) fn elsewhere(&mut self, index: u32, count: u64) {
        let end = self.site.logs.get(&index).copied().unwrap_or_default().1;
        if !self.connected && end > 0 {
            let at = self.centre.progress.get(&index).copied().unwrap_or(0);
            let to = (at + count).min(end).max(at);
            self.centre.progress.insert(index, to);
            self.centre.received.entry(index).or_default().extend(at..to);
        }
    }
}
