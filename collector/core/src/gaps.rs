//! The records of `spillway-gaps.internal`: one for each gap that a site's position was moved over, for people and their programs.
//!
//! ```text
//! key    plant-7/sensors.v1/3                 site, source topic and partition; none of them can hold a slash
//! value  {"version":1,"site":"plant-7","topic":"sensors.v1","partition":3,"reason":"retention","first":2,"next":100,"count":98,
//!         "remote_topic":"plant-7.sensors.v1","time":"2026-02-03T04:05:06.789Z"}
//! ```
//! A field may be added under the same version; one that goes, or changes its meaning, raises it. Nothing of Spillway reads these records.

use jiff::Timestamp;
use serde::Serialize;
use spillway_proto::frame::GapReason;
use spillway_proto::{NextOffset, SiteName, TopicName, TopicPartition};

/// What [`GapEvent::value`] says that it is.
pub const VERSION: u32 = 1;

/// Offsets of a source partition that will never reach the centre.
#[derive(Debug, Clone)]
pub struct GapEvent<'a> {
    /// The site.
    pub site: &'a SiteName,
    /// The source partition.
    pub source: &'a TopicPartition,
    /// The topic at the centre that lacks the records.
    pub remote_topic: &'a TopicName,
    /// The first offset that is missing.
    pub first: NextOffset,
    /// Where the source goes on; below `first` where a log was truncated, of another topic where one was made anew.
    pub next: NextOffset,
    /// Why.
    pub reason: GapReason,
    /// When the centre heard of it, by the collector's clock.
    pub time: Timestamp,
}

/// The value's fields, in the order in which people look for them.
#[derive(Serialize)]
struct Fields<'a> {
    version: u32,
    site: &'a str,
    topic: &'a str,
    partition: u32,
    reason: String,
    first: u64,
    next: u64,
    count: Option<u64>,
    remote_topic: &'a str,
    time: String,
}

impl GapEvent<'_> {
    /// The key: `site/topic/partition`. All events of a partition have the same one; the topic is not compacted.
    pub fn key(&self) -> String {
        let TopicPartition { topic, partition } = self.source;
        format!("{}/{topic}/{partition}", self.site)
    }

    /// The value: JSON on one line, in UTF-8.
    pub fn value(&self) -> String {
        let fields = Fields {
            version: VERSION,
            site: self.site.as_str(),
            topic: self.source.topic.as_str(),
            partition: self.source.partition.index(),
            reason: reason(self.reason),
            first: self.first.value(),
            next: self.next.value(),
            count: self.reason.lost_count(self.first, self.next),
            remote_topic: self.remote_topic.as_str(),
            time: format!("{:.3}", self.time),
        };
        #[expect(clippy::expect_used, reason = "numbers and texts, which the tests write at their extremes")]
        serde_json::to_string(&fields).expect("plain fields")
    }
}

/// The reason's name; `other_` and its number where this version has no name for it, so that it can be looked up.
fn reason(reason: GapReason) -> String {
    match reason {
        GapReason::Other(code) => format!("{}_{code}", reason.as_str()),
        named => named.as_str().to_owned(),
    }
}
