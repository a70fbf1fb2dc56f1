//! The control stream's reading side.

use std::collections::VecDeque;

use quinn::{ReadError, RecvStream};
use spillway_ops::exit;
use spillway_proto::CloseCode;
use spillway_proto::message::{AgentMessage, MessageBuffer};

use super::Refused;

/// Bytes taken off the stream at once.
const READ_BYTES: usize = 16 * 1024;

/// Reads the agent's messages.
#[derive(Debug)]
pub struct ControlReader {
    stream: RecvStream,
    buffer: MessageBuffer,
    /// Decoded, not yet handed out: those of one read.
    messages: VecDeque<AgentMessage>,
}

/// Why no message came.
#[derive(Debug)]
pub enum ControlError {
    /// The connection is gone; whoever waits for its end knows why.
    Lost,
    /// The peer did what it must not.
    Refused(Refused),
}

impl ControlReader {
    /// Reads from the control stream.
    pub fn new(stream: RecvStream) -> Self {
        Self { stream, buffer: MessageBuffer::default(), messages: VecDeque::new() }
    }

    /// The next message. Cancel safe.
    pub async fn next(&mut self) -> Result<AgentMessage, ControlError> {
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(message);
            }
            let chunk = self.stream.read_chunk(READ_BYTES, true).await.map_err(|error| match error {
                ReadError::ConnectionLost(_) => ControlError::Lost,
                error => violation(format!("the control stream broke: {error}")),
            })?;
            let Some(chunk) = chunk else {
                // The agent has nothing more to say; its close of the connection follows.
                return std::future::pending().await;
            };
            self.buffer.push(&chunk.bytes);
            self.decode()?;
        }
    }

    fn decode(&mut self) -> Result<(), ControlError> {
        loop {
            match self.buffer.take() {
                Ok(Some(bytes)) => {
                    let message =
                        AgentMessage::decode(bytes).map_err(|error| violation(format!("a control message: {}", exit::chain(&error))))?;
                    self.messages.push_back(message);
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    return Err(ControlError::Refused(Refused::new(CloseCode::LimitExceeded, format!("a control message: {error}"))));
                }
            }
        }
    }
}

fn violation(reason: impl Into<String>) -> ControlError {
    ControlError::Refused(Refused::new(CloseCode::ProtocolViolation, reason))
}
