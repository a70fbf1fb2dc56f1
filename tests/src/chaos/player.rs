//! Makes the faults of a schedule happen in a scene, one after the other, and proves the moment of each.
//!
//! The moments of a transaction are arranged with the link and seen at the centre; the product has no part in it:
//!
//! | moment | how |
//! |---|---|
//! | before produce | the way up is cut until packets of the agent were lost to it and no transaction is open at the centre |
//! | between produce and commit | the fault comes while a transaction is open at the centre; it counts if that very transaction is still open after it |
//! | after commit, before ack | the way down is cut, so no ack can pass; the fault comes once a commit was seen after that |

use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};

use super::scene::{Pace, Reach, Scene};
use super::schedule::{Kind, Moment, Schedule, Step};
use super::tally::Tally;
use crate::relay::weather::Weather;
use crate::relay::{Direction, Traffic};

/// Bytes of the agent that have to be lost before records are known to be on their way: more than keep-alives and acknowledgements.
const LOST_MIN_BYTES: u64 = 2_000;

/// Looks at the centre that are left out where nothing depends on the moment.
const FLOW_LOOKS: u32 = 8;

/// Packets in a thousand that bad weather meets.
const WEATHER_SHARE: u16 = 60;

/// Plays schedules.
#[derive(Debug)]
pub struct Player<'s, S> {
    pub(super) scene: &'s mut S,
    tally: Tally,
    /// A fault that stays while the next one happens, and the link's counters before it.
    lasting: Option<(Kind, Traffic)>,
    notes: Vec<String>,
}

/// What was arranged before a fault.
struct Arranged {
    moment: Moment,
    before: Option<Reach>,
}

impl<'s, S: Scene> Player<'s, S> {
    /// A player for a scene in which records flow.
    pub fn new(scene: &'s mut S) -> Self {
        Self { scene, tally: Tally::default(), lasting: None, notes: Vec::new() }
    }

