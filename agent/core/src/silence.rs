//! When an agent that waits for acknowledgements asks for a sign of life.
//!
//! QUIC looks after packets of its own that are not acknowledged. A collector that took everything and died before it could commit leaves an
//! agent that waits for it with nothing to repeat: nobody would notice before the next keep-alive, 25 s later by default, or not before the
//! idle timeout where keep-alives are off. So an agent that waits says something. It costs a small packet, and only while nothing else comes.

use std::time::{Duration, Instant};

/// Silence before the first question. Much longer than a busy site waits for its next ack (`transactions.interval`, a quarter of a second by default).
const FIRST: Duration = Duration::from_secs(2);

/// Silence before a further question, at most: it doubles with each, because a centre that is down for hours makes a collector silent too.
const LONGEST: Duration = Duration::from_secs(32);

/// The silence of a collector in one session.
#[derive(Debug, Clone, Copy)]
pub struct Silence {
    since: Instant,
    wait: Duration,
}

impl Silence {
    /// Begins with the session.
    pub fn new(now: Instant) -> Self {
        Self { since: now, wait: FIRST }
    }

    /// The collector said something.
    pub fn end(&mut self, now: Instant) {
        *self = Self::new(now);
    }

    /// Whether it has lasted long enough to ask now; `waits` tells whether acks are waited for, without which silence is no matter. To be
    /// called about once a second. True once for each question.
    pub fn must_ask(&mut self, now: Instant, waits: bool) -> bool {
        if !waits {
            self.end(now);
        }
        if now.saturating_duration_since(self.since) < self.wait {
            return false;
        }
        *self = Self { since: now, wait: (self.wait * 2).min(LONGEST) };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_after_two_seconds_and_then_ever_more_rarely() {
        let begun = Instant::now();
        let mut silence = Silence::new(begun);
        let asked: Vec<_> = (0..200).filter(|&second| silence.must_ask(begun + Duration::from_secs(second), true)).collect();
        assert_eq!(asked, [2, 6, 14, 30, 62, 94, 126, 158, 190]);
    }

    #[test]
    fn what_is_heard_begins_it_anew() {
        let begun = Instant::now();
        let at = |second| begun + Duration::from_secs(second);
        let mut silence = Silence::new(begun);
        assert!(silence.must_ask(at(2), true));
        silence.end(at(3));
        assert!(!silence.must_ask(at(4), true));
        assert!(silence.must_ask(at(5), true));
    }

    #[test]
    fn whoever_waits_for_nothing_asks_nothing() {
        let begun = Instant::now();
        let mut silence = Silence::new(begun);
        assert!((0..100).all(|second| !silence.must_ask(begun + Duration::from_secs(second), false)));
        assert!(!silence.must_ask(begun + Duration::from_secs(100), true), "what was silent before does not count");
        assert!(silence.must_ask(begun + Duration::from_secs(101), true));
    }
}
