//! TLS alerts.

use spillway_proto::close::Disposition;

use super::{AGENT, Explanation, Refuser, Side, other, own};

// Alerts of RFC 8446, section 6, as `crate::trust` assigns them.
const HANDSHAKE_FAILURE: u8 = 40;
const BAD_CERTIFICATE: u8 = 42;
const UNSUPPORTED_CERTIFICATE: u8 = 43;
const CERTIFICATE_EXPIRED: u8 = 45;
const CERTIFICATE_UNKNOWN: u8 = 46;
const UNKNOWN_CA: u8 = 48;
const ACCESS_DENIED: u8 = 49;
const PROTOCOL_VERSION: u8 = 70;
const CERTIFICATE_REQUIRED: u8 = 116;
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Explains a TLS alert. The certificate at fault is the peer's when we refused, ours when the peer did.
pub(super) fn tls(alert: u8, said: &str, side: Side, refuser: Refuser) -> Explanation {
    let at_fault = match refuser {
        Refuser::We => other(side),
        Refuser::Peer => own(side),
    };
    let judge = match refuser {
        Refuser::We => own(side),
        Refuser::Peer => other(side),
    };
    let issue = match at_fault {
        AGENT => "issue a new one with `spillway-collector pki issue SITE`, copy it to the site and restart the agent",
        _ => "make a new server certificate with `spillway-collector pki init` (it keeps the CA) and restart the collector",
    };
    let (what, fix, reason) = match alert {
        UNKNOWN_CA => (
            format!("the {at_fault}'s certificate is not signed by the CA that the {judge} trusts"),
            format!(
                "give the {judge} as tls.ca the certificate of the CA that signed the {at_fault}'s certificate, or issue the \
                 {at_fault} a certificate of the {judge}'s CA; `spillway-collector pki show FILE` prints who signed what"
            ),
            "unknown_ca",
        ),
        CERTIFICATE_EXPIRED => (format!("the {at_fault}'s certificate has expired"), issue.to_owned(), "certificate_expired"),
        CERTIFICATE_UNKNOWN => (
            format!("the {at_fault}'s certificate is not valid yet by the {judge}'s clock"),
            format!("set the clock of the {judge} (NTP); if it is right, the certificate was made where the clock was ahead"),
            "certificate_not_yet_valid",
        ),
        UNSUPPORTED_CERTIFICATE => (
            format!("the {at_fault}'s certificate is made for another purpose"),
            match at_fault {
                AGENT => "give the agent as tls.cert a site's certificate (`spillway-collector pki issue SITE`), not a server's",
                _ => "give the collector as tls.cert its server certificate (`spillway-collector pki init`), not a site's",
            }
            .to_owned(),
            "certificate_purpose",
        ),
        ACCESS_DENIED => (
            "the collector's certificate does not carry the name that the agent dialled".to_owned(),
            "dial a name that it carries (`spillway-collector pki show server.pem`), or make one with \
             `spillway-collector pki init --host NAME`"
                .to_owned(),
            "certificate_name",
        ),
        BAD_CERTIFICATE => (format!("the {at_fault}'s certificate is malformed"), issue.to_owned(), "certificate_malformed"),
        CERTIFICATE_REQUIRED => {
            ("the agent offered no certificate".to_owned(), "set tls.cert and tls.key of the agent".to_owned(), "certificate_missing")
        }
        NO_APPLICATION_PROTOCOL => (
            format!("the {} does not speak spillway/1", other(side)),
            "check that the address is a Spillway collector's, and upgrade the older side".to_owned(),
            "alpn",
        ),
        PROTOCOL_VERSION | HANDSHAKE_FAILURE => (
            "the two sides found no common TLS version or cipher suite".to_owned(),
            "check that nothing on the way ends TLS, and upgrade the older side".to_owned(),
            "tls",
        ),
        _ => (
            format!("TLS failed with alert {alert} ({said})"),
            "look at the log of the other side, which names the certificate".to_owned(),
            "tls",
        ),
    };
    Explanation { what, fix, retry: Disposition::NeedsOperator, reason }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_alert_blames_the_right_side() {
        let we = tls(UNKNOWN_CA, "", Side::Agent, Refuser::We).what;
        let peer = tls(UNKNOWN_CA, "", Side::Agent, Refuser::Peer).what;
        assert_eq!(we, "the collector's certificate is not signed by the CA that the agent trusts");
        assert_eq!(peer, "the agent's certificate is not signed by the CA that the collector trusts");
        assert_eq!(tls(UNKNOWN_CA, "", Side::Collector, Refuser::We).what, peer);
        assert_eq!(tls(UNKNOWN_CA, "", Side::Collector, Refuser::Peer).what, we);
    }

    #[test]
    fn alerts_with_different_remedies_have_different_reasons() {
        let alerts = [
            UNKNOWN_CA,
            CERTIFICATE_EXPIRED,
            CERTIFICATE_UNKNOWN,
            UNSUPPORTED_CERTIFICATE,
            ACCESS_DENIED,
            BAD_CERTIFICATE,
            CERTIFICATE_REQUIRED,
            NO_APPLICATION_PROTOCOL,
        ];
        let reasons: HashSet<_> = alerts.iter().map(|alert| tls(*alert, "", Side::Agent, Refuser::Peer).reason).collect();
        assert_eq!(reasons.len(), alerts.len());
    }

    #[test]
    fn every_refusal_of_tls_is_in_the_manual() {
        let manual = include_str!("../../../docs/certificates.md");
        for alert in 0..=u8::MAX {
            let reason = tls(alert, "", Side::Agent, Refuser::Peer).reason;
            assert!(manual.contains(&format!("| `{reason}` |")), "{reason}");
        }
    }
}
