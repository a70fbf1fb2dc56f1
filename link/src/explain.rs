//! Every way a connection ends, as one sentence about what happened and one about what to do.
//!
//! The text depends on the side that logs it: an alert "unknown CA" from the collector means that it does not know ours, the same
//! alert raised here means that we do not know its.

use std::{fmt, io};

use quinn::{ApplicationClose, ConnectionError, TransportErrorCode};
use spillway_proto::{CloseCode, close::Disposition};

use self::alerts::tls;
use crate::client::DialError;

mod alerts;

/// Which side the explanation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The edge: dials.
    Agent,
    /// The centre: listens.
    Collector,
}

/// Why a connection ended, for a log line. `Display` joins both texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What happened, as a fragment without a final period.
    pub what: String,
    /// What to do, as a fragment without a final period.
    pub fix: String,
    /// How the agent goes on.
    pub retry: Disposition,
    /// Stable short name of the cause, from a fixed set: for metric labels.
    pub reason: &'static str,
}

impl Explanation {
    /// True when a handshake got no answer at all.
    pub fn is_timeout(&self) -> bool {
        self.reason == TIMED_OUT
    }

    /// True when nobody answered: as soon as somebody does, it is time to dial again.
    pub fn is_silence(&self) -> bool {
        matches!(self.reason, TIMED_OUT | RESOLVE | CONNECT)
    }
}

/// What quinn says of a connection whose endpoint is gone: [`crate::tunnel`] ends it so.
const STREAM_ENDED: &str = "endpoint driver future was dropped";

/// The other side has ended a handshake without a fault to tell: an agent that begins it anew does so.
pub const GIVEN_UP: &str = "closed_in_handshake";

/// Every [`Explanation::reason`] beside the names of [`CloseCode`].
pub const REASONS: &[&str] = &[
    TIMED_OUT,
    RESOLVE,
    CONNECT,
    "tcp_ended",
    "reset",
    "quic_version",
    "closed",
    "cids_exhausted",
    "unknown_code",
    GIVEN_UP,
    "transport",
    "unknown_ca",
    "certificate_expired",
    "certificate_not_yet_valid",
    "certificate_purpose",
    "certificate_name",
    "certificate_malformed",
    "certificate_missing",
    "alpn",
    "tls",
];

const TIMED_OUT: &str = "timed_out";
const RESOLVE: &str = "resolve";
const CONNECT: &str = "connect";

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{what}; {fix}", what = self.what, fix = self.fix)
    }
}

/// Explains the end of a connection to the operator of `side`. What the peer said in it stays on one line.
pub fn explain(error: &ConnectionError, side: Side) -> Explanation {
    let Explanation { what, fix, retry, reason } = explained(error, side);
    Explanation { what: plain(&what), fix, retry, reason }
}

/// A peer's words for a log: without control characters, by which it could forge lines or steer a terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

fn explained(error: &ConnectionError, side: Side) -> Explanation {
    match error {
        ConnectionError::ApplicationClosed(close) => application(close),
        // Raised here or told by the peer: the code is the same, who refused whom is not.
        ConnectionError::TransportError(raised) if raised.reason == STREAM_ENDED => Explanation {
            what: format!("the TCP connection with the {} ended", other(side)),
            fix: "nothing to do: the agent redials".to_owned(),
            retry: Disposition::Redial,
            reason: "tcp_ended",
        },
        ConnectionError::TransportError(raised) => transport(raised.code, &raised.reason, side, Refuser::We),
        ConnectionError::ConnectionClosed(told) => transport(told.error_code, &String::from_utf8_lossy(&told.reason), side, Refuser::Peer),
        ConnectionError::TimedOut => Explanation {
            what: format!("the {} did not answer in time", other(side)),
            fix: match side {
                Side::Agent => "check that the collector runs, that UDP to its port is open on the way, and the line",
                Side::Collector => "nothing to do: the agent redials when its line is back",
            }
            .to_owned(),
            retry: Disposition::Redial,
            reason: TIMED_OUT,
        },
        ConnectionError::Reset => Explanation {
            what: format!("the {} no longer knows this connection: it was restarted", other(side)),
            fix: "nothing to do: the agent redials".to_owned(),
            retry: Disposition::Redial,
            reason: "reset",
        },
        ConnectionError::VersionMismatch => Explanation {
            what: format!("the {} speaks no QUIC version that we speak", other(side)),
            fix: "check that the address is a Spillway collector and no middlebox answers for it".to_owned(),
            retry: Disposition::NeedsOperator,
            reason: "quic_version",
        },
        ConnectionError::LocallyClosed => Explanation {
            what: "we closed the connection".to_owned(),
            fix: "nothing to do".to_owned(),
            retry: Disposition::Redial,
            reason: "closed",
        },
        ConnectionError::CidsExhausted => Explanation {
            what: "no connection id was left".to_owned(),
            fix: "restart the process and report it: ids should never run out".to_owned(),
            retry: Disposition::Redial,
            reason: "cids_exhausted",
        },
    }
}

