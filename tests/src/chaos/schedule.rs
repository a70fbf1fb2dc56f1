//! Which faults happen, when, and at which moment of a transaction. Pure: the same seed gives the same schedule.

use std::fmt;

use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, SliceRandom as _};
use rand::{Rng as _, SeedableRng as _};

/// Faults of one schedule on the embedded broker, at least; up to a quarter more.
pub const EMBEDDED_FAULTS: usize = 20;

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `kill -9` of the agent, and a new start.
    KillAgent,
    /// `kill -9` of the collector that has the site, and a new start.
    KillCollector,
    /// The link leads to the other collector.
    Move,
    /// The link is cut in both directions.
    Cut,
    /// The collector sees the agent come from another address.
    NewAddress,
    /// The link loses packets.
    Lose,
    /// The link doubles packets.
    Double,
    /// The link reorders packets.
    Reorder,
    /// The link damages packets.
    Corrupt,
    /// The central broker that leads a partition of the site dies and comes back.
    KillLeader,
    /// Fewer central replicas are in sync than a write needs.
    ShrinkIsr,
    /// The disk of a central broker is slow.
    SlowDisk,
    /// The clock of the agent is set, and later set right.
    SetClock,
    /// The centre carries a request out, and the answer is lost.
    LoseAnswer,
    /// The link is cut until the agent writes to its spill, and for some time more.
    Outage,
    /// The same, and `kill -9` of the agent meanwhile.
    KillSpilling,
    /// `kill -9` of the agent while its spill drains.
    KillDraining,
    /// The disk of the spill is full while the link is cut.
    FullDisk,
    /// Files of the spill are damaged while the agent is stopped.
    DamagedSpill,
}

/// When, in the life of a transaction, a fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Moment {
    /// At any time.
    Any,
    /// Records are on their way, and none of them is in a transaction yet.
    BeforeProduce,
    /// Records are produced and not committed.
    BeforeCommit,
    /// Records are committed, and the agent does not know.
    BeforeAck,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// What happens.
    pub kind: Kind,
    /// When.
    pub moment: Moment,
    /// How long records flow before it, in thousandths of what the scene allows.
    pub wait: u32,
    /// How long it lasts, likewise.
    pub hold: u32,
    /// For what else is left to chance.
    pub salt: u64,
}

/// How many faults of which kind at which moment.
pub type Cast = Vec<(Kind, Moment, usize)>;

/// The faults in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// What it was drawn from.
    pub seed: u64,
    /// The faults.
    pub steps: Vec<Step>,
}

impl Kind {
    /// All kinds, in the order of the table.
    pub const ALL: [Self; 19] = [
        Self::KillAgent,
        Self::KillCollector,
        Self::Move,
        Self::KillLeader,
        Self::ShrinkIsr,
        Self::SlowDisk,
        Self::SetClock,
        Self::Cut,
        Self::NewAddress,
        Self::Lose,
        Self::Double,
        Self::Reorder,
        Self::Corrupt,
        Self::LoseAnswer,
        Self::Outage,
        Self::KillSpilling,
        Self::KillDraining,
        Self::FullDisk,
        Self::DamagedSpill,
    ];

    /// Those that need the agent to spill.
    pub const OF_SPILL: [Self; 5] = [Self::Outage, Self::KillSpilling, Self::KillDraining, Self::FullDisk, Self::DamagedSpill];

    /// Whether it stays while the next fault happens.
    #[must_use]
    pub fn lasts(self) -> bool {
        matches!(self, Self::Lose | Self::Double | Self::Reorder | Self::Corrupt | Self::SlowDisk | Self::SetClock)
    }

    /// Whether it needs the agent to spill.
    #[must_use]
    pub fn spills(self) -> bool {
        Self::OF_SPILL.contains(&self)
    }

