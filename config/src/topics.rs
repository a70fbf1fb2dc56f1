use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{Hir, Look};

use crate::layer::{Item, Value};
use crate::parse::{self, Flaw};
use crate::reader::{Reported, Table};
use crate::units::BitRate;
use crate::{WhenFull, flows};

/// Most patterns of a list, and most rules: each is tried for each topic.
const PATTERNS_MAX: usize = 1_000;

/// Most bytes of a compiled pattern. `.{1,200}` takes about 60 KiB; what needs more is a mistake like `(.{1,200}){1,200}`.
const PATTERN_COMPILED_MAX_BYTES: usize = 1 << 20;

/// Classes are 0 (alarms) to 3 (bulk).
const CLASS_MOST: u8 = 3;

/// Weights further apart would let the lightest wait for hours on a thin line.
const WEIGHT_MOST: u32 = 100;

/// Below this, a frame of some hundred bytes would take seconds.
const RATE_LEAST_BITS: u64 = 1_000;

/// On the way from a producer to the line a second passes easily.
const TTL_LEAST: Duration = Duration::from_secs(1);

/// As `spill.max_age`.
const TTL_MOST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// `[topics]` of the agent: which topics are mirrored, with MirrorMaker 2's meaning of the patterns.
#[derive(Debug, Clone)]
pub struct TopicsConfig {
    /// A topic is mirrored if one of these matches its whole name. Default `.*`. Empty: nothing is mirrored. At most 1,000.
    pub include: Vec<Pattern>,
    /// … unless one of these matches it. Default `.*[\-\.]internal`, `.*\.replica`, `__.*`. At most 1,000.
    pub exclude: Vec<Pattern>,
    /// How often new topics and partitions are looked for. Default 30 s, 1 s to 1 h.
    pub refresh_interval: Duration,
    /// `[[topics.rule]]`, first match wins. At most 1,000.
    pub rules: Vec<TopicRule>,
}

/// One `[[topics.rule]]`: what differs for the topics it matches.
#[derive(Debug, Clone)]
pub struct TopicRule {
    /// Key `match`: the topics this rule is for.
    pub pattern: Pattern,
    /// In place of `kafka.start`.
    pub start: Option<StartFrom>,
    /// In place of `kafka.on_gap`.
    pub on_gap: Option<OnGap>,
    /// In place of `spill.when_full`.
    pub when_full: Option<WhenFull>,
    /// How urgent: 0 (alarms, before everything else) to 3 (bulk). Default 2.
    pub class: Option<u8>,
    /// Share of the rule's topics, all together, of what their class has of the line. Default 1, with all topics of the class that have neither this nor a
    /// `rate_max`; 1 to 100.
    pub weight: Option<u32>,
    /// Most bits a second of frames with the rule's topics, all together. Default `None`: no cap of their own. At least 1 kbit.
    pub rate_max: Option<BitRate>,
    /// Records that are older than this when they would be sent are not sent. Default `None`: any age. 1 s to 365 d.
    pub ttl: Option<Duration>,
    /// In which order the topics' records go after an outage. Default first in, first out. Live first has an effect with a spill only.
    pub order: Option<Order>,
}

/// In which order a partition's records go after an outage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// The oldest first.
    #[default]
    Fifo,
    /// What is new first; what the spill holds follows beside it.
    LiveFirst,
}

/// Where a partition starts for which the centre holds no progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartFrom {
    /// At the oldest record there is.
    Earliest,
    /// At what is written from now on.
    Latest,
    /// At the first record not older than this time.
    Time(Timestamp),
}

/// What to do when offsets have vanished at the source before they were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnGap {
    /// Announce it and go on with the oldest record there is.
    Continue,
    /// Exit with code 5 before anything of the gap is sent.
    Halt,
}

/// A regular expression that must match a whole topic name.
#[derive(Clone)]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl TopicsConfig {
    /// Whether a topic is mirrored. `exclude` wins over `include`.
    pub fn selects(&self, topic: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(topic));
        any(&self.include) && !any(&self.exclude)
    }

    pub(crate) fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let include = table.list("include", PATTERNS_MAX, Pattern::parse);
        let exclude = table.list("exclude", PATTERNS_MAX, Pattern::parse);
        let interval = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
        let refresh_interval = table.required("refresh_interval", parse::duration(interval));
        let rules =
            table.tables("rule", PATTERNS_MAX, TopicRule::read).and_then(|rules| flows::check_number(table, &rules).map(|()| rules));
        Ok(Self { include: include?, exclude: exclude?, refresh_interval: refresh_interval?, rules: rules? })
    }

    /// The first rule that matches a topic.
    pub fn rule_for(&self, topic: &str) -> Option<&TopicRule> {
        self.rules.iter().find(|rule| rule.pattern.matches(topic))
    }
}

