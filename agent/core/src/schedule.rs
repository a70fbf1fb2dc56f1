//! Which frame goes next.
//!
//! Topics that are sent alike share a **flow**: a queue of frames, in the order in which they were built. Flows of class 0 go first, always. What they leave is
//! shared by the classes 1, 2 and 3 as 8 : 4 : 1 while all of them have something to send, and a class's share by its flows as their weights say; what one
//! does not use, the others get. Shares are bytes of frames as they are sent. Nothing saves up: who had nothing to send has no claim for that time.
//!
//! Invariants:
//! - A. A frame of class 0 waits for frames of class 0 only, but for B.
//! - B. Nothing starves: while others wait, they get one byte for [`URGENT_PART`] of class 0, as soon as that makes a frame; of the others every flow has its share.
//! - C. A flow with a rate cap never sends more than the cap times the time, and [`CAP_BURST`], and one frame.

use std::time::{Duration, Instant};

use crate::ttl::TimeToLive;

/// How urgent a topic's records are: 0 (alarms) to 3 (bulk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicClass(u8);

impl TopicClass {
    /// Alarms: before everything else.
    pub const URGENT: Self = Self(0);

    /// Topics without a rule.
    pub const DEFAULT: Self = Self(2);

    /// What can wait.
    pub const BULK: Self = Self(3);

    /// How many there are.
    pub const COUNT: usize = 4;

    /// `None` above 3.
    pub fn new(number: u8) -> Option<Self> {
        ((number as usize) < Self::COUNT).then_some(Self(number))
    }

    /// The plain number.
    pub fn number(self) -> u8 {
        self.0
    }

    /// All, the most urgent first.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT as u8).map(Self)
    }

    /// Goes before all others.
    pub fn is_urgent(self) -> bool {
        self == Self::URGENT
    }

    /// Its part of the line while all classes have something to send; class 0 takes what it needs.
    pub fn share(self) -> u32 {
        match self.0 {
            0 | 1 => 8,
            2 => 4,
            _ => 1,
        }
    }

    /// Stable name for metric labels.
    pub fn as_str(self) -> &'static str {
        match self.0 {
            0 => "0",
            1 => "1",
            2 => "2",
            _ => "3",
        }
    }
}

/// Number of a flow: its place in the list that the scheduler was made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow(pub u16);

/// One flow, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All.
    All,
    /// This one.
    One(Flow),
}

impl Scope {
    /// True for what belongs to it.
    pub fn has(self, flow: Flow) -> bool {
        match self {
            Self::All => true,
            Self::One(one) => one == flow,
        }
    }
}

/// In which order a flow's records go after an outage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Order {
    /// The oldest first.
    #[default]
    Fifo,
    /// What is new first; what was kept meanwhile beside it, with what the line has left over.
    LiveFirst,
}

/// What topics of a flow have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FlowSpec {
    /// How urgent they are.
    pub class: TopicClass,
    /// Share among the flows of the class. At least 1.
    pub weight: u32,
    /// Most bytes of frames a second; `None`: no cap.
    pub rate_max: Option<u64>,
    /// How long their records are worth sending; `None`: for ever.
    pub ttl: Option<TimeToLive>,
    /// In which order they go after an outage.
    pub order: Order,
}

impl Default for FlowSpec {
    fn default() -> Self {
        Self { class: TopicClass::DEFAULT, weight: 1, rate_max: None, ttl: None, order: Order::Fifo }
    }
}

/// Who may send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Flows of class 0.
    pub urgent: bool,
    /// The others.
    pub others: bool,
    /// Bytes of the others that were given to QUIC and have not left: class 0 overtakes them there.
    pub behind: u64,
}

impl Room {
    /// Everybody.
    pub const ALL: Self = Self { urgent: true, others: true, behind: 0 };
}

/// While others wait, they get one byte for so many of class 0.
pub const URGENT_PART: u64 = 16;

/// What a capped flow may send at once after a pause: so much of its rate. Long enough for the frames of a burst to follow each other, short against
/// the seconds over which a cap is looked at.
pub const CAP_BURST: Duration = Duration::from_millis(500);

