//! Which of the frames the spill has, too, and what memory lets go of because of that.

use std::time::Instant;

use bytes::Bytes;
use spillway_proto::frame::Section;
use spillway_proto::{Lane, NextOffset};

use super::{Frames, Retained, place};
use crate::schedule::Scope;

/// Whether the spill has a frame, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ledger) enum Copy {
    /// It is in memory only.
    None,
    /// It was handed to the spill.
    Handed,
    /// It is durable there.
    Durable,
}

impl Frames {
    /// Of those that are durable in the spill.
    pub(in crate::ledger) fn durable_bytes(&self, scope: Scope) -> usize {
        self.durable.iter().filter(|(flow, _)| scope.has(**flow)).map(|(_, bytes)| bytes).sum()
    }

    /// When the oldest retained frame was pushed that is in memory only.
    pub(in crate::ledger) fn oldest(&self, scope: Scope) -> Option<Instant> {
        self.frames.iter().find(|frame| scope.has(frame.flow) && frame.is_wanted_in_spill()).map(|frame| frame.since)
    }

    /// Marks all frames that are in memory only as handed to the spill, and answers them in order.
    pub(in crate::ledger) fn hand_over(&mut self, scope: Scope) -> Vec<(u64, Bytes, Vec<Section>)> {
        let mut handed = Vec::new();
        let wanted = |frame: &Retained| scope.has(frame.flow) && frame.is_wanted_in_spill();
        for (index, frame) in (self.first..).zip(&mut self.frames).filter(|(_, frame)| wanted(frame)) {
            frame.copy = Copy::Handed;
            handed.push((index, frame.bytes.clone(), frame.sections.clone()));
        }
        handed
    }

    /// A frame that was handed over is durable in the spill.
    pub(in crate::ledger) fn durable(&mut self, index: u64) {
        let place = place(self.first, index);
        if let Some(frame) = place.and_then(|place| self.frames.get_mut(place)).filter(|frame| frame.copy != Copy::Durable) {
            *self.durable.entry(frame.flow).or_default() += frame.bytes.len();
            frame.copy = Copy::Durable;
        }
    }

    /// A frame that was handed over is in memory only after all.
    pub(in crate::ledger) fn recall(&mut self, index: u64) {
        if let Some(frame) = self.at_mut(index).filter(|frame| frame.copy == Copy::Handed) {
            frame.copy = Copy::None;
        }
    }

    /// Lets go of all frames that are durable in the spill, of those that were sent only with `sent`. Answers where the lanes of their open
    /// sections were before them, newest first. Nothing is let go as long as a frame is in memory only: what follows it would be in the wrong place.
    pub(in crate::ledger) fn unload(&mut self, sent: bool, scope: Scope) -> Vec<(Lane, NextOffset)> {
        let kept = |frame: &Retained| frame.released || frame.is_opening() || !scope.has(frame.flow);
        if self.frames.iter().any(|frame| !kept(frame) && frame.copy != Copy::Durable) {
            return Vec::new();
        }
        let mut unloaded = Vec::new();
        for place in (0..self.frames.len()).rev() {
            let Some(frame) = self.frames.get(place).filter(|frame| !kept(frame)) else {
                continue;
            };
            // Of each lane, what was sent lies before what was not.
            if frame.sent && !sent {
                continue;
            }
            let index = self.first + place as u64;
            for section in frame.sections.iter().rev() {
                let open = self.open.get_mut(&section.lane).and_then(|open| open.pop_back_if(|last| last.frame == index));
                if let Some(open) = open {
                    self.records -= u64::from(open.records);
                    unloaded.push((section.lane, open.from));
                }
            }
            if let Some(frame) = self.frames.get_mut(place) {
                frame.open_count = 0;
            }
            self.release_from(index);
        }
        self.open.retain(|_, open| !open.is_empty());
        unloaded
    }
}
