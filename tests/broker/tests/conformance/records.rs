//! Records come back as they were sent, or are refused.

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders, Timestamp};

use crate::support::{Got, Put, Target, admin_options, now_ms};

pub(crate) fn null_and_empty_keys_and_values_stay(target: &Target) {
    let topic = target.topic("shapes", 1, &[]);
    let sender = target.producer(&[]);
    let sides: [Option<&[u8]>; 3] = [None, Some(b""), Some(b"\x00\xff binary")];
    for key in sides {
        for value in sides {
            sender.put(&topic, &Put { key, value, ..Put::default() });
        }
    }
    assert_eq!(sender.delivered(), (0..9).collect::<Vec<_>>());
    let got: Vec<_> = target.read(&topic, 0, "read_committed").into_iter().map(|got| (got.key, got.value)).collect();
    let vec = |side: Option<&[u8]>| side.map(<[u8]>::to_vec);
    let sent: Vec<_> = sides.iter().flat_map(|key| sides.iter().map(|value| (vec(*key), vec(*value)))).collect();
    assert_eq!(got, sent);
}

pub(crate) fn duplicate_and_binary_headers_stay(target: &Target) {
    let topic = target.topic("headers", 1, &[]);
    let sender = target.producer(&[]);
    let sent: [(&str, Option<&[u8]>); 5] =
        [("a", Some(b"1")), ("a", Some(b"2")), ("", Some(b"")), ("null", None), ("a", Some(b"\x00\xfe"))];
    let headers = sent.iter().fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: *value }));
    sender.put(&topic, &Put { headers: Some(headers), ..Put::default() });
    let hundred = (0..100).fold(OwnedHeaders::new(), |all, n| all.insert(Header { key: &format!("h{n}"), value: Some("v") }));
    sender.put(&topic, &Put { headers: Some(hundred), ..Put::default() });
    sender.delivered();
    let got = target.read(&topic, 0, "read_committed");
    let sent: Vec<_> = sent.iter().map(|(key, value)| ((*key).to_owned(), value.map(<[u8]>::to_vec))).collect();
    assert_eq!(got[0].headers, sent);
    assert_eq!(got[1].headers.len(), 100);
}

pub(crate) fn create_time_stays(target: &Target) {
    let topic = target.topic("created", 1, &[("retention.ms", "-1")]);
    let sender = target.producer(&[]);
    let times = [1, 1_700_000_000_000, now_ms(), 1_600_000_000_000];
    for timestamp in times {
        sender.put(&topic, &Put { timestamp: Some(timestamp), ..Put::default() });
    }
    sender.delivered();
    let got: Vec<_> = target.read(&topic, 0, "read_committed").into_iter().map(|got| got.timestamp).collect();
    assert_eq!(got, times.map(Timestamp::CreateTime));
}

pub(crate) fn log_append_time_is_the_brokers(target: &Target) {
    let topic = target.topic("appended", 1, &[("message.timestamp.type", "LogAppendTime")]);
    let sender = target.producer(&[]);
    let before = now_ms();
    sender.put(&topic, &Put { timestamp: Some(5), ..Put::default() });
    sender.delivered();
    let got = target.read(&topic, 0, "read_committed");
    match got[0].timestamp {
        Timestamp::LogAppendTime(time) => assert!((before..=now_ms()).contains(&time), "{time}"),
        other => panic!("expected the broker's time, got {other:?}"),
    }
}

pub(crate) fn gzip_batches_stay(target: &Target) {
    compressed(target, "gzip");
}

pub(crate) fn snappy_batches_stay(target: &Target) {
    compressed(target, "snappy");
}

pub(crate) fn lz4_batches_stay(target: &Target) {
    compressed(target, "lz4");
}

pub(crate) fn zstd_batches_stay(target: &Target) {
    compressed(target, "zstd");
}

pub(crate) fn a_too_large_record_is_refused_until_the_topic_takes_it(target: &Target) {
    let topic = target.topic("large", 1, &[("max.message.bytes", "10000")]);
    let sender = target.producer(&[("message.max.bytes", "2000000")]);
    let value = vec![7; 20_000];
    let large = Put { value: Some(&value), ..Put::default() };
    sender.put(&topic, &large);
    assert_eq!(sender.flush(), [Err(RDKafkaErrorCode::MessageSizeTooLarge)]);
    let setting = rdkafka::admin::AlterConfig::new(rdkafka::admin::ResourceSpecifier::Topic(&topic)).set("max.message.bytes", "30000");
    target.runtime.block_on(target.admin().alter_configs([&setting], &admin_options())).unwrap().remove(0).unwrap();
    // Apache Kafka applies a change of settings a moment after it has acknowledged it.
    crate::support::eventually("the larger record is taken", || {
        sender.put(&topic, &large);
        sender.flush() == [Ok(0)]
    });
    assert_eq!(target.read(&topic, 0, "read_committed")[0].value, Some(value));
}

pub(crate) fn a_timestamp_out_of_range_is_refused(target: &Target) {
    let hour = 3_600_000;
    let topic = target.topic("early", 1, &[("message.timestamp.before.max.ms", "3600000")]);
    let sender = target.producer(&[]);
    for (timestamp, outcome) in [
        (now_ms() - 2 * hour, Err(RDKafkaErrorCode::InvalidTimestamp)),
        (now_ms() + 2 * hour, Err(RDKafkaErrorCode::InvalidTimestamp)),
        (now_ms() - hour / 2, Ok(0)),
    ] {
        sender.put(&topic, &Put { timestamp: Some(timestamp), ..Put::default() });
        assert_eq!(sender.flush(), [outcome]);
    }
}

pub(crate) fn a_compacted_topic_wants_keys(target: &Target) {
    let topic = target.topic("compacted", 1, &[("cleanup.policy", "compact")]);
    let sender = target.producer(&[]);
    sender.put(&topic, &Put { value: Some(b"no key"), ..Put::default() });
    assert_eq!(sender.flush(), [Err(RDKafkaErrorCode::InvalidRecord)]);
    sender.put(&topic, &Put { key: Some(b"k"), ..Put::default() });
    assert_eq!(sender.flush(), [Ok(0)]);
}

/// Kafka wants no more replicas in sync than the topic has.
pub(crate) fn one_replica_is_enough_for_all_acks(target: &Target) {
    let topic = target.topic("replicas", 1, &[("min.insync.replicas", "2")]);
    let sender = target.producer(&[("acks", "all")]);
    sender.text(&topic, 0, "all");
    assert_eq!(sender.flush(), [Ok(0)]);
}

fn compressed(target: &Target, codec: &str) {
    let topic = target.topic(codec, 1, &[("message.timestamp.before.max.ms", "7200000")]);
    let sender = target.producer(&[("compression.codec", codec), ("linger.ms", "200")]);
    let start = now_ms() - 3_600_000;
    let values: Vec<_> = (0..50).map(|n| format!("{n} ").repeat(100)).collect();
    for (n, value) in (0..).zip(&values) {
        let put = Put { value: Some(value.as_bytes()), timestamp: Some(start + n), ..Put::default() };
        sender.put(&topic, &put);
    }
    sender.delivered();
    let got = target.read(&topic, 0, "read_committed");
    assert_eq!(got.iter().map(Got::text).collect::<Vec<_>>(), values);
    assert!((0..).zip(&got).all(|(n, got)| got.timestamp == Timestamp::CreateTime(start + n)));
}