    /// What has happened so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// What else there is to know about what happened, to understand a failure.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    pub(super) fn note(&mut self, what: String) {
        self.notes.push(what);
    }

    /// Plays all steps, and tells each before it is played.
    ///
    /// # Errors
    /// When a fault cannot be made to happen, or records do not flow after it.
    pub fn play(&mut self, schedule: &Schedule, mut tell: impl FnMut(usize, &Step, &Tally)) -> Result<()> {
        for (number, step) in schedule.steps.iter().enumerate() {
            tell(number, step, &self.tally);
            self.step(step).with_context(|| format!("step {}: {} {}", number + 1, step.kind, step.moment))?;
        }
        self.end_lasting()?;
        self.wait_for_flow()
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let pace = self.scene.pace();
        self.wait_for_flow()?;
        self.scene.check()?;
        std::thread::sleep(pace.wait_max * step.wait / 1000);
        if step.kind.lasts() {
            self.end_lasting()?;
            return self.begin_lasting(step);
        }
        if step.kind.spills() {
            self.outage(step)?;
            self.tally.note(step.kind, Moment::Any);
            return self.end_lasting();
        }
        let arranged = self.arrange(step.moment, pace)?;
        let traffic = self.scene.relay().traffic();
        self.begin(step)?;
        let proven = self.is_proven(&arranged, step.kind, pace);
        std::thread::sleep(pace.hold_max * step.hold / 1000);
        self.release();
        self.end(step.kind, traffic)?;
        self.tally.note(step.kind, if proven { arranged.moment } else { Moment::Any });
        self.end_lasting()
    }

    /// Waits until something is committed that was not before.
    pub(super) fn wait_for_flow(&mut self) -> Result<()> {
        let pace = self.scene.pace();
        let deadline = Instant::now() + pace.recovery;
        let mut from = None;
        loop {
            if let Some(now) = self.scene.reach()
                && now.stable > *from.get_or_insert(now.stable)
            {
                return Ok(());
            }
            self.scene.check_running()?;
            ensure!(Instant::now() < deadline, "no records arrive at the centre for {:?}; last seen {from:?}", pace.recovery);
            std::thread::sleep(pace.look * FLOW_LOOKS);
        }
    }

    /// Brings about a moment. Where that does not succeed the fault comes at any time, and is asked for again.
    fn arrange(&mut self, moment: Moment, pace: Pace) -> Result<Arranged> {
        let deadline = Instant::now() + pace.recovery / 4;
        let lost = |scene: &S| scene.relay().traffic().cut_up_bytes;
        match moment {
            Moment::Any => {}
            Moment::BeforeCommit => {
                while Instant::now() < deadline {
                    if let Some(before) = self.scene.reach().filter(Reach::is_open) {
                        return Ok(Arranged { moment, before: Some(before) });
                    }
                    std::thread::sleep(pace.look);
                }
            }
            Moment::BeforeProduce => {
                let before = lost(self.scene);
                self.scene.relay().cut_direction(Direction::Up, true);
                std::thread::sleep(pace.quiet);
                while Instant::now() < deadline {
                    if lost(self.scene) >= before + LOST_MIN_BYTES && self.scene.is_settled()? {
                        return Ok(Arranged { moment, before: None });
                    }
                    std::thread::sleep(pace.look);
                }
            }
            Moment::BeforeAck => {
                self.scene.relay().cut_direction(Direction::Down, true);
                let from = self.scene.reach().map(|reach| reach.stable);
                while Instant::now() < deadline {
                    if let (Some(from), Some(now)) = (from, self.scene.reach())
                        && now.stable > from
                    {
                        return Ok(Arranged { moment, before: None });
                    }
                    std::thread::sleep(pace.look);
                }
            }
        }
        self.release();
        Ok(Arranged { moment: Moment::Any, before: None })
    }

    /// Whether the fault hit the moment that was arranged.
    fn is_proven(&mut self, arranged: &Arranged, kind: Kind, pace: Pace) -> bool {
        let Some(before) = arranged.before else { return arranged.moment != Moment::Any };
        if kind == Kind::KillCollector {
            // Its commit may have been under way; then the markers come now.
            std::thread::sleep(pace.markers);
        }
        self.scene.reach().is_some_and(|now| now.stable == before.stable && now.is_open())
    }

    /// Lets both directions pass again.
    fn release(&self) {
        self.scene.relay().set_cut(false);
    }

    fn begin(&mut self, step: &Step) -> Result<()> {
        match step.kind {
            Kind::Cut => self.scene.relay().set_cut(true),
            Kind::NewAddress => self.scene.relay().change_source(),
            _ => self.scene.begin(step)?,
        }
        Ok(())
    }

    fn end(&mut self, kind: Kind, before: Traffic) -> Result<()> {
        let now = self.scene.relay().traffic();
        match kind {
            Kind::Cut => {
                if now.cut_packets == before.cut_packets {
                    // A short cut in a quiet moment; it lasts until it has cut something.
                    self.scene.relay().set_cut(true);
                    self.wait_for_traffic("cut", |now| now.cut_packets > before.cut_packets)?;
                    self.release();
                }
                Ok(())
            }
            Kind::NewAddress => self.wait_for_traffic("sent from the new address", |now| now.up_bytes > before.up_bytes),
            _ => self.scene.end(kind),
        }
    }

    fn begin_lasting(&mut self, step: &Step) -> Result<()> {
        let weather = match step.kind {
            Kind::Lose => Weather { lost: WEATHER_SHARE, ..Weather::default() },
            Kind::Double => Weather { doubled: WEATHER_SHARE, ..Weather::default() },
            Kind::Reorder => Weather { reordered: WEATHER_SHARE, ..Weather::default() },
            Kind::Corrupt => Weather { corrupted: WEATHER_SHARE, ..Weather::default() },
            _ => {
                self.scene.begin(step)?;
                Weather::default()
            }
        };
        self.lasting = Some((step.kind, self.scene.relay().traffic()));
        self.scene.relay().set_weather(weather, step.salt);
        Ok(())
    }

    fn end_lasting(&mut self) -> Result<()> {
        let Some((kind, before)) = self.lasting.take() else { return Ok(()) };
        match kind {
            Kind::Lose => self.wait_for_traffic("lost", |now| now.lost_packets > before.lost_packets)?,
            Kind::Double => self.wait_for_traffic("doubled", |now| now.doubled_packets > before.doubled_packets)?,
            Kind::Reorder => self.wait_for_traffic("reordered", |now| now.reordered_packets > before.reordered_packets)?,
            Kind::Corrupt => self.wait_for_traffic("corrupted", |now| now.corrupted_packets > before.corrupted_packets)?,
            _ => self.scene.end(kind)?,
        }
        self.scene.relay().set_weather(Weather::default(), 0);
        self.tally.note(kind, Moment::Any);
        Ok(())
    }

    fn wait_for_traffic(&self, what: &str, seen: impl Fn(&Traffic) -> bool) -> Result<()> {
        let pace = self.scene.pace();
        let deadline = Instant::now() + pace.recovery;
        while !seen(&self.scene.relay().traffic()) {
            if Instant::now() >= deadline {
                bail!("no packet was {what} within {:?}", pace.recovery);
            }
            std::thread::sleep(pace.look);
        }
        Ok(())
    }
}
