//! UDP or TCP: attempts over the way that the books say, and the question of the day whether UDP is open again.

use std::future::pending;
use std::time::{Duration, Instant};

use spillway_agent_core::way::{MAX_UNANSWERED, Way, Ways};
use spillway_config::{CollectorAddress, HostPort};
use spillway_link::{Explanation, LinkClient};
use spillway_proto::close::{CloseCode, Disposition};
use tokio::task::JoinHandle;

use super::Runner;
use crate::metrics::WayLabels;
use crate::session::Session;

/// An attempt under way.
pub(super) type Dialling = JoinHandle<Result<Session, NotOpened>>;

/// How long UDP may take to answer the question of the day: a few probes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(12);

/// Where TCP is open, an attempt over UDP gets so long.
const UDP_GRACE: Duration = Duration::from_secs(1);

/// Why an attempt opened no session.
#[derive(Debug)]
pub(super) enum NotOpened {
    /// It failed.
    Failed(Box<Explanation>),
    /// It was to go over TCP, and UDP is open.
    UdpAnswers,
    /// It was to go over UDP, and TCP, which was the way before, is open.
    TcpAnswers,
}

/// The way of an attempt, and what would be a better one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) way: Way,
    /// See [`Ways::heeds_probes`].
    pub(super) heeds_probes: bool,
    /// See [`Ways::asks_for_tcp`].
    pub(super) asks_for_tcp: bool,
}

impl Course {
    pub(super) fn of(ways: &Ways) -> Self {
        Self { way: ways.way(), heeds_probes: ways.heeds_probes(), asks_for_tcp: ways.asks_for_tcp() }
    }

    /// Waits after an attempt that got no answer, until the way is open.
    ///
    /// # Errors
    /// When it is the other way that is.
    pub(super) async fn wait(self, link: &LinkClient, pause: Duration) -> Result<(), NotOpened> {
        match link.wait(pause, self.asks_for_tcp || self.way == Way::Tcp).await {
            Some(spillway_link::Way::Udp) if self.way == Way::Tcp && self.heeds_probes => Err(NotOpened::UdpAnswers),
            Some(spillway_link::Way::Tcp) if self.way == Way::Udp => Err(NotOpened::TcpAnswers),
            _ => Ok(()),
        }
    }

    /// Opens a session, as long as the other way is not found to be open.
    ///
    /// # Errors
    /// When it is, or there is no session.
    pub(super) async fn open(self, link: &LinkClient, collector: &CollectorAddress, address: &HostPort) -> Result<Session, NotOpened> {
        let over = match self.way {
            Way::Udp => spillway_link::Way::Udp,
            Way::Tcp => spillway_link::Way::Tcp,
        };
        // A line that comes back after an outage lets UDP and TCP through at once, and UDP is to be first.
        tokio::select! {
            biased;
            () = link.udp_open(), if self.way == Way::Tcp && self.heeds_probes => Err(NotOpened::UdpAnswers),
            opened = Session::open(link, collector, address, over) => opened.map_err(NotOpened::Failed),
            () = tcp_comes_first(link), if self.way == Way::Udp && self.asks_for_tcp => Err(NotOpened::TcpAnswers),
        }
    }
}

/// Returns when TCP is open and UDP, which was asked at the same time, has had time to answer a handshake.
async fn tcp_comes_first(link: &LinkClient) {
    link.tcp_open().await;
    tokio::time::sleep(UDP_GRACE).await;
}

/// The answer to the question of the day; never without one. Cancel safe.
pub(super) async fn asked(asking: &mut Option<JoinHandle<bool>>) -> bool {
    let Some(handle) = asking else {
        return pending().await;
    };
    let answer = handle.await;
    *asking = None;
    answer.unwrap_or(false)
}

impl Runner {
    /// A session has opened over the way that was asked for.
    pub(super) fn way_opened(&mut self) {
        self.ways.opened(Instant::now(), rand::random());
        let way = self.ways.way();
        for each in [Way::Udp, Way::Tcp] {
            self.parts.metrics.link_way.get_or_create(&WayLabels { way: each.as_str() }).set(i64::from(each == way));
        }
        if way == Way::Tcp && !self.told_blocked {
            self.told_blocked = true;
            tracing::warn!(
                event = "udp_blocked",
                "UDP to the collector is blocked: the link goes over TCP, which costs more bytes and stalls where packets are lost; open UDP to the \
                 collector's port on the way there and back; UDP is asked for once a day"
            );
        }
        if way == Way::Udp && std::mem::take(&mut self.told_blocked) {
            tracing::info!(event = "udp_open", "UDP to the collector is open again");
        }
    }

    /// An attempt has failed.
    pub(super) fn way_failed(&mut self, explanation: &Explanation) {
        if self.ways.way() == Way::Udp && explanation.is_silence() && !explanation.is_timeout() {
            // Without an address, or a network, nothing was tried.
            return;
        }
        if self.ways.failed(!explanation.is_silence()) {
            tracing::info!(event = "trying_tcp", "no answer to {MAX_UNANSWERED} handshakes over UDP: trying TCP, and UDP in turn");
        }
    }

    /// Once a day, while TCP works.
    pub(super) fn ask_for_udp(&mut self, now: Instant) {
        let may_ask = self.session.is_some() && self.drain.is_none() && self.asking.is_none() && self.parts.plan.is_open_for(u8::MAX);
        if may_ask && self.ways.must_ask(now, rand::random()) {
            let link = std::sync::Arc::clone(&self.parts.link);
            self.asking = Some(tokio::spawn(async move { tokio::time::timeout(ANSWER_TIMEOUT, link.udp_open()).await.is_ok() }));
        }
    }

    /// UDP has answered, or not.
    pub(super) fn on_udp_asked(&mut self, is_open: bool) {
        if !is_open {
            tracing::debug!(event = "udp_blocked", "UDP does not answer yet: the link stays on TCP");
            return;
        }
        self.ways.udp_answered();
        if let Some(session) = self.session.take() {
            tracing::info!(event = "udp_answers", "UDP to the collector answers: the session is opened anew over it");
            session.close(CloseCode::Done, "UDP is open");
            self.session_over(Disposition::Redial);
        }
    }

    /// The session is over, and with it the question.
    pub(super) fn forget_question(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
    }
}
