use std::path::PathBuf;

use crate::layer::Item;
use crate::parse::{self, Flaw};
use crate::reader::files::Pem;
use crate::reader::{Reported, Table};
use crate::{HostPort, Secret, address};

pub use librdkafka::Librdkafka;
pub(crate) use librdkafka::Side;

mod librdkafka;

/// How a Kafka cluster is reached: `[kafka]` of either program.
#[derive(Debug, Clone)]
pub struct KafkaClient {
    /// `host:port`, several with commas. Default `127.0.0.1:9092`.
    pub bootstrap_servers: String,
    /// Default PLAINTEXT.
    pub security_protocol: SecurityProtocol,
    /// Set if and only if `security_protocol` has SASL in it; then so are `sasl_username` and `sasl_password`.
    pub sasl_mechanism: Option<SaslMechanism>,
    /// User name for SASL.
    pub sasl_username: Option<String>,
    /// Password for SASL.
    pub sasl_password: Option<Secret>,
    /// PEM file of the authorities that the brokers' certificates come from. Default: those of the operating system.
    pub ssl_ca: Option<PathBuf>,
    /// PEM file of our certificate, where the brokers ask for one. Set if and only if `ssl_key` is.
    pub ssl_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    pub ssl_key: Option<PathBuf>,
    /// Password of `ssl_key`, if it is encrypted.
    pub ssl_key_password: Option<Secret>,
    /// `[kafka.librdkafka]`: further settings of the client, passed on as they are. Apply them first, then Spillway's own.
    pub librdkafka: Librdkafka,
}

/// How the connection to a broker is secured; Kafka's `security.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecurityProtocol {
    /// Neither encrypted nor authenticated.
    Plaintext,
    /// TLS.
    Ssl,
    /// User name and password over an open connection.
    SaslPlaintext,
    /// User name and password over TLS.
    SaslSsl,
}

/// How user name and password are proved; Kafka's `sasl.mechanism`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SaslMechanism {
    /// The password is sent as it is.
    Plain,
    /// Salted challenge and response with SHA-256.
    ScramSha256,
    /// Salted challenge and response with SHA-512.
    ScramSha512,
}

