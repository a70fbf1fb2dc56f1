//! When a transaction is committed.
//!
//! A commit costs the central Kafka the same whether it holds one record or ten thousand, so a site with much to say commits about four
//! times a second (`transactions.interval`), or when it holds enough (`transactions.max_bytes`). The first data after a pause is committed
//! almost at once: nobody waits for company that may not come. A light transaction of a site that goes on sending is committed as early as
//! the collector's [`Turns`] allow: while few sites are busy, that is early, and with many of them it is the interval again. An idle site has
//! no transaction at all.

use std::time::{Duration, Instant};

/// How long the first data after a pause waits for more: frames of one burst arrive within milliseconds.
const LINGER: Duration = Duration::from_millis(2);

/// Up to so many record bytes a transaction is light. With more, waiting pays: the commit's costs are shared by more records, and a flow that
/// brings so much within milliseconds is catching up, where throughput matters and not delay.
const LIGHT_BYTES: usize = 128 * 1024;

/// Time between two early commits of one collector, all its sites together: a hundred a second. Each costs the brokers a marker in every
/// partition that it touches, and some records of the transaction coordinator.
const EARLY_EVERY: Duration = Duration::from_millis(10);

/// What the brokers take to write a transaction's markers after they have answered its commit, on a local network. A transaction that begins
/// sooner is refused as concurrent, and librdkafka tries again 20 ms later.
const MARKERS: Duration = Duration::from_millis(5);

/// Steps of busy sites while others wait to be opened: so many bytes at most, so far apart. A site that does not know where it goes on can do
/// nothing; what the busy ones have to say stays where it is meanwhile. It is their transactions that take the processors' time from the
/// openings: of a hundred busy sites, a step each second left room for 35 openings a second, one in four seconds for 70.
const ASIDE_BYTES: usize = 256 * 1024;
const ASIDE_EVERY: Duration = Duration::from_secs(4);

/// Gives early commits their turns, so that they stay bounded however many sites a collector has.
#[derive(Debug, Default)]
pub struct Turns {
    next: Option<Instant>,
}

impl Turns {
    /// When a transaction that begins now may be committed early; `None` when that would not be within `wait`.
    pub fn take(&mut self, now: Instant, wait: Duration) -> Option<Instant> {
        let turn = self.next.map_or(now, |next| next.max(now));
        if turn > now + wait {
            return None;
        }
        self.next = Some(turn + EARLY_EVERY);
        Some(turn)
    }
}

/// Decides when the transaction of one site is committed.
#[derive(Debug)]
pub struct Pacer {
    max_bytes: usize,
    interval: Duration,
    open: Option<Open>,
    last_commit: Option<Instant>,
    aside: bool,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// When it may be committed if it is light.
    turn: Option<Instant>,
    bytes: usize,
    flush: bool,
}

impl Pacer {
    /// `max_bytes` is what a transaction may hold (the section that passes it is still taken), `interval` the time between two commits
    /// of a busy site.
    pub fn new(max_bytes: usize, interval: Duration) -> Self {
        Self { max_bytes, interval, open: None, last_commit: None, aside: false }
    }

    /// A transaction begins with its first data. `turn` is when it may be committed early, if it may ([`Turns::take`]).
    pub fn begin(&mut self, now: Instant, turn: Option<Instant>) {
        self.open = Some(Open { since: now, turn, bytes: 0, flush: false });
    }

    /// Whether the site is to step aside for others that wait to be opened.
    pub fn step_aside(&mut self, aside: bool) {
        self.aside = aside;
    }

    /// Before this time no data should be written: the markers of the last transaction are on their way, or others come first. `None` when
    /// there is nothing to wait for.
    pub fn not_before(&self) -> Option<Instant> {
        let pause = if self.aside { ASIDE_EVERY } else { MARKERS };
        if self.is_open() { None } else { self.last_commit.map(|last| last + pause) }
    }

    fn limit(&self) -> usize {
        if self.aside { self.max_bytes.min(ASIDE_BYTES) } else { self.max_bytes }
    }

    /// The time between two commits of a site with much to say: what a turn is worth waiting for.
    pub fn interval(&self) -> Duration {
        self.interval
    }

    /// Record bytes were added.
    pub fn add(&mut self, bytes: usize) {
        if let Some(open) = &mut self.open {
            open.bytes += bytes;
        }
    }

    /// Nothing more comes for now, or somebody waits: commit at once. Without effect when no transaction is open.
    pub fn flush(&mut self) {
        if let Some(open) = &mut self.open {
            open.flush = true;
        }
    }

    /// True while a transaction is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Bytes that may still be added.
    pub fn room(&self) -> usize {
        self.limit().saturating_sub(self.open.as_ref().map_or(0, |open| open.bytes))
    }

    /// When to commit; a time that is not in the future means now. `None` when no transaction is open.
    pub fn due(&self) -> Option<Instant> {
        let open = self.open.as_ref()?;
        if open.flush || open.bytes >= self.limit() {
            return Some(open.since);
        }
        let soon = open.since + LINGER.min(self.interval);
        let paced = self.last_commit.map_or(soon, |last| last + self.interval);
        let paced = match open.turn {
            Some(turn) if open.bytes <= LIGHT_BYTES => turn.min(paced),
            _ => paced,
        };
        Some(soon.max(paced).min(open.since + self.interval))
    }

