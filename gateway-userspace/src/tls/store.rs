//! Where what ACME gives is kept: the account, and a file a name with certificate and key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::seal::{FileError, Kept, Vault};

const ACCOUNT: &str = "account.json";
const ACCOUNT_PURPOSE: &str = "acme account";

/// The directory, locked: other gateways that share it wait.
#[derive(Debug)]
pub struct Store<'a> {
    directory: PathBuf,
    vault: &'a Vault,
    _lock: File,
}

/// What the file of a certificate is for: none can be put in another's place.
pub(super) fn purpose(path: &Path) -> String {
    format!("acme {}", path.file_name().unwrap_or_default().to_string_lossy())
}

impl<'a> Store<'a> {
    /// Makes the directory where there is none. `None`: another gateway is at work in it.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(directory: &Path, vault: &'a Vault) -> io::Result<Option<Store<'a>>> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        let lock =
            options.create(true).truncate(false).write(true).mode(0o600).open(directory.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Store { directory: directory.to_owned(), vault, _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The account as it was kept, if any.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn account(&self) -> Result<Option<Kept>, FileError> {
        self.vault.read(&self.directory.join(ACCOUNT), ACCOUNT_PURPOSE)
    }

    /// # Errors
    /// It cannot be written.
    pub fn keep_account(&self, bytes: &[u8]) -> Result<(), FileError> {
        self.vault.write(&self.directory.join(ACCOUNT), ACCOUNT_PURPOSE, bytes)
    }

    /// Certificate and key at once: nobody ever sees one of them without the other.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep_pair(&self, path: &Path, chain: &str, key: &str) -> Result<(), FileError> {
        let both = Zeroizing::new(format!("{chain}\n{key}"));
        self.vault.write(path, &purpose(path), both.as_bytes())
    }

    /// Seals what is not sealed, or with an earlier key: how many files.
    ///
    /// # Errors
    /// One of them cannot be opened or written.
    pub fn seal_anew(&self) -> Result<usize, FileError> {
        let failed = |error: io::Error| FileError::new(&self.directory, error);
        let mut sealed = usize::from(self.vault.renew(&self.directory.join(ACCOUNT), ACCOUNT_PURPOSE)?);
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pem") {
                sealed += usize::from(self.vault.renew(&path, &purpose(&path))?);
            }
        }
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_is_kept_is_for_its_owner_and_one_gateway_at_a_time_writes() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path().join("a/acme");
        let vault = Vault::default();
        let store = Store::open(&at, &vault).unwrap().unwrap();
        assert!(Store::open(&at, &vault).unwrap().is_none());
        assert!(store.account().unwrap().is_none());
        store.keep_account(b"secret").unwrap();
        store.keep_pair(&at.join("a.example.pem"), "chain", "key").unwrap();
        assert_eq!(store.account().unwrap().unwrap().plain.as_slice(), b"secret");
        assert_eq!(store.seal_anew().unwrap(), 0, "there is no key");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&at), mode(&at.join("a.example.pem"))), (0o700, 0o600));
        drop(store);
        assert!(Store::open(&at, &vault).unwrap().is_some());
    }
}
