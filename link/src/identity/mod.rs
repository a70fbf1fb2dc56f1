//! Who this process is: CA, certificate chain and key, loaded from PEM files and checked before anything starts.
//!
//! Everything that would make the peer refuse us, and that can be seen from here, is an error at the start: it names the file, what
//! is wrong with it and the fix. What only the peer can see (it trusts another CA) is told by [`crate::explain()`].

mod error;
mod pem;

use std::{fmt, path::PathBuf, sync::Arc, time::SystemTime};

use rustls::{RootCertStore, server::ParsedCertificate, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use spillway_proto::SiteName;
use x509_parser::{certificate::X509Certificate, prelude::FromDer, time::ASN1Time};

use crate::{
    ALPN,
    explain::plain,
    peer,
    trust::{CollectorVerifier, SiteVerifier, provider},
};

pub use error::{Error, Refused};

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The agent's: client authentication; the subject's common name is the site.
    Site,
    /// The collector's: server authentication; the alternative names are what agents dial.
    Collector,
}

/// The three PEM files of `[tls]`.
#[derive(Clone, Debug)]
pub struct IdentityFiles {
    /// Certificates of the authorities that may sign the peer's certificate: one or more, all trusted (two while a CA is replaced).
    pub ca: PathBuf,
    /// Our certificate, followed by the intermediates between it and the CA, if any.
    pub cert: PathBuf,
    /// The key of our certificate (PKCS #8, PKCS #1 or SEC 1; not encrypted).
    pub key: PathBuf,
}

/// CA, certificate chain and key that belong together and were valid when loaded.
pub struct Identity {
    role: Role,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    common_name: Option<String>,
    not_after: SystemTime,
    cert_file: PathBuf,
}

impl Identity {
    /// Loads the files and checks that the key belongs to the certificate and that the certificate is signed by the CA, is for
    /// `role`, and is valid at `now`.
    ///
    /// # Errors
    /// The first thing found wrong; see [`Error`].
    pub fn load(files: &IdentityFiles, role: Role, now: SystemTime) -> Result<Self, Error> {
        let authorities = pem::certificates(&files.ca, "ca")?;
        let mut roots = RootCertStore::empty();
        for authority in &authorities {
            roots.add(authority.clone()).map_err(|source| Error::NotAnAuthority {
                file: files.ca.clone(),
                subject: describe(authority),
                source,
            })?;
        }
        let roots = Arc::new(roots);
        let chain = pem::certificates(&files.cert, "cert")?;
        let key = pem::private_key(&files.key)?;
        check_key(files, &chain, &key)?;

        let (_, leaf) =
            X509Certificate::from_der(&chain[0]).map_err(|source| Error::Unreadable { file: files.cert.clone(), source: source.into() })?;
        check_validity(files, role, &leaf, now)?;
        check_signature(files, role, &roots, &chain, now)?;
        Ok(Self {
            role,
            common_name: peer::common_name(&leaf).ok().map(str::to_owned),
            not_after: from_timestamp(leaf.validity().not_after.timestamp()),
            cert_file: files.cert.clone(),
            roots,
            chain: chain.clone(),
            key,
        })
    }

    /// The site that our certificate names: the subject's common name.
    ///
    /// # Errors
    /// When it has none, or one that is no site's name.
    pub fn site_name(&self) -> Result<SiteName, Error> {
        let file = || self.cert_file.clone();
        let name = self.common_name.as_deref().ok_or_else(|| Error::NoSiteName { file: file() })?;
        SiteName::parse(name).map_err(|source| Error::BadSiteName { file: file(), name: name.to_owned(), source })
    }

    /// When our certificate expires. To be shown and watched: nothing here ends a running session at that time.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// What the certificate was checked for.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The agent's TLS: TLS 1.3 only, our certificate offered, the collector's demanded.
    ///
    /// # Errors
    /// When rustls refuses the material; [`Identity::load`] has checked what can be checked before.
    pub fn client_config(&self) -> Result<rustls::ClientConfig, Error> {
        let verifier = CollectorVerifier::new(Arc::clone(&self.roots)).map_err(|source| self.refused(source.into()))?;
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| self.refused(source.into()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| self.refused(source.into()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session would carry an old proof: every session proves its certificate anew.
        config.resumption = rustls::client::Resumption::disabled();
        Ok(config)
    }

    /// The collector's TLS: TLS 1.3 only, a site's certificate mandatory, no session tickets.
    ///
    /// # Errors
    /// As [`Identity::client_config`].
    pub fn server_config(&self) -> Result<rustls::ServerConfig, Error> {
        let verifier = SiteVerifier::new(Arc::clone(&self.roots)).map_err(|source| self.refused(source.into()))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|source| self.refused(source.into()))?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|source| self.refused(source.into()))?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    /// The private key's bytes, for deriving the endpoint's reset key; never to be logged or stored.
    pub(crate) fn secret(&self) -> &[u8] {
        self.key.secret_der()
    }

    fn refused(&self, source: Refused) -> Error {
        Error::Refused { file: self.cert_file.clone(), source }
    }
}

impl fmt::Debug for Identity {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("role", &self.role)
            .field("common_name", &self.common_name)
            .field("cert_file", &self.cert_file)
            .finish_non_exhaustive()
    }
}

