//! What the tests of the collector share: a central Kafka, a collector, and an agent that says whatever a test wants.

pub(crate) mod agent;
pub(crate) mod centre;
pub(crate) mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use clap::Parser;
use spillway_collector::cli::{Cli, Command};
use spillway_collector::pki;
use spillway_collector::server::Server;
use spillway_config::CollectorConfig;
use spillway_link::{Identity, IdentityFiles, Role};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use agent::TestAgent;
pub(crate) use centre::Centre;

/// Nothing in a test takes so long unless it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A folder with an authority, certificates and configurations.
pub(crate) struct Folder {
    dir: TempDir,
}

/// A collector in this process.
pub(crate) struct Collector {
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self { dir: tempfile::tempdir().unwrap() };
        folder.pki(&["init", "--dir", folder.path("").to_str().unwrap(), "--host", "localhost", "127.0.0.1"]);
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn issue(&self, site: &str) {
        if !self.path(&format!("{site}.pem")).exists() {
            self.pki(&["issue", site, "--dir", self.path("").to_str().unwrap()]);
        }
    }

    pub(crate) fn identity(&self, site: &str) -> Identity {
        let files =
            IdentityFiles { ca: self.path("ca.pem"), cert: self.path(&format!("{site}.pem")), key: self.path(&format!("{site}.key")) };
        Identity::load(&files, Role::Site, SystemTime::now()).unwrap()
    }

    /// A certificate with a name that `pki issue` refuses.
    pub(crate) fn issue_unchecked(&self, name: &str) {
        let read = |name: &str| std::fs::read_to_string(self.path(name)).unwrap();
        let authority = rcgen::KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = rcgen::Issuer::from_ca_cert_pem(&read("ca.pem"), authority).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        std::fs::write(self.path(&format!("{name}.pem")), params.signed_by(&key, &issuer).unwrap().pem()).unwrap();
        std::fs::write(self.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }

    /// Writes a configuration and answers its path.
    pub(crate) fn config(&self, bootstrap: &str, more: &str) -> PathBuf {
        let path = self.path(&format!("collector-{}.toml", rand::random::<u32>()));
        let tls = ["ca", "server", "server"].map(|name| self.path(name).display().to_string());
        let text = format!(
            "[listen]\naddress = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
             [tls]\nca = \"{}.pem\"\ncert = \"{}.pem\"\nkey = \"{}.key\"\n[kafka]\nbootstrap_servers = \"{bootstrap}\"\n{more}\n",
            tls[0], tls[1], tls[2]
        );
        std::fs::write(&path, text).unwrap();
        path
    }

    fn pki(&self, args: &[&str]) {
        let args = ["spillway-collector", "pki"].iter().chain(args);
        let Command::Pki(command) = Cli::parse_from(args).command else { panic!("not pki") };
        pki::run(&command, &mut Vec::new()).unwrap();
    }
}

impl Collector {
    /// Starts one and waits until it is ready. `more` is appended to its configuration.
    pub(crate) async fn start(folder: &Folder, bootstrap: &str, more: &str) -> Self {
        let collector = Self::start_unready(&folder.config(bootstrap, more)).await;
        collector.ready().await;
        collector
    }

    /// Waits until it serves.
    pub(crate) async fn ready(&self) {
        eventually("the collector is ready", async || get(self.admin, "/readyz").await.starts_with("HTTP/1.1 200").then_some(())).await;
    }

    pub(crate) async fn start_unready(path: &Path) -> Self {
        let none: [(String, String); 0] = [];
        let config = CollectorConfig::load(path, none).unwrap();
        let files = IdentityFiles { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
        let identity = Identity::load(&files, Role::Collector, SystemTime::now()).unwrap();
        let server = Server::bind(&config, &identity).unwrap();
        let (address, admin) = (server.address().unwrap(), server.admin_address().unwrap());
        let stop = CancellationToken::new();
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { server.run(&config, stop).await }
        });
        Self { address, admin, stop, task }
    }

    /// SIGTERM.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.expect("the collector does not stop").unwrap();
    }

    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = get(self.admin, "/metrics").await;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).map_or(0.0, |value| value.parse().unwrap())
    }

    pub(crate) async fn status(&self) -> serde_json::Value {
        let text = get(self.admin, "/status").await;
        serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap()
    }
}

/// Bytes that do not compress.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|_| rand::random()).collect()
}

/// A plain HTTP request.
pub(crate) async fn get(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

/// Shows the collector's log when a test is run with SPILLWAY_LOG.
pub(crate) fn log() {
    if std::env::var_os("SPILLWAY_LOG").is_some() {
        let _already = spillway_ops::logging::init(spillway_ops::logging::Format::Text);
    }
}

/// Waits until `done` answers.
pub(crate) async fn eventually<T>(what: &str, mut done: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done().await {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
