//! Every bound of the protocol. A peer that passes one is refused before anything is allocated for it.

/// Longest site name in bytes. With a topic of 249 characters the remote name must still fit; see [`crate::naming`].
pub const MAX_SITE_NAME: usize = 32;

/// Longest topic name in bytes (Kafka: `Topic.MAX_NAME_LENGTH`).
pub const MAX_TOPIC_NAME: usize = 249;

/// Largest control message, type byte and body. An ack of [`MAX_ACKS`] lanes at 15 bytes each is the largest real one.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Most lanes that one ack names; more are split over several messages.
pub const MAX_ACKS: usize = 4096;

/// Longest text for people in a message (versions, details), in bytes. Longer texts are cut by the sender.
pub const MAX_TEXT: usize = 1024;

/// Longest text of a site's settings, in bytes. A timetable with a change every quarter of an hour takes half of it.
pub const MAX_SETTINGS: usize = 16 * 1024;

/// Most lanes that a session may hold open. A gateway's Kafka holds hundreds of partitions, not tens of thousands.
pub const MAX_LANES: usize = 20_000;

/// Most partitions of one topic; ten times what Kafka's operators are advised to have on a whole broker.
pub const MAX_PARTITIONS: u32 = 100_000;

/// Most sections in a frame.
pub const MAX_SECTIONS: usize = 4096;

/// Most records in one section.
pub const MAX_SECTION_RECORDS: u32 = 1 << 20;

/// Upper bound of what a collector may allow as raw (decompressed) bytes of one frame.
///
/// The offered limit comes with the welcome and is lower by default; this one keeps a wrong setting from becoming a wrong allocation.
pub const MAX_FRAME_RAW_BYTES: usize = 128 * 1024 * 1024;

/// Bytes that a frame may have beside its body: sections at their largest, lengths, checksum.
pub const MAX_FRAME_OVERHEAD_BYTES: usize = MAX_SECTIONS * MAX_SECTION_HEADER_BYTES + 64;

/// A section's header at its largest: lane 5, kind 1, two offsets 9 each, count 3, length 5, rounded up.
pub const MAX_SECTION_HEADER_BYTES: usize = 40;
