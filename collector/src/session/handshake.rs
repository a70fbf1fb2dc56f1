//! Who is there, and may it come in.

use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, Incoming, RecvStream, SendStream};
use spillway_link::{Explanation, Side, explain, site_name};
use spillway_proto::message::{self, AgentMessage, Hello};
use spillway_proto::{CloseCode, SiteName};

use super::control::{ControlError, ControlReader};
use super::{Refused, limits};
use crate::sites::{SiteWatch, Sites};

/// A peer that may come in.
#[derive(Debug)]
pub struct Greeted {
    /// Its connection.
    pub connection: Connection,
    /// Its name, from its certificate.
    pub site: SiteName,
    /// Its file; `None` where sites have none.
    pub file: Option<SiteWatch>,
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
pub async fn greet(incoming: Incoming, sites: &Arc<Sites>, handshake_timeout: Duration) -> Result<Greeted, Rejected> {
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
    let file = sites.admit(&site).await.map_err(|refused| refuse(Some(site.clone()), refused))?;
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
    Ok(Greeted { connection, site, file, version, hello, control, send })
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
        AgentMessage::SettingsReport(_) => "settings report",
        AgentMessage::Dictionary(_) => "dictionary",
        AgentMessage::Ignored(_) => "unknown",
    }
}
