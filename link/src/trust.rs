//! Who is believed, and which TLS alert says why not.
//!
//! rustls sends the same alert for an expired and a not yet valid certificate, and another one than "unknown CA" when a CA of the
//! same name signed. The peer sees only the alert, so each cause that has its own remedy gets its own alert here:
//!
//! | cause | alert |
//! |---|---|
//! | signed by another CA | `unknown_ca` (48) |
//! | expired | `certificate_expired` (45) |
//! | not yet valid | `certificate_unknown` (46), used for nothing else |
//! | for the other purpose (server's as a site's, or the other way) | `unsupported_certificate` (43) |
//! | collector's certificate lacks the name that was dialled | `access_denied` (49) |
//! | malformed | `bad_certificate` (42) |

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::CryptoProvider,
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::identity::describe;

/// The one crypto provider: ring. Passed explicitly everywhere, never installed for the whole process.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Only certificates are judged differently here: signatures are left to the verifier inside.
macro_rules! signatures_as_the_inner_verifier {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls12_signature(message, cert, dss)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            self.0.verify_tls13_signature(message, cert, dss)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.supported_verify_schemes()
        }
    };
}

/// What the collector asks of a site's certificate.
#[derive(Debug)]
pub(crate) struct SiteVerifier(Arc<dyn ClientCertVerifier>);

impl SiteVerifier {
    /// Trusts what `roots` signed for client authentication. A connection without a certificate is refused.
    pub(crate) fn new(roots: Arc<RootCertStore>) -> Result<Self, rustls::server::VerifierBuilderError> {
        Ok(Self(WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?))
    }
}

impl ClientCertVerifier for SiteVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // The hint would send every CA's name to whoever knocks, and the agent has one certificate only.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.0.verify_client_cert(end_entity, intermediates, now).map_err(|error| refuse(end_entity, error))
    }

    signatures_as_the_inner_verifier!();
}

/// What the agent asks of the collector's certificate.
#[derive(Debug)]
pub(crate) struct CollectorVerifier(Arc<WebPkiServerVerifier>);

impl CollectorVerifier {
    /// Trusts what `roots` signed for server authentication, if it carries the name that was dialled.
    pub(crate) fn new(roots: Arc<RootCertStore>) -> Result<Self, rustls::server::VerifierBuilderError> {
        Ok(Self(WebPkiServerVerifier::builder_with_provider(roots, provider()).build()?))
    }
}

impl ServerCertVerifier for CollectorVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now).map_err(|error| refuse(end_entity, error))
    }

    signatures_as_the_inner_verifier!();
}

/// Logs whose certificate is refused (quinn's error does not carry it) and gives the cause the alert of its own.
fn refuse(certificate: &CertificateDer<'_>, error: Error) -> Error {
    tracing::warn!(certificate = %describe(certificate), reason = %error, "peer's certificate refused");
    with_own_alert(error)
}

fn with_own_alert(error: Error) -> Error {
    let Error::InvalidCertificate(cause) = error else { return error };
    Error::InvalidCertificate(match cause {
        // The issuer's name is right but not its key: a CA made anew under the old name.
        CertificateError::BadSignature => CertificateError::UnknownIssuer,
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            CertificateError::Other(OtherError(Arc::new(NotYetValid)))
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            CertificateError::ApplicationVerificationFailure
        }
        other => other,
    })
}

/// Carried by [`CertificateError::Other`], whose alert is `certificate_unknown`.
struct NotYetValid;

impl fmt::Display for NotYetValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not valid yet")
    }
}

/// As `Display`: rustls prints the inner error by `Debug`.
impl fmt::Debug for NotYetValid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotYetValid {}
