//! When the producer is opened, closed, opened again; and how long anything is waited for.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use spillway_collector_core::progress::Positions;
use spillway_proto::CloseCode;

use super::inbox::Ending;
use super::open::{self, OpenError, Opened};
use super::{End, PAUSE, Writer};

impl Writer {
    /// Begins a transaction where none is open; makes the producer anew where it was closed.
    pub(super) fn begin(&mut self) -> Result<(), End> {
        self.last_used = Instant::now();
        while !self.pacer.is_open() {
            if self.producer.is_none() {
                self.check_marker()?;
                let positions = self.reopen(None)?;
                self.require_same(&positions)?;
            }
            let Some(producer) = &self.producer else {
                continue;
            };
            match producer.begin() {
                Ok(()) => {
                    self.attempt.clear();
                    let now = Instant::now();
                    self.pacer.begin(now, self.centre.early_turn(now, self.pacer.interval()));
                }
                Err(error) => {
                    self.trouble.begin("begin a transaction", &format!("{error:?}"));
                    self.close_producer();
                    self.pause(PAUSE.0)?;
                }
            }
        }
        Ok(())
    }

    /// Opens the writer, however long it takes (`deadline`: only so long). Answers the site's positions.
    pub(super) fn reopen(&mut self, deadline: Option<Instant>) -> Result<Positions, End> {
        self.close_producer();
        let mut pause = PAUSE.0;
        loop {
            let error = match self.open_in_turn() {
                Ok(Opened { producer, marker, positions }) => {
                    self.producer = Some(producer);
                    self.marker = Some(marker);
                    self.last_used = Instant::now();
                    self.centre.meters.writers_open.inc();
                    self.trouble.end();
                    return Ok(positions);
                }
                Err(OpenError::Ended(_)) => return Err(End::wanted()),
                Err(OpenError::Unreadable(reason)) => return Err(End::new(CloseCode::CentreUnavailable, reason)),
                Err(OpenError::Fenced) => return Err(End::new(CloseCode::Superseded, "a newer session of the site took over")),
                Err(OpenError::Again(error)) => error,
            };
            self.trouble.begin("open the site's writer", &error);
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                return Err(End::new(CloseCode::CentreUnavailable, format!("the site's writer cannot be opened: {error}")));
            }
            self.pause(pause)?;
            pause = (pause * 2).min(PAUSE.1);
        }
    }

    fn open_in_turn(&self) -> Result<Opened, OpenError> {
        let turns = Arc::clone(&self.centre.openings);
        let turn = self.centre.runtime.block_on(turns.acquire_owned());
        let turn = turn.map_err(|error| OpenError::Again(error.to_string()))?;
        open::open(&self.centre, &self.site, self.batch_bytes, &self.inbox, turn)
    }

    /// Another session's marker means that it has the site. Asked whenever the marker changes, and before a closed producer is made anew:
    /// that would take the site back.
    pub(super) fn check_marker(&self) -> Result<(), End> {
        if self.centre.tail.marker_of(&self.site) == self.marker {
            return Ok(());
        }
        Err(End::new(CloseCode::Superseded, "another collector has taken the site over"))
    }

    /// Positions that differ from ours were written by somebody else.
    pub(super) fn require_same(&self, positions: &Positions) -> Result<(), End> {
        if *positions == self.positions {
            return Ok(());
        }
        Err(End::new(CloseCode::Superseded, "another session has written meanwhile"))
    }

    pub(super) fn close_producer(&mut self) {
        if self.producer.take().is_some() {
            self.centre.meters.writers_open.dec();
        }
    }

    /// Waits, but not longer than the session lives.
    pub(super) fn pause(&self, pause: Duration) -> Result<(), End> {
        let until = Instant::now() + pause;
        loop {
            self.check_wanted()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(PAUSE.0));
        }
    }

    /// Whether the work is to go on: until the session is abandoned, or the deadline of its end has passed.
    pub(super) fn check_wanted(&self) -> Result<(), End> {
        match self.inbox.ending() {
            None => Ok(()),
            Some(Ending::Commit(deadline)) if Instant::now() < deadline => Ok(()),
            Some(_) => Err(End::wanted()),
        }
    }
}
