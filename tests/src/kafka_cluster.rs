//! Clusters of real Apache Kafka: one to three combined KRaft nodes on loopback, or brokers with a controller of their own.

mod properties;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::client;
use crate::java::{self, Tuning};
use crate::ports::{free_port, free_port_or};
use crate::process::{Daemon, Signal};
use crate::reaper::scratch_dir;
use crate::shim::{Purpose, Shim};
use crate::wait::wait_until;

pub use properties::{NodePorts, Secured};

/// From start to the first answered metadata request. A cluster of three takes 10 s on two idle cores.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A clean shutdown moves leaders and syncs logs; after this it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What a cluster shall be like.
#[derive(Debug, Clone)]
pub struct KafkaOptions {
    /// For directories and messages: `edge`, `centre`.
    pub label: String,
    /// 1 to 3.
    pub brokers: usize,
    /// Whether a process of its own is the controller. Otherwise the brokers are, and with most of them down there is none that takes those
    /// from the in-sync replicas.
    pub own_controller: bool,
    /// Whether the brokers run with a [`Shim`].
    pub shim: bool,
    /// Where data, configuration and logs go; a scratch directory if `None`.
    pub dir: Option<PathBuf>,
    /// Wished for the plain listener of the first broker, the next ones for the others; any free ones if `None` or taken.
    pub first_port: Option<u16>,
    /// Where the plain listener listens, and what it tells its clients to come to.
    pub host: Ipv4Addr,
    /// A second listener with TLS, SCRAM and ACLs besides the plain one, whose anonymous user is super user.
    pub secured: Option<Secured>,
    /// A further plain listener of the only broker, which tells its clients to come to this port of 127.0.0.1: that of a
    /// [`crate::tcp_relay::TcpRelay`] before it.
    pub relayed: Option<u16>,
    /// A further plain listener of the only broker, also on [`Self::host`]: a port of its own for clients that shall be told from others.
    pub second: bool,
    /// Broker properties that are added last, so they win.
    pub extra: Vec<(String, String)>,
    /// How each broker's Java machine is tuned.
    pub tuning: Tuning,
}

impl KafkaOptions {
    /// One broker in a scratch directory.
    #[must_use]
    pub fn new(label: &str) -> Self {
        Self {
            label: label.to_owned(),
            brokers: 1,
            own_controller: false,
            shim: false,
            dir: None,
            first_port: None,
            host: Ipv4Addr::LOCALHOST,
            secured: None,
            relayed: None,
            second: false,
            extra: Vec::new(),
            tuning: Tuning::Test,
        }
    }

    /// Adds a broker property.
    #[must_use]
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.extra.push((key.to_owned(), value.to_owned()));
        self
    }
}

/// A cluster that is running or stopped for a while. Dropping it kills its brokers; their data stays until the lab ends.
#[derive(Debug)]
pub struct KafkaCluster {
    options: KafkaOptions,
    dir: PathBuf,
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    ports: NodePorts,
    config: PathBuf,
    log: PathBuf,
    shim: Option<Shim>,
    daemon: Option<Daemon>,
}

impl KafkaCluster {
    /// Formats and starts a cluster and waits until every broker is a member.
    ///
    /// # Errors
    /// When Java or the jars are missing or a broker does not come up; the message carries the end of its log.
    pub fn start(options: KafkaOptions) -> Result<Self> {
        ensure!(matches!(options.brokers, 1..=3), "a cluster has 1 to 3 brokers, not {}", options.brokers);
        ensure!((options.relayed.is_none() && !options.second) || options.brokers == 1, "a relay, or a second port, leads to one broker");
        let dir = match &options.dir {
            Some(dir) => dir.clone(),
            None => scratch_dir(&format!("kafka-{}", options.label))?,
        };
        std::fs::create_dir_all(&dir)?;
        let mut ports = Vec::new();
        let mut wished = options.first_port;
        let count = options.brokers + usize::from(options.own_controller);
        for _ in 0..count {
            let (plain, controller) = (free_port_or(wished)?, free_port()?);
            ports.push(NodePorts { plain, controller, secured: free_port()?, relayed: free_port()?, second: free_port()? });
            wished = wished.map(|port| port.saturating_add(1));
        }
        let cluster_id = java::run_tool("kafka.tools.StorageTool", &["random-uuid"])?.trim().to_owned();
        let mut nodes = Vec::new();
        for index in 0..count {
            nodes.push(Node::format(&options, &dir, &ports, index, &cluster_id)?);
        }
        let mut cluster = Self { options, dir, nodes };
        cluster.resume()?;
        Ok(cluster)
    }

