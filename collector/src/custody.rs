//! Frames in the collector's custody: received, not yet committed, counted in bytes.
//!
//! The bytes are counted as they come off the stream, chunk by chunk, and given back when the frame is dropped, whoever holds it last. So
//! one number bounds everything that a site can pin: half-read frames, parked ones, and those that wait for the central Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use prometheus_client::metrics::gauge::Gauge;
use spillway_proto::dictionary::Dictionary;
use spillway_proto::frame::Frame;
use tokio::sync::OwnedSemaphorePermit;

/// The bytes of one session's frames.
#[derive(Debug)]
pub struct Custody {
    held: AtomicUsize,
    /// Since when anything is held, in milliseconds since 1970.
    since_ms: AtomicI64,
    limit: usize,
    gauge: Gauge,
}

/// More bytes than the session may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{bytes} bytes of frames are unacknowledged, at most {limit} are allowed")]
pub struct Exceeded {
    /// What there would be.
    pub bytes: usize,
    /// The limit.
    pub limit: usize,
}

/// A part of the custody; gives it back when dropped.
#[derive(Debug)]
pub struct Lease {
    custody: Arc<Custody>,
    bytes: usize,
}

/// A frame with what it holds of its session's limits.
#[derive(Debug)]
pub struct HeldFrame {
    frame: Frame,
    _lease: Lease,
    _place: Place,
}

/// A place among the frames of a session, and among their sections; both are given back when dropped.
#[derive(Debug)]
pub struct Place {
    /// One frame.
    pub frame: OwnedSemaphorePermit,
    /// As many as the frame has sections; before they are known, as many as it may have.
    pub sections: OwnedSemaphorePermit,
}

impl Custody {
    /// An empty custody of at most `limit` bytes; `gauge` sums up all sessions'.
    pub fn new(limit: usize, gauge: Gauge) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), since_ms: AtomicI64::new(0), limit, gauge })
    }

    /// A lease of nothing, to be enlarged.
    pub fn lease(self: &Arc<Self>) -> Lease {
        Lease { custody: Arc::clone(self), bytes: 0 }
    }

    /// Since when something has been held without a pause, in milliseconds since 1970; `None` when nothing is.
    pub fn held_since_ms(&self) -> Option<i64> {
        (self.held() > 0).then(|| self.since_ms.load(Ordering::Relaxed))
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

impl Lease {
    /// Takes `more` bytes.
    ///
    /// # Errors
    /// When the session has more than it may; nothing is taken then.
    pub fn enlarge(&mut self, more: usize) -> Result<(), Exceeded> {
        let before = self.custody.held.fetch_add(more, Ordering::Relaxed);
        if before == 0 {
            self.custody.since_ms.store(jiff::Timestamp::now().as_millisecond(), Ordering::Relaxed);
        }
        let (bytes, limit) = (before + more, self.custody.limit);
        if bytes > limit {
            self.custody.held.fetch_sub(more, Ordering::Relaxed);
            return Err(Exceeded { bytes, limit });
        }
        self.bytes += more;
        self.custody.gauge.inc_by(i64::try_from(more).unwrap_or(i64::MAX));
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.custody.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.custody.gauge.dec_by(i64::try_from(self.bytes).unwrap_or(i64::MAX));
    }
}

impl HeldFrame {
    /// A frame, the lease of its bytes, its place among the frames held.
    pub fn new(frame: Frame, lease: Lease, place: Place) -> Self {
        Self { frame, _lease: lease, _place: place }
    }
}

impl HeldFrame {
    /// Attaches the dictionary that the frame names.
    pub fn attach(&mut self, dictionary: Arc<Dictionary>) {
        self.frame.attach(dictionary);
    }

    /// Takes the frame as it is without history. It may be somewhat larger than what came, and counts as that: by kilobytes at most, and frames are bounded in number, too.
    pub fn restored(&mut self, frame: Frame) {
        self.frame = frame;
    }
}

impl AsRef<Frame> for HeldFrame {
    fn as_ref(&self) -> &Frame {
        &self.frame
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let custody = Custody::new(10, Gauge::default());
        let (mut a, mut b) = (custody.lease(), custody.lease());
        a.enlarge(6).unwrap();
        b.enlarge(4).unwrap();
        assert_eq!(b.enlarge(1), Err(Exceeded { bytes: 11, limit: 10 }));
        assert_eq!(custody.held(), 10);
        drop(a);
        assert_eq!((custody.held(), custody.gauge.get()), (4, 4));
        b.enlarge(6).unwrap();
    }
}
