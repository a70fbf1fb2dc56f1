//! Producers that break the rules of transactions; the embedded broker must see through them as Apache Kafka does.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, EndTxnRequest, FindCoordinatorRequest, InitProducerIdRequest, ListOffsetsRequest, ProduceRequest,
    ProducerId, TopicName, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;
use spillway_broker::{Broker, BrokerOptions, ResponseError};

use crate::client::Client;
use crate::requests::{batch_by, create_topic};

const TRANSACTIONAL: i16 = 0x10;
/// What Apache Kafka answers while it is still at something, and how often it is asked again.
const BUSY: [ResponseError; 3] =
    [ResponseError::ConcurrentTransactions, ResponseError::CoordinatorNotAvailable, ResponseError::NotCoordinator];
const ATTEMPTS: u32 = 100;

/// Makes two tests of every check.
macro_rules! checks {
    ($($check:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test]
            async fn $check() {
                let broker = super::Broker::start(super::BrokerOptions::default()).await.unwrap();
                super::$check(&mut super::Producer::connect(&broker.bootstrap()).await).await;
            })*
        }

        mod kafka {
            $(#[tokio::test]
            #[ignore = "needs SPILLWAY_TEST_KAFKA"]
            async fn $check() {
                let address = std::env::var("SPILLWAY_TEST_KAFKA");
                let address = address.expect("left out: SPILLWAY_TEST_KAFKA=host:port is not set");
                super::$check(&mut super::Producer::connect(&address).await).await;
            })*
        }
    };
}

checks! {
    records_outside_a_transaction_are_refused,
    an_identity_is_claimed_by_its_holder_only,
    an_epoch_that_a_marker_bears_starts_at_sequence_zero,
}

/// Records that come late, after the transaction they belong to, would never get a marker and hide all that follows.
async fn records_outside_a_transaction_are_refused(producer: &mut Producer) {
    let (id, epoch) = producer.initialise(None).await.unwrap();
    assert_eq!(producer.produce(id, epoch, 0).await, Err(ResponseError::InvalidTxnState));
    producer.add_partition(id, epoch).await;
    assert_eq!(producer.produce(id, epoch, 0).await, Ok(()));
    producer.commit(id, epoch).await;
    // Apache Kafka answers a commit a moment before it writes the markers; until then records still belong to it.
    let mut sequence = 1;
    while producer.produce(id, epoch, sequence).await == Ok(()) {
        sequence += 1;
        assert!(sequence < 1_000, "a record after the end of the transaction is taken");
    }
    assert_eq!(producer.produce(id, epoch, sequence).await, Err(ResponseError::InvalidTxnState));
}

async fn an_identity_is_claimed_by_its_holder_only(producer: &mut Producer) {
    let first = producer.initialise(None).await.unwrap();
    let second = producer.initialise(Some(first)).await.unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    // Whoever did not hear the answer asks again and gets the same.
    assert_eq!(producer.initialise(Some(first)).await, Ok(second));
    let third = producer.initialise(None).await.unwrap();
    assert_eq!(third.1, second.1 + 1);
    assert_eq!(producer.initialise(Some(second)).await, Err(ResponseError::ProducerFenced));
    // A claim inside a transaction aborts it, even a claim that is refused.
    producer.add_partition(third.0, third.1).await;
    assert_eq!(producer.produce(third.0, third.1, 0).await, Ok(()));
    assert_eq!(producer.initialise(Some(second)).await, Err(ResponseError::ProducerFenced));
    assert_eq!(producer.produce(third.0, third.1, 1).await, Err(ResponseError::InvalidProducerEpoch));
    let fourth = producer.initialise(Some(third)).await.unwrap();
    assert_eq!(fourth.1, third.1 + 1);
}

