#![expect(clippy::unwrap_used, reason = "tests")]

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::*;

const TERMS: Terms = Terms { interval: Duration::from_secs(900), bytes: 1 << 20 };

const FREE: Seen = Seen {
    waiting_bytes: 0,
    urgent_waits: false,
    is_new: false,
    may_send: true,
    may_send_urgent: true,
    is_ending: false,
    is_unsafe: false,
    is_level: false,
    is_quiet: false,
};

const DONE: Seen = Seen { is_level: true, is_quiet: true, ..FREE };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Between two sessions, since `now`.
fn waiting(now: Instant) -> Sessions {
    let mut sessions = Sessions::new(Some(TERMS), now);
    assert!(!sessions.opened(now));
    let now = now + LEAST_OPEN;
    assert_eq!(sessions.look(now, DONE, 0.0), Some(Step::LastCall));
    assert_eq!(sessions.look(now, DONE, 0.0), Some(Step::Close));
    assert!(sessions.is_waiting());
    sessions
}

#[test]
fn each_reason_makes_a_session_due_if_it_may_be_sent() {
    let begun = Instant::now();
    let reasons = [
        (Seen { waiting_bytes: TERMS.bytes, ..FREE }, Some(Reason::Amount)),
        (Seen { waiting_bytes: TERMS.bytes, may_send: false, ..FREE }, None),
        (Seen { waiting_bytes: TERMS.bytes - 1, ..FREE }, None),
        (Seen { urgent_waits: true, may_send: false, ..FREE }, Some(Reason::Urgent)),
        (Seen { urgent_waits: true, may_send: false, may_send_urgent: false, ..FREE }, None),
        (Seen { is_ending: true, is_unsafe: true, ..FREE }, Some(Reason::Shutdown)),
        (Seen { is_ending: true, ..FREE }, None),
        (Seen { is_new: true, ..FREE }, Some(Reason::Start)),
    ];
    for (seen, reason) in reasons {
        let mut sessions = waiting(begun);
        assert_eq!(sessions.look(begun + secs(60), seen, 0.0), reason.map(Step::Connect), "{seen:?}");
        assert_eq!(sessions.is_waiting(), reason.is_none());
    }
}

#[test]
fn the_interval_is_kept_and_waits_for_the_plan() {
    let begun = Instant::now();
    let mut sessions = waiting(begun);
    let closed = begun + LEAST_OPEN;
    assert_eq!(sessions.next_in(closed + secs(100)), Some(secs(800)));
    assert_eq!(sessions.look(closed + secs(899), FREE, 0.0), None);
    assert_eq!(sessions.look(closed + secs(900), Seen { may_send: false, ..FREE }, 0.0), None);
    assert_eq!(sessions.look(closed + secs(5000), FREE, 0.0), Some(Step::Connect(Reason::Interval)));
    assert_eq!((sessions.next_in(closed), sessions.due_since()), (None, Some(closed + secs(5000))));
}

#[test]
fn a_tenth_of_the_interval_is_given_away() {
    let now = Instant::now();
    let mut sessions = Sessions::new(Some(TERMS), now);
    sessions.opened(now);
    sessions.look(now + LEAST_OPEN, DONE, 1.0);
    assert_eq!(sessions.look(now + LEAST_OPEN, DONE, 1.0), Some(Step::Close));
    assert_eq!(sessions.next_in(now + LEAST_OPEN), Some(secs(810)));
}

#[test]
fn without_terms_there_is_always_a_session() {
    let now = Instant::now();
    let mut sessions = Sessions::new(None, now);
    assert!(!sessions.opened(now));
    assert_eq!(sessions.look(now + secs(100_000), DONE, 0.0), None);
    sessions.lost();
    assert!(sessions.opened(now + secs(1)), "it was lost");
    // The profile changes in a session, and again between two.
    sessions.set_terms(Some(TERMS), now);
    assert_eq!(sessions.look(now + secs(2), DONE, 0.0), Some(Step::LastCall));
    assert_eq!(sessions.look(now + secs(2), DONE, 0.0), Some(Step::Close));
    sessions.set_terms(None, now);
    assert_eq!(sessions.look(now + secs(3), FREE, 0.0), Some(Step::Connect(Reason::Profile)));
    assert!(!sessions.opened(now + secs(3)), "it was due, not lost");
}

#[test]
fn a_shorter_interval_holds_at_once() {
    let begun = Instant::now();
    let mut sessions = waiting(begun);
    sessions.set_terms(Some(Terms { interval: secs(60), ..TERMS }), begun + secs(100));
    assert_eq!(sessions.look(begun + secs(100), FREE, 0.0), Some(Step::Connect(Reason::Interval)));
}

