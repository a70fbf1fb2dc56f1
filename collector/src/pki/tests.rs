#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use clap::Parser;
use spillway_link::{Identity, IdentityFiles, LinkClient, LinkServer, LinkSettings, RateCap, Role};
use spillway_proto::CloseCode;
use tempfile::TempDir;

use super::{make::Host, *};

#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Runs `pki LINE` with DIR in it replaced, `days_ago`; what it prints.
fn pki_at(dir: &Path, line: &str, days_ago: i64) -> Result<String, Error> {
    let line = line.replace("DIR", dir.to_str().unwrap());
    let cli = Cli::try_parse_from(["pki"].into_iter().chain(line.split(' '))).unwrap();
    let mut out = Vec::new();
    run_at(&cli.command, OffsetDateTime::now_utc() - time::Duration::days(days_ago), &mut out)?;
    Ok(String::from_utf8(out).unwrap())
}

fn pki(dir: &Path, line: &str) -> Result<String, Error> {
    pki_at(dir, line, 0)
}

fn identity(dir: &Path, name: &str, role: Role) -> Result<Identity, spillway_link::identity::Error> {
    let files = IdentityFiles { ca: dir.join("ca.pem"), cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) };
    Identity::load(&files, role, SystemTime::now())
}

fn mode(file: &Path) -> u32 {
    fs::metadata(file).unwrap().permissions().mode() & 0o777
}

#[test]
fn keys_are_for_their_owner_only() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path().join("made/pki");
    pki(&dir, "init --dir DIR --host central.example.com").unwrap();
    pki(&dir, "issue plant-7 --dir DIR --out DIR/plant-7").unwrap();
    assert_eq!(mode(&dir), 0o700);
    assert_eq!(mode(&dir.join("plant-7")), 0o700);
    for key in ["ca.key", "server.key", "plant-7/plant-7.key"] {
        assert_eq!(mode(&dir.join(key)), 0o600, "{key}");
    }
    let mut left: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["ca.key", "ca.pem", "plant-7", "server.key", "server.pem"], "no temporary file is left");
    assert_eq!(fs::read(dir.join("ca.pem")).unwrap(), fs::read(dir.join("plant-7/ca.pem")).unwrap());
}

#[test]
fn nothing_is_overwritten() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host a.example").unwrap();
    pki(dir, "issue s --dir DIR").unwrap();
    let before: Vec<_> =
        ["ca.pem", "ca.key", "server.pem", "server.key", "s.pem", "s.key"].map(|file| fs::read(dir.join(file)).unwrap()).into();

    let again = pki(dir, "init --dir DIR --host a.example").unwrap_err();
    assert!(again.to_string().contains("server.pem exists and is never overwritten"), "{again}");
    let again = pki(dir, "issue s --dir DIR").unwrap_err();
    assert!(again.to_string().contains("s.pem exists"), "{again}");
    fs::remove_file(dir.join("s.pem")).unwrap();
    assert!(matches!(pki(dir, "issue s --dir DIR"), Err(Error::Exists { file }) if file.ends_with("s.key")));
    fs::write(dir.join("s.pem"), &before[4]).unwrap();

    let after: Vec<_> =
        ["ca.pem", "ca.key", "server.pem", "server.key", "s.pem", "s.key"].map(|file| fs::read(dir.join(file)).unwrap()).into();
    assert_eq!(before, after);
    // The check before is for the message; this is what holds when two commands race.
    assert!(matches!(files::write_new(&dir.join("s.pem"), "x", files::PUBLIC), Err(Error::Exists { .. })));
    assert_eq!(fs::read(dir.join("s.pem")).unwrap(), before[4]);
}

