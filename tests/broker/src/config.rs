//! Topic settings with Kafka's names, types, defaults and checks, and what of them the broker applies.
//!
//! Kept and shown but without effect: everything about segments, flushing, compaction, indexes, remote storage,
//! `min.insync.replicas` (Kafka, too, wants no more of them than there are replicas) and `compression.type` other than
//! `producer` (batches are stored as they came).

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;

use crate::batch::{self, Header};

/// The type numbers of DescribeConfigs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

/// One setting that a topic can have.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// Where the default comes from, as DescribeConfigs counts: [`DEFAULT_SOURCE`] but for one.
    pub(crate) source: i8,
    check: Check,
}

/// A value that nobody set.
const DEFAULT_SOURCE: i8 = 5;
/// A value that was set for all brokers while they ran. A cluster made with Kafka 4 so sets `min.insync.replicas`.
const ALL_BROKERS_SOURCE: i8 = 3;

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
enum Check {
    Any,
    AtLeast(i64),
    Ratio,
    OneOf(&'static [&'static str]),
    SomeOf(&'static [&'static str]),
}

const fn define(name: &'static str, kind: Kind, default: &'static str, check: Check) -> Definition {
    Definition { name, kind, default, source: DEFAULT_SOURCE, check }
}

const CODECS: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
const FOREVER: &str = "9223372036854775807";

/// The topic settings of Apache Kafka 4.3 with their defaults, by name.
pub(crate) const DEFINITIONS: &[Definition] = &[
    define("cleanup.policy", Kind::List, "delete", Check::SomeOf(&["compact", "delete"])),
    define("compression.gzip.level", Kind::Int, "-1", Check::AtLeast(-1)),
    define("compression.lz4.level", Kind::Int, "9", Check::AtLeast(1)),
    define("compression.type", Kind::String, "producer", Check::OneOf(CODECS)),
    define("compression.zstd.level", Kind::Int, "3", Check::Any),
    define("delete.retention.ms", Kind::Long, "86400000", Check::AtLeast(0)),
    define("file.delete.delay.ms", Kind::Long, "60000", Check::AtLeast(0)),
    define("flush.messages", Kind::Long, FOREVER, Check::AtLeast(1)),
    define("flush.ms", Kind::Long, FOREVER, Check::AtLeast(0)),
    define("follower.replication.throttled.replicas", Kind::List, "", Check::Any),
    define("index.interval.bytes", Kind::Int, "4096", Check::AtLeast(0)),
    define("leader.replication.throttled.replicas", Kind::List, "", Check::Any),
    define("local.retention.bytes", Kind::Long, "-2", Check::AtLeast(-2)),
    define("local.retention.ms", Kind::Long, "-2", Check::AtLeast(-2)),
    define("max.compaction.lag.ms", Kind::Long, FOREVER, Check::AtLeast(1)),
    define("max.message.bytes", Kind::Int, "1048588", Check::AtLeast(0)),
    define("message.timestamp.after.max.ms", Kind::Long, "3600000", Check::AtLeast(0)),
    define("message.timestamp.before.max.ms", Kind::Long, FOREVER, Check::AtLeast(0)),
    define("message.timestamp.type", Kind::String, "CreateTime", Check::OneOf(&["CreateTime", "LogAppendTime"])),
    define("min.cleanable.dirty.ratio", Kind::Double, "0.5", Check::Ratio),
    define("min.compaction.lag.ms", Kind::Long, "0", Check::AtLeast(0)),
    Definition { source: ALL_BROKERS_SOURCE, ..define("min.insync.replicas", Kind::Int, "1", Check::AtLeast(1)) },
    define("preallocate", Kind::Boolean, "false", Check::OneOf(&["true", "false"])),
    define("remote.log.copy.disable", Kind::Boolean, "false", Check::OneOf(&["true", "false"])),
    define("remote.log.delete.on.disable", Kind::Boolean, "false", Check::OneOf(&["true", "false"])),
    define("remote.storage.enable", Kind::Boolean, "false", Check::OneOf(&["true", "false"])),
    define("retention.bytes", Kind::Long, "-1", Check::Any),
    define("retention.ms", Kind::Long, "604800000", Check::AtLeast(-1)),
    define("segment.bytes", Kind::Int, "1073741824", Check::AtLeast(1_048_576)),
    define("segment.index.bytes", Kind::Int, "10485760", Check::AtLeast(4)),
    define("segment.jitter.ms", Kind::Long, "0", Check::AtLeast(0)),
    define("segment.ms", Kind::Long, "604800000", Check::AtLeast(1)),
    define("unclean.leader.election.enable", Kind::Boolean, "false", Check::OneOf(&["true", "false"])),
];

/// The settings that were given to a topic; what is missing has its default.
pub(crate) type Overrides = BTreeMap<String, String>;

/// Finds a setting by its name.
pub(crate) fn definition(name: &str) -> Option<&'static Definition> {
    DEFINITIONS.iter().find(|definition| definition.name == name)
}