/// Decides. See the module.
#[derive(Debug)]
pub struct Scheduler {
    flows: Vec<FlowState>,
    classes: [Turn; TopicClass::COUNT],
    /// The turn of the class that was served last, of all classes but 0.
    served: u64,
    /// What class 0 owes the others, in parts of a byte: [`URGENT_PART`] are one.
    owed: u64,
}

#[derive(Debug)]
struct FlowState {
    spec: FlowSpec,
    turn: Turn,
    cap: Option<Cap>,
}

/// Where somebody is in the order of service: what was sent, divided by the share. The least is next.
#[derive(Debug, Clone, Copy, Default)]
struct Turn {
    at: u64,
    /// Had something to send when it was last looked at.
    waits: bool,
    /// The turn of the flow that was served last, of a class.
    served: u64,
}

#[derive(Debug)]
struct Cap {
    bytes_per_second: u64,
    /// What may be sent; below zero after a frame.
    tokens: i64,
    since: Option<Instant>,
}

/// A byte at weight 1. Makes the rounding of a division by a weight of up to 100 small; sums reach 2^64 after 280 TB.
const BYTE: u64 = 1 << 16;

impl Scheduler {
    /// Nothing was sent so far. Without flows there is one, of the default.
    pub fn new(mut flows: Vec<FlowSpec>) -> Self {
        if flows.is_empty() {
            flows.push(FlowSpec::default());
        }
        let state = |spec: FlowSpec| FlowState { spec, turn: Turn::default(), cap: spec.rate_max.map(Cap::new) };
        Self { flows: flows.into_iter().map(state).collect(), classes: [Turn::default(); TopicClass::COUNT], served: 0, owed: 0 }
    }