#[test]
fn a_new_server_certificate_keeps_the_authority() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host a.example").unwrap();
    let authority = fs::read(dir.join("ca.pem")).unwrap();
    let said = pki(dir, "init --dir DIR --host b.example --out DIR/new").unwrap();
    assert!(said.contains("(kept)") && said.contains("b.example"), "{said}");
    assert_eq!(fs::read(dir.join("new/ca.pem")).unwrap(), authority);
    identity(&dir.join("new"), "server", Role::Collector).unwrap();
}

#[test]
fn half_an_authority_is_none() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    assert!(matches!(pki(dir, "issue s --dir DIR"), Err(Error::NoAuthority { .. })));
    pki(dir, "init --dir DIR --host a.example").unwrap();
    let key = fs::read(dir.join("ca.key")).unwrap();
    fs::remove_file(dir.join("ca.key")).unwrap();
    assert!(matches!(pki(dir, "issue s --dir DIR"), Err(Error::HalfAuthority { missing, .. }) if missing.ends_with("ca.key")));
    fs::copy(dir.join("server.key"), dir.join("ca.key")).unwrap();
    assert!(matches!(pki(dir, "issue s --dir DIR"), Err(Error::AuthorityMismatch { .. })));
    fs::write(dir.join("ca.key"), "nonsense").unwrap();
    assert!(matches!(pki(dir, "issue s --dir DIR"), Err(Error::Key { .. })));
    fs::write(dir.join("ca.key"), key).unwrap();
    pki(dir, "issue s --dir DIR").unwrap();
}

#[test]
fn a_site_is_issued_by_the_new_authority_of_a_bundle() {
    let temp = TempDir::new().unwrap();
    let (old, new) = (temp.path().join("old"), temp.path().join("new"));
    pki(&old, "init --dir DIR --host a.example").unwrap();
    pki(&new, "init --dir DIR --host a.example").unwrap();
    let bundle = fs::read_to_string(old.join("ca.pem")).unwrap() + &fs::read_to_string(new.join("ca.pem")).unwrap();
    fs::write(new.join("ca.pem"), &bundle).unwrap();
    pki(&new, "issue s --dir DIR --out DIR/s").unwrap();
    assert_eq!(fs::read_to_string(new.join("s/ca.pem")).unwrap(), bundle);
    identity(&new.join("s"), "s", Role::Site).unwrap();
    let said = pki(&new, "show DIR/ca.pem").unwrap();
    assert_eq!(said.matches("kind         authority").count(), 2, "{said}");
}

#[test]
fn a_certificate_does_not_outlive_its_authority() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host a.example --ca-days 100").unwrap();
    let said = pki(dir, "issue s --dir DIR").unwrap();
    let until = date(OffsetDateTime::now_utc() + time::Duration::days(100));
    assert!(said.contains(&until), "{said}");
    fs::create_dir(dir.join("old")).unwrap();
    pki_at(&dir.join("old"), "init --dir DIR --host a.example --ca-days 100", 200).unwrap();
    assert!(matches!(pki(&dir.join("old"), "issue s --dir DIR"), Err(Error::AuthorityExpired { .. })));
}

#[test]
fn names_that_cannot_be_are_refused() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host a.example").unwrap();
    for name in ["ca", "CA", "server"] {
        assert!(matches!(pki(dir, &format!("issue {name} --dir DIR")), Err(Error::ReservedSite { .. })), "{name}");
    }
    assert!(Cli::try_parse_from(["pki", "issue", "a.b"]).is_err());
    assert!(Cli::try_parse_from(["pki", "init", "--dir", "x"]).is_err(), "a host is required");
    assert!(Cli::try_parse_from(["pki", "init", "--host", "a", "--days", "0"]).is_err());

    assert_eq!(Host::parse("Central.Example.com."), Ok(Host::Name("central.example.com".to_owned())));
    assert_eq!(Host::parse("[2001:db8::1]"), Ok(Host::Address("2001:db8::1".parse().unwrap())));
    assert_eq!(Host::parse("*.example.com"), Ok(Host::Name("*.example.com".to_owned())));
    assert_eq!(Host::parse("central:4433"), Err(make::HostError::Port));
    assert_eq!(Host::parse("https://central:4433"), Err(make::HostError::Url));
    assert_eq!(Host::parse("central/x"), Err(make::HostError::Url));
    assert_eq!(Host::parse("zentrale-süd.example"), Err(make::HostError::NotAscii));
    assert_eq!(Host::parse("a..b"), Err(make::HostError::Labels));
    assert_eq!(Host::parse("a b"), Err(make::HostError::Character(' ')));
}

