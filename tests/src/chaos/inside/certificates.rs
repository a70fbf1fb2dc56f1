//! The authority of all schedules.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Parser as _;
use spillway_collector::cli::{Cli, Command};

use super::super::scene::SITE;

/// Certificates, made once for all schedules: each has brokers of its own, so all can be the same site.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes them in `dir`.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make(dir: &Path) -> Result<Self> {
        let text = dir.display().to_string();
        for args in [vec!["init", "--dir", &text, "--host", "localhost", "127.0.0.1"], vec!["issue", SITE, "--dir", &text]] {
            let cli = Cli::try_parse_from(["spillway-collector", "pki"].into_iter().chain(args))?;
            let Command::Pki(command) = cli.command else { bail!("not pki") };
            spillway_collector::pki::run(&command, &mut Vec::new())?;
        }
        Ok(Self { dir: dir.to_owned() })
    }

    pub(super) fn tls(&self, name: &str) -> String {
        let file = |name: &str| self.dir.join(name).display().to_string();
        format!("[tls]\nca = '{}'\ncert = '{}'\nkey = '{}'\n", file("ca.pem"), file(&format!("{name}.pem")), file(&format!("{name}.key")))
    }
}