impl DialError {
    /// What happened and what to do, for the agent's log.
    pub fn explain(&self) -> Explanation {
        let (what, fix, reason) = match self {
            Self::Handshake { address, source } => {
                let explained = explain(source, Side::Agent);
                return Explanation { what: format!("{address}: {what}", what = explained.what), ..explained };
            }
            Self::Tcp { address, source } => {
                let explained = tcp(source);
                return Explanation { what: format!("{address} over TCP: {what}", what = explained.what), ..explained };
            }
            Self::Resolve { host, source } => {
                (format!("cannot resolve {host}: {source}"), "check collector.address and this machine's DNS", RESOLVE)
            }
            Self::NoAddress { host } => (format!("{host} has no address"), "check collector.address and this machine's DNS", RESOLVE),
            Self::Connect { address, source } => {
                (format!("cannot dial {address}: {source}"), "check collector.address and this machine's network", CONNECT)
            }
        };
        Explanation { what, fix: fix.to_owned(), retry: Disposition::Redial, reason }
    }
}

/// Explains to the agent why there is no tunnel. What TLS refuses inside a tunnel it refuses outside as well, so it is told alike.
fn tcp(error: &io::Error) -> Explanation {
    let redial = |what: String, fix: &str, reason| Explanation { what, fix: fix.to_owned(), retry: Disposition::Redial, reason };
    let said = error.to_string();
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => tls(u8::from(*alert), &said, Side::Agent, Refuser::Peer),
        Some(rustls::Error::InvalidCertificate(why)) => {
            tls(u8::from(rustls::AlertDescription::from(why.clone())), &said, Side::Agent, Refuser::We)
        }
        Some(_) => redial(
            format!("TLS failed ({})", plain(&said)),
            "check that the address is a Spillway collector and nothing on the way ends TLS",
            "tls",
        ),
        None if error.kind() == io::ErrorKind::TimedOut => redial(
            "the collector did not answer in time".to_owned(),
            "check that the collector runs, that UDP or TCP to its port is open on the way, and the line",
            TIMED_OUT,
        ),
        None => redial(said, "check that the collector runs with listen.tcp = true, and the line", CONNECT),
    }
}

/// Who found the other's fault.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refuser {
    We,
    Peer,
}

fn application(close: &ApplicationClose) -> Explanation {
    let said = String::from_utf8_lossy(&close.reason);
    match CloseCode::from_code(close.error_code.into_inner()) {
        Some(code) => Explanation {
            what: match said.trim() {
                "" => format!("closed by the peer: {code}"),
                said if said == code.as_str() => format!("closed by the peer: {code}"),
                said => format!("closed by the peer: {code} ({said})"),
            },
            fix: code.remedy().to_owned(),
            retry: code.disposition(),
            reason: code.as_str(),
        },
        None => Explanation {
            what: format!("closed by the peer with the unknown code {code} ({said})", code = close.error_code),
            fix: "the peer is of a newer version: its documentation explains the code".to_owned(),
            retry: Disposition::Redial,
            reason: "unknown_code",
        },
    }
}

