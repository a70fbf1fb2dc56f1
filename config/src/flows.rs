use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::parse::Flaw;
use crate::reader::{Reported, Table};
use crate::units::{BitRate, ByteSize};
use crate::{AgentConfig, MEMORY_LEAST_WITH_SPILL, Order, SpillConfig, TopicRule, TopicsConfig, WhenFull};

/// How urgent the topics without a rule are.
const CLASS_DEFAULT: u8 = 2;

/// Most flows: each has an open frame, and files of its own in the spill.
const FLOWS_MAX: usize = 16;

/// What each flow beyond [`FLOWS_WITHIN_LEAST`] adds to the least `memory_max` of an agent with a spill.
const MEMORY_PER_FLOW: ByteSize = ByteSize::from_mib(4);

/// So many flows fit into [`MEMORY_LEAST_WITH_SPILL`].
const FLOWS_WITHIN_LEAST: usize = 3;

/// Topics that are sent alike: with the same class, `when_full`, `ttl` and `order`, and without a weight or a rate of their own; or those of one rule that has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowConfig {
    /// 0 (alarms, before everything else) to 3 (bulk).
    pub class: u8,
    /// Share among the flows of the class, 1 to 100.
    pub weight: u32,
    /// Most bits a second of frames.
    pub rate_max: Option<BitRate>,
    /// What happens when the spill is full.
    pub when_full: WhenFull,
    /// How long records are worth sending.
    pub ttl: Option<Duration>,
    /// In which order they go after an outage.
    pub order: Order,
}

/// What tells flows apart: class, `when_full`, `ttl`, `order`, and the rule where it has a weight or a rate.
type Key = (u8, WhenFull, Option<Duration>, Order, Option<usize>);

impl AgentConfig {
    /// All flows. The first one is that of topics without a rule. At most 16.
    pub fn flows(&self) -> Vec<FlowConfig> {
        let mut flows = self.numbered_flows().into_values().collect::<Vec<_>>();
        flows.sort_by_key(|(number, _)| *number);
        flows.into_iter().map(|(_, flow)| flow).collect()
    }

    /// Tells the flow of a topic by its name: its place in [`Self::flows`].
    pub fn flow_of(&self) -> impl Fn(&str) -> usize + Send + Sync + 'static {
        let (flows, config) = (self.numbered_flows(), self.clone());
        move |topic| {
            let key = match config.topics.rules.iter().enumerate().find(|(_, rule)| rule.pattern.matches(topic)) {
                Some((place, rule)) => config.key_of(place, rule),
                None => config.default_key(),
            };
            flows.get(&key).map_or(0, |(number, _)| *number)
        }
    }

    fn numbered_flows(&self) -> BTreeMap<Key, (usize, FlowConfig)> {
        numbered_flows(&self.topics, &self.spill)
    }

    fn default_key(&self) -> Key {
        (CLASS_DEFAULT, self.spill.when_full, None, Order::Fifo, None)
    }

    fn key_of(&self, place: usize, rule: &TopicRule) -> Key {
        key_of(&self.spill, place, rule)
    }
}

fn numbered_flows(topics: &TopicsConfig, spill: &SpillConfig) -> BTreeMap<Key, (usize, FlowConfig)> {
    let flow = |(class, when_full, ttl, order, _): Key| FlowConfig { class, weight: 1, rate_max: None, when_full, ttl, order };
    let default = (CLASS_DEFAULT, spill.when_full, None, Order::Fifo, None);
    let mut flows = BTreeMap::from([(default, (0, flow(default)))]);
    for (place, rule) in topics.rules.iter().enumerate() {
        let (key, number) = (key_of(spill, place, rule), flows.len());
        let of_rule = FlowConfig { weight: rule.weight.unwrap_or(1), rate_max: rule.rate_max, ..flow(key) };
        flows.entry(key).or_insert((number, of_rule));
    }
    flows
}

fn key_of(spill: &SpillConfig, place: usize, rule: &TopicRule) -> Key {
    let is_own = rule.weight.is_some() || rule.rate_max.is_some();
    (
        rule.class.unwrap_or(CLASS_DEFAULT),
        rule.when_full.unwrap_or(spill.when_full),
        rule.ttl,
        rule.order.unwrap_or_default(),
        is_own.then_some(place),
    )
}

/// There are not too many flows. A rule that sets `when_full` to what is the default counts as another one.
pub(crate) fn check_number(table: &Table<'_>, rules: &[TopicRule]) -> Result<(), Reported> {
    let key = |(place, rule): (usize, &TopicRule)| {
        let is_own = rule.weight.is_some() || rule.rate_max.is_some();
        (rule.class.unwrap_or(CLASS_DEFAULT), rule.when_full, rule.ttl, rule.order.unwrap_or_default(), is_own.then_some(place))
    };
    let flows = rules.iter().enumerate().map(key).chain([(CLASS_DEFAULT, None, None, Order::Fifo, None)]).collect::<BTreeSet<_>>().len();
    if flows <= FLOWS_MAX {
        return Ok(());
    }
    let what = format!(
        "{flows} different combinations of class, when_full, ttl and order, and rules with a weight or a rate_max; at most {FLOWS_MAX} are allowed"
    );
    let fix = "let topics share a rule, and give weight or rate_max to those only that need it";
    Err(table.contradiction("rule", Flaw::new(what, fix)))
}

/// A spill needs memory of its own, and each flow more of it.
pub(crate) fn check_memory(table: &Table<'_>, memory_max: ByteSize, topics: &TopicsConfig, spill: &SpillConfig) -> Result<(), Reported> {
    let flows = numbered_flows(topics, spill).len();
    let more = MEMORY_PER_FLOW.bytes() * flows.saturating_sub(FLOWS_WITHIN_LEAST) as u64;
    let least = ByteSize::from_bytes(MEMORY_LEAST_WITH_SPILL.bytes() + more);
    if spill.max_bytes.is_none() || memory_max >= least {
        return Ok(());
    }
    let needs = if more == 0 { "an agent with a spill" } else { "an agent with a spill and so many classes and weights of topics" };
    let what = format!("less than {least}, which {needs} needs");
    let fix = format!("write \"{least}\" or more, or set spill.max_bytes = \"off\"");
    Err(table.contradiction("memory_max", Flaw::new(what, fix)))
}
