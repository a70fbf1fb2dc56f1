//! `pki init` and `pki issue`.

use std::{
    fmt,
    io::Write,
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};
use spillway_proto::SiteName;
use time::{Duration, OffsetDateTime};
use x509_parser::{certificate::X509Certificate, pem::Pem};

use super::{
    Error, InitArgs, IssueArgs,
    files::{self, PUBLIC, SECRET},
    show::date,
};

/// How long before now a certificate begins to be valid: gateways' clocks lag, some by their whole time zone.
const BACKDATE: Duration = Duration::days(1);

/// Longest DNS name (RFC 1035, section 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// A name or an address that agents dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A DNS name, perhaps with a leading `*.`.
    Name(String),
    /// An IP address.
    Address(IpAddr),
}

impl Host {
    /// Parses what follows `--host`.
    ///
    /// # Errors
    /// When it is neither an IP address nor a DNS name, with the likely reason.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        if let Ok(address) = bare.parse() {
            return Ok(Self::Address(address));
        }
        if text.contains('/') {
            return Err(HostError::Url);
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let labels = name.strip_prefix("*.").unwrap_or(name);
        match labels.chars().find(|c| !c.is_ascii_alphanumeric() && !matches!(c, '.' | '-' | '_')) {
            Some(':') => return Err(HostError::Port),
            Some(character) if !character.is_ascii() => return Err(HostError::NotAscii),
            Some(character) => return Err(HostError::Character(character)),
            None => {}
        }
        if name.len() > MAX_HOST_BYTES || labels.split('.').any(|label| label.is_empty() || label.len() > 63) {
            return Err(HostError::Labels);
        }
        Ok(Self::Name(name.to_ascii_lowercase()))
    }

    fn alternative_name(&self) -> Result<SanType, rcgen::Error> {
        Ok(match self {
            Self::Name(name) => SanType::DnsName(name.as_str().try_into()?),
            Self::Address(address) => SanType::IpAddress(*address),
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// Why a text is no host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// It has a slash.
    #[error("a name or an IP address, not a URL")]
    Url,
    /// It has a colon and is no IPv6 address.
    #[error("without the port: a certificate names hosts only")]
    Port,
    /// It has letters beyond ASCII.
    #[error("in its ASCII form (xn--…), as DNS has it")]
    NotAscii,
    /// It has a character that no host name has.
    #[error("{0:?} cannot be in a host name")]
    Character(char),
    /// It is too long, or a label of it is, or empty.
    #[error("labels of 1 to 63 characters between the dots, 253 in all")]
    Labels,
}

/// Parses a site's name for clap.
pub(super) fn site(text: &str) -> Result<SiteName, spillway_proto::types::NameError> {
    SiteName::parse(text)
}

pub(super) fn init(args: &InitArgs, now: OffsetDateTime, out: &mut impl Write) -> Result<(), Error> {
    let folder = args.out.as_deref().unwrap_or(&args.dir);
    let (cert, key) = (folder.join("server.pem"), folder.join("server.key"));
    files::none_exists([&cert, &key])?;
    files::make_dir(&args.dir)?;
    let authority = match Authority::load(&args.dir, now) {
        Ok(authority) => {
            writeln!(out, "authority {} (kept)", args.dir.join("ca.pem").display())?;
            authority
        }
        Err(Error::NoAuthority { .. }) => {
            let authority = Authority::make(&args.dir, args.ca_days, now)?;
            writeln!(out, "authority {}, valid until {}", args.dir.join("ca.pem").display(), date(authority.not_after))?;
            writeln!(
                out,
                "          {} is its key: keep it here, with a backup, and off every other machine",
                args.dir.join("ca.key").display()
            )?;
            authority
        }
        Err(error) => return Err(error),
    };
    if folder != args.dir {
        authority.copy_certificate(folder)?;
    }

    let mut params = parameters("spillway-collector", ExtendedKeyUsagePurpose::ServerAuth);
    params.subject_alt_names = args.host.iter().map(Host::alternative_name).collect::<Result<_, _>>()?;
    let not_after = authority.sign(params, args.days, now, &cert, &key)?;
    let hosts: Vec<String> = args.host.iter().map(Host::to_string).collect();
    writeln!(out, "collector {}, valid until {}, for {}", cert.display(), date(not_after), hosts.join(", "))?;
    writeln!(out, "\ncollector.toml:\n[tls]\nca = {:?}\ncert = {cert:?}\nkey = {key:?}", folder.join("ca.pem"))?;
    writeln!(out, "\nNext, for each site: spillway-collector pki issue SITE --dir {} --out SITE", args.dir.display())?;
    Ok(())
}

pub(super) fn issue(args: &IssueArgs, now: OffsetDateTime, out: &mut impl Write) -> Result<(), Error> {
    let site = args.site.as_str();
    if site.eq_ignore_ascii_case("ca") || site.eq_ignore_ascii_case("server") {
        return Err(Error::ReservedSite { name: site.to_owned() });
    }
    let folder = args.out.as_deref().unwrap_or(&args.dir);
    let (cert, key) = (folder.join(format!("{site}.pem")), folder.join(format!("{site}.key")));
    files::none_exists([&cert, &key])?;
    let authority = Authority::load(&args.dir, now)?;
    authority.copy_certificate(folder)?;
    let params = parameters(site, ExtendedKeyUsagePurpose::ClientAuth);
    let not_after = authority.sign(params, args.days, now, &cert, &key)?;
    writeln!(out, "site {site}: {}, valid until {}", cert.display(), date(not_after))?;
    writeln!(
        out,
        "\nCopy these to the site, then delete the key here: {}, {}, {}",
        folder.join("ca.pem").display(),
        cert.display(),
        key.display()
    )?;
    writeln!(out, "\nagent.toml:\nsite = {site:?}\n[tls]\nca = \"ca.pem\"\ncert = \"{site}.pem\"\nkey = \"{site}.key\"")?;
    Ok(())
}

/// The authority in a folder.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The whole `ca.pem`: while an authority is being replaced it holds two certificates, and every peer needs both.
    pem: String,
    not_after: OffsetDateTime,
}

impl Authority {
    fn paths(dir: &Path) -> (PathBuf, PathBuf) {
        (dir.join("ca.pem"), dir.join("ca.key"))
    }

    fn make(dir: &Path, days: u32, now: OffsetDateTime) -> Result<Self, Error> {
        let (cert_file, key_file) = Self::paths(dir);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        // A name of its own for each authority, so that "issued by" tells two of them apart.
        let identifier: String = params.key_identifier(&key).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        params.distinguished_name = name(&format!("Spillway CA {identifier}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        (params.not_before, params.not_after) = (now - BACKDATE, now + Duration::days(days.into()));
        let not_after = params.not_after;
        let certificate = params.self_signed(&key)?;
        // The key first: a certificate without its key would look like an authority that lost it.
        files::write_new(&key_file, &key.serialize_pem(), SECRET)?;
        files::write_new(&cert_file, &certificate.pem(), PUBLIC)?;
        Ok(Self { issuer: Issuer::from_ca_cert_der(certificate.der(), key)?, pem: certificate.pem(), not_after })
    }

    fn load(dir: &Path, now: OffsetDateTime) -> Result<Self, Error> {
        let (cert_file, key_file) = Self::paths(dir);
        match (cert_file.exists(), key_file.exists()) {
            (true, true) => {}
            (false, false) => return Err(Error::NoAuthority { file: cert_file }),
            (true, false) => return Err(Error::HalfAuthority { present: cert_file, missing: key_file }),
            (false, true) => return Err(Error::HalfAuthority { present: key_file, missing: cert_file }),
        }
        let pem = files::read(&cert_file)?;
        let key = KeyPair::from_pem(&files::read(&key_file)?).map_err(|source| Error::Key { file: key_file.clone(), source })?;
        let (der, not_after) =
            certificate_of(&key, &pem, &cert_file)?.ok_or_else(|| Error::AuthorityMismatch { cert: cert_file.clone(), key: key_file })?;
        if not_after <= now {
            return Err(Error::AuthorityExpired { cert: cert_file, not_after: date(not_after) });
        }
        Ok(Self { issuer: Issuer::from_ca_cert_der(&der.into(), key)?, pem, not_after })
    }

    /// Puts `ca.pem` into the folder, unless that very one is there.
    fn copy_certificate(&self, folder: &Path) -> Result<(), Error> {
        files::make_dir(folder)?;
        let file = folder.join("ca.pem");
        match files::write_new(&file, &self.pem, PUBLIC) {
            Err(Error::Exists { .. }) if files::read(&file)? == self.pem => Ok(()),
            Err(Error::Exists { .. }) => Err(Error::OtherAuthority { file }),
            written => written,
        }
    }

    /// Makes a key and its certificate and writes both; the certificate ends with the authority at the latest.
    fn sign(
        &self,
        mut params: CertificateParams,
        days: u32,
        now: OffsetDateTime,
        cert_file: &Path,
        key_file: &Path,
    ) -> Result<OffsetDateTime, Error> {
        let key = KeyPair::generate()?;
        params.not_before = now - BACKDATE;
        params.not_after = (now + Duration::days(days.into())).min(self.not_after);
        let not_after = params.not_after;
        let certificate = params.signed_by(&key, &self.issuer)?;
        files::write_new(key_file, &key.serialize_pem(), SECRET)?;
        files::write_new(cert_file, &certificate.pem(), PUBLIC)?;
        Ok(not_after)
    }
}

/// The certificate in `pem` that belongs to `key`, as DER, and its end.
fn certificate_of(key: &KeyPair, pem: &str, file: &Path) -> Result<Option<(Vec<u8>, OffsetDateTime)>, Error> {
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let unreadable = || Error::Unreadable { file: file.to_owned() };
        let block = block.map_err(|_| unreadable())?;
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate: X509Certificate<'_> = block.parse_x509().map_err(|_| unreadable())?;
        if *certificate.public_key().subject_public_key.data == *key.public_key_raw() {
            let not_after = certificate.validity().not_after.to_datetime();
            return Ok(Some((block.contents, not_after)));
        }
    }
    Ok(None)
}

fn parameters(common_name: &str, purpose: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name(common_name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![purpose];
    params.use_authority_key_identifier_extension = true;
    params
}

fn name(common_name: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    name
}
