//! Over which way the next attempt goes: UDP, or TCP where UDP is blocked.
//!
//! Rules, with `n` collector addresses:
//!
//! - A. UDP comes first. After [`MAX_UNANSWERED`] handshakes over it that nobody answered, with nothing heard between them, the next attempt goes over TCP.
//! - B. As long as no session opens, the ways take turns: `n` attempts each, so that every address is tried over both.
//! - C. Once a session has been open over TCP, TCP stays, also after that session. UDP is asked for a minute later and then once a day (`link.udp_retry`), by a probe. An answer
//!   ends the session, and the next attempt goes over UDP: one handshake without an answer, and TCP is back.
//! - D. A probe that is answered during an attempt over TCP, or before it, does the same, unless the last answered probe was not followed by an answered handshake (a line that
//!   lets small packets through only). Then probes are not believed, but for that of the day, until a session opens over UDP.
//! - E. Where the last session was over TCP, a TCP connection that is made while an attempt over UDP waits, or before it, brings the turn of TCP forward.

use std::time::{Duration, Instant};

/// Handshakes over UDP in a row that nobody answered, before TCP is tried.
pub const MAX_UNANSWERED: u32 = 3;

/// The first question comes so long after a session has opened over TCP: when a line comes back after an outage, TCP may be there first.
const FIRST_QUESTION: Duration = Duration::from_secs(60);

/// What carries an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// QUIC on UDP.
    Udp,
    /// QUIC in TLS over TCP.
    Tcp,
}

impl Way {
    /// As labels and status have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
        }
    }
}

/// What the next attempts shall be.
#[derive(Debug, Clone)]
pub struct Ways {
    addresses: u32,
    day: Duration,
    way: Way,
    phase: Phase,
    /// When UDP is asked for; only in [`Phase::Tcp`].
    ask_at: Option<Instant>,
    /// A probe was answered and the handshake after it was not.
    probes_lie: bool,
    /// The last session was over TCP.
    was_tcp: bool,
}

/// Why `way` is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// UDP works, as far as is known; so many handshakes in a row had no answer.
    Udp(u32),
    /// Neither is known to work: so many attempts are left on this way.
    Alternate(u32),
    /// TCP works.
    Tcp,
    /// An answered probe says that UDP works; `back`: TCP did before.
    Trial { back: bool },
}

impl Ways {
    /// For a list of `addresses` addresses, over UDP. UDP is asked for every `day` while TCP works.
    pub fn new(addresses: usize, day: Duration) -> Self {
        let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
        Self { addresses, day, way: Way::Udp, phase: Phase::Udp(0), ask_at: None, probes_lie: false, was_tcp: false }
    }

    /// Over which way the next attempt goes.
    pub fn way(&self) -> Way {
        self.way
    }

    /// Whether an answered probe shall end a pause or an attempt over TCP: see [`Ways::udp_answered`].
    pub fn heeds_probes(&self) -> bool {
        !self.probes_lie
    }

    /// Whether TCP is to be asked for during a pause or an attempt over UDP: see [`Ways::tcp_answered`].
    pub fn asks_for_tcp(&self) -> bool {
        self.was_tcp && matches!(self.phase, Phase::Alternate(_) | Phase::Tcp)
    }

    /// A session has opened over [`Ways::way`]. `random` is uniform in [0, 1).
    pub fn opened(&mut self, now: Instant, random: f64) {
        self.was_tcp = self.way == Way::Tcp;
        match self.way {
            Way::Udp => (self.phase, self.ask_at, self.probes_lie) = (Phase::Udp(0), None, false),
            Way::Tcp => {
                self.phase = Phase::Tcp;
                // The question of the day stays, however often sessions come and go.
                let first = if self.probes_lie { self.day } else { FIRST_QUESTION.min(self.day) };
                self.ask_at.get_or_insert_with(|| now + jittered(first, random));
            }
        }
    }

    /// An attempt over [`Ways::way`] has failed; `answered`: somebody was there, and said no. Answers true when UDP has just been found blocked: once, until it works again.
    pub fn failed(&mut self, answered: bool) -> bool {
        match self.phase {
            Phase::Udp(_) if answered => self.phase = Phase::Udp(0),
            Phase::Udp(unanswered) if unanswered + 1 < MAX_UNANSWERED => self.phase = Phase::Udp(unanswered + 1),
            Phase::Udp(_) => {
                (self.way, self.phase) = (Way::Tcp, Phase::Alternate(self.addresses));
                return true;
            }
            // Over UDP somebody is there: it is not blocked.
            Phase::Alternate(_) | Phase::Trial { .. } if answered && self.way == Way::Udp => self.phase = Phase::Udp(0),
            Phase::Alternate(left) if left > 1 => self.phase = Phase::Alternate(left - 1),
            Phase::Alternate(_) => {
                self.way = if self.way == Way::Udp { Way::Tcp } else { Way::Udp };
                self.phase = Phase::Alternate(self.addresses);
            }
            Phase::Tcp => {
                // It counts as this attempt of its turn.
                (self.phase, self.ask_at) = (Phase::Alternate(self.addresses), None);
                return self.failed(answered);
            }
            Phase::Trial { back } => {
                self.probes_lie = true;
                (self.way, self.phase) = (Way::Tcp, if back { Phase::Tcp } else { Phase::Alternate(self.addresses) });
            }
        }
        false
    }

