//! Certificates and keys out of PEM files.

use std::{fs, path::Path};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use super::Error;

/// Largest PEM file that is read. A chain of ten certificates with 4096-bit RSA keys is below 30 KiB.
pub(super) const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// Every certificate in the file; `key` is the setting that names it.
pub(super) fn certificates(file: &Path, key: &'static str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let pem = read(file, key)?;
    let found: Vec<_> =
        CertificateDer::pem_slice_iter(&pem).collect::<Result<_, _>>().map_err(|source| Error::Pem { file: file.to_owned(), source })?;
    if found.is_empty() {
        return Err(Error::NoCertificate { key, file: file.to_owned() });
    }
    Ok(found)
}

/// The private key in the file.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let pem = read(file, "key")?;
    warn_if_public(file);
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(key) => Ok(key),
        Err(rustls_pki_types::pem::Error::NoItemsFound) if is_encrypted(&pem) => Err(Error::KeyEncrypted { file: file.to_owned() }),
        Err(rustls_pki_types::pem::Error::NoItemsFound) => Err(Error::NoKey { file: file.to_owned() }),
        Err(source) => Err(Error::Pem { file: file.to_owned(), source }),
    }
}

/// Group access is a choice (root:spillway, 0640); access for everybody is a mistake, but not one to stop a site for.
fn warn_if_public(file: &Path) {
    use std::os::unix::fs::PermissionsExt;

    if fs::metadata(file).is_ok_and(|metadata| metadata.permissions().mode() & 0o004 != 0) {
        tracing::warn!(file = %file.display(), "every user of this machine can read the private key; chmod 600 it");
    }
}

fn is_encrypted(pem: &[u8]) -> bool {
    String::from_utf8_lossy(pem).contains("-----BEGIN ENCRYPTED PRIVATE KEY-----")
}

fn read(file: &Path, key: &'static str) -> Result<Vec<u8>, Error> {
    let error = |source| Error::Read { key, file: file.to_owned(), source };
    if fs::metadata(file).map_err(error)?.len() > MAX_PEM_BYTES {
        return Err(Error::TooLarge { key, file: file.to_owned() });
    }
    fs::read(file).map_err(error)
}
