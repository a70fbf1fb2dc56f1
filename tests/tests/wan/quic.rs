//! A QUIC connection over the WAN: quinn as it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use quinn::rustls::RootCertStore;
use quinn::rustls::pki_types::PrivateKeyDer;
use quinn::{ClientConfig, ServerConfig};
use spillway_lab::wan::{Wan, quic};

/// Until an exchange is over, on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// Both ends, which part with a goodbye.
pub(crate) struct Pair(quic::Pair);

impl Pair {
    pub(crate) fn connect(wan: &Wan) -> Result<Self> {
        let certified = rcgen::generate_simple_self_signed(["centre".to_owned()])?;
        let certificate = certified.cert.der().clone();
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let server = ServerConfig::with_single_cert(vec![certificate.clone()], key)?;
        let mut roots = RootCertStore::empty();
        roots.add(certificate)?;
        let client = ClientConfig::with_root_certificates(Arc::new(roots))?;
        Ok(Self(quic::Pair::connect(wan, client, server, "centre")?))
    }

    /// A stream from the edge to the centre and an answer back; answers how the centre sees the edge.
    pub(crate) fn exchange(&mut self, text: &'static [u8]) -> Result<SocketAddr> {
        let quic::Pair { edge, centre } = &self.0;
        let connection = centre.connection.clone();
        let answering = centre.runtime.spawn(async move {
            let (mut send, mut receive) = connection.accept_bi().await?;
            let text = receive.read_to_end(1000).await?;
            send.write_all(&text).await?;
            send.finish()?;
            anyhow::Ok(())
        });
        let answer = edge.runtime.block_on(async {
            let exchange = async {
                let (mut send, mut receive) = edge.connection.open_bi().await?;
                send.write_all(text).await?;
                send.finish()?;
                anyhow::Ok(receive.read_to_end(1000).await?)
            };
            tokio::time::timeout(LIMIT, exchange).await.context("no answer")?
        })?;
        assert_eq!(answer, text);
        centre.runtime.block_on(answering)??;
        Ok(centre.connection.remote_address())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        for side in [&self.0.edge, &self.0.centre] {
            let _guard = side.runtime.enter();
            side.endpoint.close(0_u8.into(), b"done");
        }
    }
}
