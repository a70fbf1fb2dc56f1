//! What is wrong with the files of an identity is said at the start: file, fault and fix.

use std::{fs, time::SystemTime};

use crate::common::{Authority, DAY, Files, Made};
use spillway_link::Role;

/// The message of a failed load, with the folder taken out.
fn refusal(files: &Files, role: Role) -> String {
    let message = files.load(role).unwrap_err().to_string();
    let folder = files.paths.ca.parent().unwrap().to_str().unwrap();
    assert!(message.contains(folder), "names the file: {message}");
    message.replace(folder, "DIR")
}

#[test]
fn a_good_identity_loads() {
    let ca = Authority::new("ca");
    let site = Made::site().files(&ca, &[&ca]).load(Role::Site).unwrap();
    assert_eq!(site.site_name().unwrap().as_str(), "plant-7");
    assert!(site.not_after() > SystemTime::now() + 364 * DAY && site.not_after() < SystemTime::now() + 366 * DAY);
    Made::collector().files(&ca, &[&ca]).load(Role::Collector).unwrap();
}

#[test]
fn a_certificate_outside_its_time_is_named_with_the_date() {
    let ca = Authority::new("ca");
    let now = SystemTime::now();
    let expired = Made { valid_from: now - 9 * DAY, valid_to: now - 2 * DAY, ..Made::site() }.files(&ca, &[&ca]);
    let message = refusal(&expired, Role::Site);
    let date = day_of(now - 2 * DAY);
    assert!(message.starts_with(&format!("the certificate in DIR/cert.pem expired on {date}")), "{message}");
    assert!(message.contains("pki issue"), "{message}");

    let early = Made { valid_from: now + 2 * DAY, ..Made::site() }.files(&ca, &[&ca]);
    let message = refusal(&early, Role::Site);
    let date = day_of(now + 2 * DAY);
    assert!(message.starts_with(&format!("the certificate in DIR/cert.pem is not valid before {date}")), "{message}");
    assert!(message.contains("set the clock"), "{message}");
}

#[test]
fn a_certificate_of_another_ca_is_refused() {
    // Same name, another key: only the signature tells them apart.
    let (ours, other) = (Authority::new("ca"), Authority::new("ca"));
    for role in [Role::Site, Role::Collector] {
        let made = if role == Role::Site { Made::site() } else { Made::collector() };
        let message = refusal(&made.files(&other, &[&ours]), role);
        assert!(message.starts_with("the certificate in DIR/cert.pem is not signed by the CA in DIR/ca.pem, but by CN=ca"), "{message}");
        made.files(&other, &[&ours, &other]).load(role).unwrap();
    }
}

#[test]
fn a_certificate_for_the_other_purpose_is_refused() {
    let ca = Authority::new("ca");
    let message = refusal(&Made::collector().files(&ca, &[&ca]), Role::Site);
    assert!(message.contains("is not for a site (client authentication); tls.cert of an agent is SITE.pem"), "{message}");
    let message = refusal(&Made::site().files(&ca, &[&ca]), Role::Collector);
    assert!(message.contains("is not for a collector (server authentication); tls.cert of a collector is server.pem"), "{message}");
}

#[test]
fn a_name_that_is_no_site_is_refused() {
    let ca = Authority::new("ca");
    let site = Made { name: "plant.7", ..Made::site() }.files(&ca, &[&ca]).load(Role::Site).unwrap();
    let message = site.site_name().unwrap_err().to_string();
    assert!(message.contains("is for \"plant.7\", which is no site name"), "{message}");
}

#[test]
fn files_that_are_not_what_they_should_be_are_named() {
    let ca = Authority::new("ca");
    let (files, other) = (Made::site().files(&ca, &[&ca]), Made::site().files(&ca, &[&ca]));
    let good = (fs::read(&files.paths.ca).unwrap(), fs::read(&files.paths.cert).unwrap(), fs::read(&files.paths.key).unwrap());

    fs::copy(&other.paths.key, &files.paths.key).unwrap();
    let message = refusal(&files, Role::Site);
    assert!(message.starts_with("the key in DIR/key.pem does not belong to the certificate in DIR/cert.pem"), "{message}");

    fs::write(&files.paths.key, &good.1).unwrap();
    assert!(refusal(&files, Role::Site).starts_with("DIR/key.pem contains no private key"), "{}", refusal(&files, Role::Site));
    fs::write(&files.paths.key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n").unwrap();
    assert!(refusal(&files, Role::Site).starts_with("the key in DIR/key.pem is encrypted"), "{}", refusal(&files, Role::Site));
    fs::write(&files.paths.key, "-----BEGIN PRIVATE KEY-----\nMIIB\n-----END PRIVATE KEY-----\n").unwrap();
    assert!(refusal(&files, Role::Site).contains("no supported kind"), "{}", refusal(&files, Role::Site));
    fs::write(&files.paths.key, &good.2).unwrap();

    fs::write(&files.paths.cert, &good.2).unwrap();
    let message = refusal(&files, Role::Site);
    assert!(message.starts_with("DIR/cert.pem contains no certificate") && message.contains("tls.cert"), "{message}");
    fs::write(&files.paths.cert, "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n").unwrap();
    assert!(refusal(&files, Role::Site).starts_with("DIR/cert.pem is not a valid PEM file"), "{}", refusal(&files, Role::Site));
    fs::write(&files.paths.cert, vec![b'x'; 2 << 20]).unwrap();
    assert!(refusal(&files, Role::Site).contains("cannot be a PEM file"), "{}", refusal(&files, Role::Site));
    fs::write(&files.paths.cert, &good.1).unwrap();

    fs::write(&files.paths.ca, "").unwrap();
    let message = refusal(&files, Role::Site);
    assert!(message.starts_with("DIR/ca.pem contains no certificate") && message.contains("tls.ca"), "{message}");
    fs::remove_file(&files.paths.ca).unwrap();
    assert_eq!(refusal(&files, Role::Site), "cannot read tls.ca = DIR/ca.pem");
    fs::write(&files.paths.ca, &good.0).unwrap();
    files.load(Role::Site).unwrap();
}

/// `2026-11-23`, by the same calendar as certificates.
fn day_of(time: SystemTime) -> String {
    let date = time::OffsetDateTime::from(time);
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}
