//! What happens to a frame when the spill is full.
//!
//! Full is: more bytes than `max_bytes`, less free disk than `min_free_disk`, or data older than `max_age`.

use std::time::Duration;

use crate::entry::Class;

/// What a class does when the spill is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// Wait: the source is not read meanwhile. Nothing is lost as long as the source's retention lasts.
    Block,
    /// The oldest generation of the class makes room.
    DropOldest,
    /// What comes is not stored.
    DropNewest,
}

impl Policy {
    /// What a class does, by its number.
    pub fn of(class: Class) -> Self {
        match class.policy() {
            Class::DROP_OLDEST => Self::DropOldest,
            Class::DROP_NEWEST => Self::DropNewest,
            _ => Self::Block,
        }
    }

    /// The class of the topics with this policy and no other rule. It is on the disk: it never changes.
    pub fn class(self) -> Class {
        match self {
            Self::Block => Class::BLOCK,
            Self::DropOldest => Class::DROP_OLDEST,
            Self::DropNewest => Class::DROP_NEWEST,
        }
    }
}

/// How much may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of all files of the spill. At least 8 MiB.
    pub max_bytes: u64,
    /// Free bytes that the file system keeps.
    pub min_free_disk: u64,
    /// Oldest data; `None`: any age.
    pub max_age: Option<Duration>,
}

/// How full it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// Bytes of all files of the spill.
    pub disk_bytes: u64,
    /// Free bytes of the file system.
    pub free_disk: u64,
    /// Age of the oldest frame of the class.
    pub oldest: Option<Duration>,
}

/// A class that could make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// The class.
    pub class: Class,
    /// What it does when the spill is full.
    pub policy: Policy,
    /// Age of its oldest frame.
    pub age: Duration,
}

/// Why the spill takes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Full {
    /// `max_bytes` is reached.
    Bytes,
    /// `min_free_disk` is reached.
    Disk,
    /// `max_age` is reached.
    Age,
}

impl Full {
    /// Stable name for logs and metric labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bytes => "max_bytes",
            Self::Disk => "min_free_disk",
            Self::Age => "max_age",
        }
    }
}

/// What happens to the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is stored.
    Admit,
    /// The oldest generation of this class makes room; then ask again.
    DropOldest(Class),
    /// It is not stored, and what it holds is a gap.
    DropNewest(Full),
    /// It waits.
    Block(Full),
}

/// Decides about a frame of `bytes` of a class. `victims` are the classes that hold anything.
pub fn decide(bytes: u64, policy: Policy, class: Class, limits: &Limits, fill: &Fill, victims: &[Victim]) -> Verdict {
    let Some(full) = full(bytes, limits, fill) else {
        return Verdict::Admit;
    };
    // What may wait goes before what may be dropped: a class that said so makes room for others, if those are as urgent. Not because of the others' age.
    // What comes of a class that drops the newest is not worth what is as urgent, but what can wait longer.
    let least = if policy == Policy::DropNewest { class.urgency() + 1 } else { class.urgency() };
    let may_go = |victim: &&Victim| victim.class == class || (full != Full::Age && victim.class.urgency() >= least);
    let willing = victims.iter().filter(|victim| victim.policy == Policy::DropOldest).filter(may_go);
    // Bulk goes before alarms; of those as urgent, its own before others, and the oldest first.
    match willing.max_by_key(|victim| (victim.class.urgency(), victim.class == class, victim.age)) {
        Some(victim) => Verdict::DropOldest(victim.class),
        None if policy == Policy::DropNewest => Verdict::DropNewest(full),
        None => Verdict::Block(full),
    }
}

