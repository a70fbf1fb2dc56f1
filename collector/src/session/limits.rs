//! What one session may cost, beside `session.max_frame_bytes` and `session.max_inflight_bytes`.

use std::time::Duration;

/// Frames in custody; no further stream is read until some are committed. Streams are read in the order in which they were opened, so
/// the frame that others wait for is always among those read.
pub const MAX_FRAMES_HELD: usize = 4096;

/// Messages that the agent has not read yet, in bytes: every lane a session may have, held with a long explanation of why.
pub const MAX_OUTGOING_BYTES: usize = 8 * 1024 * 1024;

/// Frames that are read at the same time: streams that the peer may hold open. Agents write one frame after the other, so that few are
/// open at once.
pub const MAX_FRAME_STREAMS: u32 = 64;

/// Sections of the frames in custody. A section of a few bytes on the wire costs some two hundred here until it is committed, so bytes alone
/// do not bound it. Like the number of frames this only delays: no further stream is read until some are committed. A stream reserves as
/// many as a frame may have until its own are known. While nothing is in custody all open streams are read: bytes on a stream that nobody
/// reads would take the connection's window from those that are.
pub const MAX_SECTIONS_HELD: usize = MAX_FRAME_STREAMS as usize * spillway_proto::limits::MAX_SECTIONS;

/// Frames decoded and not yet looked at by the session's loop.
pub const MAX_FRAMES_QUEUED: usize = 64;

/// Events of the writer that the session has not looked at yet; the writer waits then.
pub const MAX_WRITER_EVENTS: usize = 64;

/// Remote topics of one session that are looked up or made at the same time.
pub const MAX_TOPIC_REQUESTS: usize = 8;

/// From the finished handshake to the hello.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may be silent. The agent's own, shorter value holds (QUIC takes the lesser); this one is the longest that an
/// agent on a metered line can ask for.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// How long what has arrived may take to be committed after the connection was lost.
pub const LOST_COMMIT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last acks may take to reach the agent before the connection is closed.
pub const LAST_ACKS_TIMEOUT: Duration = Duration::from_secs(2);

/// Pauses between attempts to make a topic ready, doubled up to the second.
pub const TOPIC_PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// How often the settings of topics that refused a record are looked at.
pub const HELD_CHECK: Duration = Duration::from_secs(10);

/// A held partition is tried again so often even if no setting has changed: a broker's own setting may have.
pub const HELD_RETRY: Duration = Duration::from_secs(300);

/// The same for a topic that cannot be made or written: a right that was granted does not show in the topic's settings.
pub const TOPIC_RETRY: Duration = Duration::from_secs(60);
