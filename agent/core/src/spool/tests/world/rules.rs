//! The rules by which partitions are of flows, and the agent that has them.

use std::time::Instant;

use spillway_spill_core::entry::Class;

use super::super::LIMITS;
use super::PARTITIONS;
use crate::ledger::Ledger;
use crate::schedule::{Flow, FlowSpec, Order, Scheduler, TopicClass};
use crate::spool::{Holdings, Spools};
use crate::ttl::TimeToLive;

/// The flow of each partition, under different rules.
pub(in super::super) const RULES: [[u16; PARTITIONS as usize]; 8] =
    [[0, 0, 0], [0, 1, 2], [2, 2, 0], [1, 0, 1], [0, 0, 0], [0, 1, 2], [2, 2, 0], [1, 0, 1]];

/// From these rules on, all flows but that of class 1 are live-first.
pub(in super::super) const LIVE_FIRST: usize = 4;

pub(super) fn flow_of(rules: usize, index: u32) -> Flow {
    Flow(RULES[rules][index as usize])
}

/// Classes 0, 1 and 3. Under the first rules there is one flow.
pub(super) fn ledger(rules: usize, ttl: Option<TimeToLive>, now: Instant) -> Ledger {
    let order = |class| if rules < LIVE_FIRST || class == 1 { Order::Fifo } else { Order::LiveFirst };
    let spec = |class| FlowSpec { class: TopicClass::new(class).unwrap(), ttl, order: order(class), ..FlowSpec::default() };
    let flows = if rules.is_multiple_of(LIVE_FIRST) { vec![spec(2)] } else { [0, 1, 3].map(spec).into() };
    Ledger::with(Scheduler::new(flows), now)
}

pub(super) fn spools(rules: usize, holds: &Holdings) -> Spools {
    let classes = if rules.is_multiple_of(LIVE_FIRST) {
        vec![Class::DEFAULT]
    } else {
        [0, 1, 3].map(|class| Class::of(Class::BLOCK, class, 0).unwrap()).into()
    };
    Spools::new(LIMITS, classes, holds, |partition| flow_of(rules, partition.partition.index()))
}