impl SecurityProtocol {
    /// Kafka's name, which is also the one in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Ssl => "SSL",
            Self::SaslPlaintext => "SASL_PLAINTEXT",
            Self::SaslSsl => "SASL_SSL",
        }
    }

    /// Whether TLS is used.
    pub const fn uses_tls(self) -> bool {
        matches!(self, Self::Ssl | Self::SaslSsl)
    }

    /// Whether a user name and a password are used.
    pub const fn uses_sasl(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl SaslMechanism {
    /// Kafka's name, which is also the one in the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

/// The port that Kafka's own configuration files have.
const KAFKA_PORT: u16 = 9092;

/// Most brokers to begin with; the client learns of the others by itself.
const BOOTSTRAP_SERVERS_MAX: usize = 100;

impl KafkaClient {
    /// Reads what both programs have in `[kafka]`; `side` decides what may be passed on to librdkafka.
    pub(crate) fn read(table: &Table<'_>, side: Side) -> Result<Self, Reported> {
        let bootstrap_servers = table.required("bootstrap_servers", bootstrap_servers);
        let security_protocol = table.required("security_protocol", SecurityProtocol::parse);
        let sasl_mechanism = table.optional("sasl_mechanism", SaslMechanism::parse);
        let sasl_username = table.optional("sasl_username", parse::text);
        let sasl_password = table.secret("sasl_password");
        let pem_fix = "name a PEM file; a Java key store can be converted with keytool and openssl";
        let ssl_ca = table.optional_pem("ssl_ca", Pem::Certificate, pem_fix);
        let ssl_certificate = table.optional_pem("ssl_certificate", Pem::Certificate, pem_fix);
        let ssl_key = table.optional_pem("ssl_key", Pem::PrivateKey, pem_fix);
        let ssl_key_password = table.secret("ssl_key_password");
        let librdkafka = table.table("librdkafka", |table| Librdkafka::read(table, side));
        let client = Self {
            bootstrap_servers: bootstrap_servers?,
            security_protocol: security_protocol?,
            sasl_mechanism: sasl_mechanism?,
            sasl_username: sasl_username?,
            sasl_password: sasl_password?,
            ssl_ca: ssl_ca?,
            ssl_certificate: ssl_certificate?,
            ssl_key: ssl_key?,
            ssl_key_password: ssl_key_password?,
            librdkafka: librdkafka?,
        };
        let checks = [client.check_sasl(table), client.check_tls(table)];
        checks.into_iter().collect::<Result<(), _>>()?;
        Ok(client)
    }

    /// SASL settings come together, and with a protocol that uses them.
    fn check_sasl(&self, table: &Table<'_>) -> Result<(), Reported> {
        let protocol = self.security_protocol.as_str();
        let settings = [
            ("sasl_mechanism", self.sasl_mechanism.is_some()),
            ("sasl_username", self.sasl_username.is_some()),
            ("sasl_password", self.sasl_password.is_some()),
        ];
        let mut result = Ok(());
        for (key, is_set) in settings {
            if self.security_protocol.uses_sasl() && !is_set {
                result = Err(table.missing(key, &format!("required with security_protocol = \"{protocol}\", but not set")));
            } else if !self.security_protocol.uses_sasl() && is_set {
                let what = format!("without effect: security_protocol is \"{protocol}\"");
                let fix = "set security_protocol to \"SASL_SSL\" or \"SASL_PLAINTEXT\", or leave this key out";
                result = Err(table.contradiction(key, Flaw::new(what, fix)));
            }
        }
        result
    }

    /// TLS settings come with a protocol that uses them; certificate and key come together.
    fn check_tls(&self, table: &Table<'_>) -> Result<(), Reported> {
        let protocol = self.security_protocol.as_str();
        let settings = [
            ("ssl_ca", self.ssl_ca.is_some()),
            ("ssl_certificate", self.ssl_certificate.is_some()),
            ("ssl_key", self.ssl_key.is_some()),
            ("ssl_key_password", self.ssl_key_password.is_some()),
        ];
        let mut result = Ok(());
        for (key, is_set) in settings {
            if is_set && !self.security_protocol.uses_tls() {
                let what = format!("without effect: security_protocol is \"{protocol}\"");
                let fix = "set security_protocol to \"SSL\" or \"SASL_SSL\", or leave this key out";
                result = Err(table.contradiction(key, Flaw::new(what, fix)));
            }
        }
        match (&self.ssl_certificate, &self.ssl_key) {
            (Some(_), None) => Err(table.missing("ssl_key", "required with ssl_certificate, but not set")),
            (None, Some(_)) => Err(table.missing("ssl_certificate", "required with ssl_key, but not set")),
            _ => result,
        }
    }
}

impl SecurityProtocol {
    fn parse(item: &Item) -> Result<Self, Flaw> {
        const NAMES: &[(&str, SecurityProtocol)] = &[
            (SecurityProtocol::Plaintext.as_str(), SecurityProtocol::Plaintext),
            (SecurityProtocol::Ssl.as_str(), SecurityProtocol::Ssl),
            (SecurityProtocol::SaslPlaintext.as_str(), SecurityProtocol::SaslPlaintext),
            (SecurityProtocol::SaslSsl.as_str(), SecurityProtocol::SaslSsl),
        ];
        parse::word(NAMES)(item)
    }
}

impl SaslMechanism {
    fn parse(item: &Item) -> Result<Self, Flaw> {
        const NAMES: &[(&str, SaslMechanism)] = &[
            (SaslMechanism::Plain.as_str(), SaslMechanism::Plain),
            (SaslMechanism::ScramSha256.as_str(), SaslMechanism::ScramSha256),
            (SaslMechanism::ScramSha512.as_str(), SaslMechanism::ScramSha512),
        ];
        parse::word(NAMES)(item)
    }
}

/// One text with commas, as Kafka's own clients have it, or a list.
fn bootstrap_servers(item: &Item) -> Result<String, Flaw> {
    let servers = address::list(item, BOOTSTRAP_SERVERS_MAX, KAFKA_PORT)?;
    Ok(servers.iter().map(HostPort::to_string).collect::<Vec<_>>().join(","))
}
