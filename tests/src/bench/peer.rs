//! Who is compared on a thin line. Every benchmark there takes some of them, and calls them by the same names.

use std::fmt;

use anyhow::{Context as _, Result, ensure};
use clap::builder::{PossibleValuesParser, TypedValueParser};

use super::mirror::Mirror;
use crate::java;
use crate::wan::namespace::problem;

/// A way to the centre, with its congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peer {
    /// Ours, with the settings that it ships with.
    Spillway,
    /// quinn as it is.
    Quinn(Congestion),
    /// The kernel's TCP, without anything above it.
    Tcp(Congestion),
    /// A dedicated MirrorMaker 2, on the kernel's TCP.
    MirrorMaker(Mirror),
}

/// A congestion control that both quinn and the kernel have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438: what almost everything has that nobody has changed.
    Cubic,
    /// Version 1 in both.
    Bbr,
}

impl Peer {
    /// In the order of the tables.
    pub const ALL: [Self; 9] = [
        Self::Spillway,
        Self::Quinn(Congestion::Cubic),
        Self::Quinn(Congestion::Bbr),
        Self::Tcp(Congestion::Cubic),
        Self::Tcp(Congestion::Bbr),
        Self::MirrorMaker(Mirror { tuned: false, congestion: Congestion::Cubic }),
        Self::MirrorMaker(Mirror { tuned: false, congestion: Congestion::Bbr }),
        Self::MirrorMaker(Mirror { tuned: true, congestion: Congestion::Cubic }),
        Self::MirrorMaker(Mirror { tuned: true, congestion: Congestion::Bbr }),
    ];

    /// The same without bare TCP, which is no program: nobody dials again, and what it writes it writes raw, as quinn does.
    pub const PROGRAMS: [Self; 7] = [Self::ALL[0], Self::ALL[1], Self::ALL[2], Self::ALL[5], Self::ALL[6], Self::ALL[7], Self::ALL[8]];

    /// What it is called, on the command line too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Spillway => "spillway",
            Self::Quinn(Congestion::Cubic) => "quinn-cubic",
            Self::Quinn(Congestion::Bbr) => "quinn-bbr",
            Self::Tcp(Congestion::Cubic) => "tcp-cubic",
            Self::Tcp(Congestion::Bbr) => "tcp-bbr",
            Self::MirrorMaker(mirror) => mirror.name(),
        }
    }

    /// Those that run MirrorMaker 2, of `peers`.
    #[must_use]
    pub fn mirrors(peers: &[Self]) -> Vec<Mirror> {
        let mirror = |peer: &Self| if let Self::MirrorMaker(mirror) = peer { Some(*mirror) } else { None };
        peers.iter().filter_map(mirror).collect()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Congestion {
    /// As the kernel calls it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        }
    }
}

/// Reads names of those in `known`; `--help` lists them.
pub fn among(known: &[Peer]) -> impl TypedValueParser<Value = Peer> + use<> {
    let known = known.to_vec();
    let names = known.iter().map(|peer| peer.name()).collect::<Vec<_>>();
    PossibleValuesParser::new(names)
        .try_map(move |name| known.iter().copied().find(|peer| peer.name() == name).context("not one of the possible values"))
}

/// Those that were asked for; without a wish all that are known.
#[must_use]
pub fn chosen(wished: &[Peer], known: &[Peer]) -> Vec<Peer> {
    if wished.is_empty() { known.to_vec() } else { wished.to_vec() }
}

/// Those of all peers that this machine can measure, by how they are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Whether Spillway is among them.
    pub ours: bool,
    /// Stock quinn and bare TCP.
    pub bare: Vec<Peer>,
    /// MirrorMaker 2.
    pub mirrors: Vec<Mirror>,
}

impl Present {
    /// Of those that were asked for. Who needs a WAN, or Java, that cannot be had is left out, and it is told why; nobody is in a namespace yet, where no registry
    /// can be reached.
    ///
    /// # Errors
    /// When nobody is left.
    pub fn of(wished: &[Peer]) -> Result<Self> {
        let peers = chosen(wished, &Peer::ALL);
        let bare = |peer: &Peer| matches!(peer, Peer::Quinn(_) | Peer::Tcp(_));
        let mut present = Self {
            ours: peers.contains(&Peer::Spillway),
            bare: peers.iter().copied().filter(bare).collect(),
            mirrors: Peer::mirrors(&peers),
        };
        if let Some(problem) = problem().filter(|_| !(present.bare.is_empty() && present.mirrors.is_empty())) {
            println!("Only Spillway is measured, since a WAN for the others needs: {problem}");
            present.bare.clear();
            present.mirrors.clear();
        }
        if let Some(Err(error)) = (!present.mirrors.is_empty()).then(java::ready) {
            println!("MirrorMaker 2 is left out: {error:#}");
            present.mirrors.clear();
        }
        ensure!(present.ours || !(present.bare.is_empty() && present.mirrors.is_empty()), "nobody is left who can be measured here");
        Ok(present)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeSet;
    use std::ffi::OsStr;

    use super::*;

    #[test]
    fn each_is_read_by_its_own_name_where_it_is_known() {
        let command = clap::Command::new("bench");
        let names: BTreeSet<&str> = Peer::ALL.iter().map(|peer| peer.name()).collect();
        assert_eq!(names.len(), Peer::ALL.len());
        for peer in Peer::ALL {
            assert_eq!(among(&Peer::ALL).parse_ref(&command, None, OsStr::new(peer.name())).unwrap(), peer);
        }
        let error = among(&[Peer::Spillway]).parse_ref(&command, None, OsStr::new("tcp-bbr")).unwrap_err();
        assert!(error.to_string().contains("[possible values: spillway]"), "{error}");
        assert_eq!(chosen(&[], &[Peer::Spillway]), [Peer::Spillway]);
        assert_eq!(Present::of(&[Peer::Spillway]).unwrap(), Present { ours: true, bare: Vec::new(), mirrors: Vec::new() });
        assert_eq!(Peer::mirrors(&Peer::ALL).len(), 4);
        assert!(Peer::PROGRAMS.iter().all(|peer| !matches!(peer, Peer::Tcp(_))));
    }
}
