//! What the centre tells a site about itself, and what the site makes of it.

use crate::codec::{DecodeError, Reader, put_text, put_varint};
use crate::limits;

/// The site's settings as the centre wants them. Sent after the welcome, and whenever they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Names these settings: equal texts have equal revisions, different ones as good as never, see [`revision`].
    pub revision: u64,
    /// The settings in TOML, only those that are not the default; at most [`limits::MAX_SETTINGS`] bytes.
    pub text: String,
}

/// What the agent did with settings. Answered by [`super::CollectorMessage::SettingsSeen`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsReport {
    /// Which settings.
    pub revision: u64,
    /// What became of them.
    pub outcome: SettingsOutcome,
    /// For people: why they were refused or given up, or, while they are on trial, that they say off; else empty.
    pub detail: String,
}

/// What became of settings at the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SettingsOutcome {
    /// In force, on trial: should contact be lost, the ones before come back.
    Trying,
    /// In force, kept on disk.
    Accepted,
    /// Not understood, or impossible there; the ones before stay in force.
    Refused,
    /// Given up because contact was lost under them; the ones before are in force again.
    RolledBack,
    /// An outcome that this version does not know.
    Other(u8),
}

impl SettingsOutcome {
    /// Every name that [`Self::as_str`] answers.
    pub const NAMES: &[&str] = &["trying", "accepted", "refused", "rolled_back", "other"];

    /// The number on the wire.
    pub fn code(self) -> u8 {
        match self {
            Self::Trying => 0,
            Self::Accepted => 1,
            Self::Refused => 2,
            Self::RolledBack => 3,
            Self::Other(code) => code,
        }
    }

    /// The outcome behind a number.
    pub fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Trying,
            1 => Self::Accepted,
            2 => Self::Refused,
            3 => Self::RolledBack,
            other => Self::Other(other),
        }
    }

    /// Stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trying => "trying",
            Self::Accepted => "accepted",
            Self::Refused => "refused",
            Self::RolledBack => "rolled_back",
            Self::Other(_) => "other",
        }
    }
}

/// The revision of a text: FNV-1a with 64 bits. It tells texts apart, it protects nothing.
pub fn revision(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

pub(super) fn put_settings(out: &mut Vec<u8>, settings: &Settings) {
    put_varint(out, settings.revision);
    put_text(out, &settings.text, limits::MAX_SETTINGS);
}

pub(super) fn settings(reader: &mut Reader<'_>) -> Result<Settings, DecodeError> {
    Ok(Settings { revision: reader.varint("revision")?, text: reader.text(limits::MAX_SETTINGS, "settings")?.to_owned() })
}

pub(super) fn put_report(out: &mut Vec<u8>, report: &SettingsReport) {
    put_varint(out, report.revision);
    out.push(report.outcome.code());
    put_text(out, &report.detail, limits::MAX_TEXT);
}

pub(super) fn report(reader: &mut Reader<'_>) -> Result<SettingsReport, DecodeError> {
    Ok(SettingsReport {
        revision: reader.varint("revision")?,
        outcome: SettingsOutcome::from_code(reader.u8("outcome")?),
        detail: reader.text(limits::MAX_TEXT, "detail")?.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_has_a_listed_name_and_every_listed_name_a_number() {
        use crate::frame::GapReason;
        use crate::message::HoldReason;
        use std::collections::BTreeSet;
        type Named = (&'static [&'static str], fn(u8) -> &'static str);
        let kinds: [Named; 3] = [
            (GapReason::NAMES, |code| GapReason::from_code(code).as_str()),
            (HoldReason::NAMES, |code| HoldReason::from_code(code).as_str()),
            (SettingsOutcome::NAMES, |code| SettingsOutcome::from_code(code).as_str()),
        ];
        for (names, name) in kinds {
            assert_eq!((0..=u8::MAX).map(name).collect::<BTreeSet<_>>(), names.iter().copied().collect());
        }
    }

    #[test]
    fn revisions_are_those_of_fnv() {
        // The test vectors of the algorithm's authors.
        assert_eq!(revision(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(revision("foobar"), 0x8594_4171_f739_67e8);
    }
}
