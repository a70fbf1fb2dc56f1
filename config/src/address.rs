use std::fmt;
use std::str::FromStr;

use crate::layer::{Item, Value};
use crate::parse::{self, Flaw};

/// A host, by name or address, and a port: `central.example.com:4433`, `192.0.2.1:4433`, `[2001:db8::1]:4433`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address, without brackets.
    pub host: String,
    /// 1 to 65535.
    pub port: u16,
}

/// Why a text is not a [`HostPort`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No `:port` at the end.
    #[error("an address without a port")]
    PortMissing,
    /// What follows the last colon is no number from 1 to 65535.
    #[error("an address whose port is not a number from 1 to 65535")]
    PortMalformed,
    /// Nothing before the port, or a character that host names do not have.
    #[error("not a host and a port")]
    HostMalformed,
    /// `https://…`: how is not said here.
    #[error("a URL")]
    Url,
    /// An IPv6 address without brackets: the port cannot be told from the address.
    #[error("an IPv6 address without brackets")]
    BracketsMissing,
}

impl Error {
    /// What to do about `text`, of a service that usually has this port.
    fn fix(self, text: &str, usual_port: u16) -> String {
        match self {
            Self::BracketsMissing => format!("put the address in brackets: \"[2001:db8::1]:{usual_port}\""),
            Self::PortMissing => format!("add the port: \"{text}:{usual_port}\""),
            Self::Url => "write host and port only".to_owned(),
            Self::PortMalformed | Self::HostMalformed => advice(usual_port),
        }
    }
}

impl FromStr for HostPort {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if text.contains("://") {
            return Err(Error::Url);
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, after) = rest.split_once(']').ok_or(Error::HostMalformed)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| Error::HostMalformed)?;
                (address, after.strip_prefix(':').ok_or(Error::PortMissing)?)
            }
            None => {
                if text.parse::<std::net::Ipv6Addr>().is_ok() || text.matches(':').count() > 1 {
                    return Err(Error::BracketsMissing);
                }
                text.split_once(':').ok_or(Error::PortMissing)?
            }
        };
        let is_host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if host.is_empty() || !host.chars().all(is_host_char) {
            return Err(Error::HostMalformed);
        }
        match port.parse() {
            // A sign would be parsed, too.
            Ok(number) if number > 0 && !port.starts_with('+') => Ok(Self { host: host.to_owned(), port: number }),
            _ => Err(Error::PortMalformed),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') { write!(f, "[{}]:{}", self.host, self.port) } else { write!(f, "{}:{}", self.host, self.port) }
    }
}

/// One address or several: a text (several with commas) or a list; from 1 to `most`, of a service that usually has this port.
pub(crate) fn list(item: &Item, most: usize, usual_port: u16) -> Result<Vec<HostPort>, Flaw> {
    // A text is taken apart at its commas, as one from a variable is.
    let untyped = match &item.value {
        Value::Text(text) => Item { value: Value::Untyped(text.clone()), ..item.clone() },
        _ => item.clone(),
    };
    let elements = parse::elements(&untyped).map_err(|flaw| Flaw { fix: advice(usual_port), ..flaw })?;
    if elements.is_empty() || elements.len() > most {
        let what = format!("{} addresses, 1 to {most} are allowed", elements.len());
        return Err(Flaw::new(what, advice(usual_port)));
    }
    let address = |element: &Item| {
        let text = parse::text(element)?;
        text.parse().map_err(|error: Error| {
            let subject = if elements.len() > 1 { format!("\"{text}\" is ") } else { String::new() };
            Flaw::new(format!("{subject}{error}"), error.fix(&text, usual_port))
        })
    };
    elements.iter().map(address).collect()
}

fn advice(usual_port: u16) -> String {
    format!("write \"host:{usual_port}\", or a list: [\"host-1:{usual_port}\", \"host-2:{usual_port}\"]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_what_it_prints() {
        for text in ["central.example.com:4433", "192.0.2.1:1", "[2001:db8::1]:65535", "kafka_1:9092"] {
            assert_eq!(text.parse::<HostPort>().map(|address| address.to_string()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_is_wrong_is_told_apart() {
        for (text, error) in [
            ("central", Error::PortMissing),
            ("[2001:db8::1]", Error::PortMissing),
            ("central:0", Error::PortMalformed),
            ("central:65536", Error::PortMalformed),
            ("central:+1", Error::PortMalformed),
            ("central:", Error::PortMalformed),
            (":4433", Error::HostMalformed),
            ("cen tral:4433", Error::HostMalformed),
            ("[central]:4433", Error::HostMalformed),
            ("[2001:db8::1:4433", Error::HostMalformed),
            ("2001:db8::1", Error::BracketsMissing),
            ("2001:db8::1:4433", Error::BracketsMissing),
            ("quic://central:4433", Error::Url),
        ] {
            assert_eq!(text.parse::<HostPort>(), Err(error), "{text}");
        }
    }
}
