//! Which congestion control the kernel's TCP has on the link. New namespaces take over that of the machine, whichever that is, so whoever compares sets it.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::link::NETWORK;
use super::namespace::succeed;
use super::pump::DEVICE;
use super::{End, Wan};

/// What this kernel has loaded.
const AVAILABLE: &str = "/proc/sys/net/ipv4/tcp_available_congestion_control";

impl Wan {
    /// Gives TCP connections over the link that are made from now on, in either direction, the congestion control of that name (`cubic`, `bbr`).
    ///
    /// It belongs to the route: a namespace may not choose by `net.ipv4.tcp_congestion_control` what the machine does not allow to everybody.
    ///
    /// # Errors
    /// When the kernel lacks it.
    pub fn set_tcp_congestion(&self, name: &str) -> Result<()> {
        [End::Edge, End::Centre].into_iter().try_for_each(|end| self.route(end, "main", name))
    }

    /// The same for connections to this port of the centre only; all others keep what they have. A port is given its own once.
    ///
    /// # Errors
    /// When the kernel lacks it, or policy routing.
    pub fn set_tcp_congestion_to(&self, port: u16, name: &str) -> Result<()> {
        // The table has the number of the port, which is above those that mean something.
        let table = port.to_string();
        for (end, selector) in [(End::Edge, "dport"), (End::Centre, "sport")] {
            self.route(end, &table, name)?;
            self.inside(end, || succeed(Command::new("ip").args(["rule", "add", selector, &table, "lookup", &table])))?;
        }
        Ok(())
    }

    fn route(&self, end: End, table: &str, congestion: &str) -> Result<()> {
        let source = end.address().to_string();
        let route = [NETWORK, "dev", DEVICE, "proto", "kernel", "scope", "link", "src", &source, "table", table, "congctl", congestion];
        self.inside(end, || succeed(Command::new("ip").args(["route", "replace"]).args(route)).with_context(|| missing(congestion)))
    }

    /// What the open TCP connections to this port of the centre have, as `end` sees them.
    ///
    /// # Errors
    /// When `ss` (iproute2) cannot be run.
    pub fn tcp_congestions(&self, end: End, port: u16) -> Result<BTreeSet<String>> {
        let available = self.inside(end, || Ok(std::fs::read_to_string(AVAILABLE)?))?;
        // Not what an end says to itself, also under the address that the other one knows.
        let side = if end == End::Edge { "dport" } else { "sport" };
        let others = format!("dst {NETWORK} and not dst {} and {side} = :{port}", end.address());
        let output = self.run(end, Command::new("ss").args(["-tinH", "state", "established"]).args(others.split(' ')))?;
        ensure!(output.status.success(), "ss failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(named(&String::from_utf8_lossy(&output.stdout), &available))
    }
}

/// What to say when the kernel lacks a congestion control.
#[must_use]
pub fn missing(name: &str) -> String {
    format!("this kernel has no TCP congestion control {name:?} (modprobe tcp_{name})")
}

/// Of the available ones, those that `ss -i` names: words of their own, among others (`ts sack cubic wscale:7,7 …`).
fn named(text: &str, available: &str) -> BTreeSet<String> {
    let available: BTreeSet<&str> = available.split_whitespace().collect();
    text.split_whitespace().filter(|word| available.contains(word)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_congestion_controls_are_found_in_what_ss_prints() {
        let text = "0 181344 10.93.0.2:44208 10.93.0.1:38243\n\t ts sack bbr wscale:7,7 rto:504 rtt:303.128/1.5 bbr:(bw:1.9Mbps,mrtt:300)\n\
                    0 0 10.93.0.2:44210 10.93.0.1:38243\n\t ts sack cubic wscale:7,7 rto:504 rtt:303.128/1.5 app_limited\n";
        let found: Vec<String> = named(text, "reno bbr cubic\n").into_iter().collect();
        assert_eq!(found, ["bbr", "cubic"]);
        assert!(named("rto:504 reno:1", "reno bbr cubic").is_empty());
    }
}