    /// All flows.
    pub fn flows(&self) -> impl Iterator<Item = (Flow, FlowSpec)> + '_ {
        (0..).map(Flow).zip(self.flows.iter().map(|flow| flow.spec))
    }

    /// What a flow's topics have in common; the default for one that there is not.
    pub fn spec(&self, flow: Flow) -> FlowSpec {
        self.flows.get(flow.0 as usize).map_or_else(FlowSpec::default, |flow| flow.spec)
    }

    /// The part of the line that a flow has while all of them have something to send; class 0 may take all of it.
    pub fn part(&self, flow: Flow) -> f64 {
        let spec = self.spec(flow);
        if spec.class.is_urgent() {
            return 1.0;
        }
        let others = TopicClass::all().filter(|class| !class.is_urgent() && self.flows().any(|(_, spec)| spec.class == *class));
        let classes = others.map(TopicClass::share).sum::<u32>();
        let weights = self.flows().filter(|(_, other)| other.class == spec.class).map(|(_, other)| other.weight).sum::<u32>();
        f64::from(spec.class.share()) / f64::from(classes.max(1)) * f64::from(spec.weight) / f64::from(weights.max(1))
    }

    /// Time goes on: capped flows may send more.
    pub fn advance(&mut self, now: Instant) {
        for cap in self.flows.iter_mut().filter_map(|flow| flow.cap.as_mut()) {
            cap.advance(now);
        }
    }

    /// When the first of the capped flows that have used up their rate may send again.
    pub fn next_cap(&self) -> Option<Instant> {
        self.flows.iter().filter_map(|flow| flow.cap.as_ref()?.free_at()).min()
    }

    /// Bytes that class 0 owes the others.
    pub fn owes(&self) -> u64 {
        self.owed / URGENT_PART
    }

    /// Bytes of other classes than 0 have left for the centre: class 0 owes so much less.
    pub fn left(&mut self, bytes: u64) {
        self.owed = self.owed.saturating_sub(bytes.saturating_mul(URGENT_PART));
    }

    /// The flow that sends next; call [`Self::sent`] with it. `heads` are the bytes of each flow's next frame, `None` where nothing waits.
    pub fn pick(&mut self, heads: &[Option<usize>], room: Room) -> Option<Flow> {
        let ready = |index: usize, flow: &FlowState| {
            let open = flow.cap.as_ref().is_none_or(Cap::is_open);
            heads.get(index).copied().flatten().filter(|_| open)
        };
        let ready: Vec<Option<usize>> = self.flows.iter().enumerate().map(|(index, flow)| ready(index, flow)).collect();
        self.catch_up(&ready);
        let urgent = self.first_of(TopicClass::URGENT);
        let other = self.first_other();
        let length = |flow: Flow| ready.get(flow.0 as usize).copied().flatten().unwrap_or(0) as u64;
        match (urgent, other) {
            // What it owes is paid when it has left, so that waits for no more of class 0, and nothing is paid twice.
            (Some(_), Some(other)) if self.owes() >= room.behind + length(other) => Some(other),
            (Some(_), _) if room.behind > 0 && self.owes() >= room.behind => None,
            (Some(urgent), _) => Some(urgent).filter(|_| room.urgent),
            (None, other) => other.filter(|_| room.others),
        }
    }

    /// A frame of the flow is sent. `others_wait`: something of another class than 0 waits, or is on its way behind it.
    pub fn sent(&mut self, flow: Flow, bytes: usize, others_wait: bool) {
        let Some(state) = self.flows.get_mut(flow.0 as usize) else {
            return;
        };
        let (bytes, class) = (bytes as u64, state.spec.class);
        if let Some(cap) = &mut state.cap {
            cap.tokens = cap.tokens.saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
        }
        let begun = state.turn.at;
        state.turn.at += bytes * BYTE / u64::from(state.spec.weight.max(1));
        if let Some(turn) = self.classes.get_mut(class.number() as usize) {
            turn.served = begun;
            if !class.is_urgent() {
                self.served = turn.at;
                turn.at += bytes * BYTE / u64::from(class.share());
            }
        }
        if class.is_urgent() {
            self.owed = if others_wait { self.owed.saturating_add(bytes) } else { 0 };
        }
    }

    /// Whoever had nothing to send has its turn with the others from now on, not before them.
    fn catch_up(&mut self, ready: &[Option<usize>]) {
        let mut waits = [false; TopicClass::COUNT];
        for (flow, ready) in self.flows.iter_mut().zip(ready) {
            let number = flow.spec.class.number() as usize;
            if ready.is_some() && !std::mem::replace(&mut flow.turn.waits, true) {
                flow.turn.at = flow.turn.at.max(self.classes.get(number).map_or(0, |class| class.served));
            }
            flow.turn.waits = ready.is_some();
            if let Some(waits) = waits.get_mut(number) {
                *waits |= ready.is_some();
            }
        }
        for (class, waits) in self.classes.iter_mut().zip(waits) {
            if waits && !class.waits {
                class.at = class.at.max(self.served);
            }
            class.waits = waits;
        }
    }

    fn first_of(&self, class: TopicClass) -> Option<Flow> {
        let waiting = (0..).zip(&self.flows).filter(|(_, flow)| flow.turn.waits && flow.spec.class == class);
        waiting.min_by_key(|(_, flow)| flow.turn.at).map(|(index, _)| Flow(index))
    }

    fn first_other(&self) -> Option<Flow> {
        let waiting = TopicClass::all().skip(1).zip(self.classes.iter().skip(1)).filter(|(_, turn)| turn.waits);
        waiting.min_by_key(|(_, turn)| turn.at).and_then(|(class, _)| self.first_of(class))
    }
}

impl Cap {
    fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), tokens: 0, since: None }
    }

    fn is_open(&self) -> bool {
        self.tokens >= 0
    }

    fn advance(&mut self, now: Instant) {
        let Some(since) = self.since.replace(now) else {
            return;
        };
        let rate = i64::try_from(self.bytes_per_second).unwrap_or(i64::MAX);
        let micros = i64::try_from(now.saturating_duration_since(since).as_micros()).unwrap_or(i64::MAX);
        let gained = rate.saturating_mul(micros) / 1_000_000;
        if gained == 0 {
            // What is less than a byte is not lost.
            self.since = Some(since);
            return;
        }
        let most = rate.saturating_mul(CAP_BURST.as_millis() as i64) / 1000;
        self.tokens = self.tokens.saturating_add(gained).min(most);
    }

    fn free_at(&self) -> Option<Instant> {
        let missing = u64::try_from(self.tokens.checked_neg()?).ok().filter(|missing| *missing > 0)?;
        // A microsecond more than it takes, so that it is enough then.
        let micros = missing.saturating_mul(1_000_000) / self.bytes_per_second + 1;
        Some(self.since? + Duration::from_micros(micros))
    }
}

#[cfg(test)]
mod tests;
