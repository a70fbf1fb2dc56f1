//! Certificates of a stage, made by the real `spillway-collector pki`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::program::binary;
use crate::process::run;

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// PEM file of the certificate.
    pub cert: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// A certificate authority on disk.
#[derive(Debug, Clone)]
pub struct Pki {
    dir: PathBuf,
}

impl Pki {
    /// `pki init` for a collector reached as 127.0.0.1 or localhost.
    ///
    /// # Errors
    /// When the command fails.
    pub fn init(dir: &Path) -> Result<Self> {
        Self::init_for(dir, &["127.0.0.1", "localhost"])
    }

    /// `pki init` for a collector reached under these names and addresses.
    ///
    /// # Errors
    /// When the command fails.
    pub fn init_for(dir: &Path, hosts: &[&str]) -> Result<Self> {
        let dir_text = dir.display().to_string();
        pki(&[&["init", "--dir", &dir_text, "--host"], hosts].concat())?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// PEM file of the CA's certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// The collector's certificate.
    #[must_use]
    pub fn server(&self) -> Identity {
        Identity::in_dir(&self.dir, "server")
    }

    /// `pki issue SITE`.
    ///
    /// # Errors
    /// When the command fails, also because the site has a certificate already.
    pub fn issue(&self, site: &str) -> Result<Identity> {
        let out = self.dir.join(site);
        pki(&["issue", site, "--dir", &self.dir.display().to_string(), "--out", &out.display().to_string()])?;
        Ok(Identity::in_dir(&out, site))
    }
}

impl Identity {
    fn in_dir(dir: &Path, name: &str) -> Self {
        Self { cert: dir.join(format!("{name}.pem")), key: dir.join(format!("{name}.key")) }
    }
}

fn pki(args: &[&str]) -> Result<()> {
    let output = run(Command::new(binary("spillway-collector")?).arg("pki").args(args))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "spillway-collector pki {} failed ({}):\n{out}{err}", args.join(" "), output.status);
    Ok(())
}
