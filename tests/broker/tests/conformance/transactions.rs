//! Transactions: what is seen when, who is fenced, and where markers go.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Got, PATIENCE, Put, Sender, Target, assign, eventually, now_ms, to_the_end};

pub(crate) fn committed_is_seen_and_aborted_is_not(target: &Target) {
    let topic = target.topic("outcome", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    for (value, commit) in [("a", false), ("b", true), ("c", false), ("d", true)] {
        transact(&sender, &topic, value, commit);
    }
    target.expect_committed(&topic, 0, &["b", "d"]);
    let all: Vec<_> = target.read(&topic, 0, "read_uncommitted").iter().map(Got::text).collect();
    assert_eq!(all, ["a", "b", "c", "d"]);
}

pub(crate) fn markers_take_an_offset(target: &Target) {
    let topic = target.topic("markers", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    transact(&sender, &topic, "a", true);
    target.expect_watermarks(&topic, 0, "read_uncommitted", (0, 2));
    transact(&sender, &topic, "b", false);
    transact(&sender, &topic, "c", true);
    target.expect_watermarks(&topic, 0, "read_committed", (0, 6));
    let offsets: Vec<_> = target.read(&topic, 0, "read_committed").iter().map(|got| got.offset).collect();
    assert_eq!(offsets, [0, 4]);
    // A transaction without records writes no marker.
    sender.begin();
    sender.commit();
    target.expect_watermarks(&topic, 0, "read_committed", (0, 6));
}

pub(crate) fn an_open_transaction_hides_what_follows(target: &Target) {
    let topic = target.topic("hides", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    let other = target.producer(&[]);
    other.text(&topic, 0, "before");
    other.delivered();
    sender.begin();
    sender.text(&topic, 0, "open");
    sender.delivered();
    other.text(&topic, 0, "after");
    other.delivered();
    target.expect_committed(&topic, 0, &["before"]);
    target.expect_watermarks(&topic, 0, "read_committed", (0, 1));
    target.expect_watermarks(&topic, 0, "read_uncommitted", (0, 3));

    // A consumer that waits at the last stable offset sees the rest as soon as the transaction ends.
    let consumer = target.consumer(&[("isolation.level", "read_committed"), ("fetch.wait.max.ms", "8000")]);
    assign(&consumer, &topic, 0, Offset::Offset(1));
    assert!(matches!(consumer.poll(PATIENCE), Some(Err(KafkaError::PartitionEOF(0)))));
    sender.commit();
    let next = || Got::of(&consumer.poll(Duration::from_secs(4)).expect("the commit wakes the fetch").unwrap()).text();
    assert_eq!([next(), next()], ["open", "after"]);
}

pub(crate) fn a_second_producer_fences_the_first(target: &Target) {
    let topic = target.topic("fences", 1, &[]);
    let id = target.name("txn");
    let first = target.transactional(&id);
    first.begin();
    first.text(&topic, 0, "first");
    first.delivered();
    let second = target.transactional(&id);
    target.expect_committed(&topic, 0, &[""; 0]);
    target.expect_watermarks(&topic, 0, "read_committed", (0, 2));
    first.text(&topic, 0, "zombie");
    let outcome = first.flush();
    assert!(outcome[0].is_err(), "{outcome:?}");
    let error = first.producer.commit_transaction(PATIENCE).unwrap_err();
    assert!(is_fatal(&first, &error), "{error}");
    transact(&second, &topic, "second", true);
    target.expect_committed(&topic, 0, &["second"]);
}

/// The marker of the fencing abort bears an epoch of its own. If it did not reset the sequence numbers, the first batches
/// of the next producer would pass for repetitions: a committed transaction without data.
pub(crate) fn an_epoch_after_an_abort_by_fencing_has_its_data(target: &Target) {
    let topic = target.topic("epochs", 1, &[]);
    let id = target.name("txn");
    let mut abandoned = Vec::new();
    for round in 0..4 {
        let sender = target.transactional(&id);
        transact(&sender, &topic, &format!("kept {round}"), true);
        sender.begin();
        for n in 0..3 {
            sender.text(&topic, 0, &format!("lost {round}.{n}"));
            sender.delivered();
        }
        abandoned.push(sender);
    }
    let last = target.transactional(&id);
    transact(&last, &topic, "last", true);
    target.expect_committed(&topic, 0, &["kept 0", "kept 1", "kept 2", "kept 3", "last"]);
}

pub(crate) fn many_transactions_of_one_producer(target: &Target) {
    let topic = target.topic("sequence", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    let mut kept = Vec::new();
    for n in 0..12 {
        let commit = n % 3 != 1;
        sender.begin();
        for record in 0..5 {
            let value = format!("{n}.{record}");
            sender.text(&topic, 0, &value);
            kept.extend(commit.then_some(value));
        }
        if commit { sender.commit() } else { sender.abort() }
    }
    target.expect_committed(&topic, 0, &kept);
}

pub(crate) fn a_transaction_spans_partitions(target: &Target) {
    let (one, two) = (target.topic("one", 2, &[]), target.topic("two", 1, &[]));
    let sender = target.transactional(&target.name("txn"));
    let places = [(&one, 0), (&one, 1), (&two, 0)];
    for (value, commit) in [("a", true), ("b", false), ("c", true)] {
        sender.begin();
        for (topic, partition) in places {
            sender.text(topic, partition, value);
        }
        if commit { sender.commit() } else { sender.abort() }
    }
    for (topic, partition) in places {
        target.expect_committed(topic, partition, &["a", "c"]);
        target.expect_watermarks(topic, partition, "read_committed", (0, 6));
    }
}

pub(crate) fn offsets_are_committed_with_the_transaction(target: &Target) {
    let topic = target.topic("consumed", 1, &[]);
    let consumer = target.consumer(&[]);
    let sender = target.transactional(&target.name("txn"));
    assert_eq!(committed_offset(&consumer, &topic), Offset::Invalid);
    for (offset, commit, expected) in [(3, true, 3), (7, false, 3), (8, true, 8)] {
        sender.begin();
        send_offset(&sender, &consumer, &topic, offset).unwrap();
        if commit {
            sender.commit()
        } else {
            sender.abort()
        }
        assert_eq!(committed_offset(&consumer, &topic), Offset::Offset(expected));
    }
}

pub(crate) fn a_transaction_times_out(target: &Target) {
    let topic = target.topic("timeout", 1, &[]);
    let id = target.name("txn");
    let settings = [
        ("transactional.id", id.as_str()),
        ("transaction.timeout.ms", "1500"),
        ("message.timeout.ms", "1500"),
        ("socket.timeout.ms", "1500"),
    ];
    let sender = target.producer(&settings);
    sender.producer.init_transactions(PATIENCE).unwrap();
    sender.begin();
    sender.text(&topic, 0, "late");
    sender.delivered();
    eventually("the transaction is aborted", || target.watermarks(&topic, 0, "read_committed") == (0, 2));
    let error = sender.producer.commit_transaction(PATIENCE).unwrap_err();
    assert!(is_fatal(&sender, &error), "{error}");
    let next = target.transactional(&id);
    transact(&next, &topic, "next", true);
    target.expect_committed(&topic, 0, &["next"]);
}

pub(crate) fn an_open_transaction_bounds_the_search_by_time(target: &Target) {
    let topic = target.topic("bounds", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    let time = now_ms();
    sender.begin();
    sender.put(&topic, &Put { timestamp: Some(time), ..Put::default() });
    sender.delivered();
    let find = |isolation| {
        let consumer = target.consumer(&[("isolation.level", isolation)]);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(time)).unwrap();
        consumer.offsets_for_times(list, PATIENCE).unwrap().elements()[0].offset()
    };
    assert_eq!(find("read_uncommitted"), Offset::Offset(0));
    assert_eq!(find("read_committed"), Offset::End);
    sender.commit();
    eventually("the committed record is found", || find("read_committed") == Offset::Offset(0));
}

pub(crate) fn records_in_the_middle_of_an_aborted_transaction_stay_hidden(target: &Target) {
    let topic = target.topic("middle", 1, &[]);
    let sender = target.transactional(&target.name("txn"));
    sender.begin();
    for n in 0..10 {
        sender.text(&topic, 0, &format!("aborted {n}"));
        sender.delivered();
    }
    sender.abort();
    transact(&sender, &topic, "kept", true);
    target.expect_committed(&topic, 0, &["kept"]);
    for start in [0, 3, 9, 10, 11] {
        let got = target.read_from(&topic, 0, Offset::Offset(start), "read_committed");
        assert_eq!(got.iter().map(Got::text).collect::<Vec<_>>(), ["kept"], "from {start}");
    }
}

/// librdkafka leaves a hole in the sequence numbers where the refused record was: the next transaction fails, too. With its
/// abort the client claims its identity for a new epoch, and then goes on.
pub(crate) fn a_refused_record_aborts_and_the_producer_goes_on(target: &Target) {
    let topic = target.topic("refused", 1, &[("max.message.bytes", "10000")]);
    let sender = target.producer(&[("transactional.id", &target.name("txn")), ("message.max.bytes", "2000000")]);
    sender.producer.init_transactions(PATIENCE).unwrap();
    for round in 0..3 {
        sender.begin();
        sender.text(&topic, 0, &format!("lost {round}"));
        sender.delivered();
        sender.put(&topic, &Put { value: Some(&[0; 20_000]), ..Put::default() });
        assert_eq!(sender.flush(), [Err(RDKafkaErrorCode::MessageSizeTooLarge)]);
        assert!(!sender.commit_or_abort());
        let committed = (0..2).any(|_| {
            sender.begin();
            sender.text(&topic, 0, &format!("kept {round}"));
            sender.flush();
            sender.commit_or_abort()
        });
        assert!(committed, "the second attempt in round {round}");
    }
    target.expect_committed(&topic, 0, &["kept 0", "kept 1", "kept 2"]);
}

pub(crate) fn transactional_offsets_need_the_current_generation(target: &Target) {
    let topic = target.topic("generation", 1, &[]);
    let consumer = target.consumer(&[("auto.offset.reset", "earliest")]);
    consumer.subscribe(&[&topic]).unwrap();
    to_the_end(&consumer, 1);
    let metadata = consumer.group_metadata().unwrap();
    let sender = target.transactional(&target.name("txn"));
    let send = |offset| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&topic, 0, Offset::Offset(offset)).unwrap();
        sender.producer.send_offsets_to_transaction(&list, &metadata, PATIENCE)
    };
    sender.begin();
    send(1).unwrap();
    sender.commit();
    consumer.unsubscribe();
    assert!(consumer.poll(Duration::from_millis(500)).is_none());
    sender.begin();
    eventually("the member that left is refused", || match send(2) {
        Ok(()) => false,
        Err(KafkaError::Transaction(error)) => error.txn_requires_abort(),
        Err(error) => panic!("{error}"),
    });
    sender.abort();
}

fn transact(sender: &Sender, topic: &str, value: &str, commit: bool) {
    sender.begin();
    sender.text(topic, 0, value);
    if commit {
        sender.commit()
    } else {
        sender.abort()
    }
    sender.delivered();
}

fn is_fatal(sender: &Sender, error: &KafkaError) -> bool {
    let fatal = sender.producer.client().fatal_error().map(|(code, _)| code);
    let fenced = [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
    matches!(error, KafkaError::Transaction(error) if error.is_fatal()) && fatal.is_some_and(|code| fenced.contains(&code))
}

fn committed_offset(consumer: &BaseConsumer, topic: &str) -> Offset {
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, 0);
    consumer.committed_offsets(list, PATIENCE).unwrap().elements()[0].offset()
}

fn send_offset(sender: &Sender, consumer: &BaseConsumer, topic: &str, offset: i64) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))?;
    sender.producer.send_offsets_to_transaction(&list, &consumer.group_metadata().unwrap(), PATIENCE)
}