    /// Whether UDP is to be asked for now, by a probe; to be called about once a second while a session is open. True once for each question.
    pub fn must_ask(&mut self, now: Instant, random: f64) -> bool {
        if self.phase != Phase::Tcp || self.ask_at.is_none_or(|at| now < at) {
            return false;
        }
        self.ask_at = Some(now + jittered(self.day, random));
        true
    }

    /// A probe was answered: the next attempt goes over UDP.
    pub fn udp_answered(&mut self) {
        match self.phase {
            Phase::Udp(_) => {}
            Phase::Tcp => (self.way, self.phase) = (Way::Udp, Phase::Trial { back: true }),
            Phase::Alternate(_) => (self.way, self.phase) = (Way::Udp, Phase::Trial { back: false }),
            Phase::Trial { .. } => {}
        }
    }

    /// A TCP connection was made: the next attempt goes over TCP.
    pub fn tcp_answered(&mut self) {
        if self.asks_for_tcp() && self.way == Way::Udp {
            (self.way, self.phase) = (Way::Tcp, Phase::Alternate(self.addresses));
        }
    }
}

fn jittered(time: Duration, random: f64) -> Duration {
    time.mul_f64(0.9 + 0.2 * random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    fn attempts(ways: &mut Ways, count: usize) -> String {
        let mut made = String::new();
        for _ in 0..count {
            made.push(if ways.way() == Way::Udp { 'u' } else { 't' });
            ways.failed(false);
        }
        made
    }

    fn on_tcp(now: Instant) -> Ways {
        let mut ways = Ways::new(1, DAY);
        assert_eq!(attempts(&mut ways, 3), "uuu");
        ways.opened(now, 0.5);
        ways
    }

    #[test]
    fn after_three_silent_handshakes_the_ways_take_turns() {
        assert_eq!(attempts(&mut Ways::new(1, DAY), 9), "uuututu".to_owned() + "tu");
        assert_eq!(attempts(&mut Ways::new(2, DAY), 11), "uuuttuuttuu");
        let mut ways = Ways::new(1, DAY);
        let told: Vec<_> = (0..9).map(|_| ways.failed(false)).collect();
        assert_eq!(told.iter().filter(|told| **told).count(), 1);
        assert_eq!(told.get(2), Some(&true));
    }

    #[test]
    fn whoever_answers_over_udp_is_not_behind_a_block() {
        let mut ways = Ways::new(1, DAY);
        for _ in 0..20 {
            assert_eq!(attempts(&mut ways, 2), "uu");
            assert!(!ways.failed(true));
        }
        assert_eq!(attempts(&mut ways, 5), "uuutu");
    }

    #[test]
    fn tcp_that_works_stays_and_udp_is_asked_for_daily() {
        let begun = Instant::now();
        let mut ways = on_tcp(begun);
        let mut asked = Vec::new();
        for minute in 0..3 * 24 * 60 {
            let now = begun + Duration::from_secs(60 * minute);
            if ways.must_ask(now, 0.5) {
                asked.push(minute);
            }
            // A session that is lost now and then does not put the question off.
            if minute % 60 == 0 {
                assert_eq!(ways.way(), Way::Tcp);
                ways.opened(now, 0.5);
            }
        }
        assert_eq!(asked, [1, 1 + 24 * 60, 1 + 2 * 24 * 60]);
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Silence,
        Refusal,
        Opened,
        Answer,
        TcpAnswer,
        Second(u32),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => Just(Event::Silence),
            1 => Just(Event::Refusal),
            1 => Just(Event::Opened),
            1 => Just(Event::Answer),
            1 => Just(Event::TcpAnswer),
            1 => (1..200_000u32).prop_map(Event::Second),
        ];
        prop::collection::vec(event, 0..200)
    }

    proptest! {
        /// Whatever happens: TCP only after three unanswered handshakes over UDP; nobody is tried over one way only for longer than a turn; one question a day.
        #[test]
        fn no_way_is_forgotten_and_udp_comes_first(events in events(), addresses in 1..5usize, random in 0.0..1.0f64) {
            let (mut ways, mut now) = (Ways::new(addresses, DAY), Instant::now());
            let (mut silent_udp, mut in_a_row, mut may_be_tcp, mut on_tcp) = (0u32, 0usize, false, false);
            let mut asked: Option<Instant> = None;
            for event in events {
                let way = ways.way();
                prop_assert!(way == Way::Udp || may_be_tcp, "TCP, and UDP was not tried");
                match event {
                    Event::Silence => {
                        silent_udp += u32::from(way == Way::Udp);
                        ways.failed(false);
                        in_a_row = if ways.way() == way { in_a_row + 1 } else { 0 };
                        on_tcp = false;
                    }
                    Event::Refusal => {
                        ways.failed(true);
                        in_a_row = if ways.way() == way { in_a_row + 1 } else { 0 };
                        if way == Way::Udp {
                            prop_assert_eq!(ways.way(), Way::Udp, "it is not blocked");
                            (silent_udp, may_be_tcp, in_a_row) = (0, false, 0);
                        }
                        on_tcp = false;
                    }
                    Event::Opened => {
                        ways.opened(now, random);
                        prop_assert_eq!(ways.way(), way, "what works stays");
                        if way == Way::Udp {
                            (silent_udp, may_be_tcp) = (0, false);
                        }
                        (in_a_row, on_tcp) = (0, way == Way::Tcp);
                    }
                    Event::Answer => {
                        ways.udp_answered();
                        prop_assert_eq!(ways.way(), Way::Udp);
                        (in_a_row, on_tcp) = (0, false);
                    }
                    Event::TcpAnswer => {
                        let asks = ways.asks_for_tcp();
                        prop_assert!(!asks || may_be_tcp, "TCP is asked for, and never was the way");
                        ways.tcp_answered();
                        prop_assert_eq!(ways.way(), if asks { Way::Tcp } else { way });
                        in_a_row = if ways.way() == way { in_a_row } else { 0 };
                    }
                    Event::Second(seconds) => {
                        now += Duration::from_secs(u64::from(seconds));
                        // As the runner does: only while a session is open.
                        let asks = on_tcp && ways.must_ask(now, random);
                        prop_assert!(asks || !on_tcp || Duration::from_secs(u64::from(seconds)) < DAY.mul_f64(1.1), "not asked for more than a day");
                        if asks {
                            prop_assert!(asked.is_none_or(|last| now - last >= FIRST_QUESTION.mul_f64(0.9)));
                            asked = Some(now);
                            prop_assert!(!ways.must_ask(now + DAY.mul_f64(0.89), random), "twice a day");
                        }
                    }
                }
                may_be_tcp |= silent_udp >= MAX_UNANSWERED;
                let turn = addresses.max(MAX_UNANSWERED as usize);
                prop_assert!(in_a_row < turn, "{in_a_row} attempts over {:?}", ways.way());
            }
        }
    }

    #[test]
    fn a_tcp_connection_brings_tcp_back_where_it_was_the_way() {
        let mut ways = Ways::new(2, DAY);
        assert_eq!(attempts(&mut ways, 5), "uuutt");
        assert_eq!(ways.way(), Way::Udp);
        ways.tcp_answered();
        assert_eq!(ways.way(), Way::Udp, "a port that is open says nothing of the collector, as long as it never was there");
        let mut ways = on_tcp(Instant::now());
        assert_eq!(attempts(&mut ways, 1), "t");
        assert_eq!(ways.way(), Way::Udp);
        ways.tcp_answered();
        assert_eq!(attempts(&mut ways, 3), "tut", "once, and then the ways take turns again");
    }

    #[test]
    fn an_answered_probe_brings_udp_back_for_one_handshake_or_for_good() {
        let now = Instant::now();
        let mut ways = on_tcp(now);
        ways.udp_answered();
        assert_eq!(attempts(&mut ways, 2), "ut", "small packets pass, handshakes do not");
        assert!(!ways.heeds_probes());
        ways.opened(now, 0.5);
        assert!(!ways.must_ask(now + DAY / 2, 0.5) || ways.must_ask(now + 2 * DAY, 0.5));
        ways.udp_answered();
        assert_eq!(ways.way(), Way::Udp);
        ways.opened(now, 0.5);
        assert!(ways.heeds_probes());
        assert_eq!(attempts(&mut ways, 4), "uuut", "from the beginning");
        assert!(!ways.must_ask(now + 9 * DAY, 0.5));
    }
}