    /// Whether it can be aimed at a moment of a transaction.
    #[must_use]
    pub fn has_moment(self) -> bool {
        matches!(self, Self::KillAgent | Self::KillCollector | Self::Move | Self::Cut | Self::NewAddress)
    }
}

impl Moment {
    /// The moments of a transaction.
    pub const OF_TRANSACTION: [Self; 3] = [Self::BeforeProduce, Self::BeforeCommit, Self::BeforeAck];
}

/// What a whole run on real Kafka has to hold.
#[must_use]
pub fn full_cast() -> Cast {
    let mut cast = vec![
        (Kind::KillAgent, Moment::Any, 9),
        (Kind::KillCollector, Moment::Any, 9),
        (Kind::Move, Moment::Any, 5),
        (Kind::Cut, Moment::Any, 3),
        (Kind::NewAddress, Moment::Any, 1),
        (Kind::KillLeader, Moment::Any, 5),
        (Kind::ShrinkIsr, Moment::Any, 2),
        (Kind::SlowDisk, Moment::Any, 3),
        (Kind::SetClock, Moment::Any, 4),
        (Kind::Lose, Moment::Any, 2),
        (Kind::Double, Moment::Any, 2),
        (Kind::Reorder, Moment::Any, 2),
        (Kind::Corrupt, Moment::Any, 2),
        (Kind::Outage, Moment::Any, 5),
        (Kind::KillSpilling, Moment::Any, 4),
        (Kind::KillDraining, Moment::Any, 4),
        (Kind::FullDisk, Moment::Any, 3),
        (Kind::DamagedSpill, Moment::Any, 4),
    ];
    for moment in Moment::OF_TRANSACTION {
        cast.extend([
            (Kind::KillAgent, moment, 4),
            (Kind::KillCollector, moment, 4),
            (Kind::Move, moment, 2),
            (Kind::Cut, moment, 3),
            (Kind::NewAddress, moment, 1),
        ]);
    }
    cast
}

/// One of everything.
#[must_use]
pub fn short_cast() -> Cast {
    full_cast().into_iter().map(|(kind, moment, _)| (kind, moment, 1)).collect()
}

/// What a schedule on the embedded broker holds: each has another mixture.
#[must_use]
pub fn embedded_cast(seed: u64) -> Cast {
    // Kills most often; there is no clock of the agent alone within one process.
    const WEIGHTS: [(Kind, usize); 18] = [
        (Kind::KillAgent, 5),
        (Kind::KillCollector, 5),
        (Kind::Move, 3),
        (Kind::Cut, 3),
        (Kind::NewAddress, 2),
        (Kind::Lose, 1),
        (Kind::Double, 1),
        (Kind::Reorder, 1),
        (Kind::Corrupt, 1),
        (Kind::KillLeader, 2),
        (Kind::ShrinkIsr, 2),
        (Kind::SlowDisk, 1),
        (Kind::LoseAnswer, 3),
        (Kind::Outage, 3),
        (Kind::KillSpilling, 2),
        (Kind::KillDraining, 2),
        (Kind::FullDisk, 1),
        (Kind::DamagedSpill, 2),
    ];
    let mut rng = StdRng::seed_from_u64(seed);
    let kinds: Vec<Kind> = WEIGHTS.iter().flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight)).collect();
    let mut cast = Cast::new();
    for _ in 0..rng.random_range(EMBEDDED_FAULTS..=EMBEDDED_FAULTS * 5 / 4) {
        let kind = kinds.choose(&mut rng).copied().unwrap_or(Kind::Cut);
        let aimed = kind.has_moment() && rng.random_range(0..4) > 0;
        let moment = Moment::OF_TRANSACTION.choose(&mut rng).copied().filter(|_| aimed).unwrap_or(Moment::Any);
        match cast.iter_mut().find(|(other, at, _)| (*other, *at) == (kind, moment)) {
            Some((.., count)) => *count += 1,
            None => cast.push((kind, moment, 1)),
        }
    }
    cast
}

