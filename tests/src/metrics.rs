//! Reading what a binary says about itself: `/metrics`, `/status`, `/healthz`, `/readyz`.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result};

/// An admin endpoint answers at once or is stuck.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// Answer of an admin endpoint.
#[derive(Debug, Clone)]
pub struct Response {
    /// HTTP status code.
    pub status: u16,
    /// Body as text.
    pub body: String,
}

/// `GET path` on a port of 127.0.0.1.
///
/// # Errors
/// When nothing answers, or not HTTP.
pub fn get(port: u16, path: &str) -> Result<Response> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, REQUEST_LIMIT)?;
    stream.set_read_timeout(Some(REQUEST_LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("the answer has no status")?;
    let body = if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Ok(Response { status, body })
}

/// One reading of `/metrics`.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// By name with labels as printed: `spillway_wire_bytes_total{direction="out"}`.
    samples: BTreeMap<String, f64>,
}

impl Metrics {
    /// Reads `/metrics` of the binary whose admin endpoint is on `port`.
    ///
    /// # Errors
    /// When it does not answer.
    pub fn fetch(port: u16) -> Result<Self> {
        Ok(Self::parse(&get(port, "/metrics")?.body))
    }

    /// Parses the text format; lines that are no samples are skipped.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self { samples: text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect() }
    }

    /// The sum over all samples named `name` whose labels contain every text of `labels` (`reason="expired"`); 0 if none is.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let fits = |sample: &str| {
            let (bare, rest) = sample.split_once('{').unwrap_or((sample, ""));
            bare == name && labels.iter().all(|label| rest.contains(label))
        };
        self.samples.iter().filter(|(sample, _)| fits(sample)).map(|(_, value)| value).sum()
    }

    /// Whether any sample is named `name`.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.samples.keys().any(|sample| sample.split('{').next() == Some(name))
    }
}

fn unchunk(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let text = "# TYPE a counter\na_total{site=\"x\",reason=\"r\"} 2\na_total{site=\"y\",reason=\"r\"} 3.5\na_total_b 9\nplain 1\n";
        let metrics = Metrics::parse(text);
        assert_eq!(metrics.sum("a_total", &[]).to_bits(), 5.5_f64.to_bits());
        assert_eq!(metrics.sum("a_total", &["site=\"y\"", "reason=\"r\""]).to_bits(), 3.5_f64.to_bits());
        assert_eq!(metrics.sum("plain", &[]).to_bits(), 1_f64.to_bits());
        assert!(metrics.has("a_total_b") && !metrics.has("a"));
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
