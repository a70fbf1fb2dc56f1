//! The flows of the configuration, as the parts of the agent know them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use spillway_agent_core::schedule::{Flow, FlowSpec, Order, TopicClass};
use spillway_agent_core::ttl::TimeToLive;
use spillway_config::{AgentConfig, FlowConfig, WhenFull};
use spillway_spill::Class;
use spillway_spill::admission::Policy;

use crate::source::FlowOf;

/// Which topics are sent alike, and how.
#[derive(Clone)]
pub struct Flows {
    /// By number.
    pub specs: Vec<FlowSpec>,
    /// Their classes in the spill, by number, each another one.
    pub spill: Vec<Class>,
    /// Tells the flow of a topic by its name.
    pub of: FlowOf,
}

impl fmt::Debug for Flows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flows").field("specs", &self.specs).field("spill", &self.spill).finish_non_exhaustive()
    }
}

impl Flows {
    /// Those of the configuration.
    pub fn new(config: &AgentConfig) -> Self {
        let flows = config.flows();
        let flow_of = config.flow_of();
        let of: FlowOf = Arc::new(move |topic| Flow(u16::try_from(flow_of(topic)).unwrap_or(0)));
        Self { specs: flows.iter().map(spec).collect(), spill: spill_classes(&flows), of }
    }
}

fn spec(flow: &FlowConfig) -> FlowSpec {
    FlowSpec {
        class: TopicClass::new(flow.class).unwrap_or(TopicClass::DEFAULT),
        weight: flow.weight,
        rate_max: flow.rate_max.map(|rate| rate.bytes_per_second()),
        ttl: flow.ttl.map(TimeToLive::new),
        order: order(flow.order),
    }
}

fn order(order: spillway_config::Order) -> Order {
    match order {
        spillway_config::Order::Fifo => Order::Fifo,
        spillway_config::Order::LiveFirst => Order::LiveFirst,
    }
}

/// Flows of the same policy and urgency are told apart by slots, in the order of the configuration. The configuration allows no more flows than there are slots.
fn spill_classes(flows: &[FlowConfig]) -> Vec<Class> {
    let mut slots: BTreeMap<(WhenFull, u8), u8> = BTreeMap::new();
    let class = |flow: &FlowConfig| {
        let slot = slots.entry((flow.when_full, flow.class)).or_default();
        let class = Class::of(policy(flow.when_full).class(), flow.class, *slot);
        *slot += 1;
        class.unwrap_or(Class::DEFAULT)
    };
    flows.iter().map(class).collect()
}

/// What `when_full` means to the store.
fn policy(when_full: WhenFull) -> Policy {
    match when_full {
        WhenFull::Block => Policy::Block,
        WhenFull::DropOldest => Policy::DropOldest,
        WhenFull::DropNewest => Policy::DropNewest,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_flow_has_a_class_of_its_own_in_the_spill() {
        let flow =
            |class, when_full| FlowConfig { class, weight: 1, rate_max: None, when_full, ttl: None, order: spillway_config::Order::Fifo };
        let (block, oldest) = (WhenFull::Block, WhenFull::DropOldest);
        let flows = [flow(2, block), flow(0, block), flow(2, block), flow(2, oldest), flow(2, block)];
        let classes = spill_classes(&flows);
        assert_eq!(classes.iter().collect::<BTreeSet<_>>().len(), flows.len());
        assert_eq!((classes[0], classes[3]), (Class::BLOCK, Class::DROP_OLDEST), "spills of before");
        let told = classes.iter().map(|class| (class.urgency(), Policy::of(*class))).collect::<Vec<_>>();
        assert_eq!(told, flows.map(|flow| (flow.class, policy(flow.when_full))));
    }
}
