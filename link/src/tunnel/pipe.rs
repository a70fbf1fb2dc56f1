//! Between the queues and the stream.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader},
    sync::{mpsc, watch},
};

use super::{MAX_TUNNEL_DATAGRAM_BYTES, outbox::Outbox};

/// How long the last bytes of a tunnel may take: the close of its connection, and TLS's own.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often a writer that is stuck in the system looks whether anybody still wants it.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Carries datagrams from the stream into the queue until the stream ends, and tells why it did.
pub(super) async fn read(
    stream: impl AsyncRead + Unpin,
    arrived: mpsc::Sender<Vec<u8>>,
    over: watch::Sender<bool>,
    why: Arc<Mutex<Option<io::Error>>>,
) {
    let mut stream = BufReader::new(stream);
    let error = loop {
        match datagram(&mut stream).await {
            Ok(datagram) => {
                if arrived.send(datagram).await.is_err() {
                    // The endpoint is gone, and with it this task.
                    return;
                }
            }
            Err(error) => break error,
        }
    };
    why.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    over.send_replace(true);
}

/// The next datagram.
async fn datagram(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = usize::from(stream.read_u16().await?);
    if !(1..=MAX_TUNNEL_DATAGRAM_BYTES).contains(&length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a datagram of {length} bytes in the tunnel")));
    }
    let mut datagram = vec![0; length];
    stream.read_exact(&mut datagram).await?;
    Ok(datagram)
}

/// Carries datagrams from the queue into the stream until the queue is closed or the stream takes nothing more.
pub(super) async fn write(mut stream: impl AsyncWrite + Unpin, outbox: Arc<Outbox>, over: watch::Sender<bool>) {
    let carry = async {
        let mut bytes = Vec::new();
        while outbox.take(&mut bytes).await {
            stream.write_all(&bytes).await?;
            stream.flush().await?;
        }
        stream.shutdown().await
    };
    tokio::select! {
        outcome = carry => if let Err(error) = outcome {
            tracing::debug!(%error, "a tunnel's stream takes nothing more");
        },
        () = closed_for_long(&outbox) => tracing::debug!("a tunnel's peer did not take its last bytes"),
    }
    outbox.close();
    over.send_replace(true);
}

async fn closed_for_long(outbox: &Outbox) {
    while !outbox.is_closed() {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    tokio::time::sleep(LAST_WORDS).await;
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// What comes out of a stream of these bytes, and what ended it.
    async fn read_all(bytes: &[u8]) -> (Vec<Vec<u8>>, io::ErrorKind) {
        let ((arrived, mut datagrams), (over, _watch), why) = (mpsc::channel(8), watch::channel(false), Arc::default());
        read(bytes, arrived, over.clone(), Arc::clone(&why)).await;
        assert!(*over.borrow());
        let mut all = Vec::new();
        while let Some(datagram) = datagrams.recv().await {
            all.push(datagram);
        }
        let kind = why.lock().unwrap().as_ref().unwrap().kind();
        (all, kind)
    }

    #[tokio::test]
    async fn a_stream_is_taken_apart_and_its_bounds_hold() {
        let longest = [&[5, 192][..], &[3; 1472]].concat();
        assert_eq!(read_all(&longest).await, (vec![vec![3; 1472]], io::ErrorKind::UnexpectedEof));
        assert_eq!(read_all(&[0, 2, 1, 2, 0, 1, 9]).await, (vec![vec![1, 2], vec![9]], io::ErrorKind::UnexpectedEof));
        assert_eq!(read_all(&[0, 1, 9, 5, 193, 7, 7]).await, (vec![vec![9]], io::ErrorKind::InvalidData));
        assert_eq!(read_all(&[0, 0, 1]).await, (vec![], io::ErrorKind::InvalidData));
        assert_eq!(read_all(&[0, 9, 1]).await, (vec![], io::ErrorKind::UnexpectedEof));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_left_behind() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let ((over, mut ended), outbox) = (watch::channel(false), Arc::new(Outbox::default()));
        tokio::spawn(write(ours, Arc::clone(&outbox), over));
        assert!(outbox.push(&[7; 1000]));
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!*ended.borrow(), "it may be the line");
        outbox.close();
        tokio::time::timeout(2 * LAST_WORDS, ended.wait_for(|over| *over)).await.unwrap().unwrap();
    }
}
