//! Which level to compress at: more work where the line is scarce, less where the processor is.
//!
//! Machines differ, so nothing is known of a level but what it took when it was used; a level that was not used for long is guessed from its
//! neighbour. Only the levels of [`RUNGS`] are used: between them little changes.
//!
//! - **The line is scarce** while what waits to be sent takes it longer than `SCARCE_AFTER`. Then the highest level is right that makes at least
//!   `AHEAD_OF_LINE` times what the line carries.
//! - **The processor is scarce** while next to nothing waits and compressing takes more than `BUSY` of a processor: down.
//! - **Nothing is scarce** otherwise. Bytes cost money all the same, so the level rises as long as compressing takes no more than `IDLE` of a processor.
//!
//! Up goes one rung at a time, after `PATIENCE`; after a step down no step up follows for a time that doubles, so that it does not swing.

use std::time::{Duration, Instant};

/// The levels that are used. Up to the first, rows stay rows.
pub const RUNGS: [i32; 5] = [1, 3, 6, 9, 12];

/// So much line time waits when the line is scarce: a few round trips, and no more than one large frame.
const SCARCE_AFTER: f64 = 1.0;

/// Below so much line time next to nothing waits.
const IDLE_LINE: f64 = 0.25;

/// The compressor is to be ahead of the line by so much, because records do not come evenly.
const AHEAD_OF_LINE: f64 = 2.0;

/// More than this part of one processor is much: reading, encrypting and the site's own programs want theirs.
const BUSY: f64 = 0.4;

/// Up to this part of one processor nobody notices.
const IDLE: f64 = 0.1;

/// How often a decision is made.
const PERIOD: Duration = Duration::from_secs(1);

/// A step up has to be right so many times in a row.
const PATIENCE: u32 = 3;

/// A level not used yet takes so many times what the one below it takes; measured: 1.1 to 2.2.
const COSTLIER: f64 = 2.0;

/// After a step down no step up for so long, twice as long each time …
const FIRST_REST: Duration = Duration::from_secs(30);

/// … up to this.
const LONGEST_REST: Duration = Duration::from_secs(600);

/// What waits for the line, and what it carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Line {
    /// Bytes of frames that are built and not sent, those in the spill included.
    pub waiting_bytes: u64,
    /// Bytes a second that it carries; `None` where nothing is known of it, and without a session.
    pub bytes_per_second: Option<u64>,
}

/// The policy. See the module.
#[derive(Debug)]
pub struct Levels {
    /// Place in [`RUNGS`]; the level itself where it is fixed.
    rung: Result<usize, i32>,
    line: Line,
    /// Processor time per raw byte, in seconds, at each rung where it was measured.
    costs: [Option<f64>; RUNGS.len()],
    /// Raw bytes for each encoded one, lately.
    ratio: f64,
    since: Instant,
    raw_bytes: u64,
    encoded_bytes: u64,
    time: Duration,
    wished: u32,
    rests_until: Instant,
    rest: Duration,
}

impl Levels {
    /// Begins at level 3, or stays at the one that the configuration fixes.
    pub fn new(fixed: Option<i32>, now: Instant) -> Self {
        Self {
            rung: fixed.map_or(Ok(1), Err),
            line: Line::default(),
            costs: [None; RUNGS.len()],
            ratio: 1.0,
            since: now,
            raw_bytes: 0,
            encoded_bytes: 0,
            time: Duration::ZERO,
            wished: 0,
            rests_until: now,
            rest: FIRST_REST,
        }
    }

    /// The level for the next frame.
    pub fn level(&self) -> i32 {
        match self.rung {
            Ok(rung) => RUNGS.get(rung).copied().unwrap_or(1),
            Err(fixed) => fixed,
        }
    }

    /// Takes in what is known of the line.
    pub fn line(&mut self, line: Line) {
        self.line = line;
    }

    /// Takes in what a frame took: bytes before and after, processor time.
    pub fn encoded(&mut self, raw_bytes: usize, encoded_bytes: usize, time: Duration) {
        self.raw_bytes += raw_bytes as u64;
        self.encoded_bytes += encoded_bytes as u64;
        self.time += time;
    }

    /// Decides anew if it is time to; cheap to ask before each frame.
    pub fn decide(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since);
        let Ok(rung) = self.rung else { return };
        if elapsed < PERIOD || self.raw_bytes == 0 {
            return;
        }
        let cost = self.time.as_secs_f64() / self.raw_bytes as f64;
        if let Some(known) = self.costs.get_mut(rung) {
            *known = Some(known.map_or(cost, |known| known + (cost - known) / 4.0));
        }
        self.ratio = self.raw_bytes as f64 / self.encoded_bytes.max(1) as f64;
        let incoming = self.raw_bytes as f64 / elapsed.as_secs_f64();
        (self.since, self.raw_bytes, self.encoded_bytes, self.time) = (now, 0, 0, Duration::ZERO);
        let wish = self.wish(rung, incoming);
        self.step(rung, wish, now);
    }

    /// The rung that is right for now.
    fn wish(&self, rung: usize, incoming: f64) -> usize {
        let Some(line_bytes) = self.line.bytes_per_second.filter(|bytes| *bytes > 0).map(|bytes| bytes as f64) else {
            // Without a session nobody knows what will be scarce.
            return rung;
        };
        let waits = self.line.waiting_bytes as f64 / line_bytes;
        let busy = |at: usize| incoming * self.cost(at);
        if waits >= SCARCE_AFTER {
            let need = line_bytes * self.ratio * AHEAD_OF_LINE;
            let suffices = |at: &usize| need * self.cost(*at) <= 1.0;
            return (0..RUNGS.len()).rev().find(suffices).unwrap_or(0).min(rung + 1);
        }
        if waits > IDLE_LINE {
            return rung;
        }
        if busy(rung) > BUSY {
            rung.saturating_sub(1)
        } else if rung + 1 < RUNGS.len() && busy(rung + 1) <= IDLE {
            rung + 1
        } else {
            rung
        }
    }

    fn step(&mut self, rung: usize, wish: usize, now: Instant) {
        if wish <= rung {
            self.wished = 0;
        }
        if wish < rung {
            // Where it rose needlessly it waits longer each time; after a long peace it is as in the beginning.
            if now.saturating_duration_since(self.rests_until) >= LONGEST_REST {
                self.rest = FIRST_REST;
            }
            self.rests_until = now + self.rest;
            self.rest = (self.rest * 2).min(LONGEST_REST);
            self.rung = Ok(wish);
        } else if wish > rung && now >= self.rests_until {
            self.wished += 1;
            if self.wished >= PATIENCE {
                self.wished = 0;
                self.rung = Ok(rung + 1);
            }
        }
    }

    /// Processor time per raw byte at a rung, in seconds, measured or guessed from the nearest below.
    fn cost(&self, rung: usize) -> f64 {
        let below = self.costs.iter().take(rung + 1).enumerate().rev().find_map(|(at, cost)| Some((at, (*cost)?)));
        let above = || self.costs.iter().enumerate().skip(rung).find_map(|(at, cost)| Some((at, (*cost)?)));
        match below.or_else(above) {
            Some((at, cost)) => cost * COSTLIER.powi(rung as i32 - at as i32),
            None => 0.0,
        }
    }
}

#[cfg(test)]
mod tests;
