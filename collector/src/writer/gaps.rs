//! Gaps of the open transaction: an event for each in `spillway-gaps.internal`, a log line and a count once they are committed.
//!
//! The events are part of the transaction that moves the lanes over the gaps, so each gap has exactly one. They are written when the data was
//! delivered and before the progress is: whatever becomes of them, no other site waits for it.

use std::collections::HashSet;

use jiff::Timestamp;
use rdkafka::error::RDKafkaErrorCode;
use spillway_collector_core::gaps::GapEvent;
use spillway_proto::frame::GapReason;
use spillway_proto::message::HoldReason;
use spillway_proto::{Partition, TopicPartition};

use super::attempt::{Attempt, Gap, LaneShare};
use super::failure::Failure;
use super::{End, LaneState, Refusal, Writer};
use crate::centre::native::Outgoing;
use crate::centre::topics::{self, gaps_name};
use crate::metrics::ReasonLabel;

impl Writer {
    /// Writes the events and waits until they are delivered; false when that failed. Costs nothing where there is no gap.
    pub(super) fn write_gaps(&mut self) -> Result<bool, End> {
        if self.attempt.gaps.is_empty() {
            return Ok(true);
        }
        // Asked first: the answer tells a missing right, and a producer that writes to a topic that is not there may bring it into being with
        // the settings of the brokers.
        match self.centre.runtime.block_on(self.centre.topics.ensure_gaps()) {
            Ok(()) => {}
            Err(topics::Error::Refused { code, .. }) => {
                self.attempt.gaps_refused(code);
                return Ok(false);
            }
            Err(error) => {
                self.trouble.begin("write", &error.to_string());
                self.attempt.failed = true;
                return Ok(false);
            }
        }
        let (topic, now) = (gaps_name(), Timestamp::now());
        let events: Vec<_> = self.attempt.gaps.iter().filter_map(|gap| self.event(gap, now)).collect();
        for (key, value) in events {
            let record = Outgoing::own(key.as_bytes(), value.as_bytes(), now.as_millisecond());
            self.queue_tagged(&topic, Partition::FIRST, &record, Attempt::GAP_EVENT);
        }
        self.deliver()
    }

    /// Key and value of a gap's event.
    fn event(&self, gap: &Gap, time: Timestamp) -> Option<(String, String)> {
        let Gap { first, next, reason, .. } = *gap;
        let LaneState { source, remote: remote_topic, .. } = self.lanes.get(&gap.lane)?;
        let event = GapEvent { site: &self.site, source, remote_topic, first, next, reason, time };
        Some((event.key(), event.value()))
    }

    /// Tells of the gaps whose transaction was committed.
    pub(super) fn log_gaps(&self) {
        for Gap { lane, first, next, .. } in &self.attempt.deferrals {
            if let Some(TopicPartition { topic, partition }) = self.lanes.get(lane).map(|lane| &lane.source) {
                tracing::info!(event = "deferred", site = %self.site, %topic, %partition, %first, %next, "offsets of the source come later: live-first");
            }
        }
        for gap in &self.attempt.gaps {
            let Some(lane) = self.lanes.get(&gap.lane) else {
                continue;
            };
            let (reason, topic, partition) = (gap.reason.as_str(), &lane.source.topic, lane.source.partition);
            if gap.reason == GapReason::Expired {
                // As the site's configuration asks for.
                tracing::info!(event = "gap", site = %self.site, %topic, %partition, first = %gap.first, next = %gap.next, reason, "records of the source were too old to be sent");
            } else {
                tracing::warn!(event = "gap", site = %self.site, %topic, %partition, first = %gap.first, next = %gap.next, reason, "offsets of the source will never reach the centre");
            }
            self.centre.meters.gaps.get_or_create(&ReasonLabel { reason }).inc();
        }
    }

    /// After an abort: lanes whose gaps cannot be told are held, so that the site's others go on. Answers whether the cause is dealt with.
    pub(super) fn judge_gaps(&mut self, shares: &[LaneShare]) -> bool {
        match self.attempt.gaps_failure {
            None => false,
            Some((Failure::TopicMissing, code)) => {
                let (runtime, topics) = (self.centre.runtime.clone(), self.centre.topics.clone());
                runtime.block_on(topics.forget(&gaps_name()));
                self.trouble.begin("write", &format!("{}: {code}", gaps_name()));
                false
            }
            Some((_, code)) => {
                let lanes: HashSet<_> = self.attempt.gaps.iter().map(|gap| gap.lane).collect();
                for share in shares.iter().filter(|share| lanes.contains(&share.lane)) {
                    self.hold_at_gap(share, code);
                }
                true
            }
        }
    }

    fn hold_at_gap(&mut self, share: &LaneShare, code: RDKafkaErrorCode) {
        if let Some(source) = self.lanes.get(&share.lane).map(|lane| lane.source.clone()) {
            let (lane, next, reason) = (share.lane, share.first, HoldReason::TopicRefused);
            self.refuse(Refusal { lane, next, source, remote: gaps_name(), reason, code, offset: None, detail: None });
        }
    }
}
