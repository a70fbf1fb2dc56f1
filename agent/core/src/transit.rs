//! What was given to QUIC and has not left yet, and how much more may be given.
//!
//! QUIC sends streams by their priority, so a frame of class 0 overtakes everything inside. But QUIC's buffer is bounded, what is in it has its order, and a frame
//! in it cannot be taken back: so frames of the other classes are given to it only when it is about to run out.
//!
//! What has left is estimated: from the bytes of the datagrams, without those that were lost, and from the frames that the peer has acknowledged as a whole.

use std::collections::VecDeque;
use std::time::Duration;

use crate::schedule::Room;

/// What is known of the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineRate {
    /// Bytes a second that it takes, as far as is known; `None`: not yet.
    pub bytes_per_second: Option<u64>,
    /// Round-trip time.
    pub round_trip: Duration,
}

/// The time of the line that a frame may take.
pub const FRAME_LINE_TIME: Duration = Duration::from_secs(2);

/// QUIC has at least so much of the line's time to send: the next frame is given when less is left. It covers what the estimate may be wrong by, and the time
/// until somebody looks again.
pub const AHEAD: Duration = Duration::from_millis(250);

/// QUIC has at least so many bytes to send: three packets. On lines that carry less in [`AHEAD`].
pub const AHEAD_LEAST_BYTES: u64 = 4096;

/// Of a datagram's bytes, so many in a hundred are frames; the others are headers and acknowledgements.
const PAYLOAD_PERCENT: u64 = 93;

/// Most frames of the other classes that are not acknowledged by QUIC. A collector takes 64 streams at the same time, and some are for class 0.
pub const MAX_FRAMES_IN_TRANSIT: usize = 48;

impl LineRate {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self { bytes_per_second: None, round_trip: Duration::ZERO };

    /// The line carries so many bytes in that time; `None` while nothing is known of it.
    pub fn bytes_in(&self, time: Duration) -> Option<u64> {
        let bytes = u128::from(self.bytes_per_second?) * time.as_millis() / 1000;
        Some(u64::try_from(bytes).unwrap_or(u64::MAX))
    }

    /// Most encoded bytes of a frame, so that it takes no more than [`FRAME_LINE_TIME`]; `None` while nothing is known.
    pub fn frame_bytes(&self) -> Option<u64> {
        self.bytes_in(FRAME_LINE_TIME)
    }

    /// What QUIC is to have ahead of it.
    fn ahead(&self) -> u64 {
        self.bytes_in(AHEAD).map_or(u64::MAX, |bytes| bytes.max(AHEAD_LEAST_BYTES))
    }
}

/// What is in QUIC. Of one session.
#[derive(Debug, Default)]
pub struct Transit {
    /// Frames that are not acknowledged, of class 0 and of the others, in the order in which they were given.
    frames: [VecDeque<u64>; 2],
    /// Of their bytes, those that have not left.
    unsent: [u64; 2],
    /// Payload that the datagrams so far had room for.
    left: u64,
}

impl Transit {
    /// A frame was given to QUIC.
    pub fn given(&mut self, urgent: bool, bytes: usize) {
        self.frames[place(urgent)].push_back(bytes as u64);
        self.unsent[place(urgent)] += bytes as u64;
    }

    /// QUIC has an acknowledgement for all of a frame of so many bytes. Answers how many bytes of other classes than 0 turn out to have left.
    pub fn arrived(&mut self, urgent: bool, bytes: usize) -> u64 {
        let frames = &mut self.frames[place(urgent)];
        if let Some(found) = frames.iter().position(|frame| *frame == bytes as u64) {
            frames.remove(found);
        }
        let unsent = &mut self.unsent[place(urgent)];
        let before = std::mem::replace(unsent, (*unsent).min(frames.iter().sum()));
        if urgent { 0 } else { before - *unsent }
    }

    /// Since the session began datagrams of so many bytes have left, and of so many bytes were lost. Answers how many bytes of other classes than 0 have left
    /// since the last time.
    pub fn observe(&mut self, datagram_bytes: u64, lost_bytes: u64) -> u64 {
        let left = datagram_bytes.saturating_sub(lost_bytes) / 100 * PAYLOAD_PERCENT;
        let mut gone = left.saturating_sub(self.left);
        self.left = self.left.max(left);
        let before = self.unsent[place(false)];
        for unsent in &mut self.unsent {
            let taken = gone.min(*unsent);
            (*unsent, gone) = (*unsent - taken, gone - taken);
        }
        before - self.unsent[place(false)]
    }

    /// True when frames of other classes are in QUIC and have not left.
    pub fn holds_others(&self) -> bool {
        self.unsent[place(false)] > 0
    }