    /// Bootstrap servers of the plain listener, whose user may do everything.
    #[must_use]
    pub fn bootstrap(&self) -> String {
        self.addresses(self.options.host, |ports| ports.plain)
    }

    /// Bootstrap servers of the listener with TLS, SCRAM and ACLs (only with [`KafkaOptions::secured`]).
    #[must_use]
    pub fn secured_bootstrap(&self) -> String {
        self.addresses(Ipv4Addr::LOCALHOST, |ports| ports.secured)
    }

    /// Where the broker listens for what comes through the relay (only with [`KafkaOptions::relayed`]).
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn relayed_address(&self) -> Result<SocketAddr> {
        ensure!(self.options.relayed.is_some(), "the cluster has no listener for a relay");
        let node = self.nodes.first().context("a cluster without brokers")?;
        Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, node.ports.relayed)))
    }

    /// The port of the plain listener of the first broker.
    ///
    /// # Errors
    /// When there is no broker.
    pub fn plain_port(&self) -> Result<u16> {
        Ok(self.nodes.first().context("a cluster without brokers")?.ports.plain)
    }

    /// The port of the second plain listener (only with [`KafkaOptions::second`]).
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn second_port(&self) -> Result<u16> {
        ensure!(self.options.second, "the cluster has no second listener");
        Ok(self.nodes.first().context("a cluster without brokers")?.ports.second)
    }

    /// Where data, configuration and logs are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process ids of the running brokers.
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        self.nodes.iter().filter_map(|node| node.daemon.as_ref().map(Daemon::pid)).collect()
    }

    /// Starts every stopped broker and waits until all are members.
    ///
    /// # Errors
    /// When a broker does not come up.
    pub fn resume(&mut self) -> Result<()> {
        for node in &mut self.nodes {
            node.start(&self.options)?;
        }
        let (bootstrap, brokers) = (self.bootstrap(), self.options.brokers);
        let nodes = &mut self.nodes;
        wait_until(&format!("Kafka {} is up", self.options.label), START_LIMIT, || {
            for node in nodes.iter_mut() {
                node.check_alive()?;
            }
            Ok(client::is_whole(&bootstrap, brokers).unwrap_or(false))
        })
        .with_context(|| self.nodes.iter().filter_map(|node| node.daemon.as_ref().map(Daemon::log_tail)).collect::<String>())
    }

    /// Stops every broker cleanly. `resume` starts them again with the same data and ports.
    ///
    /// # Errors
    /// When a broker cannot be signalled.
    pub fn stop(&mut self) -> Result<()> {
        // All at once: the last ones of a quorum could not finish a controlled shutdown alone.
        for daemon in self.nodes.iter_mut().filter_map(|node| node.daemon.as_mut()) {
            daemon.signal(Signal::TERM)?;
        }
        for node in &mut self.nodes {
            if let Some(mut daemon) = node.daemon.take()
                && daemon.wait_exit(STOP_LIMIT).is_err()
            {
                daemon.kill();
            }
        }
        Ok(())
    }

    /// Stops and starts the whole cluster.
    ///
    /// # Errors
    /// As of [`Self::stop`] and [`Self::resume`].
    pub fn restart(&mut self) -> Result<()> {
        self.stop()?;
        self.resume()
    }

    /// `kill -9` of every broker.
    pub fn kill(&mut self) {
        for index in 0..self.nodes.len() {
            self.kill_broker(index);
        }
    }

    /// `kill -9` of one broker (0, 1, …). Says whether it was running.
    pub fn kill_broker(&mut self, index: usize) -> bool {
        self.nodes.get_mut(index).and_then(|node| node.daemon.take()).is_some_and(|mut daemon| daemon.kill())
    }

    /// What makes the disk of one broker (0, 1, …) slow; only with [`KafkaOptions::shim`].
    #[must_use]
    pub fn shim(&self, index: usize) -> Option<&Shim> {
        self.nodes.get(index).and_then(|node| node.shim.as_ref())
    }

    /// Runs one of Kafka's own tools with `--bootstrap-server` of the plain listener put before `args`.
    ///
    /// # Errors
    /// As of [`java::run_tool`].
    pub fn run_tool(&self, class: &str, args: &[&str]) -> Result<String> {
        let bootstrap = self.bootstrap();
        let mut all = vec!["--bootstrap-server", bootstrap.as_str()];
        all.extend_from_slice(args);
        java::run_tool(class, &all)
    }

    /// Gives the brokers up: they go on when this value, and the lab, are gone (`./lab kafka up`).
    ///
    /// Returns their process ids.
    #[must_use]
    pub fn leave_running(self) -> Vec<u32> {
        self.nodes.into_iter().filter_map(|node| node.daemon.map(Daemon::leave_running)).collect()
    }

    fn addresses(&self, host: Ipv4Addr, port: impl Fn(&NodePorts) -> u16) -> String {
        let all: Vec<String> = self.nodes.iter().take(self.options.brokers).map(|node| format!("{host}:{}", port(&node.ports))).collect();
        all.join(",")
    }
}

