//! The site's name out of the certificate that the peer proved to hold.

use quinn::Connection;
use rustls_pki_types::CertificateDer;
use spillway_proto::{SiteName, types::NameError};
use x509_parser::{certificate::X509Certificate, prelude::FromDer};

/// The site at the other end: the common name of its certificate's subject, and nothing it says itself.
///
/// Only for the collector, after the handshake: TLS has then proved that the peer holds the certificate's key.
///
/// # Errors
/// When the certificate names no site. The session must then be refused.
pub fn site_name(connection: &Connection) -> Result<SiteName, Error> {
    let identity = connection.peer_identity().ok_or(Error::NoCertificate)?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Error::NoCertificate)?;
    name_in(chain.first().ok_or(Error::NoCertificate)?)
}

/// The site that a certificate names. For the certificate of a connection use [`site_name`], which knows that it was proved.
///
/// # Errors
/// When the certificate names no site.
pub fn name_in(certificate: &CertificateDer<'_>) -> Result<SiteName, Error> {
    let (_, leaf) = X509Certificate::from_der(certificate).map_err(|_| Error::Unreadable)?;
    let name = common_name(&leaf)?;
    SiteName::parse(name).map_err(|source| Error::BadName { name: name.to_owned(), source })
}

/// The one common name of the certificate's subject.
///
/// A subject with two would be read differently by different tools, so it has none.
pub(crate) fn common_name<'c>(certificate: &'c X509Certificate<'_>) -> Result<&'c str, Error> {
    let mut names = certificate.subject().iter_common_name();
    match (names.next(), names.next()) {
        (Some(name), None) => name.as_str().map_err(|_| Error::Unreadable),
        _ => Err(Error::NoCommonName),
    }
}

/// Why a certificate names no site. Each text says what the operator of the site has to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The connection has no peer certificate: it is not one of [`crate::LinkServer`].
    #[error("the peer has no certificate")]
    NoCertificate,
    /// The certificate or its name cannot be parsed.
    #[error("the site's certificate cannot be read; issue a new one with `spillway-collector pki issue SITE`")]
    Unreadable,
    /// No common name, or several.
    #[error("the site's certificate has no single common name (CN); issue one with `spillway-collector pki issue SITE`")]
    NoCommonName,
    /// The common name is no site's name.
    #[error("the common name {name:?} of the site's certificate is no site name; issue one with `spillway-collector pki issue SITE`")]
    BadName {
        /// The common name.
        name: String,
        /// Why it is none.
        source: NameError,
    },
}