#[test]
fn a_session_that_is_held_ends_and_one_from_which_nothing_comes() {
    let now = Instant::now();
    let held = Seen { waiting_bytes: 500, may_send: false, is_quiet: true, ..FREE };
    let quiet = Seen { is_quiet: true, ..FREE };
    for (seen, after) in [(held, HELD_PATIENCE), (quiet, NOTHING_COMES)] {
        let mut sessions = Sessions::new(Some(TERMS), now);
        sessions.opened(now);
        assert_eq!(sessions.look(now, seen, 0.0), None);
        assert_eq!(sessions.look(now + after - Duration::from_millis(1), seen, 0.0), None);
        assert_eq!(sessions.look(now + after, seen, 0.0), Some(Step::LastCall));
        assert_eq!(sessions.look(now + after, seen, 0.0), Some(Step::Close));
    }
}

#[test]
fn an_agent_that_ends_does_not_take_leave_before() {
    let now = Instant::now();
    let mut sessions = Sessions::new(Some(TERMS), now);
    sessions.opened(now);
    assert_eq!(sessions.look(now + secs(2), DONE, 0.0), Some(Step::LastCall));
    let ending = Seen { is_ending: true, ..DONE };
    assert_eq!(sessions.look(now + secs(2), ending, 0.0), Some(Step::GoOn), "all there is goes");
    assert_eq!(sessions.look(now + secs(3), ending, 0.0), None);
}

#[test]
fn a_goal_is_reached_when_every_lane_is_that_far_or_goes_no_further() {
    let next = |next| NextOffset::new(next).unwrap();
    let goal = || Goal::new([(Lane(1), next(10)), (Lane(2), next(20))]);
    assert!(Goal::default().is_reached(|_| None));
    assert!(goal().is_reached(|lane| Some(if lane == Lane(1) { next(10) } else { next(21) })));
    assert!(goal().is_reached(|lane| (lane == Lane(1)).then(|| next(10))));
    let mut goal = goal();
    assert!(!goal.is_reached(|lane| Some(if lane == Lane(1) { next(9) } else { next(21) })));
    assert!(goal.is_reached(|lane| Some(if lane == Lane(1) { next(10) } else { next(0) })), "the second was there");
}

/// A site and its line: what comes, what goes, what may go.
struct World {
    random: StdRng,
    now: Instant,
    /// Of class 0, and of all others.
    waits: [u64; 2],
    /// Under way, likewise.
    sent: [u64; 2],
    /// What waited when the session looked, and is still to be acknowledged.
    goal: Option<u64>,
    line: bool,
    may: [bool; 2],
    connected: bool,
    ending: bool,
    /// When the last session ended.
    closed: Instant,
    /// How likely something of class 0, and of the others, comes between two looks.
    comes: [f64; 2],
}

impl World {
    fn seen(&self) -> Seen {
        let waiting_bytes = self.waits.iter().chain(&self.sent).sum();
        Seen {
            waiting_bytes,
            urgent_waits: self.waits[0] + self.sent[0] > 0,
            may_send: self.may[1],
            may_send_urgent: self.may[0],
            is_new: false,
            is_ending: self.ending,
            is_unsafe: waiting_bytes > 0,
            is_level: self.connected && self.goal == Some(0),
            is_quiet: self.sent == [0, 0],
        }
    }

    /// Something happens.
    fn go(&mut self, sessions: &Sessions) {
        let most = [100, 2_000, 60_000][self.random.random_range(0..3)];
        self.now += Duration::from_millis(self.random.random_range(1..most));
        if self.random.random_bool(self.comes[1]) {
            self.waits[1] += self.random.random_range(1..200_000);
        }
        if self.random.random_bool(self.comes[0]) {
            self.waits[0] += 100;
        }
        if self.random.random_bool(0.02) {
            self.line = !self.line;
        }
        if self.random.random_bool(0.02) {
            let all = self.random.random_bool(0.7);
            self.may = [all || self.random.random_bool(0.5), all];
        }
        if !self.connected {
            return;
        }
        self.goal.get_or_insert(self.waits[0] + self.waits[1]);
        for class in 0..2 {
            let gone = self.random.random_range(0..=self.waits[class]);
            if self.may[class] && (class == 0 || !sessions.is_last_call()) {
                self.waits[class] -= gone;
                self.sent[class] += gone;
            }
            if self.random.random_bool(0.5) {
                self.goal = self.goal.map(|goal| goal.saturating_sub(self.sent[class]));
                self.sent[class] = 0;
            }
        }
    }
}