    /// The transaction was committed.
    pub fn committed(&mut self, now: Instant) {
        self.open = None;
        self.last_commit = Some(now);
    }

    /// The transaction was aborted: its data is taken again.
    pub fn aborted(&mut self) {
        self.open = None;
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(250);

    fn pacer() -> (Pacer, Instant) {
        (Pacer::new(1000, INTERVAL), Instant::now())
    }

    #[test]
    fn an_idle_site_has_nothing_to_do() {
        assert_eq!(pacer().0.due(), None);
    }

    #[test]
    fn the_first_data_after_a_pause_is_committed_almost_at_once() {
        let (mut pacer, now) = pacer();
        pacer.begin(now, None);
        assert_eq!(pacer.due(), Some(now + LINGER));
        pacer.committed(now);
        let later = now + 10 * INTERVAL;
        pacer.begin(later, None);
        assert_eq!(pacer.due(), Some(later + LINGER));
    }

    #[test]
    fn a_busy_site_commits_once_an_interval() {
        let (mut pacer, now) = pacer();
        pacer.begin(now, None);
        pacer.committed(now + Duration::from_millis(10));
        pacer.begin(now + Duration::from_millis(11), None);
        assert_eq!(pacer.due(), Some(now + Duration::from_millis(10) + INTERVAL));
    }

    #[test]
    fn a_full_transaction_or_a_flush_is_committed_now() {
        let (mut pacer, now) = pacer();
        pacer.committed(now);
        pacer.begin(now, None);
        pacer.add(999);
        assert_eq!(pacer.room(), 1);
        assert!(pacer.due().unwrap() > now);
        pacer.add(1);
        assert_eq!((pacer.room(), pacer.due()), (0, Some(now)));
        pacer.committed(now);
        pacer.begin(now, None);
        pacer.flush();
        assert_eq!(pacer.due(), Some(now));
    }

    #[test]
    fn a_flush_without_a_transaction_does_not_hurry_the_next_one() {
        let (mut pacer, now) = pacer();
        pacer.committed(now);
        pacer.flush();
        pacer.begin(now, None);
        assert_eq!(pacer.due(), Some(now + INTERVAL));
    }

    #[test]
    fn a_light_transaction_is_committed_in_its_turn_and_a_heavy_one_in_the_interval() {
        let (_, now) = pacer();
        let mut pacer = Pacer::new(1 << 20, INTERVAL);
        pacer.begin(now, None);
        pacer.committed(now);
        let turn = now + 3 * EARLY_EVERY;
        pacer.begin(now, Some(turn));
        pacer.add(LIGHT_BYTES);
        assert_eq!(pacer.due(), Some(turn));
        pacer.add(1);
        assert_eq!(pacer.due(), Some(now + INTERVAL), "not light any more");
    }

    #[test]
    fn early_commits_are_a_hundred_a_second_however_many_sites_want_them() {
        let (mut turns, now) = (Turns::default(), Instant::now());
        let granted: Vec<_> = (0..1000).filter_map(|_| turns.take(now, INTERVAL)).collect();
        assert_eq!(granted.len(), 26, "the others keep to their interval");
        assert_eq!(granted.first(), Some(&now));
        assert!(granted.windows(2).all(|pair| pair[1] == pair[0] + EARLY_EVERY));
        let later = now + Duration::from_secs(5);
        assert_eq!(turns.take(later, INTERVAL), Some(later), "a pause is not saved up");
        assert_eq!(turns.take(later, INTERVAL), Some(later + EARLY_EVERY));
    }

    #[test]
    fn while_others_are_opened_a_busy_site_takes_small_steps_far_apart() {
        let now = Instant::now();
        let mut pacer = Pacer::new(1 << 20, INTERVAL);
        pacer.begin(now, None);
        pacer.add(ASIDE_BYTES);
        assert_eq!((pacer.room(), pacer.due()), ((1 << 20) - ASIDE_BYTES, Some(now + LINGER)));
        pacer.step_aside(true);
        assert_eq!((pacer.room(), pacer.due()), (0, Some(now)), "what is open ends");
        pacer.committed(now);
        assert_eq!((pacer.room(), pacer.not_before()), (ASIDE_BYTES, Some(now + ASIDE_EVERY)));
        pacer.step_aside(false);
        assert_eq!((pacer.room(), pacer.not_before()), (1 << 20, Some(now + MARKERS)));
    }

    #[test]
    fn data_waits_for_the_markers_of_the_last_transaction() {
        let (mut pacer, now) = pacer();
        assert_eq!(pacer.not_before(), None);
        pacer.begin(now, None);
        pacer.committed(now);
        assert_eq!(pacer.not_before(), Some(now + MARKERS));
        pacer.begin(now, None);
        assert_eq!(pacer.not_before(), None, "what is open is filled");
    }
}
