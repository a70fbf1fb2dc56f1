//! Where reading starts, what it waits for, and what is gone.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Got, PATIENCE, Put, Target, admin_options, assign, by_partition, now_ms, to_the_end};

pub(crate) fn reading_starts_inside_a_batch(target: &Target) {
    let topic = target.topic("inside", 1, &[]);
    one_batch(target, &topic, "none", 0);
    for start in [0, 1, 5, 9] {
        let got = target.read_from(&topic, 0, Offset::Offset(start), "read_committed");
        assert_eq!(got.iter().map(|got| got.offset).collect::<Vec<_>>(), (start..10).collect::<Vec<_>>());
    }
}

pub(crate) fn a_batch_beyond_the_fetch_size_comes_through(target: &Target) {
    let topic = target.topic("beyond", 1, &[]);
    let sender = target.producer(&[]);
    let value = vec![b'x'; 50_000];
    for _ in 0..3 {
        sender.put(&topic, &Put { value: Some(&value), ..Put::default() });
        sender.delivered();
    }
    let consumer = target.consumer(&[("max.partition.fetch.bytes", "1000"), ("fetch.max.bytes", "1000"), ("message.max.bytes", "1000")]);
    assign(&consumer, &topic, 0, Offset::Beginning);
    assert_eq!(to_the_end(&consumer, 1).len(), 3);
}

pub(crate) fn a_waiting_fetch_wakes(target: &Target) {
    let topic = target.topic("wakes", 1, &[]);
    let wait = Duration::from_secs(8);
    let consumer = target.consumer(&[("fetch.wait.max.ms", "8000")]);
    assign(&consumer, &topic, 0, Offset::Beginning);
    // The end of the partition shows that the consumer fetches; the next fetch then waits.
    assert!(matches!(consumer.poll(PATIENCE), Some(Err(KafkaError::PartitionEOF(0)))));
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    let sender = target.producer(&[]);
    sender.text(&topic, 0, "news");
    sender.delivered();
    let got = consumer.poll(wait / 2).expect("the fetch was answered before its time was up").unwrap();
    assert_eq!(Got::of(&got).text(), "news");
    assert!(start.elapsed() < wait / 2);
}

pub(crate) fn times_are_found(target: &Target) {
    find_times(target, "none");
}

pub(crate) fn times_are_found_in_compressed_batches(target: &Target) {
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        find_times(target, codec);
    }
}

pub(crate) fn deleted_records_are_out_of_range(target: &Target) {
    let topic = target.topic("deleted", 1, &[]);
    one_batch(target, &topic, "none", 0);
    delete_below(target, &topic, Offset::Offset(4)).unwrap();
    target.expect_watermarks(&topic, 0, "read_committed", (4, 10));
    let got = target.read(&topic, 0, "read_committed");
    assert_eq!(got.first().map(|got| got.offset), Some(4));
    assert_eq!(find(&target.consumer(&[]), &topic, 0), Offset::Offset(4), "deleted records are not found by their time");

    let strict = target.consumer(&[]);
    assign(&strict, &topic, 0, Offset::Offset(3));
    let error = strict.poll(PATIENCE).unwrap().map(|got| Got::of(&got)).unwrap_err();
    assert_eq!(error, KafkaError::MessageConsumption(RDKafkaErrorCode::AutoOffsetReset));

    let lenient = target.consumer(&[("auto.offset.reset", "earliest")]);
    assign(&lenient, &topic, 0, Offset::Offset(3));
    assert_eq!(to_the_end(&lenient, 1).len(), 6);

    delete_below(target, &topic, Offset::End).unwrap();
    target.expect_watermarks(&topic, 0, "read_committed", (10, 10));
    one_batch(target, &topic, "none", 0);
    assert_eq!(target.read(&topic, 0, "read_committed").first().map(|got| got.offset), Some(10));
}

pub(crate) fn records_cannot_be_deleted_beyond_the_end(target: &Target) {
    let topic = target.topic("undeleted", 1, &[]);
    one_batch(target, &topic, "none", 0);
    assert_eq!(delete_below(target, &topic, Offset::Offset(11)), Err(RDKafkaErrorCode::OffsetOutOfRange));
    let compacted = target.topic("kept", 1, &[("cleanup.policy", "compact")]);
    assert_eq!(delete_below(target, &compacted, Offset::End), Err(RDKafkaErrorCode::PolicyViolation));
}

pub(crate) fn every_partition_is_read(target: &Target) {
    let topic = target.topic("many", 5, &[]);
    let sender = target.producer(&[]);
    for n in 0..100 {
        sender.text(&topic, n % 5, &n.to_string());
    }
    sender.delivered();
    let consumer = target.consumer(&[]);
    let mut list = TopicPartitionList::new();
    list.add_partition_range(&topic, 0, 4);
    list.set_all_offsets(Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    let got = by_partition(to_the_end(&consumer, 5));
    for partition in 0..5 {
        let sent: Vec<_> = (0..100).filter(|n| n % 5 == partition).map(|n: i32| n.to_string()).collect();
        assert_eq!(got[&partition], sent);
    }
}

/// Ten records in one batch, ten milliseconds apart from `start` on; 0 is now.
fn one_batch(target: &Target, topic: &str, codec: &str, start: i64) {
    let start = if start == 0 { now_ms() } else { start };
    let sender = target.producer(&[("linger.ms", "300"), ("compression.codec", codec)]);
    for n in 0..10 {
        let value = format!("{n} ").repeat(50);
        sender.put(topic, &Put { value: Some(value.as_bytes()), timestamp: Some(start + 10 * n), ..Put::default() });
    }
    sender.delivered();
}

fn find_times(target: &Target, codec: &str) {
    let topic = target.topic("times", 1, &[]);
    let first = now_ms() - 1_000_000;
    one_batch(target, &topic, codec, first);
    one_batch(target, &topic, codec, first + 1_000);
    let consumer = target.consumer(&[]);
    for (time, offset) in [
        (first - 5, Offset::Offset(0)),
        (first, Offset::Offset(0)),
        (first + 1, Offset::Offset(1)),
        (first + 90, Offset::Offset(9)),
        (first + 91, Offset::Offset(10)),
        (first + 1_055, Offset::Offset(16)),
        (first + 1_091, Offset::End),
    ] {
        assert_eq!(find(&consumer, &topic, time), offset, "{codec}, {} ms after the first", time - first);
    }
}

/// The offset of the first record at or after a time.
fn find(consumer: &BaseConsumer, topic: &str, time: i64) -> Offset {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(time)).unwrap();
    consumer.offsets_for_times(list, PATIENCE).unwrap().elements()[0].offset()
}

fn delete_below(target: &Target, topic: &str, offset: Offset) -> Result<(), RDKafkaErrorCode> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, offset).unwrap();
    let deleted = target.runtime.block_on(target.admin().delete_records(&list, &admin_options())).unwrap();
    match deleted.elements()[0].error() {
        Ok(()) => Ok(()),
        Err(error) => Err(error.rdkafka_error_code().unwrap()),
    }
}
