//! `pki show`.

use std::{io::Write, path::Path};

use spillway_link::identity::fingerprint;
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, pem::Pem};

use super::{Error, ShowArgs, files};

/// From so many days before its end on, a certificate is pointed out.
const WARN_DAYS: i64 = 60;

pub(super) fn show(args: &ShowArgs, now: OffsetDateTime, out: &mut impl Write) -> Result<(), Error> {
    for (index, file) in args.files.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        show_file(file, now, out)?;
    }
    Ok(())
}

fn show_file(file: &Path, now: OffsetDateTime, out: &mut impl Write) -> Result<(), Error> {
    let unreadable = || Error::Unreadable { file: file.to_owned() };
    let text = files::read(file)?;
    let (mut found, mut holds_key) = (false, false);
    for block in Pem::iter_from_buffer(text.as_bytes()) {
        let block = block.map_err(|_| unreadable())?;
        holds_key |= block.label.ends_with("PRIVATE KEY");
        if block.label != "CERTIFICATE" {
            continue;
        }
        let certificate = block.parse_x509().map_err(|_| unreadable())?;
        found = true;
        writeln!(out, "{}", file.display())?;
        for (key, value) in lines(&certificate, now) {
            writeln!(out, "  {key:<12} {value}")?;
        }
        writeln!(out, "  {:<12} {}", "fingerprint", fingerprint(&block.contents))?;
        if let Some(warning) = warning(&certificate, now) {
            writeln!(out, "  warning: {warning}")?;
        }
    }
    if found { Ok(()) } else { Err(Error::NoCertificate { file: file.to_owned(), holds_key }) }
}

fn lines(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Vec<(&'static str, String)> {
    let (not_before, not_after) = validity(certificate);
    let days = (not_after - now).whole_days();
    let left = match days {
        ..0 => format!("ended {} days ago", -days),
        0 => "less than a day left".to_owned(),
        days => format!("{days} days left"),
    };
    let mut lines = vec![("kind", Kind::of(certificate).to_string()), ("subject", certificate.subject().to_string())];
    let names = alternative_names(certificate);
    if !names.is_empty() {
        lines.push(("names", names.join(", ")));
    }
    lines.push(("issuer", certificate.issuer().to_string()));
    lines.push(("valid", format!("{} to {} ({left})", date(not_before), date(not_after))));
    lines
}

fn warning(certificate: &X509Certificate<'_>, now: OffsetDateTime) -> Option<String> {
    let (not_before, not_after) = validity(certificate);
    let renew = match Kind::of(certificate) {
        Kind::Authority => "see \"A new authority\" in docs/certificates.md".to_owned(),
        Kind::Collector => "make a new one: pki init --dir DIR --host NAME --out NEW".to_owned(),
        Kind::Site(site) => format!("issue a new one: pki issue {site} --dir DIR --out NEW"),
        Kind::Other => "have a new one issued".to_owned(),
    };
    if now > not_after {
        Some(format!("EXPIRED: every connection with it is refused; {renew}"))
    } else if now < not_before {
        Some("NOT VALID YET: connections with it are refused until then; is this machine's clock right?".to_owned())
    } else if (not_after - now).whole_days() < WARN_DAYS {
        Some(format!("expires soon; {renew}"))
    } else {
        None
    }
}

/// What a certificate may be used for.
enum Kind {
    Authority,
    Collector,
    Site(String),
    Other,
}

impl Kind {
    fn of(certificate: &X509Certificate<'_>) -> Self {
        if certificate.is_ca() {
            return Self::Authority;
        }
        let usage = certificate.extended_key_usage().ok().flatten().map(|usage| usage.value);
        let common_name = certificate.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
        match usage {
            Some(usage) if usage.server_auth => Self::Collector,
            Some(usage) if usage.client_auth => match common_name {
                Some(name) if spillway_proto::SiteName::parse(name).is_ok() => Self::Site(name.to_owned()),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Authority => f.write_str("authority: signs certificates"),
            Self::Collector => f.write_str("collector: agents may dial the names below"),
            Self::Site(site) => write!(f, "site {site}: may write {site}.* and nothing else"),
            Self::Other => f.write_str("neither a site's nor a collector's"),
        }
    }
}

fn alternative_names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Some(names) = certificate.subject_alternative_name().ok().flatten() else { return Vec::new() };
    names
        .value
        .general_names
        .iter()
        .map(|name| match name {
            GeneralName::DNSName(name) => (*name).to_owned(),
            GeneralName::IPAddress(bytes) => address(bytes),
            other => other.to_string(),
        })
        .collect()
}

fn address(bytes: &[u8]) -> String {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        std::net::Ipv4Addr::from(v4).to_string()
    } else if let Ok(v6) = <[u8; 16]>::try_from(bytes) {
        std::net::Ipv6Addr::from(v6).to_string()
    } else {
        "an address of neither 4 nor 16 bytes".to_owned()
    }
}

fn validity(certificate: &X509Certificate<'_>) -> (OffsetDateTime, OffsetDateTime) {
    let validity = certificate.validity();
    (validity.not_before.to_datetime(), validity.not_after.to_datetime())
}

/// The day, UTC: `2029-02-23`.
pub(super) fn date(time: OffsetDateTime) -> String {
    format!("{year:04}-{month:02}-{day:02}", year = time.year(), month = u8::from(time.month()), day = time.day())
}
