//! Topics and their settings.

use rdkafka::admin::{AlterConfig, ConfigSource, NewPartitions, ResourceSpecifier};
use rdkafka::consumer::Consumer;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::metadata::MetadataBroker;

use crate::ffi::{Change, alter_incrementally, newest_offset, topic_id};
use crate::support::{PATIENCE, Put, Target, admin_options, eventually, now_ms};

pub(crate) fn a_topic_made_anew_has_another_id(target: &Target) {
    let topic = target.topic("anew", 1, &[]);
    let admin = target.admin();
    let sender = target.producer(&[]);
    sender.text(&topic, 0, "old");
    sender.delivered();
    let first = topic_id(&admin, &topic).unwrap();
    assert_eq!(topic_id(&admin, &topic).unwrap(), first);
    delete(target, &topic).unwrap();
    assert_eq!(delete(target, &topic), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    // Apache Kafka removes the files of a deleted topic a moment later.
    eventually("the topic can be made anew", || target.create(&topic, 2, &[]).is_ok());
    let second = topic_id(&target.admin(), &topic).unwrap();
    assert_ne!(first, second);
    target.expect_watermarks(&topic, 0, "read_committed", (0, 0));
}

pub(crate) fn topics_that_cannot_be_are_refused(target: &Target) {
    let topic = target.topic("taken.name", 1, &[]);
    let refusals = [
        (topic.clone(), 1, RDKafkaErrorCode::TopicAlreadyExists),
        (topic.replace("taken.name", "taken_name"), 1, RDKafkaErrorCode::InvalidTopic),
        ("not/a/name".to_owned(), 1, RDKafkaErrorCode::InvalidTopic),
        (target.name("no-partitions"), 0, RDKafkaErrorCode::InvalidPartitions),
    ];
    for (name, partitions, code) in refusals {
        assert_eq!(target.create(&name, partitions, &[]), Err(code), "{name}");
    }
    let unknown = target.create(&target.name("setting"), 1, &[("retention.hours", "1")]);
    assert_eq!(unknown, Err(RDKafkaErrorCode::InvalidConfig));
}

pub(crate) fn partitions_are_added_and_never_removed(target: &Target) {
    let topic = target.topic("grows", 1, &[]);
    let sender = target.producer(&[]);
    sender.text(&topic, 0, "kept");
    sender.delivered();
    assert_eq!(grow(target, &topic, 3), Ok(()));
    assert_eq!(grow(target, &topic, 2), Err(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(grow(target, &topic, 3), Err(RDKafkaErrorCode::InvalidPartitions));
    assert_eq!(grow(target, &target.name("missing"), 3), Err(RDKafkaErrorCode::UnknownTopicOrPartition));
    eventually("the partitions are there", || partitions(target, &topic) == 3);
    sender.text(&topic, 0, "still");
    sender.delivered();
    target.expect_committed(&topic, 0, &["kept", "still"]);
    let fresh = target.producer(&[]);
    fresh.text(&topic, 2, "new");
    fresh.delivered();
    target.expect_committed(&topic, 2, &["new"]);
}

pub(crate) fn topics_have_kafkas_defaults(target: &Target) {
    let topic = target.topic("defaults", 1, &[("retention.ms", "1000000")]);
    let found = settings(target, &topic);
    let value = |name: &str| found.iter().find(|(key, ..)| key == name).unwrap_or_else(|| panic!("{name} is missing"));
    for (name, default) in DEFAULTS {
        let source = match *name {
            "min.insync.replicas" => ConfigSource::DynamicDefaultBroker,
            _ => ConfigSource::Default,
        };
        assert_eq!(value(name), &((*name).to_owned(), (*default).to_owned(), source));
    }
    let given = ("retention.ms".to_owned(), "1000000".to_owned(), ConfigSource::DynamicTopic);
    assert_eq!(value("retention.ms"), &given);
    let known: Vec<_> = DEFAULTS.iter().map(|(name, _)| *name).chain(["retention.ms"]).collect();
    let unknown: Vec<_> = found.iter().filter(|(name, ..)| !known.contains(&name.as_str())).collect();
    assert!(unknown.is_empty(), "settings that the embedded broker lacks: {unknown:?}");
}

pub(crate) fn settings_are_replaced(target: &Target) {
    let topic = target.topic("replaced", 1, &[("retention.ms", "1000000"), ("cleanup.policy", "compact")]);
    let change = AlterConfig::new(ResourceSpecifier::Topic(&topic)).set("retention.ms", "2000000");
    target.runtime.block_on(target.admin().alter_configs([&change], &admin_options())).unwrap().remove(0).unwrap();
    eventually("the older way resets what it does not name", || {
        given(target, &topic) == [("retention.ms".to_owned(), "2000000".to_owned())]
    });
}

pub(crate) fn settings_are_changed_one_by_one(target: &Target) {
    let topic = target.topic("changed", 1, &[("retention.ms", "1000000")]);
    let admin = target.admin();
    let change = |change, name, value, expected: &[(&str, &str)]| {
        assert_eq!(alter_incrementally(&admin, &topic, change, name, value), Ok(()));
        let expected: Vec<_> = expected.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        eventually(name, || given(target, &topic) == expected);
    };
    let segment = ("segment.bytes", "2000000");
    change(Change::Set, "segment.bytes", "2000000", &[("retention.ms", "1000000"), segment]);
    change(Change::Delete, "retention.ms", "", &[segment]);
    change(Change::Append, "cleanup.policy", "compact", &[("cleanup.policy", "delete,compact"), segment]);
    change(Change::Subtract, "cleanup.policy", "delete", &[("cleanup.policy", "compact"), segment]);
}

pub(crate) fn settings_that_cannot_be_are_refused(target: &Target) {
    let topic = target.topic("refused", 1, &[]);
    let admin = target.admin();
    for (name, value) in [
        ("retention.hours", "1"),
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("cleanup.policy", "burn"),
        ("message.timestamp.type", "Never"),
        ("min.cleanable.dirty.ratio", "2"),
        ("min.insync.replicas", "0"),
    ] {
        let refused = alter_incrementally(&admin, &topic, Change::Set, name, value);
        assert_eq!(refused, Err(RDKafkaErrorCode::InvalidConfig), "{name}={value}");
    }
    assert_eq!(
        alter_incrementally(&admin, &target.name("missing"), Change::Set, "retention.ms", "1"),
        Err(RDKafkaErrorCode::UnknownTopicOrPartition)
    );
    assert_eq!(given(target, &topic), []);
}

pub(crate) fn asking_for_a_topic_creates_it(target: &Target) {
    let topic = target.name("asked");
    // The first questions of a producer may come before Apache Kafka has made the topic; the client asks again.
    let sender = target.producer(&[]);
    sender.text(&topic, 0, "first");
    assert_eq!(sender.flush(), [Ok(0)]);
    // A consumer does not create topics unless it says so.
    let missing = target.name("unasked");
    let consumer = target.consumer(&[]);
    let metadata = consumer.fetch_metadata(Some(&missing), PATIENCE).unwrap();
    let code = metadata.topics()[0].error().map(RDKafkaErrorCode::from);
    assert_eq!(code, Some(RDKafkaErrorCode::UnknownTopicOrPartition));
}

pub(crate) fn the_cluster_has_an_id(target: &Target) {
    let admin = target.admin();
    let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
    let address = |broker: &MetadataBroker| format!("{}:{}", broker.host(), broker.port()).replace("localhost", "127.0.0.1");
    let addresses: Vec<_> = metadata.brokers().iter().map(address).collect();
    for bootstrap in target.bootstrap.split(',') {
        assert!(addresses.contains(&bootstrap.replace("localhost", "127.0.0.1")), "{bootstrap} is not in {addresses:?}");
    }
    let id = admin.inner().fetch_cluster_id(PATIENCE).unwrap();
    assert_eq!(id.len(), 22, "{id}");
}

pub(crate) fn the_newest_record_is_found(target: &Target) {
    let topic = target.topic("newest", 1, &[]);
    let admin = target.admin();
    assert_eq!(newest_offset(&admin, &topic), Ok(-1));
    let sender = target.producer(&[("linger.ms", "200")]);
    let start = now_ms();
    for time in [3, 1, 7, 7, 2] {
        sender.put(&topic, &Put { timestamp: Some(start + time), ..Put::default() });
    }
    sender.delivered();
    assert_eq!(newest_offset(&admin, &topic), Ok(2));
}

/// What Apache Kafka 4.3 shows for a topic of which nothing was said.
const DEFAULTS: &[(&str, &str)] = &[
    ("cleanup.policy", "delete"),
    ("compression.gzip.level", "-1"),
    ("compression.lz4.level", "9"),
    ("compression.type", "producer"),
    ("compression.zstd.level", "3"),
    ("delete.retention.ms", "86400000"),
    ("file.delete.delay.ms", "60000"),
    ("flush.messages", "9223372036854775807"),
    ("flush.ms", "9223372036854775807"),
    ("follower.replication.throttled.replicas", ""),
    ("index.interval.bytes", "4096"),
    ("leader.replication.throttled.replicas", ""),
    ("local.retention.bytes", "-2"),
    ("local.retention.ms", "-2"),
    ("max.compaction.lag.ms", "9223372036854775807"),
    ("max.message.bytes", "1048588"),
    ("message.timestamp.after.max.ms", "3600000"),
    ("message.timestamp.before.max.ms", "9223372036854775807"),
    ("message.timestamp.type", "CreateTime"),
    ("min.cleanable.dirty.ratio", "0.5"),
    ("min.compaction.lag.ms", "0"),
    ("min.insync.replicas", "1"),
    ("preallocate", "false"),
    ("remote.log.copy.disable", "false"),
    ("remote.log.delete.on.disable", "false"),
    ("remote.storage.enable", "false"),
    ("retention.bytes", "-1"),
    ("segment.bytes", "1073741824"),
    ("segment.index.bytes", "10485760"),
    ("segment.jitter.ms", "0"),
    ("segment.ms", "604800000"),
    ("unclean.leader.election.enable", "false"),
];

/// Every setting of a topic: name, value, and where it comes from.
fn settings(target: &Target, topic: &str) -> Vec<(String, String, ConfigSource)> {
    let specifier = [ResourceSpecifier::Topic(topic)];
    let admin = target.admin();
    let mut described = target.runtime.block_on(admin.describe_configs(&specifier, &admin_options())).unwrap();
    let entries = described.remove(0).unwrap().entries;
    entries.into_iter().map(|entry| (entry.name, entry.value.unwrap_or_default(), entry.source)).collect()
}

/// The settings that the topic was given.
fn given(target: &Target, topic: &str) -> Vec<(String, String)> {
    let mut given: Vec<_> = settings(target, topic)
        .into_iter()
        .filter(|(_, _, source)| *source == ConfigSource::DynamicTopic)
        .map(|(name, value, _)| (name, value))
        .collect();
    given.sort();
    given
}

fn delete(target: &Target, topic: &str) -> Result<(), RDKafkaErrorCode> {
    let deleted = target.runtime.block_on(target.admin().delete_topics(&[topic], &admin_options()));
    deleted.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
}

fn grow(target: &Target, topic: &str, count: usize) -> Result<(), RDKafkaErrorCode> {
    let wanted = NewPartitions::new(topic, count);
    let grown = target.runtime.block_on(target.admin().create_partitions([&wanted], &admin_options()));
    grown.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
}

fn partitions(target: &Target, topic: &str) -> usize {
    let consumer = target.consumer(&[]);
    consumer.fetch_metadata(Some(topic), PATIENCE).unwrap().topics()[0].partitions().len()
}
