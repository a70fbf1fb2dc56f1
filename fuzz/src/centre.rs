//! What stands in the central Kafka: progress, MirrorMaker 2's offset syncs, and the names of topics.

use spillway_proto::mm2::OffsetSync;
use spillway_proto::naming::PrefixPolicy;
use spillway_proto::progress::{Position, ProgressKey, SessionMarker, partition_of};
use spillway_proto::{SiteName, TopicName};

use crate::memory::bounded;

/// Names and texts are copied once, and an error may copy them once more.
const MEMORY_PER_BYTE: usize = 3;

/// The first byte says what the rest is.
pub fn run(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    let bound = MEMORY_PER_BYTE * bytes.len();
    match kind % 5 {
        0 => {
            if let Ok(key) = bounded(bound, || ProgressKey::decode(bytes)) {
                assert_eq!(key.encode(), bytes);
            }
        }
        1 => {
            if let Ok(position) = bounded(bound, || Position::decode(bytes)) {
                assert_eq!(position.encode(), bytes);
            }
        }
        2 => {
            if let Ok(marker) = bounded(bound, || SessionMarker::decode(bytes)) {
                assert_eq!(marker.encode(), bytes);
            }
        }
        3 => {
            let (key, value) = bytes.split_at(bytes.len().saturating_sub(16));
            if let Ok(sync) = bounded(bound, || OffsetSync::decode(key, value)) {
                assert_eq!((sync.encode_key().as_slice(), sync.encode_value().as_slice()), (key, value));
            }
        }
        _ => names(&String::from_utf8_lossy(bytes)),
    }
}

/// `<site>/<topic>/<separator>`.
fn names(text: &str) {
    let mut parts = text.splitn(3, '/');
    let (site, topic, separator) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or("."));
    let (Ok(site), Ok(topic)) = (SiteName::parse(site), TopicName::parse(topic)) else { return };
    assert_eq!(SiteName::parse(site.as_str()).as_ref(), Ok(&site));
    assert!(partition_of(&site, 16).index() < 16);
    let has_dot = separator.contains('.') && separator.len() <= 16;
    let policy = PrefixPolicy::new(separator);
    let Ok(remote) = policy.remote_topic(&site, &topic) else { return };
    assert!(remote.as_str().starts_with(site.as_str()) && remote.as_str().ends_with(topic.as_str()));
    if has_dot {
        // Invariant H: a site's name has no dot, so what stands before the first separator is the site and nobody else.
        assert_eq!(remote.as_str().find(separator).map(|at| &remote.as_str()[..at]), Some(site.as_str()));
        assert_ne!(remote.as_str(), spillway_proto::progress::TOPIC);
        assert!(!remote.as_str().starts_with(&format!("mm2-offset-syncs{separator}")));
    }
}
