//! How a session ends: on purpose, with what has arrived committed and told; or by a close code, with a line in the log.

use std::time::Instant;

use quinn::{Connection, VarInt};
use spillway_proto::{CloseCode, SiteName};

use super::run::{Over, Session, Shared, write};
use super::{Refused, limits};
use crate::writer::Event;
use crate::writer::inbox::Ending;

impl Session {
    /// What has arrived is committed and acknowledged, then the connection is closed.
    pub(super) async fn shut_down(&mut self) {
        let deadline = Instant::now() + self.shared.shutdown_deadline;
        self.inbox.end(Ending::Commit(deadline));
        let finished = async {
            while let Some(event) = self.events.recv().await {
                match event {
                    Event::Acked(acks) => self.outgoing.ack(acks),
                    Event::Ended(_) => break,
                    Event::Resumed { .. } | Event::Held(_) => {}
                }
            }
            while !self.outgoing.pending().is_empty() {
                write(&mut self.send, &mut self.outgoing).await?;
            }
            // Closing throws away what the agent has not received yet: wait until it has.
            if self.send.finish().is_ok() {
                let _acknowledged = tokio::time::timeout(limits::LAST_ACKS_TIMEOUT, self.send.stopped()).await;
            }
            Ok::<(), Over>(())
        };
        let _late_or_lost = tokio::time::timeout_at(deadline.into(), finished).await;
        self.close(&Refused::new(CloseCode::ShuttingDown, "the collector is shutting down"));
    }

    /// The writer's thread is waited for, so that the process does not end in the middle of its transaction.
    pub(super) async fn writer_ended(&mut self) {
        while let Some(event) = self.events.recv().await {
            if let Event::Ended(end) = event {
                tracing::debug!(site = %self.site, code = %end.code, reason = end.reason, "the site's writer has ended");
                return;
            }
        }
    }

    pub(super) fn close(&self, refused: &Refused) {
        close(&self.shared, &self.connection, Some(&self.site), refused);
    }
}

/// Closes a connection with its code, and says so in the log.
pub fn close(shared: &Shared, connection: &Connection, site: Option<&SiteName>, refused: &Refused) {
    let Refused { code, reason } = refused;
    let address = connection.remote_address();
    if matches!(code, CloseCode::ShuttingDown | CloseCode::Done) {
        let site = site.map_or("unknown", SiteName::as_str);
        tracing::info!(event = "session_closed", site, %address, reason = code.as_str(), "{reason}");
    } else {
        shared.refusals.tell(&shared.centre.meters, site, address, code.as_str(), code.remedy(), reason);
    }
    let text = spillway_proto::codec::cut(reason, MAX_REASON_BYTES);
    connection.close(VarInt::from_u32(code.code()), text.as_bytes());
}

/// A close frame must fit one packet with room to spare.
const MAX_REASON_BYTES: usize = 512;