impl Node {
    fn format(options: &KafkaOptions, dir: &Path, ports: &[NodePorts], index: usize, cluster_id: &str) -> Result<Self> {
        let home = dir.join(format!("broker-{}", index + 1));
        std::fs::create_dir_all(&home)?;
        let config = home.join("server.properties");
        std::fs::write(&config, properties::render(options, &home, ports, index)?)?;
        let mut args = vec!["format".to_owned(), "-t".into(), cluster_id.into(), "-c".into(), config.display().to_string()];
        for (user, password) in options.secured.iter().flat_map(|secured| &secured.users) {
            args.extend(["--add-scram".into(), format!("SCRAM-SHA-512=[name={user},password={password}]")]);
        }
        java::run_tool("kafka.tools.StorageTool", &args).with_context(|| format!("cannot format {}", home.display()))?;
        let ports = ports.get(index).context("no ports for this broker")?.clone();
        let log = home.join("broker.log");
        let shim = if options.shim && index < options.brokers { Some(Shim::new(&home.join("shim"), Purpose::Disk)?) } else { None };
        Ok(Self { ports, config, log, shim, daemon: None })
    }

    fn start(&mut self, options: &KafkaOptions) -> Result<()> {
        if self.daemon.as_mut().is_some_and(Daemon::is_running) {
            return Ok(());
        }
        let home = self.config.parent().context("a broker without a directory")?;
        let heap_mib = match options.tuning {
            Tuning::Test => 400,
            // The default of `kafka-server-start.sh`.
            Tuning::Server => 1024,
        };
        let mut command = java::java_tuned("kafka.Kafka", heap_mib, options.tuning, "INFO", home)?;
        command.arg(&self.config).envs(self.shim.iter().flat_map(Shim::environment));
        self.daemon = Some(Daemon::spawn(&format!("Kafka {}", options.label), &mut command, &self.log)?);
        Ok(())
    }

    fn check_alive(&mut self) -> Result<()> {
        if let Some(daemon) = &mut self.daemon {
            ensure!(daemon.is_running(), "{} ended", daemon.name());
        }
        Ok(())
    }
}
