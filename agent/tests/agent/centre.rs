//! A collector for tests: orders frames, keeps what it is sent, breaks what a test wants broken. It is strict: whatever an honest agent does
//! not do is written down as a failure.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use spillway_link::{Identity, IdentityFiles, LinkServer, LinkSettings, Role};
use spillway_proto::compress::Codec;
use spillway_proto::dictionary::{Dictionary, DictionaryId};
use spillway_proto::frame::GapReason;
use spillway_proto::message::{self, CollectorMessage, Settings, SettingsReport, revision};
use spillway_proto::{CloseCode, Lane, TopicId};
use tempfile::TempDir;
use tokio::sync::broadcast;

mod session;

use session::session;

type Source = (String, u32);

#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    positions: BTreeMap<Source, (TopicId, u64)>,
    values: BTreeMap<Source, Vec<String>>,
    pub(crate) gaps: Vec<(String, u32, u64, u64, GapReason)>,
    pub(crate) failures: Vec<String>,
    pub(crate) sessions: usize,
    /// The codes by which the agent ended sessions.
    pub(crate) closes: Vec<CloseCode>,
    pub(crate) holds: usize,
    pub(crate) flushes: usize,
    held: Vec<Lane>,
    refused: Option<(Source, u64)>,
    cut_after: usize,
    withhold_acks: bool,
    raw_bytes: u64,
    version: u8,
    dictionaries: BTreeMap<DictionaryId, Arc<Dictionary>>,
    /// Dictionaries asked for.
    pub(crate) dictionaries_asked: usize,
    /// Codecs of the data frames that came, by the version of the session.
    pub(crate) codecs: BTreeMap<u8, Vec<Codec>>,
    /// Frames that came with history.
    pub(crate) with_history: usize,
    /// So many of them are asked for without.
    again: usize,
    /// What was asked for.
    pub(crate) asked_again: usize,
    away: bool,
    /// What sites are told.
    settings: Option<Settings>,
    /// Settings under which the line is gone.
    cuts_off: Option<u64>,
    /// What the site said of it.
    pub(crate) reports: Vec<SettingsReport>,
    /// Attempts to connect while it was away.
    pub(crate) refusals: usize,
}

impl State {
    pub(crate) fn records(&self) -> usize {
        self.values.values().map(Vec::len).sum()
    }

    pub(crate) fn next(&self, topic: &str, partition: u32) -> Option<u64> {
        self.positions.get(&(topic.to_owned(), partition)).map(|(_, next)| *next)
    }

    pub(crate) fn values(&self, topic: &str, partition: u32) -> Vec<String> {
        self.values.get(&(topic.to_owned(), partition)).cloned().unwrap_or_default()
    }
}

pub(crate) struct Centre {
    state: Arc<Mutex<State>>,
    server: Arc<LinkServer>,
    issuer: Issuer<'static, KeyPair>,
    ca: String,
    orders: broadcast::Sender<Order>,
    _folder: TempDir,
}

#[derive(Debug, Clone)]
enum Order {
    Cut,
    Retry,
    /// Anything at all, so many times, on the control stream.
    Say(Vec<u8>, usize),
    /// The control stream ends.
    EndControl,
}

