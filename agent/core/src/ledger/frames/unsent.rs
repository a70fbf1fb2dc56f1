//! Which frame of a flow is to be sent next: each once in a session, and what was deferred beside the others.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{Frames, OpenSection, Retained, place};
use crate::schedule::Flow;

/// Indexes of a flow's frames to send, in order. Some may be released already.
#[derive(Debug, Default)]
pub(super) struct Unsent {
    /// What goes first.
    live: VecDeque<u64>,
    /// What was deferred: frames of late lanes only.
    late: VecDeque<u64>,
    /// Bytes that went first while something deferred waited: it gets one for [`LATE_PART`] of them.
    owed: usize,
}

/// While something deferred waits, it gets one byte for so many of what goes first: as others do beside class 0.
const LATE_PART: usize = 16;

impl Unsent {
    pub(super) fn queue(&mut self, is_late: bool) -> &mut VecDeque<u64> {
        if is_late { &mut self.late } else { &mut self.live }
    }

    /// The head of a queue is sent.
    fn pop(&mut self, is_late: bool, length: usize) {
        self.queue(is_late).pop_front();
        self.owed = match (is_late, self.late.is_empty()) {
            (_, true) => 0,
            (true, false) => self.owed.saturating_sub(length.saturating_mul(LATE_PART)),
            (false, false) => self.owed.saturating_add(length),
        };
    }
}

impl Frames {
    /// All frames are to be sent again.
    pub(in crate::ledger) fn rewind(&mut self) {
        self.unsent.clear();
        for (index, frame) in (self.first..).zip(&mut self.frames) {
            frame.sent = false;
            if !frame.released {
                self.unsent.entry(frame.flow).or_default().queue(frame.is_late).push_back(index);
            }
        }
    }

    /// The flow's next frame to send.
    pub(in crate::ledger) fn unsent(&mut self, flow: Flow) -> Option<&Retained> {
        let (index, _) = self.choose(flow)?;
        self.at(index)
    }

    /// The flow's next frame to send, and whether it is a deferred one.
    fn choose(&mut self, flow: Flow) -> Option<(u64, bool)> {
        let (first, frames) = (self.first, &self.frames);
        let unsent = self.unsent.get_mut(&flow)?;
        let is_gone = |index: &u64| place(first, *index).and_then(|place| frames.get(place)).is_none_or(|frame| frame.released);
        for queue in [&mut unsent.live, &mut unsent.late] {
            while queue.front().is_some_and(is_gone) {
                queue.pop_front();
            }
        }
        let (live, late, owed) = (unsent.live.front().copied(), unsent.late.front().copied(), unsent.owed);
        let is_due = late.and_then(|late| self.at(late)).is_some_and(|frame| owed >= frame.length() * LATE_PART);
        let order = if is_due { [(late, true), (live, false)] } else { [(live, false), (late, true)] };
        let mut heads = order.into_iter().filter_map(|(index, is_late)| Some((index?, is_late)));
        heads.find(|(index, _)| self.mixed == 0 || !self.is_overtaking(*index))
    }

    /// True when a lane of the frame has something in an earlier one that was not sent: of another flow.
    fn is_overtaking(&self, index: u64) -> bool {
        let unsent_before = |section: &OpenSection| section.frame < index && self.at(section.frame).is_some_and(|frame| !frame.sent);
        let lanes = self.at(index).into_iter().flat_map(Retained::lanes);
        lanes.filter_map(|lane| self.open.get(lane)).any(|open| open.iter().any(unsent_before))
    }

    /// Puts other bytes in place of those of the flow's next frame to send.
    pub(in crate::ledger) fn adapt_unsent(&mut self, flow: Flow, adapt: impl FnOnce(&Bytes) -> Option<Bytes>) {
        let Some((index, _)) = self.choose(flow) else {
            return;
        };
        if let Some(adapted) = self.at(index).and_then(|frame| adapt(&frame.bytes)) {
            self.replace_bytes(index, adapted);
        }
    }

    /// The frame that [`Self::unsent`] answered is sent.
    pub(in crate::ledger) fn mark_sent(&mut self, flow: Flow) -> Bytes {
        let Some((index, is_late)) = self.choose(flow) else {
            return Bytes::new();
        };
        let length = self.at(index).map_or(0, Retained::length);
        if let Some(unsent) = self.unsent.get_mut(&flow) {
            unsent.pop(is_late, length);
        }
        self.at_mut(index).map_or_else(Bytes::new, |frame| {
            frame.sent = true;
            frame.bytes.clone()
        })
    }
}

#[cfg(test)]
mod tests;