#[test]
fn show_says_what_a_certificate_is_and_warns_of_its_end() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host central.example.com 203.0.113.7 2001:db8::1").unwrap();
    pki(dir, "issue plant-7 --dir DIR --days 30").unwrap();
    let server = pki(dir, "show DIR/server.pem").unwrap();
    assert!(server.contains("kind         collector"), "{server}");
    assert!(server.contains("names        central.example.com, 203.0.113.7, 2001:db8::1"), "{server}");
    assert!(server.contains("(825 days left)") || server.contains("(824 days left)"), "{server}");
    assert!(server.contains("issuer       CN=Spillway CA "), "{server}");
    assert!(!server.contains("warning"), "{server}");

    let site = pki(dir, "show DIR/ca.pem DIR/plant-7.pem").unwrap();
    assert!(site.contains("site plant-7: may write plant-7.* and nothing else"), "{site}");
    assert!(site.contains("warning: expires soon; issue a new one: pki issue plant-7"), "{site}");
    let expired = pki_at(dir, "show DIR/plant-7.pem", -40).unwrap();
    assert!(expired.contains("warning: EXPIRED") && expired.contains("ended 10 days ago"), "{expired}");
    let early = pki_at(dir, "show DIR/plant-7.pem", 3).unwrap();
    assert!(early.contains("NOT VALID YET"), "{early}");

    let key = pki(dir, "show DIR/plant-7.key").unwrap_err();
    assert!(key.to_string().ends_with("but a private key"), "{key}");
}

#[tokio::test]
async fn what_is_made_here_opens_a_link() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host localhost 127.0.0.1").unwrap();
    pki(dir, "issue plant-7 --dir DIR --out DIR/site").unwrap();
    let collector = identity(dir, "server", Role::Collector).unwrap();
    let site = identity(&dir.join("site"), "plant-7", Role::Site).unwrap();
    assert_eq!(site.site_name().unwrap().as_str(), "plant-7");

    let server = LinkServer::bind("127.0.0.1:0".parse().unwrap(), &collector, &LinkSettings::collector()).unwrap();
    let port = server.local_addr().unwrap().port();
    let accepted = tokio::spawn(async move {
        let connection = server.accept().await.unwrap().await.unwrap();
        let name = spillway_link::site_name(&connection).unwrap();
        server.shutdown(CloseCode::Done, Duration::from_secs(5)).await;
        name
    });
    let client = LinkClient::new(&site, &LinkSettings::agent(), RateCap::new(None)).unwrap();
    let connection = client.dial(spillway_link::Way::Udp, "127.0.0.1", port).await.unwrap();
    connection.closed().await;
    assert_eq!(accepted.await.unwrap().as_str(), "plant-7");
}

#[test]
fn certificates_for_the_other_purpose_are_no_identity() {
    let temp = TempDir::new().unwrap();
    let dir = temp.path();
    pki(dir, "init --dir DIR --host localhost").unwrap();
    pki(dir, "issue plant-7 --dir DIR").unwrap();
    let error = identity(dir, "server", Role::Site).unwrap_err();
    assert!(error.to_string().contains("is not for a site (client authentication)"), "{error}");
    let error = identity(dir, "plant-7", Role::Collector).unwrap_err();
    assert!(error.to_string().contains("is not for a collector (server authentication)"), "{error}");
}

fn date(time: OffsetDateTime) -> String {
    show::date(time)
}
