use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::layer::Item;
use crate::load::{self, Reference};
use crate::parse::{self, Flaw};
use crate::reader::files::Pem;
use crate::reader::{Reported, Table};
use crate::{Problems, agent, collector};

/// `[tls]`: PEM files, all required. They exist and are PEM when the configuration was loaded; their content is checked where it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of the authorities that the peer's certificate must come from.
    pub ca: PathBuf,
    /// Our certificate, followed by intermediate ones if there are any.
    pub cert: PathBuf,
    /// The private key of `cert`. Others should not be able to read it.
    pub key: PathBuf,
}

/// `[shutdown]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShutdownConfig {
    /// How long SIGTERM waits for what is in flight before the program ends anyway (nothing is lost then, it is only sent again).
    /// Default 30 s, 1 s to 10 min.
    pub deadline: Duration,
}

/// `[admin]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// Where `/metrics`, `/healthz`, `/readyz` and `/status` are served, without authentication. `None` (written `"off"`): nowhere.
    /// Default 127.0.0.1:9610 for the agent, 127.0.0.1:9611 for the collector.
    pub listen: Option<SocketAddr>,
}

/// `[log]`. The level comes from the variable `SPILLWAY_LOG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Default text.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl TlsFiles {
    /// `issue` is the command that makes the files.
    pub(crate) fn read(table: &Table<'_>, issue: &str) -> Result<Self, Reported> {
        let fix = format!("make one with `{issue}`");
        let ca = table.required_pem("ca", Pem::Certificate, &fix);
        let cert = table.required_pem("cert", Pem::Certificate, &fix);
        let key = table.required_pem("key", Pem::PrivateKey, &fix);
        Ok(Self { ca: ca?, cert: cert?, key: key? })
    }
}

impl ShutdownConfig {
    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(10 * 60);
        Ok(Self { deadline: table.required("deadline", parse::duration(bounds))? })
    }
}

impl AdminConfig {
    /// The table `[admin]` of an agent's configuration alone, for whoever asks a running agent and may not read its keys: nothing else in the
    /// file is looked at.
    ///
    /// # Errors
    /// [`Problems`] of this table, or of the file as a whole.
    pub fn load_agent<K, V>(path: &Path, environment: impl IntoIterator<Item = (K, V)>) -> Result<Self, Problems>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        Self::load(&agent::REFERENCE, path, environment)
    }

    /// As [`AdminConfig::load_agent`], of a collector's configuration.
    ///
    /// # Errors
    /// [`Problems`] of this table, or of the file as a whole.
    pub fn load_collector<K, V>(path: &Path, environment: impl IntoIterator<Item = (K, V)>) -> Result<Self, Problems>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        Self::load(&collector::REFERENCE, path, environment)
    }

    fn load<K, V>(reference: &Reference, path: &Path, environment: impl IntoIterator<Item = (K, V)>) -> Result<Self, Problems>
    where
        K: Into<OsString>,
        V: Into<OsString>,
    {
        let read = |table: &Table<'_>| {
            table.everything();
            table.table("admin", Self::read)
        };
        let (admin, _warnings) = load::load(reference, path, environment, read)?;
        Ok(admin)
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        Ok(Self { listen: table.required("listen", parse::unless("off", listen_address))? })
    }
}

impl LogConfig {
    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
        Ok(Self { format: table.required("format", parse::word(FORMATS))? })
    }
}

/// An address to listen on. Names are refused: which of a name's addresses was meant cannot be known.
pub(crate) fn listen_address(item: &Item) -> Result<SocketAddr, Flaw> {
    parse::text(item)?.parse().map_err(|_| {
        Flaw::new(
            "not an IP address and a port",
            "write for example \"127.0.0.1:9610\", \"0.0.0.0:4433\" (all of IPv4) or \"[::]:4433\" (all)",
        )
    })
}