    /// Bytes that have not left.
    pub fn unsent(&self) -> u64 {
        self.unsent.iter().sum()
    }

    /// Bytes that are not acknowledged.
    pub fn unacked(&self) -> u64 {
        self.frames.iter().flatten().sum()
    }

    /// Who may give QUIC a frame now.
    pub fn room(&self, line: LineRate) -> Room {
        let ([urgent, behind], ahead) = (self.unsent, line.ahead());
        let others = urgent + behind < ahead && self.frames[place(false)].len() < MAX_FRAMES_IN_TRANSIT;
        let is_urgent_room = urgent < ahead.saturating_mul(2) && self.frames[place(true)].len() < MAX_FRAMES_IN_TRANSIT;
        Room { urgent: is_urgent_room, others, behind }
    }

    /// How long to wait before [`Self::observe`] may find room: the time that the line takes for what is too much, within bounds.
    pub fn look_again(&self, line: LineRate) -> Duration {
        let over = self.unsent().saturating_sub(line.ahead());
        let rate = line.bytes_per_second.unwrap_or(u64::MAX).max(1);
        let time = Duration::from_millis(u64::try_from(u128::from(over) * 1000 / u128::from(rate)).unwrap_or(u64::MAX));
        time.clamp(LOOK_LEAST, LOOK_MOST)
    }
}

/// More often is of no use: a packet of 1,400 bytes takes 11 ms on 1 Mbit/s.
const LOOK_LEAST: Duration = Duration::from_millis(5);

/// The line may become faster meanwhile.
const LOOK_MOST: Duration = Duration::from_millis(100);

fn place(urgent: bool) -> usize {
    usize::from(!urgent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(bytes_per_second: u64) -> LineRate {
        LineRate { bytes_per_second: Some(bytes_per_second), round_trip: Duration::from_millis(300) }
    }

    #[test]
    fn the_next_frame_is_given_when_the_one_before_is_about_to_have_left() {
        let (mut transit, line) = (Transit::default(), line(40_000));
        assert_eq!(transit.room(line), Room::ALL);
        transit.given(false, 50_000);
        assert_eq!(transit.room(line), Room { urgent: true, others: false, behind: 50_000 });
        assert_eq!(transit.look_again(line), LOOK_MOST);
        transit.observe(40_000, 0);
        assert!(!transit.room(line).others, "12,800 bytes are left, which is more than the line takes in 250 ms");
        transit.observe(44_000, 0);
        assert!(transit.room(line).others);
    }

    #[test]
    fn what_was_lost_has_not_left() {
        let mut transit = Transit::default();
        transit.given(false, 50_000);
        transit.observe(50_000, 50_000);
        assert_eq!(transit.unsent(), 50_000);
    }

    #[test]
    fn an_acknowledgement_corrects_the_estimate() {
        let mut transit = Transit::default();
        transit.given(false, 1000);
        transit.given(false, 2000);
        transit.arrived(false, 1000);
        assert_eq!((transit.unsent(), transit.unacked()), (2000, 2000));
        transit.arrived(false, 2000);
        assert_eq!((transit.unsent(), transit.unacked(), transit.room(line(1))), (0, 0, Room::ALL));
    }

    #[test]
    fn urgent_frames_leave_first() {
        let (mut transit, line) = (Transit::default(), line(6_250));
        transit.given(false, 12_500);
        transit.given(true, 300);
        transit.observe(400, 0);
        assert_eq!(transit.unsent, [0, 12_500 - (4 * PAYLOAD_PERCENT - 300)]);
        let behind = transit.unsent[1];
        assert_eq!(transit.room(line), Room { urgent: true, others: false, behind });
        assert_eq!((transit.observe(1_400, 0), transit.arrived(true, 300)), (10 * PAYLOAD_PERCENT, 0));
        assert_eq!(transit.arrived(false, 12_500), behind - 10 * PAYLOAD_PERCENT);
    }

    #[test]
    fn a_line_of_which_nothing_is_known_takes_all() {
        let mut transit = Transit::default();
        transit.given(false, usize::MAX >> 1);
        assert!(transit.room(LineRate::UNKNOWN).others);
        (1..MAX_FRAMES_IN_TRANSIT).for_each(|_| transit.given(false, 1));
        assert!(!transit.room(LineRate::UNKNOWN).others, "but not without end");
    }

    #[test]
    fn a_frame_takes_two_seconds_of_the_line() {
        assert_eq!((line(6_250).frame_bytes(), LineRate::UNKNOWN.frame_bytes()), (Some(12_500), None));
    }
}
