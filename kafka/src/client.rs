//! A client's settings from `[kafka]`, and its log lines into ours.

use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::KafkaError;
use spillway_config::KafkaClient;

/// The settings with which every client of the cluster is made: addresses, security, time limits, then the operator's passthrough.
///
/// `client_id` is what the brokers show in their logs and quotas. The caller sets its own keys last; those are denied to the passthrough,
/// so that nothing is set twice.
///
/// `ssl.ca.location` is `probe` where no authority was named: our OpenSSL is linked statically and does not know where the operating
/// system keeps its certificates, librdkafka looks at the usual places.
pub fn client_config(kafka: &KafkaClient, client_id: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    for (key, value) in DEFAULTS {
        config.set(*key, *value);
    }
    for (key, value) in kafka.librdkafka.iter() {
        config.set(key, value);
    }
    config.set("client.id", client_id);
    config.set("bootstrap.servers", &kafka.bootstrap_servers);
    config.set("security.protocol", kafka.security_protocol.as_str());
    if kafka.security_protocol.uses_sasl() {
        set_sasl(&mut config, kafka);
    }
    if kafka.security_protocol.uses_tls() {
        set_tls(&mut config, kafka);
    }
    config.set_log_level(log_level());
    config
}

/// As [`client_config`], for a client that asks and administers: topics, settings, watermarks.
///
/// Such a client connects to every broker from the start, instead of to those it needs. A question that waits for a broker which is gone is
/// looked at again at every change of a connection's state, and with librdkafka's sparse connections each look dials at once, without
/// its backoff: thousands of attempts a second for as long as the question waits.
#[must_use]
pub fn admin_client_config(kafka: &KafkaClient, client_id: &str) -> ClientConfig {
    let mut config = client_config(kafka, client_id);
    // Not in librdkafka's documentation, but in its table of settings.
    config.set("enable.sparse.connections", "false");
    config
}

/// Hands a client's log line to `tracing`, target `librdkafka`.
///
/// librdkafka calls a broker that is down an error. For us that is odd and passes, so its errors become warnings; what an operator has to
/// know is said by our own messages.
pub fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        RDKafkaLogLevel::Emerg | RDKafkaLogLevel::Alert | RDKafkaLogLevel::Critical => {
            tracing::error!(target: TARGET, facility, "{message}");
        }
        RDKafkaLogLevel::Error | RDKafkaLogLevel::Warning => tracing::warn!(target: TARGET, facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => tracing::debug!(target: TARGET, facility, "{message}"),
        RDKafkaLogLevel::Debug => tracing::trace!(target: TARGET, facility, "{message}"),
    }
}

/// A client context that logs by [`log_line`] and leaves errors to whoever polls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context;

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(target: TARGET, %error, reason, "client error");
    }
}

impl ConsumerContext for Context {}

const TARGET: &str = "librdkafka";

/// What we set where the operator did not.
const DEFAULTS: &[(&str, &str)] = &[
    // A gateway's firewall forgets quiet connections; TCP keep-alive finds out before a request hangs.
    ("socket.keepalive.enable", "true"),
    // Half of librdkafka's default: a broker that does not answer for so long is gone.
    ("socket.timeout.ms", "30000"),
    ("socket.connection.setup.timeout.ms", "10000"),
    // Brokers close idle connections every ten minutes; that is no news.
    ("log.connection.close", "false"),
    ("reconnect.backoff.max.ms", "5000"),
];

fn set_sasl(config: &mut ClientConfig, kafka: &KafkaClient) {
    if let Some(mechanism) = kafka.sasl_mechanism {
        config.set("sasl.mechanism", mechanism.as_str());
    }
    if let Some(username) = &kafka.sasl_username {
        config.set("sasl.username", username);
    }
    if let Some(password) = &kafka.sasl_password {
        config.set("sasl.password", password.reveal());
    }
}

fn set_tls(config: &mut ClientConfig, kafka: &KafkaClient) {
    match &kafka.ssl_ca {
        Some(path) => config.set("ssl.ca.location", path.to_string_lossy()),
        None => config.set("ssl.ca.location", "probe"),
    };
    if let (Some(certificate), Some(key)) = (&kafka.ssl_certificate, &kafka.ssl_key) {
        config.set("ssl.certificate.location", certificate.to_string_lossy());
        config.set("ssl.key.location", key.to_string_lossy());
    }
    if let Some(password) = &kafka.ssl_key_password {
        config.set("ssl.key.password", password.reveal());
    }
}

/// librdkafka's own filter, so that lines nobody sees are not formatted.
fn log_level() -> RDKafkaLogLevel {
    if tracing::enabled!(target: TARGET, tracing::Level::TRACE) {
        RDKafkaLogLevel::Debug
    } else if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        RDKafkaLogLevel::Info
    } else {
        RDKafkaLogLevel::Warning
    }
}

#[cfg(test)]
mod tests {
    use spillway_config::{Librdkafka, SaslMechanism, Secret, SecurityProtocol};

    use super::*;

    fn kafka(security_protocol: SecurityProtocol) -> KafkaClient {
        KafkaClient {
            bootstrap_servers: "a:9092,b:9092".to_owned(),
            security_protocol,
            sasl_mechanism: Some(SaslMechanism::ScramSha512),
            sasl_username: Some("spillway".to_owned()),
            sasl_password: Some(Secret::new("hunter2")),
            ssl_ca: None,
            ssl_certificate: None,
            ssl_key: None,
            ssl_key_password: None,
            librdkafka: Librdkafka::default(),
        }
    }

    #[test]
    fn a_plain_client_carries_no_password() {
        let config = client_config(&kafka(SecurityProtocol::Plaintext), "test");
        assert_eq!(config.get("bootstrap.servers"), Some("a:9092,b:9092"));
        assert_eq!(config.get("security.protocol"), Some("PLAINTEXT"));
        assert_eq!(config.get("sasl.password"), None);
        assert_eq!(config.get("ssl.ca.location"), None);
    }

    #[test]
    fn a_client_with_tls_and_user_is_accepted_by_librdkafka() {
        let mut config = client_config(&kafka(SecurityProtocol::SaslSsl), "test");
        assert_eq!(config.get("sasl.mechanism"), Some("SCRAM-SHA-512"));
        assert_eq!(config.get("ssl.ca.location"), Some("probe"), "the operating system's authorities");
        config.set("group.id", "test");
        assert!(config.create_native_config().is_ok());
    }
}
