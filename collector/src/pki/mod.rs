//! `pki`: a certificate authority in a folder, for those who have none.
//!
//! | file | what it is | who needs it |
//! |---|---|---|
//! | `ca.pem` | the authority's certificate | the collector and every site |
//! | `ca.key` | its key: whoever has it can be any site | nobody but this command; keep it off the collector |
//! | `server.pem`, `server.key` | the collector's certificate and key | the collector |
//! | `SITE.pem`, `SITE.key` | a site's certificate and key | that site's agent |
//!
//! Keys are made here, on this machine, with mode 0600, and nothing is ever overwritten. See `docs/certificates.md`.

mod files;
mod make;
mod show;

#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::{Args, Subcommand};
use time::OffsetDateTime;

/// Days that an authority lasts. Replacing it means touching every site, so it outlives the gateways.
const CA_DAYS: u32 = 3650;

/// Days that a certificate lasts: 27 months, so that a yearly visit with room for a late one renews it in time, and a stolen key does
/// not serve for ever.
const CERTIFICATE_DAYS: u32 = 825;

/// Make and look at the certificates that sites and collectors prove themselves with.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the authority, and the collector's certificate for the names that agents will dial.
    ///
    /// Makes what is missing: in an empty folder ca.pem, ca.key, server.pem and server.key; where the authority exists already (after
    /// server.pem and server.key were moved away, or with --out) a new certificate for the collector.
    ///
    /// Example: spillway-collector pki init --dir pki --host central.example.com 203.0.113.7
    Init(InitArgs),
    /// Make the certificate of a site.
    ///
    /// Writes SITE.pem, SITE.key and a copy of ca.pem: the three files that `[tls]` of the site's agent.toml names.
    ///
    /// Example: spillway-collector pki issue plant-7 --dir pki --out plant-7
    Issue(IssueArgs),
    /// Print what certificates say: for whom, by whom, until when.
    ///
    /// Example: spillway-collector pki show pki/server.pem plant-7/plant-7.pem
    Show(ShowArgs),
}

/// Arguments of `pki init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Folder of the authority; made with mode 0700 if it is missing.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub dir: PathBuf,
    /// Names and IP addresses under which agents dial this collector; collector.address of an agent must be one of them.
    #[arg(long, value_name = "NAME", required = true, num_args = 1.., value_parser = make::Host::parse)]
    pub host: Vec<make::Host>,
    /// Folder for server.pem and server.key, with a copy of ca.pem [default: DIR].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Days that the collector's certificate lasts.
    #[arg(long, value_name = "DAYS", default_value_t = CERTIFICATE_DAYS, value_parser = days())]
    pub days: u32,
    /// Days that the authority lasts, if it is made now. Ten years: replacing it means visiting every site.
    #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = days())]
    pub ca_days: u32,
}

/// Arguments of `pki issue`.
#[derive(Debug, Args)]
pub struct IssueArgs {
    /// The site's name: letters, digits, - and _, at most 32. Its topics will be SITE.TOPIC at the centre.
    #[arg(value_name = "SITE", value_parser = make::site)]
    pub site: spillway_proto::SiteName,
    /// Folder of the authority, as given to `pki init`.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    pub dir: PathBuf,
    /// Folder for the three files; made if it is missing [default: DIR].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Days that the certificate lasts.
    #[arg(long, value_name = "DAYS", default_value_t = CERTIFICATE_DAYS, value_parser = days())]
    pub days: u32,
}

/// Arguments of `pki show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// PEM files with certificates.
    #[arg(value_name = "FILE", required = true)]
    pub files: Vec<PathBuf>,
}

/// Does what `command` says; what was made or found is told to `out`.
///
/// # Errors
/// When a file is in the way, missing or no certificate, or cannot be written. Files that were written before stay.
pub fn run(command: &Command, out: &mut impl Write) -> Result<(), Error> {
    run_at(command, OffsetDateTime::now_utc(), out)
}

/// [`run`] at a given time.
fn run_at(command: &Command, now: OffsetDateTime, out: &mut impl Write) -> Result<(), Error> {
    match command {
        Command::Init(args) => make::init(args, now, out),
        Command::Issue(args) => make::issue(args, now, out),
        Command::Show(args) => show::show(args, now, out),
    }
}

/// At least a day; at most a century, beyond which dates stop meaning anything.
fn days() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=36_500)
}

/// Why nothing, or not everything, was made or shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of that name exists.
    #[error("{} exists and is never overwritten; move it away if it is to be replaced, or choose another --out", file.display())]
    Exists {
        /// The file in the way.
        file: PathBuf,
    },
    /// The folder holds one half of an authority.
    #[error("{} exists without {}; put the missing half back, or choose an empty --dir", present.display(), missing.display())]
    HalfAuthority {
        /// The half that is there.
        present: PathBuf,
        /// The half that is not.
        missing: PathBuf,
    },
    /// The folder holds no authority.
    #[error("{} is missing; --dir must name the folder that `spillway-collector pki init` made", file.display())]
    NoAuthority {
        /// The file that should be there.
        file: PathBuf,
    },
    /// Key and certificate of the authority are not a pair.
    #[error("no certificate in {} belongs to the key in {}; restore both from one backup", cert.display(), key.display())]
    AuthorityMismatch {
        /// `ca.pem`.
        cert: PathBuf,
        /// `ca.key`.
        key: PathBuf,
    },
    /// The authority's own time is over.
    #[error("the authority in {} expired on {not_after}; make a new one in another --dir (docs/certificates.md, \"A new authority\")", cert.display())]
    AuthorityExpired {
        /// `ca.pem`.
        cert: PathBuf,
        /// Its last day.
        not_after: String,
    },
    /// The output folder holds another authority's certificate.
    #[error("{} is of another authority than --dir; choose another --out", file.display())]
    OtherAuthority {
        /// The `ca.pem` in the output folder.
        file: PathBuf,
    },
    /// A name that would collide with the authority's own files.
    #[error("a site cannot be called {name:?}: its files would bear the authority's names")]
    ReservedSite {
        /// The name.
        name: String,
    },
    /// A file or folder cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file or folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The output cannot be written.
    #[error("cannot write the answer")]
    Output(#[from] io::Error),
    /// The file has no certificate.
    #[error("{} contains no certificate (-----BEGIN CERTIFICATE-----){}", file.display(), if *holds_key { ", but a private key" } else { "" })]
    NoCertificate {
        /// The file.
        file: PathBuf,
        /// Whether it holds a key instead.
        holds_key: bool,
    },
    /// A certificate cannot be parsed.
    #[error("the certificate in {} cannot be read", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
    },
    /// A key cannot be parsed or used.
    #[error("the key in {} cannot be used", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// What rcgen said.
        source: rcgen::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make the certificate")]
    Make(#[from] rcgen::Error),
}
