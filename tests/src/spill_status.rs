//! What a running agent says about its spill in `/status`.

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::stage::program::Program;

/// What the spill is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpillState {
    /// There is none.
    Off,
    /// It is empty: frames go from memory to the link.
    Idle,
    /// Frames are written to it.
    Spilling,
    /// What it holds is on its way.
    Draining,
    /// It takes no more.
    Full,
    /// The disk does not do what it should.
    Trouble,
}

/// One look at the spill.
#[derive(Debug, Clone, PartialEq)]
pub struct SpillStatus {
    /// What it is doing.
    pub state: SpillState,
    /// Bytes of its files.
    pub bytes: u64,
    /// Records in it.
    pub records: u64,
    /// Age of the oldest of them, in seconds.
    pub oldest_seconds: f64,
    /// Until it is full at the current rate, in seconds; `None` when it does not fill.
    pub full_in_seconds: Option<f64>,
    /// Until it is drained at the current rate, in seconds; `None` when it does not drain.
    pub drain_in_seconds: Option<f64>,
    /// Bytes written to the disk since the agent's start.
    pub written_bytes: u64,
    /// Records dropped by policy.
    pub dropped_records: u64,
}

impl SpillState {
    /// What the agent calls it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Idle => "idle",
            Self::Spilling => "spilling",
            Self::Draining => "draining",
            Self::Full => "full",
            Self::Trouble => "trouble",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Off, Self::Idle, Self::Spilling, Self::Draining, Self::Full, Self::Trouble].into_iter().find(|state| state.as_str() == text)
    }
}

impl SpillStatus {
    /// Asks a running agent.
    ///
    /// # Errors
    /// When it does not answer, or says nothing about a spill.
    pub fn of(agent: &Program) -> Result<Self> {
        Self::parse(&agent.get("/status")?.body)
    }

    /// Reads the body of `/status`.
    ///
    /// # Errors
    /// When there is nothing about a spill in it.
    pub fn parse(body: &str) -> Result<Self> {
        let status: Value = serde_json::from_str(body).context("the status is not JSON")?;
        let spill = status.get("spill").context("the status says nothing about the spill")?;
        let count = |name: &str| spill.get(name).and_then(Value::as_u64).unwrap_or(0);
        let seconds = |name: &str| spill.get(name).and_then(Value::as_f64);
        let state = spill.get("state").and_then(Value::as_str).context("the spill has no state")?;
        Ok(Self {
            state: SpillState::parse(state).with_context(|| format!("the spill has an unknown state {state:?}"))?,
            bytes: count("bytes"),
            records: count("records"),
            oldest_seconds: seconds("oldest_seconds").unwrap_or(0.0),
            full_in_seconds: seconds("full_in_seconds"),
            drain_in_seconds: seconds("drain_in_seconds"),
            written_bytes: count("written_bytes"),
            dropped_records: count("dropped_records"),
        })
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        matches!(self.state, SpillState::Off | SpillState::Idle) && self.records == 0
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_status_of_an_agent_is_read() {
        let body = r#"{"site":"plant-7","spill":{"state":"draining","bytes":8388608,"max_bytes":1073741824,"records":1200,"entries":30,
            "oldest_seconds":61.5,"full_in_seconds":null,"drain_in_seconds":12,"written_bytes":9000000,"dropped_records":0,"trouble":null}}"#;
        let status = SpillStatus::parse(body).unwrap();
        assert_eq!((status.state, status.bytes, status.records), (SpillState::Draining, 8_388_608, 1200));
        assert_eq!((status.full_in_seconds, status.drain_in_seconds, status.written_bytes), (None, Some(12.0), 9_000_000));
        assert!(!status.is_empty());
        assert!(SpillStatus::parse(r#"{"spill":{"state":"idle","records":0}}"#).unwrap().is_empty());
        assert!(SpillStatus::parse(r#"{"spill":{"state":"asleep"}}"#).is_err());
        assert!(SpillStatus::parse("{}").is_err());
    }
}
