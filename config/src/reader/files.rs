//! Files that a configuration names: values, certificates, keys, folders.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::{Found, Reported, Table};
use crate::layer::Item;
use crate::parse::{self, Flaw};

/// Most bytes of a configuration file: far more than a person writes.
pub(crate) const CONFIG_FILE_MAX_BYTES: u64 = 1 << 20;

/// Most bytes of a file with one value.
const VALUE_FILE_MAX_BYTES: u64 = 64 << 10;

/// Most bytes of a PEM file that are looked at; a bundle of all public authorities has about 230 KiB.
const PEM_FILE_MAX_BYTES: u64 = 4 << 20;

/// What a PEM file should have in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pem {
    Certificate,
    PrivateKey,
}

impl Pem {
    fn noun(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::PrivateKey => "private key",
        }
    }

    /// The end of the line that opens a block of this kind: `-----BEGIN … PRIVATE KEY-----`, whatever the algorithm.
    fn label_end(self) -> &'static str {
        match self {
            Self::Certificate => "CERTIFICATE-----",
            Self::PrivateKey => "PRIVATE KEY-----",
        }
    }
}

impl Table<'_> {
    /// A PEM file that must be set, exist and hold what it should; `fix` says how to come by one.
    pub(crate) fn required_pem(&self, key: &str, pem: Pem, fix: &str) -> Result<PathBuf, Reported> {
        let path = self.required(key, |item| self.pem(item, pem, fix))?;
        if pem == Pem::PrivateKey {
            self.warn_about_key(key, &path);
        }
        Ok(path)
    }

    /// As [`Table::required_pem`], for a key that need not be set.
    pub(crate) fn optional_pem(&self, key: &str, pem: Pem, fix: &str) -> Result<Option<PathBuf>, Reported> {
        let path = self.optional(key, |item| self.pem(item, pem, fix))?;
        if let Some(path) = path.as_ref().filter(|_| pem == Pem::PrivateKey) {
            self.warn_about_key(key, path);
        }
        Ok(path)
    }

    /// A file with a key of any form that need not be set, but if it is, must be readable; `fix` says how to come by one.
    pub(crate) fn optional_key_file(&self, key: &str, fix: &str) -> Result<Option<PathBuf>, Reported> {
        let path = self.optional(key, |item| {
            let path = self.resolve(item)?;
            open(&path).map(drop).map_err(|error| unreadable(&path, &error, fix))?;
            Ok(path)
        })?;
        if let Some(path) = &path {
            self.warn_about_key(key, path);
        }
        Ok(path)
    }

    /// A path that is always set. Whether there is anything is not looked at.
    pub(crate) fn required_path(&self, key: &str) -> Result<PathBuf, Reported> {
        self.required(key, |item| self.resolve(item))
    }

    /// A folder that need not be set, but if it is, must exist and be readable.
    pub(crate) fn optional_folder(&self, key: &str) -> Result<Option<PathBuf>, Reported> {
        self.optional(key, |item| {
            let path = self.resolve(item)?;
            match std::fs::read_dir(&path) {
                Ok(_) => Ok(path),
                Err(error) => {
                    let folder = path.display();
                    let what = match error.kind() {
                        io::ErrorKind::NotFound => format!("no folder {folder}"),
                        kind => format!("{folder} cannot be read as a folder: {kind}"),
                    };
                    Err(Flaw::new(what, "create the folder, readable for the user that this program runs as"))
                }
            }
        })
    }

    /// Warns where somebody else may read a file that holds a secret.
    pub(super) fn warn_if_open(&self, found: &Found<'_>, path: &Path) {
        if is_open_to_others(path) {
            let flaw = Flaw::new(
                format!("{} holds a secret and other users may read it", path.display()),
                format!("chmod o-rwx,g-w {}", path.display()),
            );
            let warning = self.note(&Found { item: found.item.clone(), label: found.label.clone(), hidden: true }, flaw);
            self.reader.warning(warning);
        }
    }

    fn warn_about_key(&self, key: &str, path: &Path) {
        if let Ok(Some(found)) = self.find(key) {
            self.warn_if_open(&found, path);
        }
    }

    fn resolve(&self, item: &Item) -> Result<PathBuf, Flaw> {
        Ok(self.reader.folder().join(parse::text(item)?))
    }

    fn pem(&self, item: &Item, pem: Pem, fix: &str) -> Result<PathBuf, Flaw> {
        let path = self.resolve(item)?;
        let text = read_capped(&path, PEM_FILE_MAX_BYTES).map_err(|error| unreadable(&path, &error, fix))?;
        let is_opening = |line: &str| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(pem.label_end());
        if text.lines().any(is_opening) {
            return Ok(path);
        }
        let noun = pem.noun();
        Err(Flaw::new(format!("{} has no {noun} in PEM form in it", path.display()), fix))
    }
}

/// The text of a file that holds one value, without line ends at its end.
pub(super) fn read_value(path: &Path) -> Result<String, Flaw> {
    let fix = "name a file that holds the value and nothing else, readable for the user that this program runs as";
    let text = read_capped(path, VALUE_FILE_MAX_BYTES).map_err(|error| unreadable(path, &error, fix))?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

/// Reads a text of at most `most` bytes.
pub(crate) fn read_capped(path: &Path, most: u64) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.take(most + 1).read_to_string(&mut text)?;
    if text.len() as u64 > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(text)
}

/// Opens a file to read it; a folder is none.
fn open(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    if file.metadata()?.is_dir() { Err(io::ErrorKind::IsADirectory.into()) } else { Ok(file) }
}

fn unreadable(path: &Path, error: &io::Error, fix: &str) -> Flaw {
    let kind = error.kind();
    let what = match kind {
        io::ErrorKind::NotFound => format!("no file {}", path.display()),
        _ => format!("{} cannot be read: {kind}", path.display()),
    };
    let fix = match kind {
        io::ErrorKind::PermissionDenied => "make it readable for the user that this program runs as",
        _ => fix,
    };
    Flaw::new(what, fix)
}

#[cfg(unix)]
fn is_open_to_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    /// Readable or writable for everybody, or writable for the group. A group that may read is how services share a key.
    const OPEN: u32 = 0o026;
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & OPEN != 0)
}

#[cfg(not(unix))]
fn is_open_to_others(_path: &Path) -> bool {
    false
}
