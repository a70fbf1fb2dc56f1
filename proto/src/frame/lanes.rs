//! Other lanes for a frame that was kept: lane numbers mean something in one run of one agent only.

use crate::Lane;
use crate::frame::{EncodedFrame, Frame, Section, assemble};

impl Frame {
    /// The same frame with other lanes, one for each section in order; a section for which none is left keeps its own. The body is taken
    /// over as it is, still compressed.
    pub fn with_lanes(&self, lanes: impl IntoIterator<Item = Lane>) -> EncodedFrame {
        let mut lanes = lanes.into_iter();
        let relabel = |section: &Section| Section { lane: lanes.next().unwrap_or(section.lane), kind: section.kind };
        let sections = self.sections.iter().map(relabel).collect::<Vec<_>>();
        let bytes = assemble(self.codec, &sections, &self.body);
        EncodedFrame { sections, raw_length: self.raw_length, bytes }
    }
}