fn transport(code: TransportErrorCode, said: &str, side: Side, refuser: Refuser) -> Explanation {
    let number = u64::from(code);
    if let Some(alert) = number.checked_sub(CRYPTO_BASE).and_then(|alert| u8::try_from(alert).ok()) {
        return tls(alert, said, side, refuser);
    }
    if code == TransportErrorCode::CONNECTION_REFUSED {
        return Explanation {
            what: "the collector takes no more connections".to_owned(),
            fix: CloseCode::TooManyConnections.remedy().to_owned(),
            retry: Disposition::Redial,
            reason: CloseCode::TooManyConnections.as_str(),
        };
    }
    if code == TransportErrorCode::APPLICATION_ERROR {
        return Explanation {
            what: format!("the {} closed during the handshake", other(side)),
            fix: "nothing to do unless it repeats: then its log says why".to_owned(),
            retry: Disposition::Redial,
            reason: GIVEN_UP,
        };
    }
    Explanation {
        what: match refuser {
            Refuser::We => format!("the {} broke the rules of QUIC: {code} ({said})", other(side)),
            Refuser::Peer => format!("the {} reported an error of QUIC: {code} ({said})", other(side)),
        },
        fix: "nothing to do unless it repeats: then report it with both logs".to_owned(),
        retry: Disposition::Redial,
        reason: "transport",
    }
}

/// TLS alerts are transport errors from here on (RFC 9001, section 4.8).
const CRYPTO_BASE: u64 = 0x100;

const AGENT: &str = "agent";
const COLLECTOR: &str = "collector";

fn own(side: Side) -> &'static str {
    match side {
        Side::Agent => AGENT,
        Side::Collector => COLLECTOR,
    }
}

fn other(side: Side) -> &'static str {
    match side {
        Side::Agent => COLLECTOR,
        Side::Collector => AGENT,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(code: u32, reason: &'static str) -> ConnectionError {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code: code.into(), reason: reason.into() })
    }

    #[test]
    fn every_reason_of_a_connection_is_listed() {
        let mut found = std::collections::BTreeSet::new();
        use TransportErrorCode as Code;
        let plain = [Code::APPLICATION_ERROR, Code::CONNECTION_REFUSED, Code::PROTOCOL_VIOLATION];
        for code in plain.into_iter().chain((0..=u8::MAX).map(Code::crypto)) {
            found.extend([Refuser::We, Refuser::Peer].map(|refuser| transport(code, "", Side::Collector, refuser).reason));
        }
        use ConnectionError::{CidsExhausted, LocallyClosed, Reset, TimedOut, VersionMismatch};
        let kinds = [CidsExhausted, LocallyClosed, Reset, TimedOut, VersionMismatch, closed(0xffff, "")];
        found.extend(kinds.map(|error| explain(&error, Side::Collector).reason));
        found.remove(CloseCode::TooManyConnections.as_str());
        // Those of a dial, and of a tunnel, are not found here.
        let listed = REASONS.iter().copied().filter(|reason| ![RESOLVE, CONNECT, "tcp_ended"].contains(reason));
        assert_eq!(found, listed.collect());
    }

    #[test]
    fn every_close_code_is_explained_by_its_remedy() {
        for code in CloseCode::ALL {
            let explained = explain(&closed(code.code(), ""), Side::Agent);
            assert_eq!(explained.fix, code.remedy());
            assert_eq!(explained.reason, code.as_str());
            assert_eq!(explained.retry, code.disposition());
        }
        let unknown = explain(&closed(0xffff, "later"), Side::Agent);
        assert!(unknown.what.contains("65535") && unknown.what.contains("later"), "{unknown}");
        assert!(REASONS.contains(&unknown.reason));
        assert_eq!(unknown.retry, Disposition::Redial);
    }

    #[test]
    fn a_peer_cannot_write_lines_into_the_log() {
        for error in [closed(0x11, "x\n2026-11-21 INFO all is well\x1b[2J"), closed(0xffff, "x\r\ny")] {
            let text = explain(&error, Side::Collector).to_string();
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
    }

    #[test]
    fn a_full_collector_is_told_from_a_broken_one() {
        let refused = transport(TransportErrorCode::CONNECTION_REFUSED, "", Side::Agent, Refuser::Peer);
        assert_eq!(refused.reason, "too_many_connections");
        let broken = transport(TransportErrorCode::FLOW_CONTROL_ERROR, "", Side::Agent, Refuser::Peer);
        assert_eq!(broken.reason, "transport");
        let resolved = DialError::NoAddress { host: "x.example".to_owned() }.explain();
        assert!(resolved.to_string().contains("x.example"), "{resolved}");
    }
}
