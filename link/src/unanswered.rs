//! When a handshake is worth its bytes: one that nobody answers costs some 11 KB in 10 s, a probe 53 bytes.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// The first handshakes of an outage are made in any case. As many are needed to find out that UDP is blocked.
const FIRST: u32 = 3;

/// Then one in so many: probes may have become what is blocked.
const ONE_IN: u32 = 10;

/// Handshakes over UDP in a row that nobody answered.
#[derive(Debug, Default)]
pub(crate) struct Unanswered {
    handshakes: AtomicU32,
    /// Probes answered when the last one failed.
    answers: AtomicU64,
}

impl Unanswered {
    /// Whether the next handshake shall wait for an answered probe, or is not worth it; `answers` counts answered probes since the process began. Never where no probe was
    /// answered yet: there may be something that lets nothing pass that does not look like QUIC.
    pub(crate) fn ask_first(&self, answers: u64) -> bool {
        let handshakes = self.handshakes.load(Relaxed);
        answers > 0 && answers == self.answers.load(Relaxed) && handshakes >= FIRST && !handshakes.is_multiple_of(ONE_IN)
    }

    /// Nobody answered a handshake, or the probe before it.
    pub(crate) fn failed(&self, answers: u64) {
        self.handshakes.fetch_add(1, Relaxed);
        self.answers.store(answers, Relaxed);
    }

    /// Somebody did.
    pub(crate) fn answered(&self) {
        self.handshakes.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is done about so many attempts in a row, of which none is answered: h is a handshake, p waits for a probe.
    fn outage(unanswered: &Unanswered, answers: u64, attempts: usize) -> String {
        let attempt = |_| {
            let done = if unanswered.ask_first(answers) { 'p' } else { 'h' };
            unanswered.failed(answers);
            done
        };
        (0..attempts).map(attempt).collect()
    }

    #[test]
    fn after_the_first_handshakes_one_in_ten_is_made() {
        let unanswered = Unanswered::default();
        assert_eq!(outage(&unanswered, 1, 32), "hhhppppppphppppppppphppppppppphp");
        unanswered.answered();
        assert_eq!(outage(&unanswered, 1, 5), "hhhpp");
    }

    #[test]
    fn an_answered_probe_is_followed_by_a_handshake() {
        let unanswered = Unanswered::default();
        outage(&unanswered, 1, 5);
        assert!(unanswered.ask_first(1) && !unanswered.ask_first(2));
        // A line that lets small packets through only.
        unanswered.failed(2);
        assert!(unanswered.ask_first(2));
    }

    #[test]
    fn where_probes_never_pass_every_attempt_is_a_handshake() {
        assert_eq!(outage(&Unanswered::default(), 0, 12), "h".repeat(12));
    }
}