/// The holder of a transaction that timed out may claim the epoch of the abort marker. Its sequence numbers start at 0 again:
/// if they went on, its records would pass for repetitions, and a committed transaction would have no data.
async fn an_epoch_that_a_marker_bears_starts_at_sequence_zero(producer: &mut Producer) {
    producer.timeout_ms = 1_000;
    let first = producer.initialise(None).await.unwrap();
    producer.add_partition(first.0, first.1).await;
    for sequence in 0..2 {
        assert_eq!(producer.produce(first.0, first.1, sequence).await, Ok(()));
    }
    // The third record is repeated until the timeout; a repetition is no second record.
    while producer.produce(first.0, first.1, 2).await == Ok(()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(producer.produce(first.0, first.1, 2).await, Err(ResponseError::InvalidProducerEpoch));
    let second = producer.initialise(Some(first)).await.unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    producer.add_partition(second.0, second.1).await;
    let before = producer.end_offset().await;
    assert_eq!(producer.produce(second.0, second.1, 0).await, Ok(()));
    assert_eq!(producer.end_offset().await, before + 1, "the record is in the log");
    assert_eq!(producer.produce(second.0, second.1, 1).await, Ok(()));
    producer.commit(second.0, second.1).await;
}

/// A transactional producer that does exactly what it is told.
struct Producer {
    client: Client,
    name: StrBytes,
    timeout_ms: i32,
}

impl Producer {
    async fn connect(address: &str) -> Self {
        let name = StrBytes::from_string(format!("rules-{:x}", rand::random::<u64>()));
        let mut producer = Self { client: Client::connect(address).await, name: name.clone(), timeout_ms: 60_000 };
        let request = || FindCoordinatorRequest::default().with_key(name.clone()).with_key_type(1);
        for _ in 0..ATTEMPTS {
            if producer.client.ask(request(), 2).await.error_code == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        producer.client.ask(create_topic(name.clone()), 5).await;
        producer
    }

    async fn initialise(&mut self, claimed: Option<(ProducerId, i16)>) -> Result<(ProducerId, i16), ResponseError> {
        let (id, epoch) = claimed.unwrap_or((ProducerId(-1), -1));
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(self.name.clone())))
            .with_transaction_timeout_ms(self.timeout_ms)
            .with_producer_id(id)
            .with_producer_epoch(epoch);
        for _ in 0..ATTEMPTS {
            let answer = self.client.ask(request.clone(), 4).await;
            match ResponseError::try_from_code(answer.error_code) {
                None => return Ok((answer.producer_id, answer.producer_epoch)),
                Some(busy) if BUSY.contains(&busy) => tokio::time::sleep(Duration::from_millis(50)).await,
                Some(error) => return Err(error),
            }
        }
        panic!("the coordinator is busy for ever");
    }

    async fn add_partition(&mut self, id: ProducerId, epoch: i16) {
        let topic = AddPartitionsToTxnTopic::default().with_name(TopicName(self.name.clone())).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(self.name.clone()))
            .with_v3_and_below_producer_id(id)
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(vec![topic]);
        for _ in 0..ATTEMPTS {
            let answer = self.client.ask(request.clone(), 3).await;
            let partition = &answer.results_by_topic_v3_and_below[0].results_by_partition[0];
            match ResponseError::try_from_code(partition.partition_error_code) {
                None => return,
                Some(busy) => assert!(BUSY.contains(&busy), "{busy}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the coordinator is busy for ever");
    }

    async fn produce(&mut self, id: ProducerId, epoch: i16, sequence: i32) -> Result<(), ResponseError> {
        let batch = Bytes::from(batch_by(TRANSACTIONAL, id.0, epoch, sequence));
        let data = PartitionProduceData::default().with_records(Some(batch));
        let topic = TopicProduceData::default().with_name(TopicName(self.name.clone())).with_partition_data(vec![data]);
        let request = ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(self.name.clone())))
            .with_acks(-1)
            .with_timeout_ms(5_000)
            .with_topic_data(vec![topic]);
        for _ in 0..ATTEMPTS {
            let answer = self.client.ask(request.clone(), 9).await;
            match ResponseError::try_from_code(answer.responses[0].partition_responses[0].error_code) {
                None => return Ok(()),
                // So Apache Kafka says that a topic is very new, or that the coordinator is busy.
                Some(ResponseError::NotLeaderOrFollower | ResponseError::NotEnoughReplicas) => {
                    tokio::time::sleep(Duration::from_millis(50)).await
                }
                Some(error) => return Err(error),
            }
        }
        panic!("the partition is busy for ever");
    }

    async fn end_offset(&mut self) -> i64 {
        let wanted = ListOffsetsPartition::default().with_timestamp(-1);
        let topic = ListOffsetsTopic::default().with_name(TopicName(self.name.clone())).with_partitions(vec![wanted]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic]);
        self.client.ask(request, 5).await.topics[0].partitions[0].offset
    }

    async fn commit(&mut self, id: ProducerId, epoch: i16) {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(self.name.clone()))
            .with_producer_id(id)
            .with_producer_epoch(epoch)
            .with_committed(true);
        assert_eq!(self.client.ask(request, 3).await.error_code, 0);
    }
}
