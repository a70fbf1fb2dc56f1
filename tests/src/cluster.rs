//! A Kafka cluster of the demo: embedded or real.

use anyhow::{Context as _, Result};
use spillway_broker::{Broker, BrokerOptions};
use tokio::runtime::Runtime;

use crate::client::Client;
use crate::kafka_cluster::{KafkaCluster, KafkaOptions};

/// A running cluster. Dropping it ends it.
#[derive(Debug)]
pub enum Cluster {
    /// Spillway's own small broker, in this process.
    Embedded(EmbeddedCluster),
    /// Apache Kafka.
    Real(Box<KafkaCluster>),
}

/// The embedded broker and the threads it runs on.
#[derive(Debug)]
pub struct EmbeddedCluster {
    broker: Option<Broker>,
    bootstrap: String,
    runtime: Runtime,
}

impl Cluster {
    /// Starts a cluster called `label`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(label: &str, real: bool) -> Result<Self> {
        if real {
            return Ok(Self::Real(Box::new(KafkaCluster::start(KafkaOptions::new(label))?)));
        }
        Ok(Self::Embedded(EmbeddedCluster::start(label)?))
    }

    /// A client of this cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        match self {
            Self::Embedded(cluster) => cluster.client(),
            Self::Real(cluster) => Client::new(cluster.bootstrap()),
        }
    }
}

impl EmbeddedCluster {
    /// Starts the embedded broker.
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(label: &str) -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("cannot start a runtime")?;
        // As in the real clusters of the lab: a typing mistake must not make a topic.
        let options = BrokerOptions { name: label.to_owned(), auto_create_topics: false, ..BrokerOptions::default() };
        let broker = runtime.block_on(Broker::start(options)).context("cannot start the embedded broker")?;
        let bootstrap = broker.bootstrap();
        Ok(Self { broker: Some(broker), bootstrap, runtime })
    }

    /// A client of this cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.bootstrap.clone())
    }

    /// Cuts all connections and listens no more, as a broker that died; it keeps its records.
    pub fn stop(&self) {
        if let Some(broker) = &self.broker {
            self.runtime.block_on(broker.stop());
        }
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn resume(&self) -> Result<()> {
        match &self.broker {
            Some(broker) => self.runtime.block_on(broker.resume()).context("cannot resume the embedded broker"),
            None => Ok(()),
        }
    }
}

impl Drop for EmbeddedCluster {
    fn drop(&mut self) {
        if let Some(broker) = self.broker.take() {
            self.runtime.block_on(broker.shutdown());
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::time::Duration;

    use super::*;
    use crate::oracle::judge;
    use crate::shapes::{Shapes, seed};

    #[test]
    fn the_embedded_cluster_gives_back_records_of_all_shapes() {
        let mut shapes = Shapes::new(seed("embedded"), 400);
        let cluster = Cluster::start("embedded", false).unwrap();
        let client = cluster.client();
        for topic in ["t", "site.t"] {
            client.create_topic(topic, 3, &[("max.message.bytes", "2000000")]).unwrap();
        }
        let producer = client.producer().unwrap();
        for n in 0..1_000 {
            let mut record = shapes.next_record();
            // librdkafka takes 0 for "now", which the two copies would not have at the same time.
            record.timestamp_ms = record.timestamp_ms.filter(|&time| time > 0).or(Some(1));
            producer.send("t", n % 3, &record).unwrap();
            producer.send("site.t", n % 3, &record).unwrap();
        }
        producer.flush(Duration::from_secs(20)).unwrap();
        let report = judge(&client, &client, "site", &["t"]).unwrap();
        assert!(report.is_exact() && report.source_records == 1_000, "{report}");
    }
}
