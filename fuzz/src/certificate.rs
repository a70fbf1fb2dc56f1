//! Certificates and keys: what a peer shows before it is known to be anybody, and what an operator has in files.

use std::time::{Duration, SystemTime};

use spillway_link::identity::describe;
use spillway_link::peer::name_in;
use spillway_link::{Identity, IdentityFiles, Role};
use spillway_proto::SiteName;

/// The first byte says what the rest is: a certificate's DER, or PEM for all three files of `[tls]`.
pub fn run(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else { return };
    match kind % 3 {
        0 => der(rest),
        1 => pem(rest, Role::Site),
        _ => pem(rest, Role::Collector),
    }
}

fn der(bytes: &[u8]) {
    let certificate = bytes.into();
    let line = describe(&certificate);
    assert!(!line.chars().any(char::is_control), "a peer writes into the log: {line:?}");
    match name_in(&certificate) {
        Ok(site) => assert_eq!(SiteName::parse(site.as_str()), Ok(site)),
        Err(error) => assert!(!error.to_string().chars().any(char::is_control)),
    }
}

fn pem(text: &[u8], role: Role) {
    let path = crate::file::write("fuzz.pem", text);
    let files = IdentityFiles { ca: path.clone(), cert: path.clone(), key: path };
    // Within the validity of the seeds' certificates.
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    match Identity::load(&files, role, now) {
        Ok(identity) => {
            let _site = identity.site_name();
            assert!(identity.not_after() > now);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