impl Schedule {
    /// Draws the order of a cast and everything else that is left to chance.
    #[must_use]
    pub fn draw(seed: u64, cast: &Cast) -> Self {
        let mut rng = StdRng::seed_from_u64(seed.rotate_left(32) ^ 0x5c4e_d01e);
        let mut steps = Vec::new();
        for (kind, moment, count) in cast {
            steps.extend(std::iter::repeat_with(|| step(*kind, *moment, &mut rng)).take(*count));
        }
        steps.shuffle(&mut rng);
        Self { seed, steps }
    }
}

fn step(kind: Kind, moment: Moment, rng: &mut StdRng) -> Step {
    Step { kind, moment, wait: rng.random_range(0..=1000), hold: rng.random_range(0..=1000), salt: rng.random() }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::KillAgent => "agent killed",
            Self::KillCollector => "collector killed",
            Self::Move => "moved to the other collector",
            Self::Cut => "link cut",
            Self::NewAddress => "new source address",
            Self::Lose => "packets lost",
            Self::Double => "packets doubled",
            Self::Reorder => "packets reordered",
            Self::Corrupt => "packets corrupted",
            Self::KillLeader => "leader killed",
            Self::ShrinkIsr => "ISR below the minimum",
            Self::SlowDisk => "slow disk",
            Self::SetClock => "agent's clock set",
            Self::LoseAnswer => "answer of the centre lost",
            Self::Outage => "outage until it spills",
            Self::KillSpilling => "agent killed, spilling",
            Self::KillDraining => "agent killed, draining",
            Self::FullDisk => "disk of the spill full",
            Self::DamagedSpill => "files of the spill damaged",
        })
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Any => "at any time",
            Self::BeforeProduce => "before produce",
            Self::BeforeCommit => "between produce and commit",
            Self::BeforeAck => "after commit, before ack",
        })
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, step) in self.steps.iter().enumerate() {
            let Step { kind, moment, wait, hold, .. } = step;
            writeln!(f, "{:>4}. {kind:<28} {moment:<26} wait {wait:>4} hold {hold:>4}", number + 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(schedule: &Schedule, test: impl Fn(&Step) -> bool) -> usize {
        schedule.steps.iter().filter(|step| test(step)).count()
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another() {
        let draw = |seed| Schedule::draw(seed, &embedded_cast(seed));
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
        assert_ne!(draw(7).to_string(), draw(8).to_string());
    }

    #[test]
    fn the_full_cast_meets_what_was_promised() {
        let schedule = Schedule::draw(1, &full_cast());
        for (kind, least) in [
            (Kind::KillAgent, 20),
            (Kind::KillCollector, 20),
            (Kind::KillLeader, 5),
            (Kind::Move, 10),
            (Kind::ShrinkIsr, 2),
            (Kind::DamagedSpill, 4),
        ] {
            assert!(count(&schedule, |step| step.kind == kind) >= least, "{kind}");
        }
        for moment in Moment::OF_TRANSACTION {
            for kind in [Kind::KillAgent, Kind::KillCollector, Kind::Cut, Kind::Move] {
                assert!(count(&schedule, |step| step.kind == kind && step.moment == moment) >= 2, "{kind} {moment}");
            }
        }
    }

    #[test]
    fn every_embedded_schedule_has_enough_faults_and_all_kinds_occur() {
        let schedules: Vec<Schedule> = (0..200).map(|seed| Schedule::draw(seed, &embedded_cast(seed))).collect();
        assert!(schedules.iter().all(|schedule| schedule.steps.len() >= EMBEDDED_FAULTS));
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::SetClock) {
            assert!(schedules.iter().any(|schedule| count(schedule, |step| step.kind == kind) > 0), "{kind}");
        }
        assert!(schedules.iter().flat_map(|schedule| &schedule.steps).all(|step| step.kind.has_moment() || step.moment == Moment::Any));
    }
}