impl Centre {
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        let authority = params.self_signed(&key).unwrap();
        let issuer = Issuer::from_ca_cert_der(authority.der(), key).unwrap();
        let ca = authority.pem();
        let files = issue(&issuer, &ca, "server", ExtendedKeyUsagePurpose::ServerAuth, folder.path());
        let identity = Identity::load(&files, Role::Collector, SystemTime::now()).unwrap();
        let server = Arc::new(LinkServer::bind("127.0.0.1:0".parse().unwrap(), &identity, &LinkSettings::collector()).unwrap());
        // It keeps no deferred ranges.
        let version = message::DEFERRED_SINCE - 1;
        let state = State { cut_after: usize::MAX, raw_bytes: 1 << 20, version, ..State::default() };
        let (orders, _) = broadcast::channel(16);
        let centre = Self { state: Arc::new(Mutex::new(state)), server, issuer, ca, orders, _folder: folder };
        let (server, state, orders) = (Arc::clone(&centre.server), Arc::clone(&centre.state), centre.orders.clone());
        tokio::spawn(async move {
            while let Some(incoming) = server.accept().await {
                if lock(&state).away {
                    lock(&state).refusals += 1;
                    incoming.refuse();
                    continue;
                }
                let (state, orders) = (Arc::clone(&state), orders.subscribe());
                tokio::spawn(async move {
                    if let Ok(connection) = incoming.accept().unwrap().await {
                        session(connection, state, orders).await;
                    }
                });
            }
        });
        centre
    }

    pub(crate) fn address(&self) -> String {
        format!("localhost:{}", self.server.local_addr().unwrap().port())
    }

    /// Writes the three files of a site.
    pub(crate) fn issue(&self, site: &str, folder: &Path) {
        issue(&self.issuer, &self.ca, site, ExtendedKeyUsagePurpose::ClientAuth, folder);
    }

    /// Settings with this text cut the line, once they are in force.
    pub(crate) fn cut_off_by(&self, text: &str) {
        lock(&self.state).cuts_off = Some(revision(text));
    }

    /// Tells the site its settings, in this session and the next ones.
    pub(crate) fn tell(&self, text: &str) {
        let settings = Settings { revision: revision(text), text: text.to_owned() };
        let mut bytes = Vec::new();
        CollectorMessage::Settings(settings.clone()).encode(&mut bytes);
        lock(&self.state).settings = Some(settings);
        drop(self.orders.send(Order::Say(bytes, 1)));
    }

    pub(crate) fn state(&self) -> State {
        lock(&self.state).clone()
    }

    /// Every session is cut after so many frames; half of what it was sent by then is not acknowledged.
    pub(crate) fn cut_after_frames(&self, frames: usize) {
        lock(&self.state).cut_after = frames;
    }

    pub(crate) fn withhold_acks(&self, withhold: bool) {
        lock(&self.state).withhold_acks = withhold;
    }

    pub(crate) fn allow_raw_bytes(&self, bytes: u64) {
        lock(&self.state).raw_bytes = bytes;
    }

    /// Speaks this version from the next session on.
    pub(crate) fn speak(&self, version: u8) {
        lock(&self.state).version = version;
    }

    /// As a collector that was restarted.
    pub(crate) fn forget_dictionaries(&self) {
        lock(&self.state).dictionaries.clear();
    }

    /// Asks for so many frames once more that come with history.
    pub(crate) fn lose_history(&self, frames: usize) {
        lock(&self.state).again = frames;
    }

    pub(crate) fn refuse(&self, topic: &str, partition: u32, offset: Option<u64>) {
        lock(&self.state).refused = offset.map(|offset| ((topic.to_owned(), partition), offset));
    }

    /// Cuts the session, if there is one.
    pub(crate) fn cut(&self) {
        drop(self.orders.send(Order::Cut));
    }

    /// Cuts the session and refuses others, until it is back.
    pub(crate) fn away(&self, away: bool) {
        lock(&self.state).away = away;
        if away {
            self.cut();
        }
    }

    /// Says anything at all, so many times.
    pub(crate) fn say(&self, bytes: &[u8], times: usize) {
        self.orders.send(Order::Say(bytes.to_vec(), times)).unwrap();
    }

    /// Ends the control stream.
    pub(crate) fn end_control(&self) {
        self.orders.send(Order::EndControl).unwrap();
    }

    pub(crate) fn retry(&self) {
        self.orders.send(Order::Retry).unwrap();
    }

    pub(crate) async fn wait(&self, what: &str, reached: impl Fn(&State) -> bool) {
        let begun = Instant::now();
        while !reached(&self.state()) {
            let state = self.state();
            assert!(begun.elapsed() < Duration::from_secs(40), "waited in vain for {what}: {:?} {:?}", state.positions, state.failures);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn issue(issuer: &Issuer<'static, KeyPair>, ca: &str, name: &str, purpose: ExtendedKeyUsagePurpose, folder: &Path) -> IdentityFiles {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.extended_key_usages = vec![purpose];
    let certificate = params.signed_by(&key, issuer).unwrap();
    let path = |file: String| folder.join(file);
    let files = IdentityFiles { ca: path("ca.pem".into()), cert: path(format!("{name}.pem")), key: path(format!("{name}.key")) };
    std::fs::write(&files.ca, ca).unwrap();
    std::fs::write(&files.cert, certificate.pem()).unwrap();
    std::fs::write(&files.key, key.serialize_pem()).unwrap();
    files
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap()
}
