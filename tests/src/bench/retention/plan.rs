//! When the link is down, and when the agent is killed. Pure.

use std::time::Duration;

/// Kills of the agent in a run.
pub const KILLS: u32 = 10;

/// Part of the time with the link up that lies before the outage: one in so many.
const BEFORE_PART: u32 = 4;

/// How a run is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// How long records are written.
    pub writing: Duration,
    /// When the link goes down.
    pub down_at: Duration,
    /// When it is up again.
    pub up_at: Duration,
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// The link goes down.
    Down,
    /// The link is up again.
    Up,
    /// The agent is killed while the link is down, or up.
    Kill,
    /// The agent is killed as soon as it drains.
    KillDraining,
    /// Nothing more is written.
    End,
}

impl Plan {
    /// Most of the time with the link up comes after the outage, so that the backlog drains beside live records. `outage` is shorter than
    /// `writing`.
    #[must_use]
    pub fn new(writing: Duration, outage: Duration) -> Self {
        let down_at = writing.saturating_sub(outage) / BEFORE_PART;
        Self { writing, down_at, up_at: down_at + outage }
    }

    /// Everything in its order: kills at equal distances through the outage, the first soon after its beginning; the last two when the link is
    /// back.
    #[must_use]
    pub fn events(&self) -> Vec<(Duration, Due)> {
        let outage = self.up_at - self.down_at;
        let during = KILLS - 2;
        let mut events: Vec<(Duration, Due)> =
            (0..during).map(|number| (self.down_at + outage * (2 * number + 1) / (2 * during), Due::Kill)).collect();
        events.insert(0, (self.down_at, Due::Down));
        events.extend([(self.up_at, Due::Up), (self.up_at, Due::KillDraining), (self.up_at, Due::KillDraining), (self.writing, Due::End)]);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_hour_has_ten_kills_of_which_eight_fall_into_the_outage() {
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let plan = Plan::new(minutes(60), minutes(50));
        assert_eq!((plan.down_at, plan.up_at), (Duration::from_secs(150), Duration::from_secs(3150)));
        let events = plan.events();
        assert!(events.windows(2).all(|pair| pair[0].0 <= pair[1].0), "{events:?}");
        let kills = |due| events.iter().filter(|(_, other)| *other == due).count();
        assert_eq!((kills(Due::Kill), kills(Due::KillDraining)), (8, 2));
        assert!(events.iter().filter(|(_, due)| *due == Due::Kill).all(|(at, _)| *at > plan.down_at && *at < plan.up_at));
    }
}
