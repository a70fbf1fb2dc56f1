//! Consumer groups: offsets, members, rebalances.

use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use crate::ffi::{delete_group_offset, describe_group};
use crate::support::{Got, PATIENCE, Target, admin_options, assign, eventually, to_the_end};

pub(crate) fn offsets_are_kept_without_joining(target: &Target) {
    let topic = target.topic("offsets", 2, &[]);
    let sender = target.producer(&[]);
    for n in 0..5 {
        sender.text(&topic, 0, &n.to_string());
    }
    sender.delivered();
    let group = target.name("group");
    let consumer = target.consumer(&[("group.id", &group)]);
    assert_eq!(committed(&consumer, &topic), [Offset::Invalid, Offset::Invalid]);
    assign(&consumer, &topic, 0, Offset::Beginning);
    assert_eq!(to_the_end(&consumer, 1).len(), 5);
    commit(&consumer, &topic, 3).unwrap();
    commit(&consumer, &topic, 4).unwrap();
    let other = target.consumer(&[("group.id", &group)]);
    assert_eq!(committed(&other, &topic), [Offset::Offset(4), Offset::Invalid]);
    // The lag that tools show: the end minus what is committed.
    assert_eq!(target.watermarks(&topic, 0, "read_committed").1 - 4, 1);
    assign(&other, &topic, 0, Offset::Stored);
    assert_eq!(to_the_end(&other, 1).iter().map(Got::text).collect::<Vec<_>>(), ["4"]);
}

pub(crate) fn a_group_shares_the_partitions(target: &Target) {
    share(target, "range");
}

pub(crate) fn a_cooperative_group_shares_the_partitions(target: &Target) {
    share(target, "cooperative-sticky");
}

pub(crate) fn groups_are_listed_and_described(target: &Target) {
    let topic = target.topic("listed", 1, &[]);
    let group = target.name("group");
    let consumer = member(target, &group, &topic, &[("client.id", "the-client")]);
    wait_for_partitions(&[&consumer], 1);
    let metadata = target.admin();
    let list = metadata.inner().fetch_group_list(Some(&group), PATIENCE).unwrap();
    assert_eq!(list.groups().len(), 1);
    let found = &list.groups()[0];
    assert_eq!((found.name(), found.state(), found.protocol_type()), (group.as_str(), "Stable", "consumer"));
    assert_eq!(found.protocol(), "range");
    assert_eq!(found.members().len(), 1);
    assert_eq!(found.members()[0].client_id(), "the-client");
    assert!(found.members()[0].id().starts_with("the-client-"));
    assert!(found.members()[0].assignment().is_some_and(|assignment| !assignment.is_empty()));
    assert_eq!(describe_group(&metadata, &group), Ok(("Stable".to_owned(), "range".to_owned(), 1)));
    let all = metadata.inner().fetch_group_list(None, PATIENCE).unwrap();
    assert!(all.groups().iter().any(|found| found.name() == group));
    consumer.unsubscribe();
    poll_for(&[&consumer], Duration::from_millis(300));
    eventually("the group is empty", || state(target, &group) == "Empty");
    assert!(["Dead", ""].contains(&state(target, &target.name("unknown")).as_str()));
}

pub(crate) fn groups_are_deleted_when_empty(target: &Target) {
    let topic = target.topic("undeleted", 1, &[]);
    let group = target.name("group");
    let consumer = member(target, &group, &topic, &[]);
    wait_for_partitions(&[&consumer], 1);
    let admin = target.admin();
    let delete = |group: &str| delete(target, &admin, group);
    assert_eq!(delete(&group), Err(RDKafkaErrorCode::NonEmptyGroup));
    consumer.unsubscribe();
    poll_for(&[&consumer], Duration::from_millis(300));
    eventually("the empty group is deleted", || delete(&group) == Ok(()));
    assert_eq!(delete(&group), Err(RDKafkaErrorCode::GroupIdNotFound));
}

pub(crate) fn strangers_cannot_commit_for_a_live_group(target: &Target) {
    let topic = target.topic("strangers", 1, &[]);
    let group = target.name("group");
    let stranger = target.consumer(&[("group.id", &group)]);
    assign(&stranger, &topic, 0, Offset::Beginning);
    commit(&stranger, &topic, 1).unwrap();
    let consumer = member(target, &group, &topic, &[]);
    wait_for_partitions(&[&consumer], 1);
    let refused = commit(&stranger, &topic, 2).unwrap_err();
    assert_eq!(refused.rdkafka_error_code(), Some(RDKafkaErrorCode::UnknownMemberId));
    commit(&consumer, &topic, 3).unwrap();
    assert_eq!(committed(&stranger, &topic)[0], Offset::Offset(3));
}

pub(crate) fn offsets_of_a_deleted_topic_are_gone(target: &Target) {
    let topic = target.topic("gone", 2, &[]);
    let kept = target.topic("kept", 2, &[]);
    let consumer = target.consumer(&[]);
    commit(&consumer, &topic, 3).unwrap();
    commit(&consumer, &kept, 4).unwrap();
    target.runtime.block_on(target.admin().delete_topics(&[&topic], &admin_options())).unwrap().remove(0).unwrap();
    eventually("the topic can be made anew", || target.create(&topic, 2, &[]).is_ok());
    eventually("its offsets are gone", || committed(&consumer, &topic)[0] == Offset::Invalid);
    assert_eq!(committed(&consumer, &kept)[0], Offset::Offset(4));
}

