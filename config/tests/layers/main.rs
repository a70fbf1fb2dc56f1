//! Which of the layers wins, and how values come from variables and files.

#![expect(clippy::unwrap_used, reason = "tests")]

mod site;
mod spill;

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use spillway_config::units::{BitRate, ByteSize};
use spillway_config::{
    AGENT_REFERENCE, AdminConfig, AgentConfig, CollectorConfig, CompressionLevel, LogFormat, OnGap, Problems, SaslMechanism,
    SecurityProtocol, SiteFile, SiteSettings, StartFrom,
};
use spillway_proto::SiteName;
use tempfile::TempDir;

const SECRET: &str = "hunter2";

/// The five keys an agent must have.
const AGENT: &str =
    "site = 'plant-7'\ncollector.address = 'central.example.com:4433'\ntls = { ca = 'ca.pem', cert = 'own.pem', key = 'own.key' }\n";

/// The three keys a collector must have.
const COLLECTOR: &str = "tls = { ca = 'ca.pem', cert = 'own.pem', key = 'own.key' }\n";

/// A folder with a configuration, and the files that it names.
struct Folder(TempDir);

impl Folder {
    fn new(config: &str) -> Self {
        let folder = Self(TempDir::new().unwrap());
        folder.write("ca.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
        folder.write("own.pem", "text before\n-----BEGIN CERTIFICATE-----\r\n", 0o644);
        folder.write("own.key", "-----BEGIN EC PRIVATE KEY-----\n", 0o600);
        folder.write("config.toml", config, 0o600);
        folder
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn agent(&self, environment: &[(&str, &str)]) -> Result<AgentConfig, Problems> {
        AgentConfig::load(&self.path("config.toml"), environment.iter().copied())
    }

    fn collector(&self, environment: &[(&str, &str)]) -> Result<CollectorConfig, Problems> {
        CollectorConfig::load(&self.path("config.toml"), environment.iter().copied())
    }
}

fn agent(more: &str, environment: &[(&str, &str)]) -> AgentConfig {
    Folder::new(&format!("{AGENT}{more}")).agent(environment).unwrap_or_else(|problems| panic!("{problems}"))
}

fn collector(more: &str, environment: &[(&str, &str)]) -> CollectorConfig {
    Folder::new(&format!("{COLLECTOR}{more}")).collector(environment).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_agent_needs_five_keys_and_gets_the_rest_from_the_reference() {
    let folder = Folder::new(AGENT);
    let config = folder.agent(&[]).unwrap();
    assert_eq!(config.site.as_str(), "plant-7");
    assert_eq!(config.memory_max, ByteSize::from_mib(64));
    assert_eq!(config.kafka.client.bootstrap_servers, "127.0.0.1:9092");
    assert_eq!(config.kafka.client.security_protocol, SecurityProtocol::Plaintext);
    assert!(config.kafka.client.librdkafka.is_empty());
    assert_eq!((config.kafka.start, config.kafka.on_gap), (StartFrom::Earliest, OnGap::Continue));
    assert_eq!(config.kafka.commit_interval, Duration::from_secs(5));
    assert_eq!(config.topics.refresh_interval, Duration::from_secs(30));
    assert!(config.topics.rules.is_empty());
    assert_eq!(config.collector.addresses.len(), 1);
    assert_eq!(config.collector.server_name, None);
    assert_eq!(config.tls.key, folder.path("own.key"));
    assert_eq!(config.link.rate_max, None);
    assert_eq!(config.link.frame_max_bytes, ByteSize::from_kib(256));
    assert_eq!((config.link.frame_max_records, config.link.compression_level), (10_000, CompressionLevel::Auto));
    assert_eq!(config.link.compression_memory, ByteSize::from_mib(16));
    assert_eq!(config.link.frame_linger, Duration::from_millis(50));
    assert_eq!((config.link.keep_alive, config.link.idle_timeout), (Duration::from_secs(25), Duration::from_secs(60)));
    assert_eq!((config.link.redial_max, config.shutdown.deadline), (Duration::from_secs(30), Duration::from_secs(30)));
    assert_eq!(config.admin.listen, "127.0.0.1:9610".parse().ok());
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.spill, spill::default_spill());
    assert_eq!(config.flows().len(), 1);
    assert_eq!(config.warnings, []);
}

#[test]
fn the_collector_needs_three_keys_and_gets_the_rest_from_the_reference() {
    let config = collector("", &[]);
    assert_eq!(config.listen.address, "[::]:4433".parse().unwrap());
    assert_eq!(config.listen.max_connections, 2_000);
    assert_eq!((config.topics.replication_factor, config.topics.internal_replication_factor), (-1, -1));
    assert_eq!((config.topics.separator.as_str(), config.topics.progress_partitions), (".", 16));
    assert_eq!(config.sites.dir, None);
    assert_eq!(config.transactions.max_bytes, ByteSize::from_mib(8));
    assert_eq!(config.transactions.interval, Duration::from_millis(250));
    assert_eq!((config.transactions.timeout, config.transactions.idle_close), (Duration::from_secs(60), Duration::from_secs(300)));
    assert_eq!(config.session.max_frame_bytes, ByteSize::from_mib(16));
    assert_eq!(config.session.max_inflight_bytes, ByteSize::from_mib(16));
    assert_eq!(config.admin.listen, "127.0.0.1:9611".parse().ok());
    assert_eq!(config.warnings, []);
}

#[test]
fn a_variable_wins_over_the_file_and_the_file_over_the_reference() {
    let file = "[link]\ncompression_level = 5\nframe_max_records = 7\n";
    let config = agent(file, &[("SPILLWAY_LINK__COMPRESSION_LEVEL", "9"), ("SPILLWAY_LINK__RATE_MAX", "2Mbit")]);
    assert_eq!((config.link.compression_level, config.link.frame_max_records), (CompressionLevel::Fixed(9), 7));
    assert_eq!(config.link.rate_max.map(BitRate::bits_per_second), Some(2_000_000));
    assert_eq!(config.link.keep_alive, Duration::from_secs(25));
}

#[test]
fn everything_can_come_from_variables() {
    let folder = Folder::new("");
    let config = folder.agent(&[
        ("SPILLWAY_SITE", "ship-1"),
        ("SPILLWAY_COLLECTOR__ADDRESS", "a.example.com:4433, [2001:db8::1]:4433"),
        ("SPILLWAY_TLS__CA", "ca.pem"),
        ("SPILLWAY_TLS__CERT", "own.pem"),
        ("SPILLWAY_TLS__KEY", "own.key"),
        ("SPILLWAY_ADMIN__LISTEN", "off"),
        ("SPILLWAY_TOPICS__INCLUDE", r"alarms\..*, metrics"),
        ("SPILLWAY_TOPICS__EXCLUDE", ""),
        ("SPILLWAY_TOPICS__RULE", r"[{match = 'alarms\.x', start = 'latest'}, {match = 'alarms\..*', on_gap = 'halt'}]"),
        ("SPILLWAY_KAFKA__LIBRDKAFKA__SOCKET_KEEPALIVE_ENABLE", "true"),
        ("SPILLWAY_LOG", "debug"),
        ("PATH", "/bin"),
    ]);
    let config = config.unwrap();
    let addresses: Vec<String> = config.collector.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(addresses, ["a.example.com:4433", "[2001:db8::1]:4433"]);
    assert_eq!(config.admin.listen, None);
    assert!(config.topics.selects("alarms.fire") && config.topics.selects("metrics") && !config.topics.selects("metrics2"));
    assert!(config.topics.exclude.is_empty());
    assert_eq!((config.start_of("alarms.x"), config.on_gap_of("alarms.x")), (StartFrom::Latest, OnGap::Continue));
    assert_eq!((config.start_of("alarms.y"), config.on_gap_of("alarms.y")), (StartFrom::Earliest, OnGap::Halt));
    assert_eq!(config.kafka.client.librdkafka.get("socket.keepalive.enable"), Some("true"));
}

#[test]
fn a_list_from_a_variable_is_toml_if_it_begins_with_a_bracket() {
    let config = agent("", &[("SPILLWAY_TOPICS__INCLUDE", "['[a-c]{1,2}', 'd']")]);
    let topics: Vec<&str> = ["a", "bc", "abc", "d", "[a-c]"].into_iter().filter(|topic| config.topics.selects(topic)).collect();
    assert_eq!(topics, ["a", "bc", "d"]);
}

#[test]
fn a_value_file_counts_in_the_layer_that_names_it() {
    let folder = Folder::new(&format!("{AGENT}[link]\nrate_max_file = 'rate'\n"));
    folder.write("rate", "512kbit\r\n", 0o644);
    folder.write("faster", "1Mbit", 0o644);
    let bits = |environment: &[(&str, &str)]| folder.agent(environment).unwrap().link.rate_max.map(BitRate::bits_per_second);
    assert_eq!(bits(&[]), Some(512_000));
    assert_eq!(bits(&[("SPILLWAY_LINK__RATE_MAX", "2Mbit")]), Some(2_000_000));
    assert_eq!(bits(&[("SPILLWAY_LINK__RATE_MAX_FILE", "faster")]), Some(1_000_000));
    let absolute = folder.path("faster");
    assert_eq!(bits(&[("SPILLWAY_LINK__RATE_MAX_FILE", absolute.to_str().unwrap())]), Some(1_000_000));
}

#[test]
fn only_the_value_file_of_the_strongest_layer_is_read() {
    let config = agent("[link]\nrate_max_file = 'nowhere'\n", &[("SPILLWAY_LINK__RATE_MAX", "2Mbit")]);
    assert_eq!(config.link.rate_max.map(BitRate::bits_per_second), Some(2_000_000));
}

#[test]
fn settings_for_librdkafka_are_merged_key_by_key_however_they_are_written() {
    let file = "[kafka.librdkafka]\nsocket.timeout.ms = 1000\n'client.rack' = 'x'\n'ssl.keystore.password_file' = 'secret'\n";
    let folder = Folder::new(&format!("{AGENT}{file}"));
    folder.write("secret", SECRET, 0o600);
    let config = folder.agent(&[("SPILLWAY_KAFKA__LIBRDKAFKA__SOCKET_TIMEOUT_MS", "2000")]).unwrap();
    let passed: Vec<_> = config.kafka.client.librdkafka.iter().collect();
    assert_eq!(passed, [("client.rack", "x"), ("socket.timeout.ms", "2000"), ("ssl.keystore.password", SECRET)]);
    assert!(!format!("{config:?}").contains(SECRET));
}

#[test]
fn a_value_file_for_librdkafka_is_not_read_when_a_variable_wins() {
    let file = "[kafka.librdkafka]\n'socket.timeout.ms_file' = 'nowhere'\n";
    let config = agent(file, &[("SPILLWAY_KAFKA__LIBRDKAFKA__SOCKET_TIMEOUT_MS", "2000")]);
    assert_eq!(config.kafka.client.librdkafka.get("socket.timeout.ms"), Some("2000"));
}

#[test]
fn the_admin_address_is_known_without_the_keys() {
    let folder = Folder::new("[admin]\nlisten = '127.0.0.1:1'\n[tls]\nkey = 'nowhere'\n");
    let path = folder.path("config.toml");
    let load = |environment: &[(&str, &str)]| AdminConfig::load_agent(&path, environment.iter().copied());
    assert_eq!(load(&[]).unwrap().listen, "127.0.0.1:1".parse().ok());
    assert_eq!(load(&[("SPILLWAY_ADMIN__LISTEN", "off")]).unwrap().listen, None);
    assert_eq!(load(&[("SPILLWAY_ADMIN__LISTEN", "on")]).unwrap_err().iter().count(), 1);
    folder.write("config.toml", "", 0o600);
    let none: [(&str, &str); 0] = [];
    assert_eq!(AdminConfig::load_collector(&path, none).unwrap().listen, "127.0.0.1:9611".parse().ok());
}

proptest! {
    /// Whatever is in the file: the answer is a configuration, or at least one problem with a fix.
    #[test]
    fn no_file_makes_the_loader_panic(at in 0..AGENT_REFERENCE.len(), gone in 0..40_usize, new in "\\PC{0,20}") {
        let mut text: Vec<char> = AGENT_REFERENCE.chars().collect();
        let start = at.min(text.len());
        let end = (start + gone).min(text.len());
        text.splice(start..end, new.chars());
        let folder = Folder::new(&text.into_iter().collect::<String>());
        let problems = folder.agent(&[]).unwrap_err();
        prop_assert!(problems.iter().count() > 0);
    }
}

#[test]
fn a_password_is_never_printed() {
    let file = "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'SCRAM-SHA-512'\nsasl_username = 'spillway'\nsasl_password_file = 'password'\n";
    let folder = Folder::new(&format!("{AGENT}{file}"));
    folder.write("password", &format!("{SECRET}\n"), 0o600);
    let config = folder.agent(&[]).unwrap();
    let password = config.kafka.client.sasl_password.as_ref().unwrap();
    assert_eq!(password.reveal(), SECRET);
    assert_eq!(format!("{password} {password:?}"), "*** ***");
    assert!(!format!("{config:#?}").contains(SECRET));
    assert_eq!(config.kafka.client.sasl_mechanism, Some(SaslMechanism::ScramSha512));
    assert_eq!(config.warnings, []);
}

#[test]
fn a_secret_that_others_can_read_is_a_warning() {
    let file = "[kafka]\nsecurity_protocol = 'SASL_SSL'\nsasl_mechanism = 'PLAIN'\nsasl_username = 'u'\nsasl_password = 'hunter2'\n";
    let folder = Folder::new(&format!("{AGENT}{file}"));
    assert_eq!(folder.agent(&[]).unwrap().warnings, []);
    fs::set_permissions(folder.path("own.key"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(folder.path("config.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = folder.agent(&[]).unwrap().warnings;
    let said: Vec<String> =
        warnings.iter().map(|warning| warning.to_string().replace(&folder.path("").display().to_string(), "")).collect();
    assert_eq!(
        said,
        [
            "config.toml:3:48: tls.key: own.key holds a secret and other users may read it\n    fix: chmod o-rwx,g-w own.key",
            "config.toml:8:17: kafka.sasl_password: config.toml holds a secret and other users may read it\n    fix: chmod o-rwx,g-w config.toml",
        ]
    );
    // A group may share a key.
    fs::set_permissions(folder.path("own.key"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(folder.path("config.toml"), fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(folder.agent(&[]).unwrap().warnings, []);
}

#[test]
fn what_kubernetes_says_about_a_service_of_our_name_is_no_setting() {
    let services = [
        ("SPILLWAY_COLLECTOR_SERVICE_HOST", "10.0.0.1"),
        ("SPILLWAY_COLLECTOR_SERVICE_PORT", "4433"),
        ("SPILLWAY_COLLECTOR_PORT", "udp://10.0.0.1:4433"),
        ("SPILLWAY_COLLECTOR_PORT_4433_UDP_ADDR", "10.0.0.1"),
    ];
    assert_eq!(collector("", &services).warnings.len(), services.len());
}

#[test]
fn a_variable_that_is_not_text_is_a_problem() {
    let folder = Folder::new(AGENT);
    let broken = OsString::from_vec(vec![0xff]);
    let environment =
        [(OsString::from("SPILLWAY_SITE"), broken.clone()), (OsString::from("OTHER"), broken.clone()), (broken.clone(), broken)];
    let problems = AgentConfig::load(&folder.path("config.toml"), environment).unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.what.as_str()).collect::<Vec<_>>(), ["not UTF-8"]);
}

#[test]
fn a_file_that_is_not_there_is_one_problem() {
    let none: [(&str, &str); 0] = [];
    let problems = AgentConfig::load(Path::new("/nowhere/agent.toml"), none).unwrap_err();
    assert_eq!(
        problems.to_string(),
        "/nowhere/agent.toml: cannot be read: entity not found\n    fix: name the file with --config; the command `config` prints one to begin with\n1 problem in the configuration"
    );
}

#[test]
fn a_pattern_matches_whole_names_only() {
    let config = agent("[topics]\ninclude = ['a|b.*', '(?i)MiX', '(?x) c  d # a remark']\nexclude = ['bb']\n", &[]);
    let selected = |topic| config.topics.selects(topic);
    assert!(selected("a") && selected("b") && selected("bcd") && selected("mix") && selected("cd"));
    assert!(!selected("ab") && !selected("xa") && !selected("ax") && !selected("bb") && !selected("mixed") && !selected("a\n"));
    let nothing = agent("[topics]\ninclude = []\n", &[]);
    assert!(!nothing.topics.selects("a"));
    let usual = agent("", &[]);
    let excluded = ["x.internal", "x-internal", "x.replica", "__consumer_offsets"];
    assert!(usual.topics.selects("orders") && !excluded.iter().any(|topic| usual.topics.selects(topic)));
}

#[test]
fn a_start_can_be_a_time_in_quotes_or_not() {
    let expected = StartFrom::Time("2026-01-31T06:00:00Z".parse().unwrap());
    assert_eq!(agent("[kafka]\nstart = '2026-01-31T07:00:00+01:00'\n", &[]).kafka.start, expected);
    assert_eq!(agent("[kafka]\nstart = 2026-01-31 07:00:00+01:00\n", &[]).kafka.start, expected);
}

#[test]
fn a_site_has_its_own_file_or_the_default_or_is_unknown() {
    let folder = Folder::new(&format!("{COLLECTOR}[sites]\ndir = 'sites.d'\n"));
    let dir = folder.path("sites.d");
    fs::create_dir(&dir).unwrap();
    let load = |site: &str| SiteFile::load_for(&dir, &SiteName::parse(site).unwrap()).map(|loaded| loaded.map(|(file, _warnings)| file));
    folder.write("sites.d/plant-7.toml", "enabled = false\n", 0o644);
    assert_eq!(load("plant-7"), Ok(Some(SiteFile { enabled: false, settings: SiteSettings::default() })));
    assert_eq!(load("plant-8"), Ok(None));
    folder.write("sites.d/default.toml", "", 0o644);
    assert_eq!(load("plant-8"), Ok(Some(SiteFile { enabled: true, settings: SiteSettings::default() })));
    assert_eq!(load("plant-7"), Ok(Some(SiteFile { enabled: false, settings: SiteSettings::default() })));
    assert_eq!(folder.collector(&[]).unwrap().warnings, []);

    folder.write("sites.d/plant-9.toml", "enabled = 1\n", 0o644);
    folder.write("sites.d/plant 9.toml", "", 0o644);
    folder.write("sites.d/README", "", 0o644);
    assert_eq!(load("plant-9").unwrap_err().iter().count(), 1);
    let config = folder.collector(&[]).unwrap();
    assert_eq!(config.sites.dir.as_ref(), Some(&dir));
    assert_eq!(config.warnings, []);
    let said: Vec<&str> = config.site_problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].contains("not the name of a site") && said[1].contains("must be true or false"), "{said:?}");
}
