//! Where what ACME gives is kept: the account, and a file a name with certificate and key.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use crate::seal;

const ACCOUNT: &str = "account.json";

/// The directory, locked: other gateways that share it wait.
#[derive(Debug)]
pub struct Store {
    directory: PathBuf,
    _lock: File,
}

impl Store {
    /// Makes the directory where there is none. `None`: another gateway is at work in it.
    ///
    /// # Errors
    /// It cannot be made or written.
    pub fn open(directory: &Path) -> io::Result<Option<Store>> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let mut options = OpenOptions::new();
        let lock =
            options.create(true).truncate(false).write(true).mode(0o600).open(directory.join(".lock"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(Store { directory: directory.to_owned(), _lock: lock })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// The account as it was kept, if any.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn account(&self) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.directory.join(ACCOUNT)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// # Errors
    /// It cannot be written.
    pub fn keep_account(&self, bytes: &[u8]) -> io::Result<()> {
        seal::write(&self.directory.join(ACCOUNT), bytes)
    }

    /// Certificate and key at once: nobody ever sees one of them without the other.
    ///
    /// # Errors
    /// They cannot be written.
    pub fn keep_pair(&self, path: &Path, chain: &str, key: &str) -> io::Result<()> {
        seal::write(path, format!("{chain}\n{key}").as_bytes())
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
        let store = Store::open(&at).unwrap().unwrap();
        assert!(Store::open(&at).unwrap().is_none());
        assert_eq!(store.account().unwrap(), None);
        store.keep_account(b"secret").unwrap();
        store.keep_pair(&at.join("a.example.pem"), "chain", "key").unwrap();
        assert_eq!(store.account().unwrap().as_deref(), Some(&b"secret"[..]));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&at), mode(&at.join("a.example.pem"))), (0o700, 0o600));
        drop(store);
        assert!(Store::open(&at).unwrap().is_some());
    }
}
