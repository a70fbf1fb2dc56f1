//! `[spill]`, and what a topic does when it is full.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use spillway_config::units::ByteSize;
use spillway_config::{Order, SpillConfig, WhenFull};

use super::{AGENT, Folder, agent};

pub(crate) fn default_spill() -> SpillConfig {
    SpillConfig {
        dir: PathBuf::from("/var/lib/spillway/spill"),
        max_bytes: Some(ByteSize::from_mib(1024)),
        min_free_disk: ByteSize::from_mib(64),
        max_age: None,
        after_bytes: ByteSize::from_mib(16),
        after: Duration::from_secs(10),
        when_full: WhenFull::Block,
        sync_bytes: ByteSize::from_kib(64),
        sync_interval: Duration::from_millis(200),
        key_file: None,
    }
}

#[test]
fn the_spill_can_be_set_by_file_and_variables() {
    let file = "[spill]\ndir = 'waiting'\nmax_bytes = '8MiB'\nmin_free_disk = '0B'\nmax_age = '365d'\nkey_file = 'spill.key'\n";
    let folder = Folder::new(&format!("{AGENT}{file}"));
    fs::write(folder.path("spill.key"), [0xff; 32]).unwrap();
    fs::set_permissions(folder.path("spill.key"), fs::Permissions::from_mode(0o600)).unwrap();
    let with = |environment: &[(&str, &str)]| folder.agent(environment).unwrap_or_else(|problems| panic!("{problems}"));
    let written = SpillConfig {
        dir: folder.path("waiting"),
        max_bytes: Some(ByteSize::from_mib(8)),
        min_free_disk: ByteSize::from_bytes(0),
        max_age: Some(Duration::from_secs(365 * 24 * 60 * 60)),
        key_file: Some(folder.path("spill.key")),
        ..default_spill()
    };
    assert_eq!(with(&[]).spill, written);
    let environment = [
        ("SPILLWAY_SPILL__DIR", "/mnt/spill"),
        ("SPILLWAY_SPILL__MAX_BYTES", "off"),
        ("SPILLWAY_SPILL__MAX_AGE", "unlimited"),
        ("SPILLWAY_SPILL__AFTER_BYTES", "64KiB"),
        ("SPILLWAY_SPILL__AFTER", "100ms"),
        ("SPILLWAY_SPILL__WHEN_FULL", "drop_newest"),
        ("SPILLWAY_SPILL__SYNC_BYTES", "1KiB"),
        ("SPILLWAY_SPILL__SYNC_INTERVAL", "1ms"),
    ];
    let varied = SpillConfig {
        dir: PathBuf::from("/mnt/spill"),
        max_bytes: None,
        max_age: None,
        after_bytes: ByteSize::from_kib(64),
        after: Duration::from_millis(100),
        when_full: WhenFull::DropNewest,
        sync_bytes: ByteSize::from_kib(1),
        sync_interval: Duration::from_millis(1),
        ..written
    };
    assert_eq!(with(&environment).spill, varied);
    assert_eq!(with(&[]).warnings, []);
    fs::set_permissions(folder.path("spill.key"), fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = with(&[]).warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].key.as_deref() == Some("spill.key_file") && warnings[0].what.contains("other users may read it"), "{warnings:?}");
}

#[test]
fn what_happens_when_the_spill_is_full_can_differ_by_topic() {
    let rule = |topics: &str, policy: &str| format!("[[topics.rule]]\nmatch = '{topics}'\n{policy}\n");
    let rules = [
        rule("debug", "when_full = 'drop_newest'"),
        rule("odd", "start = 'latest'"),
        rule("telemetry", "when_full = 'drop_oldest'"),
        rule("metrics", "when_full = 'drop_newest'"),
    ];
    let config = agent(&rules.concat(), &[]);
    let topics = ["debug", "odd", "telemetry", "metrics", "other"];
    let (block, oldest, newest) = (WhenFull::Block, WhenFull::DropOldest, WhenFull::DropNewest);
    assert_eq!(topics.map(|topic| config.when_full_of(topic)), [newest, block, oldest, newest, block]);
    let config = agent(&rules.concat(), &[("SPILLWAY_SPILL__WHEN_FULL", "drop_oldest")]);
    assert_eq!(topics.map(|topic| config.when_full_of(topic)), [newest, oldest, oldest, newest, oldest]);
    let words = [block, oldest, newest].map(WhenFull::as_str);
    assert_eq!(words, ["block", "drop_oldest", "drop_newest"]);
}

#[test]
fn topics_of_another_order_do_not_share_a_flow() {
    let rules = [("live", "live-first"), ("lively", "live-first"), ("inorder", "fifo")];
    let rules = rules.map(|(topics, order)| format!("[[topics.rule]]\nmatch = '{topics}'\norder = '{order}'\n"));
    let config = agent(&rules.concat(), &[]);
    let flow_of = config.flow_of();
    assert_eq!(["other", "live", "lively", "inorder"].map(&flow_of), [0, 1, 1, 0]);
    assert_eq!(config.flows().iter().map(|flow| flow.order).collect::<Vec<_>>(), [Order::Fifo, Order::LiveFirst]);
}

#[test]
fn topics_with_the_same_rules_share_a_flow() {
    let rule = |topics: &str, keys: &str| format!("[[topics.rule]]\nmatch = '{topics}'\n{keys}\n");
    let rules = [
        rule("alarms", "class = 0\nwhen_full = 'drop_oldest'"),
        rule("trips", "when_full = 'drop_oldest'\nclass = 0"),
        rule("one", "weight = 1"),
        rule("two", "weight = 1"),
        rule("capped", "class = 3\nrate_max = '64kbit'"),
        rule("odd", "start = 'latest'"),
        rule("free", "rate_max = 'unlimited'\nclass = 3"),
        rule("short", "ttl = '10m'"),
        rule("brief", "class = 2\nttl = '600s'"),
    ];
    let config = agent(&rules.concat(), &[]);
    let (flows, flow_of) = (config.flows(), config.flow_of());
    let topics = ["other", "odd", "alarms", "trips", "one", "two", "capped", "free", "short", "brief"];
    assert_eq!(topics.map(&flow_of), [0, 0, 1, 1, 2, 3, 4, 5, 6, 6]);
    let times = flows.iter().map(|flow| flow.ttl.map(|ttl| ttl.as_secs()));
    assert_eq!(times.collect::<Vec<_>>(), [None, None, None, None, None, None, Some(600)]);
    let shown = flows.iter().map(|flow| (flow.class, flow.weight, flow.rate_max.map(|rate| rate.bits_per_second()), flow.when_full));
    let (block, oldest) = (WhenFull::Block, WhenFull::DropOldest);
    let expected = [
        (2, 1, None, block),
        (0, 1, None, oldest),
        (2, 1, None, block),
        (2, 1, None, block),
        (3, 1, Some(64_000), block),
        (3, 1, None, block),
        (2, 1, None, block),
    ];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
}
