//! Why a connection was closed: the QUIC application close codes of `spillway/1`, each with what to do about it.
//!
//! A code never changes its meaning; new ones are added. A code that a side does not know is treated as [`Disposition::Redial`].

use std::fmt;

/// What the agent does after a close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    /// Dial again with the usual growing, jittered pause: the cause is expected to pass.
    Redial,
    /// Dial again at the longest pause only: somebody has to change something first.
    NeedsOperator,
}

macro_rules! close_codes {
    ($($(#[doc = $doc:literal])+ $name:ident = $code:literal, $text:literal, $disposition:ident, $remedy:literal;)+) => {
        /// Application close code. See the module for the rules, `docs/wire-protocol.md` for the table.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $($(#[doc = $doc])+ $name,)+
        }

        impl CloseCode {
            /// Every code, in ascending order.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The number on the wire.
            pub fn code(self) -> u32 {
                match self { $(Self::$name => $code),+ }
            }

            /// The code behind a number; `None` when this version does not know it.
            pub fn from_code(code: u64) -> Option<Self> {
                Self::ALL.iter().copied().find(|known| u64::from(known.code()) == code)
            }

            /// Its stable name, used in logs and as a metric label.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// What the agent does next.
            pub fn disposition(self) -> Disposition {
                match self { $(Self::$name => Disposition::$disposition),+ }
            }

            /// What a person can do about it.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$name => $remedy),+ }
            }
        }
    };
}

close_codes! {
    /// The agent is done: everything was acknowledged, or its deadline passed.
    Done = 0x00, "done", Redial, "nothing to do";
    /// The collector is shutting down; another one, or itself after its restart, takes over.
    ShuttingDown = 0x01, "shutting_down", Redial, "nothing to do: the agent redials, trying its other addresses";
    /// The two sides share no protocol version.
    VersionUnsupported = 0x10, "version_unsupported", NeedsOperator, "upgrade the older side: the collector accepts the two newest protocol versions";
    /// A message or stream that the protocol does not allow at this point.
    ProtocolViolation = 0x11, "protocol_violation", Redial, "a bug or a tampered peer: report it with both logs; nothing is lost, the session starts over";
    /// A frame that cannot be decoded.
    FrameInvalid = 0x12, "frame_invalid", Redial, "a bug or damaged memory: report it with both logs; nothing is lost, the session starts over";
    /// A section began above the next expected offset although every earlier frame had arrived.
    OffsetHole = 0x13, "offset_hole", Redial, "a bug: report it with both logs; nothing is lost, the session starts over at the centre's position";
    /// A size or count above what was agreed.
    LimitExceeded = 0x14, "limit_exceeded", NeedsOperator, "raise the limit under [session] of the collector, or upgrade the agent";
    /// The hello did not arrive in time.
    HandshakeTimeout = 0x15, "handshake_timeout", Redial, "nothing to do unless it repeats: then look for packet loss on the path";
    /// The collector knows no such site.
    SiteUnknown = 0x20, "site_unknown", NeedsOperator, "add SITE.toml (or default.toml) to the collector's sites directory";
    /// The site's file says `enabled = false`.
    SiteDisabled = 0x21, "site_disabled", NeedsOperator, "set enabled = true in the site's file at the collector";
    /// The certificate's common name is no site name.
    SiteNameInvalid = 0x22, "site_name_invalid", NeedsOperator, "issue a certificate whose common name matches [a-zA-Z0-9_-]{1,32}: spillway-collector pki issue SITE";
    /// The site's file at the collector cannot be read.
    SiteFileInvalid = 0x23, "site_file_invalid", NeedsOperator, "correct the site's file at the collector; its log names the line";
    /// A newer session of the same site took over.
    Superseded = 0x30, "superseded", NeedsOperator, "nothing to do after a restart or a change of path; if it repeats, two agents use the same certificate: issue one for each";
    /// The collector has all the connections it may have.
    TooManyConnections = 0x31, "too_many_connections", Redial, "raise listen.max_connections of the collector, or add a collector";
    /// The central Kafka cannot be reached or refuses, so the session could not be opened.
    CentreUnavailable = 0x40, "centre_unavailable", Redial, "look at the collector's log: it names what the central Kafka answered";
    /// A bug in the collector ended the session.
    Internal = 0x50, "internal", Redial, "report it with the collector's log; nothing is lost, the session starts over";
}

impl fmt::Display for CloseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_found_again() {
        for pair in CloseCode::ALL.windows(2) {
            assert!(pair[0].code() < pair[1].code());
        }
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_code(u64::from(code.code())), Some(*code));
        }
        assert_eq!(CloseCode::from_code(0xffff), None);
    }
}
