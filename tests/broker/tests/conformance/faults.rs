//! The fault hooks of the embedded broker, and how librdkafka bears them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rdkafka::ClientConfig;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use spillway_broker::{ApiKey, Broker, BrokerOptions, CannotFail, Error, Faults, Reach, ResponseError};

use crate::support::{Got, PATIENCE, Put, Target, now_ms};

#[test]
fn cut_connections_neither_lose_nor_repeat_records() {
    let target = Target::embedded();
    let topic = target.topic("cut", 1, &[]);
    let sender = target.producer(&[("enable.idempotence", "true"), ("reconnect.backoff.ms", "10"), ("reconnect.backoff.max.ms", "50")]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                faults(&target).cut_connections();
                std::thread::sleep(Duration::from_millis(15));
            }
        });
        for n in 0..2_000 {
            sender.text(&topic, 0, &n.to_string());
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(200));
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(sender.delivered().len(), 2_000);
    target.expect_committed(&topic, 0, &(0..2_000).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn a_closed_door_parts_its_client_from_the_broker_for_good_and_leaves_its_transaction_open() {
    let target = Target::embedded();
    let topic = target.topic("door", 1, &[]);
    let broker = target.broker.as_ref().unwrap();
    let door = target.runtime.block_on(broker.open_door(0)).unwrap();
    let reach = || broker.reach(&topic, 0).unwrap();
    let client: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", door.bootstrap()).set("transactional.id", "door").create().unwrap();
    client.init_transactions(PATIENCE).unwrap();
    client.begin_transaction().unwrap();
    client.send(BaseRecord::<(), _>::to(&topic).partition(0).payload("open")).map_err(|(error, _)| error).unwrap();
    client.flush(PATIENCE).unwrap();
    assert_eq!(reach(), Reach { end: 1, stable: 0 });

    drop(door);
    assert!(client.commit_transaction(Duration::from_millis(500)).is_err());
    assert!(client.client().fetch_metadata(None, Duration::from_millis(500)).is_err(), "the client found another way in");
    assert_eq!(reach(), Reach { end: 1, stable: 0 });
    let front = target.producer(&[]);
    front.text(&topic, 0, "through the front");
    front.delivered();
    assert_eq!(reach(), Reach { end: 2, stable: 0 });
}

/// Two producers commit and abort at random while answers get lost, coordinators are busy and connections break: what is
/// read is exactly what was committed, in order.
#[test]
fn transactions_stay_whole_under_random_faults() {
    let seed: u64 = rand::random();
    println!("seed {seed}");
    let target = Target::embedded();
    let topic = target.topic("random", 2, &[]);
    let kept: Vec<_> = std::thread::scope(|scope| {
        let run = |name| {
            scope.spawn({
                let (target, topic) = (&target, &topic);
                move || transact_at_random(target, topic, name, StdRng::seed_from_u64(seed + u64::from(name)))
            })
        };
        let (one, two) = (run(0), run(1));
        [one, two].into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert!(!kept.is_empty());
    for partition in 0..2 {
        let got = target.committed(&topic, partition);
        for name in ["0.", "1."] {
            let of = |values: &[String]| values.iter().filter(|value| value.starts_with(name)).cloned().collect::<Vec<_>>();
            let sent: Vec<_> = kept.iter().filter(|(to, _)| *to == partition).map(|(_, value)| value.clone()).collect();
            assert_eq!(of(&got), of(&sent), "seed {seed}, partition {partition}");
        }
    }
}

fn transact_at_random(target: &Target, topic: &str, name: u8, mut random: StdRng) -> Vec<(i32, String)> {
    let sender = target.producer(&[
        ("transactional.id", &format!("txn-{name}")),
        ("reconnect.backoff.ms", "10"),
        ("reconnect.backoff.max.ms", "50"),
        ("retry.backoff.ms", "20"),
    ]);
    sender.producer.init_transactions(PATIENCE).unwrap();
    let mut kept = Vec::new();
    for transaction in 0..25 {
        sender.begin();
        let mut sent = Vec::new();
        for record in 0..random.random_range(1..20) {
            let (partition, value) = (random.random_range(0..2), format!("{name}.{transaction}.{record}"));
            sender.text(topic, partition, &value);
            sent.push((partition, value));
            if random.random_ratio(1, 8) {
                inject(faults(target), &mut random);
            }
        }
        if random.random_ratio(1, 4) {
            sender.abort();
        } else if sender.commit_or_abort() {
            kept.extend(sent);
        }
        sender.flush();
    }
    kept
}

fn inject(faults: &Faults, random: &mut StdRng) {
    match random.random_range(0..5) {
        0 => faults.cut_connections(),
        1 => faults.unanswer_next(ApiKey::Produce),
        2 => faults.unanswer_next(ApiKey::EndTxn),
        3 => faults.unanswer_next(ApiKey::AddPartitionsToTxn),
        _ => faults.fail_next(ApiKey::EndTxn, ResponseError::CoordinatorLoadInProgress).unwrap(),
    }
}

#[test]
fn a_request_without_an_answer_is_repeated_without_effect() {
    let target = Target::embedded();
    let topic = target.topic("unanswered", 1, &[]);
    let sender = target.transactional("txn");
    for (round, api) in [ApiKey::Produce, ApiKey::AddPartitionsToTxn, ApiKey::EndTxn].into_iter().enumerate() {
        faults(&target).unanswer_next(api);
        sender.begin();
        sender.text(&topic, 0, &round.to_string());
        sender.commit();
        sender.delivered();
    }
    target.expect_committed(&topic, 0, &["0", "1", "2"]);
    target.expect_watermarks(&topic, 0, "read_committed", (0, 6));
}

#[test]
fn injected_errors_have_no_effect_and_end() {
    let target = Target::embedded();
    let topic = target.topic("injected", 1, &[]);
    let sender = target.transactional("txn");
    let retriable = [
        (ApiKey::Produce, ResponseError::NotEnoughReplicas),
        (ApiKey::AddPartitionsToTxn, ResponseError::ConcurrentTransactions),
        (ApiKey::EndTxn, ResponseError::CoordinatorLoadInProgress),
    ];
    for (api, error) in retriable {
        faults(&target).fail_next(api, error).unwrap();
    }
    sender.begin();
    sender.text(&topic, 0, "once");
    sender.commit();
    target.expect_committed(&topic, 0, &["once"]);
    assert_eq!(sender.delivered(), [0]);

    faults(&target).fail_next(ApiKey::Produce, ResponseError::TopicAuthorizationFailed).unwrap();
    sender.begin();
    sender.text(&topic, 0, "refused");
    assert!(sender.flush()[0].is_err());
    sender.abort();
    let refused = faults(&target).fail_next(ApiKey::Heartbeat, ResponseError::UnknownMemberId);
    assert_eq!(refused, Err(CannotFail { api: ApiKey::Heartbeat }));
}

#[test]
fn a_stopped_broker_comes_back_with_all_it_had() {
    let target = Target::embedded();
    let topic = target.topic("stopped", 1, &[]);
    let sender = target.transactional("txn");
    sender.begin();
    sender.text(&topic, 0, "before");
    sender.delivered();
    let broker = target.broker.as_ref().unwrap();
    target.runtime.block_on(broker.stop());
    assert!(std::net::TcpStream::connect(&target.bootstrap).is_err());
    sender.text(&topic, 0, "meanwhile");
    target.runtime.block_on(broker.resume()).unwrap();
    sender.text(&topic, 0, "after");
    sender.commit();
    target.expect_committed(&topic, 0, &["before", "meanwhile", "after"]);
}

#[test]
fn a_broker_that_refuses_keeps_the_connections_it_has() {
    let target = Target::embedded();
    let topic = target.topic("refusing", 1, &[]);
    let sender = target.producer(&[]);
    sender.text(&topic, 0, "first");
    sender.delivered();
    faults(&target).refuse(true);
    sender.text(&topic, 0, "second");
    sender.delivered();
    let consumer = target.consumer(&[]);
    assert!(consumer.fetch_metadata(None, Duration::from_millis(500)).is_err());
    faults(&target).refuse(false);
    assert_eq!(consumer.fetch_watermarks(&topic, 0, PATIENCE).unwrap(), (0, 2));
}

#[test]
fn answers_are_delayed() {
    let target = Target::embedded();
    let consumer = target.consumer(&[]);
    consumer.fetch_metadata(None, PATIENCE).unwrap();
    let delay = Duration::from_millis(400);
    faults(&target).delay(delay);
    let start = Instant::now();
    consumer.fetch_metadata(None, PATIENCE).unwrap();
    assert!(start.elapsed() >= delay);
    faults(&target).delay(Duration::ZERO);
}

#[test]
fn retention_deletes_what_is_too_old_or_too_much() {
    let target = Target::embedded();
    let sender = target.producer(&[]);
    let old = target.topic("old", 1, &[("retention.ms", "60000")]);
    for timestamp in [now_ms() - 100_000, now_ms() - 90_000, now_ms()] {
        sender.put(&old, &Put { timestamp: Some(timestamp), ..Put::default() });
        sender.delivered();
    }
    let much = target.topic("much", 1, &[("retention.bytes", "25000")]);
    let kept = target.topic("kept", 1, &[("retention.bytes", "1"), ("cleanup.policy", "compact")]);
    for _ in 0..5 {
        for topic in [&much, &kept] {
            sender.put(topic, &Put { key: Some(b"k"), value: Some(&[0; 10_000]), ..Put::default() });
            sender.delivered();
        }
    }
    target.broker.as_ref().unwrap().enforce_retention();
    target.expect_watermarks(&old, 0, "read_committed", (2, 3));
    target.expect_watermarks(&much, 0, "read_committed", (2, 5));
    target.expect_watermarks(&kept, 0, "read_committed", (0, 5));
}

#[test]
fn a_port_is_taken_until_the_broker_is_gone() {
    let target = Target::embedded();
    let port = target.bootstrap.rsplit(':').next().unwrap().parse().unwrap();
    let start = || target.runtime.block_on(Broker::start(BrokerOptions { port, ..BrokerOptions::default() }));
    assert!(matches!(start(), Err(Error::Listen { port: taken, .. }) if taken == port));
    target.runtime.block_on(target.broker.as_ref().unwrap().stop());
    target.runtime.block_on(start().unwrap().shutdown());
}

#[test]
fn a_member_survives_a_restart_of_the_broker() {
    let target = Target::embedded();
    let topic = target.topic("member", 1, &[]);
    let consumer = target.consumer(&[("session.timeout.ms", "6000"), ("auto.offset.reset", "earliest")]);
    consumer.subscribe(&[&topic]).unwrap();
    let sender = target.producer(&[]);
    let next = || {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) {
                return Got::of(&message).text();
            }
        }
        panic!("no record within {PATIENCE:?}");
    };
    sender.text(&topic, 0, "before");
    assert_eq!(next(), "before");
    let broker = target.broker.as_ref().unwrap();
    target.runtime.block_on(broker.stop());
    target.runtime.block_on(broker.resume()).unwrap();
    sender.text(&topic, 0, "after");
    assert_eq!(next(), "after");
    assert!(sender.producer.client().fatal_error().is_none());
}

fn faults(target: &Target) -> &Faults {
    target.broker.as_ref().unwrap().faults()
}
