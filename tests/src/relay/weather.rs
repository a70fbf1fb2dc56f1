//! What becomes of a packet on a bad link. Pure: the randomness comes in.

use std::time::Duration;

use rand::Rng;

/// Least time by which a packet is held back.
pub const HOLD_BACK_MIN: Duration = Duration::from_millis(2);

/// Most of it: on loopback hundreds of packets pass meanwhile.
pub const HOLD_BACK_MAX: Duration = Duration::from_millis(30);

/// How often what happens, in packets of a thousand. The default is a fine day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weather {
    /// Lost.
    pub lost: u16,
    /// Sent twice.
    pub doubled: u16,
    /// Held back by [`HOLD_BACK_MIN`] to [`HOLD_BACK_MAX`], so that later packets pass it.
    pub reordered: u16,
    /// Sent with one bit turned.
    pub corrupted: u16,
}

/// What becomes of one packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fate {
    /// Copies that are sent: 0, 1 or 2.
    pub copies: u8,
    /// By how much it is held back.
    pub hold_back: Duration,
    /// The bit that is turned, if one is.
    pub turned_bit: Option<usize>,
}

impl Weather {
    /// Decides about a packet of `len` bytes.
    pub fn fate(&self, len: usize, rng: &mut impl Rng) -> Fate {
        let mut meets = |share: u16| rng.random_range(0..1000) < share;
        let copies = match (meets(self.lost), meets(self.doubled)) {
            (true, _) => 0,
            (false, true) => 2,
            (false, false) => 1,
        };
        let (reordered, corrupted) = (meets(self.reordered), meets(self.corrupted));
        Fate {
            copies,
            hold_back: if reordered { rng.random_range(HOLD_BACK_MIN..=HOLD_BACK_MAX) } else { Duration::ZERO },
            turned_bit: (corrupted && len > 0).then(|| rng.random_range(0..len * 8)),
        }
    }
}

/// Turns bit `bit` of `bytes`; does nothing beyond their end.
pub fn turn(bytes: &mut [u8], bit: usize) {
    if let Some(byte) = bytes.get_mut(bit / 8) {
        *byte ^= 1 << (bit % 8);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn shares_are_of_a_thousand_and_a_fine_day_does_nothing() {
        let mut rng = StdRng::seed_from_u64(1);
        let fine = Fate { copies: 1, hold_back: Duration::ZERO, turned_bit: None };
        assert!((0..1000).all(|_| Weather::default().fate(100, &mut rng) == fine));
        let bad = Weather { lost: 100, doubled: 200, reordered: 300, corrupted: 400 };
        let fates: Vec<Fate> = (0..10_000).map(|_| bad.fate(100, &mut rng)).collect();
        let count = |test: fn(&Fate) -> bool| fates.iter().filter(|fate| test(fate)).count();
        assert!((900..1100).contains(&count(|fate| fate.copies == 0)));
        assert!((1600..2000).contains(&count(|fate| fate.copies == 2)));
        assert!((2800..3200).contains(&count(|fate| fate.hold_back >= HOLD_BACK_MIN)));
        assert!((3800..4200).contains(&count(|fate| fate.turned_bit.is_some_and(|bit| bit < 800))));
    }

    #[test]
    fn one_bit_is_turned() {
        let mut bytes = [0; 3];
        turn(&mut bytes, 9);
        assert_eq!(bytes, [0, 2, 0]);
        turn(&mut bytes, 24);
        assert_eq!(bytes, [0, 2, 0]);
    }
}