#[test]
fn random_sites_are_never_late_never_early_and_lose_nothing() {
    let seed: u64 = std::env::var("SEED").map_or_else(|_| rand::rng().random(), |seed| seed.parse().unwrap());
    println!("SEED={seed}");
    let mut reasons = BTreeMap::new();
    for run in 0..300 {
        let begun = Instant::now();
        let mut random = StdRng::seed_from_u64(seed.wrapping_add(run));
        let comes = [random.random_range(0.0..0.01), random.random_range(0.0..0.4)]
            .map(|often| if random.random_bool(0.5) { often } else { often / 100.0 });
        let mut world = World {
            random,
            now: begun,
            waits: [0, 0],
            sent: [0, 0],
            goal: None,
            line: true,
            may: [true, true],
            connected: false,
            ending: false,
            closed: begun,
            comes,
        };
        let mut sessions = Sessions::new(Some(TERMS), begun);
        *reasons.entry(Reason::Start).or_insert(0) += 1;
        for _ in 0..2_000 {
            world.go(&sessions);
            world.ending |= world.random.random_bool(0.0002);
            if world.connected && !world.line {
                // What was under way goes again.
                sessions.lost();
                (world.connected, world.goal) = (false, None);
                for class in 0..2 {
                    world.waits[class] += std::mem::take(&mut world.sent[class]);
                }
            }
            if !world.connected && world.line && !sessions.is_waiting() {
                sessions.opened(world.now);
                world.connected = true;
            }
            let (seen, before) = (world.seen(), world.closed);
            let random = world.random.random();
            match sessions.look(world.now, seen, random) {
                Some(Step::Connect(reason)) => {
                    assert!(!world.connected, "B");
                    *reasons.entry(reason).or_insert(0) += 1;
                    let waited = world.now - before;
                    match reason {
                        Reason::Interval => assert!(waited >= TERMS.interval.mul_f64(0.9) && seen.may_send, "A: early, {waited:?}"),
                        Reason::Amount => assert!(seen.waiting_bytes >= TERMS.bytes && seen.may_send, "A"),
                        Reason::Urgent => assert!(seen.urgent_waits && seen.may_send_urgent, "A"),
                        Reason::Shutdown => assert!(world.ending && seen.is_unsafe, "A"),
                        Reason::Start | Reason::Profile => panic!("A: {reason:?}"),
                    }
                }
                Some(Step::LastCall) => assert!(world.connected && !world.ending, "C"),
                Some(Step::GoOn) => world.goal = None,
                Some(Step::Close) => {
                    assert!(world.connected && !world.ending, "C");
                    assert_eq!(world.sent, [0, 0], "C: something is under way");
                    assert!(world.waits[0] == 0 || !world.may[0], "C: an alarm is left");
                    assert!(!world.may[1] || world.waits[1] < TERMS.bytes / MUCH, "C: much is left");
                    (world.connected, world.goal, world.closed) = (false, None, world.now);
                }
                None => {}
            }
            if sessions.is_waiting() {
                assert!(!world.connected, "A: connected between two sessions");
                assert!(!world.may[1] || world.now - world.closed < TERMS.interval, "A: late");
                assert!(!world.may[1] || world.seen().waiting_bytes < TERMS.bytes, "A: late, much waits");
                assert!(!world.may[0] || world.waits[0] == 0, "A: late, an alarm waits");
            }
        }
        // Nothing more comes, and all may go: what is left goes, and then it is quiet.
        (world.may, world.line, world.ending) = ([true, true], true, false);
        let mut calm = 0;
        while world.waits != [0, 0] || !sessions.is_waiting() {
            calm += 1;
            assert!(calm < 200, "D: it does not end: {sessions:?}");
            world.now += secs(5);
            if !world.connected && !sessions.is_waiting() {
                sessions.opened(world.now);
                world.connected = true;
            }
            if world.connected {
                (world.goal, world.sent) = (Some(0), [0, 0]);
                world.waits = [0, if sessions.is_last_call() { world.waits[1] } else { 0 }];
            }
            if sessions.look(world.now, world.seen(), 0.5) == Some(Step::Close) {
                (world.connected, world.goal) = (false, None);
            }
        }
    }
    println!("{reasons:?}");
    for reason in [Reason::Interval, Reason::Amount, Reason::Urgent, Reason::Shutdown] {
        assert!(reasons.get(&reason).is_some_and(|count| *count > 5), "{reason:?} was not met: {reasons:?}");
    }
}