impl TopicRule {
    fn read(table: &Table<'_>) -> Result<Self, Reported> {
        let pattern = table.required("match", Pattern::parse);
        let start = table.optional("start", StartFrom::parse);
        let on_gap = table.optional("on_gap", OnGap::parse);
        let when_full = table.optional("when_full", WhenFull::parse);
        let class = table.optional("class", parse::integer(0..=CLASS_MOST));
        let weight = table.optional("weight", parse::integer(1..=WEIGHT_MOST));
        let rate_max = table.optional("rate_max", parse::rate_limit(RATE_LEAST_BITS));
        let ttl = table.optional("ttl", parse::duration(TTL_LEAST..=TTL_MOST));
        let order = table.optional("order", Order::parse);
        let (class, weight, rate_max, ttl, order) = (class?, weight?, rate_max?.flatten(), ttl?, order?);
        Ok(Self { pattern: pattern?, start: start?, on_gap: on_gap?, when_full: when_full?, class, weight, rate_max, ttl, order })
    }
}

impl Order {
    /// The word in the configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::LiveFirst => "live-first",
        }
    }

    pub(crate) fn parse(item: &Item) -> Result<Self, Flaw> {
        const WORDS: &[(&str, Order)] = &[(Order::Fifo.as_str(), Order::Fifo), (Order::LiveFirst.as_str(), Order::LiveFirst)];
        parse::word(WORDS)(item)
    }
}

impl StartFrom {
    pub(crate) fn parse(item: &Item) -> Result<Self, Flaw> {
        let written = match &item.value {
            Value::Datetime(time) => time.clone(),
            _ => parse::text(item)?,
        };
        match written.as_str() {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        let advice = "write \"earliest\", \"latest\" or a time with its offset from UTC, for example \"2026-01-31T06:00:00Z\"";
        let time: Timestamp = written.parse().map_err(|_| Flaw::new("neither a time nor one of the words", advice))?;
        if time < Timestamp::UNIX_EPOCH {
            // Kafka's own words for earliest and latest are the times -2 and -1.
            return Err(Flaw::new("before 1970, which Kafka cannot look up", "write \"earliest\", or a later time"));
        }
        Ok(Self::Time(time))
    }
}

impl OnGap {
    pub(crate) fn parse(item: &Item) -> Result<Self, Flaw> {
        parse::word(&[("continue", Self::Continue), ("halt", Self::Halt)])(item)
    }
}

impl Pattern {
    fn parse(item: &Item) -> Result<Self, Flaw> {
        let text = parse::text(item)?;
        let hir = regex_syntax::parse(&text).map_err(|error| syntax_flaw(&error))?;
        // Anchored in the parsed form: in the text, an alternative or a comment could get around the anchors.
        let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]).to_string();
        let regex = RegexBuilder::new(&anchored).size_limit(PATTERN_COMPILED_MAX_BYTES).build();
        let regex = regex.map_err(|_| Flaw::new("takes too much memory", "use smaller repetitions, or several patterns"))?;
        Ok(Self { text, regex })
    }

    /// Whether the whole of `topic` matches.
    pub fn matches(&self, topic: &str) -> bool {
        self.regex.is_match(topic)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

/// The kind of the error and where it is, without the drawing of several lines that the error prints.
fn syntax_flaw(error: &regex_syntax::Error) -> Flaw {
    if let regex_syntax::Error::Parse(error) = error
        && *error.kind() == regex_syntax::ast::ErrorKind::UnsupportedLookAround
    {
        let what = "not a regular expression of this kind: it has no look-around";
        return Flaw::new(what, "name in topics.exclude what should not match");
    }
    let (kind, offset) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), error.span().start.offset),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), error.span().start.offset),
        other => (other.to_string(), 0),
    };
    let character = offset + 1;
    Flaw::new(
        format!("not a regular expression: {kind} at character {character}"),
        "write a regular expression that matches whole topic names; in TOML, single quotes keep backslashes: 'alarms\\..*'",
    )
}
