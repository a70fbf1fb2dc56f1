//! How long to wait before the next attempt to connect, and to which address.

use std::time::Duration;

use spillway_proto::close::Disposition;

/// Pause before the second attempt at most, before jitter; doubles with every failure.
///
/// A path that comes back after a second should not wait for more than about that.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Counts failures and cycles through the addresses.
///
/// After a session that was open, or when all addresses have failed, the next attempt begins with the first address again.
#[derive(Debug, Clone)]
pub struct Redial {
    addresses: usize,
    longest: Duration,
    address: usize,
    failures: u32,
}

/// The next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// Wait so long first.
    pub pause: Duration,
    /// Index of the address to dial.
    pub address: usize,
}

impl Redial {
    /// For a list of `addresses` addresses (at least one), with pauses of at most `longest`.
    pub fn new(addresses: usize, longest: Duration) -> Self {
        Self { addresses: addresses.max(1), longest, address: 0, failures: 0 }
    }

    /// A session was opened: the failures before it count no more.
    pub fn opened(&mut self) {
        self.failures = 0;
    }

    /// The very first attempt.
    pub fn first(&self) -> Attempt {
        Attempt { pause: Duration::ZERO, address: self.address }
    }

    /// A session that had been open ended, for a reason with the given disposition. `random` is uniform in [0, 1).
    pub fn lost(&mut self, disposition: Disposition, random: f64) -> Attempt {
        self.address = 0;
        self.failures = 0;
        self.after(disposition, random)
    }

    /// An attempt failed, for a reason with the given disposition. `random` is uniform in [0, 1).
    ///
    /// The addresses of a list follow each other at once; the pause comes when all of them have failed.
    pub fn failed(&mut self, disposition: Disposition, random: f64) -> Attempt {
        self.address += 1;
        if self.address < self.addresses {
            return Attempt { pause: Duration::ZERO, address: self.address };
        }
        self.address = 0;
        self.after(disposition, random)
    }

    fn after(&mut self, disposition: Disposition, random: f64) -> Attempt {
        let ceiling = match disposition {
            Disposition::Redial => FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(self.longest),
            Disposition::NeedsOperator => self.longest,
        };
        self.failures = self.failures.saturating_add(1);
        // Full jitter, so that a thousand sites do not come back in step; where a person has to act, only the upper half, since asking
        // sooner is of no use.
        let share = match disposition {
            Disposition::Redial => random,
            Disposition::NeedsOperator => 0.5 + random / 2.0,
        };
        Attempt { pause: ceiling.mul_f64(share.clamp(0.0, 1.0)), address: self.address }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(30);

    #[test]
    fn pauses_grow_to_the_longest_and_no_further() {
        let mut redial = Redial::new(1, LONGEST);
        let pauses: Vec<_> = (0..7).map(|_| redial.failed(Disposition::Redial, 1.0).pause.as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(redial.failed(Disposition::Redial, 0.0).pause, Duration::ZERO, "full jitter");
        redial.opened();
        assert_eq!(redial.lost(Disposition::Redial, 1.0).pause.as_secs(), 1);
    }

    #[test]
    fn all_addresses_are_tried_before_a_pause() {
        let mut redial = Redial::new(3, LONGEST);
        assert_eq!(redial.first(), Attempt { pause: Duration::ZERO, address: 0 });
        assert_eq!(redial.failed(Disposition::Redial, 0.5), Attempt { pause: Duration::ZERO, address: 1 });
        assert_eq!(redial.failed(Disposition::Redial, 0.5), Attempt { pause: Duration::ZERO, address: 2 });
        assert_eq!(redial.failed(Disposition::Redial, 0.5), Attempt { pause: Duration::from_millis(500), address: 0 });
    }

    #[test]
    fn a_lost_session_begins_with_the_first_address_again() {
        let mut redial = Redial::new(2, LONGEST);
        assert_eq!(redial.failed(Disposition::Redial, 0.5).address, 1);
        redial.opened();
        assert_eq!(redial.lost(Disposition::Redial, 0.5).address, 0);
    }

    #[test]
    fn where_a_person_must_act_the_pause_is_long_at_once() {
        let mut redial = Redial::new(1, LONGEST);
        assert_eq!(redial.failed(Disposition::NeedsOperator, 0.0).pause, LONGEST / 2);
        assert_eq!(redial.failed(Disposition::NeedsOperator, 1.0).pause, LONGEST);
    }
}
