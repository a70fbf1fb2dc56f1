//! A QUIC connection over the WAN: quinn as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::PrivateKeyDer;
use quinn::{ClientConfig, Connection, Endpoint, ServerConfig};
use spillway_lab::wan::{End, Wan};
use tokio::runtime::Runtime;

/// Until an exchange is over, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Both ends, each with a runtime whose threads are in its namespace.
pub(crate) struct Pair {
    edge: (Runtime, Endpoint, Connection),
    centre: (Runtime, Endpoint, Connection),
}

impl Pair {
    pub(crate) fn connect(wan: &Wan) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(["centre".to_owned()])?;
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let server = ServerConfig::with_single_cert(vec![certificate.clone()], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let client = ClientConfig::with_root_certificates(Arc::new(roots))?;

        let (centre, listening) = wan.inside(End::Centre, || {
            let runtime = runtime()?;
            let endpoint = runtime.block_on(async { Endpoint::server(server, (End::Centre.address(), 0).into()) })?;
            Ok((runtime, endpoint))
        })?;
        let to = listening.local_addr()?;
        let (edge, dialling) = wan.inside(End::Edge, || {
            let runtime = runtime()?;
            let endpoint = runtime.block_on(async { Endpoint::client((End::Edge.address(), 0).into()) })?;
            Ok((runtime, endpoint))
        })?;
        let own = listening.clone();
        let accepting = centre.spawn(async move { anyhow::Ok(own.accept().await.context("closed")?.await?) });
        let dialled = edge.block_on(async { anyhow::Ok(dialling.connect_with(client, to, "centre")?.await?) })?;
        let accepted = centre.block_on(accepting)??;
        Ok(Self { edge: (edge, dialling, dialled), centre: (centre, listening, accepted) })
    }

    /// A stream from the edge to the centre and an answer back; answers how the centre sees the edge.
    pub(crate) fn exchange(&mut self, text: &'static [u8]) -> Result<SocketAddr> {
        let connection = self.centre.2.clone();
        let answering = self.centre.0.spawn(async move {
            let (mut send, mut receive) = connection.accept_bi().await?;
            let text = receive.read_to_end(1000).await?;
            send.write_all(&text).await?;
            send.finish()?;
            anyhow::Ok(())
        });
        let connection = &self.edge.2;
        let answer = self.edge.0.block_on(async {
            let exchange = async {
                let (mut send, mut receive) = connection.open_bi().await?;
                send.write_all(text).await?;
                send.finish()?;
                anyhow::Ok(receive.read_to_end(1000).await?)
            };
            tokio::time::timeout(LIMIT, exchange).await.context("no answer")?
        })?;
        assert_eq!(answer, text);
        self.centre.0.block_on(answering)??;
        Ok(self.centre.2.remote_address())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for (runtime, endpoint, _) in [&self.edge, &self.centre] {
            let _guard = runtime.enter();
            endpoint.close(0_u8.into(), b"done");
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}