/// Whose certificate it is, in one line: subject, issuer and validity. For logs, where the peer's certificate was refused; whoever
/// knocks can put anything into it.
pub fn describe(certificate: &CertificateDer<'_>) -> String {
    match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => plain(&format!(
            "{subject}, issued by {issuer}, valid from {from} to {to}",
            subject = parsed.subject(),
            issuer = parsed.issuer(),
            from = date(parsed.validity().not_before),
            to = date(parsed.validity().not_after),
        )),
        Err(_) => "not readable".to_owned(),
    }
}

/// SHA-256 of a certificate's DER bytes, as other tools print it: `AB:CD:…`.
pub fn fingerprint(der: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, der);
    digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

fn check_key(files: &IdentityFiles, chain: &[CertificateDer<'static>], key: &PrivateKeyDer<'static>) -> Result<(), Error> {
    let key = provider()
        .key_provider
        .load_private_key(key.clone_key())
        .map_err(|source| Error::KeyUnsupported { file: files.key.clone(), source })?;
    match CertifiedKey::new(chain.to_vec(), key).keys_match() {
        Ok(()) => Ok(()),
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(()),
        Err(rustls::Error::InconsistentKeys(_)) => Err(Error::KeyMismatch { key: files.key.clone(), cert: files.cert.clone() }),
        Err(source) => Err(Error::Refused { file: files.cert.clone(), source: source.into() }),
    }
}

fn check_validity(files: &IdentityFiles, role: Role, leaf: &X509Certificate<'_>, now: SystemTime) -> Result<(), Error> {
    let now = ASN1Time::from_timestamp(unix_seconds(now)).unwrap_or_else(|_| ASN1Time::now());
    let file = files.cert.clone();
    let validity = leaf.validity();
    if now > validity.not_after {
        return Err(Error::Expired { file, not_after: date(validity.not_after), role });
    }
    if now < validity.not_before {
        return Err(Error::NotYetValid { file, not_before: date(validity.not_before), now: date(now) });
    }
    Ok(())
}

/// The same check that the peer will make, so that a refusal is seen at home first.
fn check_signature(
    files: &IdentityFiles,
    role: Role,
    roots: &Arc<RootCertStore>,
    chain: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), Error> {
    use rustls::CertificateError as Cause;

    let now = UnixTime::since_unix_epoch(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
    let verdict = match role {
        Role::Site => rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), provider())
            .build()
            .map_err(|source| Error::Refused { file: files.ca.clone(), source: source.into() })?
            .verify_client_cert(&chain[0], &chain[1..], now)
            .map(drop),
        Role::Collector => ParsedCertificate::try_from(&chain[0]).and_then(|leaf| {
            let algorithms = provider().signature_verification_algorithms.all;
            rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, roots, &chain[1..], now, algorithms)
        }),
    };
    let Err(source) = verdict else { return Ok(()) };
    Err(match &source {
        rustls::Error::InvalidCertificate(Cause::UnknownIssuer | Cause::BadSignature) => Error::NotSignedByCa {
            cert: files.cert.clone(),
            ca: files.ca.clone(),
            issuer: X509Certificate::from_der(&chain[0]).map_or_else(|_| String::new(), |(_, leaf)| leaf.issuer().to_string()),
        },
        rustls::Error::InvalidCertificate(Cause::InvalidPurpose | Cause::InvalidPurposeContext { .. }) => {
            Error::WrongPurpose { file: files.cert.clone(), role }
        }
        _ => Error::Refused { file: files.cert.clone(), source: source.into() },
    })
}

fn date(time: ASN1Time) -> String {
    let time = time.to_datetime();
    format!(
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC",
        year = time.year(),
        month = u8::from(time.month()),
        day = time.day(),
        hour = time.hour(),
        minute = time.minute(),
    )
}

/// Seconds since 1970; a clock before that (a gateway without one, booting) counts as 1970.
fn unix_seconds(time: SystemTime) -> i64 {
    let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

fn from_timestamp(seconds: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn a_certificate_cannot_write_lines_into_the_log() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "x\n2026-11-21 INFO all is well\u{1b}[2J");
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        let line = describe(certificate.der());
        assert!(line.contains("all is well") && !line.chars().any(char::is_control), "{line:?}");
    }
}
