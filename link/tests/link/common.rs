//! Certificates of every kind, made on the spot.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa, Issuer, KeyPair};
use spillway_link::{Identity, IdentityFiles, Role, identity::Error};
use tempfile::TempDir;
use time::OffsetDateTime;

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let certificate = params.self_signed(&key).unwrap();
        Self { issuer: Issuer::from_ca_cert_der(certificate.der(), key).unwrap(), pem: certificate.pem() }
    }
}

/// How a certificate is made; `Default` is valid since yesterday for a year.
pub(crate) struct Made<'a> {
    pub(crate) name: &'a str,
    pub(crate) purposes: Vec<Purpose>,
    pub(crate) hosts: Vec<String>,
    pub(crate) valid_from: SystemTime,
    pub(crate) valid_to: SystemTime,
}

impl Made<'_> {
    pub(crate) fn site() -> Self {
        let now = SystemTime::now();
        Self { name: "plant-7", purposes: vec![Purpose::ClientAuth], hosts: Vec::new(), valid_from: now - DAY, valid_to: now + 365 * DAY }
    }

    pub(crate) fn collector() -> Self {
        Self { name: "collector", purposes: vec![Purpose::ServerAuth], hosts: vec!["localhost".to_owned()], ..Self::site() }
    }

    /// Files of a certificate by `authority`, with the CAs in `trusted` as `ca.pem`.
    pub(crate) fn files(&self, authority: &Authority, trusted: &[&Authority]) -> Files {
        let mut params = params(self.name);
        params.extended_key_usages = self.purposes.clone();
        params.subject_alt_names = CertificateParams::new(self.hosts.clone()).unwrap().subject_alt_names;
        params.not_before = OffsetDateTime::from(self.valid_from);
        params.not_after = OffsetDateTime::from(self.valid_to);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &authority.issuer).unwrap();
        let files = Files::new();
        fs::write(&files.paths.ca, trusted.iter().map(|authority| authority.pem.as_str()).collect::<String>()).unwrap();
        fs::write(&files.paths.cert, certificate.pem()).unwrap();
        fs::write(&files.paths.key, key.serialize_pem()).unwrap();
        files
    }

    /// The identity, loaded at a time when it was valid and as what it was made for: what is wrong is left for the peer to find.
    pub(crate) fn identity(&self, authority: &Authority, trusted: &[&Authority]) -> Identity {
        let both = Made { purposes: self.purposes.clone(), hosts: self.hosts.clone(), ..*self }
            .files(authority, &[trusted, &[authority]].concat());
        let role = if self.purposes.contains(&Purpose::ClientAuth) { Role::Site } else { Role::Collector };
        both.load_at(role, self.valid_from + Duration::from_secs(1)).unwrap()
    }
}

/// The three files, in a folder that goes when this does.
pub(crate) struct Files {
    pub(crate) paths: IdentityFiles,
    _folder: TempDir,
}

impl Files {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| -> PathBuf { folder.path().join(name) };
        Self { paths: IdentityFiles { ca: path("ca.pem"), cert: path("cert.pem"), key: path("key.pem") }, _folder: folder }
    }

    pub(crate) fn load(&self, role: Role) -> Result<Identity, Error> {
        self.load_at(role, SystemTime::now())
    }

    pub(crate) fn load_at(&self, role: Role, now: SystemTime) -> Result<Identity, Error> {
        Identity::load(&self.paths, role, now)
    }
}

/// For a client that has no certificate to show.
#[derive(Debug)]
pub(crate) struct NoCertificate;

impl rustls::client::ResolvesClientCert for NoCertificate {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }

    fn has_certs(&self) -> bool {
        false
    }
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}