/// Checks one setting as Kafka does.
///
/// # Errors
/// `INVALID_CONFIG` with the reason for a name that is unknown or a value that it does not take.
pub(crate) fn check(name: &str, value: &str) -> Result<(), String> {
    let Some(definition) = definition(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    if definition.takes(value) {
        return Ok(());
    }
    Err(format!("Invalid value {value} for configuration {name}"))
}

impl Definition {
    fn takes(&self, value: &str) -> bool {
        let number = value.trim().parse::<i64>().ok().filter(|number| self.kind != Kind::Int || i32::try_from(*number).is_ok());
        match (self.check, self.kind) {
            (Check::AtLeast(min), _) => number.is_some_and(|number| number >= min),
            (Check::Any, Kind::Int | Kind::Long) => number.is_some(),
            (Check::Any, _) => true,
            (Check::Ratio, _) => value.trim().parse().is_ok_and(|ratio: f64| (0.0..=1.0).contains(&ratio)),
            (Check::OneOf(values), _) => values.contains(&value.trim()),
            (Check::SomeOf(values), _) => !value.is_empty() && value.split(',').all(|part| values.contains(&part.trim())),
        }
    }
}

/// The settings that the broker applies, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `cleanup.policy` holds `delete`.
    pub(crate) deletes: bool,
    /// `cleanup.policy` holds `compact`: records need a key. Nothing is ever compacted.
    pub(crate) compacts: bool,
    /// The largest batch, with its header.
    pub(crate) max_message_bytes: u64,
    /// How far before the broker's clock a record's timestamp may lie.
    pub(crate) before_max_ms: i64,
    /// How far after the broker's clock a record's timestamp may lie.
    pub(crate) after_max_ms: i64,
    /// Timestamps are the broker's, not the producer's.
    pub(crate) log_append_time: bool,
    /// `None`: records do not expire.
    pub(crate) retention_ms: Option<i64>,
    /// `None`: no limit.
    pub(crate) retention_bytes: Option<u64>,
}

impl Settings {
    /// Reads what is applied from checked overrides.
    pub(crate) fn of(overrides: &Overrides) -> Self {
        let text = |name: &str| {
            let default = definition(name).map_or("", |definition| definition.default);
            overrides.get(name).map_or(default, |value| value.trim())
        };
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
        let policy: Vec<_> = text("cleanup.policy").split(',').map(str::trim).collect();
        Self {
            deletes: policy.contains(&"delete"),
            compacts: policy.contains(&"compact"),
            max_message_bytes: number("max.message.bytes").unsigned_abs(),
            before_max_ms: number("message.timestamp.before.max.ms"),
            after_max_ms: number("message.timestamp.after.max.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            retention_ms: Some(number("retention.ms")).filter(|keep| *keep >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
        }
    }

    /// Checks what depends on the single records: keys of a compacted topic and timestamps.
    ///
    /// # Errors
    /// `INVALID_RECORD` for a record without a key, `INVALID_TIMESTAMP` for a time out of range.
    pub(crate) fn check_records(&self, bytes: &[u8], header: &Header, now_ms: i64) -> Result<(), ResponseError> {
        // Only these two need a look at each record; the header knows the latest timestamp.
        if self.compacts || self.before_max_ms != i64::MAX {
            for record in batch::records(bytes)? {
                if self.compacts && !record.has_key {
                    return Err(ResponseError::InvalidRecord);
                }
                self.check_timestamp(record.timestamp, now_ms)?;
            }
        }
        self.check_timestamp(header.max_timestamp, now_ms)
    }

    fn check_timestamp(&self, timestamp: i64, now_ms: i64) -> Result<(), ResponseError> {
        const NO_TIMESTAMP: i64 = -1;
        let early = timestamp < now_ms.saturating_sub(self.before_max_ms);
        let late = timestamp > now_ms.saturating_add(self.after_max_ms);
        if !self.log_append_time && timestamp != NO_TIMESTAMP && (early || late) {
            return Err(ResponseError::InvalidTimestamp);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_passes_its_own_check() {
        for definition in DEFINITIONS {
            assert!(definition.takes(definition.default), "{}", definition.name);
        }
    }

    #[test]
    fn unknown_names_and_wrong_values_are_refused() {
        assert!(check("retention.hours", "1").is_err());
        for (name, value) in [
            ("retention.ms", "-2"),
            ("retention.ms", "soon"),
            ("cleanup.policy", "compact,burn"),
            ("max.message.bytes", "4294967296"),
            ("min.cleanable.dirty.ratio", "1.5"),
        ] {
            assert!(check(name, value).is_err(), "{name}={value}");
        }
        assert_eq!(check("cleanup.policy", "compact, delete"), Ok(()));
    }

    #[test]
    fn the_defaults_are_applied() {
        let settings = Settings::of(&Overrides::new());
        assert!(settings.deletes && !settings.compacts && !settings.log_append_time);
        assert_eq!((settings.retention_ms, settings.retention_bytes), (Some(604_800_000), None));
        assert_eq!(settings.max_message_bytes, 1_048_588);
    }
}
