//! A client that asks a broker which is gone dials again at librdkafka's pace, not as fast as it can.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use spillway_broker::{Broker, BrokerOptions};
use spillway_config::{KafkaClient, Librdkafka, SecurityProtocol};
use spillway_kafka::admin_client_config;
use spillway_kafka::topics::describe_topics;
use spillway_proto::TopicName;

/// How long the question about a topic waits for the broker that is gone.
const ASKED_FOR: Duration = Duration::from_secs(2);

/// Connection attempts while the question waits. With librdkafka's backoff of 100 ms and more there are five or so for each of its two
/// entries of the broker (bootstrap and by number).
const DIALS_MAX: usize = 40;

/// Counts connection attempts by librdkafka's debug lines.
#[derive(Clone, Default)]
struct Dials(Arc<AtomicUsize>);

impl ClientContext for Dials {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        if facility == "CONNECT" && message.contains("Connecting to") {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ConsumerContext for Dials {}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_to_a_broker_that_is_gone_does_not_dial_in_a_hurry() {
    let broker = Broker::start(BrokerOptions::default()).await.unwrap();
    let kafka = KafkaClient {
        bootstrap_servers: broker.bootstrap(),
        security_protocol: SecurityProtocol::Plaintext,
        sasl_mechanism: None,
        sasl_username: None,
        sasl_password: None,
        ssl_ca: None,
        ssl_certificate: None,
        ssl_key: None,
        ssl_key_password: None,
        librdkafka: Librdkafka::default(),
    };
    let dials = Dials::default();
    let mut config = admin_client_config(&kafka, "test");
    config.set("debug", "broker").set_log_level(RDKafkaLogLevel::Debug);
    let client: Arc<BaseConsumer<Dials>> = Arc::new(config.create_with_context(dials.clone()).unwrap());
    // Log lines are handed out by polls.
    let polled = Arc::downgrade(&client);
    std::thread::spawn(move || {
        while let Some(client) = polled.upgrade() {
            drop(client.poll(Duration::from_millis(20)));
        }
    });
    let count = || dials.0.load(Ordering::Relaxed);
    let ask = move |limit| {
        let client = Arc::clone(&client);
        let topics = [TopicName::parse("t").unwrap()];
        tokio::task::spawn_blocking(move || describe_topics(client.client(), &topics, limit).map(|_| ()))
    };
    ask(Duration::from_secs(20)).await.unwrap().unwrap();
    broker.stop().await;
    let before = count();
    assert!(before > 0, "attempts are counted");
    assert!(ask(ASKED_FOR).await.unwrap().is_err(), "nobody answers");
    let attempts = count() - before;
    assert!((1..DIALS_MAX).contains(&attempts), "{attempts} connection attempts in {ASKED_FOR:?}");
}
