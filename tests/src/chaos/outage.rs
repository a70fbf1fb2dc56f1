//! Outages that last until the agent writes to its spill, and what happens to it meanwhile.
//!
//! Whether it spills and drains is seen in the spill's directory, not asked of the agent: frames are there, and the link is cut; or they are there,
//! the link is up, and records arrive.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, ensure};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::player::Player;
use super::scene::{Pace, Scene};
use super::schedule::{Kind, Step};
use crate::spill_dir;

/// Attempts at meeting the agent while it drains: each with a longer line.
const DRAIN_TRIES: u32 = 6;

impl<S: Scene> Player<'_, S> {
    /// Plays one of the faults that need a spill.
    pub(super) fn outage(&mut self, step: &Step) -> Result<()> {
        let (pace, mut rng) = (self.scene.pace(), StdRng::seed_from_u64(step.salt));
        let hold = pace.outage_max * step.hold / 1000;
        let done = match step.kind {
            Kind::KillSpilling => self.kill_spilling(hold, &pace),
            Kind::KillDraining => self.kill_draining(hold, &pace),
            Kind::FullDisk => self.full_disk(hold, &pace, &mut rng),
            Kind::DamagedSpill => self.damaged(hold, &pace, &mut rng),
            _ => self.plain(hold, &pace, &mut rng),
        };
        self.scene.relay().set_delay(Duration::ZERO);
        self.scene.relay().set_cut(false);
        done
    }

    /// Cuts the link until frames are in the spill, which stay there while it is cut.
    fn cut_until_spilled(&mut self, pace: &Pace) -> Result<()> {
        self.scene.relay().set_cut(true);
        // What was acknowledged before the cut is released meanwhile.
        std::thread::sleep(pace.quiet);
        self.wait_new_frames(pace)
    }

    /// Waits until frames are written from now on. With the link cut for a while they stay: none of them was sent.
    fn wait_new_frames(&mut self, pace: &Pace) -> Result<()> {
        let since = SystemTime::now();
        self.wait_spill("new frames in the spill", pace, |player| Ok(spill_dir::is_written(player.scene.spill_dir(), since)))
    }

    fn has_frames(&mut self) -> Result<bool> {
        Ok(spill_dir::has_frames(self.scene.spill_dir()))
    }

    fn is_drained(&mut self) -> Result<bool> {
        Ok(spill_dir::is_empty(self.scene.spill_dir()))
    }

    fn wait_spill(&mut self, what: &str, pace: &Pace, mut seen: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        let deadline = Instant::now() + pace.recovery;
        while !seen(self)? {
            self.scene.check_running()?;
            ensure!(Instant::now() < deadline, "not seen within {:?}: {what}", pace.recovery);
            std::thread::sleep(pace.look);
        }
        Ok(())
    }

    /// The link is back; sometimes the next fault waits until the spill is drained, so that it has to begin again.
    fn plain(&mut self, hold: Duration, pace: &Pace, rng: &mut StdRng) -> Result<()> {
        self.cut_until_spilled(pace)?;
        std::thread::sleep(hold);
        self.scene.relay().set_cut(false);
        if rng.random() {
            self.wait_spill("a drained spill", pace, Self::is_drained)?;
        }
        Ok(())
    }

    fn kill_spilling(&mut self, hold: Duration, pace: &Pace) -> Result<()> {
        self.cut_until_spilled(pace)?;
        std::thread::sleep(hold / 2);
        self.wait_new_frames(pace)?;
        self.scene.kill_agent()?;
        ensure!(self.has_frames()?, "the spill held no frames when the agent was killed");
        self.scene.start_agent()?;
        std::thread::sleep(hold / 2);
        ensure!(self.has_frames()?, "the frames did not outlive the kill");
        Ok(())
    }

    fn kill_draining(&mut self, hold: Duration, pace: &Pace) -> Result<()> {
        for number in 1..=DRAIN_TRIES {
            self.cut_until_spilled(pace)?;
            std::thread::sleep(hold / DRAIN_TRIES * number);
            let before = self.scene.reach().map(|reach| reach.stable);
            // A long line: what has arrived is not acknowledged, and so not released, for a moment.
            self.scene.relay().set_delay(pace.drain_delay * number);
            self.scene.relay().set_cut(false);
            let arrives = |player: &mut Self| player.scene.reach().zip(before).is_some_and(|(now, before)| now.stable > before);
            self.wait_spill("records arrive, or the spill is drained", pace, |player| Ok(arrives(player) || player.is_drained()?))?;
            if self.has_frames()? {
                self.scene.kill_agent()?;
                self.scene.relay().set_delay(Duration::ZERO);
                return self.scene.start_agent();
            }
            self.scene.relay().set_delay(Duration::ZERO);
            self.wait_for_flow()?;
        }
        anyhow::bail!("the agent was not met while it drained, in {DRAIN_TRIES} attempts")
    }

    fn full_disk(&mut self, hold: Duration, pace: &Pace, rng: &mut StdRng) -> Result<()> {
        let from_the_start = !pace.fills || rng.random();
        // What it has of an earlier outage would have room for a while.
        self.wait_spill("a drained spill", pace, Self::is_drained)?;
        if from_the_start {
            self.scene.fill_disk(true)?;
            self.scene.relay().set_cut(true);
        } else {
            self.cut_until_spilled(pace)?;
            self.scene.fill_disk(true)?;
        }
        self.wait_spill("a spill that takes nothing", pace, |player| player.scene.is_spill_full())?;
        std::thread::sleep(hold);
        if rng.random() {
            // It has to drain and to go on with a full disk, and to return to normal by itself.
            self.scene.relay().set_cut(false);
            self.wait_for_flow()?;
            return self.scene.fill_disk(false);
        }
        self.scene.fill_disk(false)?;
        self.wait_spill("a spill that takes frames again", pace, |player| Ok(!player.scene.is_spill_full()?))?;
        self.wait_spill("frames in the spill", pace, Self::has_frames)
    }

    fn damaged(&mut self, hold: Duration, pace: &Pace, rng: &mut StdRng) -> Result<()> {
        self.cut_until_spilled(pace)?;
        std::thread::sleep(hold);
        self.wait_new_frames(pace)?;
        self.scene.kill_agent()?;
        self.scene.excuse()?;
        let done = spill_dir::damage(self.scene.spill_dir(), rng)?;
        self.note(format!("damaged: {done:?}"));
        self.scene.start_agent().with_context(|| format!("after damage: {done:?}"))?;
        if rng.random() {
            // What is lost is read again beside what is new, and spilled.
            std::thread::sleep(hold);
        }
        Ok(())
    }
}