fn full(bytes: u64, limits: &Limits, fill: &Fill) -> Option<Full> {
    if fill.disk_bytes.saturating_add(bytes) > limits.max_bytes {
        return Some(Full::Bytes);
    }
    if fill.free_disk < limits.min_free_disk.saturating_add(bytes) {
        return Some(Full::Disk);
    }
    let (oldest, most) = (fill.oldest?, limits.max_age?);
    (oldest > most).then_some(Full::Age)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const LIMITS: Limits = Limits { max_bytes: 100, min_free_disk: 50, max_age: Some(Duration::from_secs(60)) };
    const FILL: Fill = Fill { disk_bytes: 90, free_disk: 1000, oldest: Some(Duration::from_secs(60)) };

    fn class(number: u8) -> Class {
        Class::new(number).unwrap()
    }

    fn victim(number: u8, policy: Policy, age: u64) -> Victim {
        Victim { class: class(number), policy, age: Duration::from_secs(age) }
    }

    #[test]
    fn each_limit_is_met_exactly() {
        let ask = |bytes, fill: &Fill| decide(bytes, Policy::Block, class(0), &LIMITS, fill, &[]);
        assert_eq!(ask(10, &FILL), Verdict::Admit);
        assert_eq!(ask(11, &FILL), Verdict::Block(Full::Bytes));
        assert_eq!(ask(10, &Fill { free_disk: 60, ..FILL }), Verdict::Admit);
        assert_eq!(ask(10, &Fill { free_disk: 59, ..FILL }), Verdict::Block(Full::Disk));
        assert_eq!(ask(10, &Fill { oldest: Some(Duration::from_secs(61)), ..FILL }), Verdict::Block(Full::Age));
    }

    #[test]
    fn the_classes_of_the_policies_are_fixed() {
        let classes = [Policy::Block, Policy::DropOldest, Policy::DropNewest].map(|policy| policy.class().number());
        assert_eq!(classes, [0, 1, 2]);
    }

    #[test]
    fn bulk_goes_before_alarms_and_never_the_other_way_round() {
        let of = |policy: Policy, urgency| Class::of(policy.class(), urgency, 0).unwrap();
        let victim = |class, age| Victim { class, policy: Policy::of(class), age: Duration::from_secs(age) };
        let (alarms, bulk) = (of(Policy::DropOldest, 0), of(Policy::DropOldest, 3));
        let victims = [victim(alarms, 99), victim(bulk, 1)];
        let ask = |class: Class, victims: &[Victim]| decide(11, Policy::of(class), class, &LIMITS, &FILL, victims);
        assert_eq!(ask(alarms, &victims), Verdict::DropOldest(bulk), "before its own");
        assert_eq!(ask(of(Policy::Block, 0), &victims), Verdict::DropOldest(bulk));
        assert_eq!(ask(alarms, &victims[..1]), Verdict::DropOldest(alarms));
        assert_eq!(ask(of(Policy::Block, 3), &victims[..1]), Verdict::Block(Full::Bytes));
        assert_eq!(ask(of(Policy::DropNewest, 2), &victims), Verdict::DropOldest(bulk), "before what comes of a more urgent class");
        assert_eq!(ask(of(Policy::DropNewest, 3), &victims), Verdict::DropNewest(Full::Bytes), "what comes before what is as urgent");
        assert_eq!(ask(of(Policy::DropNewest, 1), &victims[..1]), Verdict::DropNewest(Full::Bytes), "never alarms");
        let old = Fill { disk_bytes: 0, oldest: Some(Duration::from_secs(61)), ..FILL };
        assert_eq!(decide(1, Policy::DropOldest, alarms, &LIMITS, &old, &victims), Verdict::DropOldest(alarms), "its own is too old");
    }

    #[test]
    fn a_class_tells_its_policy_and_its_urgency() {
        let mut seen = std::collections::BTreeSet::new();
        for policy in [Policy::Block, Policy::DropOldest, Policy::DropNewest] {
            for (urgency, slot) in (0..4).flat_map(|urgency| (0..Class::MAX_SLOTS).map(move |slot| (urgency, slot))) {
                let class = Class::of(policy.class(), urgency, slot).unwrap();
                assert_eq!((Policy::of(class), class.urgency(), Class::new(class.number())), (policy, urgency, Some(class)));
                assert!(seen.insert(class), "{class:?} twice");
            }
        }
        assert_eq!(
            (seen.len(), Class::of(Class::BLOCK, 4, 0), Class::of(Class::BLOCK, 0, Class::MAX_SLOTS)),
            (Class::MAX.into(), None, None)
        );
        assert_eq!(Class::of(Class::DROP_NEWEST, 2, 0), Some(Class::DROP_NEWEST), "spills of before");
    }

    #[test]
    fn the_policy_decides_who_pays() {
        let victims = [victim(0, Policy::Block, 99), victim(1, Policy::DropOldest, 5), victim(2, Policy::DropOldest, 9)];
        let ask = |number, policy| decide(11, policy, class(number), &LIMITS, &FILL, &victims);
        assert_eq!(ask(1, Policy::DropOldest), Verdict::DropOldest(class(1)), "its own first");
        assert_eq!(ask(0, Policy::Block), Verdict::DropOldest(class(2)), "the oldest of those that said so");
        assert_eq!(ask(11, Policy::DropNewest), Verdict::DropNewest(Full::Bytes));
        assert_eq!(decide(11, Policy::DropOldest, class(1), &LIMITS, &FILL, &victims[..1]), Verdict::Block(Full::Bytes), "nothing to drop");
        let old = Fill { disk_bytes: 0, oldest: Some(Duration::from_secs(61)), ..FILL };
        assert_eq!(
            decide(1, Policy::Block, class(0), &LIMITS, &old, &victims),
            Verdict::Block(Full::Age),
            "others' data does not make it younger"
        );
    }
}
