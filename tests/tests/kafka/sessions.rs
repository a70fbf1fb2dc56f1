//! Whom the collector refuses, and that both sides say why and what to do.

use std::time::Duration;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use spillway_lab::stage::pki::{Identity, Pki};
use spillway_lab::stage::program::Program;
use spillway_lab::stage::{Stage, agent};

use crate::common::{FLOW_LIMIT, assert_exact, stage, write};

/// Exit code: a certificate that cannot be used.
const EXIT_CANNOT_START: i32 = 4;

/// Both sides have told by then.
const LOG_LIMIT: Duration = Duration::from_secs(30);

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn an_unknown_site_is_refused_until_its_file_is_there() {
    let mut stage = stage("unknown");
    let sites = stage.dir().join("sites.d");
    std::fs::create_dir(&sites).unwrap();
    std::fs::write(sites.join("other.toml"), "").unwrap();
    stage.collector(0).unwrap().config.set("sites.dir", sites.display().to_string());
    stage.source.create_topic("unknown-t", 1, &[]).unwrap();
    write(&stage.source, "unknown-t", 1, 0..100);
    stage.start_collectors().unwrap();
    stage.agent.spawn().unwrap();
    refused(&mut stage, "site_unknown", &["site_unknown", "sites directory"]);

    // The collector reads the folder again whenever a site connects.
    std::fs::write(sites.join("unknown.toml"), "").unwrap();
    stage.wait_drained(&["unknown-t"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["unknown-t"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_certificate_of_another_authority_is_refused_by_the_collector() {
    let mut stage = stage("foreign");
    let other = Pki::init(&stage.dir().join("other-pki")).unwrap();
    use_identity(&mut stage, &other.issue("foreign").unwrap());
    // The agent trusts both, or it would see by itself that its files do not fit together.
    let both = std::fs::read_to_string(stage.pki.ca()).unwrap() + &std::fs::read_to_string(other.ca()).unwrap();
    let trusted = stage.dir().join("both.pem");
    std::fs::write(&trusted, both).unwrap();
    stage.agent.config.set("tls.ca", trusted.display().to_string());
    stage.start_collectors().unwrap();
    stage.agent.spawn().unwrap();
    refused(&mut stage, "unknown_ca", &["certificate"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_collector_of_another_authority_is_refused_by_the_agent() {
    let mut stage = stage("imposter");
    let other = Pki::init(&stage.dir().join("other-pki")).unwrap();
    use_identity(&mut stage, &other.issue("imposter").unwrap());
    stage.agent.config.set("tls.ca", other.ca().display().to_string());
    stage.start_collectors().unwrap();
    stage.agent.spawn().unwrap();
    refused(&mut stage, "unknown_ca", &["certificate"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn files_that_do_not_fit_together_and_expired_certificates_stop_the_agent_at_once() {
    let mut stage = stage("files");
    let other = Pki::init(&stage.dir().join("other-pki")).unwrap();
    use_identity(&mut stage, &other.issue("files").unwrap());
    stage.agent.spawn().unwrap();
    assert_eq!(stage.agent.wait_exit(LOG_LIMIT).unwrap(), EXIT_CANNOT_START);
    assert_eq!(stage.agent.log_lines("tls.cert and tls.ca must come from the same CA").len(), 2, "in the log, and as the last word");

    let identity = expired_identity(&stage, "files");
    use_identity(&mut stage, &identity);
    stage.agent.spawn().unwrap();
    assert_eq!(stage.agent.wait_exit(LOG_LIMIT).unwrap(), EXIT_CANNOT_START);
    let said = stage.agent.log_lines("expired on 2020-02-01");
    assert!(said.iter().all(|line| line.contains("spillway-collector pki issue")) && !said.is_empty(), "{said:#?}");
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn the_newer_of_two_sessions_of_a_site_wins() {
    let mut stage = stage("twin");
    stage.source.create_topic("twin-t", 1, &[]).unwrap();
    write(&stage.source, "twin-t", 1, 0..100);
    stage.start().unwrap();
    stage.wait_drained(&["twin-t"], FLOW_LIMIT).unwrap();
    let mut twin = twin_of(&stage);
    // It may never be ready while the two take the site from each other.
    twin.spawn().unwrap();
    stage.agent.wait_for_line("superseded", LOG_LIMIT).unwrap();
    let said = stage.collector(0).unwrap().wait_for_line("superseded", LOG_LIMIT).unwrap();
    assert!(said.contains("twin"), "the collector names the site: {said}");
    // The older one has gone, or the two would take the site from each other for ever.
    assert!(stage.agent.kill());
    write(&stage.source, "twin-t", 1, 100..300);
    stage.wait_drained(&["twin-t"], FLOW_LIMIT).unwrap();
    assert_exact(&stage, &["twin-t"]);
}

#[test]
#[ignore = "needs real Kafka: ./lab test"]
fn a_connection_beyond_the_maximum_is_refused() {
    let mut stage = stage("crowd");
    stage.collector(0).unwrap().config.set("listen.max_connections", 1);
    stage.start().unwrap();
    let identity = stage.pki.issue("crowd-2").unwrap();
    let mut second = agent(stage.dir(), "agent-2", "crowd-2", &stage.pki, &identity, &stage.source).unwrap();
    second.config.set("collector.address", stage.relay.address().to_string());
    second.config.set("topics.include", vec!["crowd-.*"]);
    second.spawn().unwrap();
    for program in [&mut second, stage.collector(0).unwrap()] {
        let line = program.wait_for_line("too_many_connections", LOG_LIMIT).unwrap();
        assert!(line.contains("listen.max_connections"), "what to do: {line}");
    }
    assert!(refusals(&stage, "too_many_connections") >= 1.0);
    // There is room once the first has gone.
    assert!(stage.agent.terminate().unwrap().success());
    second.wait_for_line("event=\"session_open\"", LOG_LIMIT).unwrap();
}

/// Waits until agent and collector have told of the refusal, the agent with every text of `told`.
fn refused(stage: &mut Stage, reason: &str, told: &[&str]) {
    let line = stage.agent.wait_for_line("event=\"session_failed\"", LOG_LIMIT).unwrap();
    for text in told {
        assert!(line.contains(text), "{text:?} is not in {line}");
    }
    let said = stage.collector(0).unwrap().wait_for_line("event=\"session_refused\"", LOG_LIMIT).unwrap();
    println!("{}: the agent says: {line}\n{}: the collector says: {said}", stage.site, stage.site);
    assert!(refusals(stage, reason) >= 1.0, "spillway_sessions_refused_total, {reason}");
    assert!(stage.agent.is_running(), "the agent goes on trying");
}

fn refusals(stage: &Stage, reason: &str) -> f64 {
    stage.collectors[0].metrics().unwrap().sum("spillway_sessions_refused_total", &[reason])
}

fn use_identity(stage: &mut Stage, identity: &Identity) {
    stage.agent.config.set("tls.cert", identity.cert.display().to_string());
    stage.agent.config.set("tls.key", identity.key.display().to_string());
}

/// A second agent with the same certificate and source.
fn twin_of(stage: &Stage) -> Program {
    let identity = Identity { cert: stage.dir().join("pki/twin/twin.pem"), key: stage.dir().join("pki/twin/twin.key") };
    let mut twin = agent(stage.dir(), "agent-twin", "twin", &stage.pki, &identity, &stage.source).unwrap();
    twin.config.set("collector.address", stage.relay.address().to_string());
    twin.config.set("topics.include", vec!["twin-.*"]);
    twin
}

/// A certificate of the stage's own authority that ended yesterday; the command makes none.
fn expired_identity(stage: &Stage, site: &str) -> Identity {
    let pki = stage.dir().join("pki");
    let read = |name: &str| std::fs::read_to_string(pki.join(name)).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), KeyPair::from_pem(&read("ca.key")).unwrap()).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, site);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 2, 1);
    let key = KeyPair::generate().unwrap();
    let identity = Identity { cert: pki.join("old.pem"), key: pki.join("old.key") };
    std::fs::write(&identity.cert, params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(&identity.key, key.serialize_pem()).unwrap();
    identity
}
