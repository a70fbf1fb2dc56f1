//! An agent or a collector in this process, on a runtime of its own.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, anyhow};
use spillway_broker::Door;
use spillway_collector::server::Server;
use spillway_config::{AgentConfig, CollectorConfig};
use spillway_link::{Identity, IdentityFiles, Role};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long what one that was killed held, a port or a lock, may take to be free: its threads may run for a moment.
pub(super) const RELEASE_LIMIT: Duration = Duration::from_secs(10);

/// One that runs; killed when it is dropped.
pub(super) struct Running {
    runtime: Option<Runtime>,
    task: Option<JoinHandle<String>>,
    door: Option<Door>,
}

impl Running {
    /// Starts an agent, whose way to the site's Kafka is `door`.
    pub(super) fn agent(config: AgentConfig, door: Door) -> Result<Self> {
        let runtime = runtime("agent")?;
        let task = runtime.spawn(Box::pin(async move {
            match spillway_agent::service::run(config, CancellationToken::new()).await {
                Ok(ended) => format!("{ended:?}"),
                Err(error) => format!("{:#}", anyhow!(error)),
            }
        }));
        Ok(Self { runtime: Some(runtime), task: Some(task), door: Some(door) })
    }

    /// Starts a collector, whose way to the central Kafka is `door`.
    pub(super) fn collector(config: CollectorConfig, door: Door) -> Result<Self> {
        let files = IdentityFiles { ca: config.tls.ca.clone(), cert: config.tls.cert.clone(), key: config.tls.key.clone() };
        let identity = Identity::load(&files, Role::Collector, SystemTime::now())?;
        let runtime = runtime("collector")?;
        let deadline = Instant::now() + RELEASE_LIMIT;
        let server = loop {
            let bound = {
                let _inside = runtime.enter();
                Server::bind(&config, &identity)
            };
            match bound {
                Ok(server) => break server,
                Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Err(error) => return Err(error.into()),
            }
        };
        let task = runtime.spawn(Box::pin(async move {
            server.run(&config, CancellationToken::new()).await;
            "the server has ended".to_owned()
        }));
        Ok(Self { runtime: Some(runtime), task: Some(task), door: Some(door) })
    }

    /// What it said when it ended by itself, once.
    pub(super) fn ended(&mut self) -> Option<String> {
        let task = self.task.take_if(|task| task.is_finished())?;
        let said = self.runtime.as_ref()?.block_on(task);
        Some(said.unwrap_or_else(|panic| panic.to_string()))
    }

    pub(super) fn kill(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        drop(self.door.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

fn runtime(name: &str) -> Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().context("no runtime")
}