pub(crate) fn offsets_are_deleted_unless_they_are_in_use(target: &Target) {
    let (used, unused) = (target.topic("used", 2, &[]), target.topic("unused", 2, &[]));
    let group = target.name("group");
    let stranger = target.consumer(&[("group.id", &group)]);
    for topic in [&used, &unused] {
        commit(&stranger, topic, 1).unwrap();
    }
    let consumer = member(target, &group, &used, &[]);
    wait_for_partitions(&[&consumer], 2);
    let admin = target.admin();
    assert_eq!(delete_group_offset(&admin, &group, &used), Err(RDKafkaErrorCode::GroupSubscribedToTopic));
    assert_eq!(delete_group_offset(&admin, &group, &unused), Ok(()));
    assert_eq!(committed(&stranger, &unused)[0], Offset::Invalid);
    assert_eq!(committed(&stranger, &used)[0], Offset::Offset(1));
}

pub(crate) fn a_static_member_comes_back_to_its_partitions(target: &Target) {
    let topic = target.topic("static", 4, &[]);
    let group = target.name("group");
    let one = member(target, &group, &topic, &[("group.instance.id", "one")]);
    let two = member(target, &group, &topic, &[("group.instance.id", "two")]);
    wait_for_partitions(&[&one, &two], 4);
    let before = owned(&two);
    // A static member that ends does not leave: nobody takes its partitions.
    drop(two);
    poll_for(&[&one], Duration::from_secs(1));
    assert_eq!(owned(&one).len() + before.len(), 4);
    let again = member(target, &group, &topic, &[("group.instance.id", "two")]);
    wait_for_partitions(&[&one, &again], 4);
    assert_eq!(owned(&again), before);
}

/// Two members share the partitions, and one of them gets all when the other leaves.
fn share(target: &Target, strategy: &str) {
    let topic = target.topic("shared", 4, &[]);
    let group = target.name("group");
    let settings = [("partition.assignment.strategy", strategy)];
    let one = member(target, &group, &topic, &settings);
    wait_for_partitions(&[&one], 4);
    assert_eq!(owned(&one), [0, 1, 2, 3]);
    let two = member(target, &group, &topic, &settings);
    let deadline = Instant::now() + PATIENCE;
    while owned(&one).len() != 2 || owned(&two).len() != 2 {
        assert!(Instant::now() < deadline, "{:?} and {:?}", owned(&one), owned(&two));
        poll_for(&[&one, &two], Duration::from_millis(100));
    }
    let mut all = owned(&one);
    all.extend(owned(&two));
    all.sort_unstable();
    assert_eq!(all, [0, 1, 2, 3]);
    commit(&one, &topic, 7).unwrap();
    two.unsubscribe();
    drop(two);
    wait_for_partitions(&[&one], 4);
    assert_eq!(committed(&one, &topic)[0], Offset::Offset(7));
}

fn member(target: &Target, group: &str, topic: &str, settings: &[(&str, &str)]) -> BaseConsumer {
    let mut all = vec![
        ("group.id", group),
        ("auto.offset.reset", "earliest"),
        ("session.timeout.ms", "10000"),
        ("heartbeat.interval.ms", "200"),
        ("partition.assignment.strategy", "range"),
    ];
    all.extend(settings);
    let consumer = target.consumer(&all);
    consumer.subscribe(&[topic]).unwrap();
    consumer
}

/// Polls the members until together they own so many partitions, none twice.
fn wait_for_partitions(members: &[&BaseConsumer], count: usize) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let all: Vec<_> = members.iter().flat_map(|member| owned(member)).collect();
        if all.len() == count && members.iter().all(|member| !owned(member).is_empty()) {
            return;
        }
        assert!(Instant::now() < deadline, "after {PATIENCE:?} the members own {all:?}");
        poll_for(members, Duration::from_millis(100));
    }
}

fn poll_for(members: &[&BaseConsumer], time: Duration) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        for member in members {
            match member.poll(Duration::from_millis(20)) {
                None | Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => panic!("{error}"),
            }
        }
    }
}

fn owned(consumer: &BaseConsumer) -> Vec<i32> {
    let mut owned: Vec<_> = consumer.assignment().unwrap().elements().iter().map(|element| element.partition()).collect();
    owned.sort_unstable();
    owned
}

fn commit(consumer: &BaseConsumer, topic: &str, offset: i64) -> Result<(), KafkaError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, 0, Offset::Offset(offset))?;
    consumer.commit(&list, CommitMode::Sync)
}

fn committed(consumer: &BaseConsumer, topic: &str) -> Vec<Offset> {
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, 1);
    let found = consumer.committed_offsets(list, PATIENCE).unwrap();
    found.elements().iter().map(|element| element.offset()).collect()
}

fn state(target: &Target, group: &str) -> String {
    let admin = target.admin();
    let list = admin.inner().fetch_group_list(Some(group), PATIENCE).unwrap();
    list.groups().first().map(|group| group.state().to_owned()).unwrap_or_default()
}

fn delete(target: &Target, admin: &AdminClient<DefaultClientContext>, group: &str) -> Result<(), RDKafkaErrorCode> {
    let deleted = target.runtime.block_on(admin.delete_groups(&[group], &admin_options()));
    deleted.unwrap().remove(0).map(|_| ()).map_err(|(_, code)| code)
}
