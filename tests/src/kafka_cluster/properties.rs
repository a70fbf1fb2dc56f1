//! The `server.properties` of a test broker.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::KafkaOptions;

/// The ports of one node, on 127.0.0.1 but for the plain listeners, which are on [`KafkaOptions::host`].
#[derive(Debug, Clone)]
pub struct NodePorts {
    /// The plain listener for clients and brokers.
    pub plain: u16,
    /// The KRaft controller.
    pub controller: u16,
    /// The listener with TLS, SCRAM and ACLs; unused without [`Secured`].
    pub secured: u16,
    /// The plain listener for what comes through a relay; unused without [`KafkaOptions::relayed`].
    pub relayed: u16,
    /// The second plain listener, on [`KafkaOptions::host`]; unused without [`KafkaOptions::second`].
    pub second: u16,
}

/// The second listener: `SASL_SSL` with SCRAM-SHA-512 and Kafka's StandardAuthorizer.
#[derive(Debug, Clone)]
pub struct Secured {
    /// PEM file with the broker's private key (PKCS 8) and certificate chain.
    pub key_and_chain: PathBuf,
    /// PEM file with the CA's certificate.
    pub ca: PathBuf,
    /// SCRAM users and their passwords.
    pub users: Vec<(String, String)>,
}

/// The whole file for node `index` of `ports`.
pub(super) fn render(options: &KafkaOptions, home: &Path, ports: &[NodePorts], index: usize) -> Result<String> {
    let own = ports.get(index).context("no ports for this broker")?;
    let is_voter = |index: usize| !options.own_controller || index == options.brokers;
    let is_broker = index < options.brokers;
    let voter = |(index, ports): (usize, &NodePorts)| is_voter(index).then(|| format!("{}@127.0.0.1:{}", index + 1, ports.controller));
    let voters: Vec<String> = ports.iter().enumerate().filter_map(voter).collect();
    let mut advertised = format!("PLAIN://{}:{}", options.host, own.plain);
    if options.secured.is_some() {
        write!(advertised, ",SECURED://127.0.0.1:{}", own.secured)?;
    }
    if options.second {
        write!(advertised, ",SECOND://{}:{}", options.host, own.second)?;
    }
    let mut listening = advertised.clone();
    if let Some(port) = options.relayed {
        write!(listening, ",RELAYED://127.0.0.1:{}", own.relayed)?;
        write!(advertised, ",RELAYED://127.0.0.1:{port}")?;
    }
    let controller = format!("CONTROLLER://127.0.0.1:{}", own.controller);
    let (roles, listeners) = match (is_broker, is_voter(index)) {
        (true, true) => ("broker,controller", format!("{listening},{controller}")),
        (true, false) => ("broker", listening),
        (false, _) => ("controller", controller),
    };
    let replicas = options.brokers;
    let min_isr = if replicas < 3 { 1 } else { 2 };
    let mut lines = vec![
        format!("process.roles={roles}"),
        format!("node.id={}", index + 1),
        format!("controller.quorum.voters={}", voters.join(",")),
        format!("listeners={listeners}"),
        "listener.security.protocol.map=PLAIN:PLAINTEXT,SECOND:PLAINTEXT,RELAYED:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURED:SASL_SSL"
            .to_owned(),
        "controller.listener.names=CONTROLLER".to_owned(),
        format!("log.dirs={}", home.join("data").display()),
        // Topics are made on purpose: a typing mistake must not make one.
        "auto.create.topics.enable=false".to_owned(),
        format!("default.replication.factor={replicas}"),
        format!("offsets.topic.replication.factor={replicas}"),
        "offsets.topic.num.partitions=4".to_owned(),
        format!("transaction.state.log.replication.factor={replicas}"),
        format!("transaction.state.log.min.isr={min_isr}"),
        "transaction.state.log.num.partitions=4".to_owned(),
        "group.initial.rebalance.delay.ms=0".to_owned(),
        // Retention and compaction tests must not wait for minutes.
        "log.retention.check.interval.ms=500".to_owned(),
        "log.cleaner.backoff.ms=200".to_owned(),
        "log.cleaner.dedupe.buffer.size=4000000".to_owned(),
        "num.network.threads=2".to_owned(),
        "num.io.threads=4".to_owned(),
    ];
    if is_broker {
        lines.extend([format!("advertised.listeners={advertised}"), "inter.broker.listener.name=PLAIN".to_owned()]);
    }
    if replicas > 1 {
        lines.push(format!("min.insync.replicas={min_isr}"));
    }
    if let Some(secured) = &options.secured {
        lines.extend([
            "listener.name.secured.sasl.enabled.mechanisms=SCRAM-SHA-512".to_owned(),
            "listener.name.secured.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;"
                .to_owned(),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", secured.key_and_chain.display()),
            "ssl.truststore.type=PEM".to_owned(),
            format!("ssl.truststore.location={}", secured.ca.display()),
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer".to_owned(),
            // The plain listener is the lab's own door.
            "super.users=User:ANONYMOUS".to_owned(),
            "allow.everyone.if.no.acl.found=false".to_owned(),
        ]);
    }
    lines.extend(options.extra.iter().map(|(key, value)| format!("{key}={value}")));
    lines.push(String::new());
    Ok(lines.join("\n"))
}
