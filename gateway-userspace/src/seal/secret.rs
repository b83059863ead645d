//! Reading a secret from where the config says that it is.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use crate::config::model::Secret;

const MOST: u64 = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("cannot read {}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    #[error("{} can be read by others than its owner (mode {mode:04o}): chmod 600 it", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("the secret in {0} is empty")]
    Empty(String),
    #[error("{} is larger than 64 KiB", .0.display())]
    TooLarge(PathBuf),
    #[error("the environment variable {0} is not set")]
    NoVariable(String),
    #[error("the credential {0}: there is no $CREDENTIALS_DIRECTORY, which a service manager sets")]
    NoCredentials(String),
}

/// The secret's bytes, without a line's end behind them. A file must be its owner's alone; what a service manager hands
/// over is so by itself.
///
/// # Errors
/// It is not there, or not secret.
pub fn read(secret: &Secret) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let (mut bytes, place) = match secret {
        Secret::File(path) => (of_file(path, true)?, path.display().to_string()),
        Secret::Env(variable) => {
            let value = std::env::var(variable).map_err(|_| SecretError::NoVariable(variable.clone()))?;
            (Zeroizing::new(value.into_bytes()), format!("${variable}"))
        }
        Secret::Credential(name) => {
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
                .ok_or_else(|| SecretError::NoCredentials(name.clone()))?;
            (of_file(&PathBuf::from(directory).join(name), false)?, format!("the credential {name}"))
        }
    };
    while matches!(bytes.last(), Some(b'\n' | b'\r')) {
        bytes.pop();
    }
    match bytes.is_empty() {
        true => Err(SecretError::Empty(place)),
        false => Ok(bytes),
    }
}

fn of_file(path: &Path, checked: bool) -> Result<Zeroizing<Vec<u8>>, SecretError> {
    let failed = |error| SecretError::Read { path: path.to_owned(), error };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened: the name may be another file's by now.
    let meta = file.metadata().map_err(failed)?;
    let mode = meta.permissions().mode() & 0o7777;
    if checked && mode & 0o077 != 0 {
        return Err(SecretError::Open { path: path.to_owned(), mode });
    }
    if meta.len() > MOST {
        return Err(SecretError::TooLarge(path.to_owned()));
    }
    // Not grown while it is read: what a vector leaves behind is not wiped.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST as usize));
    file.take(MOST).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_must_be_its_owners_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        fs::write(&path, "s3cret\r\n\n").unwrap();
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let secret = Secret::File(path.clone());
        for open in [0o644, 0o640, 0o604, 0o660] {
            mode(open);
            assert!(matches!(read(&secret), Err(SecretError::Open { .. })), "{open:o}");
        }
        mode(0o600);
        assert_eq!(read(&secret).unwrap().as_slice(), b"s3cret");
        fs::write(&path, "\n").unwrap();
        assert!(matches!(read(&secret), Err(SecretError::Empty(_))));
        fs::write(&path, vec![b'x'; 70_000]).unwrap();
        assert!(matches!(read(&secret), Err(SecretError::TooLarge(_))));
        assert!(matches!(read(&Secret::File(dir.path().join("none"))), Err(SecretError::Read { .. })));
        assert!(matches!(read(&Secret::Env("GATEWAY_NO_SUCH".into())), Err(SecretError::NoVariable(_))));
    }
}
