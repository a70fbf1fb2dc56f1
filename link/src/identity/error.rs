//! What can be wrong with the files of an identity.

use std::{io, path::PathBuf};

use super::{Role, pem::MAX_PEM_BYTES};

/// Why files are no usable identity. Each text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read tls.{key} = {}", file.display())]
    Read {
        /// The key below `[tls]`.
        key: &'static str,
        /// The file it names.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is larger than any PEM file of this use.
    #[error("{} is larger than {MAX_PEM_BYTES} bytes and cannot be a PEM file; check tls.{key}", file.display())]
    TooLarge {
        /// The key below `[tls]`.
        key: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// A file is not PEM, or not UTF-8 around it.
    #[error("{} is not a valid PEM file; export the certificate or key again in PEM form (-----BEGIN …)", file.display())]
    Pem {
        /// The file.
        file: PathBuf,
        /// What the reader found.
        source: rustls_pki_types::pem::Error,
    },
    /// The file has no certificate.
    #[error("{} contains no certificate (-----BEGIN CERTIFICATE-----); tls.{key} must name one", file.display())]
    NoCertificate {
        /// The key below `[tls]`.
        key: &'static str,
        /// The file.
        file: PathBuf,
    },
    /// The file has no private key.
    #[error("{} contains no private key (-----BEGIN PRIVATE KEY-----); tls.key must name the certificate's key", file.display())]
    NoKey {
        /// The file.
        file: PathBuf,
    },
    /// The key is protected by a passphrase, which a service cannot type.
    #[error(
        "the key in {file} is encrypted; store it without a passphrase (openssl pkey -in {file} -out NEW) in a file of mode 0600",
        file = file.display()
    )]
    KeyEncrypted {
        /// The file.
        file: PathBuf,
    },
    /// The key is of a kind that TLS 1.3 with ring does not know.
    #[error("the key in {} is of no supported kind; use ECDSA P-256 or P-384, Ed25519 or RSA of 2048 bits and more", file.display())]
    KeyUnsupported {
        /// The file.
        file: PathBuf,
        /// What rustls said.
        source: rustls::Error,
    },
    /// Key and certificate are not a pair.
    #[error("the key in {} does not belong to the certificate in {}; tls.cert and tls.key must be of one pair", key.display(), cert.display())]
    KeyMismatch {
        /// The key's file.
        key: PathBuf,
        /// The certificate's file.
        cert: PathBuf,
    },
    /// The certificate cannot be parsed.
    #[error("the certificate in {} cannot be read; copy it again from where it was issued", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the parser found.
        source: x509_parser::error::X509Error,
    },
    /// The CA file holds a certificate that cannot be a trust anchor.
    #[error("{} holds a certificate that cannot sign others ({subject}); tls.ca must name the CA's certificate", file.display())]
    NotAnAuthority {
        /// The file.
        file: PathBuf,
        /// Whose certificate it is.
        subject: String,
        /// What rustls said.
        source: rustls::Error,
    },
    /// The certificate's time is over.
    #[error("the certificate in {} expired on {not_after}{}", file.display(), renewal(*role))]
    Expired {
        /// The file.
        file: PathBuf,
        /// Its last second, UTC.
        not_after: String,
        /// What it is for.
        role: Role,
    },
    /// The certificate's time has not come; nearly always it is the clock.
    #[error(
        "the certificate in {} is not valid before {not_before}, and this machine's clock says {now}; set the clock (NTP) or wait",
        file.display()
    )]
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Its first second, UTC.
        not_before: String,
        /// Our clock, UTC.
        now: String,
    },
    /// Another CA signed it.
    #[error(
        "the certificate in {} is not signed by the CA in {}, but by {issuer}; tls.cert and tls.ca must come from the same CA",
        cert.display(), ca.display()
    )]
    NotSignedByCa {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's file.
        ca: PathBuf,
        /// The issuer that the certificate names.
        issuer: String,
    },
    /// A server's certificate given to an agent, or a site's to a collector.
    #[error("the certificate in {} is not for {}; {}", file.display(), purpose(*role), purpose_fix(*role))]
    WrongPurpose {
        /// The file.
        file: PathBuf,
        /// What it would have to be for.
        role: Role,
    },
    /// No common name, or several.
    #[error("the certificate in {} has no single common name (CN), which must be the site's name; issue one with `spillway-collector pki issue SITE`", file.display())]
    NoSiteName {
        /// The file.
        file: PathBuf,
    },
    /// The common name is no site's name.
    #[error("the certificate in {} is for {name:?}, which is no site name; issue one with `spillway-collector pki issue SITE`", file.display())]
    BadSiteName {
        /// The file.
        file: PathBuf,
        /// Its common name.
        name: String,
        /// Why it is none.
        source: spillway_proto::types::NameError,
    },
    /// rustls refuses it for a reason without a text of ours.
    #[error("the certificate in {} cannot be used", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// What rustls said.
        source: Refused,
    },
}

/// What rustls said when it refused certificate, key or CA.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// From TLS itself.
    #[error(transparent)]
    Tls(#[from] rustls::Error),
    /// From building the verifier of the peer.
    #[error(transparent)]
    Verifier(#[from] rustls::server::VerifierBuilderError),
}

fn renewal(role: Role) -> &'static str {
    match role {
        Role::Site => "; issue a new one with `spillway-collector pki issue SITE` and copy it here",
        Role::Collector => "; make a new server certificate with `spillway-collector pki init` (it keeps the CA) and restart",
    }
}

fn purpose(role: Role) -> &'static str {
    match role {
        Role::Site => "a site (client authentication)",
        Role::Collector => "a collector (server authentication)",
    }
}

fn purpose_fix(role: Role) -> &'static str {
    match role {
        Role::Site => "tls.cert of an agent is SITE.pem from `spillway-collector pki issue SITE`",
        Role::Collector => "tls.cert of a collector is server.pem from `spillway-collector pki init`",
    }
}
