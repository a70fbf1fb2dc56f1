//! Who is there, and may it come in.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use spillway_config::SiteFile;
use spillway_link::{Explanation, Side, explain, site_name};
use spillway_proto::message::{self, AgentMessage, Hello};
use spillway_proto::{CloseCode, SiteName};

use super::control::{ControlError, ControlReader};
use super::{Refused, limits};

/// A peer that may come in.
#[derive(Debug)]
pub struct Greeted {
    /// Its connection.
    pub connection: Connection,
    /// Its name, from its certificate.
    pub site: SiteName,
    /// The protocol version that both speak.
    pub version: u8,
    /// What it said of itself.
    pub hello: Hello,
    /// The control stream's reading side.
    pub control: ControlReader,
    /// Its writing side.
    pub send: SendStream,
}

/// Why nobody came in.
#[derive(Debug)]
pub enum Rejected {
    /// The handshake failed; the peer knows why, or is gone.
    NoConnection {
        /// What happened.
        what: String,
        /// What to do.
        fix: String,
        /// For metrics.
        reason: &'static str,
    },
    /// The connection is to be closed.
    Refused {
        /// It.
        connection: Connection,
        /// Its site, if the certificate names one.
        site: Option<SiteName>,
        /// Why.
        refused: Refused,
    },
}

/// Takes a peer through TLS, its certificate's name, its site file and its hello.
pub async fn greet(incoming: Incoming, sites: Option<&Path>, handshake_timeout: Duration) -> Result<Greeted, Rejected> {
    let connecting = incoming.accept().map_err(|error| no_connection(&error))?;
    let connection = match tokio::time::timeout(handshake_timeout, connecting).await {
        Ok(connection) => connection.map_err(|error| no_connection(&error))?,
        Err(_) => {
            let what = format!("no TLS handshake within {handshake_timeout:?}");
            let code = CloseCode::HandshakeTimeout;
            return Err(Rejected::NoConnection { what, fix: code.remedy().to_owned(), reason: code.as_str() });
        }
    };
    let refuse = |site, refused| Rejected::Refused { connection: connection.clone(), site, refused };
    let site = site_name(&connection)
        .map_err(|error| refuse(None, Refused::new(CloseCode::SiteNameInvalid, spillway_ops::exit::chain(&error))))?;
    check_site(&site, sites.map(Path::to_owned)).await.map_err(|refused| refuse(Some(site.clone()), refused))?;
    let greeted = tokio::time::timeout(limits::HELLO_TIMEOUT, hello(&connection)).await;
    let greeted = greeted.unwrap_or_else(|_| {
        let reason = format!("no hello within {:?}", limits::HELLO_TIMEOUT);
        Err(Some(Refused::new(CloseCode::HandshakeTimeout, reason)))
    });
    let (control, send, hello) = match greeted {
        Ok(greeted) => greeted,
        Err(Some(refused)) => return Err(refuse(Some(site), refused)),
        Err(None) => return Err(no_connection(&connection.closed().await)),
    };
    let Some(version) = message::negotiate(&hello) else {
        let (min, max) = (hello.min_version, hello.max_version);
        let reason = format!("the agent speaks versions {min} to {max}, this collector {} to {}", message::MIN_VERSION, message::VERSION);
        return Err(refuse(Some(site), Refused::new(CloseCode::VersionUnsupported, reason)));
    };
    Ok(Greeted { connection, site, version, hello, control, send })
}

/// The first message of the first stream; `None` when the connection is gone.
async fn hello(connection: &Connection) -> Result<(ControlReader, SendStream, Hello), Option<Refused>> {
    let (send, recv): (SendStream, RecvStream) = connection.accept_bi().await.map_err(|_| None)?;
    let mut control = ControlReader::new(recv);
    loop {
        match control.next().await {
            Ok(AgentMessage::Hello(hello)) => return Ok((control, send, hello)),
            Ok(AgentMessage::Ignored(_)) => {}
            Ok(other) => {
                let reason = format!("the first message is not a hello but {}", kind(&other));
                return Err(Some(Refused::new(CloseCode::ProtocolViolation, reason)));
            }
            Err(ControlError::Refused(refused)) => return Err(Some(refused)),
            Err(ControlError::Lost) => return Err(None),
        }
    }
}

/// The site's own word in the collector's configuration. Read anew for each session, so that a change needs no restart.
async fn check_site(site: &SiteName, sites: Option<PathBuf>) -> Result<(), Refused> {
    let Some(dir) = sites.map(Arc::new) else {
        return Ok(());
    };
    let (name, folder) = (site.clone(), Arc::clone(&dir));
    let loaded = tokio::task::spawn_blocking(move || SiteFile::load_for(&folder, &name)).await;
    match loaded {
        Ok(Ok(Some(SiteFile { enabled: true, .. }))) => Ok(()),
        Ok(Ok(Some(_))) => {
            Err(Refused::new(CloseCode::SiteDisabled, format!("the file of site {site} in {} says enabled = false", dir.display())))
        }
        Ok(Ok(None)) => Err(Refused::new(CloseCode::SiteUnknown, format!("{} has neither {site}.toml nor default.toml", dir.display()))),
        Ok(Err(problems)) => Err(Refused::new(CloseCode::SiteFileInvalid, problems.to_string())),
        Err(error) => Err(Refused::new(CloseCode::Internal, format!("reading the site's file: {error}"))),
    }
}

fn no_connection(error: &quinn::ConnectionError) -> Rejected {
    let Explanation { what, fix, reason, .. } = explain(error, Side::Collector);
    Rejected::NoConnection { what, fix, reason }
}

fn kind(message: &AgentMessage) -> &'static str {
    match message {
        AgentMessage::Hello(_) => "hello",
        AgentMessage::Open(_) => "open",
        AgentMessage::CloseLane(_) => "close lane",
        AgentMessage::Flush => "flush",
        AgentMessage::Ignored(_) => "unknown",
    }
}
