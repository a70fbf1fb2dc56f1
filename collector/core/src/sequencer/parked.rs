//! Sections that wait for an earlier frame: where they are, and what they cost (invariant B of [`super`]).

use std::collections::{BTreeMap, HashMap};

use spillway_proto::{FrameSeq, Lane};

use super::Violation;

/// A section's place in the order in which the agent sent: frame, index in the frame.
pub(super) type Place = (FrameSeq, usize);

/// The sections that wait, over all lanes.
#[derive(Debug)]
pub(super) struct Parked {
    lanes: BTreeMap<Place, Lane>,
    /// Those of each frame.
    frames: HashMap<FrameSeq, ParkedFrame>,
    bytes: usize,
    limit_bytes: usize,
}

#[derive(Debug)]
struct ParkedFrame {
    sections: usize,
    bytes: usize,
}

impl Parked {
    /// Nothing waits; at most `limit_bytes` of frames may.
    pub(super) fn new(limit_bytes: usize) -> Self {
        Self { lanes: BTreeMap::new(), frames: HashMap::new(), bytes: 0, limit_bytes }
    }

    /// Bytes of frames that wait, with what their bookkeeping costs.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first in the order in which the agent sent.
    pub(super) fn first(&self) -> Option<(Place, Lane)> {
        self.lanes.first_key_value().map(|(place, lane)| (*place, *lane))
    }

    /// A section of a frame of `wire_length` bytes waits.
    ///
    /// # Errors
    /// When that is more than allowed; then it does not.
    pub(super) fn add(&mut self, place: Place, lane: Lane, wire_length: usize) -> Result<(), Violation> {
        let new_bytes = if self.frames.contains_key(&place.0) { 0 } else { wire_length };
        let bytes = self.bytes + new_bytes + SECTION_COST_BYTES;
        if bytes > self.limit_bytes {
            return Err(Violation::BytesTooMany { bytes, limit: self.limit_bytes });
        }
        self.bytes = bytes;
        self.frames.entry(place.0).or_insert(ParkedFrame { sections: 0, bytes: wire_length }).sections += 1;
        self.lanes.insert(place, lane);
        Ok(())
    }

    /// A section waits no longer.
    pub(super) fn remove(&mut self, place: Place) {
        self.lanes.remove(&place);
        self.bytes -= SECTION_COST_BYTES;
        if let Some(frame) = self.frames.get_mut(&place.0) {
            frame.sections -= 1;
            if frame.sections == 0 {
                self.bytes -= frame.bytes;
                self.frames.remove(&place.0);
            }
        }
    }
}

/// What a parked section costs beside its frame's bytes: its entries in two trees, rounded up.
const SECTION_COST_BYTES: usize = 128;
