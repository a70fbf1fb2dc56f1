//! The line, remembered over a restart: [`KeptLine`] in the folder of state.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use spillway_agent_core::line::KeptLine;
use spillway_agent_core::transit::LineRate;
use spillway_link::{KnownLine, LineEstimate, LinkClient};
use tokio::task::JoinHandle;

use crate::plan::files::{self, LINE_FILE, Read};

/// It is written no more often: flash wears out.
const WRITE_INTERVAL: Duration = Duration::from_secs(600);

/// See the module.
#[derive(Debug)]
pub(super) struct Remembered {
    dir: PathBuf,
    kept: KeptLine,
    written: Option<Instant>,
    writing: Option<JoinHandle<()>>,
}

impl Remembered {
    /// Reads what an earlier process has kept, and tells the endpoint.
    pub(super) fn open(dir: PathBuf, link: &LinkClient) -> Self {
        let unreadable = |error: &dyn std::fmt::Display| {
            tracing::warn!(file = %dir.join(LINE_FILE).display(), %error, "what is known of the line cannot be read: it is found out anew");
            KeptLine::default()
        };
        let kept = match files::read(&dir, LINE_FILE) {
            Read::Nothing => KeptLine::default(),
            Read::Text(text) => KeptLine::from_file(&text).unwrap_or_else(|error| unreadable(&error)),
            Read::Failed(error) => unreadable(&error),
        };
        let line =
            kept.line.and_then(|line| Some(LineEstimate { bytes_per_second: line.bytes_per_second? as f64, round_trip: line.round_trip }));
        link.recall_line(KnownLine { line, mtu: kept.mtu });
        Self { dir, kept, written: None, writing: None }
    }

    /// Bytes a second that frames were made for.
    pub(super) fn frames(&self) -> Option<u64> {
        self.kept.frames
    }

    /// Writes what is known by now, in the background, if it is news and it is time.
    pub(super) fn tick(&mut self, frames: Option<u64>, known: KnownLine, now: Instant) {
        let is_due = self.written.is_none_or(|written| now.saturating_duration_since(written) >= WRITE_INTERVAL);
        if is_due && self.writing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.write(frames, known, now);
        }
    }

    /// Writes what is known at the end.
    pub(super) async fn settle(mut self, frames: Option<u64>, known: KnownLine) {
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
        self.write(frames, known, Instant::now());
        if let Some(writing) = self.writing.take() {
            drop(writing.await);
        }
    }

    fn write(&mut self, frames: Option<u64>, known: KnownLine, now: Instant) {
        let line = known.line.map(|line| LineRate { bytes_per_second: Some(line.bytes_per_second as u64), round_trip: line.round_trip });
        let line = KeptLine { frames, line, mtu: known.mtu };
        if !line.is_news_to(&self.kept) {
            return;
        }
        self.kept = line.or(self.kept);
        self.written = Some(now);
        let (dir, text) = (self.dir.clone(), self.kept.to_file());
        self.writing = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = files::write(&dir, LINE_FILE, &text) {
                tracing::debug!(file = %dir.join(LINE_FILE).display(), %error, "what is known of the line cannot be kept");
            }
        }));
    }
}
