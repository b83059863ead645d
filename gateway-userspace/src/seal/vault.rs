//! The gateway's own files, written and read in one way: sealed where the config has a key.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use zeroize::Zeroizing;

use super::{SealError, Sealer, write};
use crate::config::{ConfigErrors, Problem, Problems, model::Config};

/// What files are sealed with; without a key they are not.
#[derive(Debug, Default)]
pub struct Vault {
    sealer: Option<Sealer>,
}

/// What was in a file.
#[derive(Debug)]
pub struct Kept {
    pub plain: Zeroizing<Vec<u8>>,
    /// It would be written otherwise now: it is not sealed, or with an earlier key.
    pub outdated: bool,
    sealed: bool,
}

impl Kept {
    /// `None`: it was not sealed, and may be anybody's.
    pub fn sealed(&self) -> Option<&[u8]> {
        self.sealed.then_some(&self.plain)
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {error}", path.display())]
pub struct FileError {
    pub path: PathBuf,
    pub error: FileErrorKind,
}

#[derive(Debug, thiserror::Error)]
pub enum FileErrorKind {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error("it is sealed, and there is no key to open it with: name it as `key` in [state]")]
    NoKey,
}

impl FileError {
    pub fn new(path: &Path, error: impl Into<FileErrorKind>) -> Self {
        FileError { path: path.to_owned(), error: error.into() }
    }

    /// It is there, and cannot be opened.
    pub fn is_sealed(&self) -> bool {
        !matches!(self.error, FileErrorKind::Io(_))
    }
}

impl Vault {
    /// `old` goes on if its keys are the same.
    ///
    /// # Errors
    /// A key cannot be read, or is none.
    pub fn load(config: &Config, old: Option<&Arc<Vault>>) -> Result<Arc<Vault>, ConfigErrors> {
        let sealer = Sealer::new(&config.state).map_err(|error| {
            let file = config.files.first().cloned().unwrap_or_default();
            let mut problems = Problems::default();
            problems.push(Problem::file(&file, format!("`state`: {error}")));
            problems.into_errors()
        })?;
        let new = Vault { sealer };
        Ok(old.filter(|old| new.is(old)).cloned().unwrap_or_else(|| Arc::new(new)))
    }

    /// Whether both have the same keys, or none.
    pub fn is(&self, other: &Vault) -> bool {
        match (&self.sealer, &other.sealer) {
            (None, None) => true,
            (Some(one), Some(two)) => one.is(two),
            _ => false,
        }
    }

    pub fn of(sealer: Option<Sealer>) -> Arc<Vault> {
        Arc::new(Vault { sealer })
    }

    pub fn sealer(&self) -> Option<&Sealer> {
        self.sealer.as_ref()
    }

    /// What is in a file; `None`: there is none. `purpose`: what it is for, as it was written.
    ///
    /// # Errors
    /// It cannot be read or opened.
    pub fn read(&self, path: &Path, purpose: &str) -> Result<Option<Kept>, FileError> {
        let failed = |error: FileErrorKind| FileError { path: path.to_owned(), error };
        let bytes = match fs::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => Zeroizing::new(read.map_err(|error| failed(error.into()))?),
        };
        match (&self.sealer, Sealer::made(&bytes)) {
            (None, true) => Err(failed(FileErrorKind::NoKey)),
            (None, false) => Ok(Some(Kept { plain: bytes, outdated: false, sealed: false })),
            (Some(_), false) => Ok(Some(Kept { plain: bytes, outdated: true, sealed: false })),
            (Some(sealer), true) => {
                let opened = sealer.open(purpose, &bytes).map_err(|error| failed(error.into()))?;
                Ok(Some(Kept { plain: opened.plain, outdated: opened.outdated, sealed: true }))
            }
        }
    }

    /// Writes a file for its owner only, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(&self, path: &Path, purpose: &str, plain: &[u8]) -> Result<(), FileError> {
        let named = |error: FileErrorKind| FileError { path: path.to_owned(), error };
        let written = match &self.sealer {
            None => write(path, plain),
            Some(sealer) => write(path, &sealer.seal(purpose, plain).map_err(|error| named(error.into()))?),
        };
        written.map_err(|error| named(error.into()))
    }

    /// Writes a file as it would be written now. Whether that is other than it was.
    ///
    /// # Errors
    /// It cannot be read, opened or written.
    pub fn renew(&self, path: &Path, purpose: &str) -> Result<bool, FileError> {
        match self.read(path, purpose)? {
            Some(Kept { plain, outdated: true, .. }) => self.write(path, purpose, &plain).map(|()| true),
            _ => Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::{Secret, State};

    fn vault(dir: &Path, secrets: &[&str]) -> Arc<Vault> {
        let mut keys = secrets.iter().map(|secret| {
            let path = dir.join(secret.replace(' ', "-"));
            write(&path, secret.as_bytes()).unwrap();
            Secret::File(path)
        });
        let key = keys.next();
        Vault::of(Sealer::new(&State { key, old_keys: keys.collect(), ..State::default() }).unwrap())
    }

    const ONE: &str = "the first secret of all";
    const TWO: &str = "the second secret of all";

    #[test]
    fn a_file_of_before_there_was_a_key_is_read_and_sealed_when_it_is_renewed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let (open, one) = (Vault::default(), vault(dir.path(), &[ONE]));
        assert!(open.read(&path, "x").unwrap().is_none());
        open.write(&path, "x", b"secret").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert!(one.read(&path, "x").unwrap().unwrap().outdated);
        assert!(one.renew(&path, "x").unwrap() && !one.renew(&path, "x").unwrap());
        assert!(!fs::read(&path).unwrap().windows(6).any(|part| part == b"secret"));
        assert_eq!(one.read(&path, "x").unwrap().unwrap().plain.as_slice(), b"secret");
        let refused = open.read(&path, "x").unwrap_err();
        assert!(refused.is_sealed() && refused.to_string().contains("name it as `key`"), "{refused}");
        assert!(one.read(&path, "y").unwrap_err().to_string().contains("another file's"));
    }

    #[test]
    fn a_wrong_key_is_told_and_the_next_one_takes_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        vault(dir.path(), &[ONE]).write(&path, "x", b"secret").unwrap();
        let wrong = vault(dir.path(), &[TWO]).read(&path, "x").unwrap_err();
        assert!(wrong.is_sealed() && wrong.to_string().contains("old_keys"), "{wrong}");
        assert!(vault(dir.path(), &[TWO, ONE]).renew(&path, "x").unwrap());
        assert_eq!(vault(dir.path(), &[TWO]).read(&path, "x").unwrap().unwrap().plain.as_slice(), b"secret");
    }
}
