//! A WAN on one machine: two network namespaces, `edge` and `centre`, joined by a user-space link with rate, delay, jitter, loss, queue and outages
//! in each direction. Whatever speaks IPv4 runs on it, so peers can be compared on the same line.
//!
//! | module | what it is for |
//! |---|---|
//! | [`order`] | orders and scenarios: one grammar for file, socket and code |
//! | [`link`] | both directions, agenda, the edge's address; pure |
//! | [`pump`] | devices and the clock |
//! | [`quic`] | a connection of stock quinn |
//! | [`namespace`] | network namespaces, and threads and programs inside |
//! | [`control`] | orders over a socket |
//! | [`congestion`] | the congestion control of TCP at both ends |
//! | [`command`] | `./lab wan` |
//!
//! What a line does to its packets is decided in the crate `spillway-wan`. Without root, [`crate::relay`] gives a subset: it delays, loses and
//! cuts UDP, without rate, queue or TCP.

pub mod command;
pub mod congestion;
pub mod control;
pub mod link;
pub mod namespace;
pub mod order;
pub mod pump;
pub mod quic;

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use spillway_wan::Shape;

use crate::process::{self, Daemon};
use control::Control;
use link::{CENTRE, Done, EDGE, Link, LinkCounters};
use namespace::Namespace;
use order::{Direction, Order, Scenario};
use pump::{Pump, Shared};

/// An end of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The site.
    Edge,
    /// Where the central Kafka is.
    Centre,
}

impl End {
    /// What it is called.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Edge => "edge",
            Self::Centre => "centre",
        }
    }

    /// Its address on the link.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        match self {
            Self::Edge => EDGE,
            Self::Centre => CENTRE,
        }
    }
}

/// A running WAN. Dropping it removes devices and namespaces.
#[derive(Debug)]
pub struct Wan {
    edge: Namespace,
    centre: Namespace,
    shared: Arc<Shared>,
    // After the namespaces' devices, which it holds, nothing moves.
    _pump: Pump,
}

impl Wan {
    /// Starts a perfect one. What is left to chance is drawn from `seed`.
    ///
    /// # Errors
    /// When something is missing; the message says what, and what there is without.
    pub fn start(seed: u64) -> Result<Self> {
        if let Some(problem) = namespace::problem() {
            bail!(
                "a WAN needs: {problem}\nWithout it the UDP relay of the lab (tests/src/relay.rs) gives a subset: delay, loss and cuts of UDP, \
                 without rate, queue and TCP; `./lab demo` and `./lab chaos` use it"
            );
        }
        let (edge, centre) = (Namespace::new("edge")?, Namespace::new("centre")?);
        for namespace in [&edge, &centre] {
            // What TCP learns of a line in one run shall not help it in the next. Older kernels have it for the whole machine only.
            let _kept = namespace.inside(|| Ok(std::fs::write("/proc/sys/net/ipv4/tcp_no_metrics_save", "1")?));
        }
        let devices = (edge.inside(|| pump::device(EDGE))?, centre.inside(|| pump::device(CENTRE))?);
        let shared = Arc::new(Shared::new(Link::new(seed))?);
        let pump = Pump::start(&shared, devices.0, devices.1)?;
        Ok(Self { edge, centre, shared, _pump: pump })
    }

    /// Does what is ordered; answers in words.
    ///
    /// # Errors
    /// When it cannot be done.
    pub fn order(&self, order: &Order) -> Result<String> {
        self.shared.with(|link, now| link.order(now, order))
    }

    /// Does what is ordered in words, as on the command line.
    ///
    /// # Errors
    /// When it is not understood, or cannot be done.
    pub fn tell(&self, order: &str) -> Result<String> {
        self.order(&order.parse().with_context(|| format!("order {order:?}"))?)
    }

    /// Plays a scenario, from now on.
    ///
    /// # Errors
    /// When there are too many orders.
    pub fn play(&self, scenario: Scenario) -> Result<()> {
        self.shared.with(|link, now| link.play(now, scenario))
    }

    /// Orders that were carried out at their time (of a scenario, and the end of an outage) since this was asked last.
    #[must_use]
    pub fn done(&self) -> Vec<Done> {
        self.shared.with(|link, _| link.done())
    }

    /// What a direction is like.
    #[must_use]
    pub fn shape(&self, direction: Direction) -> Shape {
        self.shared.with(|link, _| link.shape(direction))
    }

    /// Packets and bytes at the IP level so far.
    #[must_use]
    pub fn counters(&self) -> LinkCounters {
        self.shared.with(|link, _| link.counters())
    }

    /// Runs `work` in a thread at `end`; threads and programs that it starts are there as well, and stay when it returns.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn inside<T: Send>(&self, end: End, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.namespace(end).inside(work)
    }

    /// Starts a program at `end`.
    ///
    /// # Errors
    /// As of [`Daemon::spawn`].
    pub fn spawn(&self, end: End, name: &str, command: &mut Command, log: &Path) -> Result<Daemon> {
        self.inside(end, || Daemon::spawn(name, command, log))
    }

    /// Runs a program at `end` to its end.
    ///
    /// # Errors
    /// As of [`process::run`].
    pub fn run(&self, end: End, command: &mut Command) -> Result<Output> {
        self.inside(end, || process::run(command))
    }

    /// Takes orders over the socket at `path` until the answer is dropped.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn listen(&self, path: &Path) -> Result<Control> {
        Control::start(path, Arc::clone(&self.shared), [self.edge.pid(), self.centre.pid()])
    }

    /// The process that holds the namespace of `end`: `nsenter --net --target PID`.
    #[must_use]
    pub fn pid(&self, end: End) -> u32 {
        self.namespace(end).pid()
    }

    fn namespace(&self, end: End) -> &Namespace {
        match end {
            End::Edge => &self.edge,
            End::Centre => &self.centre,
        }
    }
}
