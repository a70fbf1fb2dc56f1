//! What ways to compress take.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use spillway_proto::codec::varint_len;

use crate::frames::Raw;

/// A packet of a frame that travels alone, beside the frame: IPv4 and UDP 28 bytes, QUIC's short header 10, its tag 16, the stream's frame 6. What comes back is not in it: it is the
/// same for all ways.
const PACKET_BYTES: usize = 60;

/// Most of a frame in a packet, in bytes.
const PACKET_MOST: usize = 1400;

/// What frames came to.
#[derive(Clone, Default)]
pub(crate) struct Cost {
    /// Bytes of each frame, in order.
    pub(crate) frames: Vec<usize>,
    /// Bytes of all dictionaries.
    pub(crate) dictionaries: usize,
    /// Bytes of packets around frames and dictionaries.
    packets: usize,
    /// Bytes of frames beside their bodies.
    pub(crate) headers: usize,
    /// Processor time of compressing, training included.
    pub(crate) there: Duration,
    /// Processor time of restoring the rows.
    pub(crate) back: Duration,
}

impl Cost {
    /// Takes in a frame with a body of so many bytes.
    pub(crate) fn frame(&mut self, raw: &Raw, body: usize) {
        let bytes = raw.around + varint_len(body as u64) + body;
        self.frames.push(bytes);
        self.headers += bytes - body;
        self.packets += packets(bytes);
    }

    /// Takes in a whole frame of so many bytes.
    pub(crate) fn sent(&mut self, raw: &Raw, bytes: usize) {
        self.frames.push(bytes);
        self.headers += raw.around;
        self.packets += packets(bytes);
    }

    /// Takes in a dictionary of so many bytes.
    pub(crate) fn dictionary(&mut self, bytes: usize) {
        self.dictionaries += bytes;
        self.packets += packets(bytes);
    }

    /// All that goes over the line to the collector, in bytes.
    pub(crate) fn line(&self) -> usize {
        self.frames.iter().sum::<usize>() + self.dictionaries + self.packets
    }

    /// The same of the second half of the frames: dictionaries are trained and sent by then.
    pub(crate) fn line_late(&self) -> usize {
        self.frames.iter().skip(self.frames.len() / 2).map(|bytes| bytes + packets(*bytes)).sum()
    }
}

fn packets(bytes: usize) -> usize {
    bytes.div_ceil(PACKET_MOST) * PACKET_BYTES
}

/// What this thread needs of the processor for it.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let now = || {
        let time = clock_gettime(ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
    };
    let begin = now();
    work();
    now() - begin
}
